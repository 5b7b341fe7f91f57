/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A replicated table with snapshots: three engines in one process, each with a directory below the
 * one that is named on the command line. The table is written in a thread of its own while commands
 * go on; a node that was away for long gets the table instead of the commands; and all of them are
 * started again from their disks. Exit status 0 only if the three tables were the same each time. */
#include <inttypes.h>
#include <pthread.h>
#include <raftkeel.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODES = 3, QUEUE = 8192, CELLS = 64, ROUNDS = 40, BATCH = 25 };

struct command { /* what goes through the log: one byte order and one layout on all nodes */
    uint32_t cell, value;
};

static struct node {
    keel *k;
    keel_id id;
    uint32_t table[CELLS]; /* the state that is replicated */
    unsigned applied, loads;
    pthread_t writer;
    bool writes; /* a thread was started and must be joined */
    bool down;
} nodes[NODES];

static struct message {
    keel_id from, to;
    void *data;
    size_t len;
} queue[QUEUE];
static size_t queued;
static uint64_t now; /* milliseconds */
static unsigned completed;

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    void *data = queued < QUEUE ? malloc(len) : NULL;
    if (data)
        queue[queued++] = (struct message){((struct node *)ud)->id, to, memcpy(data, msg, len), len};
}

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    struct node *n = ud;
    struct command c;

    (void)index, (void)term;
    if (len != sizeof c)
        return -1;
    memcpy(&c, data, sizeof c);
    n->table[c.cell % CELLS] += c.value;
    n->applied++;
    return 0;
}

/* What the writer needs: the table as it was when `save` was called, and where it goes. */
struct job {
    keel_save *save;
    uint32_t table[CELLS];
};

static void *write_table(void *arg)
{
    struct job *job = arg;
    int rc = keel_save_write(job->save, job->table, sizeof job->table);

    keel_save_finish(job->save, rc); /* waits for the disk, and nobody waits for this thread */
    free(job);
    return NULL;
}

static void join(struct node *n)
{
    if (n->writes)
        pthread_join(n->writer, NULL);
    n->writes = false;
}

static void on_save(void *ud, keel_save *s, uint64_t index)
{
    struct node *n = ud;
    struct job *job = malloc(sizeof *job);

    (void)index;
    join(n); /* the last one is finished: there is never more than one */
    if (job) {
        job->save = s;
        memcpy(job->table, n->table, sizeof job->table);
        n->writes = pthread_create(&n->writer, NULL, write_table, job) == 0;
    }
    if (!n->writes) {
        free(job);
        keel_save_finish(s, KEEL_ERR_NOMEM);
    }
}

/* A large table would be read in a thread as well. */
static void on_load(void *ud, keel_load *l, uint64_t index)
{
    struct node *n = ud;
    uint32_t table[CELLS];
    size_t have = 0, got = 1;
    int rc = KEEL_OK;

    (void)index;
    while (rc == KEEL_OK && got > 0 && have < sizeof table)
        rc = keel_load_read(l, (char *)table + have, sizeof table - have, &got), have += got;
    if (rc == KEEL_OK && have == sizeof table) {
        memcpy(n->table, table, sizeof table);
        n->loads++;
    } else {
        rc = rc == KEEL_OK ? KEEL_ERR_CORRUPT : rc;
    }
    keel_load_finish(l, rc);
}

static void on_done(void *arg, int status, uint64_t index)
{
    (void)arg, (void)index;
    completed += status == KEEL_OK;
}

static bool start(struct node *n, keel_id id, const char *root, uint32_t flags)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel_peer peers[NODES];
    char dir[4096];
    int rc;

    memset(n, 0, sizeof *n);
    snprintf(dir, sizeof dir, "%s/node%" PRIu64, root, id);
    n->id = config.id = id;
    config.cluster = 1;
    config.seed = id;
    config.dir = dir;
    config.flags = flags;
    config.compact_entries = 100;
    config.memory_max = 4096; /* so little that a node that lags behind is served from the disk */
    callbacks.send = on_send;
    callbacks.apply = on_apply;
    callbacks.save = on_save;
    callbacks.load = on_load;
    for (size_t i = 0; i < NODES; i++)
        peers[i] = (keel_peer){.size = sizeof peers[i], .id = i + 1, .address = ""};
    rc = keel_new(&n->k, &config, &callbacks, n);
    if (rc == KEEL_OK)
        rc = keel_bootstrap(n->k, peers, NODES);
    return rc == KEEL_OK || (rc == KEEL_ERR_EXISTS && n->k);
}

