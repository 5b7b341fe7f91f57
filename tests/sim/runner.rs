//! Many runs, on all cores, within a budget; and what is printed of them.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use crate::marks::Fault;
use crate::run::Summary;

/// One seed in so many is run twice, and must do the same.
const TWICE: u64 = 64;

/// A run from its beginning to its end, of one kind or another.
pub trait Simulation: Sized {
    /// Seeds that failed once, a line each; they are always run first.
    const KNOWN: &str;
    /// Seeds of a run without any wish: `make check` wishes for more.
    const SEEDS: u64;
    /// From so many seeds on every mark and every fault must have been reached.
    const ENOUGH: u64;
    /// Faults that this kind cannot meet.
    const FOREIGN: &[Fault];

    /// What the seed decides, for a reader.
    fn describe(seed: u64) -> String;

    /// A run that is about to begin; one that is told keeps its last events.
    fn prepare(seed: u64, told: bool) -> Self;

    /// Runs to the end; panics if anything is wrong.
    fn simulate(&mut self) -> Summary;

    fn last_words(&self) -> String;

    /// What this kind's marks mean.
    fn marks() -> Vec<&'static str>;

    /// How often each was reached on this thread; counting begins anew.
    fn take_marks() -> Vec<u64>;
}

/// How often a soak says how far it is.
const WORD_EVERY: Duration = Duration::from_secs(600);

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
    pub fn wished<S: Simulation>() -> Budget {
        let hours = number("RAFTKEEL_HOURS").map(|hours| 3600 * hours);
        let seconds = hours.or(number("RAFTKEEL_SECONDS"));
        let unlimited = seconds.map_or(S::SEEDS, |_| u64::MAX);
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
        write!(
            f,
            "failed: RAFTKEEL_SEED={} replays it: put that before cargo test --profile sim --test sim",
            self.seed
        )
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
fn attempt<S: Simulation>(seed: u64, told: bool) -> Result<Summary, Failure> {
    hush();
    SAID.set(Some(String::new()));
    let mut world = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(S::prepare(seed, told));
        world.simulate()
    }));
    let what = SAID.take().unwrap_or_default();
    result.map_err(|_| Failure {
        seed,
        what,
        words: world.map_or(String::new(), |world: S| world.last_words()),
    })
}

/// Runs a seed; one that fails is run again, to be told.
pub fn run_seed<S: Simulation>(seed: u64) -> Result<Summary, Failure> {
    attempt::<S>(seed, false).map_err(|failure| attempt::<S>(seed, true).err().unwrap_or(failure))
}

/// Runs one seed, which is told from the beginning.
fn tell_seed<S: Simulation>(seed: u64) -> Result<Summary, Failure> {
    println!("{}", S::describe(seed));
    attempt::<S>(seed, true)
}

/// Seeds that failed once.
fn known_seeds<S: Simulation>() -> Vec<u64> {
    let lines = S::KNOWN
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim());
    let seeds = lines.filter(|line| !line.is_empty());
    seeds
        .map(|seed| seed.parse().expect("a seed is a number"))
        .collect()
}

/// Runs what the environment wishes for, and panics if anything is wrong.
pub fn run_wished<S: Simulation>() {
    if let Some(seed) = number("RAFTKEEL_SEED") {
        match tell_seed::<S>(seed) {
            Ok(summary) => println!("{summary:#?}"),
            Err(failure) => panic!("\n{failure}"),
        }
        return;
    }
    for seed in known_seeds::<S>() {
        if let Err(failure) = run_seed::<S>(seed) {
            panic!("\n{failure}");
        }
    }
    let start = Instant::now();
    match run_many::<S>(&Budget::wished::<S>()) {
        Ok(total) => {
            total.print(start.elapsed());
            total.assert_everywhere();
        }
        Err(failure) => panic!("\n{failure}"),
    }
}

/// I22: the same seed gives the same run.
pub fn assert_repeats<S: Simulation>(seeds: u64) {
    for seed in 1..=seeds {
        let (first, second) = (run_seed::<S>(seed), run_seed::<S>(seed));
        let (first, second) = (first.expect("it passes"), second.expect("it passes"));
        assert_eq!(first, second, "seed {seed} gave two histories");
    }
}

/// How often something happened, and in how many runs.
type Counts = Vec<(u64, u64)>;

