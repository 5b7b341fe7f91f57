/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a keel_storage must do, check by check; host.h says how to use it. */
#define _DEFAULT_SOURCE
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "nodes.h"
#include "syncs.h"

enum { CHECK_SECONDS = 300, BIG = 60000, SKIPPED = 77 };

static struct node *const alone = &nodes[0];

static int is_over(void *arg)
{
    return *(int *)arg <= 0;
}

static void sleep_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

    nanosleep(&t, NULL);
}

static void needs_snapshots(void)
{
    if (!keeps_snapshots())
        exit(SKIPPED);
}

/* ---- a node alone ----------------------------------------------------------------- */

/* What was never written is not there, and what was written is this node's. */
static void whose_it_is(void)
{
    members = 1;
    CHECK_CODE(node_try(alone, 1, 1, 0), KEEL_ERR_NOT_FOUND);
    storage_host.close(alone->store);
    CHECK_CODE(node_try(alone, 1, 1, KEEL_NEW_NODE), KEEL_OK);
    node_stop(alone); /* it was never driven */
    CHECK_CODE(node_try(alone, 1, 0, KEEL_NEW_NODE), KEEL_OK);
    node_stop(alone);
    cluster_start(1);
    propose(1, 10);
    node_stop(alone);
    CHECK_CODE(node_try(alone, 1, 0, KEEL_NEW_NODE), KEEL_ERR_EXISTS);
    storage_host.close(alone->store);
    CHECK_CODE(node_try(alone, 2, 0, 0), KEEL_ERR_FOREIGN);
    storage_host.close(alone->store);
    node_start(alone, 0);
    holds_all(alone);
    node_stop(alone);
    node_start(alone, 1); /* and `fresh` is what it says */
    leader();
    CHECK(alone->count == 0);
    node_stop(alone);
}

static void comes_back(void)
{
    cluster_start(1);
    propose(5, BIG);
    for (int i = 0; i < 8; i++) {
        node_restart(alone);
        propose(5, i % 2 ? BIG : 100);
        holds_all(alone);
    }
    CHECK(alone->calls.batches > 0);
    node_stop(alone);
}

/* Between a proposal and its acknowledgement the disk was asked, and has answered. */
static void synced_before_it_is_reported(void)
{
    if (!storage_host.syncs)
        exit(SKIPPED);
    cluster_start(1);
    syncs_delay(20);
    for (int i = 0; i < 10;) {
        unsigned long before = syncs_begun();
        int status;

        propose_at(leader(), 100, &status);
        run_until(is_over, &status);
        CHECK(status != KEEL_OK || synced_since(before));
        i += status == KEEL_OK;
    }
    node_stop(alone);
}

/* Many under way, and an end in the midst of it: nothing is doubled, and there are no gaps. */
static void late_writes(void)
{
    enum { MANY = 60 };
    int status[MANY], rounds = 4;

    cluster_start(1);
    syncs_delay(15);
    while (rounds-- > 0) {
        for (int i = 0; i < MANY; i++) {
            propose_at(alone, 50, &status[i]);
            node_drive(alone);
        }
        if (rounds % 2)
            run_until(is_over, &status[MANY - 1]);
        node_restart(alone);
        leader();
        holds_all(alone);
    }
    node_stop(alone);
}

static void fail(unsigned syncs)
{
    if (storage_host.syncs)
        syncs_fail(syncs);
    else
        storage_host.fail(alone->store);
}

static int has_stopped_or_is_over(void *arg)
{
    return alone->why_stopped != 0 || is_over(arg);
}

/* Several writes, of which the disk fails one, or all from then on. One sync may be of no matter, if
 * the store only tidies up with it: then again. */
static void die(unsigned syncs)
{
    enum { MANY = 8 };
    static int status[MANY];

    alone->may_die = 1;
    while (alone->why_stopped == 0) {
        int n = 0;

        fail(syncs);
        while (n < MANY && alone->why_stopped == 0) {
            propose_at(alone, 1000, &status[n++]);
            node_drive(alone);
        }
        run_until(has_stopped_or_is_over, &status[n - 1]);
        CHECK(syncs == 1 || status[n - 1] != KEEL_OK);
    }
    CHECK_CODE(alone->why_stopped, KEEL_ERR_IO);
}

