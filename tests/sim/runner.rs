//! Many runs, on all cores, within a budget; and what is printed of them.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use crate::marks::{Fault, Mark};
use crate::run::{self, Summary};
use crate::swarm::Swarm;

/// Seeds that failed once, always run first.
const KNOWN: &str = include_str!("seeds.txt");
/// What a run without any wish costs: `make check` wishes for more.
const SEEDS: u64 = 1_000;
/// From so many seeds on every mark must have been reached.
const ENOUGH: u64 = 15_000;
/// One seed in so many is run twice, and must do the same.
const TWICE: u64 = 64;

/// What a wish in the environment says, if there is one.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number is wanted"))
}

/// How much is run.
pub struct Budget {
    first: u64,
    seeds: u64,
    time: Duration,
}

impl Budget {
    /// As the environment wishes: RAFTKEEL_SEEDS, RAFTKEEL_SECONDS, RAFTKEEL_HOURS, whichever
    /// is over first; RAFTKEEL_FIRST is the first seed.
    pub fn wished() -> Budget {
        let hours = number("RAFTKEEL_HOURS").map(|hours| 3600 * hours);
        let seconds = hours.or(number("RAFTKEEL_SECONDS"));
        let unlimited = seconds.map_or(SEEDS, |_| u64::MAX);
        // A soak goes where nobody was before.
        let fresh = hours.map(|_| since_epoch() << 20);
        Budget {
            first: number("RAFTKEEL_FIRST").or(fresh).unwrap_or(1),
            seeds: number("RAFTKEEL_SEEDS").unwrap_or(unlimited),
            time: Duration::from_secs(seconds.unwrap_or(u64::from(u32::MAX))),
        }
    }
}

fn since_epoch() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs())
}

/// A run that broke a promise.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    /// What was broken.
    pub what: String,
    /// The last events.
    pub words: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.words)?;
        writeln!(f, "{}", self.what)?;
        write!(f, "failed: RAFTKEEL_SEED={} replays it", self.seed)
    }
}

thread_local! {
    /// What the last panic of this thread said, while runs keep it quiet.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics in runs are kept for their failure instead of being printed.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let quiet = SAID.with_borrow_mut(|said| match said {
                Some(said) => {
                    *said = info.to_string();
                    true
                }
                None => false,
            });
            if !quiet {
                loud(info);
            }
        }));
    });
}

/// Runs a seed, telling its last events only if it is to be told.
fn attempt(seed: u64, told: bool) -> Result<Summary, Failure> {
    hush();
    SAID.set(Some(String::new()));
    let mut world = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(run::prepare(seed, told));
        run::simulate(world)
    }));
    let what = SAID.take().unwrap_or_default();
    result.map_err(|_| Failure {
        seed,
        what,
        words: world.map_or(String::new(), |world| world.trace.last_words()),
    })
}

/// Runs a seed; one that fails is run again, to be told.
pub fn run_seed(seed: u64) -> Result<Summary, Failure> {
    attempt(seed, false).map_err(|failure| attempt(seed, true).err().unwrap_or(failure))
}

/// Runs one seed, which is told from the beginning.
pub fn tell_seed(seed: u64) -> Result<Summary, Failure> {
    println!("{:#?}", Swarm::draw(seed));
    attempt(seed, true)
}

/// Seeds that failed once.
pub fn known_seeds() -> Vec<u64> {
    let lines = KNOWN
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim());
    let seeds = lines.filter(|line| !line.is_empty());
    seeds
        .map(|seed| seed.parse().expect("a seed is a number"))
        .collect()
}

/// How often something happened, and in how many runs.
type Counts = Vec<(u64, u64)>;

/// What many runs came to.
#[derive(Default)]
pub struct Total {
    pub runs: u64,
    pub sum: Summary,
    marks: Counts,
    faults: Counts,
}

fn add_counts(counts: &mut Counts, hits: &[u64]) {
    counts.resize(hits.len(), (0, 0));
    for (count, hits) in counts.iter_mut().zip(hits) {
        count.0 += hits;
        count.1 += u64::from(*hits > 0);
    }
}

fn merge(counts: &mut Counts, other: &Counts) {
    counts.resize(other.len().max(counts.len()), (0, 0));
    for (count, other) in counts.iter_mut().zip(other) {
        *count = (count.0 + other.0, count.1 + other.1);
    }
}

impl Total {
    fn add(&mut self, run: &Summary) {
        self.runs += 1;
        self.sum.calls += run.calls;
        self.sum.span += run.span;
        self.sum.proposed += run.proposed;
        self.sum.committed += run.committed;
        self.sum.read += run.read;
        add_counts(&mut self.marks, &Mark::take());
        add_counts(&mut self.faults, &Fault::take());
    }

