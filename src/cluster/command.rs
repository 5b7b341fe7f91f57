//! What can be asked of the cluster state, as it stands in the log.

use std::collections::TryReserveError;

use crate::core::{Epoch, Index, MAX_MEMBERS, NodeId, Term};
use crate::wire::{MAX_COMMAND, Reader, WireError, Writer, try_written};

use super::{Params, Peer};

/// Who wants an exclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The failure detector.
    Detector,
    /// The administrator.
    Admin,
}

/// One command. `expect` is the epoch that it was decided on; it holds for that one only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The first entry of every log.
    Bootstrap {
        /// The first voters, sorted by id.
        members: Vec<Peer>,
        /// The first settings.
        params: Params,
    },
    /// Members are out.
    Exclude {
        /// The epoch decided on.
        expect: Epoch,
        /// Which members.
        ids: Vec<NodeId>,
        /// For each of them how many milliseconds it was silent, as evidence.
        silent: Vec<u32>,
        /// Who wants it.
        by: Cause,
    },
    /// An excluded member comes back, as a learner.
    Readmit {
        /// The epoch decided on.
        expect: Epoch,
        /// Which member.
        id: NodeId,
    },
    /// A new node takes the place of an excluded one, as a learner.
    Replace {
        /// The epoch decided on.
        expect: Epoch,
        /// The excluded one.
        old: NodeId,
        /// The new one.
        by: Peer,
    },
    /// A learner becomes a voter.
    Promote {
        /// The epoch decided on.
        expect: Epoch,
        /// Which learner.
        id: NodeId,
    },
    /// New settings.
    SetParams {
        /// Their present version, 0 for any.
        expect_version: u64,
        /// The settings; their own `version` is not looked at.
        params: Params,
    },
    /// A new node joins, as a learner that is not promoted unless asked for.
    Add {
        /// The epoch decided on.
        expect: Epoch,
        /// Which node.
        peer: Peer,
    },
    /// A member leaves for good.
    Remove {
        /// The epoch decided on.
        expect: Epoch,
        /// Which member.
        id: NodeId,
    },
    /// Which storage members have. Holds on every epoch, for none of them is ever changed.
    Register {
        /// Members and their instances, none of which is 0.
        instances: Vec<(NodeId, u64)>,
    },
    /// Who leads since when, so that the leader's address can be looked up in the state.
    Lead {
        /// The leader.
        id: NodeId,
        /// Its term.
        term: Term,
    },
    /// Everybody makes a snapshot of exactly what is applied up to this entry.
    Compact {
        /// The host's part of it comes in the log itself, from who proposed this.
        in_log: bool,
    },
    /// A piece of the host's part of a snapshot.
    Piece {
        /// Log index of the [`Command::Compact`] that it belongs to.
        at: Index,
        /// Where in the host's part.
        offset: u64,
        /// Its bytes, at most [`MAX_LOG_PIECE`].
        data: Vec<u8>,
        /// This is the last one, and the CRC-32 of all of them.
        whole: Option<u32>,
    },
}

/// Bytes in one piece of a snapshot in the log.
pub const MAX_LOG_PIECE: usize = 32 << 10;

// The tag names the command and the layout of its fields. A changed layout gets a new tag; a tag
// that was ever written is never given another meaning.
const BOOTSTRAP: u8 = 1;
const EXCLUDE: u8 = 2;
const READMIT: u8 = 3;
const REPLACE: u8 = 4;
const PROMOTE: u8 = 5;
const SET_PARAMS: u8 = 6;
const ADD: u8 = 7;
const REMOVE: u8 = 8;
const REGISTER: u8 = 9;
const LEAD: u8 = 10;
const COMPACT: u8 = 11;
const PIECE: u8 = 12;
const LAST_PIECE: u8 = 13;

const BY_DETECTOR: u8 = 1;
const BY_ADMIN: u8 = 2;

impl Command {
    /// Whether it goes into the log with the configuration that it leads to.
    pub fn changes_members(&self) -> bool {
        match self {
            Command::Bootstrap { .. }
            | Command::Exclude { .. }
            | Command::Readmit { .. }
            | Command::Replace { .. }
            | Command::Promote { .. }
            | Command::Add { .. }
            | Command::Remove { .. } => true,
            Command::SetParams { .. }
            | Command::Register { .. }
            | Command::Lead { .. }
            | Command::Compact { .. }
            | Command::Piece { .. } => false,
        }
    }

