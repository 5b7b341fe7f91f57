/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* raftkeel in one page: three engines in one process, a queue for a network, and a clock that this
 * program moves. They elect a leader and agree on an entry; one dies and the others exclude it.
 * Exit status 0 only if all of that happened. */
#include <inttypes.h>
#include <raftkeel.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODES = 3, QUEUE = 4096, DEADTIME_MS = 6000 };

static struct node {
    keel *k;
    keel_id id, out; /* out: who was excluded, at which epoch and log index */
    uint64_t out_epoch, out_index;
    bool dead, applied;
} nodes[NODES];

static struct message {
    keel_id from, to;
    void *data;
    size_t len;
} queue[QUEUE];
static size_t queued;
static uint64_t now; /* milliseconds */

static void story(const char *text, keel_id id)
{
    printf("%5" PRIu64 ".%03" PRIu64 " s  node %" PRIu64 " %s\n", now / 1000, now % 1000, id, text);
}

/* Messages may be lost, doubled or late; this network only loses, when it is full. */
static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    void *data = queued < QUEUE ? malloc(len) : NULL;
    if (data)
        queue[queued++] = (struct message){((struct node *)ud)->id, to, memcpy(data, msg, len), len};
}

static void on_role(void *ud, int role, uint64_t term, keel_id leader)
{
    (void)term, (void)leader;
    if (role == KEEL_ROLE_LEADER)
        story("is the leader", ((struct node *)ud)->id);
}

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    (void)index, (void)term;
    ((struct node *)ud)->applied = len == 5 && memcmp(data, "hello", 5) == 0;
    story("applies the entry", ((struct node *)ud)->id);
    return 0;
}

static void on_excluded(void *ud, uint64_t epoch, const keel_id *ids, size_t n, uint64_t index)
{
    struct node *self = ud;
    self->out = n == 1 ? ids[0] : 0, self->out_epoch = epoch, self->out_index = index;
    story("takes the dead one out of its cluster", self->id);
}

static void on_done(void *arg, int status, uint64_t index)
{
    (void)index;
    *(int *)arg = status;
}

static bool make(struct node *n, keel_id id)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel_peer peers[NODES];

    n->id = config.id = id;
    config.cluster = 1;
    config.seed = id;
    config.flags = KEEL_VOLATILE | KEEL_NEW_NODE;
    config.params.hb_deadtime_ms = DEADTIME_MS;
    callbacks.send = on_send;
    callbacks.apply = on_apply;
    callbacks.role = on_role;
    callbacks.excluded = on_excluded;
    for (size_t i = 0; i < NODES; i++)
        peers[i] = (keel_peer){.size = sizeof peers[i], .id = i + 1, .address = ""};
    return keel_new(&n->k, &config, &callbacks, n) == KEEL_OK && keel_bootstrap(n->k, peers, NODES) == KEEL_OK;
}

/* 10 ms: what was sent arrives, and every living engine takes a step. */
static void turn(void)
{
    uint64_t next;

    now += 10;
    for (size_t i = 0; i < queued; i++) {
        struct node *to = &nodes[queue[i].to - 1];
        if (!to->dead && keel_recv(to->k, queue[i].from, queue[i].data, queue[i].len) != KEEL_OK)
            story("refuses a message", to->id);
        free(queue[i].data);
    }
    queued = 0; /* keel_recv() sends nothing: everything happens in keel_step() */
    for (size_t i = 0; i < NODES; i++)
        if (!nodes[i].dead && keel_step(nodes[i].k, now, &next) != KEEL_OK)
            story(keel_errmsg(), nodes[i].id);
}

static struct node *leader(void)
{
    for (size_t i = 0; i < NODES; i++)
        if (!nodes[i].dead && keel_role(nodes[i].k) == KEEL_ROLE_LEADER)
            return &nodes[i];
    return NULL;
}

static bool agreed(const struct node *a, const struct node *b, keel_id out)
{
    return a->out == out && b->out == out && a->out_epoch == b->out_epoch && a->out_index == b->out_index;
}

int main(void)
{
    int status = 1;

    for (size_t i = 0; i < NODES; i++)
        if (!make(&nodes[i], i + 1))
            return fprintf(stderr, "no engine: %s\n", keel_errmsg()), 1;
    while (!leader() && now < 60000)
        turn();
    if (!leader() || keel_propose(leader()->k, "hello", 5, on_done, &status) != KEEL_OK)
        return fprintf(stderr, "no leader: %s\n", keel_errmsg()), 1;
    while (!(nodes[0].applied && nodes[1].applied && nodes[2].applied && status == KEEL_OK) && now < 60000)
        turn();

    struct node *first = leader() ? leader() : &nodes[0];
    struct node *victim = &nodes[first->id % NODES], *other = &nodes[victim->id % NODES];
    victim->dead = true;
    story("dies", victim->id);
    while (!agreed(first, other, victim->id) && now < 120000)
        turn();

    bool ok = status == KEEL_OK && victim->applied && first->applied && other->applied &&
              agreed(first, other, victim->id);
    printf("%s\n", ok ? "elected, agreed, excluded: as it should be" : "FAILED");
    for (size_t i = 0; i < NODES; i++)
        keel_free(nodes[i].k);
    return ok ? 0 : 1;
}
