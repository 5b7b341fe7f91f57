//! A snapshot as JSON, written by hand: the format is small and its keys are a promise.

use std::ffi::CString;
use std::fmt::{Display, Write};

use crate::cluster::Params;
use crate::core::NodeId;
use crate::detector::{NodeState, Timers};
use crate::engine::{Event, Info, Metrics, NodeView, Role, View};

/// As long as the status is at most, with a byte to end it.
fn status_max(view: &View) -> usize {
    /// More than the names and numbers of the cluster, and of one node, ever need.
    const CLUSTER: usize = 4096;
    const NODE: usize = 1024;
    /// A control character becomes so many.
    const ESCAPED: usize = 6;
    let node = |node: &NodeView| NODE + ESCAPED * node.address.len() + 2 * node.meta.len();
    let nodes: usize = view.nodes.iter().map(node).sum();
    CLUSTER + ESCAPED * (view.info.notice.len() + view.info.fenced_why.len()) + nodes + 1
}

/// Everything that a view holds, as one object on one line; `None` if there is no memory for it.
pub fn status(view: &View) -> Option<CString> {
    let mut out = String::new();
    out.try_reserve_exact(status_max(view)).ok()?;
    let room = out.capacity();
    let mut object = Object::open(&mut out);
    info(&mut object, &view.info);
    params(&mut object.nested("params"), &view.params);
    timers(&mut object.nested("in_force"), &view.info.timers);
    let nodes = object.value("nodes");
    nodes.push('[');
    for (i, node) in view.nodes.iter().enumerate() {
        if i > 0 {
            nodes.push(',');
        }
        self::node(nodes, node);
    }
    nodes.push(']');
    metrics(&mut object.nested("metrics"), &view.metrics);
    drop(object);
    assert!(out.len() < room, "the status is longer than was reckoned");
    // Nothing in it is NUL: those of texts were escaped.
    let mut bytes = out.into_bytes();
    bytes.push(0);
    CString::from_vec_with_nul(bytes).ok()
}

/// An event's facts, as one object on one line.
pub fn event(event: &Event) -> String {
    let mut out = String::new();
    let mut object = Object::open(&mut out);
    match event {
        Event::Leading { term } | Event::NotLeading { term } => object.number("term", term),
        Event::Quorum { heard, needed, .. } => {
            object.number("voters_heard", heard);
            object.number("quorum", needed);
        }
        Event::Removed { epoch, index, id } => {
            object.number("epoch", epoch);
            object.number("index", index);
            object.number("id", id.get());
        }
        Event::Excluded { epoch, index, ids } => {
            object.number("epoch", epoch);
            object.number("index", index);
            let ids: Vec<String> = ids.iter().map(|id| id.get().to_string()).collect();
            put(object.value("ids"), format_args!("[{}]", ids.join(",")));
        }
        Event::ExcludedSelf {
            epoch,
            index,
            told_by,
        }
        | Event::RemovedSelf {
            epoch,
            index,
            told_by,
        } => {
            object.number("epoch", epoch);
            object.number("index", index);
            object.number("told_by", told_by.get());
        }
        Event::Readmitted { id }
        | Event::Promoted { id }
        | Event::Added { id }
        | Event::PeerLostData { id }
        | Event::PeerNewer { id }
        | Event::PeerLostState { id } => {
            object.number("id", id.get());
        }
        Event::Replaced { old, by } => {
            object.number("old", old.get());
            object.number("by", by.get());
        }
        Event::Blocked { why } => object.text("why", why),
        Event::Paused { late } => object.number("late_ms", late),
        Event::Snapshot { index, bytes } | Event::SnapshotInstalled { index, bytes } => {
            object.number("index", index);
            object.number("bytes", bytes);
        }
        Event::SnapshotFailed { index, why } => {
            object.number("index", index);
            object.text("why", why);
        }
        Event::Diverged { id, index } => {
            object.number("id", id.get());
            object.number("index", index);
        }
        Event::LostData { index } | Event::Refilled { index } => object.number("index", index),
        Event::Slow {
            to,
            own_ms,
            quorum_ms,
        } => {
            object.number("to", to.get());
            object.number("own_ms", own_ms);
            object.number("quorum_ms", quorum_ms);
        }
        Event::LostState | Event::Stalled { .. } => {}
    }
    drop(object);
    out
}

fn info(object: &mut Object<'_>, info: &Info) {
    object.number("self", NodeId::raw(info.id));
    object.optional("leader", info.leader.map(NodeId::get));
    object.text("role", role(info.role));
    object.number("fenced", info.fenced);
    object.text("fenced_why", info.fenced_why);
    object.number("cluster", info.cluster);
    object.number("term", info.term);
    object.number("epoch", info.epoch);
    object.number("commit", info.commit);
    object.number("applied", info.applied);
    object.number("last_index", info.last_index);
    object.number("first_index", info.first_index);
    object.number("snapshot_index", info.snapshot_index);
    object.number("loading", info.loading);
    object.number("disk_full", info.full);
    object.optional("recorded_leader", info.recorded_leader.map(NodeId::get));
    object.number("recorded_term", info.recorded_term);
    object.number("voters", info.voters);
    object.number("voters_heard", info.voters_heard);
    object.number("quorum", info.quorum);
    object.number("has_quorum", info.has_quorum);
    object.number("armed", info.armed);
    object.optional("lease_ms", info.lease);
    object.number("health_score", info.health_score);
    object.text("notice", &info.notice);
}

