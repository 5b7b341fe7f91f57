/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "sample.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "base.h"

/* The sum over all mappings, because VmRSS lags behind by up to 63 pages a core. */
long sample_rss(pid_t pid)
{
    char path[64], line[256];
    long kb = -1;

    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        die(path);
    while (kb < 0 && fgets(line, sizeof line, f))
        if (sscanf(line, "Rss: %ld kB", &kb) != 1)
            kb = -1;
    fclose(f);
    if (kb < 0)
        die(path);
    return kb;
}

/* The process's own clock counts nanoseconds; /proc/PID/stat only ticks, and a whole measurement
 * of an idle process is a handful of them. */
uint64_t sample_cpu(pid_t pid)
{
    clockid_t clock;
    struct timespec t;

    errno = clock_getcpuclockid(pid, &clock);
    if (errno != 0 || clock_gettime(clock, &t) != 0)
        die("the CPU clock of a node");
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t sample_written(pid_t pid)
{
    char path[64], line[256];
    unsigned long long bytes;
    bool found = false;

    snprintf(path, sizeof path, "/proc/%d/io", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && !found && fgets(line, sizeof line, f))
        found = sscanf(line, "write_bytes: %llu", &bytes) == 1;
    if (!found)
        die(path);
    fclose(f);
    return bytes;
}

int64_t sample_device_written(const char *path)
{
    struct stat s;
    char name[64];
    unsigned long long sectors;

    if (stat(path, &s) < 0)
        die(path);
    snprintf(name, sizeof name, "/sys/dev/block/%u:%u/stat", major(s.st_dev), minor(s.st_dev));
    FILE *f = fopen(name, "r");
    if (!f)
        return -1;
    /* Reads: requests, merged, sectors, ms; writes: requests, merged, sectors. */
    int found = fscanf(f, "%*u %*u %*u %*u %*u %*u %llu", &sectors);
    fclose(f);
    return found == 1 ? (int64_t)sectors * 512 : -1;
}

struct sample sample_take(pid_t pid)
{
    struct sample s;
    s.rss_kb = sample_rss(pid);
    s.cpu_ns = sample_cpu(pid);
    s.at_ns = now_ns();
    return s;
}

double sample_cpu_percent(const struct sample *from, const struct sample *to)
{
    return 100.0 * (double)(to->cpu_ns - from->cpu_ns) / (double)(to->at_ns - from->at_ns);
}
