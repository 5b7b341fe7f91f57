//! The model bites: steps that break one rule each, put into recorded runs that it accepts, and
//! the rule that it must name. A kind of wrong step is tried wherever a run offers the state for
//! it, in many runs.

mod commits;
mod damage;
mod logs;
mod reads;
mod snapshots;
mod speech;
mod votes;

use crate::model::data::{Config, Entry, Id, Input, Message, NOOP, Output, Role, Step, View};
use crate::model::{Model, Node};
use crate::referee::Event;
use crate::run;

/// A kind of wrong step: what it does, part of the source of the rule that forbids it, and how
/// to make one where that is possible.
type Kind = (&'static str, &'static str, fn(&Trial) -> Option<Mutant>);

/// A place in a recorded run.
struct Trial<'a> {
    /// The node whose step is next, as it is before.
    node: &'a Node,
    /// Its step, which is permitted.
    step: &'a Step,
}

/// Steps of which the last one is wrong, and messages to be received that nobody sent.
#[derive(Clone)]
struct Mutant {
    forged: Vec<(Id, Message)>,
    steps: Vec<Step>,
}

impl Mutant {
    fn of(step: Step) -> Mutant {
        Mutant {
            forged: Vec::new(),
            steps: vec![step],
        }
    }

    /// Changes the last step.
    fn change(mut self, change: impl FnOnce(&mut Step)) -> Mutant {
        change(self.steps.last_mut().expect("a mutant has a step"));
        self
    }

    /// Changes what the node is after the last step.
    fn after(self, change: impl FnOnce(&mut View)) -> Option<Mutant> {
        Some(self.change(|step| change(&mut step.after)))
    }

    /// Says something in the last step.
    fn saying(self, to: Id, message: Message) -> Option<Mutant> {
        Some(self.change(|step| step.output.messages = vec![(to, message)]))
    }

    /// Goes on with another.
    fn then(mut self, next: Mutant) -> Mutant {
        self.forged.extend(next.forged);
        self.steps.extend(next.steps);
        self
    }
}

impl Trial<'_> {
    /// A step in which nothing happens.
    fn idle(&self) -> Mutant {
        let node = self.node;
        let config = node.config();
        let after = View {
            term: node.term,
            vote: node.vote,
            role: node.role,
            leader: node.leader,
            commit: node.commit,
            excluded: node.excluded,
            claim: node.claim,
            snapshot: node.snapshots.index(),
            base: node.base,
            config: config.map_or((0, 0), |(index, config)| (index, config.epoch)),
            last: node.log.end(),
            kept: node.log.last(),
            successor: node.successor,
            ..View::default()
        };
        Mutant::of(Step {
            node: node.id,
            now: self.step.now,
            input: Input::Yield,
            output: Output::default(),
            after,
        })
    }

    /// A step in which a message comes that nobody sent, and nothing else happens.
    fn hears(&self, from: Id, message: Message) -> Mutant {
        let mut mutant = self.idle();
        mutant.forged.push((from, message.clone()));
        mutant.change(|step| step.input = Input::Receive { from, message })
    }

    /// A message from each of several nodes.
    fn hears_all(&self, from: &[Id], message: &Message) -> Mutant {
        let each = from.iter().map(|from| self.hears(*from, message.clone()));
        each.fold(self.idle(), Mutant::then)
    }

    /// The recorded step, without what it says, changed.
    fn silently(&self, change: impl FnOnce(&mut Step)) -> Option<Mutant> {
        let mut step = self.step.clone();
        step.output = Output::default();
        change(&mut step);
        Some(Mutant::of(step))
    }

    fn config(&self) -> Option<&Config> {
        self.node.config().map(|(_, config)| config)
    }

    /// Some other node.
    fn other(&self) -> Id {
        self.node.id % 7 + 1
    }

    fn has(&self, role: Role) -> Option<()> {
        (self.node.role == role).then_some(())
    }

    /// The message that the recorded step begins with.
    fn message(&self) -> Option<&Message> {
        match &self.step.input {
            Input::Receive { message, .. } => Some(message),
            _ => None,
        }
    }

    /// As many voters besides the node as are a quorum with it and not without it.
    fn almost(&self) -> Option<Vec<Id>> {
        let (config, id) = (self.config()?, self.node.id);
        let plain = config.outgoing.is_empty() && config.voters.contains(&id);
        let others = config.voters.iter().copied().filter(|voter| *voter != id);
        plain.then(|| others.take(config.voters.len() / 2).collect())
    }
}

/// Goes on only where something is so.
fn only(so: bool) -> Option<()> {
    so.then_some(())
}

/// An entry of this term that nobody proposed.
fn new_entry(term: u64) -> Entry {
    Entry {
        term,
        hash: 4711,
        config: None,
    }
}

/// Appends entries in a step's state.
fn append(after: &mut View, entries: Vec<Entry>) {
    let term = entries.last().map_or(after.last.1, |entry| entry.term);
    after.last = (after.kept + entries.len() as u64, term);
    after.suffix = entries;
}

