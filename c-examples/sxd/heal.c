/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "heal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "peer.h"

#define KNOWN_MAX (2 * MEMBERS_MAX)
/* After a walk in which an owner could not be served. */
#define AGAIN_MS 1000u

struct known {
    uint64_t node, epoch; /* NODE has healed for EPOCH */
};

struct heal {
    struct known known[KNOWN_MAX];
    size_t n_known;
    /* The walk. */
    bool walking, calling, failed;
    uint64_t epoch, not_before_ms;
    char **names;
    size_t n, next; /* names; the object under way is next - 1 */
    uint64_t owners[MEMBERS_MAX];
    size_t n_owners, owner;
    size_t copied;
};

static uint64_t known_epoch(const struct heal *h, uint64_t node)
{
    for (size_t i = 0; i < h->n_known; i++)
        if (h->known[i].node == node)
            return h->known[i].epoch;
    return 0;
}

static void learn(struct heal *h, uint64_t node, uint64_t epoch)
{
    for (size_t i = 0; i < h->n_known; i++)
        if (h->known[i].node == node) {
            if (h->known[i].epoch < epoch)
                h->known[i].epoch = epoch;
            return;
        }
    if (h->n_known < KNOWN_MAX)
        h->known[h->n_known++] = (struct known){node, epoch};
}

struct heal *heal_new(struct sxd *sx)
{
    struct heal *h = xcalloc(1, sizeof *h);
    learn(h, sx->id, store_get_number(sx->store, "healed"));
    return h;
}

static void end_walk(struct heal *h)
{
    for (size_t i = 0; i < h->n; i++)
        free(h->names[i]);
    free(h->names);
    h->names = NULL;
    h->n = h->next = 0;
    h->walking = false;
}

void heal_free(struct heal *h)
{
    end_walk(h);
    free(h);
}

uint64_t heal_epoch(const struct sxd *sx)
{
    return known_epoch(sx->heal, sx->id);
}

bool heal_complete(const struct sxd *sx)
{
    const struct cluster *c = sx->cluster;
    for (size_t i = 0; i < c->n; i++)
        if (known_epoch(sx->heal, c->members[i]) < c->epoch)
            return false;
    return true;
}

void heal_tell(const struct sxd *sx, cJSON *batch)
{
    cJSON *healed = cJSON_AddObjectToObject(batch, "healed");
    for (size_t i = 0; i < sx->heal->n_known; i++) {
        char node[32];
        snprintf(node, sizeof node, "%" PRIu64, sx->heal->known[i].node);
        if (!cJSON_AddNumberToObject(healed, node, (double)sx->heal->known[i].epoch))
            die("out of memory");
    }
}

void heal_hear(struct sxd *sx, const cJSON *batch)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(batch, "healed"))
    {
        uint64_t node;
        if (!parse_u64(item->string, 1, ID_MAX, &node) || node == sx->id || !cJSON_IsNumber(item) ||
            item->valuedouble < 0 || item->valuedouble >= 0x1p53)
            continue;
        learn(sx->heal, node, (uint64_t)item->valuedouble);
    }
}

static void begin_walk(struct sxd *sx, uint64_t now)
{
    struct heal *h = sx->heal;

    if (store_list(sx->store, &h->names, &h->n)) {
        say("heal: cannot list the objects: %s", strerror(errno));
        h->not_before_ms = now + AGAIN_MS;
        return;
    }
    h->epoch = sx->cluster->epoch;
    h->walking = true;
    h->failed = false;
    h->next = h->copied = 0;
    h->n_owners = h->owner = 0;
}

static void finish_walk(struct sxd *sx, uint64_t now)
{
    struct heal *h = sx->heal;

    if (h->failed) {
        h->not_before_ms = now + AGAIN_MS;
    } else if (store_put_number(sx->store, "healed", h->epoch)) {
        say("heal: %s", strerror(errno));
        h->not_before_ms = now + AGAIN_MS;
    } else {
        learn(h, sx->id, h->epoch);
        say("healed for epoch %" PRIu64 ": %zu objects here, %zu copied to new owners", h->epoch, h->n, h->copied);
    }
    end_walk(h);
}

/* What a call of the walk ended with: go on with the next owner. */
static void next_owner(struct sxd *sx, bool ok)
{
    sx->heal->calling = false;
    sx->heal->failed |= !ok;
    sx->heal->owner++;
}

static void on_written(void *arg, const struct answer *a)
{
    struct sxd *sx = arg;
    sx->heal->copied += a->status == 200;
    next_owner(sx, a->status == 200);
}

static void on_version(void *arg, const struct answer *a)
{
    struct sxd *sx = arg;
    struct heal *h = sx->heal;
    const char *name = h->names[h->next - 1], *data;
    struct version theirs, ours;
    struct buf image = {0};
    char pct[NAME_PCT_SIZE], path[NAME_PCT_SIZE + 32];
    size_t len;

    if (a->status != 200 && a->status != 404) {
        next_owner(sx, false);
        return;
    }
    if (store_read(sx->store, name, &image) != 1 || !image_parse(image.data, image.len, &ours, &data, &len) ||
        !name_encode(name, pct)) {
        say("heal: cannot read \"%s\"", name);
        next_owner(sx, false);
    } else if (a->status == 200 && image_parse(a->data, a->len, &theirs, &data, &len) &&
               version_cmp(&theirs, &ours) >= 0) {
        next_owner(sx, true);
    } else {
        snprintf(path, sizeof path, "/.s2s/object/%s", pct);
        if (!peer_call(sx, h->owners[h->owner], "PUT", path, image.data, image.len, on_written, sx))
            next_owner(sx, false);
    }
    buf_free(&image);
}

/* Asks the owner that it is the turn of. */
static void ask_owner(struct sxd *sx)
{
    struct heal *h = sx->heal;
    char pct[NAME_PCT_SIZE], path[NAME_PCT_SIZE + 32];

    if (h->owners[h->owner] == sx->id) {
        next_owner(sx, true);
        return;
    }
    if (!name_encode(h->names[h->next - 1], pct))
        die("heal: the store listed a bad name");
    snprintf(path, sizeof path, "/.s2s/version/%s", pct);
    h->calling = peer_call(sx, h->owners[h->owner], "GET", path, NULL, 0, on_version, sx);
    if (!h->calling)
        next_owner(sx, false);
}

void heal_run(struct sxd *sx)
{
    struct heal *h = sx->heal;
    struct cluster *c = sx->cluster;
    uint64_t now = now_ms();
    char why[256];
    unsigned status;

    if (h->calling)
        return;
    if (h->walking && h->epoch != c->epoch)
        end_walk(h);
    if (!h->walking && heal_epoch(sx) < c->epoch && now >= h->not_before_ms &&
        cluster_may_serve(sx, &status, why, sizeof why))
        begin_walk(sx, now);
    /* Objects that need nobody else cost no call: a bounded number of them a turn. */
    for (int turns = 0; h->walking && !h->calling && turns < 256; turns++) {
        if (h->owner < h->n_owners) {
            ask_owner(sx);
        } else if (h->next < h->n) {
            h->n_owners = place_owners(h->names[h->next], c->members, c->n, sx->replicas, h->owners);
            h->owner = 0;
            h->next++;
        } else {
            finish_walk(sx, now);
        }
    }
}
