/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the header says of keel_storage, tried: what is refused, what is late, what fails, what comes
 * back, and who may call what from where. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "cluster.h"
#include "store.h"

static keel *k;
static unsigned sent, applied, stopped, completions;
static int why_stopped, last_status;
static uint64_t now_ms = 5000;

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud, (void)to, (void)msg, (void)len;
    sent++;
}

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    (void)index, (void)term;
    CHECK(ud == &applied && len == 1 && *(const char *)data == 'x');
    applied++;
    return 0;
}

static void on_stopped(void *ud, int why)
{
    CHECK(ud == &applied);
    stopped++;
    why_stopped = why;
}

static void on_done(void *arg, int status, uint64_t index)
{
    (void)arg;
    CHECK((status == KEEL_OK) == (index > 0));
    completions++;
    last_status = status;
}

static keel_config config_of(const keel_storage *storage, uint32_t flags)
{
    keel_config config = KEEL_CONFIG_INIT;

    config.id = 1;
    config.cluster = 77;
    config.storage = storage;
    config.seed = 5;
    config.flags = flags;
    return config;
}

static int try_new(const keel_config *config)
{
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;

    sent = applied = stopped = completions = 0;
    callbacks.send = on_send;
    callbacks.apply = on_apply;
    callbacks.stopped = on_stopped;
    return keel_new(&k, config, &callbacks, &applied);
}

static int open_again(struct store *s, uint32_t flags)
{
    keel_config config = config_of(store_storage(s), flags);

    s->freed = 0;
    return try_new(&config);
}

static void close_store(struct store *s)
{
    CHECK_CODE(keel_free(k), KEEL_OK);
    store_crash(s, 0); /* what is under way is lost */
    s->freed = 1;
    k = NULL;
}

static void bootstrap(size_t n)
{
    const keel_peer blank = KEEL_PEER_INIT;
    keel_peer peers[3];

    for (size_t i = 0; i < n; i++) {
        peers[i] = blank;
        peers[i].id = i + 1;
    }
    CHECK_CODE(keel_bootstrap(k, peers, n), KEEL_OK);
}

static uint64_t step(void)
{
    uint64_t next_ms;

    CHECK_CODE(keel_step(k, now_ms, &next_ms), KEEL_OK);
    return next_ms;
}

/* As long as anything is due, for at most a minute. */
static void run_until(int (*holds)(void))
{
    uint64_t end_ms = now_ms + 60000;

    while (!holds()) {
        uint64_t next_ms = step();

        CHECK(now_ms < end_ms);
        if (next_ms > now_ms)
            now_ms = next_ms < end_ms ? next_ms : end_ms;
    }
}

static int leads(void)
{
    return keel_role(k) == KEEL_ROLE_LEADER;
}

static int has_completed(void)
{
    return completions > 0;
}

static void propose(void)
{
    CHECK_CODE(keel_propose(k, "x", 1, on_done, NULL), KEEL_OK);
}

/* A node alone in its cluster, leading, with one entry of its own. */
static struct store *leader(void)
{
    struct store *s = store_new(&k);

    CHECK_CODE(open_again(s, KEEL_NEW_NODE), KEEL_OK);
    bootstrap(1);
    run_until(leads);
    propose();
    run_until(has_completed);
    CHECK(last_status == KEEL_OK && applied == 1);
    completions = 0;
    return s;
}

/* ---- what is refused --------------------------------------------------- */

#define CHECK_STORAGE(change, wanted)                                                          \
    do {                                                                                       \
        keel_storage storage = *store_storage(s);                                              \
        keel_config config = config_of(&storage, KEEL_NEW_NODE);                               \
        storage.change;                                                                        \
        CHECK_CODE(try_new(&config), wanted);                                                  \
        CHECK((k != NULL) == ((wanted) == KEEL_OK));                                           \
        CHECK_CODE(keel_free(k), KEEL_OK);                                                     \
    } while (0)

