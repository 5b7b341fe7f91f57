/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Snapshots where the host stores: made, found again, loaded before anything else, failed, and not
 * kept at all. A node, most often alone in its cluster, whose state is the number of entries that it
 * has applied. */
#include <errno.h>
#include <string.h>

#include "check.h"
#include "cluster.h"
#include "store.h"

static keel *k;
static uint64_t now_ms = 5000;
static uint64_t count, saved_at; /* the host's state; the index of its last snapshot */
static keel_load *loading;
static int slow_to_load;
static uint32_t compaction;
static int completed, last_status;
static uint64_t last_index;

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud, (void)to, (void)msg, (void)len;
}

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    (void)ud, (void)index, (void)term, (void)data, (void)len;
    CHECK(loading == NULL); /* first its state, then what comes next */
    count++;
    return 0;
}

static void on_save(void *ud, keel_save *s, uint64_t index)
{
    int code = keel_save_write(s, &count, sizeof count);

    (void)ud;
    saved_at = index;
    CHECK_CODE(keel_save_finish(s, code), KEEL_OK);
}

static void finish_load(void)
{
    uint64_t found[2];
    size_t got;

    CHECK_CODE(keel_load_read(loading, found, sizeof found, &got), KEEL_OK);
    CHECK(got == sizeof count);
    count = found[0];
    CHECK_CODE(keel_load_finish(loading, KEEL_OK), KEEL_OK);
    loading = NULL;
}

static void on_load(void *ud, keel_load *l, uint64_t index)
{
    (void)ud;
    CHECK(loading == NULL && index == saved_at && count == 0);
    loading = l;
    if (!slow_to_load)
        finish_load();
}

static void on_done(void *arg, int status, uint64_t index)
{
    (void)arg;
    completed++;
    last_status = status;
    last_index = index;
}

static void start(struct store *s, const keel_storage *storage, uint32_t flags)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel_peer peer = KEEL_PEER_INIT;

    count = 0;
    s->freed = 0;
    config.id = peer.id = 1;
    config.cluster = 77;
    config.storage = storage;
    config.seed = 5;
    config.flags = flags;
    config.compaction = compaction;
    callbacks.send = on_send;
    callbacks.apply = on_apply;
    callbacks.save = on_save;
    callbacks.load = on_load;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
    if (flags != 0)
        CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_OK);
}

static void stop(struct store *s)
{
    CHECK_CODE(keel_free(k), KEEL_OK);
    store_crash(s, 0);
    s->freed = 1;
}

static void step(void)
{
    uint64_t next_ms;

    CHECK_CODE(keel_step(k, now_ms, &next_ms), KEEL_OK);
    if (next_ms > now_ms)
        now_ms = next_ms;
}

static void run_for(uint64_t ms)
{
    uint64_t end_ms = now_ms + ms;

    while (now_ms < end_ms)
        step();
}

static void lead(void)
{
    uint64_t end_ms = now_ms + 60000;

    while (keel_role(k) != KEEL_ROLE_LEADER) {
        CHECK(now_ms < end_ms);
        step();
    }
}

/* As often as it takes: what the request ends as. */
static int outcome(void)
{
    uint64_t end_ms = now_ms + 60000;

    completed = 0;
    while (!completed) {
        CHECK(now_ms < end_ms);
        step();
    }
    return last_status;
}

static void propose(int n)
{
    for (int i = 0; i < n; i++) {
        CHECK_CODE(keel_propose(k, "x", 1, on_done, NULL), KEEL_OK);
        CHECK_CODE(outcome(), KEEL_OK);
    }
}

static int snapshot(void)
{
    CHECK_CODE(keel_snapshot(k, on_done, NULL), KEEL_OK);
    return outcome();
}

static size_t committed(const struct store *s)
{
    size_t n = 0;

    for (size_t i = 0; i < s->images.n; i++)
        n += s->images.all[i].committed != 0;
    return n;
}

static void made_and_found_again(void)
{
    struct store *s = store_new(&k);

    start(s, store_storage(s), KEEL_NEW_NODE);
    lead();
    propose(20);
    CHECK_CODE(snapshot(), KEEL_OK);
    CHECK(last_index == saved_at && committed(s) == 1);
    CHECK(s->trims > 0 && s->log.n < 5); /* its place is taken */
    propose(3);
    CHECK(count == 23);
    stop(s);

    start(s, store_storage(s), 0);
    CHECK(count == 0);
    step();
    CHECK(count >= 20);
    lead();
    propose(1);
    CHECK(count == 24);
    CHECK_CODE(snapshot(), KEEL_OK);
    CHECK(committed(s) == 1); /* the one before it is not needed any more */
    stop(s);
    store_free(s);
}

/* Its part lies in the log, and is read from there; if that fails, it is read again. */
static void found_in_the_log(void)
{
    struct store *s = store_new(&k);

    compaction = KEEL_COMPACT_IN_LOG;
    start(s, store_storage(s), KEEL_NEW_NODE);
    lead();
    propose(4);
    CHECK_CODE(snapshot(), KEEL_OK);
    propose(2);
    stop(s);
    s->fail_read = STORE_EIO;
    start(s, store_storage(s), 0);
    lead();
    propose(1);
    CHECK(s->fail_read == 0 && s->reads >= 2);
    CHECK(count == 7);
    stop(s);
    store_free(s);
    compaction = KEEL_COMPACT_APPLICATION;
}

