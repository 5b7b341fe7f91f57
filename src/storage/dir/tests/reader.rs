//! Reading and receiving in a thread: nobody waits for it, no more waits than one for each peer, and
//! what was replaced meanwhile is no damage.

use super::super::Directory;
use super::images::{draft, image, offered, read_all};
use super::sim::Sim;
use super::thread::{append, begin, made, next, submit, threaded, until};
use super::{Rng, seed};
use crate::core::{Entry, HardState, Index, NodeId, Payload, Persist, Snapshot, Token};
use crate::panics::lock;
use crate::storage::{Done, LogPiece, Storage, StorageError, Task};
use crate::wire::MAX_PIECE;

fn entries(to: Option<u64>, first: Index, last: Index) -> Task {
    Task::Entries {
        to: to.and_then(NodeId::new),
        first,
        last,
        bytes: usize::MAX,
    }
}

fn finished(directory: &mut Directory) -> Done {
    until(|| directory.finished())
}

type Fetched = (Option<NodeId>, Index, Result<Vec<Entry>, StorageError>);

fn fetched(directory: &mut Directory) -> Fetched {
    match finished(directory) {
        Done::Entries { to, first, result } => (to, first, result),
        _ => panic!("something else was done"),
    }
}

/// A directory of five entries; the first of them is being read for peer 2, and that takes its time.
fn held() -> (Sim, Directory) {
    let sim = made();
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    (2..6).for_each(|n| submit(&mut directory, append(n, 128)));
    directory.flush();
    while directory.poll().is_some() {}
    sim.hold_reads(true);
    assert!(directory.begin(entries(Some(2), 1, 1)).is_none());
    until(|| (sim.held_reads() == 1).then_some(()));
    (sim, directory)
}

#[test]
fn nobody_waits_for_a_read() {
    let (sim, mut directory) = held();
    for n in 6..50 {
        submit(&mut directory, append(n, 128));
        next(&mut directory).result.unwrap();
    }
    assert!(directory.finished().is_none());
    assert_eq!(sim.held_reads(), 1);
    sim.hold_reads(false);
    let (to, first, result) = fetched(&mut directory);
    assert_eq!((to, first), (NodeId::new(2), 1));
    assert_eq!(result.unwrap().len(), 1);
}

#[test]
fn a_wake_comes_with_every_read() {
    let sim = made();
    let (mut directory, calls) = threaded(&sim);
    begin(&mut directory);
    directory.flush();
    let count = || calls.load(std::sync::atomic::Ordering::SeqCst);
    let before = until(|| Some(count()).filter(|calls| *calls > 0));
    assert!(directory.begin(entries(None, 1, 1)).is_none());
    until(|| (count() > before).then_some(()));
    assert!(directory.finished().is_some(), "it calls when it is done");
}

#[test]
fn of_those_that_wait_only_the_newest_for_each_peer_is_done() {
    let (sim, mut directory) = held();
    for (to, first) in [
        (Some(2), 2),
        (Some(3), 3),
        (None, 2),
        (Some(2), 4),
        (Some(3), 1),
    ] {
        assert!(directory.begin(entries(to, first, 5)).is_none());
    }
    sim.hold_reads(false);
    for (to, first) in [(Some(2), 1), (None, 2), (Some(2), 4), (Some(3), 1)] {
        let (for_whom, from, result) = fetched(&mut directory);
        assert_eq!((for_whom, from), (to.and_then(NodeId::new), first));
        assert_eq!(result.unwrap()[0].index, first);
    }
    assert!(directory.finished().is_none());
}

#[test]
fn a_failed_read_is_told_and_may_be_tried_again() {
    let sim = made();
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    directory.flush();
    sim.fail_read_after(Some(0));
    assert!(directory.begin(entries(Some(2), 1, 1)).is_none());
    let failed = fetched(&mut directory).2;
    assert!(matches!(failed, Err(StorageError::Io { .. })), "{failed:?}");
    sim.fail_read_after(None);
    assert!(directory.begin(entries(Some(2), 1, 1)).is_none());
    assert!(fetched(&mut directory).2.is_ok());
}

