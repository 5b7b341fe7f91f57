/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "sim.h"

#include <limits.h>
#include <stdarg.h>
#include <string.h>

#include "check.h"

/* From being able to hear to having heard, with losses and delays. */
#define HEARING_MS 4000u

struct sim sim;

void sim_fail(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "seed %llu, at %llu ms: ", (unsigned long long)sim.seed,
            (unsigned long long)sim.c->now_ms);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nagain with: sim %llu 1\n", (unsigned long long)sim.seed);
    exit(1);
}

/* Room for one more of `size` bytes. */
static void *grown(void *array, size_t *room, size_t needed, size_t size)
{
    size_t before = *room;

    if (needed <= before)
        return array;
    *room = needed > 2 * before ? needed + 16 : 2 * before;
    array = realloc(array, *room * size);
    CHECK(array != NULL);
    memset((char *)array + before * size, 0, (*room - before) * size);
    return array;
}

static struct watched *watched(const struct node *n)
{
    return &sim.nodes[n->id - 1];
}

/* State machine safety: one entry an index, on every node, in order, each once. */
static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    struct node *n = ud;
    struct entry *e;
    uint32_t number;

    if (len != sizeof number || index > 1000000)
        sim_fail("node %d applies %zu bytes at index %llu", (int)n->id, len,
                 (unsigned long long)index);
    memcpy(&number, data, sizeof number);
    if (index <= watched(n)->applied)
        sim_fail("node %d applies index %llu after %llu", (int)n->id, (unsigned long long)index,
                 (unsigned long long)watched(n)->applied);
    sim.log = grown(sim.log, &sim.log_room, (size_t)index + 1, sizeof *sim.log);
    /* What others applied between the last one and this one, this node has left out. */
    for (uint64_t i = watched(n)->applied + 1; i < index; i++)
        if (sim.log[i].number != 0)
            sim_fail("node %d leaves out index %llu", (int)n->id, (unsigned long long)i);
    watched(n)->applied = index;
    watched(n)->state = sim_state_after(watched(n)->state, index, term, number);
    if (index >= sim.log_len)
        sim.log_len = (size_t)index + 1;
    e = &sim.log[index];
    if (e->number == 0) {
        /* Log matching over all of history: nobody has passed this index without it. */
        for (size_t i = 0; i < sim.c->count; i++)
            if (sim.nodes[i].passed > index)
                sim_fail("node %d applies at index %llu what node %zu did not", (int)n->id,
                         (unsigned long long)index, i + 1);
        if (number >= sim.request_count || sim.requests[number].applied++)
            sim_fail("request %u is applied twice or was never made", (unsigned)number);
        e->number = number + 1;
        e->term = term;
        e->state = watched(n)->state;
    } else if (e->number != number + 1 || e->term != term || e->state != watched(n)->state) {
        sim_fail("node %d applies another entry at index %llu", (int)n->id,
                 (unsigned long long)index);
    }
    if (index > watched(n)->passed)
        watched(n)->passed = index;
    return 0;
}

/* Election safety: one leader a term, over all of history. */
static void on_role(void *ud, int role, uint64_t term, keel_id leader)
{
    struct node *n = ud;

    (void)leader;
    if (role != KEEL_ROLE_LEADER)
        return;
    for (size_t i = 0; i < sim.tenure_count; i++)
        if (sim.tenures[i].term == term && sim.tenures[i].leader != n->id)
            sim_fail("two leaders in term %llu: %d and %d", (unsigned long long)term,
                     (int)sim.tenures[i].leader, (int)n->id);
    sim.tenures = grown(sim.tenures, &sim.tenure_room, sim.tenure_count + 1, sizeof *sim.tenures);
    sim.tenures[sim.tenure_count].term = term;
    sim.tenures[sim.tenure_count++].leader = n->id;
    sim.elected_at_ms = sim.c->now_ms;
}

/*
 * A leader is about to decide: nobody who is heard may be hit. Asked only where there are disks:
 * there it may take any time until what was decided comes to be committed.
 */
