/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A cluster in one process: a network in memory, a time of its own, and no disks but those that the
 * program brings.
 *
 * Everything that happens follows from the options and their seed. The network loses, doubles,
 * delays and so reorders; links are cut one way at a time; a paused node does not run and what
 * reaches it meanwhile is lost, like a machine that was suspended.
 */
#ifndef CLUSTER_H
#define CLUSTER_H

#include "raftkeel.h"

#define CLUSTER_MAX 8

struct cluster;

struct node {
    struct cluster *cluster;
    keel_id id;       /* its place in the cluster + 1 */
    keel *k;
    uint64_t next_ms; /* when it wants to be stepped */
    uint64_t disk_ms; /* when its disk has something to do, if there is one: the program's own */
    unsigned again;   /* how often it wanted that at once, in this millisecond */
    int paused;
    int died;         /* the code that a driving call gave, if deaths are allowed; paused then */
    void *user;       /* the program's own */
};

struct cluster_options {
    size_t nodes;
    size_t spares; /* further nodes that run and are no members yet; their ids follow */
    uint64_t seed;
    keel_params params;
    keel_callbacks callbacks; /* ud is a struct node *; send, if any, is called before ours */
    uint32_t heartbeat_ms, election_ms;
    uint32_t queue_max, entry_max;
    uint32_t compaction, compact_entries;
    uint64_t memory_max;
    int deaths_allowed; /* else the program ends when an engine does */
    /* Where a node keeps its state, asked at every start, with keel_config.flags; or NULL. */
    const keel_storage *(*storage)(struct node *n, uint32_t *flags);
    /* Called when the node's disk_ms has come. */
    void (*disk)(struct node *n);
};

struct link {
    int cut;
    uint32_t loss;      /* of 1000 messages */
    uint32_t duplicate; /* of 1000 messages */
    uint32_t late;      /* of 1000 messages, by up to a second */
};

struct message;

struct cluster {
    struct node nodes[CLUSTER_MAX];
    size_t count;
    uint64_t now_ms;
    uint64_t random;
    struct link links[CLUSTER_MAX][CLUSTER_MAX]; /* [from][to], by place */
    struct message *heap;
    size_t in_flight, room;
    uint64_t sent;
    struct cluster_options options;
};

void cluster_options_init(struct cluster_options *options, size_t nodes, uint64_t seed);
struct cluster *cluster_new(const struct cluster_options *options);
void cluster_free(struct cluster *c);

/* Lets time pass: until something happens, at most until `until_ms`; returns 0 once there. */
int cluster_advance(struct cluster *c, uint64_t until_ms);
void cluster_run(struct cluster *c, uint64_t ms);
/* Until `holds`, for at most `ms`; whether it holds. */
int cluster_run_until(struct cluster *c, uint64_t ms, int (*holds)(struct cluster *, void *),
                      void *arg);

/* The node's engine is freed and made again. It runs on at once, unless it is paused. */
void cluster_restart(struct node *n);
/* After an input to a node: it wants to be stepped now. */
void cluster_wake(struct node *n);
/* Steps it, before anything else happens. */
void cluster_step(struct node *n);

/* The node that leads in the highest term, if it does so with a majority; or NULL. */
struct node *cluster_leader(struct cluster *c);
/* Runs until there is one; the program ends if there is none within a minute. */
struct node *cluster_elect(struct cluster *c);

/* Both ways, or one way. */
void cluster_cut(struct cluster *c, size_t a, size_t b, int cut);
void cluster_cut_one_way(struct cluster *c, size_t from, size_t to, int cut);
/* A node from all others, both ways. */
void cluster_isolate(struct cluster *c, size_t a, int cut);
/* No cuts, no losses, no delays. */
void cluster_heal(struct cluster *c);

uint64_t cluster_random(struct cluster *c, uint64_t below);

#endif
