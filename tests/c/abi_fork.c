/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A child gets FORKED from everything, can drop its copy, and leaves the parent's alone. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "cluster.h"

static int completions, last_status;

static void on_done(void *arg, int status, uint64_t index)
{
    (void)arg, (void)index;
    completions++;
    last_status = status;
}

static void drop_message(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud, (void)to, (void)msg, (void)len;
}

static void in_the_child(keel *k, keel_status *before)
{
    keel_params params = KEEL_PARAMS_INIT;
    keel_peer peer = KEEL_PEER_INIT;
    keel_status *status;

    peer.id = 1;
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_ERR_FORKED);
    CHECK_CODE(keel_step(k, 1, NULL), KEEL_ERR_FORKED);
    CHECK_CODE(keel_recv(k, 1, "x", 1), KEEL_ERR_FORKED);
    CHECK_CODE(keel_fd(k), KEEL_ERR_FORKED);
    CHECK_CODE(keel_timeout_ms(k), KEEL_ERR_FORKED);
    CHECK_CODE(keel_dispatch(k), KEEL_ERR_FORKED);
    CHECK_CODE(keel_propose(k, "x", 1, on_done, NULL), KEEL_ERR_FORKED);
    CHECK_CODE(keel_node_add(k, &peer, on_done, NULL), KEEL_ERR_FORKED);
    CHECK_CODE(keel_node_promote(k, 1, on_done, NULL), KEEL_ERR_FORKED);
    CHECK_CODE(keel_node_remove(k, 1, on_done, NULL), KEEL_ERR_FORKED);
    CHECK_CODE(keel_node_exclude(k, 1, on_done, NULL), KEEL_ERR_FORKED);
    CHECK_CODE(keel_node_readmit(k, 1, on_done, NULL), KEEL_ERR_FORKED);
    CHECK_CODE(keel_node_replace(k, 1, &peer, on_done, NULL), KEEL_ERR_FORKED);
    CHECK_CODE(keel_set_params(k, &params, on_done, NULL), KEEL_ERR_FORKED);
    CHECK_CODE(keel_heard(k, 1), KEEL_ERR_FORKED);
    CHECK_CODE(keel_lost(k, 1), KEEL_ERR_FORKED);
    CHECK_CODE(keel_write_done(k, 1, 0), KEEL_ERR_FORKED);
    CHECK_CODE(keel_role(k), KEEL_ERR_FORKED);
    CHECK(keel_leader(k) == 0);
    CHECK(keel_epoch(k) == 0);
    CHECK_CODE(keel_check_epoch(k, 1, 1), KEEL_ERR_FORKED);
    CHECK_CODE(keel_lease_ms(k), KEEL_ERR_FORKED);
    CHECK_CODE(keel_get_params(k, &params), KEEL_ERR_FORKED);
    CHECK_CODE(keel_status_take(k, &status), KEEL_ERR_FORKED);
    CHECK(keel_status_info(before)->self == 1);
    keel_status_free(before);
    CHECK_CODE(keel_free(k), KEEL_OK);
    CHECK(completions == 0);
    /* Not _exit(): what the thread that writes had on its stack is lost here, and no leak. */
    execl("/bin/true", "true", (char *)NULL);
}

static void fork_and_use(keel *k)
{
    keel_status *status;
    int ended;
    pid_t child;

    CHECK_CODE(keel_status_take(k, &status), KEEL_OK);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        in_the_child(k, status);
        _exit(0);
    }
    CHECK(waitpid(child, &ended, 0) == child);
    CHECK(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
    keel_status_free(status);
}

static void by_steps(void)
{
    struct cluster_options options;
    struct cluster *c;
    keel *k;

    cluster_options_init(&options, 1, 3);
    c = cluster_new(&options);
    k = cluster_elect(c)->k;
    CHECK_CODE(keel_propose(k, "x", 1, on_done, NULL), KEEL_OK);
    fork_and_use(k);
    cluster_wake(&c->nodes[0]);
    cluster_run(c, 10);
    CHECK(completions == 1 && last_status == KEEL_OK);
    cluster_free(c);
}

