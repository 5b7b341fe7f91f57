//! Structs of other versions, codes, texts, JSON, tickets.

use std::ffi::{CStr, c_int, c_void};

use super::super::code::*;
use super::super::config::{KEEL_ADDRESS_MAX, KEEL_META_MAX, keel_peer, read_peer, read_peers};
use super::super::errmsg::c_text;
use super::super::json;
use super::super::query::check_epoch;
use super::super::sized::{self, HostStruct};
use super::super::status::lease_ms;
use super::super::tickets::Tickets;
use crate::core::{Bytes, NodeId};
use crate::detector::{BlockedBy, NodeState};
use crate::engine::{Info, NodeView, Role, View};

/// Began with `a` only; `b` came in a later version.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grown {
    size: usize,
    a: u64,
    b: u64,
}

// SAFETY: repr(C), size first, integers only.
unsafe impl HostStruct for Grown {
    const NAME: &'static str = "grown";
    const INIT: &'static str = "GROWN_INIT";
    const FIRST: usize = 16;
}

/// What a host of some version has in memory.
#[repr(C, align(8))]
struct Memory([u8; 48]);

fn memory(size: usize, words: &[u64]) -> Memory {
    let mut bytes = [0; 48];
    bytes[..8].copy_from_slice(&size.to_ne_bytes());
    for (i, word) in words.iter().enumerate() {
        bytes[8 * (i + 1)..8 * (i + 2)].copy_from_slice(&word.to_ne_bytes());
    }
    Memory(bytes)
}

fn read(size: usize, words: &[u64]) -> Result<Grown, Failure> {
    let memory = memory(size, words);
    // SAFETY: 48 bytes are there, and no test claims more but those that are refused unread.
    unsafe { sized::read(memory.0.as_ptr().cast::<Grown>()) }
}

#[test]
fn older_and_newer_structs_are_understood_or_refused() {
    let old = read(16, &[5, 99]).unwrap();
    assert_eq!(
        (old.a, old.b),
        (5, 0),
        "beyond the host's size nothing is read"
    );
    assert_eq!(
        read(24, &[5, 6]).unwrap(),
        Grown {
            size: 24,
            a: 5,
            b: 6
        }
    );
    assert_eq!(read(40, &[5, 6, 0, 0]).unwrap().b, 6);
    let newer = read(40, &[5, 6, 0, 1]).unwrap_err();
    assert_eq!(newer.code, KEEL_ERR_UNSUPPORTED);
    for bad in [0, 1, 15, 4097, usize::MAX] {
        let error = read(bad, &[]).unwrap_err();
        assert_eq!(error.code, KEEL_ERR_INVALID, "size {bad}");
        assert!(
            error.text.contains("GROWN_INIT"),
            "says what to do: {}",
            error.text
        );
    }
    // SAFETY: NULL is allowed.
    let null = unsafe { sized::read(std::ptr::null::<Grown>()) };
    assert_eq!(null.unwrap_err().code, KEEL_ERR_INVALID);
}

#[test]
fn what_is_written_stays_within_the_hosts_size() {
    let value = Grown {
        size: 24,
        a: 5,
        b: 6,
    };
    let mut old = memory(16, &[1, 2, 3]);
    // SAFETY: 48 bytes are there.
    unsafe { sized::write(old.0.as_mut_ptr().cast::<Grown>(), &value) }.unwrap();
    assert_eq!(old.0, memory(16, &[5, 2, 3]).0);
    let mut newer = memory(40, &[1, 2, 3, 4, 5]);
    // SAFETY: 48 bytes are there.
    unsafe { sized::write(newer.0.as_mut_ptr().cast::<Grown>(), &value) }.unwrap();
    assert_eq!(newer.0, memory(40, &[5, 6, 0, 0, 5]).0);
    let mut bad = memory(0, &[]);
    // SAFETY: 48 bytes are there.
    let result = unsafe { sized::write(bad.0.as_mut_ptr().cast::<Grown>(), &value) };
    assert_eq!(result.unwrap_err().code, KEEL_ERR_INVALID);
}

fn peer(id: u64, address: &CStr, meta: &[u8]) -> keel_peer {
    keel_peer {
        size: size_of::<keel_peer>(),
        id,
        address: address.as_ptr(),
        meta: meta.as_ptr().cast(),
        meta_len: meta.len(),
    }
}

