/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Does a keel_storage do what raftkeel.h asks for? Define `storage_host` for yours, compile it with
 * checks.c, nodes.c and syncs.c, and run it with a directory that it may write to:
 *
 *     cc yours.c yours_host.c checks.c nodes.c syncs.c $(pkg-config --cflags --libs raftkeel) -pthread
 *     ./a.out DIRECTORY [CHECK..]
 *
 * It prints a line a check, and why one has failed; the exit status is 0 if none has. A check runs
 * in a process of its own, with one engine or three, each on a store of yours, driven by keel_fd() as
 * a daemon does it. sqlite_host.c is the one of sqlite_store.c.
 *
 * What it cannot see: whether what was synced survives the loss of power, for which somebody has to
 * pull the plug. It kills processes, which leaves the system's cache alone; and if `syncs` is set it
 * sees to it that the system was asked.
 */
#ifndef CONFORMANCE_HOST_H
#define CONFORMANCE_HOST_H

#include <raftkeel.h>

struct storage_host {
    const char *name;
    /* Opens store `number`, from 0 to 2; those of one number are the same store. `fresh`: as one that
     * never held anything, whatever is there. `k` is where its engine will be, for keel_write_done().
     * NULL: it failed. Up to three are open at a time. */
    void *(*open)(const char *directory, unsigned number, int fresh, keel *const *k);
    /* For keel_config.storage. */
    const keel_storage *(*callbacks)(void *store);
    /* Nobody drives the engine any more, and keel_free() comes next: from when this returns nothing is
     * reported to it. What is under way may be finished or lost. */
    void (*stop)(void *store);
    /* After keel_free(), or if there was no engine. What is still under way is lost for good. */
    void (*close)(void *store);
    /* The next write fails. NULL if there is no way to order that, or `syncs` is set. */
    void (*fail)(void *store);
    /* 1: what is durable is still there when the process is killed. */
    int survives;
    /* 1: it becomes durable by fsync() or fdatasync(), called in this process through the dynamic
     * linker. Then the program counts, delays and fails these calls. */
    int syncs;
};

extern const struct storage_host storage_host;

#endif
