/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Three nodes, the first one on a disk that is filled, and emptied again: argv[1] is a directory on
 * that disk, argv[2] one elsewhere. Its leader refuses proposals and is succeeded, it votes and
 * answers meanwhile, also when it is started anew, and catches up by itself. With "fd" behind it all are driven behind descriptors, in
 * real time. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define NODES 3
#define RESTARTS 3
#define INBOX 4096

struct message {
    keel_id from, to;
    size_t len;
    unsigned char *bytes;
};

static keel *nodes[NODES + 1];
static uint64_t applied[NODES + 1], now_ms;
static struct message inbox[INBOX];
static size_t waiting;
static unsigned ok, refused, other;
static unsigned began, ended;
static int behind_fds;

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    (void)index, (void)term, (void)data, (void)len;
    applied[(uintptr_t)ud]++;
    return 0;
}

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    struct message *m = &inbox[waiting++];

    CHECK(waiting <= INBOX);
    m->from = (keel_id)(uintptr_t)ud, m->to = to, m->len = len;
    m->bytes = malloc(len);
    CHECK(m->bytes != NULL);
    memcpy(m->bytes, msg, len);
}

static void on_log(void *ud, int level, const char *text)
{
    if ((uintptr_t)ud != 1 || level > 2)
        return;
    began += strstr(text, "the log cannot be written on") != NULL;
    ended += strstr(text, "there is room for the log again") != NULL;
}

static void on_done(void *arg, int status, uint64_t index)
{
    (void)arg, (void)index;
    if (status == KEEL_OK)
        ok++;
    else if (status == KEEL_ERR_NOSPC)
        refused++;
    else
        other++;
}

static void deliver(void)
{
    size_t count = waiting;

    for (size_t i = 0; i < count; i++) {
        struct message m = inbox[i];

        CHECK_CODE(keel_recv(nodes[m.to], m.from, m.bytes, m.len), KEEL_OK);
        free(m.bytes);
    }
    memmove(inbox, inbox + count, (waiting - count) * sizeof inbox[0]);
    waiting -= count;
}

static uint64_t clock_ms(void)
{
    struct timespec t;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Drives all nodes for so long. */
static void step_all(uint64_t ms)
{
    struct pollfd fds[NODES];
    uint64_t end = clock_ms() + ms;

    if (!behind_fds) {
        for (end = now_ms + ms; now_ms < end; now_ms += 10) {
            deliver();
            for (keel_id id = 1; id <= NODES; id++)
                CHECK_CODE(keel_step(nodes[id], now_ms, NULL), KEEL_OK);
        }
        return;
    }
    do {
        for (keel_id id = 1; id <= NODES; id++) {
            fds[id - 1].fd = keel_fd(nodes[id]);
            fds[id - 1].events = POLLIN;
            CHECK(fds[id - 1].fd >= 0);
        }
        CHECK(poll(fds, NODES, 5) >= 0);
        deliver();
        for (keel_id id = 1; id <= NODES; id++)
            CHECK_CODE(keel_dispatch(nodes[id]), KEEL_OK);
    } while (clock_ms() < end);
}

static keel_id leader(void)
{
    for (keel_id id = 1; id <= NODES; id++)
        if (keel_role(nodes[id]) == KEEL_ROLE_LEADER)
            return id;
    return 0;
}

static int disk_full(keel_id id)
{
    keel_status *status;
    int full;

    CHECK_CODE(keel_status_take(nodes[id], &status), KEEL_OK);
    full = keel_status_info(status)->disk_full;
    keel_status_free(status);
    return full;
}

/* Until it is the leader that is wished for. */
static void lead(keel_id wished)
{
    for (int i = 0; leader() != wished; i++) {
        CHECK(i < 1000);
        if (leader() != 0)
            CHECK_CODE(keel_transfer(nodes[leader()], wished, NULL, NULL), KEEL_OK);
        step_all(500);
    }
}

static void open_node(keel_id id, const char *root, int create)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    char dir[PATH_MAX];

    config.cluster = 77;
    config.flags = create ? KEEL_NEW_NODE : 0;
    callbacks.apply = on_apply;
    callbacks.send = on_send;
    callbacks.log = on_log;
    config.id = id;
    config.seed = id;
    snprintf(dir, sizeof dir, "%s/node%u", root, (unsigned)id);
    config.dir = dir;
    applied[id] = 0;
    CHECK_CODE(keel_new(&nodes[id], &config, &callbacks, (void *)(uintptr_t)id), KEEL_OK);
}