/* The child closes its copies of the descriptors; the parent's must still wake it. */
static void behind_a_descriptor(void)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel_peer peer = KEEL_PEER_INIT;
    struct pollfd ready;
    keel *k;

    config.id = 1;
    config.cluster = 77;
    config.dir = "forked";
    config.flags = KEEL_NEW_NODE;
    callbacks.send = drop_message;
    peer.id = 1;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_OK);
    ready.fd = keel_fd(k);
    ready.events = POLLIN;
    CHECK(ready.fd >= 0);
    completions = 0;
    fork_and_use(k);
    while (keel_role(k) != KEEL_ROLE_LEADER) {
        CHECK(poll(&ready, 1, 30000) == 1);
        CHECK_CODE(keel_dispatch(k), KEEL_OK);
    }
    CHECK_CODE(keel_propose(k, "x", 1, on_done, NULL), KEEL_OK);
    while (completions == 0) {
        CHECK(poll(&ready, 1, 30000) == 1);
        CHECK_CODE(keel_dispatch(k), KEEL_OK);
    }
    CHECK(completions == 1 && last_status == KEEL_OK);
    CHECK_CODE(keel_free(k), KEEL_OK);
    /* The lock is gone with it: no copy of it was left in a child. */
    config.flags = 0;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
    CHECK_CODE(keel_free(k), KEEL_OK);
}

/* A child that has not run exec yet, or frees nothing, and its parent, which is done with the engine. */
static void while_a_child_has_copies(void)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    int ended, line[2];
    char c = 0;
    pid_t child;
    keel *k, *other;

    config.id = 1;
    config.cluster = 77;
    config.dir = "copied";
    config.flags = KEEL_NEW_NODE;
    callbacks.send = drop_message;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
    CHECK(pipe(line) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(line[1]);
        c = read(line[0], &c, 1) == 0; /* until the parent closes it */
        execl(c ? "/bin/true" : "/bin/false", "end", (char *)NULL);
        _exit(1);
    }
    config.flags = 0;
    CHECK_CODE(keel_new(&other, &config, &callbacks, NULL), KEEL_ERR_LOCKED);
    CHECK_CODE(keel_free(k), KEEL_OK);
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
    CHECK(close(line[1]) == 0);
    CHECK(waitpid(child, &ended, 0) == child);
    CHECK(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
    /* Nor is it gone with the child. */
    CHECK_CODE(keel_new(&other, &config, &callbacks, NULL), KEEL_ERR_LOCKED);
    CHECK_CODE(keel_free(k), KEEL_OK);
    close(line[0]);
}

static keel_save *saving;

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    (void)ud, (void)index, (void)term, (void)data, (void)len;
    return 0;
}

static void on_save(void *ud, keel_save *s, uint64_t index)
{
    (void)ud, (void)index;
    saving = s;
}

static void on_load(void *ud, keel_load *l, uint64_t index)
{
    (void)ud, (void)index;
    keel_load_finish(l, KEEL_OK);
}

/* A child that frees its copy while a snapshot is written keeps the descriptors of that as long as it
 * lives; the lock is its parent's alone. */
static void while_a_snapshot_is_written(void)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel_peer peer = KEEL_PEER_INIT;
    uint64_t now_ms = 0;
    int ended, line[2], freed[2];
    char c = 0;
    pid_t child;
    keel *k;

    config.id = 1;
    config.cluster = 77;
    config.dir = "saving";
    config.flags = KEEL_NEW_NODE;
    callbacks.send = drop_message;
    callbacks.apply = on_apply;
    callbacks.save = on_save;
    callbacks.load = on_load;
    peer.id = 1;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_OK);
    while (keel_role(k) != KEEL_ROLE_LEADER)
        CHECK_CODE(keel_step(k, now_ms += 100, NULL), KEEL_OK);
    CHECK_CODE(keel_snapshot(k, NULL, NULL), KEEL_OK);
    while (saving == NULL)
        CHECK_CODE(keel_step(k, now_ms += 100, NULL), KEEL_OK);
    CHECK(pipe(line) == 0 && pipe(freed) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(line[1]);
        CHECK_CODE(keel_free(k), KEEL_OK);
        CHECK_CODE(keel_save_finish(saving, KEEL_OK), KEEL_ERR_FORKED);
        CHECK(write(freed[1], "x", 1) == 1);
        _exit(read(line[0], &c, 1) != 0); /* until the parent closes it */
    }
    CHECK(read(freed[0], &c, 1) == 1);
    CHECK_CODE(keel_save_finish(saving, KEEL_OK), KEEL_OK);
    CHECK_CODE(keel_free(k), KEEL_OK);
    config.flags = 0;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
    CHECK(close(line[1]) == 0);
    CHECK(waitpid(child, &ended, 0) == child);
    CHECK(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
    CHECK_CODE(keel_free(k), KEEL_OK);
    close(line[0]), close(freed[0]), close(freed[1]);
}

int main(void)
{
    by_steps();
    behind_a_descriptor();
    while_a_child_has_copies();
    while_a_snapshot_is_written();
    return 0;
}