/// What many runs came to.
struct Total<S> {
    runs: u64,
    slowest_election: u64,
    sum: Summary,
    marks: Counts,
    faults: Counts,
    kind: PhantomData<fn() -> S>,
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

impl<S: Simulation> Total<S> {
    fn new() -> Total<S> {
        Total {
            runs: 0,
            slowest_election: 0,
            sum: Summary::default(),
            marks: Counts::new(),
            faults: Counts::new(),
            kind: PhantomData,
        }
    }

    fn add(&mut self, run: &Summary) {
        self.runs += 1;
        self.slowest_election = self.slowest_election.max(run.elected);
        self.sum.elected += run.elected;
        self.sum.calls += run.calls;
        self.sum.span += run.span;
        self.sum.proposed += run.proposed;
        self.sum.committed += run.committed;
        self.sum.read += run.read;
        add_counts(&mut self.marks, &S::take_marks());
        add_counts(&mut self.faults, &Fault::take());
    }

    fn merge(&mut self, other: &Total<S>) {
        self.runs += other.runs;
        self.slowest_election = self.slowest_election.max(other.slowest_election);
        self.sum.elected += other.sum.elected;
        self.sum.calls += other.sum.calls;
        self.sum.span += other.sum.span;
        self.sum.proposed += other.sum.proposed;
        self.sum.committed += other.sum.committed;
        self.sum.read += other.sum.read;
        merge(&mut self.marks, &other.marks);
        merge(&mut self.faults, &other.faults);
    }

    /// Prints what happened.
    fn print(&self, took: Duration) {
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
        table("marks", S::marks(), &self.marks);
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
        let mean = sum.elected as f64 / 10.0 / self.runs.max(1) as f64;
        println!(
            "a leader {mean:.1} E after the end of the faults on average, {:.1} E at most",
            self.slowest_election as f64 / 10.0
        );
        println!(
            "{faults} faults, {} proposed, {} committed, {} read",
            sum.proposed, sum.committed, sum.read
        );
    }

    /// What no run has reached.
    fn never_reached(&self) -> Vec<&'static str> {
        let never = |counts: &Counts, at: usize| counts.get(at).is_none_or(|c| c.0 == 0);
        let marks = S::marks().into_iter().enumerate();
        let marks = marks
            .filter(|(at, _)| never(&self.marks, *at))
            .map(|(_, mark)| mark);
        let faults = Fault::ALL.iter().enumerate();
        let faults = faults
            .filter(|(at, (fault, _))| never(&self.faults, *at) && !S::FOREIGN.contains(fault))
            .map(|(_, f)| f.1);
        marks.chain(faults).collect()
    }

    /// Enough runs must have been everywhere.
    fn assert_everywhere(&self) {
        let never = self.never_reached();
        if self.runs >= S::ENOUGH {
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
struct Shared<S> {
    next: AtomicU64,
    failure: Mutex<Option<Failure>>,
    total: Mutex<Total<S>>,
    end: Instant,
    /// When it is next said how far they are.
    word: Mutex<Instant>,
}

impl<S> Shared<S> {
    fn say_how_far(&self, turn: u64) {
        let mut word = self.word.lock().expect("no thread died");
        if Instant::now() >= *word {
            println!("{turn} runs so far, no promise broken");
            *word += WORD_EVERY;
        }
    }
}

/// Runs seeds on all cores until the budget is used up or one fails.
fn run_many<S: Simulation>(budget: &Budget) -> Result<Total<S>, Failure> {
    let start = Instant::now();
    let shared = Shared {
        next: AtomicU64::new(0),
        failure: Mutex::new(None),
        total: Mutex::new(Total::new()),
        end: start + budget.time,
        word: Mutex::new(start + WORD_EVERY),
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

fn work<S: Simulation>(budget: &Budget, shared: &Shared<S>) {
    let mut total = Total::<S>::new();
    // What other tests of this thread have met is not counted.
    S::take_marks();
    Fault::take();
    while Instant::now() < shared.end {
        let turn = shared.next.fetch_add(1, Ordering::Relaxed);
        if turn >= budget.seeds {
            break;
        }
        match run_checked::<S>(budget.first.wrapping_add(turn)) {
            Ok(summary) => {
                total.add(&summary);
                shared.say_how_far(turn);
            }
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
fn run_checked<S: Simulation>(seed: u64) -> Result<Summary, Failure> {
    let first = run_seed::<S>(seed)?;
    if seed.is_multiple_of(TWICE) && run_seed::<S>(seed)? != first {
        return Err(Failure {
            seed,
            what: "I22: the same seed gave two histories".to_owned(),
            words: String::new(),
        });
    }
    Ok(first)
}
