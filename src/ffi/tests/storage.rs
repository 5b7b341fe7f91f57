//! The way out to keel_storage: what C is given, and what becomes of its answers.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use super::super::code::{KEEL_ERR_STATE, KEEL_OK};
use super::super::storage::*;
use crate::core::{
    Bytes, Configuration, Entry, NodeId, Payload, Persist, Position, Snapshot, Token,
};
use crate::storage::{Draft, HostStorage, HostStore, Identity, Storage, StorageError};

/// A call as C sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Read(u64, u64),
    Trim(u64),
    Put(u64, u64, Vec<u8>),
    Commit(u64),
    Get(u64, u64, usize),
    Drop(u64),
}

thread_local! {
    static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
    static ENTRIES: RefCell<Vec<(u64, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
    static IMAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static GIVEN: RefCell<Vec<c_int>> = const { RefCell::new(Vec::new()) };
    static ANSWER: RefCell<c_int> = const { RefCell::new(0) };
}

const UD: *mut c_void = 0x1234_usize as *mut c_void;

fn called(ud: *mut c_void, call: Call) -> c_int {
    assert_eq!(UD, ud);
    CALLS.with_borrow_mut(|calls| calls.push(call));
    ANSWER.with_borrow(|answer| *answer)
}

fn calls() -> Vec<Call> {
    CALLS.take()
}

unsafe fn slice<'a>(data: *const c_void, len: usize) -> &'a [u8] {
    // SAFETY: the caller vouches.
    unsafe { std::slice::from_raw_parts(data.cast(), len) }
}

unsafe extern "C" fn open(_: *mut c_void, _: *mut keel_records) -> c_int {
    0
}

unsafe extern "C" fn write(_: *mut c_void, batch: *const keel_batch) -> c_int {
    // SAFETY: the batch is valid for the call, as the header says.
    let batch = unsafe { &*batch };
    for i in 0..batch.n {
        // SAFETY: there are `n` of them.
        let record = unsafe { &*batch.entries.add(i) };
        // SAFETY: as the header says.
        let bytes = unsafe { slice(record.data, record.len) }.to_vec();
        ENTRIES.with_borrow_mut(|all| all.push((batch.first + i as u64, bytes)));
    }
    0
}

unsafe extern "C" fn read(ud: *mut c_void, first: u64, last: u64, r: *mut keel_records) -> c_int {
    ENTRIES.with_borrow(|all| {
        for (index, bytes) in all.iter().filter(|(i, _)| (first..=last).contains(i)) {
            // SAFETY: `r` is the one of this call.
            let code = unsafe { keel_records_entry(r, *index, bytes.as_ptr().cast(), bytes.len()) };
            GIVEN.with_borrow_mut(|given| given.push(code));
            if code != KEEL_OK {
                break;
            }
        }
    });
    called(ud, Call::Read(first, last))
}

unsafe extern "C" fn trim(ud: *mut c_void, index: u64) -> c_int {
    called(ud, Call::Trim(index))
}

unsafe extern "C" fn put(
    ud: *mut c_void,
    image: u64,
    offset: u64,
    data: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: as the header says.
    let data = unsafe { slice(data, len) }.to_vec();
    IMAGE.with_borrow_mut(|image| image.extend_from_slice(&data));
    called(ud, Call::Put(image, offset, data))
}

unsafe extern "C" fn commit(ud: *mut c_void, image: u64) -> c_int {
    called(ud, Call::Commit(image))
}

unsafe extern "C" fn get(
    ud: *mut c_void,
    image: u64,
    offset: u64,
    buf: *mut c_void,
    cap: usize,
    got: *mut usize,
) -> c_int {
    IMAGE.with_borrow(|bytes| {
        let rest = bytes.get(offset as usize..).unwrap_or(&[]);
        let len = rest.len().min(cap);
        // SAFETY: there is room for `cap` bytes, and for the number of them.
        unsafe {
            std::ptr::copy_nonoverlapping(rest.as_ptr(), buf.cast::<u8>(), len);
            got.write(len);
        }
    });
    called(ud, Call::Get(image, offset, cap))
}

unsafe extern "C" fn drop_image(ud: *mut c_void, image: u64) -> c_int {
    called(ud, Call::Drop(image))
}

fn all() -> keel_storage {
    keel_storage {
        size: size_of::<keel_storage>(),
        ud: UD,
        open: Some(open),
        write: Some(write),
        read: Some(read),
        trim: Some(trim),
        snap_put: Some(put),
        snap_commit: Some(commit),
        snap_get: Some(get),
        snap_drop: Some(drop_image),
    }
}

fn store(calls: &keel_storage) -> CStore {
    // SAFETY: it is a whole struct of this version.
    unsafe { read_storage(calls) }.expect("it is as it should be")
}

fn node() -> NodeId {
    NodeId::new(3).expect("not 0")
}

fn storage(calls: &keel_storage) -> HostStorage {
    let identity = Identity {
        cluster: 7,
        node: node(),
    };
    let (mut storage, _, _) =
        HostStorage::open(Arc::new(store(calls)), &identity, Some(9), usize::MAX)
            .expect("it is new");
    assert!(!storage.ready().expect("it is taken"));
    storage
}

fn entry(index: u64) -> Entry {
    Entry {
        index,
        term: 1,
        payload: Payload::Host(Bytes::from([7; 100])),
    }
}

fn draft(index: u64) -> Draft {
    Draft {
        last: Position { index, term: 1 },
        config: Arc::new(Configuration {
            epoch: 1,
            voters: vec![node()],
            ..Configuration::default()
        }),
        config_index: 1,
        pieces: None,
    }
}

/// A snapshot that is being received.
fn received() -> Snapshot {
    draft(9).finished(1, crc32fast::hash(b"x"))
}

#[test]
fn entries_are_read_until_it_is_enough() {
    let mut storage = storage(&all());
    storage.submit(Persist {
        token: Token(1),
        hard: None,
        reset: None,
        entries: (1..=5).map(entry).collect(),
    });
    let weight = entry(1).payload.weight();
    for (last, bytes, given) in [
        (5, 2 * weight, vec![0, 1]),
        (3, 9999, vec![0, 1]),
        (2, 0, vec![1]),
    ] {
        let entries = storage.fetch(2, last, bytes).expect("they are there");
        assert_eq!(given.len(), entries.len());
        assert_eq!((given, vec![Call::Read(2, last)]), (GIVEN.take(), calls()));
    }
    assert_eq!(1, KEEL_ENOUGH);
    ANSWER.set(-5);
    let error = storage.fetch(2, 3, 0).expect_err("the host says so");
    assert!(
        error
            .to_string()
            .ends_with("read keel_storage: the host says -5")
    );
    ANSWER.set(17);
    assert!(storage.fetch(2, 3, 0).is_err(), "nor is it a success");
    ANSWER.set(KEEL_ENOUGH);
    assert!(storage.fetch(2, 3, 0).is_ok(), "it was handed on");
}

#[test]
fn a_trim_names_the_last_that_may_go() {
    let mut storage = storage(&all());
    storage
        .trim(Position { index: 0, term: 0 })
        .expect("nothing fails");
    ANSWER.set(-9);
    let base = Position { index: 0, term: 0 };
    assert!(matches!(
        storage.trim(base),
        Err(StorageError::Io { op: "trim", .. })
    ));
    assert_eq!(vec![Call::Trim(0), Call::Trim(0)], calls());
}

#[test]
fn an_image_is_put_compared_and_committed() {
    let mut storage = storage(&all());
    let mut writer = storage.write_snapshot(draft(1)).expect("there is room");
    writer.write(b"abc").expect("nothing fails");
    writer.write(b"").expect("nothing fails");
    writer.write(b"de").expect("nothing fails");
    let snapshot = writer.finish().expect("nothing fails");
    assert_eq!(5, snapshot.size);
    let seen = calls();
    assert_eq!(
        [
            Call::Put(1, 0, b"abc".to_vec()),
            Call::Put(1, 3, b"de".to_vec())
        ],
        seen[..2]
    );
    assert!(matches!(seen[2], Call::Get(1, 0, 5)), "{seen:?}");
    assert!(
        matches!(&seen[3], Call::Put(1, 5, end) if !end.is_empty()),
        "{seen:?}"
    );
    assert_eq!(Call::Commit(1), seen[4]);
    let mut reader = storage.read_snapshot(&snapshot).expect("it is there");
    let mut buf = [0; 9];
    assert_eq!(4, reader.read_at(1, &mut buf).expect("nothing fails"));
    assert_eq!(b"bcde", &buf[..4]);
    drop(storage.write_snapshot(draft(1)));
    calls();
    storage
        .store_piece(&received(), 0, b"x")
        .expect("nothing fails");
    assert_eq!(Call::Drop(2), calls()[0], "it was given up");
}

#[test]
fn without_them_there_are_no_snapshots() {
    let calls = keel_storage {
        trim: None,
        snap_put: None,
        snap_commit: None,
        snap_get: None,
        snap_drop: None,
        ..all()
    };
    let mut storage = storage(&calls);
    let refused = storage.store_piece(&received(), 0, b"x");
    assert!(
        matches!(refused, Err(StorageError::NoSnapshots)),
        "{refused:?}"
    );
    // Nor does anything happen if they are called all the same.
    let store = store(&calls);
    let absent = Err(KEEL_ERR_STATE);
    assert_eq!(absent, store.trim(1));
    assert_eq!(absent, store.snap_put(1, 0, b"x"));
    assert_eq!(absent, store.snap_commit(1));
    assert_eq!(Err(KEEL_ERR_STATE), store.snap_get(1, 0, &mut [0]));
    assert_eq!(absent, store.snap_drop(1));
}

#[test]
fn a_struct_is_read_or_refused() {
    let refuse = |change: fn(&mut keel_storage)| {
        let mut calls = all();
        change(&mut calls);
        // SAFETY: its size is not more than there is.
        unsafe { read_storage(&calls) }
            .expect_err("it is not as it should be")
            .text
    };
    assert!(refuse(|s| s.open = None).contains("keel_storage.open"));
    assert!(refuse(|s| s.snap_get = None).contains("keel_storage.snap_get"));
    assert!(refuse(|s| s.snap_put = None).contains("keel_storage.trim"));
    assert!(refuse(|s| s.size = 0).contains("KEEL_STORAGE_INIT"));
    // SAFETY: NULL is allowed.
    assert!(unsafe { read_storage(null_mut()) }.is_err());
}
