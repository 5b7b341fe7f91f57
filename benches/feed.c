/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What one message of an idle cluster costs its receiver: feed REPEATS
 *
 * Three engines run through a quiet while of injected time, and what each is given is recorded.
 * Engines are deterministic, so that fresh ones can then be fed the same again with nothing else
 * between. A line a repetition: "follower<TAB>ns" or "leader<TAB>ns", the mean time of keel_recv()
 * and keel_step() for a message, with what the two readings of the clock around them cost. Steps
 * that only a timer asked for are taken, but not counted. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nodes.h"

#define NODES 3
#define MESSAGE_MAX 512
#define IN_FLIGHT 64
/* The first leader is elected, and the log known to all, in a small part of it. */
#define WARM_MS 20000
#define END_MS 1020000

/* A driving call, and the message before it: len 0 = none. */
struct input {
    uint64_t now;
    uint16_t len;
    unsigned char data[MESSAGE_MAX];
};

struct recording {
    struct input *inputs;
    size_t n, room;
    size_t first; /* the first after WARM_MS */
    uint64_t messages; /* from there on */
};

struct message {
    keel_id to;
    uint64_t arrives;
    uint16_t len;
    unsigned char data[MESSAGE_MAX];
};

static struct message flight[IN_FLIGHT];
static size_t in_flight;
static struct recording recordings[NODES];
static uint64_t now = 1;

/* A message takes a millisecond. */
static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud;
    errno = 0;
    if (in_flight == IN_FLIGHT || len > MESSAGE_MAX)
        die("an idle cluster has much to say");
    struct message *m = &flight[in_flight++];
    *m = (struct message){.to = to, .arrives = now + 1, .len = (uint16_t)len};
    memcpy(m->data, msg, len);
}

static void drop(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud, (void)to, (void)msg, (void)len;
}

static keel *open_engine(size_t i, void (*send)(void *, keel_id, const void *, size_t))
{
    keel *k;
    keel_peer peers[NODES];
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;

    config.id = config.seed = i + 1;
    config.cluster = 1;
    config.flags = KEEL_VOLATILE | KEEL_NEW_NODE;
    config.params.hb_keepalive_ms = KEEPALIVE_MS;
    callbacks.send = send;
    for (size_t j = 0; j < NODES; j++)
        peers[j] = (keel_peer){.size = sizeof peers[j], .id = j + 1, .address = ""};
    errno = 0;
    if (keel_new(&k, &config, &callbacks, NULL) != KEEL_OK || keel_bootstrap(k, peers, NODES) != KEEL_OK)
        die("no engine");
    return k;
}

static void record(struct recording *r, const struct message *m)
{
    if (r->n == r->room) {
        r->room = r->room ? 2 * r->room : 4096;
        r->inputs = realloc(r->inputs, r->room * sizeof *r->inputs);
        if (!r->inputs)
            die("realloc");
    }
    struct input *in = &r->inputs[r->n++];
    *in = (struct input){.now = now, .len = m ? m->len : 0};
    if (m)
        memcpy(in->data, m->data, m->len);
    if (now < WARM_MS)
        r->first = r->n;
    else
        r->messages += m != NULL;
}

static uint64_t give(keel *k, const struct input *in)
{
    uint64_t next;
    if ((in->len && keel_recv(k, 0, in->data, in->len) != KEEL_OK) || keel_step(k, in->now, &next) != KEEL_OK)
        die("an engine does not go on");
    return next;
}

/* Takes the next message that has arrived out of the network; false if there is none. */
static bool arrived(struct message *m)
{
    if (in_flight == 0 || flight[0].arrives > now)
        return false;
    *m = flight[0];
    memmove(flight, flight + 1, --in_flight * sizeof flight[0]);
    return true;
}

/* Lives through the quiet while; the leader's number from 0. */
static size_t record_all(void)
{
    keel *engines[NODES];
    uint64_t due[NODES] = {0};
    struct message m;

    for (size_t i = 0; i < NODES; i++)
        engines[i] = open_engine(i, on_send);
    for (; now < END_MS; now++) {
        while (arrived(&m)) {
            struct recording *r = &recordings[m.to - 1];
            record(r, &m);
            due[m.to - 1] = give(engines[m.to - 1], &r->inputs[r->n - 1]);
        }
        for (size_t i = 0; i < NODES; i++)
            if (due[i] <= now) {
                record(&recordings[i], NULL);
                due[i] = give(engines[i], &recordings[i].inputs[recordings[i].n - 1]);
            }
    }
    size_t leader = (size_t)keel_leader(engines[0]) - 1;
    for (size_t i = 0; i < NODES; i++)
        keel_free(engines[i]);
    errno = 0;
    if (leader >= NODES)
        die("no leader");
    return leader;
}

static double replay(size_t i, int role)
{
    const struct recording *r = &recordings[i];
    keel *k = open_engine(i, drop);
    size_t j = 0;

    for (; j < r->first; j++)
        give(k, &r->inputs[j]);
    uint64_t took = 0;
    for (; j < r->n; j++) {
        uint64_t began = now_ns();
        give(k, &r->inputs[j]);
        took += r->inputs[j].len ? now_ns() - began : 0;
    }
    if (keel_role(k) != role)
        die("the replay is not what was recorded");
    keel_free(k);
    return (double)took / (double)r->messages;
}

int main(int argc, char **argv)
{
    long repeats = argc == 2 ? strtol(argv[1], NULL, 10) : 0;

    if (repeats < 1)
        return fprintf(stderr, "usage: feed REPEATS\n"), 2;
    size_t leader = record_all();
    for (long i = 0; i < repeats; i++) {
        printf("follower\t%.0f\n", replay((leader + 1) % NODES, KEEL_ROLE_FOLLOWER));
        printf("leader\t%.0f\n", replay(leader, KEEL_ROLE_LEADER));
    }
    return 0;
}
