/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A line a value, "name<TAB>value".
 *
 *   load_LIBRARY rate DIR PAYLOAD SECONDS each|batch OUTSTANDING...
 *       Of a new cluster of three, for each number of entries OUTSTANDING in turn, after a while to
 *       warm up, the names beginning with that number and a slash: rate (entries/s), bytes (MB/s of
 *       payload), p50, p99, p999 (us from submission to completion at the leader), tail (p999 to
 *       p99), cpu (s for 100,000 entries, user and system time of all three processes), disk
 *       (write_bytes of /proc/PID/io for one entry on one member), device (the same as the block
 *       device counts it, if there is one, and with what others write), rss (leader, kB, at the end).
 *   load_LIBRARY minority DIR PAYLOAD SECONDS OUTSTANDING US SLOW_US
 *       The same at one point, the names beginning with: first and healthy (all flush in US), follower
 *       (one that does not lead flushes in SLOW_US), leader (the one that leads does; it is given some
 *       seconds under load to hand leadership over, and what is measured is what comes then:
 *       leader/moved is after how many ms another one led, and is not printed if none did).
 *       DIR/memberN is on a disk whose flushes take what DIR/memberN.delay says, in microseconds.
 *   load_LIBRARY failover DIR TIMES ELECTION_MS HEARTBEAT_MS [hint]
 *       failover: ms from SIGKILL of the leader's process to the next commit; with a hint libraftkeel is
 *       told of the connections that are lost with it.
 *   load_LIBRARY start DIR ENTRIES PAYLOAD TIMES
 *       One member alone, with so many entries, out of the page cache: open (ms until its state was
 *       read back), rss (kB, then), serves (ms until it has committed a new entry, and applied all). */
#include "load.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base.h"
#include "sample.h"

#define ELECTION_MS 1000
#define HEARTBEAT_MS 100
#define WARM_MS 300
#define SETTLE_MS 737
#define DEADLINE_NS 60000000000u
#define TRIES 3
/* How long a leader may take to find out that its disk is slow. */
#define ADAPT_MS 6000

struct cluster {
    struct member members[MEMBERS_MAX];
    char dirs[MEMBERS_MAX][4096];
    pid_t pids[MEMBERS_MAX]; /* 0 = not running */
    size_t n;
    struct board *board;
};

unsigned char payload_bytes[PAYLOAD_MAX];

/* Of all members: see struct member. */
static bool hinted;

/* ---- in the process of a member ---- */

void driver_init(struct driver *d, const struct member *m)
{
    *d = (struct driver){.board = m->board};
    for (size_t i = 0; i < OUTSTANDING_MAX; i++) {
        d->slots[i].driver = d;
        d->unused[i] = &d->slots[i];
    }
}

struct slot *driver_take(struct driver *d, bool batch)
{
    unsigned outstanding = atomic_load_explicit(&d->board->outstanding, memory_order_relaxed);
    unsigned entries = batch ? outstanding : 1;
    if (!d->leads || atomic_load_explicit(&d->board->phase, memory_order_relaxed) == PAUSE)
        return NULL;
    if (d->used * entries + entries > outstanding)
        return NULL;
    struct slot *s = d->unused[d->used++];
    s->entries = entries;
    s->submitted_ns = now_ns();
    return s;
}

/* Below 32 each value has its own bucket, then every power of two has 32. */
static unsigned bucket_of(uint64_t ns)
{
    if (ns < 32)
        return (unsigned)ns;
    unsigned log = 63u - (unsigned)__builtin_clzll(ns);
    return (log - 4) * 32 + (unsigned)(ns >> (log - 5)) - 32;
}

static uint64_t bucket_middle(unsigned bucket)
{
    if (bucket < 32)
        return bucket;
    unsigned log = bucket / 32 + 4;
    return (((uint64_t)bucket % 32 + 32) << (log - 5)) + ((UINT64_C(1) << (log - 5)) / 2);
}

void driver_done(struct slot *s, bool ok)
{
    struct driver *d = s->driver;
    struct board *b = d->board;
    d->unused[--d->used] = s;
    if (!ok)
        return;
    atomic_fetch_add_explicit(&b->filled, s->entries, memory_order_relaxed);
    if (atomic_load_explicit(&b->phase, memory_order_relaxed) != MEASURE)
        return;
    atomic_fetch_add_explicit(&b->completed, s->entries, memory_order_relaxed);
    _Atomic uint64_t *count = &b->latencies[bucket_of(now_ns() - s->submitted_ns)];
    atomic_fetch_add_explicit(count, s->entries, memory_order_relaxed);
}

/* ---- the process that measures ---- */

