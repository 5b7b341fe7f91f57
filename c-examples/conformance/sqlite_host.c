/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The SQLite store, to be checked. */
#include <stdio.h>
#include <unistd.h>

#include "../sqlite_store.h"
#include "host.h"

static void *open_store(const char *directory, unsigned number, int fresh, keel *const *k)
{
    static const char *const files[] = {"", "-wal", "-shm", "-lock"};
    char path[4096];

    for (size_t i = sizeof files / sizeof *files; i-- > 0;) {
        snprintf(path, sizeof path, "%s/node%u.db%s", directory, number, files[i]);
        if (fresh)
            unlink(path); /* if it is there */
    }
    return sqlite_store_open(path, k);
}

static const keel_storage *callbacks(void *store)
{
    return sqlite_store_callbacks(store);
}

static void stop(void *store)
{
    sqlite_store_stop(store);
}

static void close_store(void *store)
{
    sqlite_store_stop(store);
    sqlite_store_close(store);
}

const struct storage_host storage_host = {
    .name = "SQLite",
    .open = open_store,
    .callbacks = callbacks,
    .stop = stop,
    .close = close_store,
    .survives = 1,
    .syncs = 1,
};
