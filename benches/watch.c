/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What running processes use: watch SECONDS PID...
 * A line a process: percent of one core, resident kB at the end, by how many kB it has grown. */
#include <stdio.h>
#include <stdlib.h>

#include "nodes.h"
#include "sample.h"

#define PROCESSES_MAX 64

int main(int argc, char **argv)
{
    struct sample from[PROCESSES_MAX];
    int n = argc - 2;
    long seconds = argc > 2 ? strtol(argv[1], NULL, 10) : 0;

    if (seconds < 1 || n > PROCESSES_MAX)
        return fprintf(stderr, "usage: watch SECONDS PID...\n"), 2;
    for (int i = 0; i < n; i++)
        from[i] = sample_take((pid_t)strtol(argv[i + 2], NULL, 10));
    sleep_ms(seconds * 1000);
    for (int i = 0; i < n; i++) {
        struct sample to = sample_take((pid_t)strtol(argv[i + 2], NULL, 10));
        printf("%.3f\t%ld\t%ld\n", sample_cpu_percent(&from[i], &to), to.rss_kb, to.rss_kb - from[i].rss_kb);
    }
    return 0;
}
