//! What the disk of a node holds: hard state, log and snapshots, by the contract of the storage
//! trait.

use raftkeel::core::{Bytes, Entry, HardState, Index, Position, Restored, Snapshot};

use crate::host::checksum;

/// The images of two snapshots are kept: one may still be read when a newer one is there.
const KEPT: usize = 2;

/// All that is durable.
#[derive(Default)]
pub struct Image {
    pub hard: HardState,
    /// The log begins behind it.
    base: Position,
    entries: Vec<Entry>,
    /// Newest last.
    snapshots: Vec<(Snapshot, Bytes)>,
    partial: Option<(Snapshot, Vec<u8>)>,
}

impl Image {
    pub fn is_blank(&self) -> bool {
        self.entries.is_empty() && self.snapshots.is_empty()
    }

    /// The newest snapshot with its image.
    pub fn newest(&self) -> Option<&(Snapshot, Bytes)> {
        self.snapshots.last()
    }

    /// Before a start. A snapshot counts once it is there: a log that does not hold the entry where
    /// it ends is dropped, and is found empty behind it.
    pub fn reconcile(&mut self) {
        if let Some((snapshot, _)) = self.snapshots.last()
            && !self.holds(snapshot.last)
        {
            self.base = snapshot.last;
            self.entries.clear();
        }
    }

    /// The log loses what it holds behind `kept`; what is found says so from now on.
    pub fn damage(&mut self, kept: Index, claim: Position) {
        self.entries.retain(|entry| entry.index <= kept);
        self.hard.commit = 0;
        self.hard.claim = Some(claim);
    }

    /// Where the log begins, and where it ends.
    pub fn span(&self) -> (Position, Position) {
        let last = self.entries.last().map(|last| Position {
            index: last.index,
            term: last.term,
        });
        (self.base, last.unwrap_or(self.base))
    }

    /// What a start finds.
    pub fn restored(&self) -> Restored {
        let partial = self.partial.as_ref();
        Restored {
            hard: self.hard,
            snapshot: self.snapshots.last().map(|(snapshot, _)| snapshot.clone()),
            base: self.base,
            outline: None,
            entries: self.entries.clone(),
            partial: partial.map(|(snapshot, bytes)| (snapshot.clone(), bytes.len() as u64)),
        }
    }

    fn holds(&self, place: Position) -> bool {
        let known = match place.index.checked_sub(self.base.index) {
            Some(0) => Some(self.base.term),
            Some(at) => self.entries.get(at as usize - 1).map(|e| e.term),
            None => None,
        };
        known == Some(place.term)
    }

    // ---- the log ---------------------------------------------------------

    /// The log is dropped, and goes on behind this place.
    pub fn reset(&mut self, base: Position) {
        self.base = base;
        self.entries.clear();
    }

    /// Entries take the place of all from the first one's index on.
    pub fn write(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else {
            return;
        };
        let kept = first.index.checked_sub(self.base.index + 1);
        let kept = kept.filter(|kept| *kept <= self.entries.len() as Index);
        let kept = kept.expect("a write leaves a gap, or goes below what was dropped");
        self.entries.truncate(kept as usize);
        self.entries.extend(entries);
    }

    /// Everything up to here is not needed any more.
    pub fn trim(&mut self, base: Position) {
        if let Some(count) = base.index.checked_sub(self.base.index) {
            let count = (count as usize).min(self.entries.len());
            self.entries.drain(..count);
            self.base = base;
        }
    }

    /// Entries from `first` to at most `last`, about as many as weigh `bytes`.
    pub fn fetch(&self, first: Index, last: Index, bytes: usize) -> Result<Vec<Entry>, ()> {
        let skipped = first.checked_sub(self.base.index + 1).ok_or(())? as usize;
        let mut weight = 0;
        let wanted = self.entries.iter().skip(skipped);
        let wanted = wanted.take_while(|entry| {
            let fits = weight == 0 || weight <= bytes;
            weight += entry.payload.weight();
            fits && entry.index <= last
        });
        let found: Vec<Entry> = wanted.cloned().collect();
        if found.is_empty() { Err(()) } else { Ok(found) }
    }

    // ---- snapshots -------------------------------------------------------

    /// A whole image is durable, and is the newest unless one is newer.
    pub fn keep(&mut self, snapshot: Snapshot, image: Bytes) -> bool {
        let newest = self.newest().map_or(0, |(newest, _)| newest.last.index);
        if snapshot.last.index <= newest {
            return false;
        }
        self.snapshots.push((snapshot, image));
        if self.snapshots.len() > KEPT {
            self.snapshots.remove(0);
        }
        true
    }

    /// A piece of a durable image, or of one that has been received whole.
    pub fn read(&self, snapshot: &Snapshot, offset: u64, len: usize) -> Result<Bytes, ()> {
        let kept = self.snapshots.iter().find(|(known, _)| known == snapshot);
        let (_, image) = kept.ok_or(())?;
        let from = offset as usize;
        image.get(from..from + len).map(Bytes::from).ok_or(())
    }

    /// A piece of an image that is being received; the first takes the place of all there is of
    /// another.
    pub fn store(&mut self, snapshot: &Snapshot, offset: u64, data: &[u8]) -> Result<(), ()> {
        if offset == 0 {
            self.partial = Some((snapshot.clone(), Vec::new()));
        }
        match &mut self.partial {
            Some((partial, bytes)) if partial == snapshot && bytes.len() as u64 == offset => {
                bytes.extend_from_slice(data);
                Ok(())
            }
            _ => Err(()),
        }
    }

    /// The image that was received, if it is whole and right.
    pub fn received(&self, snapshot: &Snapshot) -> Option<Bytes> {
        let partial = self.partial.as_ref();
        let bytes = match partial.filter(|(partial, _)| partial == snapshot) {
            Some((_, bytes)) => &bytes[..],
            None => &[],
        };
        let whole = bytes.len() as u64 == snapshot.size;
        let right = checksum(bytes) == snapshot.crc;
        (whole && right).then(|| Bytes::from(bytes))
    }

    /// That image becomes the newest.
    pub fn adopt(&mut self, snapshot: &Snapshot, image: Bytes) -> bool {
        self.partial = None;
        self.keep(snapshot.clone(), image)
    }

    /// Nothing of an image that is being received is kept.
    pub fn give_up(&mut self) {
        self.partial = None;
    }
}
