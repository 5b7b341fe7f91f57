/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Behind keel_fd() a thread writes: completions come through the descriptor, in order, and what was
 * accepted is there again after a restart. Runs in an empty directory. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define ENTRIES 2000

static keel *k;
static unsigned completed, applied;
static atomic_int signalled, elsewhere;
static pthread_t driver;

static int on_apply(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    unsigned number;

    (void)ud, (void)index, (void)term;
    CHECK(len == sizeof number);
    memcpy(&number, data, len);
    CHECK(number == applied);
    CHECK(pthread_equal(pthread_self(), driver));
    applied++;
    return 0;
}

static void on_send(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud, (void)to, (void)msg, (void)len;
}

static void on_done(void *arg, int status, uint64_t index)
{
    CHECK(status == KEEL_OK && index > 0);
    CHECK(*(unsigned *)arg == completed);
    completed++;
}

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&signalled, 1);
    /* The library's threads are not to be given a signal. */
    if (!pthread_equal(pthread_self(), driver))
        atomic_fetch_add(&elsewhere, 1);
}

static void open_node(int create)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;

    config.id = 1;
    config.cluster = 77;
    config.dir = "writer";
    config.flags = create ? KEEL_NEW_NODE : 0;
    callbacks.apply = on_apply;
    callbacks.send = on_send;
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_OK);
}

/* Only the descriptor says when to drive. */
static void drive_until(int fd, const unsigned *count, unsigned least)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    while (*count < least || keel_role(k) != KEEL_ROLE_LEADER) {
        int n = poll(&ready, 1, 30000);

        if (n < 0)
            continue; /* a signal */
        CHECK(n == 1);
        /* Who asks instead is told the same, be it that the system has ended a write. */
        CHECK(keel_timeout_ms(k) == 0);
        CHECK_CODE(keel_dispatch(k), KEEL_OK);
    }
}

static void in_a_child(void)
{
    int ended;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        CHECK_CODE(keel_dispatch(k), KEEL_ERR_FORKED);
        CHECK_CODE(keel_free(k), KEEL_OK);
        /* Not _exit(): what the thread had on its stack is lost here, and no leak. */
        execl("/bin/true", "true", (char *)NULL);
        _exit(1);
    }
    CHECK(waitpid(child, &ended, 0) == child);
    CHECK(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
}

int main(void)
{
    static unsigned numbers[ENTRIES];
    struct sigaction action;
    keel_peer peer = KEEL_PEER_INIT;
    int fd;

    driver = pthread_self();
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    peer.id = 1;
    open_node(1);
    fd = keel_fd(k);
    CHECK(fd >= 0);
    /* The thread is there already: its word is waited for. */
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_OK);
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_ERR_EXISTS);
    drive_until(fd, &completed, 0);
    for (unsigned i = 0; i < ENTRIES; i++) {
        numbers[i] = i;
        CHECK_CODE(keel_propose(k, &numbers[i], sizeof i, on_done, &numbers[i]), KEEL_OK);
        if (i % 16 == 15)
            drive_until(fd, &completed, i - 8);
        if (i % 100 == 0)
            CHECK(kill(getpid(), SIGUSR1) == 0);
        if (i % 500 == 7)
            in_a_child();
    }
    drive_until(fd, &completed, ENTRIES);
    CHECK(applied == ENTRIES);
    CHECK(atomic_load(&signalled) > 0 && atomic_load(&elsewhere) == 0);
    CHECK_CODE(keel_free(k), KEEL_OK);
    applied = 0;
    open_node(0);
    fd = keel_fd(k);
    CHECK(fd >= 0);
    drive_until(fd, &applied, ENTRIES);
    CHECK_CODE(keel_free(k), KEEL_OK);
    return 0;
}
