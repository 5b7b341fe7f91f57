/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A member of a cluster of libraft (Debian's libraft-dev), with its own TCP and its own directory, as
 * they come; no snapshots, for the other side takes none either. */
#include <errno.h>
#include <limits.h>
#include <raft.h>
#include <raft/uv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base.h"
#include "load.h"

struct server {
    const struct member *m;
    struct driver driver;
    struct uv_loop_s loop;
    struct raft_uv_transport transport;
    struct raft_io io;
    struct raft_fsm fsm;
    struct raft raft;
    uv_check_t check;
    uv_poll_t bell;
};

/* A call of raft_apply(). */
struct call {
    struct raft_apply req;
    struct server *server;
    struct slot *slot; /* NULL: a new leader's first entry */
};

static struct server server;
static char failure[RAFT_ERRMSG_BUF_SIZE];

const char *failure_detail(void)
{
    return failure;
}

static void must(int result, const char *what)
{
    if (result == 0)
        return;
    errno = 0;
    snprintf(failure, sizeof failure, "%.200s (%d)", server.raft.errmsg, result);
    die(what);
}

static void submit_all(struct server *s);

static void on_applied(struct raft_apply *req, int status, void *result)
{
    struct call *call = req->data;
    struct server *s = call->server;
    (void)result;
    if (call->slot)
        driver_done(call->slot, status == 0);
    else if (status == 0)
        atomic_store(&s->m->facts->committed_ns, now_ns());
    free(call);
    /* Of a batch all entries come back in one: the next one begins as soon as the library is done. */
    if (!s->m->batch)
        submit_all(s);
}

/* One call; false if this server does not lead any more. */
static bool submit(struct server *s, struct slot *slot, unsigned n, size_t len)
{
    static struct raft_buffer bufs[OUTSTANDING_MAX];
    struct call *call = malloc(sizeof *call);
    for (unsigned i = 0; i < n; i++) {
        bufs[i] = (struct raft_buffer){.base = raft_malloc(len), .len = len};
        if (!call || !bufs[i].base)
            die("malloc");
        memcpy(bufs[i].base, payload_bytes, len);
    }
    *call = (struct call){.server = s, .slot = slot};
    call->req.data = call;
    int result = raft_apply(&s->raft, &call->req, bufs, n, on_applied);
    if (result == 0)
        return true;
    for (unsigned i = 0; i < n; i++)
        raft_free(bufs[i].base);
    free(call);
    if (slot)
        driver_done(slot, false);
    return false;
}

static void submit_all(struct server *s)
{
    struct slot *slot;
    while ((slot = driver_take(&s->driver, s->m->batch)))
        if (!submit(s, slot, slot->entries, atomic_load(&s->m->board->payload)))
            break;
}

/* Once in every turn of the loop, when the library has done what there was. */
static void on_turn(uv_check_t *check)
{
    struct server *s = check->data;
    struct facts *f = s->m->facts;
    bool leads = raft_state(&s->raft) == RAFT_LEADER;
    atomic_store_explicit(&f->applied, raft_last_applied(&s->raft), memory_order_relaxed);
    if (leads != s->driver.leads) {
        s->driver.leads = leads;
        atomic_store(&f->committed_ns, 0);
        atomic_store(&f->leads, leads);
        if (leads && !submit(s, NULL, 1, 8))
            s->driver.leads = false;
    }
    submit_all(s);
}

static void on_bell(uv_poll_t *poll, int status, int events)
{
    struct server *s = poll->data;
    uint64_t rings;
    (void)status, (void)events;
    (void)!read(s->m->bell, &rings, sizeof rings);
}

static int apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    (void)fsm, (void)buf;
    *result = NULL;
    return 0;
}

static int snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    (void)fsm, (void)bufs, (void)n_bufs;
    return RAFT_INVALID;
}

static int restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    (void)fsm, (void)buf;
    return RAFT_INVALID;
}

static void address_of(const struct member *m, size_t i, char *buf, size_t size)
{
    snprintf(buf, size, "127.0.0.1:%u", (unsigned)m->ports[i]);
}

static void bootstrap(struct server *s)
{
    struct raft_configuration configuration;
    char address[64];
    raft_configuration_init(&configuration);
    for (size_t i = 0; i < s->m->members; i++) {
        address_of(s->m, i, address, sizeof address);
        must(raft_configuration_add(&configuration, i + 1, address, RAFT_VOTER), "raft_configuration_add");
    }
    must(raft_bootstrap(&s->raft, &configuration), "raft_bootstrap");
    raft_configuration_close(&configuration);
}

static void open_server(struct server *s)
{
    char address[64];
    address_of(s->m, s->m->self, address, sizeof address);
    must(uv_loop_init(&s->loop), "uv_loop_init");
    must(raft_uv_tcp_init(&s->transport, &s->loop), "raft_uv_tcp_init");
    must(raft_uv_init(&s->io, &s->loop, s->m->dir, &s->transport), "raft_uv_init");
    s->fsm = (struct raft_fsm){.version = 1, .apply = apply, .snapshot = snapshot, .restore = restore};
    must(raft_init(&s->raft, &s->io, &s->fsm, s->m->self + 1, address), "raft_init");
    raft_set_election_timeout(&s->raft, s->m->election_ms);
    raft_set_heartbeat_timeout(&s->raft, s->m->heartbeat_ms);
    raft_set_snapshot_threshold(&s->raft, UINT_MAX);
    raft_set_pre_vote(&s->raft, true);
    if (s->m->is_new)
        bootstrap(s);
    must(raft_start(&s->raft), "raft_start");
}

_Noreturn void member_run(const struct member *m)
{
    struct server *s = &server;

    s->m = m;
    driver_init(&s->driver, m);
    atomic_store(&m->facts->began_ns, now_ns());
    open_server(s);
    atomic_store(&m->facts->opened_ns, now_ns());
    must(uv_check_init(&s->loop, &s->check), "uv_check_init");
    must(uv_poll_init(&s->loop, &s->bell, m->bell), "uv_poll_init");
    s->check.data = s->bell.data = s;
    must(uv_check_start(&s->check, on_turn), "uv_check_start");
    must(uv_poll_start(&s->bell, UV_READABLE, on_bell), "uv_poll_start");
    uv_run(&s->loop, UV_RUN_DEFAULT);
    errno = 0;
    die("the loop has ended");
}
