//! What cores say to each other, as bytes.
//!
//! Each decoder checks what is true of every message of a correct core, and each encoder asserts the
//! same, by the same functions.

use crate::core::{
    Append, AppendOutcome, AppendReply, Entry, Index, LogEnd, LogEndReply, Message, ReadIndex,
    ReadIndexReply, Term, TimeoutNow, VoteReply, VoteRequest,
};

use super::entry::{MIN_BODY, decode_body, encode_body};
use super::{MAX_PACKET, MAX_TERM, Reader, WireError, Writer, snapshot};

const REFUSED: u8 = 0;
const GRANTED: u8 = 1;
const GRANTED_EARLY: u8 = 2;

const ACCEPTED: u8 = 1;
const REJECTED: u8 = 2;

pub(super) fn encode(message: &Message, out: &mut Writer<'_>) {
    if let Err(error) = check(message) {
        panic!("{error}, in a message of term {}", message.term());
    }
    match message {
        Message::PreVote(m) | Message::Vote(m) => encode_vote_request(m, out),
        Message::PreVoteReply(m) | Message::VoteReply(m) => {
            out.u64(m.term);
            out.u8(match (m.granted, m.early) {
                (false, _) => REFUSED,
                (true, false) => GRANTED,
                (true, true) => GRANTED_EARLY,
            });
        }
        Message::Append(m) => encode_append(m, out),
        Message::AppendReply(m) => encode_append_reply(m, out),
        Message::TimeoutNow(m) => {
            out.u64(m.term);
            out.u64(m.seq);
            out.u64(m.last_index);
            out.u64(m.last_term);
        }
        Message::ReadIndex(m) => {
            out.u64(m.term);
            out.u64(m.run);
            out.u64(m.seq);
        }
        Message::ReadIndexReply(m) => {
            out.u64(m.term);
            out.u64(m.run);
            out.u64(m.seq);
            out.u64(m.index);
        }
        Message::Snapshot(m) => snapshot::encode_piece(m, out),
        Message::SnapshotReply(m) => snapshot::encode_reply(m, out),
        Message::LogEnd(m) => {
            out.u64(m.term);
            out.u64(m.run);
        }
        Message::LogEndReply(m) => {
            out.u64(m.term);
            out.u64(m.run);
            out.u64(m.index);
        }
    }
}

