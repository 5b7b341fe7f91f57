/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _DEFAULT_SOURCE
#include "nodes.h"

#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

/* Bytes that a snapshot has besides the items, and how it is written: in pieces of all sizes. */
enum { FILLER = 300000 };
static const size_t strides[] = {1, 70000, 4096, 65536, 777};

struct node nodes[NODES];
size_t members;
const char *directory;
uint32_t next_item = 1;
uint64_t seed;

static unsigned char acknowledged[ITEMS_MAX];

struct proposal {
    uint32_t item;
    int *status;
};

uint64_t clock_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t below(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % n;
}

/* ---- the host's storage, with what is asked of it counted ---------------------- */

static int on_open(void *ud, keel_records *r)
{
    struct node *n = ud;

    return n->host.open(n->host.ud, r);
}

static int on_write(void *ud, const keel_batch *b)
{
    struct node *n = ud;
    uint64_t last = n->calls.last;

    n->calls.batches++;
    n->calls.bare += b->n == 0;
    n->calls.cuts += b->cut > 1 && b->cut <= last;
    n->calls.resets += b->cut == 1 && b->first > 1;
    if (b->n > 0)
        n->calls.last = b->first + b->n - 1;
    else if (b->cut <= last)
        n->calls.last = b->cut - 1;
    return n->host.write(n->host.ud, b);
}

static int on_read(void *ud, uint64_t first, uint64_t last, keel_records *r)
{
    struct node *n = ud;

    n->calls.reads++;
    return n->host.read(n->host.ud, first, last, r);
}

static int on_trim(void *ud, uint64_t index)
{
    struct node *n = ud;

    n->calls.trims++;
    return n->host.trim(n->host.ud, index);
}

static int on_put(void *ud, uint64_t image, uint64_t offset, const void *data, size_t len)
{
    struct node *n = ud;

    n->calls.puts++;
    return n->host.snap_put(n->host.ud, image, offset, data, len);
}

static int on_commit(void *ud, uint64_t image)
{
    struct node *n = ud;

    return n->host.snap_commit(n->host.ud, image);
}

static int on_get(void *ud, uint64_t image, uint64_t offset, void *buf, size_t cap, size_t *got)
{
    struct node *n = ud;
    unsigned seen = 0;

    while (seen < n->calls.looked_at && n->calls.images[seen] != image)
        seen++;
    if (n->opening && seen == n->calls.looked_at && seen < IMAGES_SEEN) {
        n->calls.images[seen] = image;
        n->calls.from[seen] = offset;
        n->calls.looked_at++;
    }
    return n->host.snap_get(n->host.ud, image, offset, buf, cap, got);
}

static int on_drop(void *ud, uint64_t image)
{
    struct node *n = ud;

    return n->host.snap_drop(n->host.ud, image);
}

static void wrap(struct node *n)
{
    n->host = *storage_host.callbacks(n->store);
    n->storage = n->host;
    n->storage.ud = n;
    n->storage.open = on_open;
    n->storage.write = on_write;
    n->storage.read = on_read;
    if (n->host.snap_put == NULL)
        return;
    n->storage.trim = on_trim;
    n->storage.snap_put = on_put;
    n->storage.snap_commit = on_commit;
    n->storage.snap_get = on_get;
    n->storage.snap_drop = on_drop;
}

int keeps_snapshots(void)
{
    return nodes[0].host.snap_put != NULL;
}

/* ---- the replicated state -------------------------------------------------------- */

/* An item is its number, and bytes that follow from it. */
static void fill(unsigned char *to, size_t len, uint32_t item)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (unsigned char)(item * 31 + i * 7 + i / 251);
}

static bool is_filled(const unsigned char *bytes, size_t len, uint32_t item)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != (unsigned char)(item * 31 + i * 7 + i / 251))
            return false;
    return true;
}

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    struct node *n = ud;
    uint32_t item;

    (void)index, (void)term;
    CHECK(len >= sizeof item && n->count < ITEMS_MAX);
    memcpy(&item, data, sizeof item);
    CHECK(is_filled((const unsigned char *)data + sizeof item, len - sizeof item, item));
    CHECK(n->count == 0 || n->items[n->count - 1] < item); /* each once, in order */
    n->items[n->count++] = item;
    return 0;
}

static void on_save(void *ud, keel_save *s, uint64_t index)
{
    struct node *n = ud;
    size_t items = n->count * sizeof *n->items, len = FILLER + items, at = 0;
    unsigned char *image = malloc(len);
    int code = KEEL_OK;

    (void)index;
    CHECK(image != NULL);
    fill(image, FILLER, 0);
    memcpy(image + FILLER, n->items, items);
    for (unsigned i = 0; code == KEEL_OK && at < len; i++) {
        size_t stride = strides[i % (sizeof strides / sizeof *strides)];

        stride = len - at < stride ? len - at : stride;
        code = keel_save_write(s, image + at, stride);
        at += stride;
    }
    free(image);
    CHECK_CODE(keel_save_finish(s, code), KEEL_OK);
}

