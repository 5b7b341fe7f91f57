/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * raftkeel.h: automatic failover for C storage daemons. One leader, chosen by Raft; dead nodes
 * found without accusing a living one; and every exclusion decided once, by consensus.
 *
 * Generated from src/ffi. Do not edit.
 *
 * Rules for every function
 *
 * Results. 0 or a positive value is success, a negative one a KEEL_ERR_* code; take a negative
 *   code that you do not know for a failure. keel_errmsg() has the detail. The few functions that
 *   return something else say so.
 * NULL. A NULL engine, or NULL where a pointer is required, gives KEEL_ERR_INVALID (0 or NULL
 *   where no code can be returned). keel_free(NULL) and keel_status_free(NULL) do nothing.
 * Memory. What you pass in is copied before the call returns. What a callback gets is valid until
 *   it returns. Never free() what came from here: keel_free() and keel_status_free() do. Lack of
 *   memory for what you, a peer or the disk chose the size of never ends the process. Input functions
 *   and keel_new() give KEEL_ERR_NOMEM, and nothing has happened. Inside a driving call a request
 *   completes with KEEL_ERR_NOMEM and is surely not done; a message is not sent, or not taken, and
 *   sent again later; entries that cannot be written wait as on a full disk; a snapshot is not made,
 *   or loaded later. For small allocations of the library's own, a page at most, and for what a
 *   thread of it takes to start, it does end the process, as everywhere in Rust.
 * Structs. Those that you fill begin with their size: initialise them with their KEEL_*_INIT
 *   macro and a program compiled today works with a later library. Setting a field that an older
 *   library does not have gives KEEL_ERR_UNSUPPORTED, never silence. Those that only the library
 *   fills grow at the end.
 * Text. UTF-8, ends with NUL.
 * Threads. Each function says its kind. Input and query functions: any thread, at any time, also
 *   several at once. Driving functions: any thread, but one at a time; a second one gets
 *   KEEL_ERR_BUSY at once. The library starts no threads that call you back. A thread that is
 *   cancelled (pthread_cancel()) leaves the library first. None may be called in a signal handler.
 * Callbacks run only inside driving functions (completions also inside keel_free()), one at a
 *   time, in the thread that drives, with no lock held. From a callback you may call every input
 *   and query function; driving functions and keel_free() give KEEL_ERR_BUSY. Callbacks must
 *   return: no longjmp(), no pthread_exit(), no C++ exception. (Those of keel_storage say themselves
 *   where they run.)
 * Completions. A request that was accepted (its function returned 0) is completed exactly once; one
 *   that was not, never.
 * Death. After a failed write, damaged data, a failed `apply`, or a bug that the library has
 *   noticed, an engine is dead: `stopped` says so once, waiting requests complete with
 *   KEEL_ERR_CLOSED, driving functions return the reason for ever, inputs KEEL_ERR_CLOSED, queries
 *   still answer: it leads nobody and knows no leader. Nothing more is sent.
 * fork(). An engine belongs to the process that made it: daemonise first. In a child every function
 *   that takes it gives KEEL_ERR_FORKED; only keel_free() works, and should be called: it closes the
 *   child's copies of the descriptors, among them the lock on the directory. What a keel_save or a
 *   keel_load uses stays open until the child execs or exits. No child keeps the lock beyond keel_free()
 *   in its parent; if the parent ends without that, the next engine there gets KEEL_ERR_LOCKED until
 *   every child that has copies has closed them, or run exec or exit. Fork while no driving function
 *   runs; in a child forked inside a callback keel_free() closes nothing, and it must exec or _exit()
 *   and not return from the callback.
 * Process. The library does not exit, abort or raise signals for anything that you or a peer can
 *   give it, installs no signal handler, changes no signal mask, never reads or writes descriptors
 *   0 to 2, and keeps no state outside its engines but each thread's last message.
 */

#ifndef RAFTKEEL_H
#define RAFTKEEL_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header; keel_version() is that of the library in use. */
#define KEEL_VERSION_MAJOR 0
#define KEEL_VERSION_MINOR 1
#define KEEL_VERSION_PATCH 0
#define KEEL_VERSION_NUMBER \
    ((KEEL_VERSION_MAJOR << 16) | (KEEL_VERSION_MINOR << 8) | KEEL_VERSION_PATCH)
#define KEEL_VERSION "0.1.0"

#ifndef KEEL_API
#if defined(__GNUC__)
#define KEEL_API __attribute__((visibility("default")))
#else
#define KEEL_API
#endif
#endif

/* Put before functions whose result must not be ignored. */
#if defined(__GNUC__)
#define KEEL_CHECK __attribute__((warn_unused_result))
#else
#define KEEL_CHECK
#endif

/** Done; in a completion: committed and applied on this node. */
#define KEEL_OK 0

/** Programming error: a bad argument, or NULL where a pointer is required. Nothing changed. */
#define KEEL_ERR_INVALID (-1)

/** Programming error: not allowed in this state or driving mode. */
#define KEEL_ERR_STATE (-2)

/** Programming error: another thread drives this engine, or the call was made from a callback. */
#define KEEL_ERR_BUSY (-3)

/** Programming error: the engine belongs to the process that made it, not to this one. */
#define KEEL_ERR_FORKED (-4)

/**
 * The engine has stopped. In a completion: it stopped before the outcome was known, so the
 * request may or may not take effect.
 */
#define KEEL_ERR_CLOSED (-5)

/** A bug in the library. The engine has stopped. */
#define KEEL_ERR_INTERNAL (-6)

/** Out of memory. Nothing changed, and a request is surely not done: it may be made again. */
#define KEEL_ERR_NOMEM (-7)

/**
 * An unknown flag, a struct that uses fields newer than this library, or a directory written
 * by a newer one.
 */
#define KEEL_ERR_UNSUPPORTED (-8)

/**
 * Storage or a system call failed; keel_errmsg() has the system's reason. From a driving
 * function: the engine has stopped.
 */
#define KEEL_ERR_IO (-9)

/** Stored data fails its checksum. From a driving function: the engine has stopped. */
#define KEEL_ERR_CORRUPT (-10)

/** A message does not parse: drop it. */
#define KEEL_ERR_MALFORMED (-11)

/** Go elsewhere: surely not done, this node does not lead. Ask keel_leader(). */
#define KEEL_ERR_NOT_LEADER (-12)

/** Check, then retry: leadership was lost, the request may or may not take effect. */
#define KEEL_ERR_LOST (-13)

/** Retry later: no majority is in reach. */
#define KEEL_ERR_NO_QUORUM (-14)

/** Retry later: another change is under way, or the version expected is not the current one. */
#define KEEL_ERR_CONFLICT (-15)

/** No such node, or no such directory. */
#define KEEL_ERR_NOT_FOUND (-16)

/** It exists already. */
#define KEEL_ERR_EXISTS (-17)

/** Larger than a limit. */
#define KEEL_ERR_TOO_BIG (-18)

/** Retry later: a queue is full. Surely not done. */
#define KEEL_ERR_FULL (-19)

/** The host's guard refused. */
#define KEEL_ERR_VETOED (-20)

/**
 * Go elsewhere: this node has been excluded or removed or has lost its state, or
 * (keel_check_epoch()) the other one is out.
 */
#define KEEL_ERR_EXCLUDED (-21)

/** A message or a directory of another cluster or of another node. */
#define KEEL_ERR_FOREIGN (-22)

/** Another engine has the directory open. */
#define KEEL_ERR_LOCKED (-23)

/** keel_check_epoch(): the sender's epoch is behind; it must catch up before it is served. */
#define KEEL_ERR_STALE (-24)

/**
 * Retry later: this node's disk has no room for the log, or no descriptor is to be had for it.
 * Surely not done; leadership goes to a node that has room, if there is one and a majority without
 * this node. Everything goes on by itself when there is room again.
 */
#define KEEL_ERR_NOSPC (-25)

/** keel_check_epoch(): the sender knows a newer epoch than this node, which must catch up first. */
#define KEEL_EPOCH_AHEAD 1

/**
 * keel_config.flags: make the directory for a node that never existed, or begin to use a
 * keel_storage that holds nothing. KEEL_ERR_EXISTS if there is a node. Without it a missing
 * directory is an error: a node that lost its disk must not come back under its old id, it is
 * replaced by one with a new id.
 */
