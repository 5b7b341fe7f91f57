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
#include "words.h"

/* Longer than the leader takes at most, so that its answer wins. */
#define FORWARD_MS ((long)REQUEST_MS + 2000)

/* A change that the engine or the leader has been given. It lives until that has answered, which
 * may be after the administrator has been told that it takes too long. */
struct change {
    struct change *prev, *next;
    struct sxd *sx;
    struct http_req *request; /* NULL once it is answered */
    uint64_t deadline_ms;
    uint64_t needs_out; /* the node that must have been excluded for this, or 0 */
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

/* False for 0. */
static bool is_member(const struct sxd *sx, uint64_t id)
{
    keel_status *s;
    bool found = false;

    if (keel_status_take(sx->keel, &s) != KEEL_OK)
        return false;
    for (size_t i = 0; i < keel_status_count(s); i++) {
        const keel_node *n = keel_status_node(s, i);
        found |= n->id == id && n->state != KEEL_NODE_REPLACED && !cluster_is_out(n);
    }
    keel_status_free(s);
    return found;
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
                         words(keel_errmsg()));
    } else if (c->request && status == KEEL_ERR_STATE && is_member(sx, c->needs_out)) {
        http_reply_error(c->request, http_status(status),
                         "Not done: %s: exclude it first: sxadm cluster --set-faulty %" PRIu64 " URL",
                         words(keel_errmsg()), c->needs_out);
    } else if (c->request) {
        http_reply_error(c->request, http_status(status), "Not done: %s", words(keel_errmsg()));
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
    c->needs_out = start == keel_node_readmit ? node : 0;
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
    c->needs_out = old;
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
        http_reply_error(r, http_status(rc), "%s", why[0] ? why : words(keel_errmsg()));
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
    char why[256];

    if (sx->cluster->out) {
        cluster_out(sx, why, sizeof why);
        http_reply_error(r, 410, "%s", why);
    } else if (cluster_fenced(sx, why, sizeof why)) {
        http_reply_error(r, 503, "%s", why);
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