/* A write that fails is not acknowledged, none behind it is there without it, and when the disk works
 * again so does the node. */
static void failed_writes(void)
{
    if (!storage_host.syncs && storage_host.fail == NULL)
        exit(SKIPPED);
    cluster_start(1);
    for (int round = 0; round < 4; round++) {
        propose(5, 1000);
        node_note(alone);
        syncs_delay(20);
        die(round % 2 ? UINT_MAX : 1);
        syncs_delay(0);
        node_stop(alone);
        syncs_fail(0);
        node_start(alone, 0);
        leader();
        holds_all(alone);
    }
    node_stop(alone);
}

/* ---- kill -9 ------------------------------------------------------------------------ */

enum { LIVES = 12, UNDER_WAY = 8, ENOUGH = 15 };

/* Shared with the process that is killed: what it has been told is durable. */
static struct life {
    volatile uint32_t next_item; /* no number is used twice */
    volatile uint64_t kept_index, kept_term;
    volatile uint32_t acknowledged;
    volatile uint32_t items[ITEMS_MAX];
} *life;

static struct slot {
    uint32_t item;
    int status;
} slots[UNDER_WAY];

static int one_is_over(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < UNDER_WAY; i++)
        if (slots[i].status <= 0)
            return 1;
    return 0;
}

static void fill_slot(struct slot *slot, size_t len_max)
{
    keel_info info = info_of(alone);

    if (slot->item != 0 && slot->status == KEEL_OK) {
        life->kept_index = info.commit;
        life->kept_term = info.term;
        life->items[life->acknowledged] = slot->item;
        life->acknowledged++;
    }
    slot->item = next_item;
    life->next_item = next_item + 1;
    propose_at(leader(), below(len_max), &slot->status);
}

/* Everything of the lives before is there; then it proposes until it is killed, several items at a
 * time, with a snapshot now and then. */
static void live(int number)
{
    bool first = number == 0, last = number == LIVES;

    members = 1;
    syncs_delay(number % 2 ? 10 : 0); /* what is reported too early is lost the more surely */
    next_item = first ? 1 : life->next_item;
    for (uint32_t i = 0; i < life->acknowledged; i++)
        acknowledge(life->items[i]);
    alone->kept_index = life->kept_index;
    alone->kept_term = life->kept_term;
    node_start(alone, first);
    leader();
    holds_all(alone);
    if (last) {
        node_stop(alone);
        exit(0);
    }
    for (unsigned turn = 0;; turn++) {
        run_until(one_is_over, NULL);
        for (size_t i = 0; i < UNDER_WAY; i++)
            if (slots[i].status <= 0)
                fill_slot(&slots[i], number % 4 < 2 ? 100 : 3000);
        if (turn % 16 == 15 && keeps_snapshots())
            CHECK_CODE(keel_snapshot(alone->k, NULL, NULL), KEEL_OK);
    }
}

static void kill_some_time_after(pid_t child, uint32_t acknowledged)
{
    uint64_t end = clock_ms() + DEADLINE_MS;
    int ended;

    while (life->acknowledged < acknowledged) {
        if (waitpid(child, &ended, WNOHANG) != 0)
            exit(1); /* it has said why */
        CHECK(clock_ms() < end);
        sleep_ms(1);
    }
    sleep_ms((unsigned)below(40));
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, &ended, 0) == child);
    if (WIFEXITED(ended))
        exit(1);
}

