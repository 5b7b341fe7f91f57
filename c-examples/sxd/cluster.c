/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "cluster.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"
#include "words.h"

/* The number in the store that says that this node was made to join: 1 until it is a member. */
#define JOINS "joins"

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    peer_queue(ud, to, msg, len);
}

static void on_role(void *ud, int role, uint64_t term, keel_id leader)
{
    struct sxd *sx = ud;
    sx->cluster->changed = true;
    if (role == KEEL_ROLE_LEADER)
        say("term %" PRIu64 ": this node is the leader", term);
    else if (leader)
        say("term %" PRIu64 ": the leader is node %" PRIu64, term, leader);
    else
        say("term %" PRIu64 ": no leader is known", term);
}

static void on_node(void *ud, keel_id id, int state, int old_state, uint32_t silent_ms)
{
    struct sxd *sx = ud;
    static const char *const names[] = {"?", "JOINING", "ALIVE", "LATE", "SUSPECT", "EXCLUDED", "RETURNED", "REPLACED"};
    size_t known = sizeof names / sizeof *names;
    const char *is = state > 0 && (size_t)state < known ? names[state] : names[0];
    const char *was = old_state > 0 && (size_t)old_state < known ? names[old_state] : names[0];

    sx->cluster->changed = true;
    if (silent_ms == UINT32_MAX)
        say("node %" PRIu64 " is %s, was %s; never heard", id, is, was);
    else
        say("node %" PRIu64 " is %s, was %s; silent for %" PRIu32 " ms", id, is, was, silent_ms);
}

static void on_excluded(void *ud, uint64_t epoch, const keel_id *ids, size_t n, uint64_t index)
{
    struct sxd *sx = ud;
    sx->cluster->changed = true;
    for (size_t i = 0; i < n; i++)
        say("node %" PRIu64 " is FAULTY: excluded at epoch %" PRIu64 ", index %" PRIu64, ids[i], epoch, index);
}

static void on_members(void *ud, uint64_t epoch, uint64_t index)
{
    struct sxd *sx = ud;
    sx->cluster->changed = true;
    say("the members changed: epoch %" PRIu64 ", index %" PRIu64, epoch, index);
}

static void on_params(void *ud, const keel_params *p)
{
    (void)ud;
    say("settings: hb_keepalive %" PRIu32 " hb_warntime %" PRIu32 " hb_deadtime %" PRIu32 " hb_initdead %" PRIu32 " ms",
        p->hb_keepalive_ms, p->hb_warntime_ms, p->hb_deadtime_ms, p->hb_initdead_ms);
}

static void on_fence(void *ud, int fenced, const char *why)
{
    struct sxd *sx = ud;
    sx->cluster->fenced = fenced != 0;
    sx->cluster->changed = true;
    snprintf(sx->cluster->why, sizeof sx->cluster->why, "%s", fenced && why ? words(why) : "");
    if (fenced)
        say("this node stops serving: %s", sx->cluster->why);
    else
        say("this node serves");
}

static void on_event(void *ud, const char *code, const char *json)
{
    struct sxd *sx = ud;
    sx->cluster->changed = true;
    say("event %s %s", code, words(json));
}

static void on_stopped(void *ud, int why)
{
    struct sxd *sx = ud;
    sx->cluster->stopped = why;
    say("the engine has stopped: %s", keel_strerror(why));
}

static void on_log(void *ud, int level, const char *text)
{
    (void)ud;
    say("keel %d: %s", level, words(text));
}

bool cluster_is_out(const keel_node *n)
{
    return n->state != KEEL_NODE_REPLACED &&
           (n->role == KEEL_ROLE_EXCLUDED || n->state == KEEL_NODE_EXCLUDED || n->state == KEEL_NODE_RETURNED);
}

/* A node that is out counts as a lost replica, although its objects have probably
 * been copied: only it could say that nothing was missed. So no exclusion ever takes what may be the
 * last copy. */
