//! The cluster-wide settings: what may be set, and what an unset one means (detection.md 4.2).

use std::fmt;

use crate::core::{MAX_MEMBERS, Millis};
use crate::wire::{Reader, WireError, Writer};

const SECOND: u32 = 1000;
const HOUR: u32 = 3600 * SECOND;
const WEEK: u32 = 7 * 24 * HOUR;

const KEEPALIVE_DEFAULT: u32 = SECOND;
const KEEPALIVE_MIN: u32 = 10;
const INITDEAD_DEFAULT: u32 = 120 * SECOND;
const INITDEAD_ADVISED: u32 = 10 * SECOND;
const SETTLE_MAX: Millis = 10 * SECOND as Millis;

/// Cluster-wide settings, the same on every node. All times in milliseconds.
///
/// The fields hold what was set, where 0 mostly stands for "derived"; the methods give the values in
/// force. All of them are meaningful only for settings that [`Params::validate`] accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// Grows with every change; in a request the version expected, 0 for any.
    pub version: u64,
    /// Push interval; 0 = 1 s, else 10 ms .. 1 h.
    pub hb_keepalive: u32,
    /// Silence after which a node is LATE; 0 = derived.
    pub hb_warntime: u32,
    /// Silence before a verdict; 0 = detect and report, never exclude.
    pub hb_deadtime: u32,
    /// The same for a node never heard by the witness in its run; 0 = derived.
    pub hb_initdead: u32,
    /// How long a cut waits for others that fell silent at about the same time; 0 = derived.
    pub settle: u32,
    /// Fewest voters that automatic exclusion may leave; 0 = majority of the provisioned.
    pub min_nodes: u32,
}

/// Which rule the settings break, with the values, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamsError(String);

impl fmt::Display for ParamsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParamsError {}

fn rule(holds: bool, text: impl FnOnce() -> String) -> Result<(), ParamsError> {
    if holds {
        Ok(())
    } else {
        Err(ParamsError(text()))
    }
}

impl Params {
    /// Whether the settings may be put in force. Pure: every node must come to the same result.
    pub fn validate(&self) -> Result<(), ParamsError> {
        self.validate_ranges()?;
        let (keepalive, deadtime) = (self.keepalive_ms(), self.deadtime_ms());
        let (warntime, initdead) = (self.hb_warntime, self.hb_initdead);
        rule(deadtime == 0 || deadtime > 2 * keepalive, || {
            format!(
                "hb_deadtime {deadtime} ms must be 0 or more than twice hb_keepalive ({keepalive} ms)"
            )
        })?;
        rule(warntime == 0 || Millis::from(warntime) >= keepalive, || {
            format!("hb_warntime {warntime} ms must be at least hb_keepalive ({keepalive} ms)")
        })?;
        rule(deadtime == 0 || Millis::from(warntime) < deadtime, || {
            format!("hb_warntime {warntime} ms must be less than hb_deadtime ({deadtime} ms)")
        })?;
        let settle = Millis::from(self.settle);
        rule(deadtime == 0 || settle <= deadtime, || {
            format!("settle {settle} ms must be at most hb_deadtime ({deadtime} ms)")
        })?;
        rule(initdead == 0 || Millis::from(initdead) >= deadtime, || {
            format!("hb_initdead {initdead} ms must be at least hb_deadtime ({deadtime} ms)")
        })
    }

    fn validate_ranges(&self) -> Result<(), ParamsError> {
        let keepalive = self.hb_keepalive;
        rule(
            keepalive == 0 || (KEEPALIVE_MIN..=HOUR).contains(&keepalive),
            || format!("hb_keepalive {keepalive} ms must be {KEEPALIVE_MIN} ms to 1 hour"),
        )?;
        for (name, value) in [
            ("hb_warntime", self.hb_warntime),
            ("hb_deadtime", self.hb_deadtime),
            ("hb_initdead", self.hb_initdead),
            ("settle", self.settle),
        ] {
            rule(value <= WEEK, || {
                format!("{name} {value} ms must be at most 7 days")
            })?;
        }
        let min_nodes = self.min_nodes;
        rule(min_nodes as usize <= MAX_MEMBERS, || {
            format!("min_nodes {min_nodes} must be at most {MAX_MEMBERS}")
        })
    }