/* 10 ms: what was sent arrives, and every engine that runs takes a step. */
static void turn(void)
{
    uint64_t next;

    now += 10;
    for (size_t i = 0; i < queued; i++) {
        struct node *to = &nodes[queue[i].to - 1];
        if (!to->down && keel_recv(to->k, queue[i].from, queue[i].data, queue[i].len) != KEEL_OK)
            fprintf(stderr, "node %" PRIu64 ": %s\n", to->id, keel_errmsg());
        free(queue[i].data);
    }
    queued = 0;
    for (size_t i = 0; i < NODES; i++)
        if (!nodes[i].down && keel_step(nodes[i].k, now, &next) != KEEL_OK)
            fprintf(stderr, "node %" PRIu64 ": %s\n", nodes[i].id, keel_errmsg());
}

static struct node *leader(void)
{
    for (size_t i = 0; i < NODES; i++)
        if (!nodes[i].down && keel_role(nodes[i].k) == KEEL_ROLE_LEADER)
            return &nodes[i];
    return NULL;
}

static bool same(void)
{
    return memcmp(nodes[0].table, nodes[1].table, sizeof nodes[0].table) == 0 &&
           memcmp(nodes[0].table, nodes[2].table, sizeof nodes[0].table) == 0;
}

/* Adds to cells, through whoever leads. */
static bool work(unsigned rounds)
{
    for (unsigned r = 0; r < rounds; r++) {
        unsigned before = completed;
        uint64_t until = now + 60000;
        while (!leader() && now < until)
            turn();
        for (uint32_t i = 0; i < BATCH && leader(); i++) {
            struct command c = {r * BATCH + i, i + 1};
            if (keel_propose(leader()->k, &c, sizeof c, on_done, NULL) != KEEL_OK)
                return false;
        }
        while (completed < before + BATCH && now < until)
            turn();
        if (completed < before + BATCH)
            return false;
    }
    return true;
}

static bool settled(void)
{
    uint64_t until = now + 60000;

    do
        turn();
    while (!same() && now < until);
    return same();
}

static void stop(void)
{
    for (size_t i = 0; i < NODES; i++) {
        join(&nodes[i]); /* what is being written is finished before its engine is freed */
        keel_free(nodes[i].k);
        nodes[i].k = NULL;
    }
    while (queued > 0)
        free(queue[--queued].data);
}

int main(int argc, char **argv)
{
    struct node *away;
    bool ok = argc == 2;

    for (size_t i = 0; ok && i < NODES; i++)
        ok = start(&nodes[i], i + 1, argv[1], KEEL_NEW_NODE);
    if (!ok)
        return fprintf(stderr, "usage: %s DIRECTORY    (an empty one)\n", argv[0]), 2;
    ok = work(2) && settled();
    printf("%u commands are applied on every node\n", nodes[0].applied);

    away = &nodes[leader() ? leader()->id % NODES : 0];
    away->down = true;
    ok = ok && work(ROUNDS);
    for (unsigned i = 0; i < 500; i++)
        turn(); /* five seconds: nobody keeps the log for it any more */
    away->down = false;
    ok = ok && settled() && away->loads == 1;
    printf("node %" PRIu64 " was away: it was given %u snapshot and %u of %u commands\n", away->id,
           away->loads, away->applied, completed);

    stop();
    for (size_t i = 0; ok && i < NODES; i++)
        ok = start(&nodes[i], i + 1, argv[1], 0);
    ok = ok && work(1) && settled();
    for (size_t i = 0; i < NODES; i++)
        printf("node %" PRIu64 " is back: it has loaded %u snapshot and applied %u commands\n", i + 1,
               nodes[i].loads, nodes[i].applied);

    printf("%s\n", ok ? "the tables were the same each time" : "FAILED");
    stop();
    return ok ? 0 : 1;
}