#define KEEL_NEW_NODE 1

/**
 * keel_config.flags, with dir and storage NULL: state is kept in memory and lost at keel_free(). NOT
 * durable: for tests and simulations only. One that is made anew is taken for a node that lost
 * its directory, if its seed is another.
 */
#define KEEL_VOLATILE 2

/**
 * keel_config.flags: keel_barrier() trusts clocks. A leader that a majority has confirmed within
 * the last 0.95 election_ms answers without asking again. It is right only if no node's clock runs
 * more than a twentieth faster than another's, and if the flag and election_ms are the same on
 * every node; without it no clock is trusted. A started node votes only after an election_ms.
 */
#define KEEL_LEASE_READS 4

/**
 * keel_config.flags: this node leads on where its disk is slow. Without it a leader hands over to a
 * node that is wished for no less (keel_set_eligible()) if over two election_ms, of at least a second
 * each, its own disk takes at least three times as long for an entry, and 5 ms longer, than a quorum of
 * the others: it would make everybody wait. It does so once a minute at most, and ever more rarely the
 * more often that did not help; never where all disks are slow. keel_metrics counts it.
 */
#define KEEL_SLOW_LEADER 8

/** The most bytes of keel_peer.address, without its final NUL. */
#define KEEL_ADDRESS_MAX 255

/** The most bytes of keel_peer.meta. */
#define KEEL_META_MAX 256

/** The most members of a cluster. */
#define KEEL_MEMBERS_MAX 64

/**
 * keel_config.compaction: every node makes its own snapshots, when enough was applied or when it
 * is told to, and keeps them beside its log. Nodes need not be alike.
 */
#define KEEL_COMPACT_APPLICATION 0

/**
 * keel_config.compaction: the leader decides where in the log a snapshot is made, every node makes
 * it exactly there, and the nodes compare their snapshots: one whose host has another state than
 * the leader's is reported (event DIVERGED). What `save` writes must be the same on every node that
 * has applied the same.
 */
#define KEEL_COMPACT_LEADER 1

/**
 * keel_config.compaction: the leader decides, and only its host writes a snapshot, which goes into
 * the log in pieces, to every node. For hosts whose snapshots are small and whose nodes should do
 * no work of their own for them.
 */
#define KEEL_COMPACT_IN_LOG 2

/** keel_records_entry(): this entry and those after it are not needed. */
#define KEEL_ENOUGH 1

/** Follows, or looks for a leader. */
#define KEEL_ROLE_FOLLOWER 1

/** Campaigns to become leader. */
#define KEEL_ROLE_CANDIDATE 2

/** Leads. */
#define KEEL_ROLE_LEADER 3

/** Receives the log and does not vote yet. */
#define KEEL_ROLE_LEARNER 4

/** Has been excluded or removed, or has lost its state, and knows it. */
#define KEEL_ROLE_EXCLUDED 5

/** Never heard by this node since it started. */
#define KEEL_NODE_JOINING 1

/** Heard. */
#define KEEL_NODE_ALIVE 2

/** Silent for hb_warntime_ms. */
#define KEEL_NODE_LATE 3

/**
 * Judged dead, not excluded yet: keel_node.blocked_by says what holds it back, excludes_in_ms
 * when it will be excluded.
 */
#define KEEL_NODE_SUSPECT 4

/** Excluded by a committed decision; SX prints FAULTY. */
#define KEEL_NODE_EXCLUDED 5

/** Excluded, and heard again since. */
#define KEEL_NODE_RETURNED 6

/** Another node has its place for good. */
#define KEEL_NODE_REPLACED 7

/** The administrator took it away for good. */
#define KEEL_NODE_REMOVED 8

/** Nothing holds the exclusion back. */
#define KEEL_GUARD_NONE 0

/** hb_deadtime_ms is 0: nothing is excluded automatically. */
#define KEEL_GUARD_DISABLED 1

/** No leader, or one not yet confirmed by a majority, or too new. */
#define KEEL_GUARD_NOT_LEADER_FRESH 2

/** The leader's own listening is in doubt. */
#define KEEL_GUARD_LISTENER_UNHEALTHY 3

/** What remains would have no majority. */
#define KEEL_GUARD_NO_QUORUM_AFTER 4

/** Fewer than min_nodes voters would remain. */
#define KEEL_GUARD_MIN_NODES 5

/** The host's guard said no, or later. */
#define KEEL_GUARD_VETO 6

/** A witness that has not heard it since its own start waits for hb_initdead_ms. */
#define KEEL_GUARD_INITDEAD 7

/** Waiting for others that fell silent at about the same time. */
#define KEEL_GUARD_SETTLING 8

/** An engine: one member of one cluster. */
typedef struct keel keel;

/**
 * A snapshot that the host is loading. It belongs to the host from when `load` gets it until
 * keel_load_finish(), may be used by one thread at a time, and also after `load` has returned.
 */
typedef struct keel_load keel_load;

/** What `open` and `read` give stored records back through; valid until they return. */
typedef struct keel_records keel_records;

/**
 * A snapshot that the host is writing. It belongs to the host from when `save` gets it until
 * keel_save_finish(), may be used by one thread at a time, and also after `save` has returned.
 */
typedef struct keel_save keel_save;

/**
 * A snapshot of what an engine knows: one consistent instant. It belongs to who took it,
 * outlives the engine, never changes, and may be read by several threads at once.
 */
typedef struct keel_status keel_status;

/** A node. Never 0; an id that was in use once is never given to another node again. */
typedef uint64_t keel_id;

/** Bytes that the host stores and gives back as they are. */
typedef struct keel_record {
    /** Never NULL. */
    const void *data;
    /** Never 0. */
    size_t len;
} keel_record;

/**
 * One write: all of it is stored, or nothing. In this order, always all three:
 *
 * 1. Replace the stored state by `state`.
 * 2. Delete every stored entry whose index is `cut` or more.
 * 3. Insert the `n` entries, at the indexes `first`, `first` + 1, and so on.
 *
 * As SQL, in one transaction: UPDATE the state; DELETE FROM log WHERE idx >= cut; INSERT INTO log.
 * There are no special cases: where nothing is to be deleted, `cut` is behind the last entry; where
 * the log is dropped because a snapshot has taken its place, `cut` is 1 and `first` behind the
 * snapshot, and the indexes between are left out.
 */
typedef struct keel_batch {
    /**
     * For keel_write_done(): one more than that of the batch before. Each run of the engine that has
     * stored anything has numbers of its own.
     */
    uint64_t number;
    /** Less than 256 bytes. */
    struct keel_record state;
    /** Not 0. */
    uint64_t cut;
    /** Not below `cut`. */
    uint64_t first;
    /** `n` of them. None is longer than keel_config.entry_max, or 64 KiB if that is more, and 4 KiB. */
    const struct keel_record *entries;
    /** Often 0. */
    size_t n;
} keel_batch;

/**
 * Storage by the host: for a daemon that owns a database, and wants this node's state in it
 * instead of in a directory (keel_config.storage). It keeps, for each engine, one state, a log of
 * entries by index, and, if there are to be snapshots, numbered images. All of them are bytes that
 * mean nothing to the host: what they say, whose they are and whether they are whole is inside, and
 * checked when they come back. Initialise with KEEL_STORAGE_INIT.
 *
 * Results. 0 is success. Anything else is a failure, of a code of the host's own (errno, for
 * instance), which keel_errmsg() shows; but KEEL_ENOUGH, which `read` may hand on, so that its own
 * failures must have other numbers than 1.
 *
 * Threads. `open` runs inside keel_new(); `write`, `read` and `trim` inside driving functions, in
 * the thread that drives; the snap_ functions there, inside keel_new(), and inside
 * keel_save_write(), keel_save_finish() and keel_load_read(), whichever thread calls those: also
 * several at once, but never two for one image that is not committed. From all but `open` every
 * input and query function may be called. None is called after keel_free() has returned, or by it.
 *
 * Durable means: it survives the loss of power. A daemon that reports what is not breaks the
 * promises of the whole cluster.
 *
 * One engine at a time may use a store, and only the host can see to that.
 */
