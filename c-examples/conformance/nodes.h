/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Up to three engines in one process, each on a store of the host's: what they were promised to be
 * kept, and whether it is. */
#ifndef CONFORMANCE_NODES_H
#define CONFORMANCE_NODES_H

#include <stdio.h>
#include <stdlib.h>

#include "host.h"

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            printf("    %s:%d: not so: %s [%s]\n", __FILE__, __LINE__, #condition, keel_errmsg()); \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

#define CHECK_CODE(call, wanted)                                                               \
    do {                                                                                       \
        int code_ = (call);                                                                    \
        if (code_ != (wanted)) {                                                               \
            printf("    %s:%d: %s gives %d (%s: %s), not %d\n", __FILE__, __LINE__, #call, code_,  \
                   keel_strerror(code_), keel_errmsg(), (wanted));                             \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

#ifndef DEADLINE_MS
#define DEADLINE_MS 60000 /* of everything that is waited for */
#endif
enum { NODES = 3, ITEMS_MAX = 65536, IMAGES_SEEN = 16 };

/* What the library has asked of a store in this run. */
struct calls {
    unsigned batches, bare, cuts, resets, reads, trims, puts;
    uint64_t last; /* index of the last entry given */
    uint64_t images[IMAGES_SEEN], from[IMAGES_SEEN]; /* read inside keel_new(), and first where */
    unsigned looked_at;
};

struct node {
    keel_id id; /* its place + 1 */
    keel *k;    /* NULL: it does not run */
    int fd;
    void *store;
    keel_storage host, storage; /* the host's; and that with `calls` counted */
    struct calls calls;
    int opening;
    int away;                      /* nobody reaches it, it reaches nobody */
    int may_die, why_stopped;
    uint32_t items[ITEMS_MAX];     /* the replicated state: what was applied, in order */
    size_t count, loads;
    uint64_t kept_index, kept_term; /* what others have been told is durable here */
};

extern struct node nodes[NODES];
extern size_t members;     /* the cluster has so many */
extern const char *directory;
extern uint32_t next_item; /* every item is proposed once, in rising order */

/* Makes the engine, and a member of a new cluster if `fresh`. It must not have less than was kept. */
void node_start(struct node *n, int fresh);
/* The same, and what comes of it is the caller's: then there may be no engine. */
int node_try(struct node *n, keel_id id, int fresh, uint32_t flags);
void node_stop(struct node *n);
/* Notes what others know to be durable there. */
void node_note(struct node *n);
/* That, and it is stopped and started. */
void node_restart(struct node *n);

/* Drives all nodes until it holds; the program ends if it does not in DEADLINE_MS. */
void run_until(int (*holds)(void *), void *arg);
/* Everything that is due now, of one node. */
void node_drive(struct node *n);

/* A new cluster of so many nodes, and its leader. */
struct node *cluster_start(size_t n);
void cluster_stop(void);
/* Waits until one leads that is not away. */
struct node *leader(void);

/* Items go through whoever leads, until so many more are acknowledged; `len_max`: bytes of one. */
void propose(size_t n, size_t len_max);
/* One, at this node; `*status` becomes what it ends as, 1 until then. */
void propose_at(struct node *n, size_t len, int *status);
/* Each acknowledged item is applied there once, in order; waits for it. */
void holds_all(struct node *n);
/* Told from elsewhere that it was acknowledged. */
void acknowledge(uint32_t item);

int keeps_snapshots(void);
/* Makes one on this node. */
void snapshot(struct node *n);

keel_info info_of(const struct node *n);
uint64_t clock_ms(void);
/* Random, below n. */
uint64_t below(uint64_t n);
extern uint64_t seed;

#endif