static void structs(void)
{
    struct store *s = store_new(&k);
    keel_storage none;
    keel_config config = config_of(store_storage(s), KEEL_NEW_NODE);

    CHECK_STORAGE(ud = s, KEEL_OK);
    CHECK_STORAGE(size = 0, KEEL_ERR_INVALID);
    CHECK(strstr(keel_errmsg(), "KEEL_STORAGE_INIT") != NULL);
    CHECK_STORAGE(size = 8, KEEL_ERR_INVALID);
    CHECK_STORAGE(open = NULL, KEEL_ERR_INVALID);
    CHECK_STORAGE(write = NULL, KEEL_ERR_INVALID);
    CHECK_STORAGE(read = NULL, KEEL_ERR_INVALID);
    CHECK(strstr(keel_errmsg(), "keel_storage.read") != NULL);
    CHECK_STORAGE(trim = NULL, KEEL_ERR_INVALID);
    CHECK_STORAGE(snap_put = NULL, KEEL_ERR_INVALID);
    CHECK_STORAGE(snap_commit = NULL, KEEL_ERR_INVALID);
    CHECK_STORAGE(snap_get = NULL, KEEL_ERR_INVALID);
    CHECK_STORAGE(snap_drop = NULL, KEEL_ERR_INVALID);
    /* All five together may be absent. */
    none = *store_storage(s);
    none.trim = NULL;
    none.snap_put = NULL;
    none.snap_commit = NULL;
    none.snap_get = NULL;
    none.snap_drop = NULL;
    config.storage = &none;
    CHECK_CODE(try_new(&config), KEEL_OK);
    CHECK_CODE(keel_free(k), KEEL_OK);
    /* One place, not two. */
    config.dir = "somewhere";
    CHECK_CODE(try_new(&config), KEEL_ERR_INVALID);
    config.dir = NULL;
    config.flags |= KEEL_VOLATILE;
    CHECK_CODE(try_new(&config), KEEL_ERR_INVALID);
    CHECK(store_is_empty(s));
    store_free(s);
}

static void whose_it_is(void)
{
    struct store *s = leader();
    keel_config config;

    close_store(s);
    CHECK_CODE(open_again(s, KEEL_NEW_NODE), KEEL_ERR_EXISTS);
    CHECK(k == NULL);
    config = config_of(store_storage(s), 0);
    config.id = 2;
    CHECK_CODE(try_new(&config), KEEL_ERR_FOREIGN);
    config = config_of(store_storage(s), 0);
    config.cluster = 78;
    CHECK_CODE(try_new(&config), KEEL_ERR_FOREIGN);
    CHECK_CODE(open_again(s, 0), KEEL_OK);
    close_store(s);
    store_free(s);
    s = store_new(&k);
    CHECK_CODE(open_again(s, 0), KEEL_ERR_NOT_FOUND);
    s->fail_open = STORE_EIO;
    CHECK_CODE(open_again(s, KEEL_NEW_NODE), KEEL_ERR_IO);
    CHECK(strstr(keel_errmsg(), "-1005") != NULL);
    s->fail_open = EIO; /* nor does a positive code pass for an empty store */
    CHECK_CODE(open_again(s, KEEL_NEW_NODE), KEEL_ERR_IO);
    store_free(s);
}

static void damage(void)
{
    struct store *s = leader();
    struct record *r;

    close_store(s);
    CHECK(s->log.n >= 3);
    r = &s->log.all[1];
    r->data[r->len / 2] ^= 1;
    CHECK_CODE(open_again(s, 0), KEEL_ERR_CORRUPT);
    CHECK(strstr(keel_errmsg(), "log index 2") != NULL);
    r->data[r->len / 2] ^= 1;
    s->state.data[20] ^= 1;
    CHECK_CODE(open_again(s, 0), KEEL_ERR_CORRUPT);
    s->state.data[20] ^= 1;
    s->log.n--; /* what was acknowledged is never forgotten */
    CHECK_CODE(open_again(s, 0), KEEL_ERR_CORRUPT);
    CHECK(strstr(keel_errmsg(), "missing") != NULL);
    s->log.n++;
    CHECK_CODE(open_again(s, 0), KEEL_OK);
    close_store(s);
    store_free(s);
}

