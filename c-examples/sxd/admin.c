/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "admin.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "heal.h"
#include "peer.h"

/* Longer than the leader takes at most, so that its answer wins. */
#define FORWARD_MS ((long)REQUEST_MS + 2000)

/* A change that the engine or the leader has been given. It lives until that has answered, which
 * may be after the administrator has been told that it takes too long. */
struct change {
    struct change *prev, *next;
    struct sxd *sx;
    struct http_req *request; /* NULL once it is answered */
    uint64_t deadline_ms;
};

struct admin {
    struct change *list;
};

struct admin *admin_new(void)
{
    return xcalloc(1, sizeof(struct admin));
}

static void change_free(struct change *c)
{
    if (c->prev)
        c->prev->next = c->next;
    else
        c->sx->admin->list = c->next;
    if (c->next)
        c->next->prev = c->prev;
    free(c);
}

void admin_free(struct admin *a)
{
    while (a->list)
        change_free(a->list);
    free(a);
}

static struct change *change_new(struct sxd *sx, struct http_req *r, uint64_t within_ms)
{
    struct change *c = xcalloc(1, sizeof *c);
    c->sx = sx;
    c->request = r;
    c->deadline_ms = now_ms() + within_ms;
    c->next = sx->admin->list;
    if (c->next)
        c->next->prev = c;
    sx->admin->list = c;
    return c;
}

void admin_run(struct sxd *sx)
{
    uint64_t now = now_ms();
    for (struct change *c = sx->admin->list; c; c = c->next)
        if (c->request && now >= c->deadline_ms) {
            http_reply_error(c->request, 503, "Not confirmed by a majority within %u seconds; it may still take effect",
                             REQUEST_MS / 1000);
            c->request = NULL;
        }
}

static unsigned http_status(int code)
{
    switch (code) {
    case KEEL_ERR_INVALID:
        return 400;
    case KEEL_ERR_NOT_FOUND:
        return 404;
    case KEEL_ERR_STATE:
    case KEEL_ERR_CONFLICT:
    case KEEL_ERR_EXISTS:
    case KEEL_ERR_VETOED:
        return 409;
    case KEEL_ERR_EXCLUDED:
        return 410;
    case KEEL_ERR_NOT_LEADER:
    case KEEL_ERR_LOST:
    case KEEL_ERR_NO_QUORUM:
    case KEEL_ERR_FULL:
    case KEEL_ERR_CLOSED:
        return 503;
    default:
        return 500;
    }
}

static void change_done(void *arg, int status, uint64_t index)
{
    struct change *c = arg;
    struct sxd *sx = c->sx;

    if (c->request && status == KEEL_OK) {
        cJSON *json = cJSON_CreateObject();
        if (!json || !cJSON_AddNumberToObject(json, "index", (double)index) ||
            !cJSON_AddNumberToObject(json, "epoch", (double)keel_epoch(sx->keel)))
            die("out of memory");
        http_reply_json(c->request, 200, json);
    } else if (c->request && (status == KEEL_ERR_LOST || status == KEEL_ERR_CLOSED)) {
        http_reply_error(c->request, http_status(status), "Not confirmed: %s; it may still take effect",
                         keel_errmsg());
    } else if (c->request) {
        http_reply_error(c->request, http_status(status), "Not done: %s", keel_errmsg());
    }
    change_free(c);
}

/* ---- the changes, at the leader ---- */

/* SX's settings. `min`: 0 has a meaning of its own, "derived" or "off", but not for the keepalive. */
static const struct setting {
    const char *key;
    size_t field; /* in keel_params, milliseconds */
    uint32_t min; /* seconds */
} settings[] = {
    {"hb_keepalive", offsetof(keel_params, hb_keepalive_ms), 1},
    {"hb_warntime", offsetof(keel_params, hb_warntime_ms), 0},
    {"hb_deadtime", offsetof(keel_params, hb_deadtime_ms), 0},
    {"hb_initdead", offsetof(keel_params, hb_initdead_ms), 0},
};
#define SETTINGS (sizeof settings / sizeof *settings)
#define SECONDS_MAX (UINT32_MAX / 1000)

static uint32_t *setting_ms(keel_params *p, const struct setting *s)
{
    return (uint32_t *)(void *)((char *)p + s->field);
}

