//! What is asked of storage beside the writes of the log, and may take as long as a disk does.

use crate::core::{Bytes, Entry, Index, NodeId, Snapshot};

use super::{Draft, SnapshotReader, SnapshotWriter, Storage, StorageError, zeros};

/// Something that takes its time. Where storage has a thread for it, whoever drives the engine does
/// not wait; see [`Storage::begin`].
pub enum Task {
    /// See [`Storage::fetch`].
    Entries {
        /// The peer that they are for; `None`: they are to be applied.
        to: Option<NodeId>,
        /// The first one.
        first: Index,
        /// The last one.
        last: Index,
        /// About what they may weigh.
        bytes: usize,
    },
    /// Read a piece of an image.
    Piece {
        /// The peer that it is for.
        to: NodeId,
        /// Whose image.
        snapshot: Snapshot,
        /// Where in the image.
        offset: u64,
        /// Bytes, all of them within the image.
        len: usize,
        /// One that reads it already.
        reader: Option<Box<dyn SnapshotReader>>,
    },
    /// See [`Storage::store_piece`].
    Store {
        /// Whose image.
        snapshot: Snapshot,
        /// Where in the image.
        offset: u64,
        /// Its bytes.
        data: Bytes,
    },
    /// See [`Storage::read_snapshot`].
    Open {
        /// Which one.
        snapshot: Snapshot,
    },
    /// See [`Storage::adopt`].
    Adopt {
        /// Which one.
        snapshot: Snapshot,
    },
    /// Write a snapshot of this node's own, all of whose image is here.
    Write {
        /// What it will be.
        draft: Draft,
        /// Its image.
        image: Vec<u8>,
    },
    /// Make an image of pieces that lie in the log, which is no snapshot.
    Gather {
        /// Whose pieces.
        draft: Draft,
        /// The first entry that holds one.
        first: Index,
        /// The last one.
        last: Index,
        /// What an entry holds of the snapshot at this index.
        piece_of: PieceOf,
    },
}

/// A piece of an image: where it begins, its bytes, and with the last one the CRC-32 of all.
pub type LogPiece<'a> = (u64, &'a [u8], Option<u32>);

/// What an entry holds of the snapshot at this index; an error says that nobody can read the entry.
pub type PieceOf = fn(&Entry, Index) -> Result<Option<LogPiece<'_>>, String>;

/// Bytes of entries that are read at once to find pieces among them.
const PIECES_BATCH: usize = 1 << 20;

/// What came of a [`Task`], with what of it tells which one that was.
#[allow(missing_docs, reason = "the task says what they are")]
pub enum Done {
    /// Of [`Task::Entries`].
    Entries {
        to: Option<NodeId>,
        first: Index,
        result: Result<Vec<Entry>, StorageError>,
    },
    /// Of [`Task::Piece`].
    Piece {
        to: NodeId,
        snapshot: Snapshot,
        offset: u64,
        /// As much as there is of it.
        result: Result<Bytes, StorageError>,
        /// One that can read on, unless reading has failed.
        reader: Option<Box<dyn SnapshotReader>>,
    },
    /// Of [`Task::Store`].
    Store {
        snapshot: Snapshot,
        /// Where the piece ends.
        end: u64,
        result: Result<(), StorageError>,
    },
    /// Of [`Task::Open`].
    Open {
        snapshot: Snapshot,
        result: Result<Box<dyn SnapshotReader>, StorageError>,
    },
    /// Of [`Task::Adopt`].
    Adopt {
        snapshot: Snapshot,
        result: Result<(), StorageError>,
    },
    /// Of [`Task::Write`].
    Write {
        draft: Draft,
        result: Result<Snapshot, StorageError>,
    },
    /// Of [`Task::Gather`].
    Gather {
        draft: Draft,
        /// The inner error is what is wrong with the pieces.
        result: Result<Result<Box<dyn SnapshotReader>, String>, StorageError>,
    },
}

/// Whoever can do the tasks, as [`Storage`] can.
#[allow(missing_docs, reason = "as in Storage")]
pub(super) trait Desk {
    fn fetch(
        &mut self,
        first: Index,
        last: Index,
        bytes: usize,
    ) -> Result<Vec<Entry>, StorageError>;
    fn open(&mut self, snapshot: &Snapshot) -> Result<Box<dyn SnapshotReader>, StorageError>;
    fn store(&mut self, snapshot: &Snapshot, offset: u64, data: &[u8]) -> Result<(), StorageError>;
    fn adopt(&mut self, snapshot: &Snapshot) -> Result<(), StorageError>;
    fn write(&mut self, draft: Draft) -> Result<Box<dyn SnapshotWriter>, StorageError>;
}

impl<S: Storage + ?Sized> Desk for S {
    fn fetch(
        &mut self,
        first: Index,
        last: Index,
        bytes: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        Storage::fetch(self, first, last, bytes)
    }

    fn open(&mut self, snapshot: &Snapshot) -> Result<Box<dyn SnapshotReader>, StorageError> {
        self.read_snapshot(snapshot)
    }

    fn store(&mut self, snapshot: &Snapshot, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        self.store_piece(snapshot, offset, data)
    }