/* Opens the store in a way of its own: whatever it returns, the first mistake counts. */
static struct store *opening;

static int open_badly(void *ud, keel_records *r)
{
    const struct record *state = &opening->state;
    const struct record *entry = &opening->log.all[0];

    CHECK(ud == opening);
    CHECK_CODE(keel_records_state(NULL, "x", 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_records_entry(NULL, 1, "x", 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_records_image(NULL, 1, 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_records_state(r, state->data, state->len), KEEL_OK);
    CHECK_CODE(keel_records_entry(r, 1, entry->data, entry->len), KEEL_OK);
    CHECK_CODE(keel_records_entry(r, 1, entry->data, entry->len), KEEL_ERR_CORRUPT);
    /* From then on nothing else is said. */
    CHECK_CODE(keel_records_state(r, state->data, state->len), KEEL_ERR_CORRUPT);
    CHECK_CODE(keel_records_image(r, 1, 100), KEEL_ERR_CORRUPT);
    return 0;
}

/* As a database gives back what is there and empty: it is not what is not there. */
static int open_without_bytes(void *ud, keel_records *r)
{
    (void)ud;
    CHECK_CODE(keel_records_state(r, NULL, 0), KEEL_ERR_INVALID);
    return 0;
}

static int open_with_an_empty_entry(void *ud, keel_records *r)
{
    (void)ud;
    CHECK_CODE(keel_records_state(r, opening->state.data, opening->state.len), KEEL_OK);
    CHECK_CODE(keel_records_entry(r, 1, "x", 0), KEEL_ERR_INVALID);
    CHECK_CODE(keel_records_entry(r, 1, NULL, 1), KEEL_ERR_INVALID);
    return 0;
}

static int open_twice(void *ud, keel_records *r)
{
    const struct record *state = &opening->state;

    (void)ud;
    CHECK_CODE(keel_records_state(r, state->data, state->len), KEEL_OK);
    return keel_records_state(r, state->data, state->len);
}

static int open_backwards(void *ud, keel_records *r)
{
    const struct record *entry = &opening->log.all[0];

    (void)ud;
    return keel_records_entry(r, 1, entry->data, entry->len);
}

static int open_with_image(void *ud, keel_records *r)
{
    int code = keel_records_state(r, opening->state.data, opening->state.len);

    (void)ud;
    return code < 0 ? code : keel_records_image(r, 0, 100);
}

static void records(void)
{
    static int (*const ways[])(void *, keel_records *) = {
        open_badly,     open_without_bytes, open_with_an_empty_entry, open_twice,
        open_backwards, open_with_image,
    };

    opening = leader();
    close_store(opening);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        keel_storage storage = *store_storage(opening);
        keel_config config = config_of(&storage, 0);

        opening->freed = 0;
        storage.open = ways[i];
        CHECK_CODE(try_new(&config), KEEL_ERR_CORRUPT);
        config.flags = KEEL_NEW_NODE;
        CHECK_CODE(try_new(&config), KEEL_ERR_CORRUPT);
    }
    store_free(opening);
}

/* ---- what is late ------------------------------------------------------ */

/* Not even a message leaves before the first batch is durable, and no input is lost meanwhile. */
static void a_run_begins_with_its_number(void)
{
    struct store *s = store_new(&k);

    s->held = 1;
    CHECK_CODE(open_again(s, KEEL_NEW_NODE), KEEL_OK);
    CHECK(s->taken == 0);
    bootstrap(3);
    CHECK(s->taken == 1 && store_is_empty(s));
    for (int i = 0; i < 5; i++) {
        CHECK(step() == UINT64_MAX);
        CHECK_CODE(keel_heard(k, 2), KEEL_OK);
        now_ms += 10000;
    }
    propose();
    CHECK(step() == UINT64_MAX);
    CHECK(s->taken == 1 && sent == 0 && completions == 0);
    CHECK(store_land(s));
    CHECK(step() < UINT64_MAX);
    CHECK(completions == 1 && last_status == KEEL_ERR_NOT_LEADER);
    CHECK(sent > 0);
    close_store(s);

    /* Lost, it is as if nothing had been. */
    s->held = 1;
    CHECK_CODE(open_again(s, 0), KEEL_OK);
    CHECK(step() == UINT64_MAX && store_under_way(s) == 1);
    CHECK_CODE(keel_free(k), KEEL_OK);
    store_crash(s, 0);
    CHECK_CODE(open_again(s, 0), KEEL_OK);
    close_store(s);
    store_free(s);
}

static void nothing_is_done_before_it_is_durable(void)
{
    struct store *s = leader();

    s->held = 1;
    propose();
    step();
    CHECK(store_under_way(s) == 1);
    propose();
    step();
    CHECK(store_under_way(s) == 2 && completions == 0 && applied == 1);
    CHECK(store_land(s));
    CHECK(step() > now_ms && completions == 1 && applied == 2);
    CHECK(store_land(s));
    step();
    CHECK(completions == 2 && applied == 3);
    close_store(s);
    store_free(s);
}

/* A disk that is slow gets few batches, and large ones. */
static void few_are_under_way(void)
{
    struct store *s = leader();
    unsigned before = s->taken;

    s->held = 1;
    for (int i = 0; i < 10; i++) {
        propose();
        step();
    }
    CHECK(store_under_way(s) == 4);
    CHECK(store_land(s));
    step();
    CHECK(completions == 1 && store_under_way(s) == 4);
    CHECK(s->last->entries.n == 6);
    while (store_land(s))
        step();
    CHECK(completions == 10 && last_status == KEEL_OK && s->taken == before + 5);
    close_store(s);
    store_free(s);
}

static void reports_come_in_order(void)
{
    struct store *s = leader();
    keel_config config = config_of(NULL, KEEL_VOLATILE);
    uint64_t last = s->number;

    s->held = 1;
    propose();
    step();
    propose();
    step();
    CHECK_CODE(keel_write_done(NULL, last + 1, 0), KEEL_ERR_INVALID);
    CHECK_CODE(keel_write_done(k, last, 0), KEEL_ERR_INVALID);     /* again */
    CHECK_CODE(keel_write_done(k, last + 2, 0), KEEL_ERR_INVALID); /* not the oldest */
    CHECK(strstr(keel_errmsg(), "reported") != NULL);
    CHECK_CODE(keel_write_done(k, last + 3, 0), KEEL_ERR_INVALID); /* never given */
    CHECK_CODE(keel_write_done(k, 0, 0), KEEL_ERR_INVALID);
    CHECK_CODE(keel_write_done(k, UINT64_MAX, 0), KEEL_ERR_INVALID);
    step();
    CHECK(completions == 0);
    CHECK(store_land(s) && store_land(s) && !store_land(s));
    CHECK_CODE(keel_write_done(k, last + 3, 0), KEEL_ERR_INVALID);
    step();
    CHECK(completions == 2);
    close_store(s);
    store_free(s);

    CHECK_CODE(try_new(&config), KEEL_OK);
    CHECK_CODE(keel_write_done(k, 1, 0), KEEL_ERR_STATE);
    CHECK_CODE(keel_free(k), KEEL_OK);
}

/* Of a batch whose engine is gone, when the next one has as many under way. */
static void a_late_report_is_refused(void)
{
    struct store *s = leader();
    uint64_t late;

    s->held = 1;
    propose();
    step();
    late = s->number;
    CHECK_CODE(keel_free(k), KEEL_OK);
    store_crash(s, 0);
    CHECK_CODE(open_again(s, 0), KEEL_OK);
    for (unsigned taken = s->taken; s->taken == taken;)
        step();
    CHECK(store_under_way(s) == 1 && s->number != late);
    for (uint64_t number = 0; number <= 10; number++)
        CHECK_CODE(keel_write_done(k, number, 0), KEEL_ERR_INVALID);
    CHECK_CODE(keel_write_done(k, late, 0), KEEL_ERR_INVALID);
    s->held = 0;
    while (store_land(s))
        ;
    run_until(leads);
    close_store(s);
    store_free(s);
}

/* What was under way when the machine stopped is there in part, from the first on. */
static void a_crash(size_t landed)
{
    struct store *s = leader();
    unsigned before = applied;

    s->held = 1;
    for (int i = 0; i < 3; i++) {
        propose();
        step();
    }
    CHECK(store_under_way(s) == 3);
    CHECK_CODE(keel_free(k), KEEL_OK);
    CHECK(completions == 3 && last_status == KEEL_ERR_CLOSED);
    store_crash(s, landed);
    s->held = 0;
    CHECK_CODE(open_again(s, 0), KEEL_OK);
    CHECK_CODE(keel_bootstrap(k, NULL, 0), KEEL_ERR_INVALID);
    run_until(leads);
    propose();
    run_until(has_completed);
    CHECK(applied == before + landed + 1);
    close_store(s);
    store_free(s);
}

static void crashes(void)
{
    for (size_t landed = 0; landed <= 3; landed++)
        a_crash(landed);
}

/* ---- what fails --------------------------------------------------------- */

static void a_death(struct store *s, const char *code)
{
    propose();
    CHECK_CODE(keel_step(k, now_ms, NULL), KEEL_ERR_IO);
    CHECK(strstr(keel_errmsg(), code) != NULL);
    CHECK(stopped == 1 && why_stopped == KEEL_ERR_IO);
    CHECK(completions == 1 && last_status == KEEL_ERR_CLOSED);
    CHECK_CODE(keel_step(k, now_ms, NULL), KEEL_ERR_IO);
    CHECK_CODE(keel_write_done(k, s->number, 0), KEEL_ERR_CLOSED);
    CHECK(stopped == 1);
    close_store(s);
    CHECK_CODE(open_again(s, 0), KEEL_OK);
    run_until(leads);
    CHECK(applied == 1);
    close_store(s);
    store_free(s);
}

static void failures(void)
{
    struct store *s = leader();

    s->fail_write = STORE_ENOSPC;
    a_death(s, "-1028");
    s = leader();
    s->fail_done = STORE_EIO;
    a_death(s, "-1005");
    /* As errno has it, and SQLite. */
    s = leader();
    s->fail_write = EIO;
    a_death(s, "the host says 5");
    s = leader();
    s->fail_done = ENOSPC;
    a_death(s, "the host says 28");

    /* The very first one. */
    s = store_new(&k);
    CHECK_CODE(open_again(s, KEEL_NEW_NODE), KEEL_OK);
    s->fail_write = STORE_EIO;
    CHECK_CODE(keel_step(k, now_ms, NULL), KEEL_ERR_IO);
    CHECK(stopped == 1 && sent == 0);
    close_store(s);
    CHECK(store_is_empty(s));
    CHECK_CODE(open_again(s, KEEL_NEW_NODE), KEEL_OK);
    s->fail_done = STORE_EIO;
    s->held = 1;
    CHECK(step() == UINT64_MAX);
    CHECK(store_land(s));
    CHECK_CODE(keel_step(k, now_ms, NULL), KEEL_ERR_IO);
    CHECK(stopped == 1 && sent == 0);
    close_store(s);
    s->held = 0;
    CHECK_CODE(open_again(s, KEEL_NEW_NODE), KEEL_OK);
    s->fail_write = STORE_EIO;
    {
        keel_peer peer = KEEL_PEER_INIT;

        peer.id = 1;
        CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_ERR_IO);
    }
    close_store(s);
    store_free(s);
}

/* ---- who may call what from where ---------------------------------------- */

static struct store *called;
static int (*plain_write)(void *ud, const keel_batch *batch);
static unsigned writes;

static int calling_write(void *ud, const keel_batch *batch)
{
    keel_peer peer = KEEL_PEER_INIT;
    keel_status *status;
    uint64_t next_ms;

    CHECK(ud == called);
    writes++;
    peer.id = 1;
    CHECK_CODE(keel_step(k, now_ms, &next_ms), KEEL_ERR_BUSY);
    CHECK_CODE(keel_dispatch(k), KEEL_ERR_BUSY);
    CHECK_CODE(keel_fd(k), KEEL_ERR_BUSY);
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_ERR_BUSY);
    CHECK_CODE(keel_free(k), KEEL_ERR_BUSY);
    CHECK_CODE(keel_heard(k, 2), KEEL_OK);
    CHECK(keel_recv(k, 2, "nonsense", 8) == KEEL_ERR_MALFORMED);
    CHECK(keel_role(k) >= KEEL_ROLE_FOLLOWER);
    CHECK(keel_lease_ms(k) >= 0);
    CHECK_CODE(keel_status_take(k, &status), KEEL_OK);
    keel_status_free(status);
    if (batch->n > 0 && completions == 0 && writes < 20)
        CHECK_CODE(keel_barrier(k, NULL, NULL), KEEL_OK);
    return plain_write(ud, batch); /* which reports it from in here */
}