typedef struct keel_storage {
    /** sizeof(keel_storage) */
    size_t size;
    /** Handed to the functions below as it is; not the one of keel_new(). */
    void *ud;
    /**
     * Give back everything that is stored, with keel_records_state() first, then
     * keel_records_entry() for all entries in the order of their indexes, and keel_records_image()
     * for every committed image; for a node that has stored nothing, call none of them. When one
     * of them fails, return its code. What an earlier engine has written must have landed, or be
     * lost for good, before this begins. Images that were not committed may be deleted.
     *
     * With KEEL_NEW_NODE nothing may be stored, without it something must be. Set the flag because
     * the node is to be made, not because the store was found empty: that is what one looks like
     * that was lost. Until the first batch is durable the node has said nothing to anybody, and may
     * be made again. Required.
     */
    int (*open)(void *ud, struct keel_records *r);
    /**
     * Take a batch, whose pointers are valid until this returns. 0 = taken: then call
     * keel_write_done() once it is durable, or has failed: at once, from in here, or any time
     * later, from any thread. Up to four batches may be under way, what comes meanwhile makes the
     * next one larger; they take effect in order, so after a crash those that are stored are the
     * first ones, each of them whole. The engine goes on, and holds back what depends on them; a
     * leader whose oldest batch takes longer than four times election_ms steps down.
     *
     * A failed write, here or in keel_write_done(), ends the engine: KEEL_ERR_IO. Nothing of a run
     * leaves the node before the first batch is durable. Required. What is still under way at
     * keel_free() is reported to nobody any more; the next engine's numbers are others, and it
     * refuses such a report with KEEL_ERR_INVALID, but when nothing of the earlier run was stored.
     */
    int (*write)(void *ud, const struct keel_batch *batch);
    /**
     * Give back entries from `first` to `last`, with keel_records_entry(), until that returns
     * anything but KEEL_OK. They are durable, and no batch under way touches them. After a failure
     * they are asked for again, a little later. Required.
     */
    int (*read)(void *ud, uint64_t first, uint64_t last, struct keel_records *r);
    /**
     * Entries up to this index are not needed any more: they may be deleted now, later (from the
     * lowest on), or never. Nothing waits for it.
     *
     * This and the four below may be NULL, all of them together: then this node takes no
     * snapshots (keel_snapshot(): KEEL_ERR_STATE), keeps its whole log, and cannot follow a leader
     * that has dropped a part of it.
     */
    int (*trim)(void *ud, uint64_t index);
    /**
     * Append to an image, which has `offset` bytes so far. At 0 it begins, and whatever is stored
     * under its number is dropped. It need not be durable yet. A failure ends this snapshot, and
     * another one is tried later.
     */
    int (*snap_put)(void *ud, uint64_t image, uint64_t offset, const void *data, size_t len);
    /**
     * Make an image durable before this returns: from now on `open` gives it. After a failure the
     * snapshot is given up or, if it is a leader's that the host has loaded already, the engine ends.
     */
    int (*snap_commit)(void *ud, uint64_t image);
    /**
     * Read up to `cap` bytes of an image at `offset`, whether it is committed or not, and store at
     * `got` how many there were: 0 only at its end. What was put is read once before it is
     * committed. A failure is one of whoever reads: of keel_new(), of keel_load_read(), or of a
     * message to a peer, for which it is read again later.
     */
    int (*snap_get)(void *ud, uint64_t image, uint64_t offset, void *buf, size_t cap, size_t *got);
    /** Delete an image, committed or not; one that is not there is no failure. */
    int (*snap_drop)(void *ud, uint64_t image);
} keel_storage;

/**
 * Cluster-wide settings: the same on every node, changed together by keel_set_params(). All
 * times in milliseconds; a 0 means the default that is given with the field. Initialise with
 * KEEL_PARAMS_INIT.
 */
typedef struct keel_params {
    /** sizeof(keel_params) */
    size_t size;
    /**
     * Grows by one with every change. To keel_set_params(): the version that is to be changed,
     * else KEEL_ERR_CONFLICT; or 0 for whatever it is.
     */
    uint64_t version;
    /** How often a node tells the others that it lives. 0 = 1000. */
    uint32_t hb_keepalive_ms;
    /**
     * Silence after which a node is LATE. 0 = half of hb_deadtime_ms, or ten keepalives when
     * that is 0.
     */
    uint32_t hb_warntime_ms;
    /**
     * Silence after which a node is to be excluded; more than two keepalives. 0 = detect and
     * report, never exclude: the only field where 0 is no default but a meaning.
     *
     * A node learns a new value with the log. One that is out of reach while it is turned on or
     * made shorter is judged by the new value and fences itself by the old one (with 0 before:
     * not at all) until it is heard again: arm exclusion while all nodes are up, and check the
     * epoch of the daemon's own traffic (keel_check_epoch()).
     */
    uint32_t hb_deadtime_ms;
    /**
     * The same for a node that the observer has not heard since it started; not less than
     * hb_deadtime_ms. 0 = 120000, or hb_deadtime_ms if that is more.
     */
    uint32_t hb_initdead_ms;
    /**
     * How long a decision waits for others that fell silent at about the same time. 0 = a tenth
     * of hb_deadtime_ms, but from two keepalives to 10000.
     */
    uint32_t settle_ms;
    /**
     * The fewest voters that automatic exclusion leaves. 0 = a majority of all that were
     * provisioned; never under 2.
     */
    uint32_t min_nodes;
    /** Must be 0. Later settings will take this room, so that keel_config keeps its layout. */
    uint32_t reserved[22];
} keel_params;

/**
 * Everything an engine needs to know about its node. Initialise with KEEL_CONFIG_INIT, set id,
 * cluster and either dir or storage, leave the rest.
 */
typedef struct keel_config {
    /** sizeof(keel_config) */
    size_t size;
    /** This node; not 0. */
    keel_id id;
    /** The cluster's number, not 0. Messages and directories of other clusters are refused. */
    uint64_t cluster;
    /**
     * The directory of this node's log and vote. One engine at a time has it open. Its name is used
     * as long as the engine lives, but not the working directory.
     */
    const char *dir;
    /** The host's own storage, in place of the directory; copied by keel_new(). */
    const struct keel_storage *storage;
    /** The cluster's first settings: used by keel_bootstrap() only. */
    struct keel_params params;
    /** How often a leader is heard at least. 0 = 100; at most 60000. */
    uint32_t heartbeat_ms;
    /**
     * How long a leader may be silent before another is elected: drawn anew between this and
     * 1.5 times this, below 32 ms up to twice this. 0 = 20 heartbeats; at least 3, at most
     * 3600000 ms.
     * The same on every node: a node's right to serve is reckoned with it.
     */
    uint32_t election_ms;
    /** The most inputs that wait for the next driving call. 0 = 4096; at most 1048576. */
    uint32_t queue_max;
    /**
     * The most bytes of one proposal; the same on every node. 0 = 1 MiB, or what fits in
     * message_max if that is less; at most 16 MiB.
     */
    uint32_t entry_max;
    /**
     * The most bytes of one message that `send` can carry; the same on every node. A message that
     * is always dropped because it is too large stops the log for ever. 0 = what entry_max needs,
     * at least 1 MiB, and 16 KiB more; from 32 KiB to 17 MiB, and 16 KiB more than entry_max.
     * (A transport of datagrams has 65507.)
     */
    uint32_t message_max;
    /** When and how the log is compacted: KEEL_COMPACT_*; the same on every node. */
    uint32_t compaction;
    /** So many log entries applied since the last snapshot make a new one. 0 = 1048576. */
    uint32_t compact_entries;
    /**
     * So do so many bytes of them, each counted with 64 more for its keeping; or as many as the last
     * snapshot has, if that is more. 0 = 64 MiB.
     */
    uint64_t compact_bytes;
    /**
     * The most bytes of log entries that are kept in memory; older ones are read from storage when
     * a node needs them that has fallen behind. 0 = 16 MiB.
     */
    uint64_t memory_max;
    /**
     * The most bytes of snapshots that this node sends in a second as leader, to all nodes together;
     * one piece, of at most 256 KiB, is always sent whole. 0 = no limit.
     */
    uint64_t snapshot_rate;
    /**
     * Of the random election timeouts; the same seed and the same inputs give the same run, but
     * for the number that tells a new directory from others, which messages carry (with
     * KEEL_VOLATILE it is of the seed as well). 0 = from the system.
     */
    uint64_t seed;
    /** 1 error, 2 warning, 3 notice, 4 debug, 5 trace. 0 = 3. */
    int32_t log_level;
    /** KEEL_NEW_NODE, KEEL_VOLATILE, KEEL_LEASE_READS, KEEL_SLOW_LEADER */
    uint32_t flags;
} keel_config;

