/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "cluster.h"

#include <string.h>

#include "check.h"

/* More driving calls than this in one millisecond are a busy loop. */
#define AGAIN_MAX 1000
/* A flood beyond this is lost, as in any network. */
#define IN_FLIGHT_MAX 65536

struct message {
    uint64_t at_ms, number; /* the number keeps what arrives together in order */
    size_t from, to;
    size_t len;
    unsigned char *data;
};

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t cluster_random(struct cluster *c, uint64_t below)
{
    return next_random(&c->random) % below;
}

static int earlier(const struct message *a, const struct message *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->number < b->number;
}

static void swap(struct message *a, struct message *b)
{
    struct message kept = *a;
    *a = *b;
    *b = kept;
}

static void push(struct cluster *c, const struct message *m)
{
    size_t at = c->in_flight;

    if (c->in_flight == c->room) {
        c->room = c->room ? 2 * c->room : 64;
        c->heap = realloc(c->heap, c->room * sizeof *c->heap);
        CHECK(c->heap != NULL);
    }
    c->heap[c->in_flight++] = *m;
    for (; at > 0 && earlier(&c->heap[at], &c->heap[(at - 1) / 2]); at = (at - 1) / 2)
        swap(&c->heap[at], &c->heap[(at - 1) / 2]);
}

static struct message pop(struct cluster *c)
{
    struct message first = c->heap[0];
    size_t at = 0, child;

    c->heap[0] = c->heap[--c->in_flight];
    while ((child = 2 * at + 1) < c->in_flight) {
        if (child + 1 < c->in_flight && earlier(&c->heap[child + 1], &c->heap[child]))
            child++;
        if (!earlier(&c->heap[child], &c->heap[at]))
            break;
        swap(&c->heap[child], &c->heap[at]);
        at = child;
    }
    return first;
}

static void post(struct cluster *c, size_t from, size_t to, const void *data, size_t len)
{
    const struct link *link = &c->links[from][to];
    struct message m = {0};

    if (c->in_flight >= IN_FLIGHT_MAX)
        return;
    m.at_ms = c->now_ms + 1 + cluster_random(c, 3);
    if (cluster_random(c, 1000) < link->late)
        m.at_ms += cluster_random(c, 1000);
    m.number = c->sent++;
    m.from = from;
    m.to = to;
    m.len = len;
    m.data = malloc(len ? len : 1);
    CHECK(m.data != NULL);
    memcpy(m.data, data, len);
    push(c, &m);
}

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    struct node *n = ud;
    struct cluster *c = n->cluster;
    size_t from = (size_t)(n->id - 1);
    const struct link *link;

    CHECK(to >= 1 && to <= c->count && to != n->id);
    if (c->options.callbacks.send != NULL)
        c->options.callbacks.send(ud, to, msg, len);
    link = &c->links[from][to - 1];
    if (link->cut || cluster_random(c, 1000) < link->loss)
        return;
    post(c, from, (size_t)(to - 1), msg, len);
    if (cluster_random(c, 1000) < link->duplicate)
        post(c, from, (size_t)(to - 1), msg, len);
}

void cluster_options_init(struct cluster_options *options, size_t nodes, uint64_t seed)
{
    const keel_params params = KEEL_PARAMS_INIT;
    const keel_callbacks callbacks = KEEL_CALLBACKS_INIT;

    memset(options, 0, sizeof *options);
    options->nodes = nodes;
    options->seed = seed;
    options->params = params;
    options->callbacks = callbacks;
}

static void start(struct node *n)
{
    const struct cluster_options *options = &n->cluster->options;
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = options->callbacks;
    keel_peer peers[CLUSTER_MAX];
    const keel_peer blank = KEEL_PEER_INIT;
    char addresses[CLUSTER_MAX][8];
    int code;
    uint64_t seed = options->seed ^ (n->id << 32);

    config.id = n->id;
    config.cluster = 77;
    config.params = options->params;
    config.heartbeat_ms = options->heartbeat_ms;
    config.election_ms = options->election_ms;
    config.queue_max = options->queue_max;
    config.entry_max = options->entry_max;
    config.compaction = options->compaction;
    config.compact_entries = options->compact_entries;
    config.memory_max = options->memory_max;
    config.seed = next_random(&seed) | 1;
    if (options->storage != NULL)
        config.storage = options->storage(n, &config.flags);
    else
        config.flags = KEEL_VOLATILE;
    callbacks.send = on_send;
    CHECK_CODE(keel_new(&n->k, &config, &callbacks, n), KEEL_OK);
    if (n->id > options->nodes)
        return;
    for (size_t i = 0; i < options->nodes; i++) {
        peers[i] = blank;
        peers[i].id = i + 1;
        snprintf(addresses[i], sizeof addresses[i], "n%u", (unsigned)(i + 1));
        peers[i].address = addresses[i];
    }
    code = keel_bootstrap(n->k, peers, options->nodes);
    CHECK(code == KEEL_OK || (options->storage != NULL && code == KEEL_ERR_EXISTS));
}

struct cluster *cluster_new(const struct cluster_options *options)
{
    struct cluster *c = calloc(1, sizeof *c);

