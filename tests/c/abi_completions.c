/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Exactly one completion per accepted request: at the leader, elsewhere, when leadership is lost,
 * and at the end of the engine. What a completion says is true of the log.
 */
#include <string.h>

#include "check.h"
#include "cluster.h"

#define REQUESTS_MAX 256

struct request {
    unsigned completions, applied;
    int status;
};

static struct request requests[REQUESTS_MAX];
static size_t made;

static void on_done(void *arg, int status, uint64_t index)
{
    struct request *r = arg;

    CHECK(++r->completions == 1);
    CHECK((status == KEEL_OK) == (index > 0));
    CHECK(status == KEEL_OK || keel_errmsg()[0] != '\0');
    r->status = status;
}

/* Each node applies an entry at most once; of three nodes one is looked at. */
static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    const struct node *n = ud;
    uint32_t number;

    (void)index, (void)term;
    CHECK(len == sizeof number);
    memcpy(&number, data, sizeof number);
    CHECK(number < made);
    if (n->id == 2)
        requests[number].applied++;
    return 0;
}

static struct request *propose(struct node *n)
{
    uint32_t number = (uint32_t)made;

    CHECK(made < REQUESTS_MAX);
    made++;
    CHECK_CODE(keel_propose(n->k, &number, sizeof number, on_done, &requests[number]), KEEL_OK);
    cluster_wake(n);
    return &requests[number];
}

static int done(struct cluster *c, void *arg)
{
    (void)c;
    return ((struct request *)arg)->completions > 0;
}

static void wait_for(struct cluster *c, struct request *r, int status)
{
    CHECK(cluster_run_until(c, 60000, done, r));
    if (r->status != status)
        fprintf(stderr, "status %s\n", keel_strerror(r->status));
    CHECK(r->status == status);
}

static struct node *another(struct cluster *c, const struct node *n)
{
    return &c->nodes[n->id % c->count];
}

static void at_the_leader_and_elsewhere(struct cluster *c)
{
    struct node *leader = cluster_elect(c);
    struct request *r[8];

    for (int i = 0; i < 8; i++)
        r[i] = propose(leader);
    for (int i = 0; i < 8; i++)
        wait_for(c, r[i], KEEL_OK);
    wait_for(c, propose(another(c, leader)), KEEL_ERR_NOT_LEADER);
}

/* A leader cut off cannot know what becomes of what it appended: it must not say "not done". */
static void when_leadership_is_lost(struct cluster *c)
{
    struct node *old = cluster_elect(c);
    struct request *r;

    cluster_isolate(c, (size_t)(old->id - 1), 1);
    r = propose(old);
    wait_for(c, r, KEEL_ERR_LOST);
    cluster_isolate(c, (size_t)(old->id - 1), 0);
    cluster_run(c, 20000);
    wait_for(c, propose(cluster_elect(c)), KEEL_OK);
    cluster_run(c, 2000);
}

static void administration(struct cluster *c)
{
    struct node *leader = cluster_elect(c);
    struct request *r = &requests[made++];
    keel_params params = KEEL_PARAMS_INIT;
    keel_peer peer = KEEL_PEER_INIT;

    CHECK_CODE(keel_node_exclude(leader->k, 50, on_done, r), KEEL_OK);
    cluster_wake(leader);
    wait_for(c, r, KEEL_ERR_NOT_FOUND);
    r = &requests[made++];
    CHECK_CODE(keel_node_readmit(leader->k, leader->id, on_done, r), KEEL_OK);
    cluster_wake(leader);
    wait_for(c, r, KEEL_ERR_STATE);
    r = &requests[made++];
    CHECK_CODE(keel_node_promote(leader->k, leader->id, on_done, r), KEEL_OK);
    cluster_wake(leader);
    wait_for(c, r, KEEL_ERR_STATE);
    r = &requests[made++];
    CHECK_CODE(keel_node_remove(leader->k, 50, on_done, r), KEEL_OK);
    cluster_wake(leader);
    wait_for(c, r, KEEL_ERR_NOT_FOUND);
    r = &requests[made++];
    peer.id = leader->id;
    CHECK_CODE(keel_node_add(leader->k, &peer, on_done, r), KEEL_OK);
    cluster_wake(leader);
    wait_for(c, r, KEEL_ERR_EXISTS);
    r = &requests[made++];
    peer.id = 60;
    CHECK_CODE(keel_node_replace(leader->k, 50, &peer, on_done, r), KEEL_OK);
    cluster_wake(leader);
    wait_for(c, r, KEEL_ERR_NOT_FOUND);
    r = &requests[made++];
    CHECK_CODE(keel_get_params(leader->k, &params), KEEL_OK);
    params.hb_keepalive_ms = 2000;
    params.hb_deadtime_ms = 3000;
    CHECK_CODE(keel_set_params(leader->k, &params, on_done, r), KEEL_OK);
    cluster_wake(leader);
    wait_for(c, r, KEEL_ERR_INVALID);
    r = &requests[made++];
    params.hb_deadtime_ms = 30000;
    CHECK_CODE(keel_set_params(leader->k, &params, on_done, r), KEEL_OK);
    cluster_wake(leader);
    wait_for(c, r, KEEL_OK);
    r = &requests[made++];
    CHECK_CODE(keel_set_params(leader->k, &params, on_done, r), KEEL_OK);
    cluster_wake(leader);
    wait_for(c, r, KEEL_ERR_CONFLICT); /* that version is no more */
}