static int on_guard(void *ud, const keel_id *ids, size_t n, char *why, size_t why_cap)
{
    struct sxd *sx = ud;
    keel_status *s;
    size_t lost = n;
    (void)ids;

    if (keel_status_take(sx->keel, &s) != KEEL_OK)
        return 1000;
    for (size_t i = 0; i < keel_status_count(s); i++)
        lost += cluster_is_out(keel_status_node(s, i));
    keel_status_free(s);
    if (lost < sx->replicas)
        return 0;
    snprintf(why, why_cap,
             "Unable to automatically disable dead node(s) because minimum replica requirements are not met");
    return -1;
}

/* Only from one of the present on can it be told when it was excluded: when this process starts it
 * learns of old decisions as if they were new. */
static void see(struct cluster *c, const keel_info *info, const keel_node *n)
{
    struct sighting *s = c->seen;

    while (s < c->seen + c->n_seen && s->id != n->id)
        s++;
    if (s == c->seen + sizeof c->seen / sizeof *c->seen)
        return;
    if (s == c->seen + c->n_seen) {
        c->n_seen++;
        *s = (struct sighting){.id = n->id};
    }
    if (cluster_is_out(n)) {
        s->out_ms = s->member ? now_ms() : s->out_ms;
        s->member = false;
    } else if (info->has_quorum && info->applied == info->commit) {
        s->member = true;
        s->out_ms = 0;
    }
}

/* Another node of ours, or only another of its addresses? Names are resolved nowhere here, and
 * 0.0.0.0 is everywhere. */
static bool same_place(const char *listen, const char *address)
{
    const char *port = strrchr(listen, ':'), *colon = strrchr(address, ':');
    struct in_addr ip;
    char host[ADDRESS_SIZE];

    if (!port || !colon || strcmp(port, colon) != 0 || colon - address >= ADDRESS_SIZE)
        return false;
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = '\0';
    if (inet_pton(AF_INET, host, &ip) != 1 || strncmp(listen, "0.0.0.0:", 8) == 0)
        return true;
    return strcmp(listen, address) == 0;
}

static void check_address(struct sxd *sx, const keel_node *self)
{
    struct cluster *c = sx->cluster;
    bool had = c->warning[0] != '\0';

    if (!self->address || !self->address[0] || same_place(sx->listen, self->address)) {
        c->warning[0] = '\0';
        return;
    }
    snprintf(c->warning, sizeof c->warning, "node %" PRIu64 " listens on %s, but the others look for it at %s", sx->id,
             sx->listen, self->address);
    if (!had)
        say("warning: %s", c->warning);
}

static void take_self(struct sxd *sx, const keel_node *n)
{
    struct cluster *c = sx->cluster;

    if (c->joins)
        store_put_number(sx->store, JOINS, 0);
    c->joins = false;
    check_address(sx, n);
    if (!cluster_is_out(n) && n->state != KEEL_NODE_REPLACED)
        return;
    c->out = true;
    c->out_epoch = n->epoch;
    c->out_index = n->index;
    c->replaced_by = n->replaced_by;
}

/* Takes over members and addresses from the engine. */
static void cluster_refresh(struct sxd *sx)
{
    struct cluster *c = sx->cluster;
    keel_status *s;

    if (keel_status_take(sx->keel, &s) != KEEL_OK)
        return;
    c->changed = false;
    c->epoch = keel_status_info(s)->epoch;
    c->n = c->n_out = 0;
    c->out = keel_status_info(s)->role == KEEL_ROLE_EXCLUDED;
    c->out_epoch = c->out_index = c->replaced_by = 0;
    for (size_t i = 0; i < keel_status_count(s); i++) {
        const keel_node *n = keel_status_node(s, i);
        see(c, keel_status_info(s), n);
        if (n->id == sx->id)
            take_self(sx, n);
        if (n->state == KEEL_NODE_REPLACED)
            continue;
        c->n_out += cluster_is_out(n);
        if (n->address && n->address[0])
            peer_set_address(sx, n->id, n->address);
        if (!cluster_is_out(n) && n->role != KEEL_ROLE_LEARNER && c->n < MEMBERS_MAX)
            c->members[c->n++] = n->id;
    }
    keel_status_free(s);
}

