/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* There is no memory for what the host, a peer or the disk chooses the size of: the call says so, nothing
 * has happened, and it works when there is some again. Two engines with directories, and proposals of
 * 900 KB. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "check.h"

/* Nothing that the library allocates of itself is as large. */
#define LARGE ((size_t)256 << 10)
#define PAYLOAD 900000
#define IN_FLIGHT 256
#define TURNS 4000

/* Those of the C library, which malloc() and the others here stand before. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);

static int is_short;
static unsigned refused;

static int lacks(size_t size)
{
    if (!is_short || size <= LARGE)
        return 0;
    refused++;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return lacks(size) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return lacks(n * size) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
    return lacks(size) ? NULL : __libc_realloc(p, size);
}

struct message {
    keel_id to;
    size_t len;
    unsigned char *data;
};

static struct message flight[IN_FLIGHT];
static size_t in_flight;
static keel *engines[2];
static uint64_t now_ms = 1000;
static int completed, applied[2];
static unsigned char payload[PAYLOAD];

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud;
    if (in_flight == IN_FLIGHT)
        return;
    unsigned char *data = malloc(len);
    CHECK(data != NULL);
    memcpy(data, msg, len);
    flight[in_flight++] = (struct message){to, len, data};
}

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    int *count = ud;
    (void)index, (void)term;
    CHECK(memcmp(data, payload, len) == 0);
    ++*count;
    return 0;
}

static void on_done(void *arg, int status, uint64_t index)
{
    (void)arg, (void)index;
    CHECK_CODE(status, KEEL_OK);
    completed++;
}

static int open_engine(size_t i, uint32_t flags)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;

    config.id = config.seed = i + 1;
    config.cluster = 1;
    config.dir = i == 0 ? "first" : "second";
    config.flags = flags;
    callbacks.apply = on_apply;
    callbacks.send = on_send;
    applied[i] = 0;
    return keel_new(&engines[i], &config, &callbacks, &applied[i]);
}

/* Brings everything to where it goes; memory is short for the first large message. */
static void deliver(int short_once)
{
    struct message taken[IN_FLIGHT];
    size_t n = in_flight;
    memcpy(taken, flight, n * sizeof *flight);
    in_flight = 0;
    for (size_t i = 0; i < n; i++) {
        keel *to = engines[taken[i].to - 1];
        is_short = short_once && taken[i].len > LARGE;
        int code = keel_recv(to, 0, taken[i].data, taken[i].len);
        CHECK(code == (is_short ? KEEL_ERR_NOMEM : KEEL_OK));
        short_once = short_once && !is_short;
        is_short = 0;
        free(taken[i].data);
    }
}

static void turn(int short_once)
{
    for (size_t i = 0; i < 2; i++)
        CHECK_CODE(keel_step(engines[i], now_ms, NULL), KEEL_OK);
    deliver(short_once);
    now_ms += 20;
}

static void run_until(const int *count, int wanted)
{
    for (int turns = 0; *count < wanted; turns++) {
        turn(0);
        CHECK(turns < TURNS);
    }
}

/* A leader and a learner. */
static void begin(void)
{
    keel_peer first = KEEL_PEER_INIT, second = KEEL_PEER_INIT;
    first.id = 1;
    second.id = 2;
    CHECK_CODE(open_engine(0, KEEL_NEW_NODE), KEEL_OK);
    CHECK_CODE(open_engine(1, KEEL_NEW_NODE), KEEL_OK);
    CHECK_CODE(keel_bootstrap(engines[0], &first, 1), KEEL_OK);
    while (keel_role(engines[0]) != KEEL_ROLE_LEADER)
        turn(0);
    CHECK_CODE(keel_node_add(engines[0], &second, on_done, NULL), KEEL_OK);
    run_until(&completed, 1);
}

static void propose_without_memory(void)
{
    is_short = 1;
    CHECK_CODE(keel_propose(engines[0], payload, PAYLOAD, on_done, NULL), KEEL_ERR_NOMEM);
    CHECK(refused == 1);
    /* What is small is not refused. */
    CHECK_CODE(keel_propose(engines[0], payload, 1000, on_done, NULL), KEEL_OK);
    is_short = 0;
    CHECK_CODE(keel_propose(engines[0], payload, PAYLOAD, on_done, NULL), KEEL_OK);
}

/* The leader sends again what was dropped. */
static void receive_without_memory(void)
{
    unsigned before = refused;
    for (int turns = 0; refused == before; turns++) {
        turn(1);
        CHECK(turns < TURNS);
    }
    run_until(&completed, 3);
    run_until(&applied[1], 2);
    CHECK(applied[0] == 2);
}

static void open_without_memory(void)
{
    CHECK_CODE(keel_free(engines[0]), KEEL_OK);
    is_short = 1;
    CHECK_CODE(open_engine(0, 0), KEEL_ERR_NOMEM);
    CHECK(engines[0] == NULL);
    is_short = 0;
    CHECK_CODE(open_engine(0, 0), KEEL_OK);
    run_until(&applied[0], 2);
}

int main(void)
{
    memset(payload, 7, sizeof payload);
    begin();
    propose_without_memory();
    receive_without_memory();
    open_without_memory();
    for (size_t i = 0; i < 2; i++)
        CHECK_CODE(keel_free(engines[i]), KEEL_OK);
    return 0;
}
