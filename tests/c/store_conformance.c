/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* store.c, which is in memory, against the conformance checks that hosts are given. */
#include "../../c-examples/conformance/host.h"

#include "check.h"
#include "store.h"

static struct store *stores[3];

static void *open_store(const char *directory, unsigned number, int fresh, keel *const *k)
{
    struct store **s = &stores[number];

    (void)directory;
    if (fresh && *s != NULL) {
        store_free(*s);
        *s = NULL;
    }
    if (*s == NULL)
        *s = store_new(k);
    store_thread_start(*s);
    return *s;
}

static const keel_storage *callbacks(void *store)
{
    return store_storage(store);
}

static void stop(void *store)
{
    struct store *s = store;

    if (s->has_thread)
        store_thread_stop(s);
}

static void close_store(void *store)
{
    stop(store);
    store_crash(store, 0);
}

static void fail(void *store)
{
    struct store *s = store;

    CHECK(pthread_mutex_lock(&s->mutex) == 0);
    s->fail_done = STORE_EIO;
    CHECK(pthread_mutex_unlock(&s->mutex) == 0);
}

const struct storage_host storage_host = {
    .name = "store.c",
    .open = open_store,
    .callbacks = callbacks,
    .stop = stop,
    .close = close_store,
    .fail = fail,
};
