/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Every function from every callback: inputs and queries work, driving and freeing gives BUSY. */
#include <string.h>

#include "check.h"
#include "cluster.h"

enum { APPLY, SEND, ROLE, NODE, EXCLUDED, MEMBERS, PARAMS, FENCE, EVENT, STOPPED, GUARD, LOG, DONE,
       KINDS };

static const char *const names[KINDS] = {"apply", "send", "role", "node", "excluded", "members",
                                         "params", "fence", "event", "stopped", "guard", "log",
                                         "done"};
static unsigned seen[KINDS];
static unsigned accepted, completed;

static void on_done(void *arg, int status, uint64_t index);

static void inputs(keel *k, int wanted)
{
    keel_params params = KEEL_PARAMS_INIT;
    keel_peer peer = KEEL_PEER_INIT;

    /* Each completion calls all of it again: without an end the run would have none. */
    if (accepted > 200)
        return;
    CHECK(keel_recv(k, 1, "nonsense", 8) < 0);
    CHECK_CODE(keel_heard(k, 2), wanted);
    CHECK_CODE(keel_lost(k, 2), wanted);
    CHECK_CODE(keel_propose(k, "again", 5, on_done, k), wanted);
    /* The id of every node there is: it must not join. */
    peer.id = 1;
    CHECK_CODE(keel_node_add(k, &peer, on_done, k), wanted);
    peer.id = 99;
    CHECK_CODE(keel_node_promote(k, 99, on_done, k), wanted);
    CHECK_CODE(keel_node_remove(k, 99, on_done, k), wanted);
    CHECK_CODE(keel_node_exclude(k, 99, on_done, k), wanted);
    CHECK_CODE(keel_node_readmit(k, 99, on_done, k), wanted);
    CHECK_CODE(keel_node_replace(k, 98, &peer, on_done, k), wanted);
    CHECK_CODE(keel_barrier(k, on_done, k), wanted);
    CHECK_CODE(keel_transfer(k, 99, on_done, k), wanted);
    CHECK_CODE(keel_set_eligible(k, 1), wanted);
    params.version = 1000;
    CHECK_CODE(keel_set_params(k, &params, on_done, k), wanted);
    if (wanted == KEEL_OK)
        accepted += 10;
}

static void queries(keel *k)
{
    keel_params params = KEEL_PARAMS_INIT;
    keel_status *status;

    CHECK(keel_role(k) >= KEEL_ROLE_FOLLOWER);
    (void)keel_leader(k);
    (void)keel_epoch(k);
    CHECK(keel_timeout_ms(k) >= -1);
    CHECK(keel_check_epoch(k, 1, UINT64_MAX) == KEEL_EPOCH_AHEAD);
    CHECK(keel_lease_ms(k) >= 0);
    CHECK_CODE(keel_get_params(k, &params), KEEL_OK);
    CHECK_CODE(keel_status_take(k, &status), KEEL_OK);
    CHECK(keel_status_info(status)->self >= 1);
    CHECK(keel_status_json(status)[0] == '{');
    keel_status_free(status);
}

static void call_everything(keel *k, int kind)
{
    keel_peer peer = KEEL_PEER_INIT;
    uint64_t next_ms;
    int alive = keel_heard(k, 2);

    seen[kind]++;
    CHECK_CODE(keel_step(k, 1, &next_ms), KEEL_ERR_BUSY);
    CHECK_CODE(keel_dispatch(k), KEEL_ERR_BUSY);
    CHECK_CODE(keel_fd(k), KEEL_ERR_BUSY);
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_ERR_BUSY);
    CHECK_CODE(keel_free(k), KEEL_ERR_BUSY);
    /* A death is logged, then told, then what waits is answered; inputs end before all that. */
    CHECK(alive == KEEL_OK || (alive == KEEL_ERR_CLOSED && (kind == LOG || kind == STOPPED || kind == DONE)));
    inputs(k, alive);
    queries(k);
}

static keel *engine(void *ud)
{
    return ((struct node *)ud)->k;
}

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    (void)index, (void)term;
    call_everything(engine(ud), APPLY);
    return len == 4 && memcmp(data, "fail", 4) == 0 ? -1 : 0;
}

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)to;
    CHECK(msg != NULL && len > 0);
    call_everything(engine(ud), SEND);
}

static void on_role(void *ud, int role, uint64_t term, keel_id leader)
{
    (void)role, (void)term, (void)leader;
    call_everything(engine(ud), ROLE);
}