static int on_guard(void *ud, const keel_id *ids, size_t n, char *why, size_t why_cap)
{
    (void)ud;
    snprintf(why, why_cap, "none");
    for (size_t i = 0; i < n; i++) {
        struct watched *w = &sim.nodes[ids[i] - 1];

        if (w->heard_since_ms != UINT64_MAX &&
            sim.c->now_ms - w->heard_since_ms > 2 * ELECTION_MS + HEARING_MS)
            sim_fail("node %d is to be excluded, and a majority hears it since %llu", (int)ids[i],
                     (unsigned long long)w->heard_since_ms);
        w->asked = 1;
    }
    return 0;
}

/*
 * The first word of an exclusion. Was it right? A decision may be late: it lies in the log until
 * it is committed, but a leader that cannot commit steps down after an election timeout, and a
 * new one commits at once what it found. So one that comes long after an election was taken
 * recently, and whoever is heard since before that must not be hit by it.
 */
static void judge(keel_id id)
{
    const struct watched *w = &sim.nodes[id - 1];
    const struct node *n = &sim.c->nodes[id - 1];
    uint64_t now_ms = sim.c->now_ms, window_ms = 2 * ELECTION_MS + HEARING_MS;

    if (w->by_admin)
        return;
    if (!sim.armed)
        sim_fail("node %d is excluded, and hb_deadtime_ms was 0", (int)id);
    if (now_ms - sim.elected_at_ms <= window_ms)
        window_ms = 2 * DEADTIME_MS + window_ms;
    if (sim.has_disks && !w->asked)
        sim_fail("node %d is excluded, and nobody asked the guard", (int)id);
    if (!sim.has_disks && w->heard_since_ms != UINT64_MAX && now_ms - w->heard_since_ms > window_ms)
        sim_fail("node %d is excluded, and a majority hears it since %llu", (int)id,
                 (unsigned long long)w->heard_since_ms);
    if (!n->paused && !w->fenced && keel_lease_ms(n->k) != 0)
        sim_fail("node %d is excluded and still serves", (int)id);
}

/* With a snapshot comes who is out, of what was decided before: of some decisions only a part. */
static void still_excluded(const struct node *n, uint64_t epoch, const keel_id *ids, size_t count,
                           uint64_t index)
{
    for (size_t i = 0; i < sim.exclusion_count; i++) {
        struct exclusion *e = &sim.exclusions[i];
        size_t known = 0;

        if (e->epoch != epoch || e->index != index)
            continue;
        for (size_t j = 0; j < count; j++)
            for (size_t l = 0; l < e->n; l++)
                known += e->ids[l] == ids[j];
        if (known != count)
            break;
        e->told |= 1u << n->id;
        return;
    }
    sim_fail("node %d loads an exclusion at epoch %llu that nobody was told of", (int)n->id,
             (unsigned long long)epoch);
}

/* One decision, the same on every node: epoch, index and ids. */
static void on_excluded(void *ud, uint64_t epoch, const keel_id *ids, size_t n, uint64_t index)
{
    const struct node *node = ud;
    struct exclusion *e = NULL;

    if (watched(node)->catching_up) {
        still_excluded(node, epoch, ids, n, index);
        return;
    }
    for (size_t i = 0; i < sim.exclusion_count; i++)
        if (sim.exclusions[i].index == index || sim.exclusions[i].epoch == epoch)
            e = &sim.exclusions[i];
    if (n == 0 || n > sim.c->count)
        sim_fail("node %d is told of %zu exclusions at once", (int)node->id, n);
    if (e == NULL) {
        sim.exclusions = grown(sim.exclusions, &sim.exclusion_room, sim.exclusion_count + 1,
                               sizeof *sim.exclusions);
        e = &sim.exclusions[sim.exclusion_count++];
        e->epoch = epoch;
        e->index = index;
        e->at_ms = sim.c->now_ms;
        e->n = n;
        e->told = 0;
        memcpy(e->ids, ids, n * sizeof *ids);
        for (size_t i = 0; i < n; i++)
            judge(ids[i]);
    }
    if (e->epoch != epoch || e->index != index || e->n != n ||
        memcmp(e->ids, ids, n * sizeof *ids) != 0)
        sim_fail("node %d is told another exclusion at epoch %llu, index %llu", (int)node->id,
                 (unsigned long long)epoch, (unsigned long long)index);
    if (e->told & 1u << node->id)
        sim_fail("node %d is told twice of epoch %llu", (int)node->id, (unsigned long long)epoch);
    e->told |= 1u << node->id;
}