static void start_member(struct cluster *c, size_t i)
{
    c->board->members[i].opened_ns = c->board->members[i].leads = 0;
    c->board->members[i].committed_ns = c->board->members[i].applied = 0;
    pid_t pid = fork_child();
    if (pid == 0)
        member_run(&c->members[i]);
    c->pids[i] = pid;
    c->members[i].is_new = false;
}

static void kill_member(struct cluster *c, size_t i)
{
    kill(c->pids[i], SIGKILL);
    waitpid(c->pids[i], NULL, 0);
    c->pids[i] = 0;
    c->board->members[i].leads = 0;
}

/* Bound by nobody now, and soon by the member, which may have to bind it again. */
static uint16_t some_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || bind(s, (struct sockaddr *)&a, len) < 0 || getsockname(s, (struct sockaddr *)&a, &len) < 0)
        die("socket");
    close(s);
    return ntohs(a.sin_port);
}

static void start_cluster(struct cluster *c, size_t n, const char *dir, bool batch, unsigned election_ms,
                          unsigned heartbeat_ms)
{
    uint16_t ports[MEMBERS_MAX] = {0};

    *c = (struct cluster){.n = n};
    c->board = mmap(NULL, sizeof *c->board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (c->board == MAP_FAILED)
        die("mmap");
    for (size_t i = 0; i < n; i++)
        ports[i] = some_port();
    for (size_t i = 0; i < n; i++) {
        snprintf(c->dirs[i], sizeof c->dirs[i], "%s/member%zu", dir, i + 1);
        /* It may be there, on a disk of its own. */
        if (mkdir(c->dirs[i], 0700) < 0 && errno != EEXIST)
            die(c->dirs[i]);
        c->members[i] = (struct member){
            .board = c->board, .facts = &c->board->members[i], .self = i, .members = n, .dir = c->dirs[i],
            .is_new = true, .batch = batch, .election_ms = election_ms, .heartbeat_ms = heartbeat_ms,
            .hint = hinted, .bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
        };
        memcpy(c->members[i].ports, ports, sizeof ports);
        if (c->members[i].bell < 0)
            die("eventfd");
    }
    for (size_t i = 0; i < n; i++)
        start_member(c, i);
}

static void end_cluster(struct cluster *c)
{
    for (size_t i = 0; i < c->n; i++) {
        if (c->pids[i])
            kill_member(c, i);
        close(c->members[i].bell);
    }
    munmap(c->board, sizeof *c->board);
}

static void expect_alive(struct cluster *c)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->pids[i] && waitpid(c->pids[i], NULL, WNOHANG) != 0) {
            errno = ECHILD;
            die("a member has ended");
        }
}

/* A leader that has committed an entry later than `after_ns`. */
static size_t await_leader(struct cluster *c, uint64_t after_ns)
{
    for (uint64_t end = now_ns() + DEADLINE_NS; now_ns() < end; sleep_ms(1)) {
        for (size_t i = 0; i < c->n; i++) {
            const struct facts *f = &c->board->members[i];
            if (c->pids[i] && atomic_load(&f->leads) && atomic_load(&f->committed_ns) > after_ns)
                return i;
        }
        expect_alive(c);
    }
    errno = ETIMEDOUT;
    die("no leader");
}

/* Until every running member has applied what the leader had when this began. */
static void await_applied(struct cluster *c, size_t leader)
{
    uint64_t applied = atomic_load(&c->board->members[leader].applied);
    uint64_t end = now_ns() + DEADLINE_NS;
    for (size_t i = 0; i < c->n; i++)
        for (; c->pids[i] && atomic_load(&c->board->members[i].applied) < applied; sleep_ms(5)) {
            expect_alive(c);
            errno = ETIMEDOUT;
            if (now_ns() > end)
                die("a member does not catch up");
        }
}

static void say(struct cluster *c, enum phase phase)
{
    uint64_t one = 1;
    atomic_store(&c->board->phase, phase);
    for (size_t i = 0; i < c->n; i++)
        if (c->pids[i] && write(c->members[i].bell, &one, sizeof one) < 0 && errno != EAGAIN)
            die("eventfd");
}

/* ---- what is measured ---- */

struct usage {
    uint64_t cpu_ns, written;
    int64_t device; /* -1 = there is none */
};

static struct usage usage(const struct cluster *c)
{
    struct usage u = {.device = sample_device_written(c->dirs[0])};
    for (size_t i = 0; i < c->n; i++) {
        u.cpu_ns += sample_cpu(c->pids[i]);
        u.written += sample_written(c->pids[i]);
    }
    return u;
}

