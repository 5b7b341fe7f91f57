//! The program around one member, as a C daemon would be: it applies, saves and loads its state,
//! stores what it is given, and notes whatever it is told, in order. Everything here runs inside
//! callbacks too, where nothing may panic: what is wrong is noted as well.

use std::ffi::c_int;
use std::hash::Hasher;
use std::rc::Rc;

use raftkeel::core::Random;

use super::store::{Batch, Picture, Store};
use crate::dice::{Dice, Ppm};
use crate::disk::{self, Disk};
use crate::marks::Fault::*;
use crate::trace::Mixer;

/// What the host says of a failure of its own.
pub const OWN_FAILURE: c_int = -1005;
/// The state of a host that has applied nothing.
pub const EMPTY: u64 = 1;
/// Numbers before the filling of an image: index, state, salt, length.
const HEAD: usize = 32;
/// Numbers before the filling of an entry: the request.
pub const ENTRY_MIN: usize = 8;

/// What a host was told, in order.
#[derive(Clone, Debug, Hash)]
pub enum Told {
    Applied {
        index: u64,
        term: u64,
        request: u64,
        /// The host's state then.
        state: u64,
    },
    /// The host has been asked for a snapshot.
    Save {
        index: u64,
    },
    /// And was done with it.
    Saved {
        kept: bool,
    },
    /// The host is to load a snapshot.
    Load {
        index: u64,
    },
    /// And has.
    Loaded {
        index: u64,
        applied: u64,
        state: u64,
        /// With that its run began.
        first: bool,
    },
    /// Or has not.
    NotLoaded,
    Role {
        role: c_int,
        term: u64,
        leader: u64,
    },
    Node {
        id: u64,
        state: c_int,
        before: c_int,
    },
    Excluded {
        epoch: u64,
        ids: Vec<u64>,
        index: u64,
    },
    Members {
        epoch: u64,
        index: u64,
    },
    Params {
        version: u64,
    },
    Fence(bool),
    Event(&'static str),
    /// This leader hands over to `to`: its disk takes `own` milliseconds, a quorum without it `quorum`.
    Slow {
        to: u64,
        own: u64,
        quorum: u64,
    },
    Stopped(c_int),
    /// The guard was asked about these, and said so.
    Asked {
        ids: Vec<u64>,
        answer: c_int,
    },
    Done {
        request: u64,
        status: c_int,
        index: u64,
    },
    /// A request made from within a completion.
    Made {
        request: u64,
        code: c_int,
    },
    /// A batch was stored before its call returned.
    StoredAtOnce,
    /// A batch was refused.
    WriteRefused,
    /// Entries were read back.
    Fetched {
        first: u64,
        last: u64,
    },
}

/// How a host behaves, from the seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// A call of storage other than a write fails.
    pub fails: Ppm,
    /// A batch is refused at once.
    pub refuses_writes: Ppm,
    /// A batch is durable before the call returns.
    pub stores_at_once: Ppm,
    /// A save or a load is done later.
    pub lazy: Ppm,
    /// A save is given up, a load refused.
    pub gives_up: Ppm,
    /// `apply` refuses an entry.
    pub refuses_entries: Ppm,
    /// The guard says no, or later.
    pub vetoes: Ppm,
    /// Bytes of an image.
    pub image: usize,
    /// All hosts save the same state as the same bytes.
    pub alike: bool,
}

/// The host, with its disk, which outlives runs of it.
pub struct Host {
    pub id: u64,
    pub disk: Disk<Store, Batch>,
    pub dice: Dice,
    pub manners: Manners,
    pub told: Vec<Told>,
    /// Messages on their way out.
    pub sent: Vec<(u64, Rc<[u8]>)>,
    /// Batches that were taken and are not under way yet.
    pub taken: Vec<Batch>,
    /// Lines for the log, when somebody reads them.
    pub lines: Vec<String>,
    /// The first thing that was wrong.
    pub wrong: Option<String>,
    /// What was applied last, and the state since.
    pub applied: u64,
    pub state: u64,
    /// Nothing was applied or loaded in this run.
    is_fresh: bool,
    /// Batches taken in this run, and those that were reported durable.
    batches: u64,
    pub durable: u64,
    /// The number of the last one taken.
    number: u64,
    /// The last number of the earlier runs that have stored anything.
    past: u64,
    /// The member has said that it is dead.
    pub is_dead: bool,
    /// What a snapshot that is being saved holds.
    pub saving: Option<(u64, u64)>,
    /// The index of the snapshot that is to be loaded.
    pub loading: Option<u64>,
    /// Lines for the log are of interest.
    pub listens: bool,
    /// What storage could not do, or the host did not want, in this run: it may be dead of that.
    pub has_failed: bool,
    pub has_refused: bool,
    /// A request to be made in the next completion.
    pub eager: Option<u64>,
}

