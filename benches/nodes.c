/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "nodes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLUSTER_NUMBER 0xbe9c
/* What a datagram can carry; nothing here needs more. */
#define MESSAGE_MAX 65536
#define LEADER_DEADLINE_NS 60000000000u

/* One node, in its own process. */
struct host {
    struct nodes *c;
    struct facts *facts;
    int socket;
    keel *k;
};

const char *failure_detail(void)
{
    return keel_errmsg();
}

/* ---- the process of a node ---- */

/* A datagram that does not leave is one of those that the network may lose. */
static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    struct host *h = ud;
    const struct sockaddr_in *address = &h->c->addresses[to - 1];
    (void)!sendto(h->socket, msg, len, MSG_DONTWAIT, (const struct sockaddr *)address, sizeof *address);
    atomic_fetch_add_explicit(&h->facts->sent, 1, memory_order_relaxed);
}

static void on_done(void *arg, int status, uint64_t index)
{
    struct host *h = arg;
    (void)index;
    if (status == KEEL_OK)
        atomic_store(&h->facts->committed_ns, now_ns());
}

/* A new leader proposes at once: its commit shows that the cluster serves again. */
static void on_role(void *ud, int role, uint64_t term, keel_id leader)
{
    struct host *h = ud;
    (void)term;
    atomic_store(&h->facts->committed_ns, 0);
    atomic_store(&h->facts->leader, leader);
    if (role == KEEL_ROLE_LEADER && keel_propose(h->k, "bench", 5, on_done, h) != KEEL_OK)
        die("keel_propose");
}

static void open_engine(struct host *h, size_t i, bool first_start)
{
    char path[4096];
    keel_peer peers[NODES_MAX];
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;

    snprintf(path, sizeof path, "%s/node%zu", h->c->dir, i + 1);
    config.id = i + 1;
    config.cluster = CLUSTER_NUMBER;
    config.dir = path;
    config.flags = first_start ? KEEL_NEW_NODE : 0;
    config.params.hb_keepalive_ms = KEEPALIVE_MS;
    callbacks.send = on_send;
    callbacks.role = on_role;
    for (size_t j = 0; j < h->c->n; j++)
        peers[j] = (keel_peer){.size = sizeof peers[j], .id = j + 1, .address = ""};
    errno = 0;
    if (keel_new(&h->k, &config, &callbacks, h) != KEEL_OK)
        die("keel_new");
    if (first_start && keel_bootstrap(h->k, peers, h->c->n) != KEEL_OK)
        die("keel_bootstrap");
}

static void receive(const struct host *h)
{
    static unsigned char buffer[MESSAGE_MAX];
    ssize_t len;
    /* What the library refuses is lost, as on any network. */
    while ((len = recv(h->socket, buffer, sizeof buffer, MSG_DONTWAIT)) > 0)
        (void)keel_recv(h->k, 0, buffer, (size_t)len);
}

static _Noreturn void run_node(struct nodes *c, size_t i, bool first_start)
{
    struct host h = {.c = c, .facts = &c->facts[i], .socket = c->sockets[i]};

    for (size_t j = 0; j < c->n; j++)
        if (j != i)
            close(c->sockets[j]);
    open_engine(&h, i, first_start);
    struct pollfd fds[2] = {{keel_fd(h.k), POLLIN, 0}, {h.socket, POLLIN, 0}};
    if (fds[0].fd < 0)
        die("keel_fd");
    for (;;) {
        if (poll(fds, 2, -1) < 0)
            die("poll");
        if (fds[1].revents)
            receive(&h);
        errno = 0;
        if (keel_dispatch(h.k) != KEEL_OK)
            die("keel_dispatch");
        atomic_fetch_add_explicit(&h.facts->turns, 1, memory_order_relaxed);
    }
}

/* ---- the process that measures ---- */

static void start_node(struct nodes *c, size_t i, bool first_start)
{
    pid_t pid = fork_child();
    if (pid == 0)
        run_node(c, i, first_start);
    c->pids[i] = pid;
}

static void open_socket(struct nodes *c, size_t i)
{
    struct sockaddr_in *address = &c->addresses[i];
    socklen_t len = sizeof *address;

    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->sockets[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (c->sockets[i] < 0 || bind(c->sockets[i], (struct sockaddr *)address, len) < 0 ||
        getsockname(c->sockets[i], (struct sockaddr *)address, &len) < 0)
        die("socket");
}

void nodes_start(struct nodes *c, size_t n, const char *dir)
{
    *c = (struct nodes){.n = n, .dir = dir};
    c->facts = mmap(NULL, NODES_MAX * sizeof *c->facts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (c->facts == MAP_FAILED)
        die("mmap");
    for (size_t i = 0; i < n; i++)
        open_socket(c, i);
    for (size_t i = 0; i < n; i++)
        start_node(c, i, true);
}

void nodes_kill(struct nodes *c, size_t i)
{
    kill(c->pids[i], SIGKILL);
    waitpid(c->pids[i], NULL, 0);
    c->pids[i] = 0;
}

void nodes_restart(struct nodes *c, size_t i)
{
    char old[1];
    while (recv(c->sockets[i], old, sizeof old, MSG_DONTWAIT) >= 0) {
        /* What was sent to the dead process died with it. */
    }
    c->facts[i] = (struct facts){0};
    start_node(c, i, false);
}

void nodes_end(struct nodes *c)
{
    for (size_t i = 0; i < c->n; i++) {
        if (c->pids[i])
            nodes_kill(c, i);
        close(c->sockets[i]);
    }
    munmap(c->facts, NODES_MAX * sizeof *c->facts);
}

static bool all_follow(const struct nodes *c, size_t leader)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->pids[i] && atomic_load(&c->facts[i].leader) != leader + 1)
            return false;
    return true;
}

size_t nodes_await_leader(struct nodes *c, uint64_t after_ns)
{
    for (uint64_t end = now_ns() + LEADER_DEADLINE_NS; now_ns() < end; sleep_ms(5)) {
        for (size_t i = 0; i < c->n; i++) {
            /* Its proposal is late if it died: nobody else's facts are set back by that. */
            bool serves = c->pids[i] && atomic_load(&c->facts[i].committed_ns) > after_ns;
            if (serves && all_follow(c, i))
                return i;
            if (c->pids[i] && waitpid(c->pids[i], NULL, WNOHANG) != 0) {
                errno = 0;
                die("a node has ended");
            }
        }
    }
    errno = 0;
    die("no leader for a minute");
}
