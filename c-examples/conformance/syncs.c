/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A program's own functions come before those of its libraries. */
#define _DEFAULT_SOURCE
#include "syncs.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned long begun, done; /* done: the number of the latest that has succeeded */
static unsigned delay_ms, failing;

static int sync_by(long call, int fd)
{
    struct timespec delay = {0, 0};
    unsigned long number;
    int fail, rc;

    pthread_mutex_lock(&mutex);
    number = ++begun;
    fail = failing > 0;
    failing -= (unsigned)fail;
    delay.tv_nsec = (long)delay_ms * 1000000;
    pthread_mutex_unlock(&mutex);
    nanosleep(&delay, NULL);
    if (fail)
        errno = EIO;
    rc = fail ? -1 : (int)syscall(call, fd);
    pthread_mutex_lock(&mutex);
    if (rc == 0 && done < number)
        done = number;
    pthread_mutex_unlock(&mutex);
    return rc;
}

int fsync(int fd)
{
    return sync_by(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return sync_by(SYS_fdatasync, fd);
}

void syncs_delay(unsigned ms)
{
    pthread_mutex_lock(&mutex);
    delay_ms = ms;
    pthread_mutex_unlock(&mutex);
}

void syncs_fail(unsigned calls)
{
    pthread_mutex_lock(&mutex);
    failing = calls;
    pthread_mutex_unlock(&mutex);
}

unsigned long syncs_begun(void)
{
    unsigned long now;

    pthread_mutex_lock(&mutex);
    now = begun;
    pthread_mutex_unlock(&mutex);
    return now;
}

int synced_since(unsigned long before)
{
    int since;

    pthread_mutex_lock(&mutex);
    since = done > before;
    pthread_mutex_unlock(&mutex);
    return since;
}
