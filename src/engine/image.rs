//! The image of a snapshot as the engine makes it: a head, which is the cluster's own state, and
//! behind it the host's part; and the two handles with which the host writes and reads its part, in
//! its own time and thread.

use std::sync::Arc;

use crate::cluster::{self, MAX_IMAGE, State};
use crate::core::{Index, Snapshot};
use crate::storage::{SnapshotReader, SnapshotWriter, StorageError, zeros};
use crate::wire::{Reader, try_written};

use super::shared::Shared;
use super::{Error, Input};

/// Bytes of the length that stands before the head.
const PREFIX: usize = 4;

/// The head of an image of this state.
pub(crate) fn head_of(state: &State) -> Result<Vec<u8>, StorageError> {
    Ok(try_written(|out| out.nested(|out| state.write(out)))?)
}

/// Heap bytes that reading the head of an image may take at any moment for one byte of it: the bytes
/// and what they become. None is taken for a head that the image is too short for.
pub const HEAD_AMPLIFICATION: usize = 1 + cluster::MAX_AMPLIFICATION;

/// The cluster's state at the front of an image, and where the host's part begins.
pub(crate) fn read_head(
    reader: &mut dyn SnapshotReader,
    snapshot: &Snapshot,
) -> Result<(State, u64), Error> {
    let mut prefix = [0; PREFIX];
    fill(reader, 0, &mut prefix)?;
    let len = u32::from_le_bytes(prefix) as usize;
    if len > MAX_IMAGE || (PREFIX + len) as u64 > snapshot.size {
        return Err(Error::Corrupt(format!(
            "snapshot {}: a head of {len} bytes",
            snapshot.last.index
        )));
    }
    let mut head = zeros(len)?;
    fill(reader, PREFIX as u64, &mut head)?;
    let mut input = Reader::new(&head);
    let state = State::decode(&mut input).and_then(|state| input.finish().map(|()| state));
    let state = state
        .map_err(|e| Error::Corrupt(format!("snapshot {}: its head: {e}", snapshot.last.index)))?;
    // The one that the snapshot says, or something was mixed up.
    let members = state.configuration() == snapshot.config.left();
    if state.applied() != snapshot.last.index || !members {
        return Err(Error::Corrupt(format!(
            "snapshot {} has the head of another one",
            snapshot.last.index
        )));
    }
    Ok((state, (PREFIX + len) as u64))
}

fn fill(reader: &mut dyn SnapshotReader, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
    let mut done = 0;
    while done < buf.len() {
        match reader.read_at(offset + done as u64, &mut buf[done..])? {
            0 => return Err(Error::Corrupt("an image ends too early".to_owned())),
            n => done += n,
        }
    }
    Ok(())
}

/// What the host's part of a snapshot becomes once it is written.
#[derive(Debug)]
pub enum Saved {
    /// A snapshot of this node's own, durable.
    Kept(Snapshot),
    /// An image that is to go into the log, in pieces; with its length.
    Aside(Box<Aside>),
}

/// An image that is not kept as a snapshot.
pub struct Aside {
    pub(super) reader: Box<dyn SnapshotReader>,
    pub(super) size: u64,
    pub(super) crc: u32,
}

impl std::fmt::Debug for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Aside({} bytes)", self.size)
    }
}

/// The host's part of a snapshot that is being written: all that was applied before the host was
/// given this, and nothing later. May be used in any thread. To be finished; dropping it gives the
/// snapshot up.
pub struct Save {
    index: Index,
    aside: bool,
    writer: Option<Box<dyn SnapshotWriter>>,
    failed: Option<StorageError>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Save {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Save({})", self.index)
    }
}

impl Save {
    /// Begins behind what `writer` holds already. With `aside` it is to go into the log.
    pub(super) fn new(
        index: Index,
        aside: bool,
        writer: Box<dyn SnapshotWriter>,
        shared: Arc<Shared>,
    ) -> Save {
        Save {
            index,
            aside,
            writer: Some(writer),
            failed: None,
            shared,
        }
    }

    /// Appends to the host's part; done with `data` when it returns. After an error it can only
    /// be finished.
    pub fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        let Some(writer) = self.writer.as_mut().filter(|_| self.failed.is_none()) else {
            return Err(Error::State("this snapshot has failed already".to_owned()));
        };
        writer.write(data).map_err(|error| {
            let told = Error::from(clone_of(&error));
            self.failed = Some(error);
            told
        })
    }

    /// All is written, or the host gives up. Writes it out and waits for the disk, in this thread;
    /// then the engine goes on with it.
    pub fn finish(mut self, ok: bool) {
        self.end(ok);
    }

    fn end(&mut self, ok: bool) {
        let Some(writer) = self.writer.take() else {
            return;
        };
        let result = match self.failed.take() {
            Some(error) => Err(Error::from(error)),
            None if !ok => Err(Error::State("the host gave the snapshot up".to_owned())),
            None if self.aside => aside(writer),
            None => writer.finish().map(Saved::Kept).map_err(Error::from),
        };
        let index = self.index;
        self.shared.tell(Input::Saved(index, result));
    }
}