    CHECK(c != NULL);
    CHECK(options->nodes >= 1 && options->nodes + options->spares <= CLUSTER_MAX);
    c->options = *options;
    c->count = options->nodes + options->spares;
    c->random = options->seed;
    /* No program may depend on a clock that starts at 0. */
    c->now_ms = 1000 + cluster_random(c, 100000);
    for (size_t i = 0; i < c->count; i++) {
        c->nodes[i].cluster = c;
        c->nodes[i].id = i + 1;
        c->nodes[i].next_ms = c->now_ms;
        c->nodes[i].disk_ms = UINT64_MAX;
        start(&c->nodes[i]);
    }
    return c;
}

void cluster_free(struct cluster *c)
{
    for (size_t i = 0; i < c->count; i++)
        CHECK_CODE(keel_free(c->nodes[i].k), KEEL_OK);
    while (c->in_flight > 0)
        free(c->heap[--c->in_flight].data);
    free(c->heap);
    free(c);
}

void cluster_restart(struct node *n)
{
    CHECK_CODE(keel_free(n->k), KEEL_OK);
    start(n);
    cluster_wake(n);
}

void cluster_wake(struct node *n)
{
    n->next_ms = n->cluster->now_ms;
}

/* Hands over what has arrived by now. A link cut meanwhile has lost what was on it. */
static void deliver(struct cluster *c)
{
    while (c->in_flight > 0 && c->heap[0].at_ms <= c->now_ms) {
        struct message m = pop(c);
        struct node *n = &c->nodes[m.to];

        if (!n->paused && !c->links[m.from][m.to].cut) {
            int code = keel_recv(n->k, m.from + 1, m.data, m.len);

            /* A full queue and a dead engine drop messages; our network does not damage any. */
            CHECK(code == KEEL_OK || code == KEEL_ERR_FULL || code == KEEL_ERR_CLOSED);
            cluster_wake(n);
        }
        free(m.data);
    }
}

void cluster_step(struct node *n)
{
    uint64_t now_ms = n->cluster->now_ms;
    int code = keel_step(n->k, now_ms, &n->next_ms);

    if (code < 0 && n->cluster->options.deaths_allowed) {
        n->died = code;
        n->paused = 1;
        return;
    }
    CHECK_CODE(code, KEEL_OK);
    n->again = n->next_ms > now_ms ? 0 : n->again + 1;
    CHECK(n->again < AGAIN_MAX);
}

int cluster_advance(struct cluster *c, uint64_t until_ms)
{
    uint64_t at_ms = until_ms;

    for (size_t i = 0; i < c->count; i++)
        if (!c->nodes[i].paused && c->nodes[i].next_ms < at_ms)
            at_ms = c->nodes[i].next_ms;
    for (size_t i = 0; i < c->count; i++)
        if (c->nodes[i].disk_ms < at_ms)
            at_ms = c->nodes[i].disk_ms;
    if (c->in_flight > 0 && c->heap[0].at_ms < at_ms)
        at_ms = c->heap[0].at_ms;
    if (at_ms > c->now_ms)
        c->now_ms = at_ms;
    deliver(c);
    for (size_t i = 0; i < c->count; i++)
        if (c->nodes[i].disk_ms <= c->now_ms)
            c->options.disk(&c->nodes[i]);
    for (size_t i = 0; i < c->count; i++)
        if (!c->nodes[i].paused && c->nodes[i].next_ms <= c->now_ms)
            cluster_step(&c->nodes[i]);
    return c->now_ms < until_ms;
}

void cluster_run(struct cluster *c, uint64_t ms)
{
    uint64_t until_ms = c->now_ms + ms;

    while (cluster_advance(c, until_ms))
        ;
}

int cluster_run_until(struct cluster *c, uint64_t ms, int (*holds)(struct cluster *, void *),
                      void *arg)
{
    uint64_t until_ms = c->now_ms + ms;

    while (!holds(c, arg))
        if (!cluster_advance(c, until_ms))
            return holds(c, arg);
    return 1;
}

struct node *cluster_leader(struct cluster *c)
{
    struct node *leader = NULL;
    uint64_t term = 0;

    for (size_t i = 0; i < c->count; i++) {
        struct node *n = &c->nodes[i];
        keel_status *status;
        const keel_info *info;

        if (n->paused || keel_role(n->k) != KEEL_ROLE_LEADER)
            continue;
        CHECK_CODE(keel_status_take(n->k, &status), KEEL_OK);
        info = keel_status_info(status);
        if (info->has_quorum && info->term > term) {
            term = info->term;
            leader = n;
        }
        keel_status_free(status);
    }
    return leader;
}

static int has_leader(struct cluster *c, void *arg)
{
    (void)arg;
    return cluster_leader(c) != NULL;
}

struct node *cluster_elect(struct cluster *c)
{
    CHECK(cluster_run_until(c, 60000, has_leader, NULL));
    return cluster_leader(c);
}

void cluster_cut_one_way(struct cluster *c, size_t from, size_t to, int cut)
{
    c->links[from][to].cut = cut;
}

void cluster_cut(struct cluster *c, size_t a, size_t b, int cut)
{
    cluster_cut_one_way(c, a, b, cut);
    cluster_cut_one_way(c, b, a, cut);
}

void cluster_isolate(struct cluster *c, size_t a, int cut)
{
    for (size_t b = 0; b < c->count; b++)
        if (b != a)
            cluster_cut(c, a, b, cut);
}

void cluster_heal(struct cluster *c)
{
    memset(c->links, 0, sizeof c->links);
}