static void killed(void)
{
    if (!storage_host.survives)
        exit(SKIPPED);
    life = mmap(NULL, sizeof *life, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(life != MAP_FAILED);
    for (int i = 0; i <= LIVES; i++) {
        pid_t child = fork();
        int ended;

        CHECK(child >= 0);
        if (child == 0)
            live(i);
        if (i < LIVES)
            kill_some_time_after(child, life->acknowledged + ENOUGH);
        else
            CHECK(waitpid(child, &ended, 0) == child && WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
    }
    munmap(life, sizeof *life);
}

/* ---- three nodes ---------------------------------------------------------------------- */

static struct node *other(const struct node *than, const struct node *and)
{
    struct node *n = nodes;

    while (n == than || n == and)
        n++;
    return n;
}

/* One after the other is started again; none has less than the others know that it has. */
static void restarts(void)
{
    cluster_start(NODES);
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < NODES; i++) {
            propose(10, 2000);
            node_restart(&nodes[i]);
            for (size_t j = 0; j < NODES; j++)
                holds_all(&nodes[j]);
        }
    cluster_stop();
}

/* All have what the leader has, and follow it: what is away apart. */
static int agree(void *arg)
{
    struct node *l = leader();
    uint64_t last = info_of(l).last_index;

    for (struct node *n = nodes; n < nodes + members; n++)
        if (!n->away && (keel_leader(n->k) != l->id || info_of(n).last_index != last))
            return 0;
    *(struct node **)arg = l;
    return 1;
}

/* The leader, when all agree. */
static struct node *settled(void)
{
    struct node *l;

    run_until(agree, &l);
    return l;
}

static int has_won(const struct node *n, uint64_t after_term)
{
    return keel_role(n->k) == KEEL_ROLE_LEADER && info_of(n).term > after_term;
}

/* A batch without entries: a node that has voted and is started again before it hears of more must
 * know it, or it could vote twice in that term. */
static void votes_are_kept(void)
{
    cluster_start(NODES);
    for (int round = 0; round < 3; round++) {
        struct node *old, *a, *b, *voter = NULL;
        uint64_t term, end = clock_ms() + DEADLINE_MS;

        propose(2, 10);
        old = settled();
        a = other(old, NULL), b = other(old, a);
        term = info_of(old).term;
        old->away = 1;
        while (voter == NULL) {
            CHECK(clock_ms() < end);
            node_drive(a);
            if (has_won(a, term))
                voter = b;
            else if (node_drive(b), has_won(b, term))
                voter = a;
            sleep_ms(1);
        }
        voter->kept_term = info_of(voter == a ? b : a).term;
        voter->kept_index = 0;
        node_stop(voter);
        node_start(voter, 0);
        old->away = 0;
    }
    propose(1, 10);
    for (size_t i = 0; i < NODES; i++)
        holds_all(&nodes[i]);
    cluster_stop();
}

/* Lets a leader that nobody reaches store entries, until it knows that it leads no more: whether any
 * are durable, as all batches are but the last four. */
static bool store_in_vain(struct node *old)
{
    enum { MANY = 12 };
    static int status[MANY];
    unsigned before = old->calls.batches;

    for (int i = 0; i < MANY && keel_role(old->k) == KEEL_ROLE_LEADER; i++) {
        unsigned given = old->calls.batches;

        propose_at(old, 500, &status[i]);
        while (old->calls.batches == given && keel_role(old->k) == KEEL_ROLE_LEADER)
            node_drive(old), sleep_ms(1);
    }
    return old->calls.batches > before + 5;
}

/* They are replaced by fewer, later. */
static void entries_are_replaced(void)
{
    uint64_t end = clock_ms() + DEADLINE_MS;
    unsigned rounds = 0;

    cluster_start(NODES);
    while (rounds < 3) {
        struct node *old;
        unsigned cuts;
        bool stored;

        CHECK(clock_ms() < end); /* the store is too slow for this */
        propose(3, 100);
        old = settled();
        cuts = old->calls.cuts;
        old->away = 1;
        stored = store_in_vain(old);
        propose(1 + rounds, 100); /* elsewhere */
        old->away = 0;
        settled();
        CHECK(!stored || old->calls.cuts > cuts);
        rounds += stored;
        node_restart(old);
        holds_all(old);
        node_restart(old);
    }
    cluster_stop();
}

/* A node that was away is sent what has left the leader's memory long ago. */
static void entries_are_read(void)
{
    struct node *n;
    unsigned reads = 0;

    cluster_start(NODES);
    propose(5, 100);
    n = other(settled(), NULL);
    n->away = 1;
    propose(100, 3000);
    for (size_t i = 0; i < NODES; i++)
        if (&nodes[i] != n)
            node_restart(&nodes[i]); /* from what it has opened, too */
    propose(30, BIG);
    n->away = 0;
    holds_all(n);
    for (size_t i = 0; i < NODES; i++)
        reads += nodes[i].calls.reads;
    CHECK(reads > 0);
    node_restart(n);
    holds_all(n);
    cluster_stop();
}

/* ---- snapshots ------------------------------------------------------------------------ */

enum { IMAGE = 1000, IMAGE_LEN = 300001 };

static unsigned char image_byte(uint64_t image, size_t at)
{
    return (unsigned char)(image * 13 + at * 5 + at / 253);
}

static void put(uint64_t image, size_t len)
{
    static const size_t strides[] = {1, 100, 65536, 70000, 33};
    static unsigned char bytes[IMAGE_LEN];
    size_t at = 0;

    for (size_t i = 0; i < len; i++)
        bytes[i] = image_byte(image, i);
    for (size_t i = 0; at < len; i++) {
        size_t n = strides[i % 5] < len - at ? strides[i % 5] : len - at;

        CHECK_CODE(alone->host.snap_put(alone->host.ud, image, at, bytes + at, n), 0);
        at += n;
    }
}

/* In strides that are not those that were put. */
static void get(uint64_t image, size_t len)
{
    static unsigned char bytes[100000];
    size_t at = 0, got = 1;

    while (got > 0) {
        size_t cap = 1 + below(sizeof bytes);

        CHECK_CODE(alone->host.snap_get(alone->host.ud, image, at, bytes, cap, &got), 0);
        CHECK(got <= cap && got <= len - at);
        for (size_t i = 0; i < got; i++)
            CHECK(bytes[i] == image_byte(image, at + i));
        at += got;
    }
    CHECK(at == len); /* 0 bytes only at its end */
    for (int i = 0; i < 30; i++) {
        size_t from = below(len);

        CHECK_CODE(alone->host.snap_get(alone->host.ud, image, from, bytes, 1, &got), 0);
        CHECK(got == 1 && bytes[0] == image_byte(image, from));
    }
}

static void commit(uint64_t image)
{
    unsigned long before = syncs_begun();

    CHECK_CODE(alone->host.snap_commit(alone->host.ud, image), 0);
    CHECK(!storage_host.syncs || synced_since(before));
}

static void drop(uint64_t image)
{
    CHECK_CODE(alone->host.snap_drop(alone->host.ud, image), 0);
}

/* The functions by themselves, with images that the library knows nothing of: after a restart those
 * that were committed are listed, and no others. */
static void images(void)
{
    cluster_start(1);
    needs_snapshots();
    put(IMAGE, IMAGE_LEN);
    put(IMAGE + 1, 5000);
    get(IMAGE, IMAGE_LEN);
    put(IMAGE + 1, 400); /* begins anew */
    get(IMAGE + 1, 400);
    put(IMAGE + 2, 70000);
    put(IMAGE + 3, 70000);
    commit(IMAGE);
    commit(IMAGE + 2);
    commit(IMAGE + 3);
    get(IMAGE, IMAGE_LEN);
    put(IMAGE + 2, 70000); /* not committed any more */
    drop(IMAGE + 3);
    drop(IMAGE + 3); /* is not there: no failure */
    drop(IMAGE + 4);
    propose(3, 10);
    node_restart(alone);
    CHECK(alone->calls.looked_at == 1 && alone->calls.images[0] == IMAGE);
    /* The library looks at the end of an image first: it was given the size. */
    CHECK(alone->calls.from[0] < IMAGE_LEN && alone->calls.from[0] + 64 > IMAGE_LEN);
    get(IMAGE, IMAGE_LEN);
    drop(IMAGE);
    holds_all(alone);
    node_restart(alone);
    CHECK(alone->calls.looked_at == 0);
    node_stop(alone);
}

/* What a node saves it gets back, several times over, and entries that it has trimmed stay away. */
static void snapshots(void)
{
    cluster_start(1);
    needs_snapshots();
    for (int i = 0; i < 6; i++) {
        propose(20, 1000);
        snapshot(alone);
        if (i % 3 == 1)
            snapshot(alone);
        propose(1 + below(5), 1000);
        CHECK(alone->calls.puts > 1 && alone->calls.trims > 0);
        node_restart(alone);
        leader();
        CHECK(alone->loads == 1);
        holds_all(alone);
        CHECK(info_of(alone).snapshot_index > 0);
    }
    node_stop(alone);
}

static int is_left_behind(void *arg)
{
    return info_of(leader()).first_index > info_of(arg).last_index + 1;
}

/* One that has missed too much gets the leader's state, in place of its log. */
static void the_leaders_snapshot(void)
{
    cluster_start(NODES);
    needs_snapshots();
    for (int round = 0; round < 3; round++) {
        struct node *n;
        unsigned before;

        propose(10, 100);
        n = other(settled(), NULL);
        before = n->calls.resets;
        n->away = 1;
        propose(50, 1000);
        for (size_t i = 0; i < NODES; i++)
            if (&nodes[i] != n)
                snapshot(&nodes[i]);
        run_until(is_left_behind, n);
        propose(5, 10);
        n->away = 0;
        holds_all(n);
        CHECK(n->loads > 0 && n->calls.resets > before);
        if (round > 0) {
            propose(3, 10);
            holds_all(n);
        }
        node_restart(n);
        holds_all(n);
        CHECK(n->loads == 1);
    }
    cluster_stop();
}

/* ---- all of them ------------------------------------------------------------------------ */

static const struct check {
    const char *name, *what;
    void (*run)(void);
} checks[] = {
    {"identity", "a store is empty, or one node's, and opening it tells which", whose_it_is},
    {"restart", "what was acknowledged comes back at every start", comes_back},
    {"sync", "the disk has answered before a batch is reported", synced_before_it_is_reported},
    {"late", "batches take effect in their order, however late", late_writes},
    {"failure", "what has failed is reported, and nothing behind it is there", failed_writes},
    {"kill", "what was acknowledged is there after kill -9", killed},
    {"rolling", "three nodes keep what they told each other", restarts},
    {"vote", "a vote is kept, which comes without entries", votes_are_kept},
    {"truncate", "entries that were replaced do not come back", entries_are_replaced},
    {"read", "old entries are read where they are needed", entries_are_read},
    {"images", "images are put, read, committed and dropped", images},
    {"snapshot", "a snapshot is loaded at the start, and the log goes on behind it", snapshots},
    {"reset", "a leader's snapshot takes the place of the log", the_leaders_snapshot},
};

enum { PASSED, FAILED, LEFT_OUT };

/* In a process of its own: a check that goes wrong, crashes or hangs is one check. */
static int try(const struct check *check)
{
    pid_t child = fork();
    int ended;

    if (child == 0) {
        alarm(CHECK_SECONDS);
        check->run();
        exit(0);
    }
    if (child < 0 || waitpid(child, &ended, 0) != child)
        return FAILED;
    if (WIFSIGNALED(ended))
        printf("    ended by signal %d%s\n", WTERMSIG(ended),
               WTERMSIG(ended) == SIGALRM ? ": it takes too long" : "");
    if (WIFEXITED(ended) && WEXITSTATUS(ended) == SKIPPED)
        return LEFT_OUT;
    return WIFEXITED(ended) && WEXITSTATUS(ended) == 0 ? PASSED : FAILED;
}

static bool wanted(const char *name, int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc == 2;
}

int main(int argc, char **argv)
{
    static const char *const results[] = {"ok", "FAILED", "left out: not for this store"};
    const char *given = getenv("RAFTKEEL_SEED");
    unsigned counts[3] = {0, 0, 0};

    if (argc < 2)
        return fprintf(stderr, "usage: %s DIRECTORY [CHECK..]\n", argv[0]), 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    directory = argv[1];
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    seed = seed != 0 ? seed : 1;
    printf("%s, RAFTKEEL_SEED=%llu (but for when processes are killed)\n", storage_host.name,
           (unsigned long long)seed);
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        int result;

        if (!wanted(checks[i].name, argc, argv))
            continue;
        result = try(&checks[i]);
        counts[result]++;
        printf("%s: %s ... %s\n", checks[i].name, checks[i].what, results[result]);
    }
    printf("%u passed, %u failed, %u left out\n", counts[PASSED], counts[FAILED], counts[LEFT_OUT]);
    return counts[FAILED] == 0 && counts[PASSED] > 0 ? 0 : 1;
}