/**
 * What the host is told and asked. Every pointer but `send` may be NULL. They run only inside a
 * driving function, one at a time, with no lock held and the engine's state consistent; what
 * they receive is valid until they return. Initialise with KEEL_CALLBACKS_INIT.
 */
typedef struct keel_callbacks {
    /** sizeof(keel_callbacks) */
    size_t size;
    /**
     * One committed entry of the host's own: in log order, the same on every node, exactly once
     * per run of the engine, and in each run from the beginning: from the first entry, or from the
     * snapshot that `load` was given. 0 = done; anything else stops the engine (KEEL_ERR_STATE).
     */
    int (*apply)(void *ud, uint64_t index, uint64_t term, const void *data, size_t len);
    /**
     * Write a snapshot of the host's state as it is now: all that `apply` was called for so far,
     * up to log index `index`, and nothing later. Writing may go on after this has returned, in any
     * thread, while `apply` is called for what comes next; so look at the state as it is now first
     * (a read transaction of a database, a copy, a list of files that never change). The
     * keel_save is to be ended with keel_save_finish(), here or later.
     *
     * `save` and `load` come together. A host with `apply` and without them has no snapshots and a
     * log that only grows, and cannot follow one that has; a host without the three has no state of
     * its own to save, and its log is compacted by itself.
     */
    void (*save)(void *ud, struct keel_save *s, uint64_t index);
    /**
     * Load a snapshot: the host's state becomes that, whatever it was; it covers the log up to
     * `index`. At the first driving call of every run if there is one, before any `apply`; and when
     * this node has missed so much that the leader sends its own. Reading may go on after this has
     * returned, in any thread; nothing is applied before keel_load_finish(). `excluded`, `members`
     * and `params` follow with what holds then.
     */
    void (*load)(void *ud, struct keel_load *l, uint64_t index);
    /**
     * Put one message on the way to a node, where keel_recv() takes it; or drop it. It may be
     * lost, doubled, late or out of order, but not altered. At most keel_config.message_max bytes.
     * To a node whose address is not known yet (0 members in the status of one that joins) answer
     * the way its last message came. Must not block. Required.
     */
    void (*send)(void *ud, keel_id to, const void *msg, size_t len);
    /** This node's KEEL_ROLE_*, its term, or the leader it knows (0 = none) changed. */
    void (*role)(void *ud, int role, uint64_t term, keel_id leader);
    /**
     * A node's KEEL_NODE_* as this node sees it changed; silent_ms: how long it has not been
     * heard (UINT32_MAX = never).
     */
    void (*node)(void *ud, keel_id id, int state, int old_state, uint32_t silent_ms);
    /**
     * An exclusion was decided. Every living node is told the same epoch, ids and log index; an
     * excluded one itself only if it was in touch when that happened, else `fence` tells it.
     *
     * Like `apply`, `members` and `params` it comes in log order, from the beginning in each run:
     * a restarted node is told of exclusions that were undone since, and of those that a snapshot
     * covers only what holds. Who is in now is what
     * keel_status_take() says; act on that, and take this as the moment to look.
     */
    void (*excluded)(void *ud, uint64_t epoch, const keel_id *ids, size_t n, uint64_t index);
    /**
     * The membership changed, by whatever cause: see keel_status_take(), which is the newest that
     * this node knows and may be ahead of `epoch`. In each run from the beginning, see `excluded`.
     */
    void (*members)(void *ud, uint64_t epoch, uint64_t index);
    /** The cluster-wide settings changed; in each run from the beginning, see `excluded`. */
    void (*params)(void *ud, const struct keel_params *p);
    /**
     * 1: stop serving, the others may go on without this node; 0: serve again. `why` is for a
     * person.
     */
    void (*fence)(void *ud, int fenced, const char *why);
    /**
     * Something worth a line in a monitoring system: a stable code and its facts as one JSON
     * object. LEADING, NOT_LEADING (term); QUORUM, NO_QUORUM (voters_heard, quorum); EXCLUDED
     * (epoch, index, ids); EXCLUDED_SELF, REMOVED_SELF (epoch, index, told_by); READMITTED, ADDED,
     * PROMOTED, PEER_LOST_DATA, PEER_LOST_STATE, PEER_NEWER (id; it sends log entries that this
     * version cannot read, so this node stays behind until it is upgraded); REMOVED (epoch, index,
     * id); REPLACED (old, by); LOST_STATE: this node's directory is not the one that the cluster knows; BLOCKED (why;
     * empty when nothing is held back any more); PAUSED (late_ms); SNAPSHOT, SNAPSHOT_INSTALLED
     * (index, bytes): this node has made a snapshot, or taken the leader's; SNAPSHOT_FAILED (index,
     * why); DIVERGED (id, index): a node's state is not this node's, see KEEL_COMPACT_LEADER;
     * LOST_DATA, REFILLED (index: where the log ends): this node's directory was damaged and has lost
     * entries that it may have acknowledged; it does not lead, and votes only for nodes that have
     * them, until the leader has sent them again;
     * DISK_STALLED, DISK_BACK: this node's disk does not answer, and a leader steps down; DISK_SLOW
     * (to, own_ms, quorum_ms): this leader hands over, see KEEL_SLOW_LEADER. Later versions add codes
     * and facts. What an earlier run has told is not told again.
     */
    void (*event)(void *ud, const char *code, const char *json);
    /**
     * The engine is dead, for the reason `why` (KEEL_ERR_*; keel_errmsg() has the text). It
     * comes once. Stop serving, call keel_free(), start again from what is on the disk.
     */
    void (*stopped)(void *ud, int why);
    /**
     * Leader only: may these dead nodes be excluded? 0 = yes; > 0 = ask again in so many
     * milliseconds; < 0 = no. The reason goes to `why` (why_cap bytes with the final NUL): it is
     * logged and shown in the status. Must not block.
     */
    int (*guard)(void *ud, const keel_id *ids, size_t n, char *why, size_t why_cap);
    /** A line for the log, without newline; level as in keel_config.log_level. */
    void (*log)(void *ud, int level, const char *text);
} keel_callbacks;

/** A node as the host introduces it. Initialise with KEEL_PEER_INIT. */
typedef struct keel_peer {
    /** sizeof(keel_peer) */
    size_t size;
    /** Not 0. */
    keel_id id;
    /**
     * Where the host finds it, replicated with the membership and opaque to the library: UTF-8,
     * at most KEEL_ADDRESS_MAX bytes. NULL is "".
     */
    const char *address;
    /** The host's own bytes about the node, e.g. a UUID, replicated as well; or NULL. */
    const void *meta;
    /** At most KEEL_META_MAX. */
    size_t meta_len;
} keel_peer;

/**
 * Called exactly once for every request that was accepted (the call returned 0), never for one
 * that was not, always inside a driving function or keel_free(). `status` is KEEL_OK or a
 * KEEL_ERR_* code; `index` is the log index of the committed entry, 0 on failure. KEEL_ERR_LOST
 * and KEEL_ERR_CLOSED mean that the outcome is unknown, every other code that it is surely not
 * done. Where one is taken NULL may be given: then nobody is told.
 */
typedef void (*keel_done_fn)(void *arg, int status, uint64_t index);

/**
 * The cluster as this node sees it. Made by the library, only read by the host: later versions
 * add fields at the end.
 *
 */
