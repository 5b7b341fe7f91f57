//! Structs that a host fills, of any version: their size first, then anything.

use std::ffi::{c_char, c_void};
use std::ptr::{null, null_mut};

use raftkeel::cluster::Peer;
use raftkeel::ffi::callbacks::read_callbacks;
use raftkeel::ffi::config::{
    KEEL_ADDRESS_MAX, KEEL_MEMBERS_MAX, KEEL_META_MAX, keel_config, keel_params, keel_peer,
    read_config, read_peers,
};
use raftkeel::ffi::sized::{self, HostStruct, MAX_READ};
use raftkeel::ffi::storage::read_storage;

use super::within;
use crate::rng::Rng;

/// The size above which none is believed.
const SIZE_MAX: usize = 4096;
/// For the largest text: the path of a directory, in a list of bytes that has just grown.
const TEXT: usize = 3 * 4096;
/// For a peer: its place in a list that has just grown, its address in another, and its meta.
const PEER: usize = 3 * size_of::<Peer>() + 3 * (KEEL_ADDRESS_MAX + 1) + KEEL_META_MAX + 16;

/// A struct that has grown since its first version, as those of the header will.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grown {
    size: usize,
    first: u64,
    since: [u64; 4],
}

// SAFETY: repr(C), size first, integers only.
unsafe impl HostStruct for Grown {
    const NAME: &'static str = "grown";
    const INIT: &'static str = "GROWN_INIT";
    const FIRST: usize = 16;
}

/// Memory of the host: as long as it says, not aligned, and not a byte longer.
struct Memory(Vec<u8>);

impl Memory {
    /// With `size` in front, of which nothing is believed that is not from a word to 4096.
    fn of(size: usize, fill: impl FnMut() -> u8) -> Memory {
        let room = match size {
            8..=SIZE_MAX => size,
            _ => 8,
        };
        let mut bytes: Vec<u8> = std::iter::repeat_with(fill).take(1 + room).collect();
        bytes[1..9].copy_from_slice(&size.to_ne_bytes());
        Memory(bytes)
    }

    fn at<T>(&mut self) -> *mut T {
        self.0[1..].as_mut_ptr().cast()
    }

    fn bytes(&self) -> &[u8] {
        &self.0[1..]
    }
}

/// Every struct that is read, as the first byte chooses it.
pub fn structs(data: &[u8]) {
    let mut rng = Rng::of(data);
    match rng.below(6) {
        0 => grown(&mut rng),
        1 => params(&mut rng),
        2 => config(&mut rng),
        // SAFETY: `functions` sees to it.
        3 => functions(&mut rng, |at| unsafe { read_callbacks(at) }.is_ok()),
        4 => functions(&mut rng, |at| unsafe { read_storage(at) }.is_ok()),
        _ => peers(&mut rng),
    }
}

/// Mostly sizes of which something can be read.
fn size_of_host<T>(rng: &mut Rng<'_>) -> usize {
    match rng.below(4) {
        0 => rng.number() as usize,
        1 => rng.below(2 * SIZE_MAX as u64) as usize,
        2 => size_of::<T>() + rng.below(64) as usize,
        _ => size_of::<T>(),
    }
}

fn grown(rng: &mut Rng<'_>) {
    let size = size_of_host::<Grown>(rng);
    let mut memory = Memory::of(size, || rng.byte());
    // SAFETY: as many bytes as it says are there.
    let read = within(MAX_READ, || unsafe { sized::read(memory.at::<Grown>()) });
    let valid = (Grown::FIRST..=SIZE_MAX).contains(&size);
    let Ok(value) = read else {
        let unknown = memory.bytes().iter().skip(size_of::<Grown>());
        assert!(!valid || unknown.copied().any(|byte| byte != 0));
        return;
    };
    assert!(valid);
    let mut back = Memory::of(size, || 0xaa);
    // SAFETY: as above.
    let written = unsafe { sized::write(back.at(), &value) };
    assert!(written.is_ok() && back.bytes() == memory.bytes());
}

/// A struct of functions, of which there are none, and perhaps something behind those that are known.
fn functions<T>(rng: &mut Rng<'_>, read: impl FnOnce(*const T) -> bool) {
    let size = size_of_host::<T>(rng);
    let mut memory = Memory::of(size, || 0);
    let unknown = rng.below(4) == 0 && memory.bytes().len() > size_of::<T>();
    if unknown && let Some(last) = memory.0.last_mut() {
        *last = 1;
    }
    let read = within(MAX_READ, || read(memory.at()));
    assert!(!read || (!unknown && (8..=SIZE_MAX).contains(&size)));
}