impl Host {
    pub fn new(id: u64, nature: disk::Nature) -> Host {
        Host {
            id,
            disk: Disk::new(nature),
            dice: Dice::new(0),
            manners: Manners::default(),
            told: Vec::new(),
            sent: Vec::new(),
            taken: Vec::new(),
            lines: Vec::new(),
            wrong: None,
            applied: 0,
            state: EMPTY,
            is_fresh: true,
            batches: 0,
            durable: 0,
            number: 0,
            past: 0,
            is_dead: false,
            saving: None,
            loading: None,
            listens: false,
            has_failed: false,
            has_refused: false,
            eager: None,
        }
    }

    /// Another run begins, with nothing in memory.
    pub fn begin(&mut self, dice: Dice, manners: Manners) {
        self.dice = dice;
        self.manners = manners;
        (self.applied, self.state) = (0, EMPTY);
        (self.batches, self.durable, self.is_dead) = (0, 0, false);
        if self.disk.image.landed > self.past {
            self.past = self.number;
        }
        self.is_fresh = true;
        (self.saving, self.loading, self.eager) = (None, None, None);
        (self.has_failed, self.has_refused) = (false, false);
    }

    /// Something is not as it was promised.
    pub fn complain(&mut self, what: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }

    fn fails(&mut self) -> bool {
        let fails = self.dice.chance(self.manners.fails);
        self.has_failed |= fails;
        fails
    }

    /// A message is to leave. Nothing does before the first batch of the run is durable, and
    /// nothing after the member's death.
    pub fn send(&mut self, to: u64, message: &[u8]) {
        if self.durable == 0 {
            self.complain(|| "a message leaves, and no batch of this run is durable".to_owned());
        }
        if self.is_dead {
            self.complain(|| "a dead member sends".to_owned());
        }
        self.sent.push((to, Rc::from(message)));
    }

    // ---- the state -------------------------------------------------------

    pub fn apply(&mut self, index: u64, term: u64, data: &[u8]) -> c_int {
        if index <= self.applied {
            let applied = self.applied;
            self.complain(|| format!("entry {index} is applied after {applied}"));
        }
        if self.loading.is_some() {
            self.complain(|| format!("entry {index} is applied amid a load"));
        }
        if self.dice.chance(self.manners.refuses_entries) {
            self.has_refused = true;
            return OWN_FAILURE;
        }
        let Some(request) = request_of(data) else {
            self.complain(|| format!("entry {index} is nobody's: {data:?}"));
            return 0;
        };
        self.is_fresh = false;
        self.applied = index;
        self.state = next_state(self.state, (index, term, request));
        let state = self.state;
        self.told.push(Told::Applied {
            index,
            term,
            request,
            state,
        });
        0
    }

    /// A snapshot is wanted of what there is now; whether it is written at once.
    pub fn begin_save(&mut self, index: u64) -> bool {
        if index < self.applied {
            let applied = self.applied;
            self.complain(|| format!("a snapshot up to {index} of a host that is at {applied}"));
        }
        self.told.push(Told::Save { index });
        self.saving = Some((self.applied, self.state));
        !self.dice.chance(self.manners.lazy)
    }

    /// What is to be written, and whether the host then stands by it.
    pub fn draw_image(&mut self) -> Option<(Vec<u8>, bool)> {
        let (applied, state) = self.saving.take()?;
        let salt = if self.manners.alike { 0 } else { self.id };
        let gives_up = self.dice.chance(self.manners.gives_up);
        if gives_up {
            SaveFailed.hit();
        }
        let size = self.manners.image;
        Some((draw_image(applied, state, salt, size), !gives_up))
    }