/// Whether a correct core can have sent it.
pub(super) fn check(message: &Message) -> Result<(), WireError> {
    if message.term() > MAX_TERM {
        return Err(WireError::BadValue { what: "term" });
    }
    let rules: &[(&'static str, bool)] = match message {
        Message::PreVote(m) | Message::Vote(m) => &[
            (
                "last entry of a candidate",
                position(m.last_index, m.last_term),
            ),
            // It campaigns for a term that it has seen no leader of.
            ("term of a candidate", m.last_term < m.term),
        ],
        Message::PreVoteReply(m) => &[("grant of a pre-vote", !m.early)],
        Message::VoteReply(m) => &[("grant of a vote", m.granted || !m.early)],
        Message::Append(m) => &[
            (
                "previous entry of an append",
                position(m.prev_index, m.prev_term),
            ),
            ("term of an append", m.term > 0),
            ("order of an append's terms", terms_ascend(m)),
        ],
        Message::AppendReply(m) => match m.outcome {
            AppendOutcome::Accepted { .. } => &[],
            AppendOutcome::Rejected {
                prev_index,
                hint_index,
                hint_term,
            } => &[
                ("hint of a rejection", position(hint_index, hint_term)),
                ("hint above the rejected index", hint_index <= prev_index),
            ],
        },
        Message::TimeoutNow(m) => &[
            // A leader has opened its term with an entry.
            ("last entry of a leader", m.last_index > 0),
            ("term of a leader", m.last_term == m.term && m.term > 0),
        ],
        Message::ReadIndex(m) => &[("term of a question", m.term > 0)],
        Message::ReadIndexReply(m) => &[
            ("term of an answer", m.term > 0),
            ("index of an answer", m.index > 0),
        ],
        Message::Snapshot(m) => return snapshot::check_piece(m),
        Message::SnapshotReply(_) => &[],
        Message::LogEnd(m) => &[("term of a question", m.term > 0)],
        Message::LogEndReply(m) => &[
            ("term of an answer", m.term > 0),
            ("index of an answer", m.index > 0),
        ],
    };
    all_hold(rules)
}

/// The first rule that does not hold is the error.
pub(super) fn all_hold(rules: &[(&'static str, bool)]) -> Result<(), WireError> {
    match rules.iter().find(|(_, holds)| !holds) {
        Some((what, _)) => Err(WireError::BadValue { what }),
        None => Ok(()),
    }
}

/// Only the place before the first entry has term 0.
fn position(index: Index, term: Term) -> bool {
    (index == 0) == (term == 0)
}

fn terms_ascend(append: &Append) -> bool {
    let mut last = append.prev_term;
    append.entries.iter().all(|entry| {
        let ascends = last <= entry.term;
        last = entry.term;
        ascends
    }) && last <= append.term
}

fn encode_vote_request(request: &VoteRequest, out: &mut Writer<'_>) {
    out.u64(request.term);
    out.u64(request.last_index);
    out.u64(request.last_term);
    out.bool(request.transfer);
}

pub(super) fn decode_vote_request(input: &mut Reader<'_>) -> Result<VoteRequest, WireError> {
    Ok(VoteRequest {
        term: input.u64()?,
        last_index: input.u64()?,
        last_term: input.u64()?,
        transfer: input.bool("transfer flag")?,
    })
}

pub(super) fn decode_vote_reply(input: &mut Reader<'_>) -> Result<VoteReply, WireError> {
    let term = input.u64()?;
    let (granted, early) = match input.u8()? {
        REFUSED => (false, false),
        GRANTED => (true, false),
        GRANTED_EARLY => (true, true),
        _ => return Err(WireError::BadValue { what: "grant" }),
    };
    Ok(VoteReply {
        term,
        granted,
        early,
    })
}

fn encode_append(append: &Append, out: &mut Writer<'_>) {
    out.u64(append.term);
    out.u64(append.seq);
    out.u64(append.prev_index);
    out.u64(append.prev_term);
    out.u64(append.commit);
    out.count("entries", MAX_PACKET / MIN_BODY, append.entries.len());
    // The entries first: behind the last one there need not be another index.
    for (entry, index) in append.entries.iter().zip(append.prev_index + 1..) {
        assert_eq!(
            entry.index, index,
            "the entries of an append are contiguous"
        );
        encode_body(entry.term, &entry.payload, out);
    }
}

pub(super) fn decode_append(input: &mut Reader<'_>) -> Result<Append, WireError> {
    let (term, seq) = (input.u64()?, input.u64()?);
    let (prev_index, prev_term) = (input.u64()?, input.u64()?);
    let commit = input.u64()?;
    let count = input.count("entries", MAX_PACKET / MIN_BODY, MIN_BODY)?;
    // One more than the last index must exist too: nobody needs to check again before adding one.
    if prev_index.checked_add(count as u64 + 1).is_none() {
        return Err(WireError::BadValue {
            what: "index of an append",
        });
    }
    let mut entries: Vec<Entry> = Vec::new();
    entries.try_reserve_exact(count)?;
    for index in (prev_index + 1..).take(count) {
        entries.push(decode_body(index, input)?);
    }
    Ok(Append {
        term,
        seq,
        prev_index,
        prev_term,
        commit,
        entries,
    })
}

fn encode_append_reply(reply: &AppendReply, out: &mut Writer<'_>) {
    out.u64(reply.term);
    out.u64(reply.seq);
    match reply.outcome {
        AppendOutcome::Accepted { match_index } => {
            out.u8(ACCEPTED);
            out.u64(match_index);
        }
        AppendOutcome::Rejected {
            prev_index,
            hint_index,
            hint_term,
        } => {
            out.u8(REJECTED);
            out.u64(prev_index);
            out.u64(hint_index);
            out.u64(hint_term);
        }
    }
}

pub(super) fn decode_append_reply(input: &mut Reader<'_>) -> Result<AppendReply, WireError> {
    let (term, seq) = (input.u64()?, input.u64()?);
    let outcome = match input.u8()? {
        ACCEPTED => AppendOutcome::Accepted {
            match_index: input.u64()?,
        },
        REJECTED => AppendOutcome::Rejected {
            prev_index: input.u64()?,
            hint_index: input.u64()?,
            hint_term: input.u64()?,
        },
        _ => {
            return Err(WireError::BadValue {
                what: "outcome of an append",
            });
        }
    };
    Ok(AppendReply { term, seq, outcome })
}

pub(super) fn decode_timeout_now(input: &mut Reader<'_>) -> Result<TimeoutNow, WireError> {
    Ok(TimeoutNow {
        term: input.u64()?,
        seq: input.u64()?,
        last_index: input.u64()?,
        last_term: input.u64()?,
    })
}

pub(super) fn decode_read_index(input: &mut Reader<'_>) -> Result<ReadIndex, WireError> {
    Ok(ReadIndex {
        term: input.u64()?,
        run: input.u64()?,
        seq: input.u64()?,
    })
}

pub(super) fn decode_read_index_reply(input: &mut Reader<'_>) -> Result<ReadIndexReply, WireError> {
    Ok(ReadIndexReply {
        term: input.u64()?,
        run: input.u64()?,
        seq: input.u64()?,
        index: input.u64()?,
    })
}

pub(super) fn decode_log_end(input: &mut Reader<'_>) -> Result<LogEnd, WireError> {
    Ok(LogEnd {
        term: input.u64()?,
        run: input.u64()?,
    })
}

pub(super) fn decode_log_end_reply(input: &mut Reader<'_>) -> Result<LogEndReply, WireError> {
    Ok(LogEndReply {
        term: input.u64()?,
        run: input.u64()?,
        index: input.u64()?,
    })
}
