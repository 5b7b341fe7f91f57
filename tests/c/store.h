/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A host's own storage, in memory: what the header asks for, done naively, and everything that a
 * disk may do to it. Batches may be held, be late, be reported from another thread, fail, and be
 * lost in a crash.
 */
#ifndef STORE_H
#define STORE_H

#include <pthread.h>

#include "raftkeel.h"

/* Codes of this host's own, of no meaning to the library. */
#define STORE_EIO (-1005)
#define STORE_ENOSPC (-1028)

struct record {
    uint64_t index; /* of an entry; the number of an image */
    unsigned char *data;
    size_t len;
    int committed; /* an image */
};

struct records {
    struct record *all; /* by index */
    size_t n, room;
};

struct batch {
    struct batch *next;
    uint64_t number, cut, due_ms;
    struct record state;
    struct records entries;
};

struct store {
    /* The program's to set: */
    int held;                       /* batches wait for store_land() */
    uint64_t (*due_ms)(void *arg);  /* or for store_run(): by when; asked for each, or NULL */
    void *arg;
    /* What the next such call says, if not 0. */
    int fail_open, fail_write, fail_done, fail_read, fail_put, fail_commit, fail_get;
    int freed;                      /* the engine is: a call from now on ends the program */

    /* To be looked at: */
    unsigned opened, taken, reads, trims;
    struct record state;
    struct records log, images;

    keel *const *k;
    keel_storage storage;
    struct batch *first, *last; /* under way, in order */
    uint64_t number;            /* of the last batch taken */
    uint64_t past;              /* the last number of the earlier runs that have stored anything */
    unsigned batches;           /* of this run */
    int stored;                 /* at least one of them */
    int broken;                 /* a batch has failed: nothing lands any more before a crash */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread;
    int has_thread, stop;
};

/* `k`: where the engine will be, which is told of what is done. */
struct store *store_new(keel *const *k);
void store_free(struct store *s);
/* For keel_config.storage. */
const keel_storage *store_storage(struct store *s);

/* The oldest batch under way lands on the disk and is reported; 0 if there is none. */
int store_land(struct store *s);
/* All that is due by now; when the next one is, UINT64_MAX if none is under way. */
uint64_t store_run(struct store *s, uint64_t now_ms);
/* From now on a thread lands and reports whatever comes; until store_thread_stop(). */
void store_thread_start(struct store *s);
void store_thread_stop(struct store *s);

/* The machine stops: of what is under way the oldest `landed` batches are on the disk, the others
 * never were. Call it before the engine is made again. */
void store_crash(struct store *s, size_t landed);
size_t store_under_way(struct store *s);
/* Whether nothing was ever stored. */
int store_is_empty(const struct store *s);

#endif
