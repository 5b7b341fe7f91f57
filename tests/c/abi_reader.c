/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Behind keel_fd() no driving call waits for a disk: three nodes are driven by one thread, one of
 * them lags behind by more than the others have in memory, or than they have at all, and reading it
 * back takes as long as the program likes. Runs in an empty directory. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"

#define NODES 3
#define BEHIND 160 /* entries that the one that lags needs from the disk */
#define MORE 50    /* that the others commit meanwhile */
#define COMPACT 100 /* in the second cluster, where the log does not reach back so far */
#define ENTRY (16 * 1024)
#define PATIENCE_MS 60000

struct node {
    keel *k;
    int fd;
    unsigned applied;
    unsigned loads;
    pthread_t worker; /* writes or loads a snapshot, if there is one */
    int has_worker;
    keel_save *save;
    keel_load *load;
};

static struct node nodes[NODES];
static size_t lagging = NODES;
static unsigned completed;
static pthread_t driver;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int driving, holding;
static unsigned held, slow_calls;

/* Called before every call that may wait for a disk. */
static void note_slow_call(int reads)
{
    pthread_mutex_lock(&mutex);
    if (driving && pthread_equal(pthread_self(), driver))
        slow_calls++;
    while (reads && holding && !pthread_equal(pthread_self(), driver)) {
        held++;
        pthread_cond_wait(&changed, &mutex);
        held--;
    }
    pthread_mutex_unlock(&mutex);
}

/* The library's calls come here. */
ssize_t pread64(int fd, void *data, size_t len, off64_t offset)
{
    note_slow_call(1);
    return syscall(SYS_pread64, fd, data, len, offset);
}

int fdatasync(int fd)
{
    note_slow_call(0);
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    note_slow_call(0);
    return (int)syscall(SYS_fsync, fd);
}

static void hold_reads(int hold)
{
    pthread_mutex_lock(&mutex);
    holding = hold;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

static int is_held(void)
{
    int is;

    pthread_mutex_lock(&mutex);
    is = held > 0;
    pthread_mutex_unlock(&mutex);
    return is;
}

static void set_driving(int is)
{
    pthread_mutex_lock(&mutex);
    driving = is;
    pthread_mutex_unlock(&mutex);
}

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    struct node *n = ud;

    (void)index, (void)term, (void)data;
    CHECK(len == ENTRY);
    n->applied++;
    return 0;
}

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    struct node *from = ud;

    if (from == &nodes[lagging % NODES] && lagging < NODES)
        return;
    if (to - 1 == lagging)
        return;
    CHECK_CODE(keel_recv(nodes[to - 1].k, (keel_id)(from - nodes) + 1, msg, len), KEEL_OK);
}

static void on_done(void *arg, int status, uint64_t index)
{
    (void)arg;
    CHECK(status == KEEL_OK && index > 0);
    completed++;
}

/* What the host has to say of itself is how much it has applied, and a lot that nobody reads. */
static const char padding[1 << 20];

static void *write_snapshot(void *arg)
{
    struct node *n = arg;

    CHECK_CODE(keel_save_write(n->save, padding, sizeof padding), KEEL_OK);
    CHECK_CODE(keel_save_finish(n->save, 0), KEEL_OK);
    return NULL;
}

static void *load_snapshot(void *arg)
{
    struct node *n = arg;
    char rest[1 << 14];
    unsigned count;
    size_t got;

    CHECK_CODE(keel_load_read(n->load, &count, sizeof count, &got), KEEL_OK);
    CHECK(got == sizeof count);
    do
        CHECK_CODE(keel_load_read(n->load, rest, sizeof rest, &got), KEEL_OK);
    while (got > 0);
    n->applied = count;
    CHECK_CODE(keel_load_finish(n->load, 0), KEEL_OK);
    return NULL;
}

static void set_to_work(struct node *n, void *(*work)(void *))
{
    if (n->has_worker)
        CHECK(pthread_join(n->worker, NULL) == 0);
    n->has_worker = 1;
    CHECK(pthread_create(&n->worker, NULL, work, n) == 0);
}

static void on_save(void *ud, keel_save *save, uint64_t index)
{
    struct node *n = ud;

    (void)index;
    n->save = save;
    CHECK_CODE(keel_save_write(save, &n->applied, sizeof n->applied), KEEL_OK);
    set_to_work(n, write_snapshot);
}

static void on_load(void *ud, keel_load *load, uint64_t index)
{
    struct node *n = ud;

    (void)index;
    n->load = load;
    n->loads++;
    set_to_work(n, load_snapshot);
}

