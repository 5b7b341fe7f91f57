/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A member of a cluster of libraftkeel, in a loop over the descriptor of keel_fd() and the sockets
 * that carry its messages; no snapshots: an `apply` without `save` keeps the whole log. */
#include <errno.h>
#include <raftkeel.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base.h"
#include "load.h"
#include "tcp.h"

#define CLUSTER_NUMBER 0xbe9d
#define EVENTS 16

enum { KEEL, BELL };

struct host {
    const struct member *m;
    struct driver driver;
    struct tcp tcp;
    keel *k;
};

static struct host host;

const char *failure_detail(void)
{
    return keel_errmsg();
}

static void must(int result, const char *what)
{
    if (result >= 0)
        return;
    errno = 0;
    die(what);
}

static void on_done(void *arg, int status, uint64_t index);

static void submit_all(struct host *h)
{
    struct slot *slot;
    while ((slot = driver_take(&h->driver, false))) {
        size_t len = atomic_load_explicit(&h->m->board->payload, memory_order_relaxed);
        if (keel_propose(h->k, payload_bytes, len, on_done, slot) != KEEL_OK) {
            driver_done(slot, false);
            break;
        }
    }
}

static void on_done(void *arg, int status, uint64_t index)
{
    (void)index;
    driver_done(arg, status == KEEL_OK);
    submit_all(&host);
}

static void on_first(void *arg, int status, uint64_t index)
{
    struct host *h = arg;
    (void)index;
    if (status == KEEL_OK)
        atomic_store(&h->m->facts->committed_ns, now_ns());
    submit_all(h);
}

static void on_role(void *ud, int role, uint64_t term, keel_id leader)
{
    struct host *h = ud;
    struct facts *f = h->m->facts;
    (void)term, (void)leader;
    h->driver.leads = role == KEEL_ROLE_LEADER;
    atomic_store(&f->committed_ns, 0);
    atomic_store(&f->leads, h->driver.leads);
    if (h->driver.leads)
        must(keel_propose(h->k, "first", 5, on_first, h), "keel_propose");
}

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    struct host *h = ud;
    (void)term, (void)data, (void)len;
    atomic_store_explicit(&h->m->facts->applied, index, memory_order_relaxed);
    return 0;
}

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    struct host *h = ud;
    tcp_send(&h->tcp, (size_t)to - 1, msg, len);
}

/* What the library refuses is lost, as on any network. */
static void on_message(void *arg, const void *msg, size_t len)
{
    struct host *h = arg;
    (void)keel_recv(h->k, 0, msg, len);
}

static void on_lost(void *arg, size_t peer)
{
    struct host *h = arg;
    (void)keel_lost(h->k, peer + 1);
}

static void open_engine(struct host *h)
{
    const struct member *m = h->m;
    keel_peer peers[MEMBERS_MAX];
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;

    config.id = m->self + 1;
    config.cluster = CLUSTER_NUMBER;
    config.dir = m->dir;
    config.flags = m->is_new ? KEEL_NEW_NODE : 0;
    config.election_ms = m->election_ms;
    config.heartbeat_ms = m->heartbeat_ms;
    callbacks.apply = on_apply;
    callbacks.send = on_send;
    callbacks.role = on_role;
    for (size_t i = 0; i < m->members; i++)
        peers[i] = (keel_peer){.size = sizeof peers[i], .id = i + 1, .address = ""};
    must(keel_new(&h->k, &config, &callbacks, h), "keel_new");
    if (m->is_new)
        must(keel_bootstrap(h->k, peers, m->members), "keel_bootstrap");
}

static void watch(int epoll, int fd, uint32_t data)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static void turn(struct host *h)
{
    struct epoll_event events[EVENTS];
    uint64_t rings;
    int n = epoll_wait(h->tcp.epoll, events, EVENTS, tcp_timeout_ms(&h->tcp));
    if (n < 0 && errno != EINTR)
        die("epoll_wait");
    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 >= TCP_EVENTS)
            tcp_event(&h->tcp, events[i].data.u32);
        else if (events[i].data.u32 == BELL) {
            (void)!read(h->m->bell, &rings, sizeof rings);
            submit_all(h);
        }
    }
    must(keel_dispatch(h->k), "keel_dispatch");
    tcp_flush(&h->tcp);
}

_Noreturn void member_run(const struct member *m)
{
    struct host *h = &host;

    h->m = m;
    driver_init(&h->driver, m);
    h->tcp = (struct tcp){.epoll = epoll_create1(EPOLL_CLOEXEC), .self = m->self, .n = m->members};
    h->tcp.receive = on_message;
    h->tcp.lost = m->hint ? on_lost : NULL;
    h->tcp.arg = h;
    memcpy(h->tcp.ports, m->ports, sizeof m->ports);
    tcp_open(&h->tcp);
    atomic_store(&m->facts->began_ns, now_ns());
    open_engine(h);
    atomic_store(&m->facts->opened_ns, now_ns());
    int fd = keel_fd(h->k);
    must(fd, "keel_fd");
    watch(h->tcp.epoll, fd, KEEL);
    watch(h->tcp.epoll, m->bell, BELL);
    for (;;)
        turn(h);
}