/* Puts one setting into P. False, and WHY says what is wrong with it, if it is none. */
static bool take_setting(keel_params *p, const cJSON *item, char *why, size_t cap)
{
    const struct setting *s = settings;

    while (s < settings + SETTINGS && strcmp(item->string, s->key) != 0)
        s++;
    if (s == settings + SETTINGS) {
        snprintf(why, cap, "There is no setting \"%.64s\"; there are hb_keepalive, hb_warntime, hb_deadtime, hb_initdead",
                 item->string);
        return false;
    }
    double seconds = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(seconds >= s->min && seconds <= SECONDS_MAX) || seconds != (double)(uint32_t)seconds) {
        snprintf(why, cap, "%s is a whole number of seconds from %" PRIu32 " to %" PRIu32, s->key, s->min,
                 (uint32_t)SECONDS_MAX);
        return false;
    }
    *setting_ms(p, s) = (uint32_t)seconds * 1000;
    return true;
}

static int start_settings(struct sxd *sx, const cJSON *json, struct change *c, char *why, size_t cap)
{
    keel_params p = KEEL_PARAMS_INIT;
    int rc = keel_get_params(sx->keel, &p);
    const cJSON *item;

    cJSON_ArrayForEach(item, json)
        if (!take_setting(&p, item, why, cap))
            return KEEL_ERR_INVALID;
    /* The version in P is the one read above: if somebody else changes a setting meanwhile, this
     * fails instead of undoing it. */
    return rc == KEEL_OK ? keel_set_params(sx->keel, &p, change_done, c) : rc;
}

static bool take_id(const cJSON *json, const char *key, uint64_t *id)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    if (!cJSON_IsNumber(item) || item->valuedouble < 1 || item->valuedouble > ID_MAX)
        return false;
    *id = (uint64_t)item->valuedouble;
    return true;
}

typedef int (*node_change)(keel *k, keel_id id, keel_done_fn done, void *arg);

/* START is keel_node_exclude() or keel_node_readmit(). */
static int start_node_change(struct sxd *sx, node_change start, const cJSON *json, struct change *c, char *why,
                             size_t cap)
{
    uint64_t node;
    if (!take_id(json, "node", &node)) {
        snprintf(why, cap, "\"node\" is the id of a node");
        return KEEL_ERR_INVALID;
    }
    return start(sx->keel, node, change_done, c);
}

static int start_replace(struct sxd *sx, const cJSON *json, struct change *c, char *why, size_t cap)
{
    keel_peer by = KEEL_PEER_INIT;
    uint64_t old;
    const cJSON *address = cJSON_GetObjectItemCaseSensitive(json, "address");

    if (!take_id(json, "old", &old) || !take_id(json, "new", &by.id) || !cJSON_IsString(address) ||
        strlen(address->valuestring) >= ADDRESS_SIZE) {
        snprintf(why, cap, "\"old\" and \"new\" are ids of nodes, \"address\" is HOST:PORT");
        return KEEL_ERR_INVALID;
    }
    /* A replaced node no longer counts as a lost replica for the guard, and its disk is gone. */
    if (!heal_complete(sx)) {
        snprintf(why, cap, "Not all objects are back on all their owners yet: wait until the cluster has healed");
        return KEEL_ERR_CONFLICT;
    }
    by.address = address->valuestring;
    return keel_node_replace(sx->keel, old, &by, change_done, c);
}

static void start_change(struct sxd *sx, struct http_req *r, const char *what)
{
    char why[256] = "";
    uint64_t age = http_age_ms(r);
    size_t len;
    const char *body = http_body(r, &len);
    cJSON *json = cJSON_ParseWithLength(body, len);
    int rc;

    if (!cJSON_IsObject(json)) {
        cJSON_Delete(json);
        http_reply_error(r, 400, "The body is not a JSON object");
        return;
    }
    struct change *c = change_new(sx, r, age < REQUEST_MS ? REQUEST_MS - age : 0);
    if (!strcmp(what, "/.clusterSettings"))
        rc = start_settings(sx, json, c, why, sizeof why);
    else if (!strcmp(what, "/.setfaulty"))
        rc = start_node_change(sx, keel_node_exclude, json, c, why, sizeof why);
    else if (!strcmp(what, "/.readmit"))
        rc = start_node_change(sx, keel_node_readmit, json, c, why, sizeof why);
    else
        rc = start_replace(sx, json, c, why, sizeof why);
    if (rc != KEEL_OK) {
        change_free(c);
        http_reply_error(r, http_status(rc), "%s", why[0] ? why : keel_errmsg());
    }
    cJSON_Delete(json);
}