int64_t cluster_out_seconds(const struct sxd *sx, uint64_t id)
{
    const struct cluster *c = sx->cluster;

    for (const struct sighting *s = c->seen; s < c->seen + c->n_seen; s++)
        if (s->id == id && s->out_ms)
            return (int64_t)(now_ms() - s->out_ms) / 1000;
    return -1;
}

static void set_callbacks(keel_callbacks *cb)
{
    cb->send = on_send;
    cb->role = on_role;
    cb->node = on_node;
    cb->excluded = on_excluded;
    cb->members = on_members;
    cb->params = on_params;
    cb->fence = on_fence;
    cb->event = on_event;
    cb->stopped = on_stopped;
    cb->guard = on_guard;
    cb->log = on_log;
}

static bool is_first_member(const struct sxd *sx, const struct cluster_options *o)
{
    for (size_t i = 0; i < o->n_peers; i++)
        if (o->peers[i].id == sx->id)
            return true;
    return false;
}

/* A first member is bootstrapped until it has a log: a process that died between the two calls is
 * healed by the next one, also by a repeated --init. A node that was made to join must never be, its
 * list of peers says only where the others are. */
static int start_engine(struct sxd *sx, keel_config *config, const struct cluster_options *o)
{
    keel_callbacks cb = KEEL_CALLBACKS_INIT;
    bool again = false;

    set_callbacks(&cb);
    sx->cluster->joins = o->join || store_get_number(sx->store, JOINS);
    if (o->join && store_put_number(sx->store, JOINS, 1))
        return KEEL_ERR_IO;
    config->flags = o->init || o->join ? KEEL_NEW_NODE : 0;
    int rc = keel_new(&sx->keel, config, &cb, sx);
    if (rc == KEEL_ERR_EXISTS && o->init) {
        again = true;
        config->flags = 0;
        rc = keel_new(&sx->keel, config, &cb, sx);
    }
    if (rc != KEEL_OK || sx->cluster->joins || !is_first_member(sx, o))
        return rc == KEEL_OK && again ? KEEL_ERR_EXISTS : rc;
    rc = keel_bootstrap(sx->keel, o->peers, o->n_peers);
    return rc == KEEL_ERR_EXISTS && !again ? KEEL_OK : rc;
}

static void say_why(int rc, const char *dir)
{
    if (rc == KEEL_ERR_NOT_FOUND)
        say("no node lives in %s: a new one is started with --init or --join; one that has lost its directory is "
            "replaced by one with a new id",
            dir);
    else if (rc == KEEL_ERR_EXISTS)
        say("a node lives in %s already: start it without --init and --join", dir);
    else if (rc == KEEL_ERR_LOCKED)
        say("another sxd runs in %s", dir);
    else
        say("the engine does not start: %s", words(keel_errmsg()));
}

bool cluster_open(struct sxd *sx, const struct cluster_options *o)
{
    char dir[4096];
    keel_config config = KEEL_CONFIG_INIT;

    sx->cluster = xcalloc(1, sizeof *sx->cluster);
    snprintf(dir, sizeof dir, "%s/keel", o->dir);
    config.id = sx->id;
    config.cluster = o->cluster;
    config.dir = dir;
    config.params.hb_keepalive_ms = o->keepalive_ms;
    int rc = start_engine(sx, &config, o);
    if (rc != KEEL_OK) {
        say_why(rc, o->dir);
        return false;
    }
    for (size_t i = 0; i < o->n_peers; i++)
        peer_set_address(sx, o->peers[i].id, o->peers[i].address);
    cluster_refresh(sx);
    return true;
}

void cluster_close(struct sxd *sx)
{
    keel_free(sx->keel);
    sx->keel = NULL;
    free(sx->cluster);
    sx->cluster = NULL;
}

bool cluster_run(struct sxd *sx)
{
    int rc = keel_dispatch(sx->keel);
    if (rc < 0 || sx->cluster->stopped) {
        say("the engine cannot go on: %s: %s", keel_strerror(rc), words(keel_errmsg()));
        return false;
    }
    bool out = keel_role(sx->keel) == KEEL_ROLE_EXCLUDED;
    if (sx->cluster->changed || keel_epoch(sx->keel) != sx->cluster->epoch || out != sx->cluster->out)
        cluster_refresh(sx);
    return true;
}

