/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* raftkeel in sxd: the engine, its callbacks, and what they mean for requests. */
#ifndef SXD_CLUSTER_H
#define SXD_CLUSTER_H

#include "place.h"
#include "sxd.h"

/* When a node was excluded, if this process was there: seen as a member while it knew all decisions. */
struct sighting {
    uint64_t id, out_ms; /* 0: a member, or already out when it was first seen */
    bool member;
};

/* The members as of one epoch; changes as a whole, at the end of a keel_dispatch(). */
struct cluster {
    uint64_t epoch;
    uint64_t members[MEMBERS_MAX]; /* that hold objects: excluded ones and learners do not */
    size_t n;
    size_t n_out;       /* nodes that are out and not replaced: nobody asks them for objects */
    bool out;           /* this node has been excluded, */
    uint64_t out_epoch, out_index; /* by the decision that began this epoch; 0 = not told which */
    uint64_t replaced_by; /* 0 = nobody has its place, or it has not been told */
    bool joins;         /* made with --join, and no member yet */
    bool fenced;
    char why[256]; /* it is fenced */
    char warning[256]; /* for the administrator, or "" */
    struct sighting seen[2 * MEMBERS_MAX];
    size_t n_seen;
    bool changed;  /* cluster_refresh() is due */
    int stopped;   /* the engine's last word, or 0 */
};

struct cluster_options {
    uint64_t cluster;
    const char *dir;
    bool init, join; /* the options */
    uint32_t keepalive_ms;
    const keel_peer *peers; /* the first members, if this node is one; else hints where nodes are */
    size_t n_peers;
};

/* False, with a line in the log, if the engine does not start. */
bool cluster_open(struct sxd *sx, const struct cluster_options *o);
void cluster_close(struct sxd *sx);

/* Drives the engine and takes over what has changed. False: the engine has stopped for good. */
bool cluster_run(struct sxd *sx);

/* May this node serve objects now? If not, *status and WHY say what to answer. */
bool cluster_may_serve(struct sxd *sx, unsigned *status, char *why, size_t cap);
/* Must it stop serving because it is out of touch with the majority? WHY says so then. */
bool cluster_fenced(const struct sxd *sx, char *why, size_t cap);
/* Excluded, and its place is empty. */
bool cluster_is_out(const keel_node *n);
/* How many seconds ago node ID was excluded; -1 = not known. */
int64_t cluster_out_seconds(const struct sxd *sx, uint64_t id);
/* "This node has been excluded from the cluster at epoch 5, index 93, and replaced by node 4" */
void cluster_out(const struct sxd *sx, char *why, size_t cap);
/* Is the node that sent this internal request, with the epoch it acts in, to be obeyed? If not, the
 * request has been answered. */
bool cluster_accepts(struct sxd *sx, struct http_req *r);

/* The R in "every object has R replicas", as far as there are members. */
size_t cluster_replicas(const struct sxd *sx);
/* "node 3 (127.0.0.1:7003), last contact 4 seconds ago" */
void cluster_describe(struct sxd *sx, uint64_t id, char *out, size_t cap);

#endif
