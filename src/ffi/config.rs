//! What an engine is made from: keel_config, keel_params, keel_peer, and their translation.

use std::ffi::{OsStr, c_char, c_void};
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::code::{Failure, KEEL_ERR_NOMEM, KEEL_ERR_TOO_BIG, KEEL_ERR_UNSUPPORTED};
use super::sized::{self, HostStruct};
use super::snapshot::{KEEL_COMPACT_APPLICATION, KEEL_COMPACT_IN_LOG, KEEL_COMPACT_LEADER};
use super::storage::{keel_storage, read_storage};
use crate::cluster::{self, Params};
use crate::core::{Bytes, Millis, NodeId};
use crate::engine::{
    COMPACT_BYTES_DEFAULT, COMPACT_ENTRIES_DEFAULT, Compaction, ELECTION_HEARTBEATS, ENTRY_DEFAULT,
    HEARTBEAT_DEFAULT, MESSAGE_REST, Place, QUEUE_DEFAULT, Settings, TAIL_DEFAULT, Way,
};

/// A node. Never 0; an id that was in use once is never given to another node again.
pub type keel_id = u64;

/// keel_config.flags: make the directory for a node that never existed, or begin to use a
/// keel_storage that holds nothing. KEEL_ERR_EXISTS if there is a node. Without it a missing
/// directory is an error: a node that lost its disk must not come back under its old id, it is
/// replaced by one with a new id.
pub const KEEL_NEW_NODE: u32 = 1;
/// keel_config.flags, with dir and storage NULL: state is kept in memory and lost at keel_free(). NOT
/// durable: for tests and simulations only. One that is made anew is taken for a node that lost
/// its directory, if its seed is another.
pub const KEEL_VOLATILE: u32 = 2;

/// keel_config.flags: keel_barrier() trusts clocks. A leader that a majority has confirmed within
/// the last 0.95 election_ms answers without asking again. It is right only if no node's clock runs
/// more than a twentieth faster than another's, and if the flag and election_ms are the same on
/// every node; without it no clock is trusted. A started node votes only after an election_ms.
pub const KEEL_LEASE_READS: u32 = 4;
/// keel_config.flags: this node leads on where its disk is slow. Without it a leader hands over to a
/// node that is wished for no less (keel_set_eligible()) if over two election_ms, of at least a second
/// each, its own disk takes at least three times as long for an entry, and 5 ms longer, than a quorum of
/// the others: it would make everybody wait. It does so once a minute at most, and ever more rarely the
/// more often that did not help; never where all disks are slow. keel_metrics counts it.
pub const KEEL_SLOW_LEADER: u32 = 8;

/// The most bytes of keel_peer.address, without its final NUL.
pub const KEEL_ADDRESS_MAX: usize = 255;
/// The most bytes of keel_peer.meta.
pub const KEEL_META_MAX: usize = 256;
/// The most members of a cluster.
pub const KEEL_MEMBERS_MAX: usize = 64;

/// A node as the host introduces it. Initialise with KEEL_PEER_INIT.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct keel_peer {
    /// sizeof(keel_peer)
    pub size: usize,
    /// Not 0.
    pub id: keel_id,
    /// Where the host finds it, replicated with the membership and opaque to the library: UTF-8,
    /// at most KEEL_ADDRESS_MAX bytes. NULL is "".
    pub address: *const c_char,
    /// The host's own bytes about the node, e.g. a UUID, replicated as well; or NULL.
    pub meta: *const c_void,
    /// At most KEEL_META_MAX.
    pub meta_len: usize,
}

// SAFETY: repr(C), size first, integers and raw pointers only.
unsafe impl HostStruct for keel_peer {
    const NAME: &'static str = "keel_peer";
    const INIT: &'static str = "KEEL_PEER_INIT";
    const FIRST: usize = size_of::<keel_peer>();
}

