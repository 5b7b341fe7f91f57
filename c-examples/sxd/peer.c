/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "peer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base64.h"
#include "heal.h"
#include "place.h"

#define PEERS_MAX (2 * MEMBERS_MAX)
#define OUTBOX_MESSAGES 256u
/* In base64 this is under HTTP_BODY_MAX. */
#define OUTBOX_BYTES ((size_t)4 << 20)
#define EXCHANGE_MS 2000L
#define CALL_MS 2000L
#define CALLS_MAX 64u
/* After a failed exchange: a refused connection would else be tried again at once, for ever. */
#define BACKOFF_MS 100u

struct message {
    void *data;
    size_t len;
};

struct peer {
    uint64_t id;
    char address[ADDRESS_SIZE];
    struct message outbox[OUTBOX_MESSAGES]; /* a ring */
    size_t first, count, bytes;
    bool exchanging, silent;
    uint64_t not_before_ms;
    unsigned calls;
};

struct waiting {
    struct waiting *next;
    struct http_req *request;
    uint64_t from;
};

struct peers {
    struct peer *list[PEERS_MAX];
    size_t n;
    struct waiting *waiting;
};

struct peers *peers_new(void)
{
    return xcalloc(1, sizeof(struct peers));
}

static void drop_oldest(struct peer *p)
{
    struct message *m = &p->outbox[p->first];
    p->bytes -= m->len;
    free(m->data);
    p->first = (p->first + 1) % OUTBOX_MESSAGES;
    p->count--;
}

void peers_free(struct peers *ps)
{
    for (size_t i = 0; i < ps->n; i++) {
        while (ps->list[i]->count)
            drop_oldest(ps->list[i]);
        free(ps->list[i]);
    }
    free(ps);
}

static struct peer *find(const struct peers *ps, uint64_t id)
{
    for (size_t i = 0; i < ps->n; i++)
        if (ps->list[i]->id == id)
            return ps->list[i];
    return NULL;
}

/* NULL if there is no room, or it is this node. */
static struct peer *find_or_add(struct sxd *sx, uint64_t id)
{
    struct peer *p = find(sx->peers, id);
    if (p || id == sx->id || id == 0 || sx->peers->n == PEERS_MAX)
        return p;
    p = xcalloc(1, sizeof *p);
    p->id = id;
    sx->peers->list[sx->peers->n++] = p;
    return p;
}

void peer_set_address(struct sxd *sx, uint64_t id, const char *address)
{
    struct peer *p = find_or_add(sx, id);
    if (!p || strlen(address) >= sizeof p->address)
        return;
    strcpy(p->address, address);
}

const char *peer_address(const struct sxd *sx, uint64_t id)
{
    const struct peer *p = find(sx->peers, id);
    return p ? p->address : "";
}

void peer_queue(struct sxd *sx, uint64_t id, const void *msg, size_t len)
{
    struct peer *p = find_or_add(sx, id);
    if (!p || len > OUTBOX_BYTES)
        return;
    while (p->count == OUTBOX_MESSAGES || p->bytes + len > OUTBOX_BYTES)
        drop_oldest(p);
    struct message *m = &p->outbox[(p->first + p->count) % OUTBOX_MESSAGES];
    m->data = xcalloc(len, 1);
    m->len = len;
    memcpy(m->data, msg, len);
    p->bytes += len;
    p->count++;
}

/* Everything that waits for P, which may be NULL, as the JSON of a request or a reply. */
static cJSON *take_batch(struct sxd *sx, struct peer *p)
{
    cJSON *json = cJSON_CreateObject();
    if (!json || !cJSON_AddNumberToObject(json, "from", (double)sx->id))
        die("out of memory");
    heal_tell(sx, json);
    cJSON *messages = cJSON_AddArrayToObject(json, "messages");
    if (!messages)
        die("out of memory");
    for (; p && p->count; drop_oldest(p)) {
        char *text = base64_encode(p->outbox[p->first].data, p->outbox[p->first].len);
        cJSON *item = cJSON_CreateString(text);
        if (!item || !cJSON_AddItemToArray(messages, item))
            die("out of memory");
        free(text);
    }
    return json;
}