static struct request *barrier(struct node *n)
{
    struct request *r = &requests[made++];

    CHECK(made <= REQUESTS_MAX);
    CHECK_CODE(keel_barrier(n->k, on_done, r), KEEL_OK);
    cluster_wake(n);
    return r;
}

static struct request *transfer(struct node *n, keel_id to)
{
    struct request *r = &requests[made++];

    CHECK(made <= REQUESTS_MAX);
    CHECK_CODE(keel_transfer(n->k, to, on_done, r), KEEL_OK);
    cluster_wake(n);
    return r;
}

static void barriers(struct cluster *c)
{
    struct node *leader = cluster_elect(c), *alone = another(c, leader);
    struct request *r[6];

    for (size_t i = 0; i < 6; i++)
        r[i] = barrier(&c->nodes[i % c->count]);
    for (size_t i = 0; i < 6; i++)
        wait_for(c, r[i], KEEL_OK);
    cluster_isolate(c, (size_t)(alone->id - 1), 1);
    r[0] = barrier(alone);
    CHECK(cluster_run_until(c, 60000, done, r[0]));
    CHECK(r[0]->status == KEEL_ERR_NO_QUORUM || r[0]->status == KEEL_ERR_LOST);
    cluster_run(c, 20000);
    wait_for(c, barrier(alone), KEEL_ERR_NO_QUORUM); /* no leader is known any more */
    cluster_isolate(c, (size_t)(alone->id - 1), 0);
    cluster_run(c, 20000);
    wait_for(c, barrier(alone), KEEL_OK);
}

static void transfers(struct cluster *c)
{
    struct node *leader = cluster_elect(c), *next = another(c, leader);
    struct request *first, *second, *r;

    wait_for(c, transfer(next, leader->id), KEEL_ERR_NOT_LEADER);
    wait_for(c, transfer(leader, leader->id), KEEL_ERR_EXISTS);
    wait_for(c, transfer(leader, 50), KEEL_ERR_NOT_FOUND);
    first = transfer(leader, next->id);
    second = transfer(leader, 0);
    r = propose(leader);
    wait_for(c, second, KEEL_ERR_CONFLICT);
    wait_for(c, r, KEEL_ERR_CONFLICT);
    wait_for(c, first, KEEL_OK);
    CHECK(keel_leader(leader->k) == next->id);
    cluster_run(c, 2000);

    /* To one that cannot hear of it: this node leads on. */
    leader = cluster_elect(c);
    CHECK(leader == next);
    cluster_isolate(c, (size_t)(another(c, leader)->id - 1), 1);
    wait_for(c, transfer(leader, another(c, leader)->id), KEEL_ERR_CONFLICT);
    wait_for(c, propose(leader), KEEL_OK);
    cluster_isolate(c, (size_t)(another(c, leader)->id - 1), 0);
    cluster_run(c, 20000);

    /* One that may not lead does not, and is no target. */
    leader = cluster_elect(c);
    next = another(c, leader);
    CHECK_CODE(keel_set_eligible(next->k, 0), KEEL_OK);
    cluster_wake(next);
    cluster_run(c, 5000);
    wait_for(c, transfer(leader, next->id), KEEL_ERR_STATE);
    CHECK_CODE(keel_set_eligible(leader->k, 0), KEEL_OK);
    cluster_wake(leader);
    cluster_run(c, 5000);
    CHECK(cluster_elect(c) == another(c, next));
    CHECK_CODE(keel_set_eligible(next->k, 1), KEEL_OK);
    CHECK_CODE(keel_set_eligible(leader->k, 1), KEEL_OK);
    cluster_wake(next);
    cluster_wake(leader);
    cluster_run(c, 5000);
}

static void what_was_said_is_true(void)
{
    for (size_t i = 0; i < made; i++) {
        const struct request *r = &requests[i];

        CHECK(r->completions == 1);
        CHECK(r->applied <= 1);
        CHECK(r->status != KEEL_ERR_NOT_LEADER || r->applied == 0);
    }
}

int main(void)
{
    struct cluster_options options;
    struct cluster *c;
    struct node *leader;
    size_t before;

    cluster_options_init(&options, 3, 21);
    options.callbacks.apply = on_apply;
    c = cluster_new(&options);
    at_the_leader_and_elsewhere(c);
    when_leadership_is_lost(c);
    administration(c);
    barriers(c);
    transfers(c);

    /* The end, with requests that no driving call has taken and some that are on their way. */
    leader = cluster_elect(c);
    before = made;
    propose(leader);
    cluster_advance(c, c->now_ms);
    for (int i = 0; i < 5; i++)
        propose(leader);
    propose(another(c, leader));
    barrier(leader);
    barrier(another(c, leader));
    transfer(leader, 0);
    cluster_free(c);
    for (size_t i = before; i < made; i++)
        CHECK(requests[i].completions == 1 && requests[i].status == KEEL_ERR_CLOSED);
    what_was_said_is_true();
    return 0;
}