    /// Whether these bytes are a [`Command::Piece`], which need not be read to know that.
    pub fn is_piece(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(&(PIECE | LAST_PIECE)))
    }

    /// The bytes that go into the log; equal commands have equal bytes.
    ///
    /// # Panics
    /// If a list, an address or meta is longer than its limit, or `silent` and `ids` differ in
    /// length. What `State::check` has accepted never panics.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut Writer::new(&mut bytes));
        within_limit(bytes)
    }

    /// The same, if there is memory for them.
    pub fn try_encode(&self) -> Result<Vec<u8>, TryReserveError> {
        try_written(|out| self.write(out)).map(within_limit)
    }

    fn write(&self, out: &mut Writer<'_>) {
        match self {
            Command::Bootstrap { members, params } => {
                out.u8(BOOTSTRAP);
                out.count("members", MAX_MEMBERS, members.len());
                members.iter().for_each(|m| m.encode(out));
                params.encode(out);
            }
            Command::Exclude {
                expect,
                ids,
                silent,
                by,
            } => encode_exclude(out, *expect, ids, silent, *by),
            Command::Readmit { expect, id } => {
                out.u8(READMIT);
                out.u64(*expect);
                out.node(*id);
            }
            Command::Replace { expect, old, by } => {
                out.u8(REPLACE);
                out.u64(*expect);
                out.node(*old);
                by.encode(out);
            }
            Command::Promote { expect, id } => {
                out.u8(PROMOTE);
                out.u64(*expect);
                out.node(*id);
            }
            Command::SetParams {
                expect_version,
                params,
            } => {
                out.u8(SET_PARAMS);
                out.u64(*expect_version);
                params.encode(out);
            }
            Command::Add { expect, peer } => {
                out.u8(ADD);
                out.u64(*expect);
                peer.encode(out);
            }
            Command::Remove { expect, id } => {
                out.u8(REMOVE);
                out.u64(*expect);
                out.node(*id);
            }
            Command::Register { instances } => encode_register(out, instances),
            Command::Lead { id, term } => {
                out.u8(LEAD);
                out.node(*id);
                out.u64(*term);
            }
            Command::Compact { in_log } => {
                out.u8(COMPACT);
                out.bool(*in_log);
            }
            Command::Piece {
                at,
                offset,
                data,
                whole,
            } => encode_piece(out, *at, *offset, data, *whole),
        }
    }

    /// Reads one command, which must fill `bytes`. An unknown one is `UnknownKind`: it must stop the
    /// node, for going on without it would make its state differ from the others'.
    pub fn decode(bytes: &[u8]) -> Result<Command, WireError> {
        let mut input = Reader::new(bytes);
        let command = match input.u8()? {
            BOOTSTRAP => decode_bootstrap(&mut input)?,
            EXCLUDE => decode_exclude(&mut input)?,
            READMIT => Command::Readmit {
                expect: input.u64()?,
                id: input.node("readmitted id")?,
            },
            REPLACE => Command::Replace {
                expect: input.u64()?,
                old: input.node("replaced id")?,
                by: Peer::decode(&mut input)?,
            },
            PROMOTE => Command::Promote {
                expect: input.u64()?,
                id: input.node("promoted id")?,
            },
            SET_PARAMS => Command::SetParams {
                expect_version: input.u64()?,
                params: Params::decode(&mut input)?,
            },
            ADD => Command::Add {
                expect: input.u64()?,
                peer: Peer::decode(&mut input)?,
            },
            REMOVE => Command::Remove {
                expect: input.u64()?,
                id: input.node("removed id")?,
            },
            REGISTER => decode_register(&mut input)?,
            LEAD => Command::Lead {
                id: input.node("leading id")?,
                term: input.u64()?,
            },
            COMPACT => Command::Compact {
                in_log: input.bool("kind of a snapshot")?,
            },
            PIECE => decode_piece(&mut input, false)?.into(),
            LAST_PIECE => decode_piece(&mut input, true)?.into(),
            kind => {
                return Err(WireError::UnknownKind {
                    what: "cluster command",
                    kind,
                });
            }
        };
        input.finish()?;
        Ok(command)
    }
}

