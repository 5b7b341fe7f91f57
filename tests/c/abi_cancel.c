/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A thread that is cancelled while it is in the library leaves it first: what a cancellation would
 * unwind is not C, and the process would end. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "check.h"

static keel *k;
static unsigned saves;
static pthread_t saver;

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud, (void)to, (void)msg, (void)len;
}

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    (void)ud, (void)index, (void)term, (void)data, (void)len;
    return 0;
}

static void on_load(void *ud, keel_load *l, uint64_t index)
{
    (void)ud, (void)index;
    CHECK_CODE(keel_load_finish(l, KEEL_OK), KEEL_OK);
}

static void pause_ms(long ms)
{
    const struct timespec pause = {0, ms * 1000000};

    nanosleep(&pause, NULL);
}

/* Every call but the last goes to the disk or wakes the descriptor. */
static void *save(void *arg)
{
    static const char data[200000];

    CHECK_CODE(keel_save_write(arg, data, sizeof data), KEEL_OK);
    CHECK_CODE(keel_save_finish(arg, KEEL_OK), KEEL_OK);
    for (;;)
        pthread_testcancel();
    return NULL;
}

static void on_save(void *ud, keel_save *s, uint64_t index)
{
    (void)ud, (void)index;
    saves++;
    CHECK(pthread_create(&saver, NULL, save, s) == 0);
    /* It is asked to end before it has begun: its first call is where it would. */
    CHECK(pthread_cancel(saver) == 0);
}

static void *propose(void *arg)
{
    (void)arg;
    for (;;) {
        int code = keel_propose(k, "x", 1, NULL, NULL);

        CHECK(code == KEEL_OK || code == KEEL_ERR_FULL);
        pthread_testcancel();
    }
    return NULL;
}

static void join(pthread_t thread)
{
    void *result;

    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED);
}

static void on_done(void *arg, int status, uint64_t index)
{
    (void)index;
    CHECK(status == KEEL_OK);
    *(int *)arg = 1;
}

static void those_who_ask(void)
{
    for (int i = 0; i < 200; i++) {
        pthread_t thread;

        CHECK(pthread_create(&thread, NULL, propose, NULL) == 0);
        pause_ms(i % 2);
        CHECK(pthread_cancel(thread) == 0);
        join(thread);
        CHECK_CODE(keel_dispatch(k), KEEL_OK);
    }
}

static void those_who_save(void)
{
    for (unsigned i = 1; i <= 5; i++) {
        int done = 0;

        CHECK_CODE(keel_propose(k, "x", 1, NULL, NULL), KEEL_OK);
        CHECK_CODE(keel_dispatch(k), KEEL_OK);
        CHECK_CODE(keel_snapshot(k, on_done, &done), KEEL_OK);
        while (!done) {
            CHECK_CODE(keel_dispatch(k), KEEL_OK);
            pause_ms(1);
        }
        CHECK(saves == i);
        join(saver);
    }
}

int main(void)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel_peer peer = KEEL_PEER_INIT;

    config.id = peer.id = 1;
    config.cluster = 77;
    config.dir = "cancelled";
    config.flags = KEEL_NEW_NODE;
    callbacks.send = on_send;
    callbacks.apply = on_apply;
    callbacks.save = on_save;
    callbacks.load = on_load;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_OK);
    CHECK(keel_fd(k) >= 0);
    while (keel_role(k) != KEEL_ROLE_LEADER) {
        CHECK_CODE(keel_dispatch(k), KEEL_OK);
        pause_ms(1);
    }
    those_who_ask();
    those_who_save();
    CHECK_CODE(keel_free(k), KEEL_OK);
    return 0;
}
