/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "object.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "heal.h"
#include "peer.h"

enum answer_kind { ASKING, NO_ANSWER, MISSING, FOUND };

struct op;

/* One member, as the operation sees it. */
struct part {
    struct op *op;
    uint64_t node;
    bool owner;
    enum answer_kind kind;
    struct version version; /* if FOUND */
    char error[160];        /* if NO_ANSWER */
    bool written, tried;
};

struct op {
    struct op *prev, *next;
    struct sxd *sx;
    struct http_req *request; /* NULL once it is answered */
    bool put, located;
    unsigned pending; /* calls under way: the operation lives at least as long */
    uint64_t epoch;
    size_t need; /* answers that are enough to know the newest version */
    char name[NAME_LEN_MAX + 1], pct[NAME_PCT_SIZE];
    struct version newest; /* counter 0: none found */
    struct buf image;      /* of a PUT, once its version is known */
    struct part parts[MEMBERS_MAX];
    size_t n;
};

struct object_ops {
    struct op *list;
    uint64_t counter; /* of the last version that this process gave */
};

struct object_ops *objects_new(void)
{
    return xcalloc(1, sizeof(struct object_ops));
}

static void op_free(struct op *o)
{
    if (o->prev)
        o->prev->next = o->next;
    else
        o->sx->objects->list = o->next;
    if (o->next)
        o->next->prev = o->prev;
    buf_free(&o->image);
    free(o);
}

void objects_free(struct object_ops *ops)
{
    while (ops->list)
        op_free(ops->list);
    free(ops);
}

static void op_release(struct op *o)
{
    if (!o->request && !o->pending)
        op_free(o);
}

static void fail(struct op *o, unsigned status, const char *what)
{
    http_reply_error(o->request, status, "%s", what);
    o->request = NULL;
}

/* 503, naming the member that the operation could not do without. */
static void fail_for(struct op *o, const struct part *p, const char *what)
{
    char node[160];
    cluster_describe(o->sx, p->node, node, sizeof node);
    http_reply_error(o->request, 503, "%s: %s: %s", what, node, p->error);
    o->request = NULL;
}

/* A member's version, or why there is none, from what it answered. */
static void take_version(struct part *p, const struct answer *a)
{
    const char *data;
    size_t len;

    if (a->status == 404)
        p->kind = MISSING;
    else if (a->status == 200 && image_parse(a->data, a->len, &p->version, &data, &len))
        p->kind = FOUND;
    else {
        p->kind = NO_ANSWER;
        answer_error(a, p->error, sizeof p->error);
    }
}

static void op_located(struct op *o);

static void on_version(void *arg, const struct answer *a)
{
    struct part *p = arg;
    struct op *o = p->op;

    o->pending--;
    take_version(p, a);
    if (o->request && !o->located)
        op_located(o);
    op_release(o);
}

static void ask_self(struct part *p)
{
    int found = store_version(p->op->sx->store, p->op->name, &p->version);
    p->kind = found == 1 ? FOUND : found == 0 ? MISSING : NO_ANSWER;
    if (found < 0)
        snprintf(p->error, sizeof p->error, "%s", strerror(errno));
}

static void ask(struct part *p)
{
    struct op *o = p->op;
    char path[NAME_PCT_SIZE + 32];

    if (p->node == o->sx->id) {
        ask_self(p);
        return;
    }
    snprintf(path, sizeof path, "/.s2s/version/%s", o->pct);
    if (peer_call(o->sx, p->node, "GET", path, NULL, 0, on_version, p)) {
        o->pending++;
        return;
    }
    p->kind = NO_ANSWER;
    snprintf(p->error, sizeof p->error, "too many calls to it are under way");
}

/* NULL, and the request is answered, if this node must not or cannot take it. */
static struct op *op_start(struct sxd *sx, struct http_req *r, const char *pct, bool put)
{
    char why[256], name[NAME_LEN_MAX + 1];
    unsigned status;
    uint64_t owners[MEMBERS_MAX];
    struct cluster *c = sx->cluster;

    if (!name_decode(pct, name)) {
        http_reply_error(r, 400, "A name has 1 to %d bytes", NAME_LEN_MAX);
        return NULL;
    }
    if (!cluster_may_serve(sx, &status, why, sizeof why)) {
        http_reply_error(r, status, "%s", why);
        return NULL;
    }
    struct op *o = xcalloc(1, sizeof *o);
    o->sx = sx;
    o->request = r;
    o->put = put;
    o->epoch = c->epoch;
    o->need = heal_complete(sx) ? c->n - cluster_replicas(sx) + 1 : c->n;
    o->next = sx->objects->list;
    if (o->next)
        o->next->prev = o;
    sx->objects->list = o;
    memcpy(o->name, name, sizeof name);
    name_encode(name, o->pct);
    size_t n_owners = place_owners(name, c->members, c->n, sx->replicas, owners);
    o->n = c->n;
    for (size_t i = 0; i < o->n; i++) {
        o->parts[i].op = o;
        o->parts[i].node = c->members[i];
        for (size_t j = 0; j < n_owners; j++)
            o->parts[i].owner |= owners[j] == c->members[i];
    }
    for (size_t i = 0; i < o->n; i++)
        ask(&o->parts[i]);
    return o;
}