    fn merge(&mut self, other: &Total) {
        self.runs += other.runs;
        self.sum.calls += other.sum.calls;
        self.sum.span += other.sum.span;
        self.sum.proposed += other.sum.proposed;
        self.sum.committed += other.sum.committed;
        self.sum.read += other.sum.read;
        merge(&mut self.marks, &other.marks);
        merge(&mut self.faults, &other.faults);
    }

    /// Prints what happened.
    pub fn print(&self, took: Duration) {
        let table = |title: &str, names: Vec<&str>, counts: &Counts| {
            println!("{title}: hits, runs");
            for (name, (hits, runs)) in names.iter().zip(counts) {
                println!("{hits:>12} {runs:>8}  {name}");
            }
        };
        table(
            "faults",
            Fault::ALL.iter().map(|f| f.1).collect(),
            &self.faults,
        );
        table(
            "marks",
            Mark::ALL.iter().map(|m| m.1).collect(),
            &self.marks,
        );
        let (sum, seconds) = (&self.sum, took.as_secs_f64());
        let simulated = sum.span as f64 / 1e6;
        let faults: u64 = self.faults.iter().map(|(hits, _)| hits).sum();
        println!(
            "{} runs in {seconds:.1} s: {:.1} days simulated, {:.0} simulated s/s, {:.0} calls/s",
            self.runs,
            simulated / 86_400.0,
            simulated / seconds,
            sum.calls as f64 / seconds
        );
        println!(
            "{faults} faults, {} proposed, {} committed, {} read",
            sum.proposed, sum.committed, sum.read
        );
    }

    /// What no run has reached.
    fn never_reached(&self) -> Vec<&'static str> {
        let never = |counts: &Counts, at: usize| counts.get(at).is_none_or(|c| c.0 == 0);
        let marks = Mark::ALL.iter().enumerate();
        let marks = marks
            .filter(|(at, _)| never(&self.marks, *at))
            .map(|(_, m)| m.1);
        let faults = Fault::ALL.iter().enumerate();
        let faults = faults
            .filter(|(at, _)| never(&self.faults, *at))
            .map(|(_, f)| f.1);
        marks.chain(faults).collect()
    }

    /// Enough runs must have been everywhere.
    pub fn assert_everywhere(&self) {
        let never = self.never_reached();
        if self.runs >= ENOUGH {
            assert!(never.is_empty(), "no run has reached: {never:#?}");
        } else if !never.is_empty() {
            println!("not reached by so few runs: {never:#?}");
        }
        // A simulation in which nothing happens proves nothing.
        assert!(
            self.sum.committed > self.runs * 10,
            "hardly anything was committed"
        );
        assert!(self.sum.read > self.runs * 5, "hardly anything was read");
    }
}

/// What all threads work on.
struct Shared {
    next: AtomicU64,
    failure: Mutex<Option<Failure>>,
    total: Mutex<Total>,
    end: Instant,
}

/// Runs seeds on all cores until the budget is used up or one fails.
pub fn run_many(budget: &Budget) -> Result<Total, Failure> {
    let start = Instant::now();
    let shared = Shared {
        next: AtomicU64::new(0),
        failure: Mutex::new(None),
        total: Mutex::new(Total::default()),
        end: start + budget.time,
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(budget, &shared));
        }
    });
    let (failure, total) = (shared.failure.into_inner(), shared.total.into_inner());
    match failure.expect("no thread died") {
        Some(failure) => Err(failure),
        None => Ok(total.expect("no thread died")),
    }
}

fn work(budget: &Budget, shared: &Shared) {
    let mut total = Total::default();
    // What other tests of this thread have met is not counted.
    Mark::take();
    Fault::take();
    while Instant::now() < shared.end {
        let turn = shared.next.fetch_add(1, Ordering::Relaxed);
        if turn >= budget.seeds {
            break;
        }
        match run_checked(budget.first.wrapping_add(turn)) {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                // The others stop as well.
                shared.next.store(budget.seeds, Ordering::Relaxed);
                shared
                    .failure
                    .lock()
                    .expect("no thread died")
                    .get_or_insert(failure);
            }
        }
    }
    shared.total.lock().expect("no thread died").merge(&total);
}

/// Runs a seed, and some seeds a second time.
fn run_checked(seed: u64) -> Result<Summary, Failure> {
    let first = run_seed(seed)?;
    if seed.is_multiple_of(TWICE) && run_seed(seed)? != first {
        return Err(Failure {
            seed,
            what: "I22: the same seed gave two histories".to_owned(),
            words: String::new(),
        });
    }
    Ok(first)
}
