/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* How long a cluster of three serves nobody when its leader dies: failover TIMES DIR
 *
 * A line a time: milliseconds from SIGKILL of the leader's process to the next committed proposal,
 * with the default timers. The dead node starts again before the next one is killed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "nodes.h"

#define NODES 3
/* More than a heartbeat: every node has heard the leader when it dies. Not a multiple of one, so
 * that it dies at different moments between two of them. */
#define SETTLE_MS 737

int main(int argc, char **argv)
{
    struct nodes c;
    long times = argc == 3 ? strtol(argv[1], NULL, 10) : 0;

    if (times < 1)
        return fprintf(stderr, "usage: failover TIMES DIR\n"), 2;
    nodes_start(&c, NODES, argv[2]);
    size_t leader = nodes_await_leader(&c, 0);
    for (long i = 0; i < times; i++) {
        sleep_ms(SETTLE_MS);
        uint64_t killed = now_ns();
        nodes_kill(&c, leader);
        size_t next = nodes_await_leader(&c, killed);
        printf("%" PRIu64 "\n", (c.facts[next].committed_ns - killed) / 1000000);
        nodes_restart(&c, leader);
        leader = nodes_await_leader(&c, 0);
    }
    nodes_end(&c);
    return 0;
}