/// Makes a leader of a candidate, in a step's state.
fn lead(after: &mut View, id: Id) {
    (after.role, after.leader) = (Role::Leader, id);
    let (term, hash) = (after.term, NOOP);
    let config = None;
    append(after, vec![Entry { term, hash, config }]);
}

/// The rule for nodes that have failed, and the one for those that have lost entries.
const SILENCE: &str = "rule 29";
const CLAIMS: &str = "recovery 5";

/// Each kind is tried this often in a run at most, and that often in all runs at least; for some
/// it takes many runs until the state for it occurs.
const A_RUN: usize = 20;
const AT_LEAST: usize = 5;
const FEW: u64 = 60;
const SEEDS: u64 = 2_000;

fn kinds() -> Vec<Kind> {
    let parts = [
        votes::KINDS,
        damage::KINDS,
        logs::KINDS,
        commits::KINDS,
        speech::KINDS,
        reads::KINDS,
        snapshots::KINDS,
    ];
    parts.concat()
}

/// Tries one kind of wrong step here: nothing if it cannot be made, else what is wrong with the
/// model's answer.
fn try_kind(model: &Model, trial: &Trial, (_, rule, make): &Kind) -> Option<Result<(), String>> {
    let node = trial.node;
    let mutant = make(trial)?;
    let (wrong, before) = mutant.steps.split_last()?;
    let starts = matches!(wrong.input, Input::Start { .. });
    only(node.running != starts && node.poisoned == (*rule == SILENCE))?;
    // Who has a claim is forbidden more than others are.
    only(node.claim.is_none() || *rule == CLAIMS)?;
    let mut model = model.clone();
    for (from, message) in &mutant.forged {
        model.forge(*from, node.id, message);
    }
    for step in before {
        if let Err(broken) = model.accept(step) {
            return Some(Err(format!("refused on the way: {broken}\n{step:?}")));
        }
    }
    Some(match model.accept(wrong) {
        Ok(()) => Err(format!("not noticed: {wrong:?}\n{node:?}")),
        Err(broken) if broken.contains(rule) => Ok(()),
        Err(broken) => Err(format!("refused by another rule: {broken}\n{wrong:?}")),
    })
}

/// How often each kind was tried, and where the model's answer was wrong first.
type Tally = Vec<(usize, Option<String>)>;

/// Tries all kinds in one run.
fn try_all(seed: u64, kinds: &[Kind], tally: &mut Tally) {
    let (mut model, events) = (Model::new(), run::record(seed));
    let most: Vec<usize> = tally.iter().map(|(tried, _)| tried + A_RUN).collect();
    for event in &events {
        let step = match event {
            Event::Step(step) => step,
            Event::Stop(id) => {
                model.stop(*id);
                continue;
            }
            Event::Land(id, whole) => {
                model.land(*id, *whole);
                continue;
            }
            Event::Damage(id, kept, claim) => {
                model.damage(*id, *kept, *claim);
                continue;
            }
        };
        if let Some(node) = model.node(step.node) {
            let trial = Trial { node, step };
            for ((kind, (tried, wrong)), most) in kinds.iter().zip(&mut *tally).zip(&most) {
                if *tried == *most {
                    continue;
                }
                let answer = try_kind(&model, &trial, kind);
                *tried += usize::from(answer.is_some());
                *wrong = wrong.take().or(answer.and_then(Result::err));
            }
        }
        model.accept(step).expect("a step of a recorded run");
    }
}

#[test]
fn every_kind_of_wrong_step_is_refused_by_its_rule() {
    let kinds = kinds();
    let mut tally: Tally = vec![(0, None); kinds.len()];
    for seed in 0..SEEDS {
        if seed >= FEW && tally.iter().all(|(tried, _)| *tried >= AT_LEAST) {
            break;
        }
        try_all(seed, &kinds, &mut tally);
    }
    for ((name, rule, _), (tried, wrong)) in kinds.iter().zip(&tally) {
        println!("{tried:5} {name} ({rule})");
        if let Some(wrong) = wrong {
            println!("      {wrong}");
        }
    }
    for ((name, ..), (tried, wrong)) in kinds.iter().zip(&tally) {
        assert!(wrong.is_none(), "{name}");
        assert!(*tried >= AT_LEAST, "tried {tried} times only: {name}");
    }
}

/// What the wrong steps are made from is right.
#[test]
fn a_step_in_which_nothing_happens_is_permitted() {
    let (mut model, events) = (Model::new(), run::record(1));
    for event in &events {
        let Event::Step(step) = event else {
            continue;
        };
        if let Some(node) = model.node(step.node).filter(|node| node.running) {
            let idle = Trial { node, step }.idle();
            let poisoned = node.poisoned;
            let verdict = model.accept(&idle.steps[0]);
            assert!(poisoned || verdict.is_ok(), "{verdict:?}");
        }
    }
}