/* As long as the host has not loaded its state it applies nothing, and nobody may read from it. */
static void loaded_before_anything_else(void)
{
    struct store *s = store_new(&k);

    start(s, store_storage(s), KEEL_NEW_NODE);
    lead();
    propose(5);
    CHECK_CODE(snapshot(), KEEL_OK);
    propose(2);
    stop(s);

    slow_to_load = 1;
    start(s, store_storage(s), 0);
    lead();
    CHECK(loading != NULL);
    completed = 0;
    CHECK_CODE(keel_barrier(k, on_done, NULL), KEEL_OK);
    run_for(20000);
    CHECK(count == 0 && completed == 0 && keel_role(k) == KEEL_ROLE_LEADER);
    slow_to_load = 0;
    finish_load();
    CHECK(count == 5);
    run_for(1);
    CHECK(completed == 1 && last_status == KEEL_OK && count == 7);
    stop(s);
    store_free(s);
}

static void failed_and_made_again(void)
{
    struct store *s = store_new(&k);
    int *const failures[] = {&s->fail_put, &s->fail_commit, &s->fail_get};
    const size_t kinds = sizeof failures / sizeof *failures;

    start(s, store_storage(s), KEEL_NEW_NODE);
    lead();
    propose(3);
    for (size_t i = 0; i < 2 * kinds; i++) {
        int *fail = failures[i % kinds];

        *fail = i < kinds ? STORE_ENOSPC : ENOSPC;
        CHECK_CODE(snapshot(), KEEL_ERR_IO);
        CHECK(*fail == 0 && committed(s) == 0);
        propose(1);
    }
    CHECK_CODE(snapshot(), KEEL_OK);
    CHECK(committed(s) == 1);
    /* What was given up is not left behind. */
    CHECK(s->images.n == 1);
    stop(s);

    /* At a start it is the start that fails. */
    s->fail_get = STORE_EIO;
    {
        keel_config config = KEEL_CONFIG_INIT;
        keel_callbacks callbacks = KEEL_CALLBACKS_INIT;

        config.id = 1;
        config.cluster = 77;
        config.storage = store_storage(s);
        callbacks.send = on_send;
        s->freed = 0;
        CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_ERR_IO);
    }
    start(s, store_storage(s), 0);
    lead();
    CHECK(count == 3 + 2 * kinds);
    stop(s);
    store_free(s);
}

static void not_kept_at_all(void)
{
    struct store *s = store_new(&k);
    keel_storage storage = *store_storage(s);
    size_t before;

    storage.trim = NULL;
    storage.snap_put = NULL;
    storage.snap_commit = NULL;
    storage.snap_get = NULL;
    storage.snap_drop = NULL;
    start(s, &storage, KEEL_NEW_NODE);
    lead();
    propose(3);
    before = s->log.n;
    CHECK_CODE(snapshot(), KEEL_ERR_STATE);
    CHECK(strstr(keel_errmsg(), "snap_put") != NULL);
    propose(3);
    CHECK(s->log.n == before + 3 && s->images.n == 0 && s->trims == 0);
    stop(s);
    start(s, &storage, 0);
    lead();
    CHECK(count == 6);
    stop(s);
    store_free(s);
}

/* ---- a follower with nothing behind its snapshot ---------------------------- */

static struct store *stores[CLUSTER_MAX];
static struct node *follower;

static const keel_storage *storage_of(struct node *n, uint32_t *flags)
{
    struct store **s = &stores[n->id - 1];

    if (*s == NULL)
        *s = store_new(&n->k);
    *flags = store_is_empty(*s) ? KEEL_NEW_NODE : 0;
    return store_storage(*s);
}

static int on_apply_there(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    return ud == follower ? on_apply(ud, index, term, data, len) : 0;
}

static void on_load_there(void *ud, keel_load *l, uint64_t index)
{
    (void)index;
    CHECK(ud == follower && loading == NULL);
    loading = l;
}

static int is_completed(struct cluster *c, void *arg)
{
    (void)c, (void)arg;
    return completed;
}

/* It knows what the leader has committed, has it in its snapshot, and still must not be read. */
static void not_read_before_it_is_loaded(void)
{
    struct cluster_options options;
    struct cluster *c;
    struct node *leader;

    cluster_options_init(&options, 3, 4);
    options.storage = storage_of;
    options.callbacks.apply = on_apply_there;
    options.callbacks.save = on_save;
    options.callbacks.load = on_load_there;
    c = cluster_new(&options);
    leader = cluster_elect(c);
    follower = &c->nodes[leader->id % 3];
    count = 0;
    CHECK_CODE(keel_propose(leader->k, "x", 1, NULL, NULL), KEEL_OK);
    cluster_wake(leader);
    cluster_run(c, 5000);
    CHECK(count == 1);
    CHECK_CODE(keel_snapshot(follower->k, on_done, NULL), KEEL_OK);
    cluster_wake(follower);
    completed = 0;
    CHECK(cluster_run_until(c, 10000, is_completed, NULL));
    CHECK_CODE(last_status, KEEL_OK);

    count = 0;
    cluster_restart(follower);
    cluster_run(c, 5000);
    CHECK(loading != NULL && keel_leader(follower->k) == leader->id);
    completed = 0;
    CHECK_CODE(keel_barrier(follower->k, on_done, NULL), KEEL_OK);
    cluster_wake(follower);
    cluster_run(c, 5000);
    CHECK(!completed);
    finish_load();
    cluster_wake(follower);
    CHECK(cluster_run_until(c, 5000, is_completed, NULL));
    CHECK_CODE(last_status, KEEL_OK);
    CHECK(count == 1);
    cluster_free(c);
    for (size_t i = 0; i < 3; i++)
        store_free(stores[i]);
}

int main(void)
{
    made_and_found_again();
    found_in_the_log();
    loaded_before_anything_else();
    not_read_before_it_is_loaded();
    failed_and_made_again();
    not_kept_at_all();
    return 0;
}