typedef struct keel_info {
    /** This node. */
    keel_id self;
    /** Who leads; 0 = none known. */
    keel_id leader;
    /** This node's KEEL_ROLE_*. */
    int32_t role;
    /** 1: this node must not serve. */
    int32_t fenced;
    /** The cluster's number. */
    uint64_t cluster;
    /** Raft's term. */
    uint64_t term;
    /** Number of the membership. */
    uint64_t epoch;
    /**
     * The highest log index known to be committed. On a follower whose disk is full it may be ahead
     * of what this node has stored, and so of `applied`, until there is room.
     */
    uint64_t commit;
    /**
     * The highest log index taken in by this engine; `apply` is called for it at the end of the
     * same driving call, so from within a callback the host's own state may be behind.
     */
    uint64_t applied;
    /**
     * The highest index in this node's log; what waits to be written counts, where a disk is full as
     * well: it is lost if the process ends before there is room.
     */
    uint64_t last_index;
    /** How many nodes vote. */
    uint32_t voters;
    /**
     * How many of them are heard, this node included: a leader, and on a leader the others, within
     * less than election_ms; else within election_ms and hb_keepalive_ms.
     */
    uint32_t voters_heard;
    /** How many make a majority. */
    uint32_t quorum;
    /** 1: a leader that a majority has confirmed is known. */
    int32_t has_quorum;
    /** 1: dead nodes are excluded automatically. */
    int32_t armed;
    /** As keel_lease_ms(). */
    int32_t lease_ms;
    /** 0 healthy .. 8; above 3 this node's testimony about others does not count. */
    int32_t health_score;
    /**
     * Why an exclusion is held back, or what the log of this node has lost, or on which full disks
     * everything waits, or "".
     */
    const char *notice;
    /** The push interval in force; this and the following with every derived value filled in. */
    uint32_t hb_keepalive_ms;
    /** Silence after which a node is LATE. */
    uint32_t hb_warntime_ms;
    /** Silence before a verdict; 0 = never. */
    uint32_t hb_deadtime_ms;
    /** The same for a node not heard since the witness started. */
    uint32_t hb_initdead_ms;
    /** How long a cut waits for others that fell silent at about the same time. */
    uint32_t settle_ms;
    /** A node that no leader with a majority has answered for so long is fenced. */
    uint32_t fencetime_ms;
    /** Fewest voters that automatic exclusion leaves. */
    uint32_t min_nodes;
    /** Why this node must not serve, or "". */
    const char *fenced_why;
    /** Where `leader` is to be found, as its keel_peer.address says; "" if none is known. */
    const char *leader_address;
    /**
     * Who led last as the replicated log says, up to `applied`: a value that every node has, the
     * same at the same index, also one that has lost touch. 0 = nobody yet.
     */
    keel_id recorded_leader;
    /** The term of that leadership. */
    uint64_t recorded_term;
    /** Where `recorded_leader` is to be found. */
    const char *recorded_address;
    /**
     * The lowest index that this node goes by in its log: what came before is in its snapshots
     * only. The files may hold more, until all of a segment can go.
     */
    uint64_t first_index;
    /** The last index that the newest snapshot covers, 0 if there is none. */
    uint64_t snapshot_index;
    /** 1: the host has yet to load a snapshot, and nothing is applied before that. */
    int32_t loading;
    /**
     * 1: the disk has no room for the log: entries wait, and if this node leads proposals end with
     * KEEL_ERR_NOSPC.
     */
    int32_t disk_full;
} keel_info;

/**
 * Counters since keel_new(). Made by the library, only read by the host: later versions add
 * fields at the end.
 */
typedef struct keel_metrics {
    /** Driving calls. */
    uint64_t steps;
    /** Messages accepted by keel_recv(). */
    uint64_t messages_in;
    /** Messages given to `send`. */
    uint64_t messages_out;
    /** Bytes of the messages in. */
    uint64_t bytes_in;
    /** Bytes of the messages out. */
    uint64_t bytes_out;
    /** Messages that did not parse. */
    uint64_t dropped_malformed;
    /** Messages of another cluster or for another node. */
    uint64_t dropped_foreign;
    /** Parts of messages whose type this version does not know, skipped. */
    uint64_t dropped_unknown;
    /** Elections that this node started. */
    uint64_t elections;
    /** The latest that a driving call ever was, in milliseconds after it was due. */
    uint64_t step_late_ms_max;
    /** Pauses noticed: this node's own testimony was put aside. */
    uint64_t pauses;
    /** Writes to storage. */
    uint64_t persists;
    /** Log entries in them. */
    uint64_t entries_persisted;
    /** Messages dropped because the input queue was full. */
    uint64_t dropped_full;
    /** Snapshots that this node made. */
    uint64_t snapshots;
    /** Snapshots of a leader that took the place of this node's state. */
    uint64_t snapshots_installed;
    /** Bytes of snapshots received. */
    uint64_t snapshot_bytes_in;
    /** Bytes of snapshots sent. */
    uint64_t snapshot_bytes_out;
    /**
     * Times that this node handed leadership over because its own disk was slow; see
     * KEEL_SLOW_LEADER.
     */
    uint64_t slow_disk_transfers;
} keel_metrics;

/**
 * A node as this node sees it. Made by the library, only read by the host: later versions add
 * fields at the end.
 */
typedef struct keel_node {
    /** The node. */
    keel_id id;
    /** Its KEEL_ROLE_* as far as known. */
    int32_t role;
    /** Its KEEL_NODE_*. */
    int32_t state;
    /** What holds its exclusion back: KEEL_GUARD_*. */
    int32_t blocked_by;
    /** How long it has not been heard; UINT32_MAX = never in this run. */
    uint32_t silent_ms;
    /** When it will be excluded unless it is heard; UINT32_MAX = not foreseen. */
    uint32_t excludes_in_ms;
    /** The epoch that its exclusion or removal began, else 0. */
    uint64_t epoch;
    /** The log index of its exclusion or removal, else 0. */
    uint64_t index;
    /** On a leader: how far its log is known to agree; elsewhere 0. */
    uint64_t match_index;
    /** How many of the witnesses hear it. */
    uint32_t heard_by;
    /** How many nodes have told lately whom they hear. */
    uint32_t witnesses;
    /** Never NULL. */
    const char *address;
    /** NULL if there is none. */
    const void *meta;
    /** Bytes of it. */
    size_t meta_len;
    /** Who took its place; 0 = nobody. */
    keel_id replaced_by;
    /**
     * 1: it runs with another directory than the one that the cluster knows under its id, and is
     * ignored: replace it under a new id.
     */
    int32_t lost_state;
    /** 1: a learner that votes only after keel_node_promote(). */
    int32_t awaits_promotion;
} keel_node;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/** A short text for a code; never NULL, static. Any thread, any time, in any process. */
KEEL_API const char *keel_strerror(int code);

/**
 * The version of the library in use, e.g. "0.1.0"; compare with KEEL_VERSION_* of the header.
 * Static. Any thread, any time.
 */
KEEL_API const char *keel_version(void);

/** The same as a number: major << 16 | minor << 8 | patch, comparable with KEEL_VERSION_NUMBER. */
KEEL_API uint32_t keel_version_number(void);

/**
 * The detail of the last failure in the calling thread, "" if there was none; never NULL. It is
 * valid until the next failure in this thread. Successful calls leave it alone. Inside a
 * completion with a negative status, and inside `stopped`, it says why. Works without an engine.
 */
KEEL_API const char *keel_errmsg(void);

/**
 * Makes an engine, opens its directory or storage, and stores it at `out` (NULL there on failure).
 * Nothing is sent, and no callback runs but keel_storage's `open` and `snap_get`, before the first
 * driving call. `cb` is copied; `ud` is handed to every callback of it as it is.
 *
 * A directory whose log is damaged opens with what is whole of it: see LOST_DATA in
 * keel_callbacks.event. KEEL_ERR_CORRUPT means that nobody could make the node whole: term and vote
 * are lost, or this is the only voter (`keelctl inspect` says which); or that keel_storage has lost
 * anything.
 *
 * Any thread. KEEL_ERR_INVALID (see keel_errmsg()), KEEL_ERR_UNSUPPORTED; of the directory or
 * storage KEEL_ERR_NOT_FOUND, KEEL_ERR_EXISTS, KEEL_ERR_LOCKED, KEEL_ERR_FOREIGN,
 * KEEL_ERR_CORRUPT, KEEL_ERR_IO; KEEL_ERR_NOSPC: no descriptor, or no room, which a restart on
 * a full disk needs in rare cases only; KEEL_ERR_NOMEM: there is none for what is stored.
 */
KEEL_API
KEEL_CHECK
int keel_new(struct keel **out,
             const struct keel_config *cfg,
             const struct keel_callbacks *cb,
             void *ud);

