//! Is a history of concurrent operations linearizable? The search of Wing and Gong (1993) with the
//! memory of Lowe (2017), for objects that hold a list of numbers; one that holds at most a single
//! number is a register.
//!
//! Keys are independent objects, so each is searched on its own (Herlihy and Wing 1990: the
//! property is local). An operation whose outcome nobody knows may have taken effect at any time
//! after its invocation, or never. The search has a budget; a history that exhausts it has not
//! been checked, which must count as a failure.

use std::collections::{BTreeMap, HashMap, HashSet};

/// What an object holds; empty at first.
pub type Value = Vec<u64>;

/// What a client asks of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// What does it hold?
    Read,
    /// Hold this instead.
    Write(Value),
    /// Hold one number more.
    Append(u64),
    /// Hold `new` instead, if it holds `expected`.
    CompareAndSet { expected: Value, new: Value },
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// What a read found.
    Found(Value),
    /// A write or an append is done.
    Done,
    /// Whether a compare-and-set did anything.
    Swapped(bool),
}

impl Call {
    /// What the object holds afterwards, and what the client must be told.
    pub fn apply(&self, value: &Value) -> (Value, Reply) {
        match self {
            Call::Read => (value.clone(), Reply::Found(value.clone())),
            Call::Write(new) => (new.clone(), Reply::Done),
            Call::Append(number) => {
                let mut longer = value.clone();
                longer.push(*number);
                (longer, Reply::Done)
            }
            Call::CompareAndSet { expected, new } if expected == value => {
                (new.clone(), Reply::Swapped(true))
            }
            Call::CompareAndSet { .. } => (value.clone(), Reply::Swapped(false)),
        }
    }
}

/// One operation of one client. Times are numbers on one clock; operations of which neither ended
/// strictly before the other began are concurrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The object.
    pub key: u64,
    pub call: Call,
    pub invoked: u64,
    /// When the reply came, and what it was; `None` if nobody knows whether it took effect.
    pub outcome: Option<(u64, Reply)>,
}

impl Operation {
    /// Whether this one had ended when the other began.
    pub fn precedes(&self, other: &Operation) -> bool {
        let ended = self.outcome.as_ref().map(|(at, _)| *at);
        ended.is_some_and(|at| at < other.invoked)
    }

    fn returned(&self) -> u64 {
        self.outcome.as_ref().map_or(u64::MAX, |(at, _)| *at)
    }
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Some order explains every reply.
    Linearizable,
    /// No order explains the replies about this object.
    Violation { key: u64 },
    /// The budget ran out at this object: not checked.
    Unknown { key: u64 },
}

/// Most operations on one object: the search is as deep as there are operations.
const MOST_OPERATIONS: usize = 4096;

/// Searches an order that explains the history, looking at `budget` configurations per object at
/// most.
pub fn check(history: &[Operation], budget: u64) -> Verdict {
    let mut keys: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        assert!(
            operation.invoked <= operation.returned(),
            "an operation ends before it begins: {operation:?}"
        );
        keys.entry(operation.key).or_default().push(operation);
    }
    let mut exhausted = None;
    for (key, operations) in keys {
        match Search::new(operations, budget).run() {
            Some(true) => {}
            Some(false) => return Verdict::Violation { key },
            // A violation at another object is the better answer.
            None => exhausted = exhausted.or(Some(key)),
        }
    }
    exhausted.map_or(Verdict::Linearizable, |key| Verdict::Unknown { key })
}

/// Which operations have taken effect, one bit each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Effects(Box<[u64]>);

impl Effects {
    fn has(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }

    fn flip(&mut self, i: usize) {
        self.0[i / 64] ^= 1 << (i % 64);
    }
}

/// The search for an order of the operations on one object.
struct Search<'a> {
    /// In the order of their invocations.
    operations: Vec<&'a Operation>,
    done: Effects,
    /// Replies not explained so far.
    unexplained: usize,
    /// All values met, each with its number, so that the memory holds each once.
    numbers: HashMap<Value, u32>,
    /// Configurations from which there is no way on (Lowe).
    seen: HashSet<(Effects, u32)>,
    budget: u64,
}

impl<'a> Search<'a> {
    fn new(mut operations: Vec<&'a Operation>, budget: u64) -> Search<'a> {
        // A read that was never answered explains nothing and changes nothing.
        operations.retain(|o| o.outcome.is_some() || o.call != Call::Read);
        operations.sort_by_key(|o| (o.invoked, o.returned()));
        let count = operations.len();
        assert!(
            count <= MOST_OPERATIONS,
            "a history of {count} operations on one object is too long"
        );
        let unexplained = operations.iter().filter(|o| o.outcome.is_some()).count();
        Search {
            operations,
            done: Effects(vec![0; count.div_ceil(64)].into()),
            unexplained,
            numbers: HashMap::new(),
            seen: HashSet::new(),
            budget,
        }
    }

    fn run(mut self) -> Option<bool> {
        self.explain(&Value::new())
    }

    /// Whether the remaining replies can be explained from here; `None` if the budget ran out.
    fn explain(&mut self, value: &Value) -> Option<bool> {
        if self.unexplained == 0 {
            return Some(true);
        }
        self.budget = self.budget.checked_sub(1)?;
        if self.is_contradicted(value) {
            return Some(false);
        }
        let next = self.numbers.len() as u32;
        let number = *self.numbers.entry(value.clone()).or_insert(next);
        if !self.seen.insert((self.done.clone(), number)) {
            return Some(false);
        }
        for i in self.candidates() {
            let (after, reply) = self.operations[i].call.apply(value);
            let known = match &self.operations[i].outcome {
                Some((_, told)) if *told != reply => continue,
                // Without effect it is as if it never happened.
                None if after == *value => continue,
                outcome => usize::from(outcome.is_some()),
            };
            self.done.flip(i);
            self.unexplained -= known;
            let explained = self.explain(&after)?;
            self.done.flip(i);
            self.unexplained += known;
            if explained {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Whether some remaining read cannot find what it found. Nothing but an append can take
    /// effect before the first call to replace the value was made: until then lists only grow.
    /// Without this, unknown appends are tried in every order before a wrong read is reached.
    fn is_contradicted(&self, value: &Value) -> bool {
        let remaining = || {
            let all = self.operations.iter().enumerate();
            all.filter(|(i, _)| !self.done.has(*i)).map(|(_, o)| o)
        };
        let replacing = remaining().find(|o| !matches!(o.call, Call::Read | Call::Append(_)));
        let replaced_from = replacing.map_or(u64::MAX, |o| o.invoked);
        remaining().any(|o| match &o.outcome {
            Some((returned, Reply::Found(found))) => {
                *returned < replaced_from && !found.starts_with(value)
            }
            _ => false,
        })
    }

    /// Operations that may take effect next: invoked before the first of the remaining replies
    /// came. Those that must take effect some time come first.
    fn candidates(&self) -> Vec<usize> {
        let mut first_reply = u64::MAX;
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for (i, operation) in self.operations.iter().enumerate() {
            if operation.invoked > first_reply {
                break;
            }
            if self.done.has(i) {
                continue;
            }
            first_reply = first_reply.min(operation.returned());
            let list = match operation.outcome {
                Some(_) => &mut known,
                None => &mut unknown,
            };
            list.push(i);
        }
        known.append(&mut unknown);
        // An early member may have been invoked after a reply that was met later.
        known.retain(|i| self.operations[*i].invoked <= first_reply);
        known
    }
}
