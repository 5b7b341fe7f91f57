/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The host's state in runs with disks: a number that depends on everything that was applied, and on
 * nothing else; and how it is saved and loaded, at once or in the host's own time. */
#include "sim.h"

#include <string.h>

#include "check.h"

/* What a snapshot of the state is: the fields, and bytes that follow from them. */
struct image {
    uint64_t applied, state;
    unsigned char rest[3000];
};

static void fill(struct image *image)
{
    for (size_t i = 0; i < sizeof image->rest; i++)
        image->rest[i] = (unsigned char)((image->state >> (i % 57)) + i);
}

static struct watched *watched(const struct node *n)
{
    return &sim.nodes[n->id - 1];
}

uint64_t sim_state_after(uint64_t state, uint64_t index, uint64_t term, uint32_t number)
{
    const uint64_t words[] = {index, term, number};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        state = (state ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15) + (state >> 29);
    return state;
}

/* All of it, or it is given up: a host may find that it cannot. */
static void finish_save(struct node *n)
{
    struct watched *w = watched(n);
    keel_save *s = w->save;
    struct image image = {.applied = w->saved_applied, .state = w->saved_state};
    const unsigned char *bytes = (const unsigned char *)&image;
    int status = KEEL_OK;

    if (s == NULL)
        return;
    w->save = NULL;
    fill(&image);
    for (size_t at = 0, len; at < sizeof image && status == KEEL_OK; at += len) {
        len = 1 + (size_t)cluster_random(sim.c, 2000);
        len = len < sizeof image - at ? len : sizeof image - at;
        status = keel_save_write(s, bytes + at, len);
    }
    if (cluster_random(sim.c, 20) == 0)
        status = -1;
    CHECK_CODE(keel_save_finish(s, status), KEEL_OK);
}

static void finish_load(struct node *n)
{
    struct watched *w = watched(n);
    keel_load *l = w->load;
    struct image image = {0}, wanted;
    unsigned char *bytes = (unsigned char *)&image;
    size_t at = 0, got;

    if (l == NULL)
        return;
    w->load = NULL;
    do {
        CHECK(at < sizeof image);
        CHECK_CODE(keel_load_read(l, bytes + at, sizeof image - at, &got), KEEL_OK);
        at += got;
    } while (got > 0 && at < sizeof image);
    CHECK_CODE(keel_load_read(l, &got, 1, &got), KEEL_OK);
    wanted = image;
    fill(&wanted);
    if (at != sizeof image || got != 0 || memcmp(&image, &wanted, sizeof image) != 0)
        sim_fail("node %d loads another image than was saved", (int)n->id);
    if (image.applied > w->loading || image.applied >= sim.log_len ||
        (image.applied > 0 && sim.log[image.applied].state != image.state))
        sim_fail("node %d loads a state that nobody had at index %llu", (int)n->id,
                 (unsigned long long)image.applied);
    for (uint64_t i = image.applied + 1; i <= w->loading && i < sim.log_len; i++)
        if (sim.log[i].number != 0)
            sim_fail("node %d loads a snapshot that leaves out index %llu", (int)n->id,
                     (unsigned long long)i);
    w->applied = image.applied;
    w->state = image.state;
    w->catching_up = 1;
    totals.loads++;
    CHECK_CODE(keel_load_finish(l, KEEL_OK), KEEL_OK);
}

static void on_save(void *ud, keel_save *s, uint64_t index)
{
    struct node *n = ud;
    struct watched *w = watched(n);

    /* One that is still being written when a leader's snapshot is loaded is of no use any more. */
    finish_save(n);
    if (w->applied > index)
        sim_fail("node %d is to save at %llu, and has applied %llu", (int)n->id,
                 (unsigned long long)index, (unsigned long long)w->applied);
    w->save = s;
    w->saved_applied = w->applied;
    w->saved_state = w->state;
    totals.saves++;
    if (!sim.lazy || cluster_random(sim.c, 2) == 0)
        finish_save(n);
}

static void on_load(void *ud, keel_load *l, uint64_t index)
{
    struct node *n = ud;
    struct watched *w = watched(n);

    if (w->load != NULL)
        sim_fail("node %d is to load two snapshots at once", (int)n->id);
    w->load = l;
    w->loading = index;
    if (!sim.lazy || cluster_random(sim.c, 4) != 0)
        finish_load(n);
}

/* The last thing that a node is told of what a snapshot held. */
static void on_params(void *ud, const keel_params *p)
{
    (void)p;
    watched(ud)->catching_up = 0;
}

void sim_state_callbacks(keel_callbacks *callbacks)
{
    callbacks->save = on_save;
    callbacks->load = on_load;
    callbacks->params = on_params;
}

void sim_state_finish(struct node *n)
{
    finish_save(n);
    finish_load(n);
    cluster_wake(n);
}

void sim_state_drop(struct node *n)
{
    struct watched *w = watched(n);

    if (w->save != NULL)
        CHECK_CODE(keel_save_finish(w->save, -1), KEEL_OK);
    if (w->load != NULL)
        CHECK_CODE(keel_load_finish(w->load, -1), KEEL_OK);
    w->save = NULL;
    w->load = NULL;
    w->catching_up = 0;
    w->state = 0;
}