/* A node that was cut off and comes back must be told that it is out before it may serve. The
 * decision itself takes a moment to get around, in which its return is too late. */
static void on_fence(void *ud, int fenced, const char *why)
{
    const struct node *n = ud, *leader = cluster_leader(sim.c);
    const struct exclusion *e = sim_exclusion_of(n->id);

    if (why[0] == '\0')
        sim_fail("node %d is fenced or not, and not told why", (int)n->id);
    watched(n)->fenced = fenced;
    if (!fenced && e != NULL && sim.c->now_ms - e->at_ms > 1000 && leader != NULL &&
        keel_check_epoch(leader->k, n->id, 0) == KEEL_ERR_EXCLUDED)
        sim_fail("node %d may serve again, and is excluded since %llu", (int)n->id,
                 (unsigned long long)e->at_ms);
}

static void on_stopped(void *ud, int why)
{
    struct node *n = ud;

    /* What a disk says that was told to fail. */
    if (!sim.has_disks || why != KEEL_ERR_IO || strstr(keel_errmsg(), "the host says -10") == NULL)
        sim_fail("node %d stops: %s: %s", (int)n->id, keel_strerror(why), keel_errmsg());
    n->paused = 1;
    sim_links_changed();
}

void sim_callbacks(keel_callbacks *callbacks)
{
    callbacks->apply = on_apply;
    callbacks->role = on_role;
    callbacks->excluded = on_excluded;
    callbacks->fence = on_fence;
    callbacks->stopped = on_stopped;
    if (sim.has_disks) {
        callbacks->guard = on_guard;
        sim_state_callbacks(callbacks);
    }
}

void sim_start(uint64_t seed, size_t nodes, size_t spares)
{
    struct cluster_options options;

    free(sim.log);
    free(sim.requests);
    free(sim.exclusions);
    free(sim.tenures);
    memset(&sim, 0, sizeof sim);
    sim.seed = seed;
    cluster_options_init(&options, nodes, seed);
    options.spares = spares;
    options.heartbeat_ms = HEARTBEAT_MS;
    options.election_ms = ELECTION_MS;
    options.params.hb_keepalive_ms = KEEPALIVE_MS;
    sim.has_disks = seed / 16 % 2 == 1;
    if (sim.has_disks)
        sim_disks(&options);
    sim_callbacks(&options.callbacks);
    sim.c = cluster_new(&options);
    sim_links_changed();
}

void sim_forget(struct node *n)
{
    watched(n)->applied = 0;
    watched(n)->fenced = 0;
    for (size_t i = 0; i < sim.exclusion_count; i++)
        sim.exclusions[i].told &= ~(1u << n->id);
}

/* A completion is kept by its number: the table moves when it grows. */
static void on_done(void *arg, int status, uint64_t index)
{
    size_t number = (size_t)(uintptr_t)arg;
    struct request *r = &sim.requests[number];

    if (!r->accepted || ++r->completions > 1)
        sim_fail("request %zu: not accepted, or completed twice", number);
    if ((status == KEEL_OK) != (index > 0))
        sim_fail("request %zu: status %d with index %llu", number, status,
                 (unsigned long long)index);
    /* Linearizability: who may read here has applied all that anybody had applied before. */
    if (r->kind == BARRIER && status == KEEL_OK &&
        (index < r->committed || sim.nodes[r->at - 1].applied < r->committed))
        sim_fail("node %d reads at %llu, and index %llu was applied somewhere before", (int)r->at,
                 (unsigned long long)index, (unsigned long long)r->committed);
    r->status = status;
    r->index = index;
}