#[test]
fn peers_are_walked_with_the_stride_of_the_host() {
    /// As a host compiled against a later header has it.
    #[repr(C)]
    struct Later {
        peer: keel_peer,
        more: u64,
    }
    let later = |id, more| {
        let mut peer = peer(id, c"host:1", b"\x01\x02");
        peer.size = size_of::<Later>();
        Later { peer, more }
    };
    let mut peers = [later(1, 0), later(2, 0), later(3, 0)];
    // SAFETY: three of them live here.
    let read = unsafe { read_peers(peers.as_ptr().cast(), 3) }.unwrap();
    assert_eq!(
        read.iter().map(|m| m.id.get()).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(read[2].address, "host:1");
    assert_eq!(&*read[2].meta, [1, 2]);
    peers[1].more = 1;
    // SAFETY: three of them live here.
    let newer = unsafe { read_peers(peers.as_ptr().cast(), 3) };
    assert_eq!(newer.unwrap_err().code, KEEL_ERR_UNSUPPORTED);
    peers[1].peer.size = size_of::<keel_peer>();
    // SAFETY: three of them live here.
    let mixed = unsafe { read_peers(peers.as_ptr().cast(), 3) };
    assert_eq!(mixed.unwrap_err().code, KEEL_ERR_INVALID);
}

#[test]
fn peers_have_limits() {
    // SAFETY: what each points to lives here.
    let code = |p: &keel_peer| unsafe { read_peer(p) }.err().map_or(KEEL_OK, |f| f.code);
    let longest = c_text(&"a".repeat(KEEL_ADDRESS_MAX));
    let too_long = c_text(&"a".repeat(KEEL_ADDRESS_MAX + 1));
    let meta = [7; KEEL_META_MAX + 1];
    assert_eq!(code(&peer(1, &longest, &meta[1..])), KEEL_OK);
    assert_eq!(code(&peer(0, c"", b"")), KEEL_ERR_INVALID);
    assert_eq!(code(&peer(1, &too_long, b"")), KEEL_ERR_TOO_BIG);
    assert_eq!(code(&peer(1, c"", &meta)), KEEL_ERR_TOO_BIG);
    assert_eq!(code(&peer(1, c"\xff", b"")), KEEL_ERR_INVALID);
    let mut null = peer(1, c"", b"");
    null.address = std::ptr::null();
    null.meta = std::ptr::null();
    assert_eq!(code(&null), KEEL_OK);
    null.meta_len = 1;
    assert_eq!(code(&null), KEEL_ERR_INVALID);
    // SAFETY: nothing is read of none or too many.
    for n in [0, 65] {
        let few_or_many = unsafe { read_peers(&null, n) };
        assert_eq!(few_or_many.unwrap_err().code, KEEL_ERR_INVALID);
    }
}

#[test]
fn every_code_has_its_own_text() {
    // SAFETY: static C strings.
    let text = |code| unsafe { CStr::from_ptr(keel_strerror(code)) };
    let mut texts: Vec<&CStr> = (KEEL_ERR_STALE..=KEEL_EPOCH_AHEAD).map(text).collect();
    assert!(!texts.contains(&text(-999)), "none of them is unknown");
    assert_eq!(text(c_int::MIN), text(c_int::MAX));
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 26);
}

#[test]
fn version_is_the_packages() {
    // SAFETY: a static C string.
    let version = unsafe { CStr::from_ptr(keel_version()) };
    assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    let n = keel_version_number();
    let parts = format!("{}.{}.{}", n >> 16, n >> 8 & 0xff, n & 0xff);
    assert_eq!(parts, env!("CARGO_PKG_VERSION"));
}

#[test]
fn text_with_a_nul_is_not_cut_short() {
    assert_eq!(c_text("a\0b").as_c_str(), c"a b");
    assert_eq!(c_text("").as_c_str(), c"");
}

unsafe extern "C" fn count(arg: *mut c_void, status: c_int, index: u64) {
    // SAFETY: the test gave a vector that outlives the table.
    unsafe { &mut *arg.cast::<Vec<(c_int, u64)>>() }.push((status, index));
}

#[test]
fn a_ticket_is_good_for_one_completion() {
    let mut runs: Vec<(c_int, u64)> = Vec::new();
    let arg = std::ptr::from_mut(&mut runs).cast();
    let tickets = Tickets::new();
    let [first, second, third] = [0; 3].map(|_| tickets.issue(Some(count), arg).unwrap());
    assert!(first != second && second != third);
    tickets.take(second).unwrap().run(KEEL_OK, 9);
    assert!(tickets.take(second).is_none());
    let rest = tickets.close();
    assert_eq!(rest.len(), 2);
    rest.into_iter()
        .for_each(|done| done.run(KEEL_ERR_CLOSED, 0));
    assert!(tickets.issue(Some(count), arg).is_none(), "closed");
    assert!(tickets.take(first).is_none() && tickets.close().is_empty());
    assert_eq!(
        runs,
        [(KEEL_OK, 9), (KEEL_ERR_CLOSED, 0), (KEEL_ERR_CLOSED, 0)]
    );
}

