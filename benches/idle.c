/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a cluster costs that has nothing to do: idle NODES SECONDS DIR
 *
 * Measures SECONDS that begin five seconds after the first commit. A line a value, "name<TAB>value":
 * of the leader and of the busiest follower the CPU in percent of one core, driving calls and
 * messages sent a second; of all nodes the largest resident memory at the end and its largest
 * growth, in kB. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "nodes.h"
#include "sample.h"

#define SETTLE_MS 5000

struct measured {
    struct sample sample;
    uint64_t turns, sent;
};

struct cost {
    double cpu, turns, sent;
};

static struct measured measure(const struct nodes *c, size_t i)
{
    return (struct measured){
        .sample = sample_take(c->pids[i]),
        .turns = atomic_load(&c->facts[i].turns),
        .sent = atomic_load(&c->facts[i].sent),
    };
}

static struct cost cost(const struct measured *from, const struct measured *to)
{
    double seconds = (double)(to->sample.at_ns - from->sample.at_ns) / 1e9;
    return (struct cost){
        .cpu = sample_cpu_percent(&from->sample, &to->sample),
        .turns = (double)(to->turns - from->turns) / seconds,
        .sent = (double)(to->sent - from->sent) / seconds,
    };
}

static void print_cost(const char *who, const struct cost *c)
{
    printf("%s_cpu\t%.3f\n%s_turns\t%.1f\n%s_sent\t%.1f\n", who, c->cpu, who, c->turns, who, c->sent);
}

static void report(size_t n, size_t leader, const struct measured *from, const struct measured *to)
{
    struct cost follower = {0};
    long rss = 0, growth = 0;

    for (size_t i = 0; i < n; i++) {
        struct cost c = cost(&from[i], &to[i]);
        long grown = to[i].sample.rss_kb - from[i].sample.rss_kb;
        if (i == leader)
            print_cost("leader", &c);
        else if (c.cpu > follower.cpu)
            follower = c;
        rss = to[i].sample.rss_kb > rss ? to[i].sample.rss_kb : rss;
        growth = grown > growth ? grown : growth;
    }
    print_cost("follower", &follower);
    printf("rss\t%ld\ngrowth\t%ld\n", rss, growth);
}

int main(int argc, char **argv)
{
    struct measured from[NODES_MAX], to[NODES_MAX];
    struct nodes c;
    size_t n = argc == 4 ? strtoul(argv[1], NULL, 10) : 0;
    long seconds = argc == 4 ? strtol(argv[2], NULL, 10) : 0;

    if (n < 1 || n > NODES_MAX || seconds < 1)
        return fprintf(stderr, "usage: idle NODES SECONDS DIR\n"), 2;
    nodes_start(&c, n, argv[3]);
    size_t leader = nodes_await_leader(&c, 0);
    sleep_ms(SETTLE_MS);
    for (size_t i = 0; i < n; i++)
        from[i] = measure(&c, i);
    sleep_ms(seconds * 1000);
    for (size_t i = 0; i < n; i++)
        to[i] = measure(&c, i);
    errno = 0;
    if (nodes_await_leader(&c, 0) != leader)
        die("another leader was elected meanwhile: this cluster was not idle");
    nodes_end(&c);
    report(n, leader, from, to);
    return 0;
}
