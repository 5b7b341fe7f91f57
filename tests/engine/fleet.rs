//! Machines with directories and clocks, the network between them, and what must hold of the
//! members on them at every moment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use raftkeel::cluster::{Params, Peer};
use raftkeel::core::{Epoch, Index, Millis, NodeId, Random, Term};
use raftkeel::detector::NodeState;
use raftkeel::engine::{Error, Handle, Input, Member, Place, Request, Role, Ticket};

use crate::cluster::{id, peer, settings};
use crate::ears::{Ears, Said};

/// Long after everything was healed everything must be well.
pub const LIVENESS: Millis = 60_000;
/// From being able to hear to having heard, and from deciding to having committed.
const SLACK: Millis = 8_000;
const STEP: Millis = 10;

/// One run of one member.
struct Process {
    member: Member,
    handle: Handle,
    applied: Index,
    epoch: Epoch,
    fenced: bool,
    params: Params,
    /// Requests that it has not answered.
    waiting: u64,
}

pub struct Machine {
    process: Option<Process>,
    path: PathBuf,
    paused: bool,
    /// Its clock shows the time since then.
    booted: Millis,
    /// Has not been heard by a majority without a break since; `None` now.
    heard_since: Option<Millis>,
    /// Its exclusion was ordered: it need not be silent, nor fenced before.
    ordered: bool,
    /// Somebody applied its exclusion, nobody that it was taken back.
    out: bool,
}

struct Made {
    at: u64,
    data: Vec<u8>,
    result: Option<Result<Index, Error>>,
}

pub struct Fleet {
    pub nodes: BTreeMap<u64, Machine>,
    pub now: Millis,
    /// Of a thousand packets.
    pub loss: u64,
    pub starts: u64,
    seed: u64,
    root: PathBuf,
    random: Random,
    cut: Vec<(u64, u64)>,
    /// When, from, to, what.
    flying: Vec<(Millis, u64, u64, Vec<u8>)>,
    made: Vec<Made>,
    log: BTreeMap<Index, Vec<u8>>,
    leaders: BTreeMap<Term, u64>,
    decisions: BTreeMap<Epoch, (Vec<NodeId>, Index)>,
    elected_at: Millis,
    /// Settings changed: who was out of reach may go by the old ones for long.
    unsettled_until: Millis,
    trace: bool,
}

fn scratch() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("raftkeel-fleet-{}-{number}", std::process::id()))
}

impl Fleet {
    pub fn new(seed: u64, count: u64) -> Fleet {
        let root = scratch();
        std::fs::create_dir_all(&root).unwrap();
        let mut fleet = Fleet {
            nodes: BTreeMap::new(),
            now: 1_000_000,
            loss: 0,
            starts: 0,
            seed,
            root,
            random: Random::new(seed ^ 0x5eed),
            cut: Vec::new(),
            flying: Vec::new(),
            made: Vec::new(),
            log: BTreeMap::new(),
            leaders: BTreeMap::new(),
            decisions: BTreeMap::new(),
            elected_at: 0,
            unsettled_until: 0,
            trace: std::env::var("RAFTKEEL_TRACE").is_ok(),
        };
        let peers: Vec<Peer> = (1..=count).map(peer).collect();
        for raw in 1..=count {
            fleet.add(raw);
            let process = fleet.process(raw);
            process.member.bootstrap(&peers).unwrap();
        }
        fleet.reckon();
        fleet
    }

    fn add(&mut self, raw: u64) {
        let machine = Machine {
            process: None,
            path: self.root.join(raw.to_string()),
            paused: false,
            booted: 0,
            heard_since: None,
            ordered: false,
            out: false,
        };
        self.nodes.insert(raw, machine);
        self.launch(raw, true);
    }

    fn process(&mut self, raw: u64) -> &mut Process {
        let machine = self.nodes.get_mut(&raw).unwrap();
        machine.process.as_mut().unwrap()
    }

    fn launch(&mut self, raw: u64, create: bool) {
        self.starts += 1;
        let mut settings = settings(raw);
        settings.seed = self.seed * 1_000 + self.starts;
        let machine = self.nodes.get_mut(&raw).unwrap();
        let path = machine.path.clone();
        let (member, handle) = Member::new(settings, Place::Directory { path, create }).unwrap();
        machine.paused = false;
        machine.process = Some(Process {
            member,
            handle,
            applied: 0,
            epoch: 0,
            fenced: true,
            params: Params::default(),
            waiting: 0,
        });
    }

    // ---- what happens ----------------------------------------------------

    pub fn kill(&mut self, raw: u64) {
        self.nodes.get_mut(&raw).unwrap().process = None;
        self.reckon();
    }

