/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A cluster of small hosts for measurements: a process a node, messages in UDP datagrams over
 * loopback, state in a directory on the disk, every setting the library's default but the
 * keepalive interval, which is said here.
 *
 * What a node knows it puts into memory that it shares with the process that measures, so that it
 * is not disturbed by questions.
 */
#ifndef NODES_H
#define NODES_H

#include <netinet/in.h>
#include <raftkeel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base.h"

#define NODES_MAX 9u
#define KEEPALIVE_MS 1000u

/* Written by the node's process only. */
struct facts {
    _Atomic uint64_t leader;       /* whom it follows; 0 = nobody */
    _Atomic uint64_t committed_ns; /* when its first proposal as this leader was committed; 0 = not yet */
    _Atomic uint64_t turns;        /* driving calls */
    _Atomic uint64_t sent;         /* messages */
};

struct nodes {
    size_t n;
    const char *dir;
    int sockets[NODES_MAX]; /* kept open here, so that a node that starts again has its old address */
    struct sockaddr_in addresses[NODES_MAX];
    pid_t pids[NODES_MAX]; /* 0 = not running */
    struct facts *facts;
};

/* Starts a new cluster of `n` nodes, each with its state in a new directory under `dir`. Exits on
 * failure, like all the others here. */
void nodes_start(struct nodes *c, size_t n, const char *dir);
/* SIGKILL, and waits until it is gone. */
void nodes_kill(struct nodes *c, size_t i);
/* Starts a killed node with what it has in its directory. */
void nodes_restart(struct nodes *c, size_t i);
void nodes_end(struct nodes *c);

/* Waits until a leader has committed an entry later than `after_ns` and every running node follows
 * it; its number from 0. */
size_t nodes_await_leader(struct nodes *c, uint64_t after_ns);

#endif
