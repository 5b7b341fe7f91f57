/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Clusters of three and five through a bad time, and what must come of it. Usage: sim [FIRST
 * [COUNT]]: seeds, each a run of its own that happens the same way every time.
 *
 * A run: elect, arm automatic exclusion; then cuts, pauses, losses and orders of the
 * administrator at random, in some runs also to let nodes join and leave, or with disks that are
 * slow, fail, and lose what is under way in a crash; or a leader cut off alone (split brain), or
 * nothing; then everything is healed, everybody is taken back, and some are killed
 * for good. sim_check.c looks at every step; here is what must have happened by when.
 */
#include "sim.h"

#include <string.h>

#include "check.h"

enum scenario { CHAOS, SPLIT_BRAIN, DEATHS, SCENARIOS };

/* Long after everything is healed there is a leader and everybody has caught up. */
#define LIVENESS_MS 60000u

static uint64_t below(uint64_t n)
{
    return cluster_random(sim.c, n);
}

static struct node *any_node(void)
{
    return &sim.c->nodes[below(sim.c->count)];
}

static struct node *leader(const char *when)
{
    uint64_t until_ms = sim.c->now_ms + LIVENESS_MS;

    while (cluster_leader(sim.c) == NULL)
        if (!cluster_advance(sim.c, until_ms))
            sim_fail("no leader %s", when);
    return cluster_leader(sim.c);
}

static void wait_until(uint64_t ms, int (*holds)(struct cluster *, void *), void *arg,
                       const char *what)
{
    if (!cluster_run_until(sim.c, ms, holds, arg))
        sim_fail("%s: not within %llu ms", what, (unsigned long long)ms);
}

static int everybody_armed(struct cluster *c, void *arg)
{
    (void)arg;
    for (size_t i = 0; i < c->options.nodes; i++) {
        keel_params params = KEEL_PARAMS_INIT;

        CHECK_CODE(keel_get_params(c->nodes[i].k, &params), KEEL_OK);
        if (params.hb_deadtime_ms != DEADTIME_MS)
            return 0;
    }
    return 1;
}

static void arm(void)
{
    struct node *n = leader("at the start");
    keel_params params = KEEL_PARAMS_INIT;

    CHECK_CODE(keel_get_params(n->k, &params), KEEL_OK);
    params.hb_deadtime_ms = DEADTIME_MS;
    params.hb_initdead_ms = DEADTIME_MS;
    sim.armed = 1;
    CHECK_CODE(keel_set_params(n->k, &params, NULL, NULL), KEEL_OK);
    cluster_wake(n);
    wait_until(LIVENESS_MS, everybody_armed, NULL, "the setting is on every node");
}

/* Whether a node is excluded according to another. */
static int is_out(const struct node *by, keel_id id)
{
    return keel_check_epoch(by->k, id, 0) == KEEL_ERR_EXCLUDED;
}

/* What a node is according to another. */
struct standing {
    int state; /* KEEL_NODE_*; 0 = never a member */
    int role, awaits_promotion;
};

static struct standing standing(const struct node *by, keel_id id)
{
    struct standing found = {0};
    keel_status *status;

    CHECK_CODE(keel_status_take(by->k, &status), KEEL_OK);
    for (size_t i = 0; i < keel_status_count(status); i++) {
        const keel_node *node = keel_status_node(status, i);

        if (node->id == id) {
            found.state = node->state;
            found.role = node->role;
            found.awaits_promotion = node->awaits_promotion;
        }
    }
    keel_status_free(status);
    return found;
}

static int is_member(const struct node *by, keel_id id)
{
    int state = standing(by, id).state;

    return state != 0 && state != KEEL_NODE_REMOVED;
}

static size_t member_count(const struct node *by)
{
    size_t count = 0;

    for (keel_id id = 1; id <= sim.c->count; id++)
        if (is_member(by, id))
            count++;
    return count;
}

/* What its absence has cost it, a node must notice in the first moment of its return. */
static void resume(struct node *n)
{
    const struct exclusion *e = sim_exclusion_of(n->id);
    struct node *now_leading = cluster_leader(sim.c);

    if (!n->paused || sim.nodes[n->id - 1].dead)
        return;
    if (n->died)
        sim_crash(n);
    n->paused = 0;
    cluster_step(n);
    sim_links_changed();
    while (n->next_ms <= sim.c->now_ms)
        cluster_advance(sim.c, sim.c->now_ms);
    if (e != NULL && !sim.nodes[n->id - 1].by_admin && now_leading != NULL &&
        is_out(now_leading, n->id) && keel_lease_ms(n->k) != 0)
        sim_fail("node %d comes back excluded, and serves", (int)n->id);
}

