//! What a fuzzer has a host answer: the records of a store that was in use, changed, in any order.
//! Checksums are made right behind it, or nothing but them would ever be tried.

use std::sync::OnceLock;

use super::super::record::{IMAGE_END, Seal, State};
use super::super::{Batch, HostCode, HostStore, Records};
use super::snapshots::with_a_log;
use super::*;
use crate::fuzz::alloc::within;
use crate::fuzz::rng::Rng;
use crate::storage::{HOST_AMPLIFICATION, HOST_OVERHEAD};

/// One call of the host while it gives back what it has.
#[derive(Clone, Debug)]
enum Answer {
    State(Vec<u8>),
    Entry(Index, Vec<u8>),
    /// Its number, and the size that the host says it has.
    Image(u64, u64),
}

/// A host that says what it likes. It takes every write, and forgets it.
#[derive(Clone, Debug, Default)]
struct Liar {
    answers: Vec<Answer>,
    /// By their numbers.
    images: Vec<(u64, Vec<u8>)>,
    /// Bytes that it reads at once.
    most: usize,
}

impl Liar {
    /// Whatever the library thinks of one answer, the next one follows.
    fn answer(&self, records: &mut Records) {
        for answer in &self.answers {
            let _ = match answer {
                Answer::State(record) => records.state(record),
                Answer::Entry(index, record) => records.entry(*index, record).map(|_| ()),
                Answer::Image(number, size) => records.image(*number, *size),
            };
        }
    }

    /// Bytes of all that it gives back.
    fn bytes(&self) -> usize {
        let records = self.answers.iter().map(|answer| match answer {
            Answer::State(record) | Answer::Entry(_, record) => record.len(),
            Answer::Image(..) => 0,
        });
        let images = self.images.iter().map(|(_, image)| image.len());
        records.chain(images).sum()
    }

    fn bound(&self) -> usize {
        let listed = |answer: &&Answer| matches!(answer, Answer::Image(..));
        let images = self.answers.iter().filter(listed).count();
        HOST_AMPLIFICATION * self.bytes() + HOST_OVERHEAD * (1 + images)
    }
}

impl HostStore for Liar {
    fn open(&self, records: &mut Records) -> Result<(), HostCode> {
        self.answer(records);
        Ok(())
    }

    fn write(&self, _: &Batch<'_>) -> Result<(), HostCode> {
        Ok(())
    }

    fn read(&self, _: Index, _: Index, records: &mut Records) -> Result<(), HostCode> {
        self.answer(records);
        Ok(())
    }

    fn trim(&self, _: Index) -> Result<(), HostCode> {
        Ok(())
    }

    fn keeps_snapshots(&self) -> bool {
        true
    }

    fn snap_put(&self, _: u64, _: u64, _: &[u8]) -> Result<(), HostCode> {
        Ok(())
    }

    fn snap_commit(&self, _: u64) -> Result<(), HostCode> {
        Ok(())
    }

    /// Now and then it says that it has filled more than there is room for.
    fn snap_get(&self, image: u64, offset: u64, buf: &mut [u8]) -> Result<usize, HostCode> {
        let found = self.images.iter().find(|(number, _)| *number == image);
        let (_, bytes) = found.ok_or(-2)?;
        let start = bytes.len().min(offset as usize);
        let len = (bytes.len() - start).min(buf.len()).min(self.most);
        buf[..len].copy_from_slice(&bytes[start..start + len]);
        Ok(if self.most == 3 { usize::MAX } else { len })
    }

    fn snap_drop(&self, _: u64) -> Result<(), HostCode> {
        Ok(())
    }
}

/// A store in use, changed as the bytes say, and opened; then fetched from, and written to.
pub fn host(data: &[u8]) {
    let mut rng = Rng::of(data);
    let mut liar = lived().clone();
    liar.most = [1 << 20, 7, 3][rng.below(3) as usize];
    let mode = rng.byte();
    while !rng.is_done() && !liar.answers.is_empty() {
        change(&mut liar, &mut rng);
    }
    let bound = liar.bound();
    let liar = Arc::new(liar);
    let opened = within(bound, || {
        HostStorage::open(liar.clone(), &me(), None, usize::MAX)
    });
    if let Ok((mut storage, opened, writes)) = opened {
        let found = opened.restored;
        let first = found.base.index + 1;
        let indexes = found.entries.iter().map(|e| e.index);
        assert!(indexes.eq((first..).take(found.entries.len())), "a gap");
        let end = found.entries.last().map_or(found.base, Entry::position);
        assert!(found.hard.commit <= end.index && end.term <= found.hard.term);
        let last = first + u64::from(mode);
        if let Ok(entries) = within(bound, || storage.fetch(first, last, usize::MAX)) {
            assert!(entries.first().is_some_and(|e| e.index == first));
        }
        if let Some(snapshot) = &found.snapshot {
            let _ = storage.read_snapshot(snapshot).map(drop);
        }
        go_on(&mut storage, &writes, end.index + 1, found.hard.term.max(1));
    }
}

fn go_on(storage: &mut HostStorage, writes: &Writes, index: Index, term: Term) {
    let first = (u64::from(storage.state.incarnation) << 32) + 1;
    assert!(!storage.ready().expect("nothing fails"));
    assert_eq!(Ok(()), writes.report(first, Ok(())));
    assert!(storage.ready().expect("nothing fails"));
    storage.submit(persist(1, index, index, term));
    assert_eq!(Ok(()), writes.report(first + 1, Ok(())));
    let done = storage.poll().expect("it was reported");
    assert!(done.result.is_ok());
}