fn aside(writer: Box<dyn SnapshotWriter>) -> Result<Saved, Error> {
    let (reader, size, crc) = writer.finish_aside()?;
    Ok(Saved::Aside(Box::new(Aside { reader, size, crc })))
}

/// The text is what matters of it twice.
fn clone_of(error: &StorageError) -> StorageError {
    StorageError::Io {
        op: "snapshot",
        path: Default::default(),
        error: std::io::Error::other(error.to_string()),
    }
}

impl Drop for Save {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// The host's part of a snapshot that is to take the place of the host's state. May be used in any
/// thread. To be finished; dropping it says that it could not be loaded.
pub struct Load {
    index: Index,
    reader: Box<dyn SnapshotReader>,
    /// Where the next read begins.
    at: u64,
    failed: bool,
    ended: bool,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Load({} at {})", self.index, self.at)
    }
}

impl Load {
    /// Reads from `at` on.
    pub(super) fn new(
        index: Index,
        reader: Box<dyn SnapshotReader>,
        at: u64,
        shared: Arc<Shared>,
    ) -> Load {
        Load {
            index,
            reader,
            at,
            failed: false,
            ended: false,
            shared,
        }
    }

    /// Reads on; 0 at the end.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let read = self.reader.read_at(self.at, buf);
        match read {
            Ok(n) => {
                self.at += n as u64;
                Ok(n)
            }
            Err(error) => {
                self.failed = true;
                Err(error.into())
            }
        }
    }

    /// The host's state is the snapshot's now, or it could not be loaded. After a failed read it
    /// counts as not loaded.
    pub fn finish(mut self, ok: bool) {
        self.end(ok);
    }

    fn end(&mut self, ok: bool) {
        if !std::mem::replace(&mut self.ended, true) {
            let ok = ok && !self.failed;
            self.shared.tell(Input::Loaded(self.index, ok));
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end(false);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cluster::{Params, Peer, bootstrap_entry};
    use crate::core::{NodeId, Payload, Position};
    use crate::fuzz::alloc::within;

    pub(in crate::engine) struct Image(Vec<u8>);

    impl SnapshotReader for Image {
        fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError> {
            let rest = &self.0[self.0.len().min(offset as usize)..];
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }
    }

    /// A snapshot of a cluster of these nodes at its first entry, and its image.
    pub(in crate::engine) fn snapshot(ids: &[u64]) -> (Snapshot, Image) {
        let peer = |id: &u64| Peer {
            id: NodeId::new(*id).unwrap(),
            address: String::new(),
            meta: [][..].into(),
        };
        let peers: Vec<Peer> = ids.iter().map(peer).collect();
        let entry = bootstrap_entry(&peers, &Params::default()).unwrap();
        let mut state = State::default();
        state.apply(&entry).unwrap();
        let Payload::Config(config, _) = entry.payload else {
            panic!("a bootstrap entry has a configuration");
        };
        let mut image = head_of(&state).unwrap();
        image.extend_from_slice(b"the host's part");
        let snapshot = Snapshot {
            last: Position { index: 1, term: 1 },
            config,
            config_index: 1,
            size: image.len() as u64,
            crc: 0,
            pieces: None,
        };
        (snapshot, Image(image))
    }

    #[test]
    fn a_head_is_that_of_its_snapshot_or_refused() {
        let (ours, mut image) = snapshot(&[1, 2, 3]);
        let (state, body) = read_head(&mut image, &ours).unwrap();
        assert_eq!(state.configuration(), *ours.config);
        assert_eq!(image.0[body as usize..], *b"the host's part");
        // Of the same epoch, and of other members.
        let (theirs, _) = snapshot(&[1, 2, 4]);
        let refused = read_head(&mut image, &theirs);
        assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    }

    #[test]
    fn a_head_longer_than_its_image_takes_no_memory() {
        let (snapshot, mut image) = snapshot(&[1]);
        let len = image.0.len() as u32;
        for claimed in [len - 3, len, MAX_IMAGE as u32, u32::MAX] {
            image.0[..PREFIX].copy_from_slice(&claimed.to_le_bytes());
            let refused = within(1024, || read_head(&mut image, &snapshot));
            assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
        }
    }
}