static void set_eligible(struct node *n, int may_lead)
{
    int code = keel_set_eligible(n->k, may_lead);

    if (code != KEEL_OK && code != KEEL_ERR_FULL && !(n->died && code == KEEL_ERR_CLOSED))
        sim_fail("eligibility gives %s: %s", keel_strerror(code), keel_errmsg());
    cluster_wake(n);
}

static void heal(void)
{
    cluster_heal(sim.c);
    if (sim.has_disks)
        sim_disks_heal();
    for (size_t i = 0; i < sim.c->count; i++) {
        resume(&sim.c->nodes[i]);
        set_eligible(&sim.c->nodes[i], 1);
    }
    sim_links_changed();
}

static void weather(void)
{
    static const uint32_t losses[] = {0, 10, 50, 200};

    for (size_t from = 0; from < sim.c->count; from++)
        for (size_t to = 0; to < sim.c->count; to++) {
            sim.c->links[from][to].loss = losses[below(4)];
            sim.c->links[from][to].duplicate = (uint32_t)below(50);
            sim.c->links[from][to].late = (uint32_t)below(100);
        }
}

/* Leadership is to go elsewhere, asked of whoever leads or of somebody who may believe it. */
static void hand_over(void)
{
    struct node *n = below(2) == 0 ? cluster_leader(sim.c) : any_node();

    if (below(3) == 0)
        set_eligible(any_node(), below(2) == 0);
    if (n != NULL)
        sim_transfer(n, below(2) == 0 ? 0 : any_node()->id);
}

/* An order that changes who the members are, if one fits; never fewer remain than at first. */
static int let_in_or_out(struct node *n, keel_id id)
{
    struct standing now = standing(n, id);
    keel_peer peer = KEEL_PEER_INIT;

    if (now.state == 0) {
        peer.id = id;
        CHECK_CODE(keel_node_add(n->k, &peer, NULL, NULL), KEEL_OK);
    } else if (now.awaits_promotion) {
        CHECK_CODE(keel_node_promote(n->k, id, NULL, NULL), KEEL_OK);
    } else if (member_count(n) > sim.c->options.nodes && below(3) == 0) {
        /* Out without ever having been silent. */
        sim.nodes[id - 1].by_admin = 1;
        CHECK_CODE(keel_node_remove(n->k, id, NULL, NULL), KEEL_OK);
    } else {
        return now.state == KEEL_NODE_REMOVED;
    }
    return 1;
}

/* An order of the administrator, at whoever leads. */
static void administrate(void)
{
    struct node *n = cluster_leader(sim.c);
    struct node *target = any_node();

    if (n == NULL)
        return;
    if (sim.c->options.spares > 0 && let_in_or_out(n, target->id)) {
        cluster_wake(n);
        return;
    }
    if (is_out(n, target->id)) {
        CHECK_CODE(keel_node_readmit(n->k, target->id, NULL, NULL), KEEL_OK);
    } else if (below(4) == 0 && target != n) {
        /* From now on this node may be found excluded without ever having been silent. */
        sim.nodes[target->id - 1].by_admin = 1;
        CHECK_CODE(keel_node_exclude(n->k, target->id, NULL, NULL), KEEL_OK);
    }
    cluster_wake(n);
}

/* The whole machine room, or one machine, which may be off for a while. */
static void power_fails(struct node *n)
{
    if (below(8) > 0) {
        sim_crash(n);
        n->paused |= below(3) == 0;
        return;
    }
    for (size_t i = 0; i < sim.c->count; i++)
        sim_crash(&sim.c->nodes[i]);
}

static void something_happens_to_a_disk(void)
{
    struct node *n = any_node();

    switch (below(4)) {
    case 0: power_fails(n); break;
    case 1:
    case 2: sim_disk_weather(n); break;
    default: sim_disk_failure(n); break;
    }
    sim_links_changed();
}

static void something_happens(void)
{
    struct cluster *c = sim.c;
    size_t a = (size_t)below(c->count), b = (size_t)below(c->count);

    switch (below(12)) {
    case 0: cluster_isolate(c, a, (int)below(2)); break;
    case 1: cluster_cut(c, a, b, 1); break;
    case 2: cluster_cut_one_way(c, a, b, 1); break;
    case 3: cluster_cut(c, a, b, 0); break;
    case 4: c->nodes[a].paused = 1; break;
    case 5:
    case 6: resume(&c->nodes[a]); break;
    case 7: weather(); break;
    case 8: administrate(); break;
    case 9:
    case 10: hand_over(); break;
    default: heal(); break;
    }
    sim_links_changed();
}