#[test]
fn a_panic_is_a_failed_read() {
    let sim = made();
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    directory.flush();
    sim.panic_at_reads(true);
    assert!(directory.begin(entries(Some(2), 1, 1)).is_none());
    let error = fetched(&mut directory).2.unwrap_err().to_string();
    assert!(error.contains("told to panic"), "{error}");
    sim.panic_at_reads(false);
    assert!(directory.begin(entries(Some(2), 1, 1)).is_none());
    assert!(
        fetched(&mut directory).2.is_ok(),
        "the thread is still there"
    );
}

#[test]
fn the_end_waits_for_one_read_and_for_no_other() {
    let (sim, mut directory) = held();
    for to in 3..10 {
        assert!(directory.begin(entries(Some(to), 1, 5)).is_none());
    }
    let thread = directory.read_thread.as_ref().unwrap();
    let shared = thread.shared.clone();
    let end = std::thread::spawn(move || drop(directory));
    until(|| lock(&shared.queue).ending.then_some(()));
    let reads = sim.reads();
    sim.hold_reads(false);
    end.join().unwrap();
    assert_eq!(sim.reads(), reads + 1);
}

/// While entries are read the log is replaced from some index on, over and over: what is read was
/// written there at some time, or is not there.
#[test]
fn what_is_replaced_meanwhile_is_no_damage() {
    let mut rng = Rng(seed(77));
    let sim = made();
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    let (mut last, mut term, mut whole, mut under_way) = (1_u64, 1, 0, false);
    for token in 2..4000 {
        let back = if rng.below(3) == 0 { rng.below(40) } else { 0 };
        let first = (last + 1).saturating_sub(back).max(2);
        term += u64::from(first <= last);
        last = first + rng.below(6);
        let write = |index| {
            let mut persist = append(index, (index * term % 700) as usize);
            persist.entries[0].term = term;
            persist.entries.remove(0)
        };
        let persist = Persist {
            token: Token(token),
            hard: (term > 1).then_some(HardState {
                term,
                ..HardState::default()
            }),
            reset: None,
            entries: (first..=last).map(write).collect(),
        };
        submit(&mut directory, persist);
        if !under_way {
            let from = 1 + rng.below(last);
            assert!(directory.begin(entries(Some(2), from, last)).is_none());
            under_way = true;
        }
        next(&mut directory).result.unwrap();
        let Some(Done::Entries { first, result, .. }) = directory.finished() else {
            continue;
        };
        under_way = false;
        match result {
            Ok(entries) => {
                whole += 1;
                for (index, entry) in (first..).zip(entries) {
                    assert_eq!(entry.index, index);
                    let wanted = append(index, (index * entry.term % 700) as usize);
                    let as_written = index == 1 || wanted.entries[0].payload == entry.payload;
                    assert!(as_written, "{index}");
                }
            }
            Err(error) => assert!(matches!(error, StorageError::Io { .. }), "{error}"),
        }
    }
    assert!(whole > 100, "only {whole} reads");
}

fn stored(directory: &mut Directory) -> Result<(), StorageError> {
    match finished(directory) {
        Done::Store { result, .. } | Done::Adopt { result, .. } => result,
        _ => panic!("something else was done"),
    }
}

/// An image of two pieces, and the snapshot that it is of, at entry 5.
fn received() -> (Snapshot, Vec<u8>) {
    let image = image(7, MAX_PIECE + 5000);
    (offered(5, &image), image)
}

fn piece(snapshot: &Snapshot, image: &[u8], offset: usize) -> Task {
    let end = image.len().min(offset + MAX_PIECE);
    Task::Store {
        snapshot: snapshot.clone(),
        offset: offset as u64,
        data: image[offset..end].into(),
    }
}