static void open_nodes(const char *full, const char *elsewhere, int create)
{
    for (keel_id id = 1; id <= NODES; id++)
        open_node(id, id == 1 ? full : elsewhere, create);
}

/* Takes all of the disk that is free. */
static void fill(const char *path)
{
    static char block[65536];
    int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0600);

    CHECK(fd >= 0);
    for (size_t len = sizeof block; len > 0;) {
        ssize_t n = write(fd, block, len);

        if (n < 0) {
            CHECK(errno == ENOSPC);
            len /= 2;
        }
    }
    close(fd);
}

int main(int argc, char **argv)
{
    static char data[30000];
    keel_peer peers[NODES] = {KEEL_PEER_INIT, KEEL_PEER_INIT, KEEL_PEER_INIT};
    char filler[PATH_MAX];
    unsigned before;

    CHECK(argc == 3 || argc == 4);
    behind_fds = argc == 4;
    snprintf(filler, sizeof filler, "%s/filler", argv[1]);
    open_nodes(argv[1], argv[2], 1);
    for (keel_id id = 1; id <= NODES; id++)
        peers[id - 1].id = id;
    for (keel_id id = 1; id <= NODES; id++)
        CHECK_CODE(keel_bootstrap(nodes[id], peers, NODES), KEEL_OK);
    lead(1);
    CHECK_CODE(keel_propose(nodes[1], data, 10, on_done, NULL), KEEL_OK);
    step_all(1000);
    CHECK(ok == 1);
    fill(filler);
    /* Its last segment has room for some more. */
    for (int i = 0; leader() == 1; i++) {
        CHECK(i < 1000);
        CHECK_CODE(keel_propose(nodes[1], data, sizeof data, on_done, NULL), KEEL_OK);
        step_all(10);
        if (refused > 0)
            step_all(100);
    }
    /* It may look for a moment as if there were room again. */
    CHECK(began >= 1 && refused > 0);
    CHECK(disk_full(1) && !disk_full(2) && !disk_full(3));
    for (int i = 0; leader() == 0; i++) {
        CHECK(i < 1000);
        step_all(100);
    }
    before = ok;
    for (int i = 0; i < 100; i++) {
        CHECK_CODE(keel_propose(nodes[leader()], data, sizeof data, on_done, NULL), KEEL_OK);
        step_all(20);
    }
    step_all(1000);
    CHECK(ok >= before + 100);
    /* It still votes: with its vote alone there is another leader. */
    CHECK(leader() == 2 || leader() == 3);
    lead(leader() == 2 ? 3 : 2);
    CHECK(applied[1] < applied[2]);
    /* It starts without any room as well, however often. */
    for (int i = 0; i < RESTARTS; i++) {
        CHECK_CODE(keel_free(nodes[1]), KEEL_OK);
        snprintf(filler, sizeof filler, "%s/filler%d", argv[1], i);
        fill(filler);
        open_node(1, argv[1], 0);
        lead(leader() == 2 ? 3 : 2);
        CHECK(applied[1] > 0 && applied[1] < applied[2]);
    }
    for (int i = 0; i < RESTARTS; i++) {
        snprintf(filler, sizeof filler, "%s/filler%d", argv[1], i);
        CHECK(unlink(filler) == 0);
    }
    snprintf(filler, sizeof filler, "%s/filler", argv[1]);
    CHECK(unlink(filler) == 0);
    step_all(5000);
    CHECK(ended >= 1 && !disk_full(1));
    CHECK(applied[1] == applied[2] && applied[2] == applied[3]);
    lead(1);
    before = ok;
    CHECK_CODE(keel_propose(nodes[1], data, sizeof data, on_done, NULL), KEEL_OK);
    step_all(500);
    CHECK(ok == before + 1);
    printf("%u done, %u refused, %u lost\n", ok, refused, other);
    for (keel_id id = 1; id <= NODES; id++)
        CHECK_CODE(keel_free(nodes[id]), KEEL_OK);
    open_nodes(argv[1], argv[2], 0);
    for (keel_id id = 1; id <= NODES; id++)
        CHECK_CODE(keel_free(nodes[id]), KEEL_OK);
    for (size_t i = 0; i < waiting; i++)
        free(inbox[i].bytes);
    return 0;
}