static void chaos(void)
{
    uint64_t end_ms = sim.c->now_ms + 30000 + below(60000);

    while (sim.c->now_ms < end_ms) {
        sim.lazy = 1;
        something_happens();
        if (sim.has_disks && below(2) == 0)
            something_happens_to_a_disk();
        if (sim.c->options.spares > 0 && below(3) == 0)
            administrate();
        for (uint64_t i = below(4); i > 0; i--)
            sim_propose(any_node());
        for (uint64_t i = below(4); i > 0; i--)
            sim_barrier(any_node());
        /* Now and then long enough for a verdict. */
        cluster_run(sim.c, below(8) == 0 ? DEADTIME_MS + SETTLE_MS : 100 + below(4000));
    }
}

static int excluded_by_the_others(struct cluster *c, void *arg)
{
    const struct node *out = arg;

    for (size_t i = 0; i < c->count; i++)
        if (&c->nodes[i] != out && !is_out(&c->nodes[i], out->id))
            return 0;
    return 1;
}

static int knows_that_it_is_out(struct cluster *c, void *arg)
{
    (void)c;
    return keel_role(((struct node *)arg)->k) == KEEL_ROLE_EXCLUDED;
}

/* A leader cut off alone, as it split SX's cluster in two: it must decide nothing, stop serving
 * before the others go on without it, and be told when it comes back. */
static void split_brain(void)
{
    struct node *old = leader("before the split");
    uint64_t before = keel_epoch(old->k);

    cluster_isolate(sim.c, (size_t)(old->id - 1), 1);
    sim_links_changed();
    for (int i = 0; i < 5; i++)
        sim_propose(old);
    wait_until(DEADTIME_MS + SETTLE_MS + 2000, excluded_by_the_others, old,
               "the leader that was cut off is excluded");
    for (size_t i = 0; i < sim.c->count; i++)
        sim_propose(&sim.c->nodes[i]);
    cluster_run(sim.c, 3 * DEADTIME_MS);
    if (keel_epoch(old->k) != before)
        sim_fail("the minority changed the membership");
    if (keel_lease_ms(old->k) != 0 || !sim.nodes[old->id - 1].fenced)
        sim_fail("the minority serves");
    if (keel_role(old->k) == KEEL_ROLE_LEADER)
        sim_fail("the minority leads");
    heal();
    wait_until(LIVENESS_MS, knows_that_it_is_out, old, "the excluded one is told");
    if (keel_lease_ms(old->k) != 0)
        sim_fail("the excluded one serves");
}

static int everybody_votes(struct cluster *c, void *arg)
{
    struct node *n = cluster_leader(c);
    keel_status *status;
    int all;

    (void)arg;
    if (n == NULL)
        return 0;
    CHECK_CODE(keel_status_take(n->k, &status), KEEL_OK);
    all = keel_status_info(status)->voters == member_count(n);
    keel_status_free(status);
    return all;
}

static void take_everybody_back(void)
{
    uint64_t until_ms = sim.c->now_ms + 3 * LIVENESS_MS;

    /* What was decided at the last moment before it was healed is still on its way. */
    cluster_run(sim.c, DEADTIME_MS);
    while (!everybody_votes(sim.c, NULL)) {
        struct node *n = leader("after everything was healed");

        for (keel_id id = 1; id <= sim.c->count; id++)
            if (standing(n, id).awaits_promotion)
                CHECK_CODE(keel_node_promote(n->k, id, NULL, NULL), KEEL_OK);
            else if (is_out(n, id) && is_member(n, id))
                CHECK_CODE(keel_node_readmit(n->k, id, NULL, NULL), KEEL_OK);
        cluster_wake(n);
        cluster_run(sim.c, 1000);
        if (sim.c->now_ms > until_ms)
            sim_fail("not everybody is back after everything was healed");
    }
    for (size_t i = 0; i < sim.c->count; i++)
        sim.nodes[i].by_admin = 0;
}

/* Whoever is no member does not serve, and one that was removed knows it, if it ever heard that it
 * was one. */
static int outsiders_are_idle(struct cluster *c, void *arg)
{
    struct node *n = cluster_leader(c);

    (void)arg;
    if (n == NULL)
        return 0;
    for (size_t i = 0; i < c->count; i++) {
        keel_id id = c->nodes[i].id;

        if (is_member(n, id))
            continue;
        if (keel_lease_ms(c->nodes[i].k) != 0)
            return 0;
        if (standing(n, id).state == KEEL_NODE_REMOVED && keel_epoch(c->nodes[i].k) > 0 &&
            keel_role(c->nodes[i].k) != KEEL_ROLE_EXCLUDED)
            return 0;
    }
    return 1;
}

