//! Log entries as bytes.
//!
//! An entry is its index (8 bytes) and a body: term (8), kind (1), payload. An append sends bodies
//! only: their indexes follow from the append's, so entries out of sequence cannot be written.

use std::sync::Arc;

use crate::core::{Bytes, Configuration, Entry, Index, MAX_MEMBERS, NodeId, Payload, Term};

use super::raft::all_hold;
use super::{MAX_COMMAND, MAX_PAYLOAD, Reader, WireError, Writer, length};

// A kind that was ever written is never given another meaning.
const NOOP: u8 = 1;
const HOST: u8 = 2;
const CLUSTER: u8 = 3;
const CONFIG: u8 = 4;

/// Bytes of the shortest body.
pub(super) const MIN_BODY: usize = 9;

/// Appends one entry.
///
/// # Panics
/// If the entry breaks a limit or a rule that [`decode_entry`] checks.
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    assert!(entry.index > 0, "index 0 is before the first entry");
    let mut out = Writer::new(out);
    out.u64(entry.index);
    encode_body(entry.term, &entry.payload, &mut out);
}

/// How many bytes [`encode_entry`] appends.
pub fn entry_len(entry: &Entry) -> usize {
    length(|out| {
        out.u64(entry.index);
        encode_body(entry.term, &entry.payload, out);
    })
}

/// Takes one entry off the front of `bytes`. After an error `bytes` is unchanged.
pub fn decode_entry(bytes: &mut &[u8]) -> Result<Entry, WireError> {
    let mut input = Reader::new(bytes);
    let index = input.u64()?;
    if index == 0 {
        return Err(WireError::BadValue {
            what: "entry index",
        });
    }
    let entry = decode_body(index, &mut input)?;
    *bytes = input.rest();
    Ok(entry)
}

pub(super) fn encode_body(term: Term, payload: &Payload, out: &mut Writer<'_>) {
    assert!(term > 0, "term 0 is before the first entry");
    out.u64(term);
    match payload {
        Payload::Noop => out.u8(NOOP),
        Payload::Host(data) => {
            out.u8(HOST);
            out.bytes("entry data", MAX_PAYLOAD, data);
        }
        Payload::Cluster(command) => {
            out.u8(CLUSTER);
            out.bytes("cluster command", MAX_COMMAND, command);
        }
        Payload::Config(configuration, cause) => {
            out.u8(CONFIG);
            encode_configuration(configuration, out);
            out.bytes("cluster command", MAX_COMMAND, cause);
        }
    }
}

pub(super) fn decode_body(index: Index, input: &mut Reader<'_>) -> Result<Entry, WireError> {
    let term = input.u64()?;
    if term == 0 {
        return Err(WireError::BadValue { what: "entry term" });
    }
    let payload = match input.u8()? {
        NOOP => Payload::Noop,
        HOST => Payload::Host(Bytes::copy(input.bytes("entry data", MAX_PAYLOAD)?)?),
        CLUSTER => Payload::Cluster(Bytes::copy(input.bytes("cluster command", MAX_COMMAND)?)?),
        CONFIG => {
            let configuration = decode_configuration(input)?;
            let cause = input.bytes("cluster command", MAX_COMMAND)?;
            Payload::Config(Arc::new(configuration), Bytes::copy(cause)?)
        }
        kind => {
            return Err(WireError::UnknownKind {
                what: "log entry",
                kind,
            });
        }
    };
    Ok(Entry {
        index,
        term,
        payload,
    })
}

pub(super) fn encode_configuration(configuration: &Configuration, out: &mut Writer<'_>) {
    if let Err(error) = check_configuration(configuration) {
        panic!("{error}: {configuration:?}");
    }
    out.u64(configuration.epoch);
    for nodes in [
        &configuration.voters,
        &configuration.outgoing,
        &configuration.learners,
    ] {
        out.count("nodes", MAX_MEMBERS, nodes.len());
        nodes.iter().for_each(|id| out.node(*id));
    }
}

pub(super) fn decode_configuration(input: &mut Reader<'_>) -> Result<Configuration, WireError> {
    let configuration = Configuration {
        epoch: input.u64()?,
        voters: decode_nodes(input)?,
        outgoing: decode_nodes(input)?,
        learners: decode_nodes(input)?,
    };
    check_configuration(&configuration)?;
    Ok(configuration)
}

fn decode_nodes(input: &mut Reader<'_>) -> Result<Vec<NodeId>, WireError> {
    let count = input.count("nodes", MAX_MEMBERS, 8)?;
    (0..count).map(|_| input.node("node in a list")).collect()
}

/// What `core::Configuration` promises, and that somebody votes: a log entry that took the vote from
/// everybody could never be followed by another.
fn check_configuration(configuration: &Configuration) -> Result<(), WireError> {
    let Configuration {
        epoch,
        voters,
        outgoing,
        learners,
    } = configuration;
    let ascending = |nodes: &[NodeId]| nodes.is_sorted_by(|a, b| a < b);
    all_hold(&[
        ("epoch of a configuration", *epoch > 0),
        ("voters of a configuration", !voters.is_empty()),
        ("order of voters", ascending(voters)),
        ("order of outgoing voters", ascending(outgoing)),
        ("order of learners", ascending(learners)),
        (
            "members of a configuration",
            configuration.members().count() <= MAX_MEMBERS,
        ),
        (
            "learner that votes",
            learners
                .iter()
                .all(|id| voters.binary_search(id).is_err() && outgoing.binary_search(id).is_err()),
        ),
    ])
}
