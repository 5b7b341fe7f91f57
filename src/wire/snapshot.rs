//! Snapshots as bytes: what one is, its pieces on their way, and the answers to them.

use std::sync::Arc;

use crate::core::{Bytes, Position, Snapshot, SnapshotPiece, SnapshotReply, Wants};

use super::entry::{decode_configuration, encode_configuration};
use super::raft::all_hold;
use super::{MAX_PIECE, MAX_SNAPSHOT_INDEX, MAX_TERM, Reader, WireError, Writer};

const FROM: u8 = 1;
const PATIENCE: u8 = 2;
const AGAIN: u8 = 3;

/// Appends what a snapshot is.
///
/// # Panics
/// If it breaks a rule that [`decode_snapshot`] checks.
pub fn encode_snapshot(snapshot: &Snapshot, out: &mut Writer<'_>) {
    if let Err(error) = check(snapshot) {
        panic!("{error}: {snapshot:?}");
    }
    out.u64(snapshot.last.index);
    out.u64(snapshot.last.term);
    out.u64(snapshot.config_index);
    encode_configuration(&snapshot.config, out);
    out.u64(snapshot.size);
    out.u32(snapshot.crc);
    let (first, last) = snapshot.pieces.unwrap_or_default();
    out.u64(first);
    out.u64(last);
}

/// Reads it.
pub fn decode_snapshot(input: &mut Reader<'_>) -> Result<Snapshot, WireError> {
    let last = Position {
        index: input.u64()?,
        term: input.u64()?,
    };
    let config_index = input.u64()?;
    let config = Arc::new(decode_configuration(input)?);
    let (size, crc) = (input.u64()?, input.u32()?);
    let pieces = (input.u64()?, input.u64()?);
    let snapshot = Snapshot {
        last,
        config,
        config_index,
        size,
        crc,
        pieces: (pieces != (0, 0)).then_some(pieces),
    };
    check(&snapshot)?;
    Ok(snapshot)
}

/// What is true of every snapshot of a correct server.
fn check(snapshot: &Snapshot) -> Result<(), WireError> {
    let last = snapshot.last;
    let behind = |(first, end)| last.index < first && first <= end;
    all_hold(&[
        ("last entry of a snapshot", last.index > 0 && last.term > 0),
        ("index of a snapshot", last.index <= MAX_SNAPSHOT_INDEX),
        ("term of a snapshot", last.term <= MAX_TERM),
        (
            "configuration of a snapshot",
            (1..=last.index).contains(&snapshot.config_index),
        ),
        ("pieces of a snapshot", snapshot.pieces.is_none_or(behind)),
    ])
}

pub(super) fn check_piece(piece: &SnapshotPiece) -> Result<(), WireError> {
    let end = piece.offset.checked_add(piece.data.len() as u64);
    all_hold(&[
        ("term of a snapshot", piece.snapshot.last.term <= piece.term),
        (
            "place of a piece",
            end.is_some_and(|end| end <= piece.snapshot.size),
        ),
    ])
}

pub(super) fn encode_piece(piece: &SnapshotPiece, out: &mut Writer<'_>) {
    out.u64(piece.term);
    out.u64(piece.seq);
    encode_snapshot(&piece.snapshot, out);
    out.u64(piece.offset);
    out.bytes("piece of a snapshot", MAX_PIECE, &piece.data);
}

pub(super) fn decode_piece(input: &mut Reader<'_>) -> Result<SnapshotPiece, WireError> {
    Ok(SnapshotPiece {
        term: input.u64()?,
        seq: input.u64()?,
        snapshot: decode_snapshot(input)?,
        offset: input.u64()?,
        data: Bytes::copy(input.bytes("piece of a snapshot", MAX_PIECE)?)?,
    })
}

pub(super) fn encode_reply(reply: &SnapshotReply, out: &mut Writer<'_>) {
    out.u64(reply.term);
    out.u64(reply.seq);
    out.u64(reply.index);
    out.u32(reply.crc);
    match reply.wants {
        Wants::From(offset) => {
            out.u8(FROM);
            out.u64(offset);
        }
        Wants::Patience => out.u8(PATIENCE),
        Wants::Again => out.u8(AGAIN),
    }
}

pub(super) fn decode_reply(input: &mut Reader<'_>) -> Result<SnapshotReply, WireError> {
    let (term, seq) = (input.u64()?, input.u64()?);
    let (index, crc) = (input.u64()?, input.u32()?);
    let wants = match input.u8()? {
        FROM => Wants::From(input.u64()?),
        PATIENCE => Wants::Patience,
        AGAIN => Wants::Again,
        _ => {
            return Err(WireError::BadValue {
                what: "wish for a snapshot",
            });
        }
    };
    Ok(SnapshotReply {
        term,
        seq,
        index,
        crc,
        wants,
    })
}
