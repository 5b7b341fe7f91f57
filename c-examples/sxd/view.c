/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cluster.h"
#include "heal.h"
#include "words.h"

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

/* Seconds until N is excluded unless it is heard, or -1: the engine's word or, until a majority has
 * missed N for long enough to give one, what the settings say. */
static int64_t excludes_in(const struct sxd *sx, const keel_info *info, const keel_node *n)
{
    bool never = n->silent_ms == UINT32_MAX;
    uint64_t silent = never ? now_ms() - sx->started_ms : n->silent_ms;
    uint64_t limit = never ? info->hb_initdead_ms : info->hb_deadtime_ms;

    if (n->excludes_in_ms != UINT32_MAX)
        return n->excludes_in_ms / 1000;
    if (!info->armed || !info->has_quorum || n->blocked_by != KEEL_GUARD_NONE)
        return -1;
    /* At first the others' reports are simply older than what this node has not heard. */
    if (n->heard_by && silent > info->hb_warntime_ms + 2 * (uint64_t)info->hb_keepalive_ms)
        return -1;
    return limit > silent ? (int64_t)(limit - silent) / 1000 : 0;
}

static void show_node(struct sxd *sx, cJSON *nodes, const keel_info *info, const keel_node *n)
{
    char why[320];
    bool online = n->id == info->self || n->state == KEEL_NODE_ALIVE || n->state == KEEL_NODE_RETURNED;
    int64_t left = online || cluster_is_out(n) || info->role == KEEL_ROLE_EXCLUDED ? -1 : excludes_in(sx, info, n);
    int64_t out_for = cluster_is_out(n) ? cluster_out_seconds(sx, n->id) : -1;
    cJSON *o = cJSON_CreateObject();

    if (!o || !cJSON_AddItemToArray(nodes, o))
        die("out of memory");
    add_number(o, "id", n->id);
    add_string(o, "address", n->address);
    add_string(o, "status", status_of(info, n));
    add_bool(o, "online", online);
    if (n->id != info->self && n->silent_ms != UINT32_MAX)
        add_number(o, "lastContact", n->silent_ms / 1000);
    if (left >= 0)
        add_number(o, "excludesIn", (uint64_t)left);
    guard_words(info, n, why, sizeof why);
    add_string(o, "blockedBy", guard_code(n->blocked_by));
    add_string(o, "blockedWhy", why);
    add_number(o, "epoch", n->epoch);
    add_number(o, "index", n->index);
    if (out_for >= 0)
        add_number(o, "faultyFor", (uint64_t)out_for);
    add_number(o, "replacedBy", n->replaced_by);
    add_bool(o, "lostState", n->lost_state != 0);
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

    if (keel_get_params(sx->keel, &p) == KEEL_OK) {
        add_number(set, "hb_keepalive", p.hb_keepalive_ms / 1000);
        add_number(set, "hb_warntime", p.hb_warntime_ms / 1000);
        add_number(set, "hb_deadtime", p.hb_deadtime_ms / 1000);
        add_number(set, "hb_initdead", p.hb_initdead_ms / 1000);
    }
    add_seconds(in_force, "hb_keepalive", info->hb_keepalive_ms);
    add_seconds(in_force, "hb_warntime", info->hb_warntime_ms);
    add_seconds(in_force, "hb_deadtime", info->hb_deadtime_ms);
    add_seconds(in_force, "hb_initdead", info->hb_initdead_ms);
    add_seconds(in_force, "fencetime", info->fencetime_ms);
    add_number(in_force, "minNodes", info->min_nodes);
}

/* What only sxd knows, or the engine does not say in words. */
static void show_sxd(struct sxd *sx, cJSON *json, const keel_status *s)
{
    char text[512] = "";
    unsigned status;

    notice_words(s, text, sizeof text);
    add_string(json, "notice", text);
    text[0] = '\0';
    add_bool(json, "serves", cluster_may_serve(sx, &status, text, sizeof text));
    add_string(json, "refusal", text);
    add_string(json, "warning", sx->cluster->warning);
    add_number(json, "outEpoch", sx->cluster->out_epoch);
    add_number(json, "replicas", sx->replicas);
    add_number(json, "healedEpoch", heal_epoch(sx));
    add_bool(json, "healed", heal_complete(sx));
}

void view_show(struct sxd *sx, struct http_req *r)
{
    keel_status *s;
    int rc = keel_status_take(sx->keel, &s);
    if (rc != KEEL_OK) {
        http_reply_error(r, 500, "%s", keel_strerror(rc));
        return;
    }
    cJSON *json = cJSON_CreateObject();
    if (!json)
        die("out of memory");
    show_info(json, keel_status_info(s));
    show_sxd(sx, json, s);
    show_settings(sx, json, keel_status_info(s));
    cJSON *nodes = cJSON_AddArrayToObject(json, "nodes");
    if (!nodes || !cJSON_AddRawToObject(json, "keel", keel_status_json(s)))
        die("out of memory");
    for (size_t i = 0; i < keel_status_count(s); i++)
        show_node(sx, nodes, keel_status_info(s), keel_status_node(s, i));
    keel_status_free(s);
    http_reply_json(r, 200, json);
}