    pub fn start(&mut self, raw: u64, reboot: bool) {
        let now = self.now;
        let machine = self.nodes.get_mut(&raw).unwrap();
        if machine.process.is_some() {
            return;
        }
        if reboot {
            machine.booted = now - 1;
        }
        self.launch(raw, false);
        self.reckon();
    }

    pub fn pause(&mut self, raw: u64) {
        self.nodes.get_mut(&raw).unwrap().paused = true;
        self.reckon();
    }

    pub fn resume(&mut self, raw: u64) {
        self.nodes.get_mut(&raw).unwrap().paused = false;
        self.reckon();
    }

    pub fn cut_one_way(&mut self, from: u64, to: u64) {
        self.cut.push((from, to));
        self.reckon();
    }

    pub fn cut(&mut self, a: u64, b: u64) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    pub fn isolate(&mut self, raw: u64) {
        let others: Vec<u64> = self.nodes.keys().copied().filter(|o| *o != raw).collect();
        others.into_iter().for_each(|other| self.cut(raw, other));
    }

    pub fn reconnect(&mut self, raw: u64) {
        self.cut.retain(|(a, b)| *a != raw && *b != raw);
        self.reckon();
    }

    /// Everybody runs and hears everybody.
    pub fn heal(&mut self) {
        self.cut.clear();
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for raw in ids {
            self.start(raw, false);
            self.resume(raw);
        }
    }

    /// The request's number, if it was accepted.
    pub fn request(&mut self, raw: u64, request: Request) -> Option<u64> {
        if matches!(request, Request::SetParams(_)) {
            self.unsettled_until = self.now + 100_000;
        }
        let data = match &request {
            Request::Propose(data) => data.to_vec(),
            _ => Vec::new(),
        };
        let number = self.made.len() as u64;
        let process = self.nodes.get_mut(&raw)?.process.as_mut()?;
        process
            .handle
            .submit(Input::Request(Ticket(number), request))
            .ok()?;
        process.waiting += 1;
        self.made.push(Made {
            at: raw,
            data,
            result: None,
        });
        Some(number)
    }

    pub fn exclude(&mut self, leader: u64, target: u64) {
        self.nodes.get_mut(&target).unwrap().ordered = true;
        self.request(leader, Request::Exclude(id(target)));
    }

    pub fn readmit(&mut self, leader: u64, target: u64) {
        self.request(leader, Request::Readmit(id(target)));
    }

    pub fn replace(&mut self, leader: u64, old: u64, by: u64) {
        self.add(by);
        let (old, by) = (id(old), peer(by));
        self.request(leader, Request::Replace { old, by });
        self.reckon();
    }

    // ---- time ------------------------------------------------------------

    pub fn run(&mut self, span: Millis) {
        let end = self.now + span;
        while self.now < end {
            self.now += STEP;
            self.deliver();
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            for raw in ids {
                self.step(raw);
            }
            self.check_serving();
        }
    }

    pub fn elect(&mut self) {
        let end = self.now + LIVENESS;
        while self.leader().is_none() {
            assert!(self.now < end, "no leader");
            self.run(100);
        }
        self.run(2_000);
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.next_u64() % n
    }