static double percentile(const struct board *b, double share)
{
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        total += atomic_load(&b->latencies[i]);
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += atomic_load(&b->latencies[i]);
        if ((double)seen >= share * (double)total)
            return (double)bucket_middle(i) / 1e3;
    }
    return 0;
}

static void print_point(const struct cluster *c, const char *label, const struct usage *from,
                        const struct usage *to, uint64_t ns, long rss_kb)
{
    const struct board *b = c->board;
    double entries = (double)b->completed, seconds = (double)ns / 1e9;
    double p99 = percentile(b, 0.99), p999 = percentile(b, 0.999);

    printf("%s/rate\t%.0f\n%s/bytes\t%.2f\n", label, entries / seconds, label, entries * b->payload / seconds / 1e6);
    printf("%s/p50\t%.1f\n%s/p99\t%.1f\n%s/p999\t%.1f\n%s/tail\t%.2f\n", label, percentile(b, 0.5), label, p99, label,
           p999, label, p999 / p99);
    printf("%s/cpu\t%.3f\n", label, (double)(to->cpu_ns - from->cpu_ns) / 1e9 / entries * 1e5);
    printf("%s/disk\t%.0f\n", label, (double)(to->written - from->written) / (double)c->n / entries);
    if (from->device >= 0)
        printf("%s/device\t%.0f\n", label, (double)(to->device - from->device) / (double)c->n / entries);
    printf("%s/rss\t%ld\n", label, rss_kb);
}

/* False if leadership changed, or nothing was done. */
static bool try_point(struct cluster *c, const char *label, unsigned outstanding, long ms)
{
    struct board *b = c->board;
    size_t leader = await_leader(c, 0);
    uint64_t term_began = atomic_load(&b->members[leader].committed_ns);

    b->outstanding = outstanding;
    b->completed = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        b->latencies[i] = 0;
    say(c, WARM);
    sleep_ms(WARM_MS);
    struct usage from = usage(c);
    uint64_t began = now_ns();
    say(c, MEASURE);
    sleep_ms(ms);
    atomic_store(&b->phase, PAUSE);
    uint64_t took = now_ns() - began;
    struct usage to = usage(c);
    expect_alive(c);
    bool led = atomic_load(&b->members[leader].leads) && atomic_load(&b->members[leader].committed_ns) == term_began;
    if (!led || b->completed == 0)
        return false;
    print_point(c, label, &from, &to, took, sample_rss(c->pids[leader]));
    await_applied(c, leader);
    return true;
}

static void measure_point(struct cluster *c, const char *label, unsigned outstanding, double seconds)
{
    int tries = 0;
    while (!try_point(c, label, outstanding, (long)(seconds * 1000)))
        if (++tries == TRIES) {
            errno = EPROTO;
            die("leadership does not last");
        }
}

static int rate(const char *dir, unsigned payload, double seconds, bool batch, char **numbers)
{
    struct cluster c;
    start_cluster(&c, 3, dir, batch, ELECTION_MS, HEARTBEAT_MS);
    c.board->payload = payload;
    for (; *numbers; numbers++) {
        unsigned outstanding = (unsigned)strtoul(*numbers, NULL, 10);
        if (outstanding < 1 || outstanding > OUTSTANDING_MAX)
            return 2;
        measure_point(&c, *numbers, outstanding, seconds);
    }
    end_cluster(&c);
    return 0;
}

static void set_delay(const char *dir, size_t member, const char *us)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/member%zu.delay", dir, member + 1);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd < 0 || write(fd, us, strlen(us)) < 0)
        die(path);
    close(fd);
}

/* The load goes on until another one leads than `leader`, or that has had its time for it. */
static void await_handover(struct cluster *c, size_t leader, unsigned outstanding)
{
    uint64_t began = now_ns();
    c->board->outstanding = outstanding;
    say(c, WARM);
    while (await_leader(c, 0) == leader && now_ns() < began + ADAPT_MS * UINT64_C(1000000))
        sleep_ms(1);
    if (await_leader(c, 0) != leader)
        printf("leader/moved\t%" PRIu64 "\n", (now_ns() - began) / 1000000);
    say(c, PAUSE);
}

static int minority(const char *dir, unsigned payload, double seconds, unsigned outstanding, const char *us,
                    const char *slow_us)
{
    /* What is prepared in the beginning is over by the second one. */
    static const char *const labels[] = {"first", "healthy", "follower", "leader"};
    struct cluster c;

    if (outstanding < 1 || outstanding > OUTSTANDING_MAX)
        return 2;
    start_cluster(&c, 3, dir, false, ELECTION_MS, HEARTBEAT_MS);
    c.board->payload = payload;
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
        size_t leader = await_leader(&c, 0), slow = i == 2 ? (leader + 1) % 3 : leader;
        set_delay(dir, slow, i < 2 ? us : slow_us);
        if (i == 3)
            await_handover(&c, leader, outstanding);
        measure_point(&c, labels[i], outstanding, seconds);
        set_delay(dir, slow, us);
    }
    end_cluster(&c);
    return 0;
}

