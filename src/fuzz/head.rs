//! The head of a snapshot's image, as the engine reads it.

use std::sync::Arc;

use super::alloc::within;
use crate::cluster::State;
use crate::core::{Configuration, NodeId, Position, Snapshot};
use crate::engine::{HEAD_AMPLIFICATION, head_of, read_head};
use crate::storage::{SnapshotReader, StorageError};
use crate::wire::Reader;

/// For the text of an error.
const TEXT: usize = 1024;

/// An image that is read in pieces.
struct Image {
    bytes: Vec<u8>,
    piece: usize,
}

impl SnapshotReader for Image {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, StorageError> {
        let rest = self.bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len()).min(self.piece);
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// The first byte says in which pieces the image is read, and whether the length before the head is
/// made right first.
pub fn head(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let mut bytes = match mode & 1 {
        0 => (rest.len() as u32).to_le_bytes().to_vec(),
        _ => Vec::new(),
    };
    bytes.extend_from_slice(rest);
    let snapshot = snapshot_of(&bytes);
    let mut image = Image {
        piece: 1 + usize::from(mode >> 1) * 16,
        bytes,
    };
    let bound = HEAD_AMPLIFICATION * image.bytes.len() + TEXT;
    if let Ok((state, body)) = within(bound, || read_head(&mut image, &snapshot)) {
        assert_eq!(head_of(&state).unwrap(), image.bytes[..body as usize]);
        assert_eq!(state.configuration(), snapshot.config.left());
    }
}

/// The snapshot that the head says it is of, if it can be read.
fn snapshot_of(image: &[u8]) -> Snapshot {
    let head = image.get(4..).unwrap_or_default();
    let state = State::decode(&mut Reader::new(head));
    let (index, config) = match state {
        Ok(state) => (state.applied(), state.configuration()),
        Err(_) => (
            1,
            Configuration {
                epoch: 1,
                voters: NodeId::new(1).into_iter().collect(),
                ..Configuration::default()
            },
        ),
    };
    Snapshot {
        last: Position { index, term: 1 },
        config: Arc::new(config),
        config_index: 1,
        size: image.len() as u64,
        crc: 0,
        pieces: None,
    }
}
