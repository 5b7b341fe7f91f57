//! Storage by a host in memory: what comes back, late, damaged, and after crashes.

// The fuzzer has its target and what it needs from here, and none of the tests.
#![cfg_attr(fuzzing, allow(dead_code, unused_imports))]

mod damage;
mod fake;
pub(crate) mod fuzz;
mod random;
mod snapshots;
mod writes;

use std::sync::Arc;

use super::{HostStorage, Writes};
use crate::core::{
    Bytes, Entry, HardState, Index, NodeId, Payload, Persist, Restored, Term, Token,
};
use crate::storage::read_back::unfold;
use crate::storage::{Identity, Opened, Storage, StorageError};

use fake::Fake;

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("ids are not 0")
}

fn me() -> Identity {
    Identity {
        cluster: 77,
        node: node(3),
    }
}

fn entry(index: Index, term: Term) -> Entry {
    let text = format!("entry {index} of term {term}");
    Entry {
        index,
        term,
        payload: Payload::Host(Bytes::from(text.as_bytes())),
    }
}

fn hard(term: Term) -> HardState {
    HardState {
        term,
        vote: Some(node(2)),
        ..HardState::default()
    }
}

/// Entries `from` to `to` of `term`, and its hard state.
fn persist(token: u64, from: Index, to: Index, term: Term) -> Persist {
    Persist {
        token: Token(token),
        hard: Some(hard(term)),
        reset: None,
        entries: (from..=to).map(|index| entry(index, term)).collect(),
    }
}

/// A store in use.
struct Store {
    fake: Fake,
    storage: HostStorage,
    opened: Opened,
    writes: Arc<Writes>,
}

impl Store {
    fn open(fake: Fake, instance: Option<u64>) -> Result<Store, StorageError> {
        // Most of the log is left to the host.
        let (mut storage, mut opened, writes) =
            HostStorage::open(Arc::new(fake.clone()), &me(), instance, 300)?;
        unfold(&mut storage, &mut opened.restored)?;
        Ok(Store {
            fake,
            storage,
            opened,
            writes,
        })
    }

    /// Of a node that never existed, ready.
    fn new() -> Store {
        let mut store = Store::open(Fake::default(), Some(99)).expect("it is new");
        store.begin();
        store
    }

    /// After a crash in which the oldest `landed` of the batches under way reached the disk.
    fn again(&self, landed: usize) -> Store {
        Store::open(self.fake.crash(landed), None).expect("nothing is damaged")
    }

    fn begin(&mut self) {
        let _ = self.storage.ready();
        self.settle();
        assert!(self.storage.ready().expect("nothing fails"));
    }

    /// Everything under way reaches the disk and is reported.
    fn settle(&self) {
        while let Some(number) = self.fake.land() {
            self.report(number, Ok(()));
        }
    }

    fn report(&self, number: u64, result: Result<(), i32>) {
        assert_eq!(Ok(()), self.writes.report(number, result));
    }

    fn write(&mut self, persist: Persist) {
        let token = persist.token.0;
        self.storage.submit(persist);
        self.settle();
        assert_eq!(self.polled(), [(token, true)]);
    }

    fn polled(&mut self) -> Vec<(u64, bool)> {
        std::iter::from_fn(|| self.storage.poll())
            .map(|c| (c.token.0, c.result.is_ok()))
            .collect()
    }

    fn restored(&self) -> &Restored {
        &self.opened.restored
    }
}

fn refusal(fake: Fake, instance: Option<u64>) -> String {
    match Store::open(fake, instance) {
        Ok(store) => panic!("it is opened: {:?}", store.opened),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_was_written_comes_back() {
    let mut store = Store::new();
    assert_eq!((1, 99), (store.opened.incarnation, store.opened.instance));
    assert_eq!(&Restored::default(), store.restored());
    store.write(persist(1, 1, 3, 1));
    store.write(persist(2, 3, 5, 4));
    let mut again = store.again(0);
    assert_eq!((2, 99), (again.opened.incarnation, again.opened.instance));
    assert_eq!(hard(4), again.restored().hard);
    let expected = [(1, 1), (2, 1), (3, 4), (4, 4), (5, 4)];
    let expected: Vec<Entry> = expected.iter().map(|(i, t)| entry(*i, *t)).collect();
    assert_eq!(expected, again.restored().entries);
    again.begin();
    again.write(persist(1, 6, 6, 4));
    let third = again.again(0);
    assert_eq!(
        (3, 6),
        (third.opened.incarnation, third.restored().entries.len())
    );
}

#[test]
fn a_store_is_new_or_it_is_not() {
    assert!(refusal(Fake::default(), None).contains("no node here"));
    let store = Store::new();
    assert!(refusal(store.fake.crash(0), Some(5)).contains("exists here already"));
    // One that has stored nothing yet is new again.
    let unborn = Store::open(Fake::default(), Some(5)).expect("it is new");
    assert!(Store::open(unborn.fake.crash(9), Some(6)).is_ok());
}

#[test]
fn a_store_of_another_node_is_foreign() {
    let store = Store::new();
    for (cluster, id) in [(77, 4), (78, 3)] {
        let other = Identity {
            cluster,
            node: node(id),
        };
        let fake = Arc::new(store.fake.crash(0));
        let error = HostStorage::open(fake, &other, None, usize::MAX).map(|_| ());
        assert!(
            matches!(error, Err(StorageError::Foreign { .. })),
            "{error:?}"
        );
    }
}

#[test]
fn what_the_host_says_is_in_the_message() {
    let fake = Fake::default();
    fake.inner().failures.insert("open", -71);
    let text = refusal(fake, Some(1));
    assert_eq!("open keel_storage: the host says -71", text);
}
