//! What survives a crash: hard state, the log behind its base, images of snapshots.

use raftkeel::core::{Bytes, Entry, HardState, Index, Persist, Position, Restored, Snapshot, Term};

#[derive(Clone, Default)]
pub struct Disk {
    pub hard: HardState,
    pub base: Position,
    pub entries: Vec<Entry>,
    /// The newest snapshot, and its image.
    pub snapshot: Option<(Snapshot, Bytes)>,
    /// Older ones that may be read still: a reader that is open goes on.
    pub older: Vec<(Snapshot, Bytes)>,
    /// One that is being received, as far as it came.
    pub partial: Option<(Snapshot, Vec<u8>)>,
}

impl Disk {
    pub fn write(&mut self, write: Persist) {
        if let Some(hard) = write.hard {
            self.hard = hard;
        }
        if let Some(snapshot) = &write.reset {
            (self.base, self.entries) = (snapshot.last, Vec::new());
        }
        let Some(first) = write.entries.first() else {
            return;
        };
        let kept = (first.index - self.base.index) as usize - 1;
        assert!(kept <= self.entries.len(), "a write leaves a gap");
        self.entries.truncate(kept);
        self.entries.extend(write.entries);
    }

    /// Term of a durable entry behind the base, or of the base.
    pub fn term(&self, index: Index) -> Option<Term> {
        match index.checked_sub(self.base.index)? {
            0 => Some(self.base.term),
            at => self.entries.get(at as usize - 1).map(|e| e.term),
        }
    }

    /// Loses the log behind `kept`; what is found says so, and claims what was there.
    pub fn damage(&mut self, kept: Index, claim: Position) {
        self.entries.retain(|e| e.index <= kept);
        self.hard.commit = 0;
        if !self.claims(claim) {
            self.hard.claim = Some(claim);
        }
    }

    /// Whether it has lost, and says so, what stands there.
    pub fn claims(&self, at: Position) -> bool {
        self.hard.claim.is_some_and(|claim| claim.reaches(at))
    }

    /// What a start finds: a log that does not hold the end of the newest snapshot is empty.
    pub fn restored(&mut self) -> Restored {
        self.older.clear();
        let snapshot = self.snapshot.as_ref().map(|(snapshot, _)| snapshot);
        if let Some(last) = snapshot.map(|snapshot| snapshot.last)
            && self.base.index <= last.index
            && self.term(last.index) != Some(last.term)
        {
            (self.base, self.entries) = (last, Vec::new());
        }
        let partial = self.partial.as_ref();
        Restored {
            hard: self.hard,
            snapshot: self.snapshot.as_ref().map(|(snapshot, _)| snapshot.clone()),
            base: self.base,
            outline: None,
            entries: self.entries.clone(),
            partial: partial.map(|(of, data)| (of.clone(), data.len() as u64)),
        }
    }

    /// Entries from `first` to at most `last`, about as many as weigh `bytes`.
    pub fn fetch(&self, first: Index, last: Index, bytes: usize) -> Result<Vec<Entry>, ()> {
        let skipped = first.checked_sub(self.base.index + 1).ok_or(())?;
        let there = self.entries.iter().skip(skipped as usize);
        let mut size = 0;
        let wanted = there.take_while(|e| e.index <= last).enumerate();
        let fitting = wanted.take_while(|(at, entry)| {
            size += entry.payload.weight();
            *at == 0 || size <= bytes
        });
        let entries: Vec<Entry> = fitting.map(|(_, entry)| entry.clone()).collect();
        (!entries.is_empty()).then_some(entries).ok_or(())
    }

    /// Part of an image.
    pub fn piece(&self, of: &Snapshot, offset: u64, len: usize) -> Result<Bytes, ()> {
        let mut images = self.snapshot.iter().chain(&self.older);
        let image = &images.find(|(known, _)| known == of).ok_or(())?.1;
        Ok(Bytes::from(&image[offset as usize..offset as usize + len]))
    }

    /// Keeps a piece of what is being received.
    pub fn store(&mut self, of: &Snapshot, offset: u64, data: &[u8]) {
        if offset == 0 {
            self.partial = Some((of.clone(), Vec::new()));
        }
        let (known, kept) = self.partial.as_mut().expect("pieces begin at 0");
        let follows = (&*known, kept.len() as u64) == (of, offset);
        assert!(follows, "a piece follows the one before");
        kept.extend_from_slice(data);
    }

    /// Makes what was received the newest snapshot, if it is whole.
    pub fn adopt(&mut self, of: &Snapshot) -> Result<(), ()> {
        let (known, image) = self.partial.take().unwrap_or((of.clone(), Vec::new()));
        if known != *of || image.len() as u64 != of.size || checksum(&image) != of.crc {
            return Err(());
        }
        self.save(of.clone(), Bytes::from(image));
        Ok(())
    }

    /// Keeps an image as the newest.
    pub fn save(&mut self, snapshot: Snapshot, image: Bytes) {
        let newest = self.snapshot.as_ref().map_or(0, |(s, _)| s.last.index);
        if snapshot.last.index > newest {
            self.older.extend(self.snapshot.replace((snapshot, image)));
        }
    }

    /// Drops what is not needed any more.
    pub fn trim(&mut self, base: Position) {
        if base.index > self.base.index {
            self.base = base;
            self.entries.retain(|e| e.index > base.index);
        }
    }
}

/// FNV-1a.
pub fn checksum(data: &[u8]) -> u32 {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    data.iter().fold(0x811c_9dc5, mix)
}