    /// A snapshot is to be loaded; whether that is done at once.
    pub fn begin_load(&mut self, index: u64) -> bool {
        if self.loading.is_some() {
            self.complain(|| "two snapshots are to be loaded at once".to_owned());
        }
        self.told.push(Told::Load { index });
        self.loading = Some(index);
        !self.dice.chance(self.manners.lazy)
    }

    /// The bytes of a snapshot are there, or could not be read. Whether it is loaded.
    pub fn load(&mut self, image: Option<&[u8]>) -> bool {
        let index = self.loading.take().unwrap_or(0);
        let Some(image) = image.filter(|_| !self.dice.chance(self.manners.gives_up)) else {
            LoadFailed.hit();
            self.has_refused = true;
            self.told.push(Told::NotLoaded);
            return false;
        };
        let Some((applied, state)) = read_image(image) else {
            self.complain(|| format!("the image of snapshot {index} is mixed up"));
            return false;
        };
        let first = std::mem::take(&mut self.is_fresh);
        (self.applied, self.state) = (applied, state);
        self.told.push(Told::Loaded {
            index,
            applied,
            state,
            first,
        });
        true
    }

    pub fn guard(&mut self, ids: &[u64]) -> c_int {
        let vetoes = self.dice.chance(self.manners.vetoes);
        let answer = match vetoes {
            true if self.dice.coin() => -1,
            true => self.dice.within(1, 2000) as c_int,
            false => 0,
        };
        let ids = ids.to_vec();
        self.told.push(Told::Asked { ids, answer });
        answer
    }

    // ---- storage ---------------------------------------------------------

    pub fn opens(&mut self) -> bool {
        !self.fails()
    }

    /// Takes a batch; whether it is durable already, or the host's failure.
    pub fn write(&mut self, batch: Batch) -> Result<bool, c_int> {
        self.batches += 1;
        let length = batch.state.len();
        let numbered = match self.batches {
            1 => batch.number > self.past,
            _ => batch.number == self.number + 1,
        };
        self.number = batch.number;
        let right =
            numbered && (1..256).contains(&length) && batch.cut >= 1 && batch.first >= batch.cut;
        if !right {
            self.complain(|| format!("no batch as promised: {batch:?}"));
        }
        if self.disk.under_way() + self.taken.len() >= 4 {
            self.complain(|| "five batches are under way".to_owned());
        }
        if self.dice.chance(self.manners.refuses_writes) {
            self.has_failed = true;
            self.told.push(Told::WriteRefused);
            return Err(OWN_FAILURE);
        }
        let free = self.taken.is_empty() && self.disk.is_idle() && self.disk.slowness == 0;
        if free && self.dice.chance(self.manners.stores_at_once) {
            self.disk.image.land(batch);
            self.durable += 1;
            self.told.push(Told::StoredAtOnce);
            return Ok(true);
        }
        self.taken.push(batch);
        Ok(false)
    }

    /// Whether entries can be read back now.
    pub fn reads(&mut self, first: u64, last: u64) -> bool {
        let fails = self.fails();
        if fails {
            FetchFailed.hit();
        }
        self.told.push(Told::Fetched { first, last });
        !fails
    }

    pub fn trim(&mut self, index: u64) -> c_int {
        if self.fails() {
            return OWN_FAILURE;
        }
        if self.dice.once_in(4) {
            TrimLate.hit();
        } else {
            self.disk.image.trim(index);
        }
        0
    }

    pub fn snap_put(&mut self, image: u64, offset: u64, data: &[u8]) -> c_int {
        if self.fails() {
            StoreFailed.hit();
            return OWN_FAILURE;
        }
        let picture = self.disk.image.images.entry(image).or_default();
        if offset == 0 {
            *picture = Picture::default();
        }
        let (committed, len) = (picture.committed, picture.bytes.len() as u64);
        picture.bytes.extend_from_slice(data);
        if committed || len != offset {
            self.complain(|| format!("image {image} goes on at {offset}, and has {len} bytes"));
        }
        0
    }

