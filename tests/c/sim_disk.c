/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The disks of a run: how late they are, what a crash leaves of what was under way, and failures. */
#include "sim.h"

#include "check.h"

/* A node is silent until the first batch of its run is durable, and one that joins until it has
 * stored who the members are: not for so long that it is excluded for it. */
#define SILENT_MS 500u

struct totals totals;

static uint64_t below(uint64_t n)
{
    return cluster_random(sim.c, n);
}

static struct disk *disk(const struct node *n)
{
    return &sim.disks[n->id - 1];
}

/* When the batch that is being taken will be on the disk. */
static uint64_t on_taken(void *arg)
{
    static const uint32_t late_ms[] = {3, 30, 300, 3000};
    struct node *n = arg;
    struct cluster *c = n->cluster; /* sim.c is not there yet when its nodes are made */
    struct disk *d = disk(n);
    uint64_t most = late_ms[d->slow], at_ms;

    if (d->stalls)
        most += 6 * ELECTION_MS;
    if ((d->store->batches == 1 || d->store->log.n == 0) && most > SILENT_MS)
        most = SILENT_MS;
    at_ms = c->now_ms + cluster_random(c, most);
    d->stalls = 0;
    if (at_ms < d->due_ms)
        at_ms = d->due_ms; /* in their order */
    d->due_ms = at_ms;
    if (n->disk_ms == UINT64_MAX)
        n->disk_ms = at_ms;
    return at_ms;
}

static void on_due(struct node *n)
{
    n->disk_ms = store_run(disk(n)->store, n->cluster->now_ms);
    cluster_wake(n);
}

static const keel_storage *on_start(struct node *n, uint32_t *flags)
{
    struct disk *d = disk(n);

    if (d->store == NULL) {
        d->store = store_new(&n->k);
        d->store->due_ms = on_taken;
        d->store->arg = n;
    }
    *flags = store_is_empty(d->store) ? KEEL_NEW_NODE : 0;
    return store_storage(d->store);
}

void sim_disks(struct cluster_options *options)
{
    static const uint32_t ways[] = {KEEL_COMPACT_APPLICATION, KEEL_COMPACT_LEADER,
                                    KEEL_COMPACT_IN_LOG};

    options->storage = on_start;
    options->disk = on_due;
    options->compaction = ways[sim.seed / 32 % 3];
    options->compact_entries = 8; /* of some dozens in a run */
    options->memory_max = 200;
    options->deaths_allowed = 1; /* those that were ordered: on_stopped() knows */
}

void sim_disks_drop(void)
{
    for (size_t i = 0; i < sim.c->count; i++)
        sim_state_drop(&sim.c->nodes[i]);
}

void sim_disks_free(void)
{
    for (size_t i = 0; i < CLUSTER_MAX; i++) {
        struct store *s = sim.disks[i].store;

        if (s == NULL)
            continue;
        totals.batches += s->taken;
        totals.reads += s->reads;
        totals.trims += s->trims;
        store_free(s);
    }
}

void sim_crash(struct node *n)
{
    struct disk *d = disk(n);
    size_t landed = (size_t)below(store_under_way(d->store) + 1);

    if (sim.nodes[n->id - 1].dead)
        return;
    totals.lost += store_under_way(d->store) - landed;
    totals.failures += n->died != 0;
    sim_state_drop(n);
    CHECK_CODE(keel_free(n->k), KEEL_OK);
    n->k = NULL;
    store_crash(d->store, landed);
    d->store->fail_write = d->store->fail_done = d->store->fail_read = 0;
    d->stalls = 0;
    d->due_ms = 0;
    n->disk_ms = UINT64_MAX;
    n->died = 0;
    sim_forget(n);
    cluster_restart(n);
}

void sim_disk_weather(struct node *n)
{
    struct disk *d = disk(n);

    d->slow = (unsigned)below(4);
    d->stalls = below(3) == 0;
    d->store->fail_read = below(3) == 0 ? STORE_EIO : 0;
    sim_state_finish(n);
}

void sim_disk_failure(struct node *n)
{
    struct disk *d = disk(n);

    if (below(2) == 0)
        d->store->fail_write = STORE_ENOSPC;
    else
        d->store->fail_done = STORE_EIO;
}

void sim_disks_heal(void)
{
    sim.lazy = 0;
    for (size_t i = 0; i < sim.c->count; i++) {
        struct node *n = &sim.c->nodes[i];
        struct disk *d = &sim.disks[i];

        if (n->died || d->store->broken) /* or it is about to hear of it */
            sim_crash(n);
        d->slow = 0;
        d->stalls = 0;
        d->store->fail_write = d->store->fail_done = d->store->fail_read = 0;
        while (store_land(d->store))
            cluster_wake(n);
        d->due_ms = 0;
        n->disk_ms = UINT64_MAX;
        sim_state_finish(n);
    }
}