static void on_node(void *ud, keel_id id, int state, int old_state, uint32_t silent_ms)
{
    (void)id, (void)state, (void)old_state, (void)silent_ms;
    call_everything(engine(ud), NODE);
}

static void on_excluded(void *ud, uint64_t epoch, const keel_id *ids, size_t n, uint64_t index)
{
    (void)epoch, (void)index;
    CHECK(n == 1 && ids[0] == 3);
    call_everything(engine(ud), EXCLUDED);
}

static void on_members(void *ud, uint64_t epoch, uint64_t index)
{
    (void)epoch, (void)index;
    call_everything(engine(ud), MEMBERS);
}

static void on_params(void *ud, const keel_params *p)
{
    CHECK(p->size >= sizeof *p);
    call_everything(engine(ud), PARAMS);
}

static void on_fence(void *ud, int fenced, const char *why)
{
    (void)fenced;
    CHECK(why != NULL);
    call_everything(engine(ud), FENCE);
}

static void on_event(void *ud, const char *code, const char *json)
{
    CHECK(code[0] != '\0' && json[0] == '{');
    call_everything(engine(ud), EVENT);
}

static void on_stopped(void *ud, int why)
{
    CHECK(why < 0);
    call_everything(engine(ud), STOPPED);
}

static int on_guard(void *ud, const keel_id *ids, size_t n, char *why, size_t why_cap)
{
    CHECK(n == 1 && ids[0] == 3 && why_cap > 0);
    memset(why, 'w', why_cap); /* to its very end: there need not be a NUL */
    call_everything(engine(ud), GUARD);
    return seen[GUARD] == 1 ? 100 : 0;
}

static void on_log(void *ud, int level, const char *text)
{
    CHECK(level >= 1 && level <= 5 && text[0] != '\0');
    call_everything(engine(ud), LOG);
}

static void on_done(void *arg, int status, uint64_t index)
{
    CHECK((status == KEEL_OK) == (index > 0));
    completed++;
    call_everything(arg, DONE);
}

static void set_callbacks(keel_callbacks *cb)
{
    cb->apply = on_apply;
    cb->send = on_send;
    cb->role = on_role;
    cb->node = on_node;
    cb->excluded = on_excluded;
    cb->members = on_members;
    cb->params = on_params;
    cb->fence = on_fence;
    cb->event = on_event;
    cb->stopped = on_stopped;
    cb->guard = on_guard;
    cb->log = on_log;
}

static int third_is_out(struct cluster *c, void *arg)
{
    (void)arg;
    return keel_check_epoch(c->nodes[0].k, 3, 0) == KEEL_ERR_EXCLUDED &&
           keel_check_epoch(c->nodes[1].k, 3, 0) == KEEL_ERR_EXCLUDED;
}

static int third_knows(struct cluster *c, void *arg)
{
    (void)arg;
    return keel_role(c->nodes[2].k) == KEEL_ROLE_EXCLUDED;
}

static int somebody_stopped(struct cluster *c, void *arg)
{
    (void)c, (void)arg;
    return seen[STOPPED] > 0;
}

int main(void)
{
    struct cluster_options options;
    struct cluster *c;
    struct node *leader;

    cluster_options_init(&options, 3, 11);
    options.params.hb_keepalive_ms = 500;
    options.params.hb_deadtime_ms = 5000;
    options.params.hb_initdead_ms = 5000;
    options.deaths_allowed = 1;
    set_callbacks(&options.callbacks);
    c = cluster_new(&options);
    cluster_elect(c);
    cluster_run(c, 10000);

    /* The third falls silent: the guard is asked, it is excluded; being cut off, it is fenced;
     * coming back, it is told. */
    cluster_isolate(c, 2, 1);
    CHECK(cluster_run_until(c, 30000, third_is_out, NULL));
    cluster_isolate(c, 2, 0);
    CHECK(cluster_run_until(c, 30000, third_knows, NULL));
    leader = cluster_elect(c);
    CHECK_CODE(keel_propose(leader->k, "fail", 4, on_done, leader->k), KEEL_OK);
    accepted++;
    cluster_wake(leader);
    CHECK(cluster_run_until(c, 10000, somebody_stopped, NULL));
    for (int kind = 0; kind < KINDS; kind++)
        if (seen[kind] == 0) {
            fprintf(stderr, "%s was never called\n", names[kind]);
            return 1;
        }
    cluster_free(c);
    CHECK(completed == accepted);
    return 0;
}