    fn deliver(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.flying.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, from, to, bytes) in due {
            if self.cut.contains(&(from, to)) {
                continue;
            }
            let process = self.nodes.get(&to).and_then(|n| n.process.as_ref());
            let Some(process) = process else { continue };
            match process.handle.receive(Some(id(from)), &bytes) {
                Ok(()) | Err(Error::Full) => {}
                Err(error) => panic!("{from} to {to}: {error}"),
            }
        }
    }

    fn step(&mut self, raw: u64) {
        let now = self.now;
        let machine = self.nodes.get_mut(&raw).unwrap();
        if machine.paused {
            return;
        }
        let Some(process) = &mut machine.process else {
            return;
        };
        let mut ears = Ears::default();
        let clock = now - machine.booted;
        if let Err(error) = process.member.step(clock, &mut ears) {
            panic!("{raw} stopped at {now}: {error}: {:?}", ears.log);
        }
        if self.trace {
            for line in &ears.log {
                eprintln!("{now} n{raw}: {line}");
            }
        }
        for said in ears.said {
            self.hear(raw, said);
        }
        for (to, bytes) in ears.outbox {
            if self.below(1000) < self.loss {
                continue;
            }
            let copies = 1 + u64::from(self.below(30) == 0);
            for _ in 0..copies {
                let delay = match self.below(20) {
                    0 => self.below(800),
                    _ => self.below(15),
                };
                let at = self.now + 1 + delay;
                self.flying.push((at, raw, to.get(), bytes.clone()));
            }
        }
    }

    // ---- what must hold --------------------------------------------------

    /// Who is heard by a majority of all machines, from now on?
    fn reckon(&mut self) {
        let runs = |m: &Machine| m.process.is_some() && !m.paused;
        let running: Vec<u64> = self
            .nodes
            .iter()
            .filter(|(_, m)| runs(m))
            .map(|(r, _)| *r)
            .collect();
        let voters = self.members();
        let (now, cut) = (self.now, self.cut.clone());
        for (raw, machine) in &mut self.nodes {
            let hear = |o: &&u64| *o == raw || !cut.contains(&(*raw, **o));
            let hears = running
                .iter()
                .filter(|o| voters.contains(o))
                .filter(hear)
                .count();
            let heard = running.contains(raw) && hears > voters.len() / 2;
            machine.heard_since = match (heard, machine.heard_since) {
                (false, _) => None,
                (true, None) => Some(now),
                (true, since) => since,
            };
        }
    }

    fn hear(&mut self, raw: u64, said: Said) {
        match said {
            Said::Apply(index, data) => self.applied(raw, index, data),
            Said::Done(ticket, result) => {
                self.process(raw).waiting -= 1;
                let made = &mut self.made[ticket.0 as usize];
                assert_eq!(made.at, raw);
                assert!(made.result.is_none(), "completed twice");
                made.result = Some(result);
            }
            Said::Role(Role::Leader, term) => {
                let leader = *self.leaders.entry(term).or_insert(raw);
                assert_eq!(leader, raw, "two leaders in term {term}");
                self.elected_at = self.now;
            }
            Said::Role(..) => {}
            Said::Excluded(epoch, ids, index) => self.excluded(raw, epoch, ids, index),
            Said::Readmitted(node) => {
                let machine = self.nodes.get_mut(&node.get()).unwrap();
                // A run that begins reads old decisions again.
                if machine.out && self.is_news(raw) {
                    let machine = self.nodes.get_mut(&node.get()).unwrap();
                    (machine.out, machine.ordered) = (false, false);
                }
            }
            Said::Params(params) => self.process(raw).params = params,
            Said::Fence(fenced) => {
                if self.trace {
                    eprintln!("{} n{raw}: fenced {fenced}", self.now);
                }
                self.process(raw).fenced = fenced;
            }
            Said::Stopped(why) => panic!("{raw} stopped: {why}"),
        }
    }

    /// Whether what a node is told of now was not told to anybody before.
    fn is_news(&self, raw: u64) -> bool {
        let newest = self.decisions.keys().next_back().copied().unwrap_or(0);
        let process = self.nodes[&raw].process.as_ref().unwrap();
        process.epoch >= newest
    }

    fn applied(&mut self, raw: u64, index: Index, data: Vec<u8>) {
        let process = self.process(raw);
        let before = std::mem::replace(&mut process.applied, index);
        assert!(index > before, "{raw} applies {index} after {before}");
        let skipped = self.log.range(before + 1..index).next();
        assert!(skipped.is_none(), "{raw} leaves out {skipped:?}");
        let first = self.log.entry(index).or_insert_with(|| data.clone());
        assert_eq!(*first, data, "{raw} applies another entry at {index}");
    }

    fn excluded(&mut self, raw: u64, epoch: Epoch, ids: Vec<NodeId>, index: Index) {
        let process = self.process(raw);
        assert!(epoch > process.epoch, "{raw} is told of {epoch} again");
        process.epoch = epoch;
        let known = self.decisions.get(&epoch);
        if let Some(known) = known {
            assert_eq!(*known, (ids, index), "two decisions for epoch {epoch}");
            return;
        }
        let newest = self.decisions.keys().next_back();
        assert!(newest.is_none_or(|n| *n < epoch), "a decision of the past");
        self.decisions.insert(epoch, (ids.clone(), index));
        for node in ids {
            self.judge(raw, node.get());
        }
        self.reckon();
    }

    /// Was it right?
    fn judge(&mut self, teller: u64, raw: u64) {
        let (now, elected_at) = (self.now, self.elected_at);
        let machine = self.nodes.get_mut(&raw).unwrap();
        machine.out = true;
        if machine.ordered {
            return;
        }
        // A decision lies in the log until a leader commits it.
        let window = match now - elected_at <= SLACK {
            true => 30_000 + SLACK,
            false => SLACK,
        };
        if let Some(since) = machine.heard_since {
            assert!(
                now - since <= window,
                "{teller} says at {now} that {raw} is excluded, and a majority hears it since {since}"
            );
        }
    }

    /// Whoever was found dead stopped serving before, and serves no more until it is taken back.
    fn check_serving(&self) {
        if self.now < self.unsettled_until {
            return;
        }
        for (raw, machine) in &self.nodes {
            let Some(process) = &machine.process else {
                continue;
            };
            let serves = machine.out && !machine.ordered && !machine.paused && !process.fenced;
            assert!(!serves, "{raw} is excluded, and serves at {}", self.now);
        }
    }

    // ---- questions -------------------------------------------------------

    pub fn leader(&self) -> Option<u64> {
        let term = |m: &Machine| {
            let process = m.process.as_ref().filter(|_| !m.paused)?;
            let info = process.handle.view(|v| v.info.clone());
            let leads = info.role == Role::Leader && info.has_quorum;
            leads.then_some(info.term)
        };
        let leaders = self
            .nodes
            .iter()
            .filter_map(|(raw, m)| Some((term(m)?, *raw)));
        leaders.max().map(|(_, raw)| raw)
    }

    fn state(&self, by: u64, of: u64) -> Option<NodeState> {
        let process = self.nodes[&by].process.as_ref()?;
        process.handle.view(|v| {
            let node = v.nodes.iter().find(|n| n.id == id(of));
            node.map(|n| n.state)
        })
    }

    pub fn is_out(&self, by: u64, of: u64) -> bool {
        matches!(
            self.state(by, of),
            Some(NodeState::Excluded | NodeState::Returned | NodeState::Replaced)
        )
    }

    pub fn is_replaced(&self, by: u64, of: u64) -> bool {
        self.state(by, of) == Some(NodeState::Replaced)
    }

    /// Who votes, or is to vote, according to the leader or else to anybody.
    pub fn members(&self) -> Vec<u64> {
        let newest = self.leader().or_else(|| {
            let running = self.nodes.iter().filter(|(_, m)| m.process.is_some());
            running.map(|(raw, _)| *raw).next()
        });
        let known = |raw: &u64| {
            newest.is_some_and(|by| self.state(by, *raw).is_some() && !self.is_out(by, *raw))
        };
        let members: Vec<u64> = self.nodes.keys().copied().filter(known).collect();
        match members.is_empty() {
            true => self.nodes.keys().copied().collect(),
            false => members,
        }
    }

    /// Everybody who is not replaced votes and serves.
    pub fn is_whole(&self) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let process = self.nodes[&leader].process.as_ref().unwrap();
        let voters = process.handle.view(|v| v.info.voters) as usize;
        let members: Vec<u64> = self
            .nodes
            .keys()
            .copied()
            .filter(|raw| self.state(leader, *raw).is_some() && !self.is_replaced(leader, *raw))
            .collect();
        let serves = |raw: &u64| {
            let process = self.nodes[raw].process.as_ref();
            process.is_some_and(|p| !p.fenced && !self.is_out(leader, *raw))
        };
        voters == members.len() && members.iter().all(serves)
    }

    pub fn is_applied_everywhere(&self, ticket: u64) -> bool {
        let Some(Ok(index)) = self.made[ticket as usize].result else {
            return false;
        };
        let members = self.members();
        let applied = |raw: &u64| {
            let process = self.nodes[raw].process.as_ref();
            process.is_none_or(|p| p.applied >= index)
        };
        members.iter().all(applied)
    }

    pub fn exclusions(&self) -> u64 {
        self.decisions.len() as u64
    }

    /// What everybody thinks, for a person.
    pub fn describe(&self) -> String {
        let mut text = format!("at {} cut {:?}\n", self.now, self.cut);
        for (raw, machine) in &self.nodes {
            let Some(process) = &machine.process else {
                text += &format!("n{raw}: down\n");
                continue;
            };
            process.handle.view(|v| {
                let nodes: Vec<_> = v
                    .nodes
                    .iter()
                    .map(|n| (n.id, n.role, n.state, n.match_index))
                    .collect();
                text += &format!("n{raw}: {:?}\n    {nodes:?}\n", v.info);
            });
        }
        text
    }

    /// What can only be known at the end.
    pub fn finish(&mut self) {
        for made in &self.made {
            let placed = |index: &Index| self.log.get(index) == Some(&made.data);
            match &made.result {
                Some(Ok(index)) if !made.data.is_empty() => {
                    assert!(placed(index), "done, and not there")
                }
                Some(Err(Error::Lost)) | Some(Ok(_)) | None => {}
                Some(Err(error)) => {
                    let there = !made.data.is_empty() && self.log.values().any(|d| *d == made.data);
                    assert!(!there, "surely not done ({error}), and applied");
                }
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.nodes.clear();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}