/// Cluster-wide settings: the same on every node, changed together by keel_set_params(). All
/// times in milliseconds; a 0 means the default that is given with the field. Initialise with
/// KEEL_PARAMS_INIT.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct keel_params {
    /// sizeof(keel_params)
    pub size: usize,
    /// Grows by one with every change. To keel_set_params(): the version that is to be changed,
    /// else KEEL_ERR_CONFLICT; or 0 for whatever it is.
    pub version: u64,
    /// How often a node tells the others that it lives. 0 = 1000.
    pub hb_keepalive_ms: u32,
    /// Silence after which a node is LATE. 0 = half of hb_deadtime_ms, or ten keepalives when
    /// that is 0.
    pub hb_warntime_ms: u32,
    /// Silence after which a node is to be excluded; more than two keepalives. 0 = detect and
    /// report, never exclude: the only field where 0 is no default but a meaning.
    ///
    /// A node learns a new value with the log. One that is out of reach while it is turned on or
    /// made shorter is judged by the new value and fences itself by the old one (with 0 before:
    /// not at all) until it is heard again: arm exclusion while all nodes are up, and check the
    /// epoch of the daemon's own traffic (keel_check_epoch()).
    pub hb_deadtime_ms: u32,
    /// The same for a node that the observer has not heard since it started; not less than
    /// hb_deadtime_ms. 0 = 120000, or hb_deadtime_ms if that is more.
    pub hb_initdead_ms: u32,
    /// How long a decision waits for others that fell silent at about the same time. 0 = a tenth
    /// of hb_deadtime_ms, but from two keepalives to 10000.
    pub settle_ms: u32,
    /// The fewest voters that automatic exclusion leaves. 0 = a majority of all that were
    /// provisioned; never under 2.
    pub min_nodes: u32,
    /// Must be 0. Later settings will take this room, so that keel_config keeps its layout.
    pub reserved: [u32; 22],
}

// SAFETY: repr(C), size first, integers only.
unsafe impl HostStruct for keel_params {
    const NAME: &'static str = "keel_params";
    const INIT: &'static str = "KEEL_PARAMS_INIT";
    const FIRST: usize = size_of::<keel_params>();
}

/// Everything an engine needs to know about its node. Initialise with KEEL_CONFIG_INIT, set id,
/// cluster and either dir or storage, leave the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct keel_config {
    /// sizeof(keel_config)
    pub size: usize,
    /// This node; not 0.
    pub id: keel_id,
    /// The cluster's number, not 0. Messages and directories of other clusters are refused.
    pub cluster: u64,
    /// The directory of this node's log and vote. One engine at a time has it open. Its name is used
    /// as long as the engine lives, but not the working directory.
    pub dir: *const c_char,
    /// The host's own storage, in place of the directory; copied by keel_new().
    pub storage: *const keel_storage,
    /// The cluster's first settings: used by keel_bootstrap() only.
    pub params: keel_params,
    /// How often a leader is heard at least. 0 = 100; at most 60000.
    pub heartbeat_ms: u32,
    /// How long a leader may be silent before another is elected: drawn anew between this and
    /// 1.5 times this, below 32 ms up to twice this. 0 = 20 heartbeats; at least 3, at most
    /// 3600000 ms.
    /// The same on every node: a node's right to serve is reckoned with it.
    pub election_ms: u32,
    /// The most inputs that wait for the next driving call. 0 = 4096; at most 1048576.
    pub queue_max: u32,
    /// The most bytes of one proposal; the same on every node. 0 = 1 MiB, or what fits in
    /// message_max if that is less; at most 16 MiB.
    pub entry_max: u32,
    /// The most bytes of one message that `send` can carry; the same on every node. A message that
    /// is always dropped because it is too large stops the log for ever. 0 = what entry_max needs,
    /// at least 1 MiB, and 16 KiB more; from 32 KiB to 17 MiB, and 16 KiB more than entry_max.
    /// (A transport of datagrams has 65507.)
    pub message_max: u32,
    /// When and how the log is compacted: KEEL_COMPACT_*; the same on every node.
    pub compaction: u32,
    /// So many log entries applied since the last snapshot make a new one. 0 = 1048576.
    pub compact_entries: u32,
    /// So do so many bytes of them, each counted with 64 more for its keeping; or as many as the last
    /// snapshot has, if that is more. 0 = 64 MiB.
    pub compact_bytes: u64,
    /// The most bytes of log entries that are kept in memory; older ones are read from storage when
    /// a node needs them that has fallen behind. 0 = 16 MiB.
    pub memory_max: u64,
    /// The most bytes of snapshots that this node sends in a second as leader, to all nodes together;
    /// one piece, of at most 256 KiB, is always sent whole. 0 = no limit.
    pub snapshot_rate: u64,
    /// Of the random election timeouts; the same seed and the same inputs give the same run, but
    /// for the number that tells a new directory from others, which messages carry (with
    /// KEEL_VOLATILE it is of the seed as well). 0 = from the system.
    pub seed: u64,
    /// 1 error, 2 warning, 3 notice, 4 debug, 5 trace. 0 = 3.
    pub log_level: i32,
    /// KEEL_NEW_NODE, KEEL_VOLATILE, KEEL_LEASE_READS, KEEL_SLOW_LEADER
    pub flags: u32,
}

