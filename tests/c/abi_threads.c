/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Four threads of inputs and queries on an engine that one thread drives and a sixth tries to. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"

#define THREADS 4
#define ROUNDS 2000

static keel *k;
static atomic_uint accepted, completed, applied, busy, running;
static atomic_int inside;

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    (void)ud, (void)index, (void)term, (void)data, (void)len;
    CHECK(atomic_fetch_add(&inside, 1) == 0); /* one callback at a time */
    atomic_fetch_add(&applied, 1);
    atomic_fetch_sub(&inside, 1);
    return 0;
}

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud, (void)to, (void)msg, (void)len;
}

static void on_done(void *arg, int status, uint64_t index)
{
    unsigned *count = arg;

    CHECK(atomic_fetch_add(&inside, 1) == 0);
    CHECK((status == KEEL_OK) == (index > 0));
    CHECK(++*count == 1); /* the request's own: exactly once */
    atomic_fetch_add(&completed, 1);
    atomic_fetch_sub(&inside, 1);
}

static void *use(void *arg)
{
    unsigned *counts = arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        keel_params params = KEEL_PARAMS_INIT;
        keel_status *status;
        int code = keel_propose(k, &i, sizeof i, on_done, &counts[i]);

        CHECK(code == KEEL_OK || code == KEEL_ERR_FULL);
        if (code == KEEL_OK)
            atomic_fetch_add(&accepted, 1);
        CHECK(keel_recv(k, 2, "nonsense", 8) == KEEL_ERR_MALFORMED);
        /* Each thread has its own message. */
        CHECK(keel_errmsg()[0] != '\0');
        code = keel_heard(k, 2);
        CHECK(code == KEEL_OK || code == KEEL_ERR_FULL);
        CHECK(keel_role(k) == KEEL_ROLE_LEADER && keel_leader(k) == 1);
        CHECK_CODE(keel_get_params(k, &params), KEEL_OK);
        CHECK_CODE(keel_status_take(k, &status), KEEL_OK);
        CHECK(keel_status_count(status) == 1 && keel_status_json(status)[0] == '{');
        keel_status_free(status);
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void *drive_too(void *arg)
{
    (void)arg;
    while (atomic_load(&running) > 0) {
        int code = keel_dispatch(k);

        CHECK(code == KEEL_OK || code == KEEL_ERR_BUSY);
        if (code == KEEL_ERR_BUSY)
            atomic_fetch_add(&busy, 1);
        poll(NULL, 0, 1);
    }
    return NULL;
}

static int leads(void)
{
    return keel_role(k) == KEEL_ROLE_LEADER;
}

static void dispatch_until(int fd, int (*holds)(void))
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    while (!holds()) {
        int code;

        CHECK(poll(&ready, 1, 30000) >= 0);
        code = keel_dispatch(k);
        CHECK(code == KEEL_OK || code == KEEL_ERR_BUSY);
    }
}

static int all_done(void)
{
    return atomic_load(&running) == 0 && atomic_load(&completed) == atomic_load(&accepted);
}

int main(void)
{
    static unsigned counts[THREADS][ROUNDS];
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel_peer peer = KEEL_PEER_INIT;
    pthread_t users[THREADS], rival;
    int fd;

    config.id = peer.id = 1;
    config.cluster = 77;
    config.flags = KEEL_VOLATILE;
    callbacks.apply = on_apply;
    callbacks.send = on_send;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_OK);
    fd = keel_fd(k);
    CHECK(fd >= 0);
    dispatch_until(fd, leads);
    atomic_store(&running, THREADS);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&users[i], NULL, use, counts[i]) == 0);
    CHECK(pthread_create(&rival, NULL, drive_too, NULL) == 0);
    dispatch_until(fd, all_done);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(users[i], NULL) == 0);
    CHECK(pthread_join(rival, NULL) == 0);
    CHECK(atomic_load(&applied) == atomic_load(&accepted));
    CHECK_CODE(keel_free(k), KEEL_OK);
    CHECK(atomic_load(&completed) == atomic_load(&accepted));
    return 0;
}