fn params(object: &mut Object<'_>, params: &Params) {
    object.number("version", params.version);
    object.number("hb_keepalive_ms", params.hb_keepalive);
    object.number("hb_warntime_ms", params.hb_warntime);
    object.number("hb_deadtime_ms", params.hb_deadtime);
    object.number("hb_initdead_ms", params.hb_initdead);
    object.number("settle_ms", params.settle);
    object.number("min_nodes", params.min_nodes);
}

fn timers(object: &mut Object<'_>, timers: &Timers) {
    object.number("hb_keepalive_ms", timers.keepalive);
    object.number("hb_warntime_ms", timers.warntime);
    object.number("hb_deadtime_ms", timers.deadtime);
    object.number("hb_initdead_ms", timers.initdead);
    object.number("settle_ms", timers.settle);
    object.number("fencetime_ms", timers.fencetime);
    object.number("min_nodes", timers.min_nodes);
}

fn node(out: &mut String, node: &NodeView) {
    let mut object = Object::open(out);
    object.number("id", node.id.get());
    object.text("address", &node.address);
    object.text("role", role(node.role));
    object.text("state", state(node.state));
    object.text("blocked_by", node.blocked_by.code());
    object.optional("silent_ms", node.silent);
    object.optional("excludes_in_ms", node.excludes_in);
    object.number("epoch", node.epoch);
    object.number("index", node.index);
    object.number("match_index", node.match_index);
    object.number("heard_by", node.heard_by);
    object.number("witnesses", node.witnesses);
    let hex = node.meta.iter().fold(String::new(), |mut hex, byte| {
        put(&mut hex, format_args!("{byte:02x}"));
        hex
    });
    object.text("meta", &hex);
    object.optional("replaced_by", node.replaced_by.map(NodeId::get));
    object.number("lost_state", node.lost_state);
    object.number("awaits_promotion", node.awaits_promotion);
}

fn metrics(object: &mut Object<'_>, m: &Metrics) {
    object.number("steps", m.steps);
    object.number("messages_in", m.packets_in);
    object.number("messages_out", m.packets_out);
    object.number("bytes_in", m.bytes_in);
    object.number("bytes_out", m.bytes_out);
    object.number("dropped_malformed", m.dropped_malformed);
    object.number("dropped_foreign", m.dropped_foreign);
    object.number("dropped_unknown", m.unknown_parts);
    object.number("dropped_full", m.dropped_full);
    object.number("elections", m.elections);
    object.number("step_late_ms_max", m.step_late_ms_max);
    object.number("pauses", m.pauses);
    object.number("persists", m.persists);
    object.number("entries_persisted", m.entries_persisted);
    object.number("snapshots", m.snapshots);
    object.number("snapshots_installed", m.snapshots_installed);
    object.number("snapshot_bytes_in", m.snapshot_bytes_in);
    object.number("snapshot_bytes_out", m.snapshot_bytes_out);
    object.number("slow_disk_transfers", m.slow_disk_transfers);
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Learner => "learner",
        Role::Excluded => "excluded",
    }
}

fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Joining => "joining",
        NodeState::Alive => "alive",
        NodeState::Late => "late",
        NodeState::Suspect => "suspect",
        NodeState::Excluded => "excluded",
        NodeState::Returned => "returned",
        NodeState::Replaced => "replaced",
        NodeState::Removed => "removed",
    }
}

/// An object being written; closed when it goes out of scope.
struct Object<'a> {
    out: &'a mut String,
    empty: bool,
}

impl Object<'_> {
    fn open(out: &mut String) -> Object<'_> {
        out.push('{');
        Object { out, empty: true }
    }

    /// Writes the key; the value is to be appended to what is returned.
    fn value(&mut self, key: &str) -> &mut String {
        if !self.empty {
            self.out.push(',');
        }
        self.empty = false;
        escaped(self.out, key);
        self.out.push(':');
        self.out
    }

    fn nested(&mut self, key: &str) -> Object<'_> {
        Object::open(self.value(key))
    }

    /// A number or a boolean, which Rust and JSON write alike.
    fn number(&mut self, key: &str, value: impl Display) {
        put(self.value(key), format_args!("{value}"));
    }

    fn optional(&mut self, key: &str, value: Option<u64>) {
        match value {
            Some(value) => self.number(key, value),
            None => self.number(key, "null"),
        }
    }

    fn text(&mut self, key: &str, text: &str) {
        escaped(self.value(key), text);
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        self.out.push('}');
    }
}

/// RFC 8259, section 7.
fn escaped(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => put(out, format_args!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Writing to a String cannot fail, and a formatter of ours does not.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    assert!(written.is_ok(), "writing to memory cannot fail");
}