static int applied_by_all(struct cluster *c, void *arg)
{
    uint64_t last = (uint64_t)(sim.log_len - 1);
    const struct request *r = &sim.requests[*(size_t *)arg];
    const struct node *n = cluster_leader(c);

    if (!r->completions || r->status != KEEL_OK || n == NULL)
        return 0;
    for (size_t i = 0; i < c->count; i++)
        if (!sim.nodes[i].dead && sim.nodes[i].applied < last && is_member(n, i + 1))
            return 0;
    return 1;
}

static int is_done(struct cluster *c, void *arg)
{
    const struct request *r = &sim.requests[*(size_t *)arg];

    (void)c;
    if (r->completions && r->status != KEEL_OK)
        sim_fail("a barrier at node %d ends in %s", (int)r->at, keel_strerror(r->status));
    return r->completions > 0;
}

static void works(const char *when)
{
    size_t number = sim.request_count;

    sim_propose(leader(when));
    wait_until(LIVENESS_MS, applied_by_all, &number, when);
    for (size_t i = 0; i < sim.c->count; i++) {
        if (sim.nodes[i].dead || !is_member(leader(when), i + 1))
            continue;
        number = sim.request_count;
        sim_barrier(&sim.c->nodes[i]);
        wait_until(LIVENESS_MS, is_done, &number, when);
    }
}

static void kill_one(struct node *n)
{
    n->paused = 1;
    sim.nodes[n->id - 1].dead = 1;
    sim_links_changed();
}

/* As many as the rest can do without, often the leader among them, within a moment. */
static void deaths(void)
{
    struct node *first = leader("before the deaths");
    int members[CLUSTER_MAX];
    uint64_t count = 1 + below((member_count(first) - 1) / 2), last_ms;

    for (size_t i = 0; i < sim.c->count; i++)
        members[i] = is_member(first, i + 1);
    if (below(2) == 0)
        kill_one(first);
    else
        count++;
    while (--count > 0) {
        struct node *n;

        do
            n = any_node();
        while (sim.nodes[n->id - 1].dead || !members[n->id - 1]);
        cluster_run(sim.c, below(1000));
        kill_one(n);
    }
    last_ms = sim.c->now_ms;
    cluster_run(sim.c, DEADTIME_MS + SETTLE_MS + 2000);
    for (size_t i = 0; i < sim.c->count; i++) {
        const struct exclusion *e = sim_exclusion_of(i + 1);

        if (!sim.nodes[i].dead)
            continue;
        if (e == NULL || e->at_ms + DEADTIME_MS < last_ms)
            sim_fail("node %zu is dead since %llu or before, and not excluded", i + 1,
                     (unsigned long long)last_ms);
        for (size_t j = 0; j < sim.c->count; j++)
            if (members[j] && !sim.nodes[j].dead && !(e->told & 1u << (j + 1)))
                sim_fail("node %zu was not told of the exclusion of %zu", j + 1, i + 1);
    }
}

static void run(uint64_t seed)
{
    static void (*const scenarios[SCENARIOS])(void) = {chaos, split_brain, NULL};
    enum scenario scenario = seed % 8 == 6 ? SPLIT_BRAIN : seed % 8 == 7 ? DEATHS : CHAOS;

    sim_start(seed, seed / 8 % 2 == 0 ? 3 : 5, scenario == CHAOS && seed % 3 == 0 ? 2 : 0);
    arm();
    works("at the start");
    cluster_run(sim.c, 2 * DEADTIME_MS);
    if (sim.exclusion_count > 0)
        sim_fail("somebody was excluded, and nothing had happened");
    if (scenarios[scenario] != NULL)
        scenarios[scenario]();
    heal();
    take_everybody_back();
    works("after everything was healed");
    wait_until(LIVENESS_MS, outsiders_are_idle, NULL, "whoever is no member does not serve");
    cluster_run(sim.c, 3 * DEADTIME_MS);
    deaths();
    works("after the deaths");
    sim_finish();
}

/* Whichever check ended the program: in which seed it was. */
static int passed;

static void last_word(void)
{
    if (!passed)
        fprintf(stderr, "failing seed: %llu\n", (unsigned long long)sim.seed);
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000;

    CHECK(atexit(last_word) == 0);
    for (uint64_t seed = first; seed < first + count; seed++)
        run(seed);
    /* What never happened was not tried. */
    CHECK(count < 500 || (totals.lost && totals.failures && totals.reads && totals.trims &&
                          totals.saves && totals.loads));
    passed = 1;
    printf("%llu seeds from %llu on passed\n", (unsigned long long)count,
           (unsigned long long)first);
    printf("disks: %lu batches, %lu lost, %lu failures, %lu reads, %lu trims, %lu snapshots saved, "
           "%lu loaded\n",
           totals.batches, totals.lost, totals.failures, totals.reads, totals.trims, totals.saves,
           totals.loads);
    return 0;
}