    pub fn snap_commit(&mut self, image: u64) -> c_int {
        if self.fails() {
            return OWN_FAILURE;
        }
        match self.disk.image.images.get_mut(&image) {
            Some(picture) if !picture.committed => picture.committed = true,
            _ => self.complain(|| format!("image {image} is to be committed, and is not there")),
        }
        0
    }

    pub fn snap_get(&mut self, image: u64, offset: u64, room: &mut [u8]) -> Result<usize, c_int> {
        if self.fails() {
            PieceReadFailed.hit();
            return Err(OWN_FAILURE);
        }
        let Some(picture) = self.disk.image.images.get(&image) else {
            self.complain(|| format!("image {image} is to be read, and is not there"));
            return Err(OWN_FAILURE);
        };
        let rest = picture.bytes.get(offset as usize..).unwrap_or_default();
        // A host may give less than was asked for.
        let most = match self.dice.once_in(4) {
            true => self.dice.within(1, 1 + rest.len() as u64) as usize,
            false => rest.len(),
        };
        let len = most.min(rest.len()).min(room.len());
        room[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    pub fn snap_drop(&mut self, image: u64) -> c_int {
        if self.fails() {
            return OWN_FAILURE;
        }
        self.disk.image.images.remove(&image);
        0
    }

    /// The machine stops: what is under way reaches the disk or not.
    pub fn crash(&mut self, dice: &mut Dice) {
        self.taken.clear();
        self.sent.clear();
        for batch in self.disk.crash(dice).0 {
            self.disk.image.land(batch);
        }
        self.disk.image.crash(dice);
    }
}

/// What the host's state is after an entry: index, term, request.
fn next_state(state: u64, entry: (u64, u64, u64)) -> u64 {
    let mut mixer = Mixer::new();
    for word in [state, entry.0, entry.1, entry.2] {
        mixer.write_u64(word);
    }
    mixer.finish()
}

/// Data that name their request and are as long as wanted.
pub fn data_of(request: u64, len: usize, data: &mut Vec<u8>) {
    data.clear();
    data.extend_from_slice(&request.to_le_bytes());
    data.resize(len.max(ENTRY_MIN), b'-');
}

fn request_of(data: &[u8]) -> Option<u64> {
    let (number, rest) = data.split_first_chunk::<ENTRY_MIN>()?;
    let whole = rest.iter().all(|byte| *byte == b'-');
    whole.then(|| u64::from_le_bytes(*number))
}

fn draw_image(applied: u64, state: u64, salt: u64, size: usize) -> Vec<u8> {
    let size = size.max(HEAD);
    let mut image = Vec::with_capacity(size + 8);
    for number in [applied, state, salt, size as u64] {
        image.extend_from_slice(&number.to_le_bytes());
    }
    let mut filling = Random::new(applied ^ state ^ salt);
    while image.len() < size {
        image.extend_from_slice(&filling.next_u64().to_le_bytes());
    }
    image.truncate(size);
    image
}

/// What was applied last, and the state, if the image is whole.
fn read_image(image: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| {
        let bytes = image.get(8 * at..8 * at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let (applied, state, salt) = (number(0)?, number(1)?, number(2)?);
    let right =
        number(3)? == image.len() as u64 && draw_image(applied, state, salt, image.len()) == image;
    right.then_some((applied, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_what_was_saved_and_nothing_else_is_one() {
        for size in [0, 32, 33, 1000] {
            let image = draw_image(7, 99, 3, size);
            assert_eq!(Some((7, 99)), read_image(&image));
            assert_eq!(None, read_image(&image[..image.len() - 1]));
            let mut other = image.clone();
            *other.last_mut().expect("it has bytes") ^= 1;
            assert_eq!(None, read_image(&other).filter(|found| *found == (7, 99)));
        }
    }

    #[test]
    fn data_name_their_request() {
        let mut data = Vec::new();
        data_of(12, 20, &mut data);
        assert_eq!(20, data.len());
        assert_eq!(Some(12), request_of(&data));
        data[19] = b'x';
        assert_eq!(None, request_of(&data));
    }
}
