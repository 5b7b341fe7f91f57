/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A plugin of nbdkit: a disk in memory whose flushes take their time, also several at once.
 *   nbdkit slow_disk.so size=BYTES delay=FILE
 * FILE holds how long each takes besides, in microseconds; it is read again for every one. */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static char *disk;
static int64_t size;
static int delay_fd = -1;

static int slow_config(const char *key, const char *value)
{
    if (!strcmp(key, "size"))
        return (size = nbdkit_parse_size(value)) < 0 ? -1 : 0;
    if (strcmp(key, "delay") != 0) {
        nbdkit_error("unknown parameter %s", key);
        return -1;
    }
    delay_fd = open(value, O_RDONLY | O_CLOEXEC);
    if (delay_fd < 0)
        nbdkit_error("%s: %m", value);
    return delay_fd < 0 ? -1 : 0;
}

static int slow_config_complete(void)
{
    if (size <= 0 || delay_fd < 0) {
        nbdkit_error("size and delay are needed");
        return -1;
    }
    disk = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (disk == MAP_FAILED)
        nbdkit_error("mmap: %m");
    return disk == MAP_FAILED ? -1 : 0;
}

static void *slow_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t slow_get_size(void *handle)
{
    (void)handle;
    return size;
}

static int slow_can_multi_conn(void *handle)
{
    (void)handle;
    return 1;
}

static int slow_pread(void *handle, void *data, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle, (void)flags;
    memcpy(data, disk + offset, count);
    return 0;
}

static int slow_pwrite(void *handle, const void *data, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle, (void)flags;
    memcpy(disk + offset, data, count);
    return 0;
}

static int slow_flush(void *handle, uint32_t flags)
{
    char text[32] = "";
    (void)handle, (void)flags;
    if (pread(delay_fd, text, sizeof text - 1, 0) < 0) {
        nbdkit_error("delay: %m");
        return -1;
    }
    long us = strtol(text, NULL, 10);
    struct timespec delay = {us / 1000000, us % 1000000 * 1000};
    while (us > 0 && nanosleep(&delay, &delay) < 0 && errno == EINTR) {
        /* What is left of it. */
    }
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "slow-disk",
    .longname = "disk with slow flushes",
    .config = slow_config,
    .config_complete = slow_config_complete,
    .config_help = "size=BYTES delay=FILE",
    .open = slow_open,
    .get_size = slow_get_size,
    .can_multi_conn = slow_can_multi_conn,
    .pread = slow_pread,
    .pwrite = slow_pwrite,
    .flush = slow_flush,
};

NBDKIT_REGISTER_PLUGIN(plugin)