static void on_load(void *ud, keel_load *l, uint64_t index)
{
    struct node *n = ud;
    size_t room = FILLER + sizeof n->items, len = 0, got = 1;
    unsigned char *image = malloc(room);

    (void)index;
    CHECK(image != NULL);
    for (unsigned i = 0; got > 0; i++, len += got) {
        size_t stride = strides[i % (sizeof strides / sizeof *strides)];

        stride = room - len < stride ? room - len : stride;
        CHECK_CODE(keel_load_read(l, image + len, stride, &got), KEEL_OK);
    }
    CHECK(len >= FILLER && (len - FILLER) % sizeof *n->items == 0);
    CHECK(is_filled(image, FILLER, 0));
    n->count = (len - FILLER) / sizeof *n->items;
    memcpy(n->items, image + FILLER, len - FILLER);
    n->loads++;
    free(image);
    CHECK_CODE(keel_load_finish(l, KEEL_OK), KEEL_OK);
}

void acknowledge(uint32_t item)
{
    acknowledged[item] = 1;
}

struct wish {
    const struct node *node;
    uint32_t missing;
};

static int has_all(void *arg)
{
    struct wish *wish = arg;
    size_t at = 0;

    for (uint32_t item = 1; item < next_item; item++) {
        while (at < wish->node->count && wish->node->items[at] < item)
            at++;
        if (acknowledged[item] && (at == wish->node->count || wish->node->items[at] != item)) {
            wish->missing = item;
            return 0;
        }
    }
    return 1;
}

/* So that the one that is missing can be told when time is up. */
static struct wish *wished;

void holds_all(struct node *n)
{
    struct wish wish = {n, 0};

    wished = &wish;
    run_until(has_all, &wish);
    wished = NULL;
}

/* ---- engines ---------------------------------------------------------------------- */

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    struct node *from = ud, *n = &nodes[to - 1];

    if (n->k != NULL && !n->away && !from->away)
        keel_recv(n->k, from->id, msg, len); /* refused is lost */
}

static void on_stopped(void *ud, int why)
{
    ((struct node *)ud)->why_stopped = why;
}

keel_info info_of(const struct node *n)
{
    keel_status *status;
    keel_info info;

    CHECK_CODE(keel_status_take(n->k, &status), KEEL_OK);
    info = *keel_status_info(status);
    keel_status_free(status);
    return info;
}

int node_try(struct node *n, keel_id id, int fresh, uint32_t flags)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    int code;

    n->id = (keel_id)(n - nodes) + 1;
    memset(&n->calls, 0, sizeof n->calls);
    n->count = n->loads = 0;
    n->away = n->may_die = n->why_stopped = 0;
    n->store = storage_host.open(directory, (unsigned)(n - nodes), fresh, &n->k);
    CHECK(n->store != NULL);
    wrap(n);
    config.id = id;
    config.cluster = 4711;
    config.storage = &n->storage;
    config.flags = flags;
    config.heartbeat_ms = 50;
    config.election_ms = 500;
    config.memory_max = 4096; /* so little that a node that lags behind is served from the store */
    callbacks.send = on_send;
    callbacks.apply = on_apply;
    callbacks.stopped = on_stopped;
    if (n->host.snap_put != NULL) {
        callbacks.save = on_save;
        callbacks.load = on_load;
    }
    n->opening = 1;
    code = keel_new(&n->k, &config, &callbacks, n);
    n->opening = 0;
    return code;
}

void node_start(struct node *n, int fresh)
{
    CHECK_CODE(node_try(n, (keel_id)(n - nodes) + 1, fresh, fresh ? KEEL_NEW_NODE : 0), KEEL_OK);
    if (fresh) {
        keel_peer peers[NODES];

        for (size_t i = 0; i < members; i++)
            peers[i] = (keel_peer){.size = sizeof peers[i], .id = i + 1, .address = ""};
        CHECK_CODE(keel_bootstrap(n->k, peers, members), KEEL_OK);
        n->kept_index = n->kept_term = 0;
    } else {
        keel_info info = info_of(n);

        /* A vote, a term or an entry that others count on was lost. */
        CHECK(info.term >= n->kept_term);
        CHECK(info.last_index >= n->kept_index);
        n->calls.last = info.last_index;
    }
    n->fd = keel_fd(n->k);
    CHECK(n->fd >= 0);
}

void node_stop(struct node *n)
{
    storage_host.stop(n->store);
    CHECK_CODE(keel_free(n->k), KEEL_OK);
    n->k = NULL;
    storage_host.close(n->store);
    n->store = NULL;
}

