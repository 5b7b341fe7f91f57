//! Commands and images of the cluster's state, and what becomes of a state that was decoded.

use raftkeel::cluster::{Change, Command, MAX_AMPLIFICATION, State};
use raftkeel::core::{Entry, Payload};
use raftkeel::wire::Reader;

use super::within;
use crate::commands;
use crate::rng::Rng;

/// A command in the log: decoded, and applied to a state.
pub fn command(data: &[u8]) {
    let bound = MAX_AMPLIFICATION * data.len();
    let decoded = within(bound, || Command::decode(data));
    if let Ok(command) = &decoded {
        assert!(command.encode() == data, "two encodings of {command:?}");
    }
    let mut state = commands::bootstrapped(5);
    let plain = next_entry(&state, Payload::Cluster(data.into()));
    let refused = state.clone().apply(&plain).is_err();
    assert!(refused || decoded.is_ok(), "applied without being read");
    if let Ok(command) = decoded {
        run(&mut state, &command);
    }
}

/// Commands that can be encoded, as the bytes choose them.
pub fn command_made(data: &[u8]) {
    let mut rng = Rng::of(data);
    let epoch = rng.number();
    let made = commands::command(&mut rng, epoch);
    let bytes = made.encode();
    command(&bytes);
    assert_eq!(Command::decode(&bytes), Ok(made));
}

/// The head of a snapshot's image: decoded, and gone on with, as the bytes behind it choose.
pub fn state(data: &[u8]) {
    let mut input = Reader::new(data);
    let bound = MAX_AMPLIFICATION * data.len();
    let Ok(mut state) = within(bound, || State::decode(&mut input)) else {
        return;
    };
    let mut again = Vec::new();
    state.encode(&mut again);
    let taken = &data[..data.len() - input.rest().len()];
    assert!(again == taken, "two encodings of {state:?}");
    go_on(&mut state, &mut Rng::of(input.rest()));
}

/// A state that commands led to, as the bytes choose them; encoded at every step.
pub fn state_made(data: &[u8]) {
    let mut rng = Rng::of(data);
    let mut state = commands::bootstrapped(1 + rng.below(7));
    go_on(&mut state, &mut rng);
}

fn go_on(state: &mut State, rng: &mut Rng<'_>) {
    for _ in 0..64 {
        if rng.is_done() {
            break;
        }
        let epoch = state.epoch();
        run(state, &commands::command(rng, epoch));
    }
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    let mut input = Reader::new(&bytes);
    let bound = MAX_AMPLIFICATION * bytes.len();
    let decoded = within(bound, || State::decode(&mut input));
    assert_eq!(decoded.as_ref(), Ok(&*state));
    assert_eq!(input.finish(), Ok(()));
}

/// What a leader and a log make of a command: checked, proposed, applied, and a joint configuration
/// left again.
fn run(state: &mut State, command: &Command) {
    let cause = command.encode().into();
    let newest = state.configuration();
    let payload = match state.check(&newest, command) {
        Err(_) => return,
        Ok(Change::Plain) => Payload::Cluster(cause),
        Ok(Change::Config(target)) => Payload::Config(target.into(), cause),
    };
    apply(state, payload.clone());
    if let Payload::Config(target, _) = &payload
        && target.is_joint()
    {
        apply(state, Payload::Config(target.left().into(), [][..].into()));
    }
}

fn apply(state: &mut State, payload: Payload) {
    let entry = next_entry(state, payload);
    state.apply(&entry).expect("it was checked");
}

fn next_entry(state: &State, payload: Payload) -> Entry {
    Entry {
        index: state.applied() + 1,
        term: 2,
        payload,
    }
}