/**
 * The first start of a cluster: every first member calls it once, with the same list in any
 * order, itself included. A node that joins later is made with KEEL_NEW_NODE and never
 * bootstrapped: the leader adds it (keel_node_add(), keel_node_replace()) and sends it everything.
 *
 * Driving function. KEEL_ERR_EXISTS once the node has any log: a restarted daemon may call it
 * every time and take that for success. KEEL_ERR_INVALID: a bad list or bad settings in
 * keel_config.params. KEEL_ERR_NOSPC, KEEL_ERR_NOMEM: not durable yet, and is once there is room.
 */
KEEL_API KEEL_CHECK int keel_bootstrap(struct keel *k, const struct keel_peer *peers, size_t n);

/**
 * Closes an engine and frees it. Requests that still wait are completed with KEEL_ERR_CLOSED
 * before it returns; in their completions inputs give KEEL_ERR_CLOSED and queries still work.
 * No other thread may be in, or later begin, a call on this engine.
 *
 * Returns 0; KEEL_ERR_BUSY when called from a callback or while another thread drives: then
 * nothing is freed. NULL: 0, nothing happens. In a forked child it frees the child's copy, runs
 * no callback and leaves the parent's engine alone; forked inside a callback, nothing happens.
 */
KEEL_API int keel_free(struct keel *k);

/**
 * Driving by steps: takes everything that was queued, does what is due at `now_ms`, stores,
 * sends, applies and tells. `*next_ms` becomes the time by which to call again even without new
 * input (UINT64_MAX = only with input; also on failure); `next_ms` may be NULL.
 *
 * `now_ms` is any clock that never goes back and does not stop while the process does, such as
 * CLOCK_BOOTTIME. The same configuration, seed, inputs and times give the same outputs. A call
 * that is late is noticed, and its lateness is not held against the others.
 *
 * Votes and the right to serve rest on nothing's being taken for older than it is. So what
 * keel_recv(), keel_heard() and keel_lost() give while the call runs, in its callbacks or in another
 * thread, waits for the next call, which is due at once then; what callbacks ask for is done in the
 * same call. Read the clock directly before the call: what another thread gives in between counts as
 * if it had come at `now_ms`. Where that may be long, take no messages in other threads meanwhile, or
 * use keel_fd(), behind which the library reads the clock itself.
 *
 * Driving function. KEEL_ERR_STATE once keel_fd() was used, KEEL_ERR_INVALID for an earlier time
 * than before, or one that is past INT64_MAX: nothing was done. Any other failure: the engine has
 * stopped (see `stopped`), and later calls return the same.
 */
KEEL_API
KEEL_CHECK
int keel_step(struct keel *k,
              uint64_t now_ms,
              uint64_t *next_ms);

/**
 * Driving in the host's own loop: a descriptor that becomes readable when keel_dispatch() has
 * something to do, timers included. Watch it for reading with poll(), select() or level-triggered
 * epoll; never read, write or close it. From the first call on the library uses its own clock and
 * keel_step() gives KEEL_ERR_STATE; later calls return the same descriptor.
 *
 * With keel_config.dir threads of the library's own write to the disk from then on and read from it,
 * so that a slow one delays no heartbeat; keel_free() waits until what was accepted is written. They
 * block all signals, and call nothing of the host's. On ext4 and xfs they use io_submit(2) where the
 * system has it; elsewhere, and without it, they write and sync themselves.
 *
 * After messages of others were given with keel_recv(), keel_dispatch() may be called at once, in
 * the same turn of the loop: the descriptor need not be waited for.
 *
 * Driving function. KEEL_ERR_STATE after keel_step(); KEEL_ERR_IO: no descriptor, or no thread, to be
 * had now.
 */
KEEL_API
KEEL_CHECK
int keel_fd(struct keel *k);

/**
 * Milliseconds until keel_dispatch() is due, for loops that want to know (the descriptor of
 * keel_fd() becomes readable by itself then): 0 = now, also while `stopped` is to be called; -1 =
 * nothing is planned: it was called, or there is no descriptor. Query function. Failures are
 * negative too: poll() takes every one of them for "no timeout".
 */
KEEL_API int keel_timeout_ms(const struct keel *k);

/**
 * Does what keel_step() does, at the present time: call it when the descriptor of keel_fd() is
 * readable; at any other time it does no harm. One call does a bounded amount of work; when
 * something is left the descriptor stays readable. Messages that come while it runs, however long
 * callbacks take, are handled by a time that is read after they came.
 *
 * Driving function. KEEL_ERR_STATE before keel_fd(); else as keel_step().
 */
KEEL_API KEEL_CHECK int keel_dispatch(struct keel *k);

/**
 * A message of a peer, as its `send` gave it. `from` is who sent it if the transport knows, and
 * then the message must say the same; 0 = believe the message.
 *
 * Input function. It is checked before it is queued: KEEL_ERR_MALFORMED, KEEL_ERR_FOREIGN (of
 * another cluster, for another node, or not from `from`), KEEL_ERR_TOO_BIG, KEEL_ERR_FULL,
 * KEEL_ERR_NOMEM: each of them means that the message was dropped, which is always allowed.
 */
KEEL_API int keel_recv(struct keel *k, keel_id from, const void *msg, size_t len);

/**
 * The host heard this node by other means, its own traffic for instance: as good a sign of life
 * as a message. Only what really came from that node in this moment counts.
 *
 * Input function. KEEL_ERR_INVALID, KEEL_ERR_FULL. An unknown node is ignored.
 */
KEEL_API int keel_heard(struct keel *k, keel_id from);

/**
 * The host says that it has lost its connection to node `id`, or cannot make one: the process there has
 * ended, perhaps. Give what came from it with keel_recv() first. It matters only if that node is the
 * leader that this one follows, and need not be taken back.
 *
 * This node then does not wait until the leader was silent for election_ms: it asks the others for
 * their votes after heartbeat_ms and up to a quarter of election_ms. Those give them who were told of
 * a lost connection to the leader as well, or have not heard it for election_ms; so another leader is
 * elected at once if a majority has lost the leader, and none if a majority goes on hearing it.
 *
 * It is a hint, and may be wrong. If this node hears the leader before it asks, nothing happens, and
 * further hints count for nothing in the election_ms after that. If a majority is told without cause
 * there is another leader for no reason; the one before learns of it by the next message, at the latest
 * in election_ms, and until then both may have KEEL_ROLE_LEADER, of which only the new one commits and
 * answers barriers. The hint is no silence in the sense of hb_deadtime, and no exclusion comes sooner
 * for it. With KEEL_LEASE_READS it is ignored.
 *
 * Input function. KEEL_ERR_INVALID, KEEL_ERR_FULL. An unknown node is ignored.
 */
KEEL_API
int keel_lost(struct keel *k,
              keel_id id);

/**
 * Appends the host's own data to the log of the cluster: once committed, every node's `apply`
 * gets it. Data of length 0 is allowed. At the leader only, elsewhere the completion says
 * KEEL_ERR_NOT_LEADER.
 *
 * Input function. KEEL_ERR_TOO_BIG (over keel_config.entry_max), KEEL_ERR_FULL, KEEL_ERR_NOMEM. The
 * completion says KEEL_ERR_NOSPC or KEEL_ERR_NOMEM where the leader's disk or memory has no room for
 * more entries.
 */
KEEL_API
KEEL_CHECK
int keel_propose(struct keel *k,
                 const void *data,
                 size_t len,
                 keel_done_fn done,
                 void *arg);

/**
 * Excludes a node by the administrator's will, as the detector would. At the leader only.
 * Completions: KEEL_ERR_NOT_FOUND, KEEL_ERR_EXISTS (it is excluded already), KEEL_ERR_CONFLICT,
 * KEEL_ERR_STATE (fewer than two voters would remain), KEEL_ERR_NO_QUORUM (without it no majority
 * of the present voters is alive: nothing could be decided any more), KEEL_ERR_NOT_LEADER.
 *
 * Input function.
 */
KEEL_API KEEL_CHECK int keel_node_exclude(struct keel *k, keel_id id, keel_done_fn done, void *arg);

/**
 * A new node, whose id was never used before, joins: as a learner, which receives the log and
 * votes only after keel_node_promote(). It is started with KEEL_NEW_NODE and not bootstrapped,
 * before or soon after: like every member it is excluded if it is not heard for hb_initdead_ms. At
 * the leader only. Completions: KEEL_ERR_EXISTS (the id was used), KEEL_ERR_TOO_BIG (64 nodes),
 * KEEL_ERR_CONFLICT, KEEL_ERR_NOT_LEADER.
 *
 * Input function.
 */
