/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The same load on clusters of different libraries: a process a member, TCP on loopback, state in
 * a directory on the disk. The leader's process keeps a number of entries outstanding, and measures
 * from their submission to their completion.
 *
 * load.c starts the members and tells them what to do through memory that all share; what a member
 * is, load_keel.c and load_raft.c know, one of which is linked with it.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEMBERS_MAX 3u
#define OUTSTANDING_MAX 256u
#define PAYLOAD_MAX 65536u

/* Latencies in nanoseconds, counted in steps of 1/32 or finer. */
#define BUCKETS 2048u

/* Written by the member's process only. */
struct facts {
    _Atomic uint64_t opened_ns;    /* when its state had been read back */
    _Atomic uint64_t began_ns;     /* when it began to */
    _Atomic uint64_t leads;        /* 1 while it leads */
    _Atomic uint64_t committed_ns; /* when its first entry as this leader was committed; 0 = not yet */
    _Atomic uint64_t applied;      /* index of the last entry that it has applied */
};

enum phase { PAUSE, WARM, MEASURE };

/* Shared by all processes. */
struct board {
    struct facts members[MEMBERS_MAX];
    _Atomic int phase;
    _Atomic unsigned payload, outstanding;
    _Atomic uint64_t completed; /* entries in phase MEASURE */
    _Atomic uint64_t filled;    /* entries in all phases */
    _Atomic uint64_t latencies[BUCKETS];
};

/* One member, as its process knows it. */
struct member {
    struct board *board;
    struct facts *facts;
    size_t self, members; /* its number from 0; of how many */
    const char *dir;      /* exists */
    bool is_new;          /* nothing is in it, and the cluster is to be made */
    bool batch;           /* the library's own interface for many entries in one call is to be used */
    unsigned election_ms, heartbeat_ms;
    bool hint; /* the library is told of lost connections, if it can be */
    uint16_t ports[MEMBERS_MAX];
    int bell; /* an eventfd: the board says something new */
};

/* Runs a member for ever. */
_Noreturn void member_run(const struct member *m);

/* Bytes of this process that are submitted. */
extern unsigned char payload_bytes[PAYLOAD_MAX];

/* Entries of one call that are outstanding. */
struct slot {
    struct driver *driver;
    uint64_t submitted_ns;
    unsigned entries;
};

/* What the leader submits. */
struct driver {
    struct board *board;
    bool leads;
    unsigned used;
    struct slot slots[OUTSTANDING_MAX];
    struct slot *unused[OUTSTANDING_MAX];
};

void driver_init(struct driver *d, const struct member *m);
/* A slot for the next call, NULL if there is nothing to be submitted now. It has one entry or, with
 * `batch`, as many as may be outstanding. */
struct slot *driver_take(struct driver *d, bool batch);
/* The call was completed, and its entries committed and applied unless it failed. */
void driver_done(struct slot *s, bool ok);

#endif