static void calls_from_within(void)
{
    keel_storage storage;
    keel_config config;

    called = store_new(&k);
    storage = *store_storage(called);
    plain_write = storage.write;
    storage.write = calling_write;
    config = config_of(&storage, KEEL_NEW_NODE);
    CHECK_CODE(try_new(&config), KEEL_OK);
    memset(&storage, 0, sizeof storage); /* it was copied */
    bootstrap(1);
    run_until(leads);
    propose();
    run_until(has_completed);
    CHECK(writes >= 3);
    close_store(called);
    store_free(called);
}

static void dispatch_until(int fd, int (*holds)(void))
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    while (!holds()) {
        CHECK(poll(&ready, 1, 30000) == 1);
        CHECK_CODE(keel_dispatch(k), KEEL_OK);
    }
}

static int quiet(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    return poll(&ready, 1, 0) == 0;
}

/* A report wakes whoever waits for the descriptor, whichever thread it comes from. */
static void reports_wake(void)
{
    struct store *s = store_new(&k);
    int fd;

    s->held = 1;
    CHECK_CODE(open_again(s, KEEL_NEW_NODE), KEEL_OK);
    bootstrap(1);
    fd = keel_fd(k);
    CHECK(fd >= 0);
    CHECK_CODE(keel_dispatch(k), KEEL_OK);
    CHECK(quiet(fd) && keel_timeout_ms(k) != 0);
    CHECK_CODE(keel_heard(k, 2), KEEL_OK); /* what is queued meanwhile is no reason to spin */
    CHECK_CODE(keel_dispatch(k), KEEL_OK);
    CHECK(quiet(fd) && keel_timeout_ms(k) != 0);
    CHECK(store_land(s));
    CHECK(!quiet(fd) && keel_timeout_ms(k) == 0);
    s->held = 0;
    dispatch_until(fd, leads);
    s->held = 1;
    propose();
    CHECK_CODE(keel_dispatch(k), KEEL_OK);
    CHECK(completions == 0 && store_under_way(s) == 1);
    CHECK(store_land(s));
    CHECK(!quiet(fd) && keel_timeout_ms(k) == 0);
    CHECK_CODE(keel_dispatch(k), KEEL_OK);
    CHECK(completions == 1);

    s->held = 0;
    store_thread_start(s);
    for (unsigned i = 0; i < 500; i++) {
        propose();
        if (i % 7 == 0)
            CHECK_CODE(keel_dispatch(k), KEEL_OK);
    }
    while (completions < 501) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};

        CHECK(poll(&ready, 1, 30000) == 1);
        CHECK_CODE(keel_dispatch(k), KEEL_OK);
    }
    CHECK(last_status == KEEL_OK && applied == 501);
    store_thread_stop(s);
    close_store(s);
    store_free(s);
}

