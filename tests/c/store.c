/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "store.h"

#include <string.h>

#include "check.h"

static void lock(struct store *s)
{
    CHECK(pthread_mutex_lock(&s->mutex) == 0);
    CHECK(!s->freed);
}

static void unlock(struct store *s)
{
    CHECK(pthread_mutex_unlock(&s->mutex) == 0);
}

static unsigned char *copy(const void *data, size_t len)
{
    unsigned char *made = malloc(len ? len : 1);

    CHECK(made != NULL);
    if (len > 0)
        memcpy(made, data, len);
    return made;
}

/* Where `index` is, or would be. */
static size_t place(const struct records *r, uint64_t index)
{
    size_t at = r->n;

    while (at > 0 && r->all[at - 1].index >= index)
        at--;
    return at;
}

static struct record *find(struct records *r, uint64_t index)
{
    size_t at = place(r, index);

    return at < r->n && r->all[at].index == index ? &r->all[at] : NULL;
}

/* From `from` up to and without `to`. */
static void delete(struct records *r, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        free(r->all[i].data);
    if (to > from)
        memmove(r->all + from, r->all + to, (r->n - to) * sizeof *r->all);
    r->n -= to - from;
}

static struct record *insert(struct records *r, uint64_t index, const void *data, size_t len)
{
    size_t at = place(r, index);

    CHECK(find(r, index) == NULL);
    if (r->n == r->room) {
        r->room = r->room ? 2 * r->room : 16;
        r->all = realloc(r->all, r->room * sizeof *r->all);
        CHECK(r->all != NULL);
    }
    memmove(r->all + at + 1, r->all + at, (r->n - at) * sizeof *r->all);
    r->n++;
    r->all[at].index = index;
    r->all[at].data = copy(data, len);
    r->all[at].len = len;
    r->all[at].committed = 0;
    return &r->all[at];
}

static void clear(struct records *r)
{
    delete(r, 0, r->n);
    free(r->all);
    memset(r, 0, sizeof *r);
}

static void drop_batch(struct batch *b)
{
    free(b->state.data);
    clear(&b->entries);
    free(b);
}

/* The oldest, which is under way no more; NULL if there is none, or the disk has failed. */
static struct batch *shift(struct store *s)
{
    struct batch *b = s->broken ? NULL : s->first;

    if (b != NULL && (s->first = b->next) == NULL)
        s->last = NULL;
    return b;
}

/* One transaction: what the header says, in its order. */
static void land(struct store *s, struct batch *b)
{
    s->stored = 1;
    free(s->state.data);
    s->state.data = copy(b->state.data, b->state.len);
    s->state.len = b->state.len;
    delete(&s->log, place(&s->log, b->cut), s->log.n);
    for (size_t i = 0; i < b->entries.n; i++)
        insert(&s->log, b->entries.all[i].index, b->entries.all[i].data, b->entries.all[i].len);
}

/* What the next call is to say. */
static int failure(int *fail)
{
    int code = *fail;

    *fail = 0;
    return code;
}

static int on_open(void *ud, keel_records *r)
{
    struct store *s = ud;
    int code;

    lock(s);
    s->opened++;
    s->past = s->stored ? s->number : s->past;
    s->batches = 0;
    s->stored = 0;
    CHECK(s->first == NULL);
    code = failure(&s->fail_open);
    if (code == 0 && s->state.data != NULL)
        code = keel_records_state(r, s->state.data, s->state.len);
    for (size_t i = 0; code == 0 && i < s->log.n; i++)
        code = keel_records_entry(r, s->log.all[i].index, s->log.all[i].data, s->log.all[i].len);
    for (size_t i = 0; code == 0 && i < s->images.n; i++)
        if (s->images.all[i].committed)
            code = keel_records_image(r, s->images.all[i].index, s->images.all[i].len);
    unlock(s);
    return code;
}

/* Called with the mutex held, which is released: whoever is told may call back. What failed may
 * be on the disk all the same, and what came after it with it: a crash decides. */
static void report(struct store *s, struct batch *b)
{
    int code = failure(&s->fail_done);
    uint64_t number = b->number;

    if (code == 0) {
        land(s, b);
        drop_batch(b);
    } else {
        s->broken = 1;
        b->next = s->first;
        s->first = b;
        s->last = s->last != NULL ? s->last : b;
    }
    unlock(s);
    /* A dead engine wants to know no more. */
    code = keel_write_done(*s->k, number, code);
    CHECK(code == KEEL_OK || code == KEEL_ERR_CLOSED);
}

static int on_write(void *ud, const keel_batch *given)
{
    struct store *s = ud;
    struct batch *b = calloc(1, sizeof *b);
    int code;

    CHECK(b != NULL);
    lock(s);
    CHECK(s->batches++ > 0 ? given->number == s->number + 1 : given->number > s->past);
    s->number = given->number;
    CHECK(given->state.len > 0 && given->state.len < 256);
    CHECK(given->cut >= 1 && given->first >= given->cut);
    s->taken++;
    b->number = given->number;
    b->cut = given->cut;
    b->state.data = copy(given->state.data, given->state.len);
    b->state.len = given->state.len;
    for (size_t i = 0; i < given->n; i++)
        insert(&b->entries, given->first + i, given->entries[i].data, given->entries[i].len);
    code = failure(&s->fail_write);
    if (code != 0) {
        unlock(s);
        drop_batch(b);
        return code;
    }
    if (s->due_ms != NULL)
        b->due_ms = s->due_ms(s->arg);
    if (!s->held && s->due_ms == NULL && !s->has_thread && s->first == NULL) {
        report(s, b);
        return 0;
    }
    if (s->last != NULL)
        s->last->next = b;
    else
        s->first = b;
    s->last = b;
    pthread_cond_signal(&s->changed);
    unlock(s);
    return 0;
}