    /// What is allowed and still likely to be regretted, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let (keepalive, deadtime) = (self.keepalive_ms(), self.deadtime_ms());
        let mut out = Vec::new();
        if deadtime != 0 && deadtime < 10 * keepalive {
            out.push(format!(
                "hb_deadtime {deadtime} ms is less than 10 times hb_keepalive ({keepalive} ms): \
                 a few lost packets may look like a dead node"
            ));
        }
        if self.hb_initdead != 0 && self.hb_initdead < INITDEAD_ADVISED {
            out.push(format!(
                "hb_initdead {} ms is less than {INITDEAD_ADVISED} ms: \
                 a node that is slow to boot may be excluded",
                self.hb_initdead
            ));
        }
        out
    }

    /// Push interval in force.
    pub fn keepalive_ms(&self) -> Millis {
        Millis::from(match self.hb_keepalive {
            0 => KEEPALIVE_DEFAULT,
            set => set,
        })
    }

    /// Silence before a verdict; 0 = never.
    pub fn deadtime_ms(&self) -> Millis {
        Millis::from(self.hb_deadtime)
    }

    /// Silence after which a node is LATE; derived: half of deadtime or, without one, 10 keepalives.
    pub fn warntime_ms(&self) -> Millis {
        match (self.hb_warntime, self.deadtime_ms()) {
            (0, 0) => 10 * self.keepalive_ms(),
            // At least keepalive, because deadtime is more than twice that.
            (0, deadtime) => deadtime / 2,
            (set, _) => Millis::from(set),
        }
    }

    /// Silence before a verdict on a node never heard in the witness's run; derived: deadtime, but
    /// not less than two minutes, for machines take that long to boot.
    pub fn initdead_ms(&self) -> Millis {
        match self.hb_initdead {
            0 => self.deadtime_ms().max(Millis::from(INITDEAD_DEFAULT)),
            set => Millis::from(set),
        }
    }

    /// How long a cut waits for others; derived: a tenth of deadtime, at most 10 s, but never less
    /// than two keepalives, for nothing can be learnt sooner.
    pub fn settle_ms(&self) -> Millis {
        match self.settle {
            // Not `clamp`: with a long keepalive the lower bound is above the upper one.
            0 => (self.deadtime_ms() / 10)
                .min(SETTLE_MAX)
                .max(2 * self.keepalive_ms()),
            set => Millis::from(set),
        }
    }

    /// Fewest voters that automatic exclusion may leave of a cluster with so many provisioned nodes.
    pub fn floor(&self, provisioned: usize) -> usize {
        match self.min_nodes {
            0 => provisioned / 2 + 1,
            set => set as usize,
        }
        .max(2)
    }

    /// Silence of the leader after which a node must stop serving, always before the others may
    /// exclude it (detection.md invariant I1). Meaningless without a deadtime.
    pub fn fencetime_ms(&self, election_ms: Millis) -> Millis {
        let deadtime = self.deadtime_ms();
        deadtime
            .saturating_sub(election_ms)
            .saturating_sub(2 * self.keepalive_ms())
            .max(deadtime / 2)
    }

    /// Appends the settings.
    pub(super) fn encode(&self, out: &mut Writer<'_>) {
        out.u64(self.version);
        for value in [
            self.hb_keepalive,
            self.hb_warntime,
            self.hb_deadtime,
            self.hb_initdead,
            self.settle,
            self.min_nodes,
        ] {
            out.u32(value);
        }
    }

    /// Takes settings as [`Params::encode`] wrote them; they are not validated.
    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Params, WireError> {
        Ok(Params {
            version: input.u64()?,
            hb_keepalive: input.u32()?,
            hb_warntime: input.u32()?,
            hb_deadtime: input.u32()?,
            hb_initdead: input.u32()?,
            settle: input.u32()?,
            min_nodes: input.u32()?,
        })
    }
}
