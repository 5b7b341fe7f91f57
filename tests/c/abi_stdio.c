/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Nothing is ever written to descriptors 0 to 2. The runner looks at both outputs, which must be
 * empty. With the argument "closed" the three are closed, as in a careless daemon: the library's
 * own descriptors must not get their numbers, and nothing may be different, whatever is printed
 * there.
 */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "cluster.h"

static int refuse(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    (void)ud, (void)index, (void)term, (void)data, (void)len;
    return -1;
}

static void drop_message(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud, (void)to, (void)msg, (void)len;
}

/* Errors of all sorts, a log at its most talkative and no callback to take it, a death. */
static void misbehave(void)
{
    struct cluster_options options;
    struct cluster *c;
    keel *k;

    CHECK(keel_step(NULL, 1, NULL) < 0);
    cluster_options_init(&options, 1, 5);
    options.callbacks.apply = refuse;
    options.deaths_allowed = 1;
    c = cluster_new(&options);
    k = cluster_elect(c)->k;
    CHECK(keel_recv(k, 1, "nonsense", 8) == KEEL_ERR_MALFORMED);
    CHECK_CODE(keel_propose(k, "x", 1, NULL, NULL), KEEL_OK);
    cluster_wake(&c->nodes[0]);
    cluster_run(c, 100);
    CHECK(c->nodes[0].died < 0);
    cluster_free(c);
}

/* Whoever makes a descriptor next gets 0, and then 1 and 2. */
static void expect_closed(void)
{
    for (int fd = 0; fd <= 2; fd++)
        CHECK(fcntl(fd, F_GETFD) == -1);
}

/* What others in the process print, a good deal of it. */
static void print(void)
{
    static const char line[] = "cannot reach the printer, trying again\n";

    for (int fd = 0; fd <= 2; fd++)
        for (int i = 0; i < 5000; i++)
            if (write(fd, line, sizeof line - 1) < 0)
                break;
}

static void use_descriptors(const char *dir, int closed)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel_peer peer = KEEL_PEER_INIT;
    keel *k;

    config.id = peer.id = 1;
    config.cluster = 77;
    config.dir = dir;
    config.log_level = 5;
    callbacks.send = drop_message;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_ERR_NOT_FOUND);
    config.flags = KEEL_NEW_NODE;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_OK);
    CHECK(keel_fd(k) >= 0);
    CHECK_CODE(keel_dispatch(k), KEEL_OK);
    if (closed) {
        expect_closed();
        print();
    }
    CHECK_CODE(keel_free(k), KEEL_OK);
    config.flags = 0;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_ERR_EXISTS);
    CHECK_CODE(keel_free(k), KEEL_OK);
}

int main(int argc, char **argv)
{
    int closed = argc > 1 && strcmp(argv[1], "closed") == 0;

    if (closed) {
        close(0);
        close(1);
        close(2);
    }
    misbehave();
    use_descriptors(closed ? "closed" : "open", closed);
    return 0;
}
