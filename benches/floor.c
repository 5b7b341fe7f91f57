/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* How long replication takes here of itself: what any protocol can hardly be faster than.
 *   floor DIR BYTES SECONDS
 * Three processes as load.h has them, with no protocol at all. One sends so many bytes to the others, and
 * writes as many to its disk, in whole pages; they write them when they have come, and answer. When its
 * own and one of the others' are durable the next round begins. Whoever writes waits, which no daemon can
 * afford, but which takes the fewest switches between threads.
 * Prints "rate<TAB>rounds/s", and "p50<TAB>" and "write<TAB>" in us: of a round, and of a write. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base.h"

#define FOLLOWERS 2
#define PAGE 4096
#define LOG_BYTES (16 << 20)
#define ROUND_MAX (1 << 20)
/* What making the files has left to do for the disk is none of it. */
#define SETTLE_MS 737
#define WARM_NS 300000000u
#define ROUNDS_MAX 1000000u

/* What is sent and written. Aligned, as writing past the page cache wants it. */
static _Alignas(PAGE) unsigned char bytes[ROUND_MAX];

const char *failure_detail(void) { return "no detail"; }

/* A file of zeros on the disk, open for writes that are durable when they return. */
static int open_log(const char *dir, int member)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/floor%d", dir, member);
    int zeros = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (off_t at = 0; zeros >= 0 && at < LOG_BYTES; at += ROUND_MAX)
        if (pwrite(zeros, bytes, ROUND_MAX, at) != ROUND_MAX)
            die("zeros");
    if (zeros < 0 || fsync(zeros) < 0)
        die(path);
    int log = open(path, O_WRONLY | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (log < 0 && errno == EINVAL)
        log = open(path, O_WRONLY | O_DSYNC | O_CLOEXEC);
    if (log < 0)
        die(path);
    close(zeros);
    unlink(path);
    return log;
}

static void make_durable(int log, uint64_t round, size_t size)
{
    size_t whole = (size + PAGE - 1) / PAGE * PAGE;
    uint64_t places = LOG_BYTES / whole;
    if (pwrite(log, bytes, whole, (off_t)(round % places * whole)) != (ssize_t)whole)
        die("pwrite");
}

/* False when nobody reads any more. */
static bool send_all(int fd, const void *from, size_t n)
{
    return send(fd, from, n, MSG_NOSIGNAL) == (ssize_t)n;
}

/* False at the end of the stream. */
static bool receive_all(int fd, void *into, size_t n)
{
    return recv(fd, into, n, MSG_WAITALL) == (ssize_t)n;
}

/* Both ends of a connection on loopback. */
static void connect_pair(int ends[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof at;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || ends[0] < 0 || bind(listener, (struct sockaddr *)&at, len) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&at, &len) < 0 ||
        connect(ends[0], (struct sockaddr *)&at, len) < 0 || (ends[1] = accept(listener, NULL, NULL)) < 0)
        die("a connection on loopback");
    close(listener);
    for (int i = 0; i < 2; i++)
        setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static _Noreturn void follow(int leader, int log, size_t size)
{
    uint64_t round = 0;
    do {
        if (!receive_all(leader, bytes, size))
            break;
        make_durable(log, ++round, size);
    } while (send_all(leader, &round, sizeof round));
    _exit(0);
}

/* Waits until one of them has answered this round. */
static void await_answer(struct pollfd *followers, uint64_t round)
{
    for (;;) {
        if (poll(followers, FOLLOWERS, -1) < 0)
            die("poll");
        bool answered = false;
        for (int i = 0; i < FOLLOWERS; i++) {
            uint64_t its = 0;
            if (followers[i].revents && !receive_all(followers[i].fd, &its, sizeof its))
                die("a follower");
            answered |= its == round;
        }
        if (answered)
            return;
    }
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double median_us(uint32_t *ns, size_t n)
{
    qsort(ns, n, sizeof *ns, by_size);
    return n ? ns[n / 2] / 1e3 : 0;
}

/* One round; how long its own write took. */
static uint64_t lead(struct pollfd *followers, int log, size_t size, uint64_t round)
{
    for (int i = 0; i < FOLLOWERS; i++)
        if (!send_all(followers[i].fd, bytes, size))
            die("send");
    uint64_t sent = now_ns();
    make_durable(log, round, size);
    uint64_t written = now_ns();
    await_answer(followers, round);
    return written - sent;
}

static void measure(struct pollfd *followers, int log, size_t size, uint64_t seconds)
{
    static uint32_t rounds[ROUNDS_MAX], writes[ROUNDS_MAX];
    uint64_t round = 0, warm = now_ns() + WARM_NS;

    while (now_ns() < warm)
        lead(followers, log, size, ++round);
    uint64_t began = now_ns(), before = began;
    size_t n = 0;
    while (n < ROUNDS_MAX && before - began < seconds * 1000000000u) {
        writes[n] = (uint32_t)lead(followers, log, size, ++round);
        uint64_t now = now_ns();
        rounds[n++] = (uint32_t)(now - before);
        before = now;
    }
    printf("rate\t%.0f\n", (double)n * 1e9 / (double)(before - began));
    printf("p50\t%.1f\nwrite\t%.1f\n", median_us(rounds, n), median_us(writes, n));
}

int main(int argc, char **argv)
{
    struct pollfd followers[FOLLOWERS];
    size_t size = argc == 4 ? strtoul(argv[2], NULL, 10) : 0;
    uint64_t seconds = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;

    if (size < 1 || size > ROUND_MAX || seconds < 1)
        return fprintf(stderr, "usage: floor DIR BYTES SECONDS\n"), 2;
    for (int i = 0; i < FOLLOWERS; i++) {
        int ends[2], log = open_log(argv[1], i + 1);
        connect_pair(ends);
        if (fork_child() == 0) {
            close(ends[0]);
            follow(ends[1], log, size);
        }
        close(ends[1]);
        close(log);
        followers[i] = (struct pollfd){.fd = ends[0], .events = POLLIN};
    }
    int log = open_log(argv[1], 0);
    sleep_ms(SETTLE_MS);
    measure(followers, log, size, seconds);
    return 0;
}