/* ---- PUT ---- */

static void put_progress(struct op *o)
{
    char why[256], nodes[256] = "";
    unsigned status;
    size_t at = 0;

    for (size_t i = 0; i < o->n; i++) {
        struct part *p = &o->parts[i];
        if (!p->owner)
            continue;
        if (p->kind == NO_ANSWER) {
            fail_for(o, p, "The object was not stored on every replica");
            return;
        }
        if (!p->written)
            return;
        int n = snprintf(nodes + at, sizeof nodes - at, "%s%" PRIu64, at ? "," : "", p->node);
        at += n > 0 && (size_t)n < sizeof nodes - at ? (size_t)n : 0;
    }
    /* The owners were right in the epoch that began this; they still are, or their walk through
     * what they hold comes after this write. But a node that has been fenced since may be alone. */
    if (!cluster_may_serve(o->sx, &status, why, sizeof why)) {
        fail(o, status, why);
        return;
    }
    cJSON *json = cJSON_CreateObject();
    if (!json || !cJSON_AddStringToObject(json, "nodes", nodes) ||
        !cJSON_AddNumberToObject(json, "epoch", (double)o->epoch))
        die("out of memory");
    http_reply_json(o->request, 200, json);
    o->request = NULL;
}

static void on_written(void *arg, const struct answer *a)
{
    struct part *p = arg;
    struct op *o = p->op;

    o->pending--;
    p->written = a->status == 200;
    if (!p->written) {
        p->kind = NO_ANSWER;
        answer_error(a, p->error, sizeof p->error);
    }
    if (o->request)
        put_progress(o);
    op_release(o);
}

static void write_part(struct part *p)
{
    struct op *o = p->op;
    char path[NAME_PCT_SIZE + 32];

    if (p->node == o->sx->id) {
        p->written = store_write(o->sx->store, o->name, o->image.data, o->image.len) == 0;
        if (!p->written) {
            p->kind = NO_ANSWER;
            snprintf(p->error, sizeof p->error, "%s", strerror(errno));
        }
        return;
    }
    snprintf(path, sizeof path, "/.s2s/object/%s", o->pct);
    if (peer_call(o->sx, p->node, "PUT", path, o->image.data, o->image.len, on_written, p)) {
        o->pending++;
        return;
    }
    p->kind = NO_ANSWER;
    snprintf(p->error, sizeof p->error, "too many calls to it are under way");
}

static void put_located(struct op *o)
{
    struct object_ops *ops = o->sx->objects;
    size_t len;
    const char *body = http_body(o->request, &len);
    struct version v = {.epoch = o->epoch, .node = o->sx->id, .boot = store_boot(o->sx->store)};

    /* Owners of an epoch that is over may have been walked through already, so a write to them could
     * stay there. And a node that is behind would give a version that is not the newest. */
    if (o->epoch != o->sx->cluster->epoch || o->epoch < o->newest.epoch) {
        fail(o, 503, "The membership has just changed: try again");
        return;
    }
    if (ops->counter < o->newest.counter)
        ops->counter = o->newest.counter;
    v.counter = ++ops->counter;
    image_make(&o->image, &v, body, len);
    /* The others first: they write while this node does. */
    for (size_t i = 0; i < o->n; i++)
        if (o->parts[i].owner && o->parts[i].node != o->sx->id)
            write_part(&o->parts[i]);
    for (size_t i = 0; i < o->n; i++)
        if (o->parts[i].owner && o->parts[i].node == o->sx->id)
            write_part(&o->parts[i]);
    put_progress(o);
}

void object_put(struct sxd *sx, struct http_req *r, const char *pct)
{
    size_t len;
    http_body(r, &len);
    if (len > OBJECT_MAX) {
        http_reply_error(r, 413, "An object has at most %zu bytes", OBJECT_MAX);
        return;
    }
    struct op *o = op_start(sx, r, pct, true);
    if (!o)
        return;
    op_located(o);
    op_release(o);
}

/* ---- GET ---- */

static void reply_image(struct op *o, const char *image, size_t image_len)
{
    struct version v;
    const char *data;
    size_t len;

    if (!image_parse(image, image_len, &v, &data, &len)) {
        fail(o, 500, "The object is damaged");
        return;
    }
    http_reply(o->request, 200, "application/octet-stream", data, len);
    o->request = NULL;
}

static void get_next(struct op *o);

static void on_object(void *arg, const struct answer *a)
{
    struct part *p = arg;
    struct op *o = p->op;
    struct version v;
    const char *data;
    size_t len;

    o->pending--;
    /* It may have been overwritten since: newer is as good. */
    if (a->status == 200 && image_parse(a->data, a->len, &v, &data, &len) && version_cmp(&v, &o->newest) >= 0) {
        reply_image(o, a->data, a->len);
    } else {
        answer_error(a, p->error, sizeof p->error);
        get_next(o);
    }
    op_release(o);
}

