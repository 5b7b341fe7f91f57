/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Two connections to one database. `log` belongs to a thread that commits the batches, so that the
 * engine's thread never waits for the disk on their account; every commit there is durable. `rest` is
 * for reading, and for the pieces of images until they are committed: those need not be durable yet.
 *
 * Durable means WAL with synchronous=FULL: every commit syncs the log file. (With a rollback journal
 * FULL is not enough: the journal's removal is the commit, and only EXTRA syncs the directory.)
 */
#include "sqlite_store.h"

#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { PIECE = 64 << 10, BUSY_MS = 60000 };

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS keel_state(one INTEGER PRIMARY KEY, data BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS keel_log(idx INTEGER PRIMARY KEY, data BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS keel_image(image INTEGER PRIMARY KEY, size INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS keel_piece(image INTEGER NOT NULL, at INTEGER NOT NULL,"
    " data BLOB NOT NULL, PRIMARY KEY(image, at));";

enum { BEGIN, COMMIT, ROLLBACK, SET_STATE, CUT, ADD, TRIM, STATE, ENTRIES, IMAGES, UNLIST, FORGET,
       PUT, LIST, GET, TIDY, STATEMENTS };

static const char *const sql[STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [SET_STATE] = "INSERT OR REPLACE INTO keel_state VALUES(?1, ?3)",
    [CUT] = "DELETE FROM keel_log WHERE idx >= ?1",
    [ADD] = "INSERT INTO keel_log VALUES(?1, ?3)",
    [TRIM] = "DELETE FROM keel_log WHERE idx <= ?1",
    [STATE] = "SELECT one, data FROM keel_state",
    [ENTRIES] = "SELECT idx, data FROM keel_log WHERE idx BETWEEN ?1 AND ?2 ORDER BY idx",
    [IMAGES] = "SELECT image, size FROM keel_image",
    [UNLIST] = "DELETE FROM keel_image WHERE image = ?1",
    [FORGET] = "DELETE FROM keel_piece WHERE image = ?1",
    [PUT] = "INSERT INTO keel_piece VALUES(?1, ?2, ?3)",
    [LIST] = "INSERT INTO keel_image SELECT image, sum(length(data)) FROM keel_piece WHERE image = ?1",
    [GET] = "SELECT at, data FROM keel_piece WHERE image = ?1 AND at <= ?2 ORDER BY at DESC LIMIT 1",
    [TIDY] = "DELETE FROM keel_piece WHERE image NOT IN (SELECT image FROM keel_image)",
};

struct connection {
    pthread_mutex_t mutex; /* held from the first step of a statement to its reset */
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENTS];
};

struct batch { /* a copy: what the engine gives is valid only while `write` runs */
    struct batch *next;
    keel_batch given;
    keel_record records[]; /* the state, the entries, and behind them their bytes */
};

struct sqlite_store {
    keel_storage storage;
    keel *const *k;
    int lock; /* SQLite lets several processes in, raftkeel must not */
    struct connection log, rest;
    pthread_t writer;
    bool writes; /* the thread runs */
    pthread_mutex_t mutex; /* of the fields below */
    pthread_cond_t changed;
    struct batch *first, *last; /* to be written, in order */
    uint64_t trimmed;           /* entries up to here may be deleted */
    bool stopping;
};

/* ---- statements ------------------------------------------------------------- */

static int complain(const struct connection *c, int code)
{
    if (code != SQLITE_OK)
        fprintf(stderr, "SQLite: %s: %s\n", sqlite3_errstr(code), sqlite3_errmsg(c->db));
    return code;
}

/* Binds ?1, ?2 and ?3, up to the last that the statement has. */
static int bind(sqlite3_stmt *st, uint64_t a, uint64_t b, const void *data, size_t len)
{
    int n = sqlite3_bind_parameter_count(st), code = SQLITE_OK;

    if (n >= 1)
        code = sqlite3_bind_int64(st, 1, (sqlite3_int64)a);
    if (code == SQLITE_OK && n >= 2)
        code = sqlite3_bind_int64(st, 2, (sqlite3_int64)b);
    if (code == SQLITE_OK && n >= 3)
        code = sqlite3_bind_blob64(st, 3, data, len, SQLITE_STATIC);
    return code;
}

/* A statement that gives no rows. */
static int run(struct connection *c, int what, uint64_t a, uint64_t b, const void *data, size_t len)
{
    sqlite3_stmt *st = c->statements[what];
    int code = bind(st, a, b, data, len), reset;

    if (code == SQLITE_OK && (code = sqlite3_step(st)) == SQLITE_DONE)
        code = SQLITE_OK;
    reset = sqlite3_reset(st); /* says it again, if the step failed */
    return complain(c, code != SQLITE_OK ? code : reset);
}

/* What BEGIN began: all of it is committed, or nothing is left of it. */
static int finish(struct connection *c, int code)
{
    if (code == SQLITE_OK)
        code = run(c, COMMIT, 0, 0, NULL, 0);
    if (code != SQLITE_OK && !sqlite3_get_autocommit(c->db))
        run(c, ROLLBACK, 0, 0, NULL, 0);
    return code;
}

/* ---- the log ---------------------------------------------------------------- */

static int write_batch(struct connection *c, const keel_batch *b, uint64_t trimmed)
{
    int code;

    pthread_mutex_lock(&c->mutex);
    code = run(c, BEGIN, 0, 0, NULL, 0);
    if (code == SQLITE_OK)
        code = run(c, SET_STATE, 1, 0, b->state.data, b->state.len);
    if (code == SQLITE_OK)
        code = run(c, CUT, b->cut, 0, NULL, 0);
    for (size_t i = 0; code == SQLITE_OK && i < b->n; i++)
        code = run(c, ADD, b->first + i, 0, b->entries[i].data, b->entries[i].len);
    if (code == SQLITE_OK && trimmed > 0)
        code = run(c, TRIM, trimmed, 0, NULL, 0);
    code = finish(c, code);
    pthread_mutex_unlock(&c->mutex);
    return code;
}

static void *write_batches(void *arg)
{
    struct sqlite_store *s = arg;
    int code = SQLITE_OK;

    pthread_mutex_lock(&s->mutex);
    for (;;) {
        struct batch *b = s->first;
        uint64_t trimmed = s->trimmed;

        if (b == NULL && s->stopping)
            break;
        if (b == NULL) {
            pthread_cond_wait(&s->changed, &s->mutex);
            continue;
        }
        s->trimmed = 0;
        if ((s->first = b->next) == NULL)
            s->last = NULL;
        pthread_mutex_unlock(&s->mutex);
        if (code == SQLITE_OK) /* after a failure nothing is written any more: batches are in order */
            code = write_batch(&s->log, &b->given, trimmed);
        /* An engine that is dead refuses, and needs to know nothing. */
        keel_write_done(*s->k, b->given.number, code);
        free(b);
        pthread_mutex_lock(&s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

/* Puts a record's bytes at `to`, and there the record points; returns where they end. */
static unsigned char *keep(keel_record *r, const keel_record *given, unsigned char *to)
{
    r->data = memcpy(to, given->data, given->len);
    r->len = given->len;
    return to + given->len;
}

static int on_write(void *ud, const keel_batch *given)
{
    struct sqlite_store *s = ud;
    size_t bytes = given->state.len;
    struct batch *b;
    unsigned char *to;

    for (size_t i = 0; i < given->n; i++)
        bytes += given->entries[i].len;
    b = malloc(sizeof *b + (given->n + 1) * sizeof *b->records + bytes);
    if (b == NULL)
        return SQLITE_NOMEM;
    b->next = NULL;
    b->given = *given;
    b->given.entries = b->records + 1;
    to = keep(&b->given.state, &given->state, (unsigned char *)(b->records + given->n + 1));
    for (size_t i = 0; i < given->n; i++)
        to = keep(&b->records[i + 1], &given->entries[i], to);
    pthread_mutex_lock(&s->mutex);
    if (s->last != NULL)
        s->last->next = b;
    else
        s->first = b;
    s->last = b;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->mutex);
    return SQLITE_OK;
}

/* With the next batch: it needs no transaction of its own. */
static int on_trim(void *ud, uint64_t index)
{
    struct sqlite_store *s = ud;

    pthread_mutex_lock(&s->mutex);
    if (s->trimmed < index)
        s->trimmed = index;
    pthread_mutex_unlock(&s->mutex);
    return SQLITE_OK;
}

/* ---- what is stored ----------------------------------------------------------- */

static int give_state(keel_records *r, sqlite3_stmt *st)
{
    return keel_records_state(r, sqlite3_column_blob(st, 1), (size_t)sqlite3_column_bytes(st, 1));
}

static int give_entry(keel_records *r, sqlite3_stmt *st)
{
    return keel_records_entry(r, (uint64_t)sqlite3_column_int64(st, 0), sqlite3_column_blob(st, 1),
                              (size_t)sqlite3_column_bytes(st, 1));
}

static int give_image(keel_records *r, sqlite3_stmt *st)
{
    return keel_records_image(r, (uint64_t)sqlite3_column_int64(st, 0),
                              (uint64_t)sqlite3_column_int64(st, 1));
}

/* Every row, until `give` has enough or refuses. */
static int rows(struct connection *c, int what, uint64_t a, uint64_t b, keel_records *r,
                int (*give)(keel_records *, sqlite3_stmt *))
{
    sqlite3_stmt *st = c->statements[what];
    int code = bind(st, a, b, NULL, 0), given = KEEL_OK;

    if (code != SQLITE_OK)
        return complain(c, code);
    while (given == KEEL_OK && (code = sqlite3_step(st)) == SQLITE_ROW)
        given = give(r, st);
    if (given == KEEL_OK && code != SQLITE_DONE)
        complain(c, code);
    else
        code = SQLITE_OK;
    sqlite3_reset(st); /* a failure of the step was seen above */
    return code != SQLITE_OK ? -code : given; /* SQLITE_ERROR would pass for KEEL_ENOUGH */
}

static int on_open(void *ud, keel_records *r)
{
    struct sqlite_store *s = ud;
    struct connection *c = &s->rest;
    int code;

    pthread_mutex_lock(&c->mutex);
    code = run(c, TIDY, 0, 0, NULL, 0);
    if (code == SQLITE_OK)
        code = rows(c, STATE, 0, 0, r, give_state);
    if (code == SQLITE_OK)
        code = rows(c, ENTRIES, 0, INT64_MAX, r, give_entry);
    if (code == SQLITE_OK)
        code = rows(c, IMAGES, 0, 0, r, give_image);
    pthread_mutex_unlock(&c->mutex);
    return code;
}

static int on_read(void *ud, uint64_t first, uint64_t last, keel_records *r)
{
    struct sqlite_store *s = ud;
    int code;

    pthread_mutex_lock(&s->rest.mutex);
    code = rows(&s->rest, ENTRIES, first, last, r, give_entry);
    pthread_mutex_unlock(&s->rest.mutex);
    return code;
}

/* ---- images ------------------------------------------------------------------- */

static int drop(struct connection *c, uint64_t image)
{
    int code = run(c, UNLIST, image, 0, NULL, 0);

    return code == SQLITE_OK ? run(c, FORGET, image, 0, NULL, 0) : code;
}

static int on_snap_put(void *ud, uint64_t image, uint64_t offset, const void *data, size_t len)
{
    struct sqlite_store *s = ud;
    struct connection *c = &s->rest;
    int code;

    pthread_mutex_lock(&c->mutex);
    code = run(c, BEGIN, 0, 0, NULL, 0);
    if (code == SQLITE_OK && offset == 0)
        code = drop(c, image);
    for (size_t at = 0; code == SQLITE_OK && at < len; at += PIECE)
        code = run(c, PUT, image, offset + at, (const char *)data + at,
                   len - at < PIECE ? len - at : PIECE);
    code = finish(c, code);
    pthread_mutex_unlock(&c->mutex);
    return code;
}

/* What `rest` has committed is in the same file before this: it becomes durable with it. */
static int on_snap_commit(void *ud, uint64_t image)
{
    struct sqlite_store *s = ud;
    int code;

    pthread_mutex_lock(&s->log.mutex);
    code = run(&s->log, LIST, image, 0, NULL, 0);
    pthread_mutex_unlock(&s->log.mutex);
    return code;
}

static int on_snap_get(void *ud, uint64_t image, uint64_t offset, void *buf, size_t cap, size_t *got)
{
    struct sqlite_store *s = ud;
    struct connection *c = &s->rest;
    sqlite3_stmt *st = c->statements[GET];
    int code;

    *got = 0;
    pthread_mutex_lock(&c->mutex);
    code = bind(st, image, offset, NULL, 0);
    if (code == SQLITE_OK && (code = sqlite3_step(st)) == SQLITE_ROW) {
        uint64_t skip = offset - (uint64_t)sqlite3_column_int64(st, 0);
        const char *data = sqlite3_column_blob(st, 1);
        uint64_t len = (uint64_t)sqlite3_column_bytes(st, 1);

        if (skip < len) {
            *got = len - skip < cap ? (size_t)(len - skip) : cap;
            memcpy(buf, data + skip, *got);
        }
        code = SQLITE_DONE;
    }
    code = complain(c, code == SQLITE_DONE ? SQLITE_OK : code);
    sqlite3_reset(st);
    pthread_mutex_unlock(&c->mutex);
    return code;
}

static int on_snap_drop(void *ud, uint64_t image)
{
    struct sqlite_store *s = ud;
    int code;

    pthread_mutex_lock(&s->rest.mutex);
    code = drop(&s->rest, image);
    pthread_mutex_unlock(&s->rest.mutex);
    return code;
}

/* ---- open and close ----------------------------------------------------------- */

/* Whether the database is in the mode that was asked for: on some file systems WAL cannot be had. */
static int use_wal(sqlite3 *db)
{
    sqlite3_stmt *st;
    int code = sqlite3_prepare_v2(db, "PRAGMA journal_mode=WAL", -1, &st, NULL);

    if (code != SQLITE_OK)
        return code;
    code = sqlite3_step(st);
    if (code == SQLITE_ROW)
        code = strcmp((const char *)sqlite3_column_text(st, 0), "wal") == 0 ? SQLITE_OK : SQLITE_CANTOPEN;
    sqlite3_finalize(st); /* repeats what the step said */
    return code;
}

static int connect_to(struct connection *c, const char *path, const char *pragmas)
{
    int code = sqlite3_open_v2(path, &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);

    if (code == SQLITE_OK)
        code = sqlite3_busy_timeout(c->db, BUSY_MS); /* the connections wait for each other */
    if (code == SQLITE_OK)
        code = use_wal(c->db);
    if (code == SQLITE_OK)
        code = sqlite3_exec(c->db, pragmas, NULL, NULL, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(c->db, schema, NULL, NULL, NULL);
    for (int i = 0; code == SQLITE_OK && i < STATEMENTS; i++)
        code = sqlite3_prepare_v3(c->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &c->statements[i], NULL);
    return complain(c, code);
}

static void disconnect(struct connection *c)
{
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(c->statements[i]);
    complain(c, sqlite3_close(c->db));
    pthread_mutex_destroy(&c->mutex);
}

/* A file of its own beside the database: SQLite loses its locks when that is opened and closed. */
static int lock_beside(const char *path)
{
    char *name = sqlite3_mprintf("%s-lock", path);
    int fd = name != NULL ? open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0) {
        perror(name != NULL ? name : path);
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    sqlite3_free(name);
    return fd;
}

struct sqlite_store *sqlite_store_open(const char *path, keel *const *k)
{
    struct sqlite_store *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->k = k;
    pthread_mutex_init(&s->log.mutex, NULL);
    pthread_mutex_init(&s->rest.mutex, NULL);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->storage = (keel_storage)KEEL_STORAGE_INIT;
    s->storage.ud = s;
    s->storage.open = on_open;
    s->storage.write = on_write;
    s->storage.read = on_read;
    s->storage.trim = on_trim;
    s->storage.snap_put = on_snap_put;
    s->storage.snap_commit = on_snap_commit;
    s->storage.snap_get = on_snap_get;
    s->storage.snap_drop = on_snap_drop;
    s->lock = lock_beside(path);
    if (s->lock >= 0 && connect_to(&s->log, path, "PRAGMA synchronous=FULL") == SQLITE_OK &&
        connect_to(&s->rest, path, "PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0") == SQLITE_OK)
        s->writes = pthread_create(&s->writer, NULL, write_batches, s) == 0;
    if (s->writes)
        return s;
    sqlite_store_close(s);
    return NULL;
}

const keel_storage *sqlite_store_callbacks(struct sqlite_store *s)
{
    return &s->storage;
}

void sqlite_store_stop(struct sqlite_store *s)
{
    if (!s->writes)
        return;
    pthread_mutex_lock(&s->mutex);
    s->stopping = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->mutex);
    pthread_join(s->writer, NULL);
    s->writes = false;
}

void sqlite_store_close(struct sqlite_store *s)
{
    disconnect(&s->rest);
    disconnect(&s->log);
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->changed);
    if (s->lock >= 0)
        close(s->lock);
    free(s);
}