KEEL_API
KEEL_CHECK
int keel_node_add(struct keel *k,
                  const struct keel_peer *peer,
                  keel_done_fn done,
                  void *arg);

/**
 * Makes a learner a voter. At the leader only. Completions: KEEL_ERR_NOT_FOUND, KEEL_ERR_STATE (it
 * votes already, is out, or has lost its state), KEEL_ERR_CONFLICT (it has not caught up:
 * keel_errmsg() inside the completion says how far behind it is; or another change is under way),
 * KEEL_ERR_NOT_LEADER.
 *
 * Input function.
 */
KEEL_API KEEL_CHECK int keel_node_promote(struct keel *k, keel_id id, keel_done_fn done, void *arg);

/**
 * Takes a voter, a learner or an excluded node away for good: it is told and must not serve any
 * more, and its id is never used again. The leader may take itself away; the others then elect a
 * new one. `excluded` is not called: whatever a node stores must be elsewhere before it is removed.
 * Let it run until it has been told: its vote may be needed until then.
 * At the leader only. Completions: KEEL_ERR_NOT_FOUND, KEEL_ERR_STATE (it is the last voter, or
 * gone already), KEEL_ERR_NO_QUORUM (too few voters are alive to decide it, or to go on without
 * it), KEEL_ERR_CONFLICT, KEEL_ERR_NOT_LEADER.
 *
 * Input function.
 */
KEEL_API KEEL_CHECK int keel_node_remove(struct keel *k, keel_id id, keel_done_fn done, void *arg);

/**
 * Takes an excluded node back, with the data it has: as a learner, which votes again when it has
 * caught up, if it ever did or was meant to. At the leader only. Completions: KEEL_ERR_NOT_FOUND,
 * KEEL_ERR_STATE (it is not excluded, or has lost its state), KEEL_ERR_CONFLICT,
 * KEEL_ERR_NOT_LEADER.
 *
 * Input function.
 */
KEEL_API KEEL_CHECK int keel_node_readmit(struct keel *k, keel_id id, keel_done_fn done, void *arg);

/**
 * Puts a new node, whose id was never used before, in the place of an excluded one: as a
 * learner, which votes when it has caught up, as the old one did. At the leader only. Completions:
 * KEEL_ERR_NOT_FOUND, KEEL_ERR_STATE (the old one is not excluded), KEEL_ERR_EXISTS (the new id
 * was used), KEEL_ERR_CONFLICT, KEEL_ERR_NOT_LEADER.
 *
 * Input function.
 */
KEEL_API
KEEL_CHECK
int keel_node_replace(struct keel *k,
                      keel_id old_id,
                      const struct keel_peer *by,
                      keel_done_fn done,
                      void *arg);

/**
 * Changes the cluster-wide settings, all of them together: take them with keel_get_params(),
 * change fields, set them. At the leader only. Completions: KEEL_ERR_INVALID (a value breaks a
 * rule; keel_errmsg() inside the completion says which), KEEL_ERR_CONFLICT (`version` is neither
 * 0 nor the current one), KEEL_ERR_NOT_LEADER.
 *
 * Input function.
 */
KEEL_API
KEEL_CHECK
int keel_set_params(struct keel *k,
                    const struct keel_params *p,
                    keel_done_fn done,
                    void *arg);

/**
 * A point to read at, without a log entry: when it completes with KEEL_OK, this node has applied
 * everything that was committed anywhere in the cluster when it was called, and `index` is how
 * far that goes at least. What the host reads from its own state then is linearizable. On every
 * node that is a member; a leader asks a majority, others ask the leader. Barriers that arrive
 * together cost one round together.
 *
 * Nothing changes in any case: whatever the completion says, it can be called again.
 * KEEL_ERR_NO_QUORUM (no leader is known, or none that a majority confirms), KEEL_ERR_LOST (the
 * leader changed meanwhile), KEEL_ERR_FULL (4096 wait on this node), KEEL_ERR_EXCLUDED. On a follower
 * whose disk is full (keel_info.disk_full) it may not complete before there is room, for nothing is
 * applied that is not stored; another node answers at once.
 *
 * Input function. KEEL_ERR_FULL.
 */
KEEL_API
KEEL_CHECK
int keel_barrier(struct keel *k,
                 keel_done_fn done,
                 void *arg);

/**
 * Hands leadership over to a voter, or with 0 to the most up-to-date one in contact that may lead
 * (keel_set_eligible()). At the leader only. Until it is over, at most for election_ms, requests
 * that change anything complete with KEEL_ERR_CONFLICT; those accepted before are finished first.
 * From the moment when the target has caught up and is told, this leader confirms no other node's
 * right to serve (keel_lease_ms()) until another one leads or it leads on: a target that ignores the
 * order costs the others' leases up to election_ms, and fences nobody where the fencing time is longer
 * than that by a few keepalives.
 *
 * KEEL_OK: the target leads; `index` is how far this node knows the log to be committed.
 * KEEL_ERR_CONFLICT: it did not take over in time and this node leads on, or another transfer is
 * under way. KEEL_ERR_LOST: another node leads now, or none is known to. KEEL_ERR_NOT_FOUND (no
 * member), KEEL_ERR_STATE (a learner, or a node that may not lead), KEEL_ERR_EXISTS (this node
 * leads already), KEEL_ERR_NO_QUORUM (with 0: nobody is in contact), KEEL_ERR_NOT_LEADER,
 * KEEL_ERR_EXCLUDED.
 *
 * Input function. KEEL_ERR_FULL.
 */
KEEL_API
KEEL_CHECK
int keel_transfer(struct keel *k,
                  keel_id to,
                  keel_done_fn done,
                  void *arg);

/**
 * Whether this node may lead, and how much it is wished for: 0 = it may not, 1 = it may, as every
 * node until told otherwise in each run, up to 255 = rather than those with less. A node that may
 * not lead goes on voting and does not campaign; a leader hands over as soon as one that is wished
 * for more has caught up and can take it, and a node campaigns up to one election_ms later while
 * another is wished for more. This delays and never denies: a node that has heard no leader for ten
 * times election_ms campaigns all the same, so a cluster whose majority may not lead is slow to
 * elect, not dead.
 *
 * Input function. KEEL_ERR_INVALID: not from 0 to 255; KEEL_ERR_FULL.
 */
KEEL_API int keel_set_eligible(struct keel *k, int priority);

/**
 * Appends to the snapshot; `data` may be changed again when it returns. It goes to the disk in the
 * calling thread and does not wait for it. After a failure only keel_save_finish() is left.
 *
 * Any thread, also from callbacks. KEEL_ERR_INVALID, KEEL_ERR_IO, KEEL_ERR_NOMEM, KEEL_ERR_STATE (it
 * has failed already), KEEL_ERR_FORKED.
 */
KEEL_API
KEEL_CHECK
int keel_save_write(struct keel_save *s,
                    const void *data,
                    size_t len);

/**
 * Ends the snapshot and frees `s`. With `status` KEEL_OK all was written: it is verified and made
 * durable in the calling thread, which waits for the disk; do it in a thread of your own if it is
 * large. With any other `status` the snapshot is given up; the next one is tried when as much has
 * been applied again. To be called for every keel_save, and before keel_free().
 *
 * Any thread, also from callbacks. KEEL_ERR_INVALID: `s` is NULL; KEEL_ERR_FORKED: nothing
 * happened. What becomes of the snapshot is told by the events SNAPSHOT and SNAPSHOT_FAILED.
 */
KEEL_API int keel_save_finish(struct keel_save *s, int status);

/**
 * Reads on in the snapshot: what keel_save_write() got on the node that made it, in order, cut
 * anywhere. `*got` becomes the number of bytes read, at most `cap`; 0 at the end. Every byte is
 * checked against its checksum before it is handed out.
 *
 * Any thread, also from callbacks. KEEL_ERR_INVALID, KEEL_ERR_IO, KEEL_ERR_CORRUPT,
 * KEEL_ERR_FORKED; then only keel_load_finish() is left.
 */