/* In a child nothing is called, and nothing may be reported. */
static void in_a_child(void)
{
    struct store *s = leader();
    int ended;
    pid_t child;

    s->held = 1;
    propose();
    step();
    CHECK(store_under_way(s) == 1);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK_CODE(keel_write_done(k, s->number, 0), KEEL_ERR_FORKED);
        s->freed = 1;
        CHECK_CODE(keel_free(k), KEEL_OK);
        CHECK(completions == 0);
        store_free(s);
        _exit(0);
    }
    CHECK(waitpid(child, &ended, 0) == child);
    CHECK(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
    CHECK(store_land(s));
    step();
    CHECK(completions == 1 && last_status == KEEL_OK);
    /* Nothing is called by keel_free() either, whatever is under way. */
    propose();
    step();
    s->freed = 1;
    CHECK_CODE(keel_free(k), KEEL_OK);
    CHECK(completions == 2 && last_status == KEEL_ERR_CLOSED);
    store_free(s);
}

/* ---- in a cluster ---------------------------------------------------------- */

static struct store *stores[CLUSTER_MAX];

static const keel_storage *storage_of(struct node *n, uint32_t *flags)
{
    struct store **s = &stores[n->id - 1];

    if (*s == NULL)
        *s = store_new(&n->k);
    *flags = store_is_empty(*s) ? KEEL_NEW_NODE : 0;
    return store_storage(*s);
}