fn params(rng: &mut Rng<'_>) {
    let size = size_of_host::<keel_params>(rng);
    let mut memory = Memory::of(size, || rng.byte());
    // SAFETY: as many bytes as it says are there.
    let read = within(MAX_READ, || unsafe {
        sized::read(memory.at::<keel_params>())
    });
    if let Ok(value) = read {
        let mut back = Memory::of(size, || 0xaa);
        // SAFETY: as above.
        let written = unsafe { sized::write(back.at(), &value) };
        assert!(written.is_ok() && back.bytes() == memory.bytes());
    }
}

/// A text that C ends with a NUL, or none.
fn text(rng: &mut Rng<'_>) -> Option<Vec<u8>> {
    let len = match rng.below(4) {
        0 => return None,
        1 => KEEL_ADDRESS_MAX as u64 - 4 + rng.below(8),
        _ => rng.below(40),
    };
    let ascii = rng.flag();
    let char = |rng: &mut Rng<'_>| match ascii {
        true => b'a',
        false => rng.byte().max(1),
    };
    let mut bytes: Vec<u8> = (0..len).map(|_| char(rng)).collect();
    bytes.push(0);
    Some(bytes)
}

fn pointer<T>(text: &Option<Vec<u8>>) -> *const T {
    text.as_ref().map_or(null(), |bytes| bytes.as_ptr().cast())
}

fn config(rng: &mut Rng<'_>) {
    let size = size_of_host::<keel_config>(rng);
    let dir = text(rng);
    let plain = rng.below(4) > 0;
    let mut memory = Memory::of(size, || if plain { 0 } else { rng.byte() });
    if memory.bytes().len() >= size_of::<keel_config>() {
        let at = memory.at::<keel_config>();
        // SAFETY: all of it is there, and every byte is valid in it.
        let mut c = unsafe { at.read_unaligned() };
        c.size = size;
        c.dir = pointer::<c_char>(&dir);
        c.storage = null();
        if plain {
            c.id = rng.number();
            c.cluster = rng.number();
            c.params.size = size_of::<keel_params>();
            for field in [
                &mut c.heartbeat_ms,
                &mut c.election_ms,
                &mut c.queue_max,
                &mut c.entry_max,
                &mut c.message_max,
                &mut c.compaction,
                &mut c.flags,
            ] {
                *field = rng.number() as u32;
            }
        }
        // SAFETY: as above.
        unsafe { at.write_unaligned(c) };
    }
    // SAFETY: as many bytes as it says are there, and `dir` is NULL or ends with a NUL.
    let read = within(MAX_READ + TEXT, || unsafe { read_config(memory.at()) });
    if let Ok((settings, _)) = read {
        assert!(settings.heartbeat >= 1 && settings.election >= 3 * settings.heartbeat);
        assert!(settings.entry_max > 0 && settings.queue_max > 0);
    }
}

fn peers(rng: &mut Rng<'_>) {
    let n = match rng.below(8) {
        0 => rng.number() as usize,
        some => some as usize,
    };
    let stride = size_of_host::<keel_peer>(rng);
    let count = if n > KEEL_MEMBERS_MAX { 1 } else { n.max(1) };
    let mut memory = Vec::new();
    let mut texts = Vec::new();
    for number in 0..count {
        let (address, meta) = (text(rng), text(rng));
        // What the first one says is there; the others may contradict it.
        let size = match rng.below(16) {
            0 if number > 0 => rng.number() as usize,
            _ => stride,
        };
        let mut one = Memory::of(stride, || 0);
        if one.bytes().len() >= size_of::<keel_peer>() {
            let at = one.at::<keel_peer>();
            let peer = keel_peer {
                size,
                id: rng.below(9),
                address: pointer(&address),
                meta: pointer::<c_void>(&meta),
                meta_len: match rng.below(4) {
                    0 => KEEL_META_MAX + 1 + rng.number() as usize / 2,
                    _ => meta.as_ref().map_or(0, Vec::len),
                },
            };
            // SAFETY: all of it is there.
            unsafe { at.write_unaligned(peer) };
        }
        memory.extend_from_slice(one.bytes());
        texts.push((address, meta));
    }
    let first = match rng.below(16) {
        0 => null_mut(),
        _ => memory.as_mut_ptr().cast::<keel_peer>(),
    };
    // SAFETY: `n` of them are there, or fewer where so many are refused; their texts end with a NUL
    // and live on.
    let read = within(MAX_READ + count * PEER, || unsafe { read_peers(first, n) });
    if let Ok(peers) = read {
        assert_eq!(peers.len(), n);
    }
    drop(texts);
}