    fn adopt(&mut self, snapshot: &Snapshot) -> Result<(), StorageError> {
        Storage::adopt(self, snapshot)
    }

    fn write(&mut self, draft: Draft) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        self.write_snapshot(draft)
    }
}

impl Task {
    /// Does it now.
    pub(super) fn perform(&mut self, desk: &mut (impl Desk + ?Sized)) -> Done {
        match self {
            Task::Entries {
                to,
                first,
                last,
                bytes,
            } => Done::Entries {
                to: *to,
                first: *first,
                result: desk.fetch(*first, *last, *bytes),
            },
            Task::Piece {
                to,
                snapshot,
                offset,
                len,
                reader,
            } => {
                let mut reader = reader.take();
                let result = read_piece(desk, snapshot, *offset, *len, &mut reader);
                Done::Piece {
                    to: *to,
                    snapshot: snapshot.clone(),
                    offset: *offset,
                    reader: reader.filter(|_| result.is_ok()),
                    result,
                }
            }
            Task::Store {
                snapshot,
                offset,
                data,
            } => Done::Store {
                result: desk.store(snapshot, *offset, data),
                snapshot: snapshot.clone(),
                end: *offset + data.len() as u64,
            },
            Task::Open { snapshot } => Done::Open {
                result: desk.open(snapshot),
                snapshot: snapshot.clone(),
            },
            Task::Adopt { snapshot } => Done::Adopt {
                result: desk.adopt(snapshot),
                snapshot: snapshot.clone(),
            },
            Task::Write { draft, image } => Done::Write {
                result: write_image(desk, draft, image),
                draft: draft.clone(),
            },
            Task::Gather {
                draft,
                first,
                last,
                piece_of,
            } => Done::Gather {
                result: gather(desk, draft, (*first, *last), *piece_of),
                draft: draft.clone(),
            },
        }
    }

    /// It could not be done at all.
    pub(super) fn failed(self, error: StorageError) -> Done {
        match self {
            Task::Entries { to, first, .. } => Done::Entries {
                to,
                first,
                result: Err(error),
            },
            Task::Piece {
                to,
                snapshot,
                offset,
                ..
            } => Done::Piece {
                to,
                snapshot,
                offset,
                result: Err(error),
                reader: None,
            },
            Task::Store {
                snapshot,
                offset,
                data,
            } => Done::Store {
                snapshot,
                end: offset + data.len() as u64,
                result: Err(error),
            },
            Task::Open { snapshot } => Done::Open {
                snapshot,
                result: Err(error),
            },
            Task::Adopt { snapshot } => Done::Adopt {
                snapshot,
                result: Err(error),
            },
            Task::Write { draft, .. } => Done::Write {
                draft,
                result: Err(error),
            },
            Task::Gather { draft, .. } => Done::Gather {
                draft,
                result: Err(error),
            },
        }
    }

    /// Whether this takes the place of another one that was not begun: nobody waits for that any more.
    pub(super) fn replaces(&self, other: &Task) -> bool {
        match (self, other) {
            (Task::Entries { to, .. }, Task::Entries { to: other, .. }) => to == other,
            (Task::Piece { to, .. }, Task::Piece { to: other, .. }) => to == other,
            _ => false,
        }
    }
}

fn read_piece(
    desk: &mut (impl Desk + ?Sized),
    snapshot: &Snapshot,
    offset: u64,
    len: usize,
    reader: &mut Option<Box<dyn SnapshotReader>>,
) -> Result<Bytes, StorageError> {
    let reader = match reader {
        Some(reader) => reader,
        none => none.insert(desk.open(snapshot)?),
    };
    let mut data = zeros(len)?;
    let mut done = 0;
    while done < len {
        match reader.read_at(offset + done as u64, &mut data[done..])? {
            0 => break,
            n => done += n,
        }
    }
    data.truncate(done);
    Ok(data.into())
}

fn write_image(
    desk: &mut (impl Desk + ?Sized),
    draft: &Draft,
    image: &[u8],
) -> Result<Snapshot, StorageError> {
    let mut writer = desk.write(draft.clone())?;
    writer.write(image)?;
    writer.finish()
}

fn gather(
    desk: &mut (impl Desk + ?Sized),
    draft: &Draft,
    (first, last): (Index, Index),
    piece_of: PieceOf,
) -> Result<Result<Box<dyn SnapshotReader>, String>, StorageError> {
    let mut writer = desk.write(draft.clone())?;
    let (mut next, mut written, mut crc) = (first, 0, None);
    while next <= last {
        for entry in desk.fetch(next, last, PIECES_BATCH)? {
            next = entry.index + 1;
            let piece = match piece_of(&entry, draft.last.index) {
                Ok(piece) => piece,
                Err(text) => return Ok(Err(text)),
            };
            if let Some((offset, data, whole)) = piece.filter(|(at, ..)| *at == written) {
                writer.write(data)?;
                written = offset + data.len() as u64;
                crc = whole.or(crc);
            }
        }
    }
    let (reader, _, found) = writer.finish_aside()?;
    Ok(match crc == Some(found) {
        true => Ok(reader),
        false => Err(format!(
            "the pieces of snapshot {} in log entries {first} to {last} are not whole",
            draft.last.index
        )),
    })
}