fn within_limit(bytes: Vec<u8>) -> Vec<u8> {
    assert!(bytes.len() <= MAX_COMMAND, "a command outgrew its limit");
    bytes
}

fn encode_exclude(out: &mut Writer<'_>, expect: Epoch, ids: &[NodeId], silent: &[u32], by: Cause) {
    assert_eq!(ids.len(), silent.len(), "one silence for each excluded id");
    out.u8(EXCLUDE);
    out.u64(expect);
    out.u8(match by {
        Cause::Detector => BY_DETECTOR,
        Cause::Admin => BY_ADMIN,
    });
    out.count("excluded ids", MAX_MEMBERS, ids.len());
    for (id, silent) in ids.iter().zip(silent) {
        out.node(*id);
        out.u32(*silent);
    }
}

fn encode_register(out: &mut Writer<'_>, instances: &[(NodeId, u64)]) {
    out.u8(REGISTER);
    out.count("instances", MAX_MEMBERS, instances.len());
    for (id, instance) in instances {
        out.node(*id);
        out.u64(*instance);
    }
}

fn decode_register(input: &mut Reader<'_>) -> Result<Command, WireError> {
    let count = input.count("instances", MAX_MEMBERS, 16)?;
    let instances = (0..count)
        .map(|_| Ok((input.node("registered id")?, input.u64()?)))
        .collect::<Result<_, WireError>>()?;
    Ok(Command::Register { instances })
}

fn encode_piece(out: &mut Writer<'_>, at: Index, offset: u64, data: &[u8], whole: Option<u32>) {
    out.u8(if whole.is_some() { LAST_PIECE } else { PIECE });
    out.u64(at);
    out.u64(offset);
    out.bytes("piece of a snapshot", MAX_LOG_PIECE, data);
    if let Some(crc) = whole {
        out.u32(crc);
    }
}

/// A [`Command::Piece`] whose bytes are where they were read: nobody keeps them, and there need not be
/// memory for them.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// See [`Command::Piece`].
    pub at: Index,
    /// See [`Command::Piece`].
    pub offset: u64,
    /// See [`Command::Piece`].
    pub data: &'a [u8],
    /// See [`Command::Piece`].
    pub whole: Option<u32>,
}

impl Piece<'_> {
    /// Reads one, which must fill `bytes`; `None` if it is another command.
    pub fn decode(bytes: &[u8]) -> Result<Option<Piece<'_>>, WireError> {
        let mut input = Reader::new(bytes);
        let piece = match input.u8()? {
            PIECE => decode_piece(&mut input, false)?,
            LAST_PIECE => decode_piece(&mut input, true)?,
            _ => return Ok(None),
        };
        input.finish()?;
        Ok(Some(piece))
    }
}

fn decode_piece<'a>(input: &mut Reader<'a>, last: bool) -> Result<Piece<'a>, WireError> {
    Ok(Piece {
        at: input.u64()?,
        offset: input.u64()?,
        data: input.bytes("piece of a snapshot", MAX_LOG_PIECE)?,
        whole: last.then(|| input.u32()).transpose()?,
    })
}

impl From<Piece<'_>> for Command {
    fn from(piece: Piece<'_>) -> Command {
        Command::Piece {
            at: piece.at,
            offset: piece.offset,
            data: piece.data.to_vec(),
            whole: piece.whole,
        }
    }
}

fn decode_bootstrap(input: &mut Reader<'_>) -> Result<Command, WireError> {
    let count = input.count("members", MAX_MEMBERS, Peer::MIN_LEN)?;
    let members = (0..count)
        .map(|_| Peer::decode(input))
        .collect::<Result<_, _>>()?;
    Ok(Command::Bootstrap {
        members,
        params: Params::decode(input)?,
    })
}

fn decode_exclude(input: &mut Reader<'_>) -> Result<Command, WireError> {
    let expect = input.u64()?;
    let by = match input.u8()? {
        BY_DETECTOR => Cause::Detector,
        BY_ADMIN => Cause::Admin,
        _ => {
            return Err(WireError::BadValue {
                what: "exclusion cause",
            });
        }
    };
    let count = input.count("excluded ids", MAX_MEMBERS, 12)?;
    let (mut ids, mut silent) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        ids.push(input.node("excluded id")?);
        silent.push(input.u32()?);
    }
    Ok(Command::Exclude {
        expect,
        ids,
        silent,
        by,
    })
}