/* ---- elsewhere: pass it on ---- */

static void forward_done(void *arg, const struct answer *a)
{
    struct change *c = arg;

    if (c->request && a->status == 410)
        http_reply_error(c->request, 503, "The leader has just been excluded: try again");
    else if (c->request && a->status)
        http_reply(c->request, (unsigned)a->status, "application/json", a->data, a->len);
    else if (c->request)
        http_reply_error(c->request, 503, "The leader does not answer: %s; it may still take effect", a->error);
    change_free(c);
}

void admin_change(struct sxd *sx, struct http_req *r, const char *what)
{
    static const char *const headers[] = {"X-Sxd-Forwarded: 1", NULL};
    uint64_t leader = keel_leader(sx->keel);
    size_t len;
    const char *body = http_body(r, &len);

    if (sx->cluster->out) {
        char why[128];
        cluster_out(sx, why, sizeof why);
        http_reply_error(r, 410, "%s", why);
    } else if (keel_role(sx->keel) == KEEL_ROLE_LEADER) {
        start_change(sx, r, what);
    } else if (!leader || !peer_address(sx, leader)[0]) {
        http_reply_error(r, 503, "No leader is known: nothing can be changed until a majority of the nodes is there");
    } else if (http_header(r, "X-Sxd-Forwarded")) {
        http_reply_error(r, 503, "The leader has just changed: try again");
    } else {
        struct call call = {.method = "PUT", .address = peer_address(sx, leader), .path = what, .headers = headers,
                            .body = body, .len = len, .deadline_ms = FORWARD_MS};
        client_start(sx->client, &call, forward_done, change_new(sx, r, (uint64_t)FORWARD_MS + 1000));
    }
}

/* ---- the view ---- */

static void add_number(cJSON *to, const char *key, uint64_t value)
{
    if (!cJSON_AddNumberToObject(to, key, (double)value))
        die("out of memory");
}

static void add_seconds(cJSON *to, const char *key, uint32_t ms)
{
    if (!cJSON_AddNumberToObject(to, key, ms / 1000.0))
        die("out of memory");
}

static void add_string(cJSON *to, const char *key, const char *value)
{
    if (!cJSON_AddStringToObject(to, key, value ? value : ""))
        die("out of memory");
}

static void add_bool(cJSON *to, const char *key, bool value)
{
    if (!cJSON_AddBoolToObject(to, key, value))
        die("out of memory");
}

static cJSON *add_object(cJSON *to, const char *key)
{
    cJSON *o = cJSON_AddObjectToObject(to, key);
    if (!o)
        die("out of memory");
    return o;
}

static const char *status_of(const keel_info *info, const keel_node *n)
{
    if (n->state == KEEL_NODE_REPLACED)
        return "replaced";
    if (n->role == KEEL_ROLE_EXCLUDED || n->state == KEEL_NODE_EXCLUDED || n->state == KEEL_NODE_RETURNED)
        return "faulty";
    if (n->id == info->leader)
        return "leader";
    if (n->role == KEEL_ROLE_LEARNER)
        return "joining";
    return n->role == KEEL_ROLE_CANDIDATE ? "candidate" : "follower";
}

static const char *guard_name(int guard)
{
    static const char *const names[] = {"", "DISABLED", "NOT_LEADER_FRESH", "LISTENER_UNHEALTHY", "NO_QUORUM_AFTER",
                                        "MIN_NODES", "VETO", "INITDEAD", "SETTLING"};
    return guard >= 0 && (size_t)guard < sizeof names / sizeof *names ? names[guard] : "UNKNOWN";
}