#[test]
fn an_image_is_received_while_the_log_is_written() {
    let sim = made();
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    directory.flush();
    let (snapshot, image) = received();
    for offset in [0, MAX_PIECE] {
        assert!(directory.begin(piece(&snapshot, &image, offset)).is_none());
        stored(&mut directory).unwrap();
    }
    // All of it is read before it is opened, and before it is adopted.
    sim.hold_reads(true);
    let open = |snapshot: &Snapshot| Task::Open {
        snapshot: snapshot.clone(),
    };
    assert!(directory.begin(open(&snapshot)).is_none());
    assert!(
        directory
            .begin(Task::Adopt {
                snapshot: snapshot.clone()
            })
            .is_none()
    );
    until(|| (sim.held_reads() == 1).then_some(()));
    directory.submit(append(2, 128));
    next(&mut directory).result.unwrap();
    assert!(directory.finished().is_none());
    sim.hold_reads(false);
    let Done::Open { result, .. } = finished(&mut directory) else {
        panic!("something else was done");
    };
    let mut reader = result.unwrap();
    let mut found = vec![0; image.len()];
    assert_eq!(reader.read_at(0, &mut found).unwrap(), image.len());
    assert!(found == image);
    stored(&mut directory).unwrap();
    assert_eq!(directory.oldest_snapshot(), 5);
    let piece = Task::Piece {
        to: NodeId::new(2).unwrap(),
        snapshot,
        offset: 1000,
        len: 500,
        reader: None,
    };
    assert!(directory.begin(piece).is_none());
    let Done::Piece { result, reader, .. } = finished(&mut directory) else {
        panic!("something else was done");
    };
    assert_eq!(*result.unwrap(), image[1000..1500]);
    assert!(reader.is_some(), "the next piece goes on with it");
}

#[test]
fn after_a_failure_an_image_begins_anew() {
    let sim = made();
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    directory.flush();
    until(|| (!directory.log().is_ahead_of_meta()).then_some(()));
    let (snapshot, image) = received();
    sim.fail_at(Some(sim.operations() + 3));
    assert!(directory.begin(piece(&snapshot, &image, 0)).is_none());
    assert!(stored(&mut directory).is_err());
    assert!(directory.begin(piece(&snapshot, &image, 0)).is_none());
    stored(&mut directory).unwrap();
    // Out of turn: a panic of the thread's, and nothing is left of what was there.
    assert!(directory.begin(piece(&snapshot, &image, 5)).is_none());
    let error = stored(&mut directory).unwrap_err().to_string();
    assert!(error.contains("follows no other"), "{error}");
    for offset in [0, MAX_PIECE] {
        assert!(directory.begin(piece(&snapshot, &image, offset)).is_none());
        stored(&mut directory).unwrap();
    }
    assert!(directory.begin(Task::Adopt { snapshot }).is_none());
    stored(&mut directory).unwrap();
}

#[test]
fn a_snapshot_without_a_host_is_written_by_the_thread() {
    let sim = made();
    let (mut directory, _) = threaded(&sim);
    begin(&mut directory);
    directory.flush();
    let draft = draft(1);
    sim.hold_syncs(true);
    let task = Task::Write {
        draft: draft.clone(),
        image: b"head".to_vec(),
    };
    assert!(directory.begin(task).is_none());
    assert!(directory.finished().is_none());
    sim.hold_syncs(false);
    let Done::Write { result, .. } = finished(&mut directory) else {
        panic!("something else was done");
    };
    assert_eq!(result.unwrap(), draft.finished(4, crc32fast::hash(b"head")));
    assert_eq!(directory.oldest_snapshot(), 1);
}

/// Entries 2 to 5 of [`append`], as pieces of an image.
fn piece_of(entry: &Entry, _of: Index) -> Result<Option<LogPiece<'_>>, String> {
    let Payload::Host(data) = &entry.payload else {
        return Err("no piece".to_owned());
    };
    let all: Vec<u8> = (2..6).flat_map(|n| [n; 128]).collect();
    let whole = (entry.index == 5).then(|| crc32fast::hash(&all));
    Ok(Some(((entry.index - 2) * 128, data, whole)))
}

#[test]
fn pieces_in_the_log_are_gathered_by_the_thread() {
    let (sim, mut directory) = held();
    let gather = |first, last| Task::Gather {
        draft: draft(1),
        first,
        last,
        piece_of,
    };
    assert!(directory.begin(gather(2, 5)).is_none());
    assert!(directory.begin(gather(2, 4)).is_none());
    directory.submit(append(6, 128));
    next(&mut directory).result.unwrap();
    assert!(directory.finished().is_none());
    sim.hold_reads(false);
    assert!(fetched(&mut directory).2.is_ok());
    let mut gathered = || match finished(&mut directory) {
        Done::Gather { result, .. } => result.unwrap(),
        _ => panic!("something else was done"),
    };
    let found = read_all(&mut *gathered().unwrap()).unwrap();
    assert!(found.iter().copied().eq((2..6).flat_map(|n| [n; 128])));
    let why = gathered().err().unwrap();
    assert!(why.contains("not whole"), "{why}");
}