static bool get_self(struct op *o)
{
    struct buf image = {0};
    bool ok = store_read(o->sx->store, o->name, &image) == 1;
    if (ok)
        reply_image(o, image.data, image.len);
    buf_free(&image);
    return ok;
}

/* Reads from the next holder of the newest version. */
static void get_next(struct op *o)
{
    struct part *last = NULL;
    char path[NAME_PCT_SIZE + 32];

    snprintf(path, sizeof path, "/.s2s/object/%s", o->pct);
    for (size_t i = 0; i < o->n; i++) {
        struct part *p = &o->parts[i];
        if (p->kind != FOUND || version_cmp(&p->version, &o->newest) < 0)
            continue;
        last = p;
        if (p->tried)
            continue;
        p->tried = true;
        if (p->node == o->sx->id) {
            if (get_self(o))
                return;
            snprintf(p->error, sizeof p->error, "%s", strerror(errno));
        } else if (peer_call(o->sx, p->node, "GET", path, NULL, 0, on_object, p)) {
            o->pending++;
            return;
        }
    }
    if (last)
        fail_for(o, last, "The object could not be read");
    else
        fail(o, 503, "The object could not be read");
}

void object_get(struct sxd *sx, struct http_req *r, const char *pct)
{
    struct op *o = op_start(sx, r, pct, false);
    if (!o)
        return;
    op_located(o);
    op_release(o);
}

/* ---- both ---- */

/* What the answers so far have settled: goes on, fails, or waits for more of them. */
static void op_located(struct op *o)
{
    size_t answers = 0, asking = 0, owners_asking = 0;
    struct part *failed = NULL;

    for (size_t i = 0; i < o->n; i++) {
        struct part *p = &o->parts[i];
        answers += p->kind == FOUND || p->kind == MISSING;
        asking += p->kind == ASKING;
        owners_asking += p->kind == ASKING && p->owner;
        if (p->kind == NO_ANSWER && (!failed || p->owner))
            failed = p;
        if (p->kind == FOUND && version_cmp(&p->version, &o->newest) > 0)
            o->newest = p->version;
    }
    if (o->put && failed && failed->owner) {
        fail_for(o, failed, "Nothing was stored, a replica is out of reach");
    } else if (answers >= o->need && o->put && !owners_asking) {
        o->located = true;
        put_located(o);
    } else if (answers >= o->need && !o->put && o->newest.counter) {
        o->located = true;
        get_next(o);
    } else if (!asking && failed) {
        /* "Not found" would be a guess. */
        fail_for(o, failed, "The newest version of the object cannot be known");
    } else if (!asking && o->sx->cluster->n_out >= o->sx->replicas) {
        /* An administrator may exclude more nodes than the guard would. */
        fail(o, 503, "Not found, but all its replicas may be on excluded nodes");
    } else if (!asking) {
        fail(o, 404, "No such object");
    }
}

/* ---- for another coordinator ---- */

/* False if the request has been answered: it is not to be obeyed, or has no valid name. */
static bool serve_name(struct sxd *sx, struct http_req *r, const char *pct, char name[NAME_LEN_MAX + 1])
{
    if (!cluster_accepts(sx, r))
        return false;
    if (name_decode(pct, name))
        return true;
    http_reply_error(r, 400, "Not a name");
    return false;
}

void object_serve_version(struct sxd *sx, struct http_req *r, const char *pct)
{
    char name[NAME_LEN_MAX + 1];
    struct version v;
    struct buf head = {0};

    if (!serve_name(sx, r, pct, name))
        return;
    int found = store_version(sx->store, name, &v);
    if (found == 1) {
        image_make(&head, &v, "", 0);
        http_reply(r, 200, "application/octet-stream", head.data, head.len);
        buf_free(&head);
    } else if (found == 0) {
        http_reply_error(r, 404, "No such object here");
    } else {
        http_reply_error(r, 500, "%s", strerror(errno));
    }
}

void object_serve_get(struct sxd *sx, struct http_req *r, const char *pct)
{
    char name[NAME_LEN_MAX + 1];
    struct buf image = {0};

    if (!serve_name(sx, r, pct, name))
        return;
    int found = store_read(sx->store, name, &image);
    if (found == 1)
        http_reply(r, 200, "application/octet-stream", image.data, image.len);
    else if (found == 0)
        http_reply_error(r, 404, "No such object here");
    else
        http_reply_error(r, 500, "%s", strerror(errno));
    buf_free(&image);
}

void object_serve_put(struct sxd *sx, struct http_req *r, const char *pct)
{
    char name[NAME_LEN_MAX + 1];
    size_t len;

    if (!serve_name(sx, r, pct, name))
        return;
    const char *image = http_body(r, &len);
    if (store_write(sx->store, name, image, len) == 0)
        http_reply(r, 200, "application/json", "{}", 2);
    else
        http_reply_error(r, errno == EINVAL ? 400 : 500, "%s", strerror(errno));
}
