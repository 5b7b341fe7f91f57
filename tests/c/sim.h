/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The simulator's memory of a run, and what must hold in every one of them.
 *
 * It sees what a host sees, the callbacks and queries of the public interface, and knows what no
 * host can know: who could really hear whom.
 */
#ifndef SIM_H
#define SIM_H

#include "cluster.h"
#include "store.h"

#define KEEPALIVE_MS 1000u
#define DEADTIME_MS 10000u
#define SETTLE_MS 2000u /* what 0 means with these */
#define HEARTBEAT_MS 200u
#define ELECTION_MS 2000u

struct entry {
    uint64_t term;
    uint64_t state;  /* of whoever has applied it */
    uint32_t number; /* of the request that proposed it, + 1; 0 = none seen at this index */
};

enum kind { PROPOSAL, BARRIER, TRANSFER };

struct request {
    enum kind kind;
    keel_id at;         /* the node */
    uint64_t committed; /* a barrier: the last index that anybody had applied when it was made */
    unsigned completions;
    int accepted, applied, status;
    uint64_t index;
};

struct exclusion {
    uint64_t epoch, index, at_ms; /* when the first node was told */
    size_t n;
    keel_id ids[CLUSTER_MAX];
    unsigned told; /* bit per node */
};

struct tenure {
    uint64_t term;
    keel_id leader;
};

struct watched {
    uint64_t applied;        /* the last index that it applied in this run of its engine */
    uint64_t passed;         /* and in any */
    uint64_t state;          /* the host's */
    uint64_t saved_applied, saved_state; /* of the snapshot that is being saved */
    uint64_t loading;        /* the index that the snapshot to be loaded covers */
    keel_save *save;
    keel_load *load;
    int catching_up;         /* it is being told what a snapshot held */
    uint64_t heard_since_ms; /* a majority hears it without a break since; UINT64_MAX = not now */
    int fenced;
    int asked;               /* a leader has asked whether it may be excluded */
    int by_admin;            /* its exclusion was ordered, it need not be silent */
    int dead;                /* killed: never to run again */
};

struct disk {
    struct store *store;
    uint64_t due_ms; /* when the last batch under way will be there */
    unsigned slow;   /* how late batches are, 0 to 3 */
    int stalls;      /* with the next batch, for so long that a leader steps down */
};

struct sim {
    struct cluster *c;
    uint64_t seed;
    int has_disks;
    int lazy;                /* hosts save and load when they get around to it */
    struct disk disks[CLUSTER_MAX];
    int armed;               /* hb_deadtime_ms is set */
    uint64_t elected_at_ms;  /* the last time that anybody became leader */
    struct watched nodes[CLUSTER_MAX];
    struct entry *log;
    size_t log_room, log_len;
    struct request *requests;
    size_t request_room, request_count;
    struct exclusion *exclusions;
    size_t exclusion_room, exclusion_count;
    struct tenure *tenures;
    size_t tenure_room, tenure_count;
};

/* The run that is going on; there is one at a time. */
extern struct sim sim;

/* What has happened to disks in all runs. */
struct totals {
    unsigned long batches, lost, failures, reads, trims, saves, loads;
};
extern struct totals totals;

/* Says what is wrong, in which seed and when, and ends the program. */
void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

void sim_callbacks(keel_callbacks *callbacks);
/* A new run; what the last one left is freed. Spares may join, others leave. */
void sim_start(uint64_t seed, size_t nodes, size_t spares);
/* Frees the engines, then looks at what can only be known at the end. */
void sim_finish(void);

/* After every change of links or pauses: who is heard by a majority from now on? */
void sim_links_changed(void);
/* Proposes something new at a node. */
void sim_propose(struct node *n);
/* Wants to read at a node. */
void sim_barrier(struct node *n);
/* Wants a node to hand leadership over; 0 = to whom it likes. */
void sim_transfer(struct node *n, keel_id to);
/* A node's engine is about to be made anew, and will tell everything again. */
void sim_forget(struct node *n);

/* Runs with disks: the nodes' state is kept by the program, and survives crashes. */
void sim_disks(struct cluster_options *options);
/* Before the engines are freed, and after. */
void sim_disks_drop(void);
void sim_disks_free(void);
/* The machine stops, and starts at once: of what was under way, some is on the disk. */
void sim_crash(struct node *n);
/* A node's disk is slower or faster from now on, or stalls once. */
void sim_disk_weather(struct node *n);
/* A node's next write fails. It stays down until it crashes. */
void sim_disk_failure(struct node *n);
/* All disks are well, and nothing is under way. */
void sim_disks_heal(void);

/* The host's state in such runs, saved and loaded as it gets around to it. */
uint64_t sim_state_after(uint64_t state, uint64_t index, uint64_t term, uint32_t number);
void sim_state_callbacks(keel_callbacks *callbacks);
/* What it has to save and to load, now. */
void sim_state_finish(struct node *n);
/* It is lost, for the machine stops. */
void sim_state_drop(struct node *n);

/* The last exclusion of a node, or NULL. */
const struct exclusion *sim_exclusion_of(keel_id id);

#endif