static uint64_t match_of(const struct node *leading, keel_id id)
{
    keel_status *status;
    uint64_t match = 0;

    CHECK_CODE(keel_status_take(leading->k, &status), KEEL_OK);
    for (size_t i = 0; i < keel_status_count(status); i++)
        if (keel_status_node(status, i)->id == id)
            match = keel_status_node(status, i)->match_index;
    keel_status_free(status);
    return match;
}

/* What has left the node was durable before: an answer to the leader, or that it leads. */
void node_note(struct node *n)
{
    n->kept_index = 0;
    for (struct node *l = nodes; l < nodes + members; l++) {
        keel_info info;

        if (l->k == NULL || keel_role(l->k) != KEEL_ROLE_LEADER)
            continue;
        info = info_of(l);
        if (info.term < n->kept_term)
            continue; /* it was replaced, and does not know yet */
        if (l == n)
            n->kept_index = members == 1 ? info.commit : 0;
        else
            n->kept_index = match_of(l, n->id);
        if (l == n || n->kept_index > 0)
            n->kept_term = info.term;
    }
}

void node_restart(struct node *n)
{
    node_note(n);
    node_stop(n);
    node_start(n, 0);
}

void node_drive(struct node *n)
{
    int code = keel_dispatch(n->k);

    CHECK(code == KEEL_OK || (n->may_die && code == n->why_stopped));
}

void run_until(int (*holds)(void *), void *arg)
{
    uint64_t end = clock_ms() + DEADLINE_MS;

    while (!holds(arg)) {
        struct pollfd fds[NODES];
        struct node *of[NODES];
        nfds_t n = 0;

        for (struct node *node = nodes; node < nodes + members; node++)
            if (node->k != NULL && node->why_stopped == 0) {
                of[n] = node;
                fds[n++] = (struct pollfd){node->fd, POLLIN, 0};
            }
        if (clock_ms() >= end && wished != NULL)
            printf("    item %u was acknowledged, and is not there\n", wished->missing);
        CHECK(clock_ms() < end);
        CHECK(poll(fds, n, 10) >= 0);
        for (nfds_t i = 0; i < n; i++)
            if (fds[i].revents != 0)
                node_drive(of[i]);
    }
}

static int somebody_leads(void *arg)
{
    struct node **found = arg;
    uint64_t term = 0;

    *found = NULL;
    for (struct node *n = nodes; n < nodes + members; n++) {
        keel_info info;

        if (n->k == NULL || n->away || keel_role(n->k) != KEEL_ROLE_LEADER)
            continue;
        info = info_of(n);
        if (info.has_quorum && info.term > term) {
            *found = n;
            term = info.term;
        }
    }
    return *found != NULL;
}

struct node *leader(void)
{
    struct node *found;

    run_until(somebody_leads, &found);
    return found;
}

struct node *cluster_start(size_t n)
{
    members = n;
    for (size_t i = 0; i < n; i++)
        node_start(&nodes[i], 1);
    return leader();
}

void cluster_stop(void)
{
    for (size_t i = 0; i < members; i++)
        node_stop(&nodes[i]);
}

/* ---- requests ----------------------------------------------------------------------- */

static void on_proposed(void *arg, int status, uint64_t index)
{
    struct proposal *p = arg;

    (void)index;
    if (status == KEEL_OK)
        acknowledge(p->item);
    *p->status = status;
    free(p);
}

void propose_at(struct node *n, size_t len, int *status)
{
    struct proposal *p = malloc(sizeof *p);
    unsigned char *data = malloc(sizeof p->item + len);

    CHECK(p != NULL && data != NULL && next_item < ITEMS_MAX);
    p->item = next_item++;
    p->status = status;
    *status = 1;
    memcpy(data, &p->item, sizeof p->item);
    fill(data + sizeof p->item, len, p->item);
    CHECK_CODE(keel_propose(n->k, data, sizeof p->item + len, on_proposed, p), KEEL_OK);
    free(data);
}

static int is_over(void *arg)
{
    return *(int *)arg <= 0;
}

void propose(size_t n, size_t len_max)
{
    while (n > 0) {
        int status;

        propose_at(leader(), below(len_max + 1), &status);
        run_until(is_over, &status);
        n -= status == KEEL_OK;
    }
}

static void on_snapshot(void *arg, int status, uint64_t index)
{
    (void)index;
    *(int *)arg = status;
}

void snapshot(struct node *n)
{
    int status = KEEL_ERR_CONFLICT; /* the node makes one already, or loads one */

    while (status == KEEL_ERR_CONFLICT) {
        status = 1;
        CHECK_CODE(keel_snapshot(n->k, on_snapshot, &status), KEEL_OK);
        run_until(is_over, &status);
    }
    CHECK_CODE(status, KEEL_OK);
}