KEEL_API KEEL_CHECK int keel_load_read(struct keel_load *l, void *buf, size_t cap, size_t *got);

/**
 * Ends the loading and frees `l`. With `status` KEEL_OK the host's state is that of the snapshot,
 * and nothing else; `apply` goes on behind it. With any other it could not be loaded: a leader's is
 * sent again, a little later, and until then the host keeps the state it had; the node's own, at a
 * start, stops the engine (KEEL_ERR_STATE). To be called for every keel_load, and before
 * keel_free().
 *
 * Any thread, also from callbacks. KEEL_ERR_INVALID: `l` is NULL; KEEL_ERR_FORKED: nothing
 * happened.
 */
KEEL_API int keel_load_finish(struct keel_load *l, int status);

/**
 * Makes a snapshot now, whatever has been applied since the last one, so that the log before the
 * one before it can be dropped; a keel_storage keeps the newest one only. With KEEL_COMPACT_APPLICATION on this node; with the other two
 * kinds on all of them, at the leader only. Completed when this node's own is durable, with the last
 * log index that it covers. Completions: KEEL_ERR_STATE (no `save`; a keel_storage without
 * snap_put; nothing to be saved yet), KEEL_ERR_CONFLICT (one is being made or loaded already),
 * KEEL_ERR_NOT_LEADER, KEEL_ERR_LOST, KEEL_ERR_IO.
 *
 * Input function.
 */
KEEL_API
KEEL_CHECK
int keel_snapshot(struct keel *k,
                  keel_done_fn done,
                  void *arg);

/**
 * Says how a batch ended that `write` has taken: `status` 0: it is durable; anything else: it
 * failed, with a code of the host's own, and the engine ends. Once for every batch, in their order.
 *
 * Input function, also from inside `write`. When it has returned 0 the next driving call has
 * something to do. KEEL_ERR_INVALID: another batch is to be reported first, or this one was
 * already; nothing happened. KEEL_ERR_STATE: this engine stores elsewhere.
 */
KEEL_API int keel_write_done(struct keel *k, uint64_t batch, int status);

/**
 * From `open`: the stored state, first of all.
 *
 * KEEL_ERR_INVALID (no bytes), KEEL_ERR_FOREIGN, KEEL_ERR_CORRUPT, KEEL_ERR_UNSUPPORTED; whatever
 * `open` returns then, keel_new() returns this, and KEEL_ERR_CORRUPT for KEEL_ERR_INVALID.
 */
KEEL_API KEEL_CHECK int keel_records_state(struct keel_records *r, const void *data, size_t len);

/**
 * From `open` and `read`: one entry, in the order of the indexes.
 *
 * KEEL_OK: the next one; KEEL_ENOUGH (positive, only in `read`): no more. KEEL_ERR_INVALID,
 * KEEL_ERR_CORRUPT, KEEL_ERR_UNSUPPORTED, KEEL_ERR_NOMEM: return it.
 */
KEEL_API
KEEL_CHECK
int keel_records_entry(struct keel_records *r,
                       uint64_t index,
                       const void *data,
                       size_t len);

/**
 * From `open`: a committed image and how many bytes it has, in any order.
 *
 * KEEL_ERR_INVALID, KEEL_ERR_CORRUPT: return it.
 */
KEEL_API KEEL_CHECK int keel_records_image(struct keel_records *r, uint64_t image, uint64_t size);

/** This node's KEEL_ROLE_*, or a negative code. Query function. */
KEEL_API int keel_role(const struct keel *k);

/**
 * The leader as far as this node knows, itself included; 0 = none known, or a failure. Query
 * function.
 */
KEEL_API keel_id keel_leader(const struct keel *k);

/**
 * Who leads, in which term, and where, as far as this node knows, all of the same moment. `*id`
 * becomes 0 and `address` "" if nobody is known; NULL may be given for what is not wanted. A text
 * longer than `cap` bytes, its final NUL included, is cut: KEEL_ADDRESS_MAX + 1 always does.
 *
 * Query function. KEEL_ERR_INVALID, KEEL_ERR_FORKED.
 */
KEEL_API
int keel_find_leader(const struct keel *k,
                     keel_id *id,
                     uint64_t *term,
                     char *address,
                     size_t cap);

/**
 * The number of the membership, one higher after every change of it; send it with the host's own
 * traffic and check it with keel_check_epoch(). 0 = no membership known yet, or a failure. Query
 * function.
 */
KEEL_API uint64_t keel_epoch(const struct keel *k);

/**
 * Whether the host's own traffic from a node may be served, by the epoch that came with it:
 * KEEL_OK: both know the same membership; KEEL_EPOCH_AHEAD (positive): this node is behind, wait
 * until its epoch has caught up; KEEL_ERR_EXCLUDED: the sender is excluded, replaced or
 * removed, refuse; KEEL_ERR_NOT_FOUND: no member, refuse; KEEL_ERR_STALE: the sender is behind, refuse until it
 * has caught up. Serve on KEEL_OK only. Query function.
 */
KEEL_API
int keel_check_epoch(const struct keel *k,
                     keel_id from,
                     uint64_t epoch);

/**
 * How many milliseconds this node may go on serving without hearing from a majority: > 0; 0 =
 * fenced, do not serve; INT_MAX = without limit (hb_deadtime_ms is 0, nobody is ever excluded
 * without the administrator). With keel_dispatch() it runs down also while nobody drives the
 * engine, so that any thread can ask it before it serves; with keel_step() it counts from the last
 * call. 0 for a dead engine. Negative: a failure, do not serve. Query function.
 */
KEEL_API int keel_lease_ms(const struct keel *k);

/**
 * The settings in force, as they were set: a 0 stays a 0. Set p->size first (KEEL_PARAMS_INIT).
 * Query function.
 */
KEEL_API KEEL_CHECK int keel_get_params(const struct keel *k, struct keel_params *p);

/**
 * Takes a snapshot and stores it at `out` (NULL there on failure); free it with
 * keel_status_free(). A dead engine still has one: fenced, with a lease of 0. KEEL_ERR_NOMEM. Query
 * function.
 */
KEEL_API KEEL_CHECK int keel_status_take(const struct keel *k, struct keel_status **out);

/**
 * Frees a snapshot and everything that came from it; NULL: nothing happens. Any thread, any
 * process that has a copy of it.
 */
KEEL_API void keel_status_free(struct keel_status *s);

/** The cluster, valid until the snapshot is freed; NULL for NULL. Any thread. */
KEEL_API const struct keel_info *keel_status_info(const struct keel_status *s);

/** The counters, valid until the snapshot is freed; NULL for NULL. Any thread. */
KEEL_API const struct keel_metrics *keel_status_metrics(const struct keel_status *s);

/** How many nodes there are: every one that was ever a member; 0 for NULL. Any thread. */
KEEL_API size_t keel_status_count(const struct keel_status *s);

/**
 * A node, in the order of the ids, valid until the snapshot is freed; NULL past the end and for
 * NULL. Any thread.
 */
KEEL_API const struct keel_node *keel_status_node(const struct keel_status *s, size_t i);

/**
 * The whole snapshot as one JSON object on one line, valid until the snapshot is freed; NULL for
 * NULL, and if there is no memory for it. The keys are those of keel_info, with "params", "metrics" and the list "nodes";
 * roles and states are lower-case words; a value that is absent (no leader, never heard, no
 * limit) is null; meta is in hexadecimal. Later versions add keys. Any thread.
 */
KEEL_API
const char *keel_status_json(const struct keel_status *s);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/* Initialisers: every struct that the host fills begins as its own macro, e.g.
 *     keel_config config = KEEL_CONFIG_INIT;
 * All fields but the sizes are 0 or NULL. */
#define KEEL_PEER_INIT { sizeof(keel_peer), 0, NULL, NULL, 0 }
#define KEEL_PARAMS_INIT { sizeof(keel_params), 0, 0, 0, 0, 0, 0, 0, { 0 } }
#define KEEL_STORAGE_INIT \
    { sizeof(keel_storage), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL }
#define KEEL_CONFIG_INIT \
    { sizeof(keel_config), 0, 0, NULL, NULL, KEEL_PARAMS_INIT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define KEEL_CALLBACKS_INIT \
    { sizeof(keel_callbacks), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
      NULL, NULL }

#endif  /* RAFTKEEL_H */
