/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A list of notes that is a replicated state, of a node whose log and snapshots are in an SQLite
 * database: sqlite_store.c is all that it takes. The list itself is nowhere else: every run has it
 * from the database again, by the last snapshot and the entries behind it. The node is alone in its
 * cluster, to be one program; with peers only its list of them and its `send` would be others.
 *
 *     notes --new FILE [NOTE..]    the node's first run
 *     notes FILE [NOTE..]          every other: adds notes, and prints all that there are
 */
#include <poll.h>
#include <raftkeel.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sqlite_store.h"

struct notes { /* one text, a line a note */
    char *text;
    size_t len;
    unsigned loaded, applied;
};

struct request {
    bool done;
    int status;
};

static int add(struct notes *n, const void *data, size_t len)
{
    char *text = realloc(n->text, n->len + len + 1);

    if (text == NULL)
        return KEEL_ERR_NOMEM;
    n->text = text;
    memcpy(text + n->len, data, len);
    n->len += len;
    return KEEL_OK;
}

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    struct notes *n = ud;
    int rc = add(n, data, len);

    (void)index, (void)term;
    n->applied++;
    return rc != KEEL_OK ? rc : add(n, "\n", 1);
}

static void on_save(void *ud, keel_save *s, uint64_t index)
{
    struct notes *n = ud;

    (void)index;
    keel_save_finish(s, keel_save_write(s, n->text, n->len));
}

static void on_load(void *ud, keel_load *l, uint64_t index)
{
    struct notes *n = ud;
    char piece[4096];
    size_t got = 1;
    int rc = KEEL_OK;

    (void)index;
    n->len = 0;
    while (rc == KEEL_OK && got > 0) {
        rc = keel_load_read(l, piece, sizeof piece, &got);
        if (rc == KEEL_OK)
            rc = add(n, piece, got);
    }
    n->loaded++;
    keel_load_finish(l, rc);
}

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud, (void)to, (void)msg, (void)len; /* there is nobody else */
}

static void on_done(void *arg, int status, uint64_t index)
{
    struct request *r = arg;

    (void)index;
    r->done = true;
    r->status = status;
}

static void turn(keel *k, int *rc)
{
    struct pollfd ready = {keel_fd(k), POLLIN, 0};

    poll(&ready, 1, -1);
    *rc = keel_dispatch(k);
}

static int wait_for(keel *k, struct request *r)
{
    int rc = KEEL_OK;

    while (rc == KEEL_OK && !r->done)
        turn(k, &rc);
    return rc != KEEL_OK ? rc : r->status;
}

static int run(keel *k, char **words, int count)
{
    struct request all = {false, KEEL_OK};
    int rc = KEEL_OK;

    while (rc == KEEL_OK && keel_role(k) != KEEL_ROLE_LEADER)
        turn(k, &rc);
    for (int i = 0; rc == KEEL_OK && i < count; i++) {
        struct request one = {false, KEEL_OK};

        rc = keel_propose(k, words[i], strlen(words[i]), on_done, &one);
        if (rc == KEEL_OK)
            rc = wait_for(k, &one);
    }
    /* From here on what is printed is all that was ever noted. */
    if (rc == KEEL_OK)
        rc = keel_barrier(k, on_done, &all);
    return rc == KEEL_OK ? wait_for(k, &all) : rc;
}

static int start(keel **k, struct sqlite_store *store, struct notes *notes, bool is_new)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel_peer self = KEEL_PEER_INIT;
    int rc;

    config.id = self.id = 1;
    config.cluster = 1;
    config.storage = sqlite_store_callbacks(store);
    config.flags = is_new ? KEEL_NEW_NODE : 0;
    config.heartbeat_ms = 10; /* nobody is to be heard: it may lead soon */
    config.compact_entries = 8;
    callbacks.send = on_send;
    callbacks.apply = on_apply;
    callbacks.save = on_save;
    callbacks.load = on_load;
    rc = keel_new(k, &config, &callbacks, notes);
    if (rc == KEEL_OK)
        rc = keel_bootstrap(*k, &self, 1);
    return rc == KEEL_ERR_EXISTS && *k != NULL ? KEEL_OK : rc;
}

int main(int argc, char **argv)
{
    bool is_new = argc > 1 && strcmp(argv[1], "--new") == 0;
    int first = is_new ? 3 : 2, rc;
    struct notes notes = {NULL, 0, 0, 0};
    struct sqlite_store *store;
    keel *k = NULL;

    if (argc < first)
        return fprintf(stderr, "usage: %s [--new] FILE [NOTE..]\n", argv[0]), 2;
    store = sqlite_store_open(argv[first - 1], &k);
    if (store == NULL)
        return 1;
    rc = start(&k, store, &notes, is_new);
    if (rc == KEEL_OK)
        rc = run(k, argv + first, argc - first);
    if (rc != KEEL_OK)
        fprintf(stderr, "%s: %s\n", keel_strerror(rc), keel_errmsg());
    sqlite_store_stop(store);
    keel_free(k);
    sqlite_store_close(store);
    if (rc == KEEL_OK) {
        fwrite(notes.text, 1, notes.len, stdout);
        printf("(%u snapshot and %u entries)\n", notes.loaded, notes.applied);
    }
    free(notes.text);
    return rc == KEEL_OK ? 0 : 1;
}