static int all_applied(struct cluster *c, void *arg)
{
    for (size_t i = 0; i < c->count; i++) {
        keel_status *status;
        uint64_t reached;

        CHECK_CODE(keel_status_take(c->nodes[i].k, &status), KEEL_OK);
        reached = keel_status_info(status)->applied;
        keel_status_free(status);
        if (reached < *(uint64_t *)arg)
            return 0;
    }
    return 1;
}

static int somebody_else_leads(struct cluster *c, void *arg)
{
    const struct node *now = cluster_leader(c);

    return now != NULL && now != arg;
}

static void note_index(void *arg, int status, uint64_t index)
{
    CHECK(status == KEEL_OK);
    *(uint64_t *)arg = index;
}

static int is_set(struct cluster *c, void *arg)
{
    (void)c;
    return *(uint64_t *)arg > 0;
}

/* A leader whose disk says nothing any more makes room for one whose disk works; when it speaks
 * again, or the node is started again, everything goes on. */
static void a_stalled_disk(void)
{
    struct cluster_options options;
    struct cluster *c;
    struct node *slow, *now;
    uint64_t index = 0;

    cluster_options_init(&options, 3, 9);
    options.storage = storage_of;
    c = cluster_new(&options);
    slow = cluster_elect(c);
    stores[slow->id - 1]->held = 1;
    CHECK_CODE(keel_propose(slow->k, "x", 1, NULL, NULL), KEEL_OK);
    cluster_wake(slow);
    CHECK(cluster_run_until(c, 30000, somebody_else_leads, slow));
    CHECK(keel_role(slow->k) != KEEL_ROLE_LEADER);
    now = cluster_leader(c);
    CHECK_CODE(keel_propose(now->k, "y", 1, note_index, &index), KEEL_OK);
    cluster_wake(now);
    CHECK(cluster_run_until(c, 30000, is_set, &index));
    CHECK(!all_applied(c, &index));
    stores[slow->id - 1]->held = 0;
    while (store_land(stores[slow->id - 1]))
        cluster_wake(slow);
    CHECK(cluster_run_until(c, 30000, all_applied, &index));
    for (size_t i = 0; i < c->count; i++) {
        cluster_restart(&c->nodes[i]);
        CHECK(cluster_run_until(c, 30000, all_applied, &index));
    }
    cluster_elect(c);
    cluster_free(c);
    for (size_t i = 0; i < 3; i++) {
        store_free(stores[i]);
        stores[i] = NULL;
    }
}

int main(void)
{
    structs();
    whose_it_is();
    damage();
    records();
    a_run_begins_with_its_number();
    nothing_is_done_before_it_is_durable();
    few_are_under_way();
    reports_come_in_order();
    a_late_report_is_refused();
    crashes();
    failures();
    calls_from_within();
    reports_wake();
    in_a_child();
    a_stalled_disk();
    return 0;
}