static void open_node(size_t at, const char *part, uint32_t compact_entries)
{
    const struct node blank_node = {0};
    char names[NODES][16];
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel_peer peers[NODES];

    config.id = at + 1;
    config.cluster = 77;
    for (size_t i = 0; i < NODES; i++)
        snprintf(names[i], sizeof names[i], "%s%u", part, (unsigned)i + 1);
    nodes[at] = blank_node;
    config.dir = names[at];
    config.flags = KEEL_NEW_NODE;
    config.heartbeat_ms = 50;
    config.election_ms = 2000;
    config.memory_max = 8 * ENTRY;
    config.compact_entries = compact_entries;
    callbacks.apply = on_apply;
    if (compact_entries != 0) {
        callbacks.save = on_save;
        callbacks.load = on_load;
    }
    callbacks.send = on_send;
    CHECK_CODE(keel_new(&nodes[at].k, &config, &callbacks, &nodes[at]), KEEL_OK);
    nodes[at].fd = keel_fd(nodes[at].k);
    CHECK(nodes[at].fd >= 0);
    for (size_t i = 0; i < NODES; i++) {
        const keel_peer blank = KEEL_PEER_INIT;

        peers[i] = blank;
        peers[i].id = i + 1;
        peers[i].address = names[i];
    }
    CHECK_CODE(keel_bootstrap(nodes[at].k, peers, NODES), KEEL_OK);
}

static uint64_t now_ms(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Only the descriptors say when to drive. */
static void drive_until(int (*holds)(void))
{
    uint64_t end = now_ms() + PATIENCE_MS;

    while (!holds()) {
        struct pollfd ready[NODES];

        for (size_t i = 0; i < NODES; i++)
            ready[i] = (struct pollfd){.fd = nodes[i].fd, .events = POLLIN};
        CHECK(poll(ready, NODES, PATIENCE_MS) > 0);
        for (size_t i = 0; i < NODES; i++) {
            if (!(ready[i].revents & POLLIN))
                continue;
            set_driving(1);
            CHECK_CODE(keel_dispatch(nodes[i].k), KEEL_OK);
            set_driving(0);
        }
        CHECK(now_ms() < end);
    }
}

static struct node *leader(void)
{
    for (size_t i = 0; i < NODES; i++)
        if (i != lagging && keel_role(nodes[i].k) == KEEL_ROLE_LEADER)
            return &nodes[i];
    return NULL;
}

static int has_leader(void)
{
    return leader() != NULL;
}

static unsigned wanted;

static int have_completed(void)
{
    return completed == wanted;
}

static int all_have_applied(void)
{
    for (size_t i = 0; i < NODES; i++)
        if (nodes[i].applied < wanted)
            return 0;
    return 1;
}

/* One after the other, so that a leader is not asked for more than it takes. */
static void commit(unsigned count)
{
    static char data[ENTRY];

    for (unsigned i = 0; i < count; i++) {
        drive_until(has_leader);
        CHECK_CODE(keel_propose(leader()->k, data, sizeof data, on_done, NULL), KEEL_OK);
        wanted++;
        drive_until(have_completed);
    }
}

/* The one that does not lead, and comes first. */
static size_t follower(void)
{
    return leader() == &nodes[0] ? 1 : 0;
}

/* Where the leader's log begins: it keeps what a node needs that it was in contact with of late. */
static uint64_t log_begins(void)
{
    keel_status *status;
    uint64_t first;

    CHECK_CODE(keel_status_take(leader()->k, &status), KEEL_OK);
    first = keel_status_info(status)->first_index;
    keel_status_free(status);
    return first;
}

/* One is out of reach while the others commit so much, and until the log has been compacted if it
 * will be; what it needs then is held back. */
static struct node *lag(unsigned count, int compacts)
{
    struct node *behind;
    unsigned before;

    commit(1);
    drive_until(all_have_applied);
    lagging = follower();
    behind = &nodes[lagging];
    before = behind->applied;
    commit(count);
    /* No log has half as many other entries. */
    while (compacts && log_begins() <= before + count / 2)
        commit(1);
    hold_reads(1);
    lagging = NODES;
    drive_until(is_held);
    commit(MORE);
    CHECK(is_held() && behind->applied == before);
    hold_reads(0);
    drive_until(all_have_applied);
    return behind;
}

static void begin_cluster(const char *part, uint32_t compact_entries)
{
    completed = wanted = 0;
    for (size_t i = 0; i < NODES; i++)
        open_node(i, part, compact_entries);
    drive_until(has_leader);
}

static void end_cluster(void)
{
    for (size_t i = 0; i < NODES; i++) {
        if (nodes[i].has_worker)
            CHECK(pthread_join(nodes[i].worker, NULL) == 0);
        CHECK_CODE(keel_free(nodes[i].k), KEEL_OK);
    }
}

int main(void)
{
    driver = pthread_self();
    begin_cluster("log", 0);
    CHECK(lag(BEHIND, 0)->loads == 0);
    end_cluster();
    begin_cluster("image", COMPACT);
    CHECK(lag(BEHIND, 1)->loads > 0);
    end_cluster();
    CHECK(slow_calls == 0);
    return 0;
}