static int failover(const char *dir, long times, unsigned election_ms, unsigned heartbeat_ms, bool hint)
{
    struct cluster c;
    hinted = hint;
    start_cluster(&c, 3, dir, false, election_ms, heartbeat_ms);
    size_t leader = await_leader(&c, 0);
    for (long i = 0; i < times; i++) {
        await_applied(&c, leader);
        sleep_ms(SETTLE_MS);
        uint64_t killed = now_ns();
        kill_member(&c, leader);
        size_t next = await_leader(&c, killed);
        printf("failover\t%" PRIu64 "\n", (c.board->members[next].committed_ns - killed) / 1000000);
        start_member(&c, leader);
        leader = await_leader(&c, 0);
    }
    end_cluster(&c);
    return 0;
}

/* What the page cache holds of the directory. */
static void forget_cached(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    if (!d)
        die(dir);
    while ((entry = readdir(d))) {
        int fd = openat(dirfd(d), entry->d_name, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && entry->d_type == DT_REG) {
            fsync(fd);
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        }
        if (fd >= 0)
            close(fd);
    }
    closedir(d);
}

static void fill(struct cluster *c, uint64_t entries, unsigned payload)
{
    await_leader(c, 0);
    c->board->payload = payload;
    c->board->outstanding = OUTSTANDING_MAX;
    say(c, WARM);
    while (atomic_load(&c->board->filled) < entries) {
        sleep_ms(5);
        expect_alive(c);
    }
    say(c, PAUSE);
    kill_member(c, 0);
}

static int start(const char *dir, uint64_t entries, unsigned payload, long times)
{
    struct cluster c;
    start_cluster(&c, 1, dir, true, ELECTION_MS, HEARTBEAT_MS);
    const struct facts *f = &c.board->members[0];
    fill(&c, entries, payload);
    for (long i = 0; i < times; i++) {
        forget_cached(c.dirs[0]);
        start_member(&c, 0);
        uint64_t end = now_ns() + DEADLINE_NS;
        for (; atomic_load(&f->opened_ns) == 0 && now_ns() < end; sleep_ms(1))
            expect_alive(&c);
        printf("open\t%.1f\nrss\t%ld\n", (double)(f->opened_ns - f->began_ns) / 1e6, sample_rss(c.pids[0]));
        await_leader(&c, 0);
        printf("serves\t%.1f\n", (double)(f->committed_ns - f->began_ns) / 1e6);
        kill_member(&c, 0);
    }
    end_cluster(&c);
    return 0;
}

static int usage_error(void)
{
    fprintf(stderr, "usage: load rate DIR PAYLOAD SECONDS each|batch OUTSTANDING...\n"
                    "       load minority DIR PAYLOAD SECONDS OUTSTANDING US SLOW_US\n"
                    "       load failover DIR TIMES ELECTION_MS HEARTBEAT_MS [hint]\n"
                    "       load start DIR ENTRIES PAYLOAD TIMES\n");
    return 2;
}

static unsigned number(const char *text)
{
    return (unsigned)strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
    int status = 2;

    signal(SIGPIPE, SIG_IGN);
    /* Bytes that a compressing disk could not make less of. */
    for (size_t i = 0; i < sizeof payload_bytes; i++)
        payload_bytes[i] = (unsigned char)((i * 2654435761u) >> 13);
    if (argc > 6 && !strcmp(argv[1], "rate") && number(argv[3]) <= PAYLOAD_MAX)
        status = rate(argv[2], number(argv[3]), strtod(argv[4], NULL), !strcmp(argv[5], "batch"), argv + 6);
    else if (argc == 8 && !strcmp(argv[1], "minority") && number(argv[3]) <= PAYLOAD_MAX)
        status = minority(argv[2], number(argv[3]), strtod(argv[4], NULL), number(argv[5]), argv[6], argv[7]);
    else if ((argc == 6 || (argc == 7 && !strcmp(argv[6], "hint"))) && !strcmp(argv[1], "failover"))
        status = failover(argv[2], strtol(argv[3], NULL, 10), number(argv[4]), number(argv[5]), argc == 7);
    else if (argc == 6 && !strcmp(argv[1], "start") && number(argv[4]) <= PAYLOAD_MAX)
        status = start(argv[2], strtoull(argv[3], NULL, 10), number(argv[4]), strtol(argv[5], NULL, 10));
    return status == 2 ? usage_error() : status;
}