static bool is_member(const struct cluster *c, uint64_t id)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->members[i] == id)
            return true;
    return false;
}

void cluster_out(const struct sxd *sx, char *why, size_t cap)
{
    const struct cluster *c = sx->cluster;
    char at[80] = "", by[48] = "";

    if (c->out_epoch)
        snprintf(at, sizeof at, " at epoch %" PRIu64 ", index %" PRIu64, c->out_epoch, c->out_index);
    if (c->replaced_by)
        snprintf(by, sizeof by, ", and replaced by node %" PRIu64, c->replaced_by);
    snprintf(why, cap, "This node has been excluded from the cluster%s%s", at, by);
}

bool cluster_fenced(const struct sxd *sx, char *why, size_t cap)
{
    const struct cluster *c = sx->cluster;

    /* The lease also runs down while this process is stopped. */
    if (!c->fenced && keel_lease_ms(sx->keel) > 0)
        return false;
    snprintf(why, cap, "This node must not serve: %s",
             c->why[0] ? c->why : "it has not heard from a leader with a majority");
    return true;
}

bool cluster_may_serve(struct sxd *sx, unsigned *status, char *why, size_t cap)
{
    struct cluster *c = sx->cluster;

    if (c->out || keel_role(sx->keel) == KEEL_ROLE_EXCLUDED) {
        *status = 410;
        cluster_out(sx, why, cap);
        return false;
    }
    *status = 503;
    if (c->joins) {
        snprintf(why, cap,
                 "This node is not a member yet: on a member run sxadm cluster --replace-faulty OLD=%" PRIu64 "/%s URL",
                 sx->id, sx->listen);
        return false;
    }
    if (cluster_fenced(sx, why, cap))
        return false;
    if (!is_member(c, sx->id)) {
        snprintf(why, cap, "This node is not a full member of the cluster yet");
        return false;
    }
    return true;
}

bool cluster_accepts(struct sxd *sx, struct http_req *r)
{
    uint64_t from, epoch;
    char why[256];

    if (!parse_u64(http_header(r, "X-Sxd-From"), 1, UINT64_MAX, &from) ||
        !parse_u64(http_header(r, "X-Sxd-Epoch"), 0, UINT64_MAX, &epoch)) {
        http_reply_error(r, 400, "X-Sxd-From or X-Sxd-Epoch is missing");
        return false;
    }
    if (sx->cluster->out) {
        cluster_out(sx, why, sizeof why);
        http_reply_error(r, 410, "%s", why);
        return false;
    }
    int rc = keel_check_epoch(sx->keel, from, epoch);
    /* Ahead: this node learns of the change in a moment. The sender's choice of nodes is the newer. */
    if (rc >= 0)
        return true;
    if (rc == KEEL_ERR_STALE)
        http_reply_error(r, 409, "Epoch %" PRIu64 " is over, node %" PRIu64 " is at %" PRIu64, epoch, sx->id,
                         keel_epoch(sx->keel));
    else
        http_reply_error(r, 403, "Node %" PRIu64 " is not a member: %s", from, keel_strerror(rc));
    return false;
}

size_t cluster_replicas(const struct sxd *sx)
{
    return sx->replicas < sx->cluster->n ? sx->replicas : sx->cluster->n;
}

void cluster_describe(struct sxd *sx, uint64_t id, char *out, size_t cap)
{
    keel_status *s;
    uint32_t silent = UINT32_MAX;

    if (keel_status_take(sx->keel, &s) == KEEL_OK) {
        for (size_t i = 0; i < keel_status_count(s); i++)
            if (keel_status_node(s, i)->id == id)
                silent = keel_status_node(s, i)->silent_ms;
        keel_status_free(s);
    }
    if (silent == UINT32_MAX)
        snprintf(out, cap, "node %" PRIu64 " (%s), never heard", id, peer_address(sx, id));
    else
        snprintf(out, cap, "node %" PRIu64 " (%s), last contact %" PRIu32 " seconds ago", id, peer_address(sx, id),
                 silent / 1000);
}