static int on_read(void *ud, uint64_t first, uint64_t last, keel_records *r)
{
    struct store *s = ud;
    int code;

    lock(s);
    s->reads++;
    code = failure(&s->fail_read);
    for (size_t i = place(&s->log, first); code == 0 && i < s->log.n; i++) {
        if (s->log.all[i].index > last)
            break;
        code = keel_records_entry(r, s->log.all[i].index, s->log.all[i].data, s->log.all[i].len);
    }
    unlock(s);
    return code;
}

static int on_trim(void *ud, uint64_t index)
{
    struct store *s = ud;

    lock(s);
    s->trims++;
    delete(&s->log, 0, place(&s->log, index + 1));
    unlock(s);
    return 0;
}

static int on_snap_drop(void *ud, uint64_t image)
{
    struct store *s = ud;
    size_t at;

    lock(s);
    at = place(&s->images, image);
    if (find(&s->images, image) != NULL)
        delete(&s->images, at, at + 1);
    unlock(s);
    return 0;
}

static int on_snap_put(void *ud, uint64_t image, uint64_t offset, const void *data, size_t len)
{
    struct store *s = ud;
    struct record *r;

    if (s->fail_put != 0)
        return failure(&s->fail_put);
    if (offset == 0)
        on_snap_drop(ud, image);
    lock(s);
    r = find(&s->images, image);
    if (r == NULL)
        r = insert(&s->images, image, NULL, 0);
    CHECK(r->len == offset && !r->committed);
    r->data = realloc(r->data, r->len + len);
    CHECK(r->data != NULL);
    memcpy(r->data + r->len, data, len);
    r->len += len;
    unlock(s);
    return 0;
}

static int on_snap_commit(void *ud, uint64_t image)
{
    struct store *s = ud;
    struct record *r;
    int code;

    lock(s);
    r = find(&s->images, image);
    CHECK(r != NULL);
    code = failure(&s->fail_commit);
    r->committed = code == 0;
    unlock(s);
    return code;
}

static int on_snap_get(void *ud, uint64_t image, uint64_t offset, void *buf, size_t cap,
                       size_t *got)
{
    struct store *s = ud;
    const struct record *r;
    int code;

    lock(s);
    r = find(&s->images, image);
    code = failure(&s->fail_get);
    if (code == 0 && r == NULL)
        code = STORE_EIO;
    *got = 0;
    if (r != NULL && offset < r->len) {
        *got = r->len - (size_t)offset < cap ? r->len - (size_t)offset : cap;
        memcpy(buf, r->data + offset, *got);
    }
    unlock(s);
    return code;
}

struct store *store_new(keel *const *k)
{
    struct store *s = calloc(1, sizeof *s);
    const keel_storage blank = KEEL_STORAGE_INIT;

    CHECK(s != NULL);
    CHECK(pthread_mutex_init(&s->mutex, NULL) == 0 && pthread_cond_init(&s->changed, NULL) == 0);
    s->k = k;
    s->storage = blank;
    s->storage.ud = s;
    s->storage.open = on_open;
    s->storage.write = on_write;
    s->storage.read = on_read;
    s->storage.trim = on_trim;
    s->storage.snap_put = on_snap_put;
    s->storage.snap_commit = on_snap_commit;
    s->storage.snap_get = on_snap_get;
    s->storage.snap_drop = on_snap_drop;
    return s;
}

const keel_storage *store_storage(struct store *s)
{
    return &s->storage;
}

int store_land(struct store *s)
{
    struct batch *b;

    lock(s);
    b = shift(s);
    if (b != NULL)
        report(s, b);
    else
        unlock(s);
    return b != NULL;
}

uint64_t store_run(struct store *s, uint64_t now_ms)
{
    while (s->first != NULL && s->first->due_ms <= now_ms && store_land(s))
        ;
    return s->first != NULL && !s->broken ? s->first->due_ms : UINT64_MAX;
}

static void *work(void *arg)
{
    struct store *s = arg;

    lock(s);
    while (!s->stop) {
        struct batch *b = shift(s);

        if (b != NULL) {
            report(s, b);
            lock(s);
        } else {
            CHECK(pthread_cond_wait(&s->changed, &s->mutex) == 0);
        }
    }
    unlock(s);
    return NULL;
}

void store_thread_start(struct store *s)
{
    s->stop = 0;
    s->has_thread = 1;
    CHECK(pthread_create(&s->thread, NULL, work, s) == 0);
}

void store_thread_stop(struct store *s)
{
    lock(s);
    s->stop = 1;
    pthread_cond_signal(&s->changed);
    unlock(s);
    CHECK(pthread_join(s->thread, NULL) == 0);
    s->has_thread = 0;
}

void store_crash(struct store *s, size_t landed)
{
    struct batch *b;

    s->broken = 0;
    while ((b = shift(s)) != NULL) {
        if (landed > 0) {
            landed--;
            land(s, b);
        }
        drop_batch(b);
    }
    for (size_t i = s->images.n; i-- > 0;)
        if (!s->images.all[i].committed)
            delete(&s->images, i, i + 1);
    s->freed = 0;
}

void store_free(struct store *s)
{
    store_crash(s, 0);
    clear(&s->log);
    clear(&s->images);
    free(s->state.data);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

size_t store_under_way(struct store *s)
{
    size_t count = 0;

    for (const struct batch *b = s->first; b != NULL; b = b->next)
        count++;
    return count;
}

int store_is_empty(const struct store *s)
{
    return s->state.data == NULL && s->log.n == 0 && s->images.n == 0;
}
