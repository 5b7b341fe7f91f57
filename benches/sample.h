/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a running process has used, measured from outside so that it is not disturbed. */
#ifndef SAMPLE_H
#define SAMPLE_H

#include <stdint.h>
#include <sys/types.h>

struct sample {
    uint64_t at_ns;  /* when it was taken: CLOCK_MONOTONIC */
    uint64_t cpu_ns; /* user and system time of all threads since the process began */
    long rss_kb;     /* resident memory, shared pages included */
};

/* Each of these exits if the process is gone. */
uint64_t sample_cpu(pid_t pid);     /* as cpu_ns */
long sample_rss(pid_t pid);         /* as rss_kb */
uint64_t sample_written(pid_t pid); /* bytes that it has had written to disks: write_bytes of /proc/PID/io */
struct sample sample_take(pid_t pid);
/* Bytes written to the block device that a path is on, by everybody, what the file system writes of itself
 * included; -1 if there is none. Unlike write_bytes it does not count what lies beside the bytes that were
 * changed in a large page of the cache. */
int64_t sample_device_written(const char *path);
/* Percent of one core that was used between two samples. */
double sample_cpu_percent(const struct sample *from, const struct sample *to);

#endif
