//! What a run was, as one number: the hash of everything that went into a server and came out of
//! it. And, when a run is told again because it failed, its last events in words.

use std::collections::VecDeque;
use std::fmt::Write;
use std::hash::{Hash, Hasher};

use raftkeel::core::{Ask, Payload};

use crate::queue::Micros;
use crate::runner::number;
use crate::server::{Input, Output, Server, State};

/// How many events are kept to be read, unless RAFTKEEL_EVENTS says otherwise.
const KEPT: u64 = 60;

/// A fast hash of 64 bits, the same in every build. Each word is folded into the product of
/// 128 bits (as in wyhash, Wang Yi 2019), so that every bit depends on all before.
#[derive(Clone, Copy)]
pub struct Mixer(u64);

impl Mixer {
    pub fn new() -> Mixer {
        Mixer(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    fn write_u64(&mut self, word: u64) {
        const ODD: u128 = 0xa076_1d64_78bd_642f;
        let product = u128::from(self.0 ^ word) * ODD;
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(word);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
}

/// What an entry holds, as a number.
pub fn hash_payload(payload: &Payload) -> u64 {
    let mut mixer = Mixer::new();
    match payload {
        Payload::Noop => mixer.write_u64(1),
        Payload::Host(data) => {
            mixer.write_u64(2);
            mixer.write(data);
        }
        other => other.hash(&mut mixer),
    }
    mixer.finish()
}

/// The record of a run.
pub struct Trace {
    mixer: Mixer,
    /// Calls into servers so far.
    pub calls: u64,
    told: Option<VecDeque<String>>,
    kept: usize,
}

impl Trace {
    /// One that is to be read keeps its last events.
    pub fn new(told: bool) -> Trace {
        Trace {
            mixer: Mixer::new(),
            calls: 0,
            told: told.then(VecDeque::new),
            kept: number("RAFTKEEL_EVENTS").unwrap_or(KEPT) as usize,
        }
    }

    pub fn hash(&self) -> u64 {
        self.mixer.finish()
    }

    /// A server is about to take an input: the last that is heard of it, should it fail there.
    pub fn input<S: Server>(&mut self, at: Micros, node: usize, input: &Input<S::Packet>) {
        self.calls += 1;
        (at, node, input).hash(&mut self.mixer);
        if self.told.is_some() {
            self.tell(at, format!("n{} {input:?}", node + 1));
        }
    }

    /// What it brought about.
    pub fn output<S: Server>(&mut self, output: &Output<S>, before: &State, after: &State) {
        let mixer = &mut self.mixer;
        (output.answer, &output.sent, &output.applied, &output.reads).hash(mixer);
        if let Some(write) = &output.write {
            S::digest_write(write, mixer);
        }
        output.asks.iter().for_each(|ask| digest_ask(ask, mixer));
        if let Some(text) = self.told.as_mut().and_then(VecDeque::back_mut) {
            describe(text, output, before, after);
        }
    }

    /// Anything else that a run is made of.
    pub fn mix(&mut self, what: impl Hash) {
        what.hash(&mut self.mixer);
    }

    /// Something that is no call: a fault, an end of one.
    pub fn tell(&mut self, at: Micros, what: impl AsRef<str>) {
        let Some(told) = &mut self.told else {
            return;
        };
        if told.len() == self.kept {
            told.pop_front();
        }
        let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
        told.push_back(format!("{seconds:4}.{micros:06} {}", what.as_ref()));
    }

    /// Whether events are kept in words.
    pub fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// The last events.
    pub fn last_words(&self) -> String {
        let told = self.told.iter().flatten();
        told.fold(String::new(), |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        })
    }
}

fn digest_ask(ask: &Ask, mixer: &mut Mixer) {
    match ask {
        Ask::Entries {
            to,
            first,
            last,
            bytes,
        } => (1, to, first, last, bytes).hash(mixer),
        Ask::Piece {
            to,
            snapshot,
            offset,
            len,
        } => (2, to, snapshot, offset, len).hash(mixer),
        Ask::Store {
            snapshot,
            offset,
            data,
        } => (3, snapshot, offset, data).hash(mixer),
        Ask::Install { snapshot } => (4, snapshot).hash(mixer),
    }
}

fn describe<S: Server>(text: &mut String, output: &Output<S>, before: &State, after: &State) {
    // Writing to a string cannot fail.
    let _ = tell_output(text, output);
    if before != after {
        let _ = tell_state(text, before, after);
    }
}

fn tell_output<S: Server>(text: &mut String, output: &Output<S>) -> std::fmt::Result {
    if output.answer != crate::server::Answer::None {
        write!(text, "\n            = {:?}", output.answer)?;
    }
    if let Some(write) = &output.write {
        write!(text, "\n            writes {write:?}")?;
    }
    for (to, packet) in &output.sent {
        write!(text, "\n            -> {to} {packet:?}")?;
    }
    if let (Some(first), Some(last)) = (output.applied.first(), output.applied.last()) {
        write!(
            text,
            "\n            applies {}..={}",
            first.index, last.index
        )?;
    }
    for ask in &output.asks {
        write!(text, "\n            asks {ask:?}")?;
    }
    for (id, index) in &output.reads {
        write!(text, "\n            read {id} {index:?}")?;
    }
    Ok(())
}

fn tell_state(text: &mut String, before: &State, after: &State) -> std::fmt::Result {
    write!(text, "\n           ")?;
    if (before.role, before.term) != (after.role, after.term) {
        let (b, a) = (before, after);
        write!(
            text,
            " {:?} t{} => {:?} t{}",
            b.role, b.term, a.role, a.term
        )?;
    }
    let last = |s: &State| (s.last_index, s.last_term);
    if last(before) != last(after) {
        let (b, a) = (before, after);
        write!(
            text,
            " log {}.{} => {}.{}",
            b.last_index, b.last_term, a.last_index, a.last_term
        )?;
    }
    if before.commit != after.commit {
        write!(text, " commit {} => {}", before.commit, after.commit)?;
    }
    if before.durable != after.durable {
        write!(text, " durable {} => {}", before.durable, after.durable)?;
    }
    if before.base != after.base {
        write!(text, " base {} => {}", before.base.index, after.base.index)?;
    }
    if before.config_index != after.config_index {
        write!(text, " config at {}", after.config_index)?;
    }
    Ok(())
}