// SAFETY: repr(C), size first, integers and raw pointers only.
unsafe impl HostStruct for keel_config {
    const NAME: &'static str = "keel_config";
    const INIT: &'static str = "KEEL_CONFIG_INIT";
    const FIRST: usize = size_of::<keel_config>();
}

/// A node's id from C, where 0 is "none".
pub fn node_id(id: keel_id, what: &str) -> Result<NodeId, Failure> {
    NodeId::new(id).ok_or_else(|| Failure::invalid(format!("{what} is 0, which is no node")))
}

/// The host's bytes, copied.
///
/// # Safety
/// `data` is NULL or points to `len` readable bytes.
pub unsafe fn copy_bytes(data: *const c_void, len: usize, what: &str) -> Result<Bytes, Failure> {
    if len == 0 {
        return Ok(Bytes::from([]));
    }
    if data.is_null() {
        return Err(Failure::invalid(format!(
            "{what} is NULL and its length {len}"
        )));
    }
    // SAFETY: not NULL, and the host vouches for `len` bytes, which stay unchanged meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
    Bytes::copy(bytes).map_err(|_| {
        let text = format!("no memory for {len} bytes of {what}");
        Failure::new(KEEL_ERR_NOMEM, text)
    })
}

/// Text from C of at most `max` bytes; `None` for NULL. Never looks further than that.
///
/// # Safety
/// `text` is NULL or a C string.
unsafe fn copy_text(
    text: *const c_char,
    max: usize,
    what: &str,
) -> Result<Option<Vec<u8>>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    for at in 0..=max {
        // SAFETY: no byte before this one was the final NUL.
        match unsafe { text.cast::<u8>().add(at).read() } {
            0 => return Ok(Some(bytes)),
            byte => bytes.push(byte),
        }
    }
    Err(Failure::new(
        KEEL_ERR_TOO_BIG,
        format!("{what} is longer than {max} bytes"),
    ))
}

/// A peer as the engine takes it.
///
/// # Safety
/// As [`sized::read`], and the pointers in it hold what the header says.
pub unsafe fn read_peer(host: *const keel_peer) -> Result<cluster::Peer, Failure> {
    // SAFETY: passed on to the caller.
    let peer = unsafe { sized::read(host) }?;
    let id = node_id(peer.id, "keel_peer.id")?;
    // SAFETY: passed on to the caller.
    let address = unsafe { copy_text(peer.address, KEEL_ADDRESS_MAX, "keel_peer.address") }?;
    let address = String::from_utf8(address.unwrap_or_default())
        .map_err(|_| Failure::invalid(format!("keel_peer.address of node {id} is not UTF-8")))?;
    if peer.meta_len > KEEL_META_MAX {
        return Err(Failure::new(
            KEEL_ERR_TOO_BIG,
            format!(
                "keel_peer.meta_len is {}, over {KEEL_META_MAX}",
                peer.meta_len
            ),
        ));
    }
    // SAFETY: passed on to the caller.
    let meta = unsafe { copy_bytes(peer.meta, peer.meta_len, "keel_peer.meta") }?;
    Ok(cluster::Peer { id, address, meta })
}