static void show_node(cJSON *nodes, const keel_info *info, const keel_node *n)
{
    cJSON *o = cJSON_CreateObject();
    if (!o || !cJSON_AddItemToArray(nodes, o))
        die("out of memory");
    add_number(o, "id", n->id);
    add_string(o, "address", n->address);
    add_string(o, "status", status_of(info, n));
    add_bool(o, "online", n->id == info->self || n->state == KEEL_NODE_ALIVE || n->state == KEEL_NODE_RETURNED);
    if (n->id != info->self && n->silent_ms != UINT32_MAX)
        add_number(o, "lastContact", n->silent_ms / 1000);
    if (n->excludes_in_ms != UINT32_MAX)
        add_number(o, "excludesIn", n->excludes_in_ms / 1000);
    add_string(o, "blockedBy", guard_name(n->blocked_by));
    add_number(o, "epoch", n->epoch);
    add_number(o, "index", n->index);
    add_number(o, "replacedBy", n->replaced_by);
    add_number(o, "heardBy", n->heard_by);
    add_number(o, "witnesses", n->witnesses);
}

static void show_info(cJSON *json, const keel_info *info)
{
    static const char *const roles[] = {"", "follower", "candidate", "leader", "learner", "excluded"};
    char cluster[32];

    snprintf(cluster, sizeof cluster, "%" PRIu64, info->cluster);
    add_number(json, "node", info->self);
    add_string(json, "cluster", cluster);
    add_string(json, "role", info->role > 0 && info->role < 6 ? roles[info->role] : "unknown");
    add_number(json, "leader", info->leader);
    add_number(json, "epoch", info->epoch);
    add_number(json, "term", info->term);
    add_number(json, "commit", info->commit);
    add_number(json, "applied", info->applied);
    add_bool(json, "armed", info->armed);
    add_string(json, "notice", info->notice);
    cJSON *quorum = add_object(json, "quorum");
    add_bool(quorum, "has", info->has_quorum);
    add_number(quorum, "voters", info->voters);
    add_number(quorum, "heard", info->voters_heard);
    add_number(quorum, "needed", info->quorum);
}

/* What was set, where 0 stands for "derived" or "off", and what follows from it. */
static void show_settings(struct sxd *sx, cJSON *json, const keel_info *info)
{
    keel_params p = KEEL_PARAMS_INIT;
    cJSON *set = add_object(json, "settings"), *in_force = add_object(json, "inForce");

    if (keel_get_params(sx->keel, &p) == KEEL_OK)
        for (size_t i = 0; i < SETTINGS; i++)
            add_number(set, settings[i].key, *setting_ms(&p, &settings[i]) / 1000);
    add_seconds(in_force, "hb_keepalive", info->hb_keepalive_ms);
    add_seconds(in_force, "hb_warntime", info->hb_warntime_ms);
    add_seconds(in_force, "hb_deadtime", info->hb_deadtime_ms);
    add_seconds(in_force, "hb_initdead", info->hb_initdead_ms);
    add_seconds(in_force, "fencetime", info->fencetime_ms);
    add_number(in_force, "minNodes", info->min_nodes);
}

void admin_show(struct sxd *sx, struct http_req *r)
{
    keel_status *s;
    char why[256] = "";
    unsigned status;
    int rc = keel_status_take(sx->keel, &s);
    if (rc != KEEL_OK) {
        http_reply_error(r, 500, "%s", keel_strerror(rc));
        return;
    }
    cJSON *json = cJSON_CreateObject();
    if (!json)
        die("out of memory");
    show_info(json, keel_status_info(s));
    add_bool(json, "serves", cluster_may_serve(sx, &status, why, sizeof why));
    add_string(json, "refusal", why);
    add_number(json, "replicas", sx->replicas);
    add_number(json, "healedEpoch", heal_epoch(sx));
    add_bool(json, "healed", heal_complete(sx));
    show_settings(sx, json, keel_status_info(s));
    cJSON *nodes = cJSON_AddArrayToObject(json, "nodes");
    if (!nodes || !cJSON_AddRawToObject(json, "keel", keel_status_json(s)))
        die("out of memory");
    for (size_t i = 0; i < keel_status_count(s); i++)
        show_node(nodes, keel_status_info(s), keel_status_node(s, i));
    keel_status_free(s);
    http_reply_json(r, 200, json);
}