fn node(id: u64, state: NodeState) -> NodeView {
    NodeView {
        id: NodeId::new(id).unwrap(),
        role: Role::Follower,
        state,
        blocked_by: BlockedBy::InitDead,
        silent: None,
        excludes_in: Some(5),
        epoch: 3,
        index: 8,
        match_index: 0,
        heard_by: 1,
        witnesses: 2,
        address: "\"h\\\":1\n".into(),
        meta: Bytes::from([0, 0xab]),
        replaced_by: None,
        lost_state: true,
        awaits_promotion: false,
    }
}

fn view() -> View {
    View {
        info: Info {
            id: NodeId::new(1),
            epoch: 4,
            lease: None,
            notice: "wait".into(),
            ..Info::default()
        },
        nodes: vec![
            node(1, NodeState::Alive),
            node(2, NodeState::Returned),
            node(3, NodeState::Excluded),
            node(4, NodeState::Replaced),
            node(5, NodeState::Suspect),
            node(6, NodeState::Removed),
        ],
        ..View::default()
    }
}

#[test]
fn epochs_are_compared_before_members() {
    let view = view();
    let check = |from, epoch| {
        check_epoch(&view, NodeId::new(from).unwrap(), epoch).unwrap_or_else(|f| f.code)
    };
    assert_eq!(check(1, 4), KEEL_OK);
    assert_eq!(check(5, 4), KEEL_OK, "a suspect is a member");
    assert_eq!(check(1, 3), KEEL_ERR_STALE);
    assert_eq!(check(1, 5), KEEL_EPOCH_AHEAD);
    for out in [2, 3, 4, 6] {
        assert_eq!(check(out, 3), KEEL_ERR_EXCLUDED);
        assert_eq!(check(out, 4), KEEL_ERR_EXCLUDED);
        assert_eq!(check(out, 5), KEEL_EPOCH_AHEAD, "it may be back in 5");
    }
    assert_eq!(check(9, 4), KEEL_ERR_NOT_FOUND);
    assert_eq!(check(9, 5), KEEL_EPOCH_AHEAD);
}

#[test]
fn a_limited_lease_never_looks_unlimited() {
    assert_eq!(lease_ms(None), c_int::MAX);
    assert_eq!(lease_ms(Some(0)), 0);
    assert_eq!(lease_ms(Some(u64::MAX)), c_int::MAX - 1);
}

#[test]
fn json_of_a_snapshot_is_what_was_promised() {
    let mut view = view();
    view.nodes.truncate(1);
    let expected = concat!(
        r#"{"self":1,"leader":null,"role":"follower","fenced":false,"fenced_why":"","#,
        r#""cluster":0,"term":0,"epoch":4,"commit":0,"applied":0,"last_index":0,"first_index":0,"#,
        r#""snapshot_index":0,"loading":false,"disk_full":false,"recorded_leader":null,"recorded_term":0,"voters":0,"voters_heard":0,"#,
        r#""quorum":0,"has_quorum":false,"armed":false,"lease_ms":null,"health_score":0,"#,
        r#""notice":"wait","params":{"version":0,"hb_keepalive_ms":0,"hb_warntime_ms":0,"#,
        r#""hb_deadtime_ms":0,"hb_initdead_ms":0,"settle_ms":0,"min_nodes":0},"#,
        r#""in_force":{"hb_keepalive_ms":0,"hb_warntime_ms":0,"hb_deadtime_ms":0,"#,
        r#""hb_initdead_ms":0,"settle_ms":0,"fencetime_ms":0,"min_nodes":0},"#,
        r#""nodes":[{"id":1,"address":"\"h\\\":1\u000a","role":"follower","state":"alive","#,
        r#""blocked_by":"INITDEAD","silent_ms":null,"excludes_in_ms":5,"epoch":3,"index":8,"#,
        r#""match_index":0,"heard_by":1,"witnesses":2,"meta":"00ab","replaced_by":null,"#,
        r#""lost_state":true,"awaits_promotion":false}],"#,
        r#""metrics":{"steps":0,"messages_in":0,"messages_out":0,"bytes_in":0,"bytes_out":0,"#,
        r#""dropped_malformed":0,"dropped_foreign":0,"dropped_unknown":0,"dropped_full":0,"#,
        r#""elections":0,"step_late_ms_max":0,"pauses":0,"persists":0,"entries_persisted":0,"#,
        r#""snapshots":0,"snapshots_installed":0,"snapshot_bytes_in":0,"snapshot_bytes_out":0,"#,
        r#""slow_disk_transfers":0}}"#
    );
    let json = json::status(&view).unwrap();
    assert_eq!(json.to_str(), Ok(expected));
}