static uint32_t new_request(struct node *n, enum kind kind)
{
    uint32_t number = (uint32_t)sim.request_count;
    struct request *r;

    sim.requests = grown(sim.requests, &sim.request_room, sim.request_count + 1,
                         sizeof *sim.requests);
    r = &sim.requests[number];
    memset(r, 0, sizeof *r);
    r->kind = kind;
    r->at = n->id;
    r->committed = sim.log_len > 0 ? sim.log_len - 1 : 0;
    sim.request_count++;
    return number;
}

static void requested(struct node *n, uint32_t number, int code)
{
    if (code != KEEL_OK && code != KEEL_ERR_FULL && !(n->died && code == KEEL_ERR_CLOSED))
        sim_fail("a request gives %s: %s", keel_strerror(code), keel_errmsg());
    sim.requests[number].accepted = code == KEEL_OK;
    cluster_wake(n);
}

void sim_propose(struct node *n)
{
    uint32_t number = new_request(n, PROPOSAL);

    requested(n, number,
              keel_propose(n->k, &number, sizeof number, on_done, (void *)(uintptr_t)number));
}

void sim_barrier(struct node *n)
{
    uint32_t number = new_request(n, BARRIER);

    requested(n, number, keel_barrier(n->k, on_done, (void *)(uintptr_t)number));
}

void sim_transfer(struct node *n, keel_id to)
{
    uint32_t number = new_request(n, TRANSFER);

    requested(n, number, keel_transfer(n->k, to, on_done, (void *)(uintptr_t)number));
}

void sim_links_changed(void)
{
    struct cluster *c = sim.c;
    /* Where members come and go, only what everybody hears is surely heard by a majority; and one
     * that joins has nothing to say before it hears the leader. */
    int changing = c->options.spares > 0;
    size_t needed = changing ? c->count : c->count / 2 + 1;

    for (size_t x = 0; x < c->count; x++) {
        struct watched *w = &sim.nodes[x];
        size_t hear = 1;

        for (size_t y = 0; y < c->count; y++)
            hear += y != x && !c->nodes[y].paused && !c->links[x][y].cut &&
                    !(changing && c->links[y][x].cut);
        if (c->nodes[x].paused || hear < needed)
            w->heard_since_ms = UINT64_MAX;
        else if (w->heard_since_ms == UINT64_MAX)
            w->heard_since_ms = c->now_ms;
    }
}

const struct exclusion *sim_exclusion_of(keel_id id)
{
    for (size_t i = sim.exclusion_count; i-- > 0;)
        for (size_t j = 0; j < sim.exclusions[i].n; j++)
            if (sim.exclusions[i].ids[j] == id)
                return &sim.exclusions[i];
    return NULL;
}

/* Every accepted request has one completion, and what it said is true. */
void sim_finish(void)
{
    struct cluster *c = sim.c;

    sim_disks_drop();
    cluster_free(c);
    sim_disks_free();
    for (size_t i = 0; i < sim.request_count; i++) {
        const struct request *r = &sim.requests[i];
        const char *wrong = NULL;

        if (r->completions != (r->accepted ? 1u : 0u))
            wrong = "has no completion";
        else if (!r->accepted && r->applied)
            wrong = "was not accepted, and is applied";
        else if (r->kind == PROPOSAL && r->accepted && r->status == KEEL_OK &&
                 (r->index >= sim.log_len || sim.log[r->index].number != i + 1))
            wrong = "was done, and is not where it should be in the log";
        else if (r->accepted && r->status != KEEL_OK && r->status != KEEL_ERR_LOST &&
                 r->status != KEEL_ERR_CLOSED && r->applied)
            wrong = "was surely not done, and is applied";
        if (wrong != NULL) {
            fprintf(stderr, "seed %llu: request %zu %s (status %d)\nagain with: sim %llu 1\n",
                    (unsigned long long)sim.seed, i, wrong, r->status,
                    (unsigned long long)sim.seed);
            exit(1);
        }
    }
}