/* The sender's id, or 0 if TEXT is not a batch. */
static uint64_t give_batch(struct sxd *sx, const char *text, size_t len)
{
    cJSON *json = cJSON_ParseWithLength(text, len), *message;
    const cJSON *from = cJSON_GetObjectItemCaseSensitive(json, "from");
    uint64_t id = cJSON_IsNumber(from) && from->valuedouble >= 1 && from->valuedouble <= ID_MAX
                      ? (uint64_t)from->valuedouble
                      : 0;
    if (id) {
        heal_hear(sx, json);
        cJSON_ArrayForEach(message, cJSON_GetObjectItemCaseSensitive(json, "messages"))
        {
            size_t n;
            unsigned char *bytes = cJSON_IsString(message) ? base64_decode(message->valuestring, &n) : NULL;
            int rc = bytes ? keel_recv(sx->keel, id, bytes, n) : KEEL_ERR_MALFORMED;
            /* A full queue loses a message as the network would; the others are worth a line. */
            if (rc < 0 && rc != KEEL_ERR_FULL)
                say("message of node %" PRIu64 " dropped: %s", id, keel_strerror(rc));
            free(bytes);
        }
    }
    cJSON_Delete(json);
    return id;
}

struct exchange {
    struct sxd *sx;
    uint64_t to;
};

static void exchange_done(void *arg, const struct answer *a)
{
    struct exchange *x = arg;
    struct peer *p = find(x->sx->peers, x->to);
    bool ok = a->status == 200;

    p->exchanging = false;
    p->not_before_ms = ok ? 0 : now_ms() + BACKOFF_MS;
    if (ok)
        give_batch(x->sx, a->data, a->len);
    else if (a->broken)
        keel_lost(x->sx->keel, p->id); /* if it leads, its end is not waited for: refused is harmless */
    if (p->silent == ok) {
        char why[160] = "";
        p->silent = !ok;
        if (!ok)
            answer_error(a, why, sizeof why);
        say("node %" PRIu64 " %s %s", p->id, ok ? "answers" : "does not answer:", why);
    }
    free(x);
}

static void start_exchange(struct sxd *sx, struct peer *p)
{
    cJSON *json = take_batch(sx, p);
    char *text = cJSON_PrintUnformatted(json);
    if (!text)
        die("out of memory");
    struct exchange *x = xcalloc(1, sizeof *x);
    x->sx = sx;
    x->to = p->id;
    struct call call = {.method = "PUT", .address = p->address, .path = "/.s2s/keel",
                        .body = text, .len = strlen(text), .deadline_ms = EXCHANGE_MS};
    p->exchanging = true;
    client_start(sx->client, &call, exchange_done, x);
    cJSON_free(text);
    cJSON_Delete(json);
}

void peers_run(struct sxd *sx)
{
    uint64_t now = now_ms();
    for (size_t i = 0; i < sx->peers->n; i++) {
        struct peer *p = sx->peers->list[i];
        if (p->count && !p->exchanging && p->address[0] && now >= p->not_before_ms)
            start_exchange(sx, p);
    }
}

void peers_serve(struct sxd *sx, struct http_req *r)
{
    size_t len;
    const char *body = http_body(r, &len);
    uint64_t from = give_batch(sx, body, len);

    if (!from) {
        http_reply_error(r, 400, "Not a batch of messages");
        return;
    }
    struct waiting *w = xcalloc(1, sizeof *w);
    w->request = r;
    w->from = from;
    w->next = sx->peers->waiting;
    sx->peers->waiting = w;
}

void peers_answer(struct sxd *sx)
{
    struct waiting *w;
    while ((w = sx->peers->waiting)) {
        sx->peers->waiting = w->next;
        http_reply_json(w->request, 200, take_batch(sx, find(sx->peers, w->from)));
        free(w);
    }
}

struct peer_call {
    struct sxd *sx;
    uint64_t to;
    client_done done;
    void *arg;
};

static void call_done(void *arg, const struct answer *a)
{
    struct peer_call *c = arg;
    find(c->sx->peers, c->to)->calls--;
    c->done(c->arg, a);
    free(c);
}

bool peer_call(struct sxd *sx, uint64_t id, const char *method, const char *path, const void *body, size_t len,
               client_done done, void *arg)
{
    struct peer *p = find(sx->peers, id);
    char from[64], epoch[64];
    const char *const headers[] = {from, epoch, NULL};

    if (!p || !p->address[0] || p->calls == CALLS_MAX)
        return false;
    snprintf(from, sizeof from, "X-Sxd-From: %" PRIu64, sx->id);
    snprintf(epoch, sizeof epoch, "X-Sxd-Epoch: %" PRIu64, keel_epoch(sx->keel));
    struct peer_call *c = xcalloc(1, sizeof *c);
    *c = (struct peer_call){.sx = sx, .to = id, .done = done, .arg = arg};
    struct call call = {.method = method, .address = p->address, .path = path, .headers = headers,
                        .body = body, .len = len, .deadline_ms = CALL_MS};
    p->calls++;
    client_start(sx->client, &call, call_done, c);
    return true;
}