/// With a log that was cut, and an image.
fn lived() -> &'static Liar {
    static LIVED: OnceLock<Liar> = OnceLock::new();
    LIVED.get_or_init(|| {
        let mut store = with_a_log();
        store.save(4, b"an image of entry 4");
        store.write(persist(2, 7, 12, 3));
        let disk = store.fake.disk();
        let state = disk.state.expect("it was written to");
        let entries = disk.log.into_iter().map(|(i, r)| Answer::Entry(i, r));
        let images: Vec<(u64, Vec<u8>)> =
            disk.images.into_iter().map(|(n, (i, _))| (n, i)).collect();
        let listed = images
            .iter()
            .map(|(n, i)| Answer::Image(*n, i.len() as u64));
        Liar {
            answers: [Answer::State(state)]
                .into_iter()
                .chain(entries)
                .chain(listed)
                .collect(),
            images: images.clone(),
            most: 0,
        }
    })
}

fn change(liar: &mut Liar, rng: &mut Rng<'_>) {
    let count = liar.answers.len() as u64;
    let at = rng.below(count) as usize;
    let other = rng.below(count) as usize;
    match rng.below(8) {
        0 => drop(liar.answers.remove(at)),
        1 => liar.answers.swap(at, other),
        2 => liar.answers.insert(other, liar.answers[at].clone()),
        3 => change_image(&mut liar.images, rng),
        _ => change_answer(&mut liar.answers[at], rng),
    }
}

fn change_answer(answer: &mut Answer, rng: &mut Rng<'_>) {
    match answer {
        Answer::State(record) => {
            change_record(record, rng);
            seal(record, crc32fast::Hasher::new());
        }
        Answer::Entry(index, record) => match rng.below(4) {
            0 => *index = rng.number(),
            _ => {
                change_record(record, rng);
                seal(record, of_this_store());
            }
        },
        Answer::Image(number, size) => match rng.below(3) {
            0 => *number = rng.number(),
            1 => *size = rng.number(),
            _ => *size = size.wrapping_add(rng.below(9)).wrapping_sub(4),
        },
    }
}

/// The description at its end, which is sealed again.
fn change_image(images: &mut [(u64, Vec<u8>)], rng: &mut Rng<'_>) {
    let nth = rng.below(images.len().max(1) as u64) as usize;
    let Some((_, image)) = images.get_mut(nth) else {
        return;
    };
    let mut end = [0; IMAGE_END];
    let Some(last) = image.last_chunk::<IMAGE_END>() else {
        return;
    };
    end.copy_from_slice(last);
    let len = Seal::description_len(&end).unwrap_or(IMAGE_END);
    let mut description = image.split_off(image.len().saturating_sub(len));
    change_record(&mut description, rng);
    seal(&mut description, of_this_store());
    image.extend_from_slice(&description);
}

/// A number in it, a few bytes, or its length.
fn change_record(record: &mut Vec<u8>, rng: &mut Rng<'_>) {
    let at = rng.below(record.len() as u64 + 1) as usize;
    match rng.below(6) {
        0 => record.truncate(at),
        1 => drop(record.splice(at..at, rng.bytes(40))),
        2 | 3 => {
            let number = rng.number().to_le_bytes();
            let end = record.len().min(at + 8);
            record[at..end].copy_from_slice(&number[..end - at]);
        }
        _ => {
            if let Some(byte) = record.get_mut(at) {
                *byte ^= rng.byte();
            }
        }
    }
}

fn of_this_store() -> crc32fast::Hasher {
    let Some(Answer::State(state)) = lived().answers.first() else {
        panic!("the state comes first");
    };
    let state = State::decode(state).expect("it is whole");
    let mut hasher = crc32fast::Hasher::new();
    for number in [me().cluster, me().node.get(), state.instance] {
        hasher.update(&number.to_le_bytes());
    }
    hasher
}

/// Makes the checksum in its last four bytes right.
fn seal(record: &mut [u8], mut hasher: crc32fast::Hasher) {
    if let Some((body, crc)) = record.split_last_chunk_mut::<4>() {
        hasher.update(body);
        *crc = hasher.finalize().to_le_bytes();
    }
}

/// Many small entries, each of a term of its own: what takes the most memory for its length.
#[test]
fn the_worst_log_is_opened_within_the_bound() {
    for count in [9, 17, 1025, (1 << 14) + 1] {
        let mut store = Store::new();
        let entries = (1..=count).map(|index| Entry {
            index,
            term: index,
            payload: Payload::Noop,
        });
        store.write(Persist {
            entries: entries.collect(),
            ..persist(1, 1, 0, count)
        });
        let disk = store.fake.disk();
        let state = disk.state.map(Answer::State);
        let log = disk.log.into_iter().map(|(i, r)| Answer::Entry(i, r));
        let liar = Liar {
            answers: state.into_iter().chain(log).collect(),
            ..Liar::default()
        };
        let (bound, liar) = (liar.bound(), Arc::new(liar));
        let opened = within(bound, || HostStorage::open(liar, &me(), None, usize::MAX));
        let (_, opened, _) = opened.expect("nothing is damaged");
        assert_eq!(opened.restored.entries.len() as u64, count);
    }
}