/// An array of peers. Its stride is the host's sizeof, which need not be ours.
///
/// # Safety
/// As [`read_peer`], `n` times, one `size` after the other.
pub unsafe fn read_peers(first: *const keel_peer, n: usize) -> Result<Vec<cluster::Peer>, Failure> {
    if n == 0 || n > KEEL_MEMBERS_MAX {
        return Err(Failure::invalid(format!(
            "{n} peers: not from 1 to {KEEL_MEMBERS_MAX}"
        )));
    }
    // SAFETY: passed on to the caller; NULL ends here.
    let stride = unsafe { sized::read(first) }?.size;
    (0..n)
        .map(|i| {
            // SAFETY: the host vouches for `n` of them.
            let at = unsafe { first.byte_add(i * stride) };
            // SAFETY: as above; the size is the first field.
            let size = unsafe { at.cast::<usize>().read_unaligned() };
            if size != stride {
                return Err(Failure::invalid(format!(
                    "peers[{i}].size is {size}, that of peers[0] {stride}"
                )));
            }
            // SAFETY: passed on to the caller.
            unsafe { read_peer(at) }
        })
        .collect()
}

/// Settings as the engine takes them; their values are checked where they are decided on.
pub fn params_from(c: &keel_params) -> Result<Params, Failure> {
    if c.reserved.iter().any(|&word| word != 0) {
        return Err(Failure::new(
            KEEL_ERR_UNSUPPORTED,
            "keel_params.reserved is set: a setting that this library does not have",
        ));
    }
    Ok(Params {
        version: c.version,
        hb_keepalive: c.hb_keepalive_ms,
        hb_warntime: c.hb_warntime_ms,
        hb_deadtime: c.hb_deadtime_ms,
        hb_initdead: c.hb_initdead_ms,
        settle: c.settle_ms,
        min_nodes: c.min_nodes,
    })
}

/// Settings as C sees them.
pub fn params_to(p: &Params) -> keel_params {
    keel_params {
        size: size_of::<keel_params>(),
        version: p.version,
        hb_keepalive_ms: p.hb_keepalive,
        hb_warntime_ms: p.hb_warntime,
        hb_deadtime_ms: p.hb_deadtime,
        hb_initdead_ms: p.hb_initdead,
        settle_ms: p.settle,
        min_nodes: p.min_nodes,
        reserved: [0; 22],
    }
}

/// `value`, or `default` for 0, if it is within bounds.
fn bounded(name: &str, value: u32, default: u32, min: u32, max: u32) -> Result<u32, Failure> {
    let value = if value == 0 { default } else { value };
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(Failure::invalid(format!(
            "keel_config.{name} is {value}, not from {min} to {max}"
        )))
    }
}

fn or_default(value: u64, default: u64) -> u64 {
    match value {
        0 => default,
        value => value,
    }
}

fn seed_from(seed: u64) -> Result<u64, Failure> {
    if seed != 0 {
        return Ok(seed);
    }
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Failure::from(crate::engine::Error::Io(format!("getrandom: {error}"))))?;
    // 0 is the one value that stands for "none".
    Ok(u64::from_ne_bytes(bytes).max(1))
}

/// The engine's settings and the place of its data.
///
/// # Safety
/// As [`sized::read`], and `dir` and `storage` are what the header says.
pub unsafe fn read_config(host: *const keel_config) -> Result<(Settings, Place), Failure> {
    // SAFETY: passed on to the caller.
    let c = unsafe { sized::read(host) }?;
    let id = node_id(c.id, "keel_config.id")?;
    if c.cluster == 0 {
        return Err(Failure::invalid(
            "keel_config.cluster is 0: choose a number that no other cluster of yours has",
        ));
    }
    if c.params.size != size_of::<keel_params>() {
        return Err(Failure::invalid(format!(
            "keel_config.params.size is {}, not {}: initialise with KEEL_CONFIG_INIT",
            c.params.size,
            size_of::<keel_params>()
        )));
    }
    let heartbeat = bounded(
        "heartbeat_ms",
        c.heartbeat_ms,
        HEARTBEAT_DEFAULT as u32,
        1,
        60_000,
    )?;
    let election = bounded(
        "election_ms",
        c.election_ms,
        ELECTION_HEARTBEATS as u32 * heartbeat,
        3 * heartbeat,
        3_600_000,
    )?;
    let queue_max = bounded("queue_max", c.queue_max, QUEUE_DEFAULT as u32, 1, 1 << 20)?;
    let rest = MESSAGE_REST as u32;
    let entry_default = match c.message_max {
        0 => ENTRY_DEFAULT as u32,
        limit => limit.saturating_sub(rest).clamp(1, ENTRY_DEFAULT as u32),
    };
    let entry_max = bounded("entry_max", c.entry_max, entry_default, 1, 16 << 20)?;
    let message_default = entry_max.max(ENTRY_DEFAULT as u32) + rest;
    let message_max = bounded(
        "message_max",
        c.message_max,
        message_default,
        2 * rest,
        17 << 20,
    )?;
    if !(0..=5).contains(&c.log_level) {
        return Err(Failure::invalid(format!(
            "keel_config.log_level is {}, not from 0 to 5",
            c.log_level
        )));
    }
    let settings = Settings {
        params: params_from(&c.params)?,
        heartbeat: Millis::from(heartbeat),
        election: Millis::from(election),
        queue_max: queue_max as usize,
        entry_max: entry_max as usize,
        message_max: message_max as usize,
        compaction: Compaction {
            way: match c.compaction {
                KEEL_COMPACT_APPLICATION => Way::Application,
                KEEL_COMPACT_LEADER => Way::Leader,
                KEEL_COMPACT_IN_LOG => Way::InLog,
                other => {
                    return Err(Failure::new(
                        KEEL_ERR_UNSUPPORTED,
                        format!("keel_config.compaction is {other}: no KEEL_COMPACT_*"),
                    ));
                }
            },
            bytes: or_default(c.compact_bytes, COMPACT_BYTES_DEFAULT),
            entries: or_default(u64::from(c.compact_entries), COMPACT_ENTRIES_DEFAULT),
        },
        snapshot_rate: NonZeroU64::new(c.snapshot_rate),
        tail_bytes: usize::try_from(or_default(c.memory_max, TAIL_DEFAULT as u64))
            .unwrap_or(usize::MAX / 2)
            .min(usize::MAX / 2),
        lease_reads: c.flags & KEEL_LEASE_READS != 0,
        spares_own_disk: c.flags & KEEL_SLOW_LEADER == 0,
        log_level: if c.log_level == 0 { 3 } else { c.log_level },
        ..Settings::new(id, c.cluster, seed_from(c.seed)?)
    };
    // SAFETY: passed on to the caller.
    Ok((settings, unsafe { read_place(&c) }?))
}

/// # Safety
/// `dir` is NULL or a C string, `storage` NULL or as [`read_storage`] wants it.
unsafe fn read_place(c: &keel_config) -> Result<Place, Failure> {
    const PATH_MAX: usize = 4095;
    const KNOWN: u32 = KEEL_NEW_NODE | KEEL_VOLATILE | KEEL_LEASE_READS | KEEL_SLOW_LEADER;
    let unknown = c.flags & !KNOWN;
    if unknown != 0 {
        return Err(Failure::new(
            KEEL_ERR_UNSUPPORTED,
            format!("keel_config.flags has unknown bits {unknown:#x}"),
        ));
    }
    let create = c.flags & KEEL_NEW_NODE != 0;
    let volatile = c.flags & KEEL_VOLATILE != 0;
    // SAFETY: passed on to the caller.
    let dir = unsafe { copy_text(c.dir, PATH_MAX, "keel_config.dir") }?;
    match (dir, !c.storage.is_null(), volatile) {
        (Some(dir), false, false) if dir.is_empty() => {
            Err(Failure::invalid("keel_config.dir is empty"))
        }
        (Some(dir), false, false) => Ok(Place::Directory {
            path: PathBuf::from(OsStr::from_bytes(&dir)),
            create,
        }),
        (None, true, false) => Ok(Place::Host {
            // SAFETY: passed on to the caller.
            store: Arc::new(unsafe { read_storage(c.storage) }?),
            create,
        }),
        (None, false, true) => Ok(Place::Volatile),
        (None, false, false) => Err(Failure::invalid(
            "keel_config.dir and storage are NULL: name one (or KEEL_VOLATILE in a test)",
        )),
        _ => Err(Failure::invalid(
            "more than one of keel_config.dir, keel_config.storage and KEEL_VOLATILE: which?",
        )),
    }
}
