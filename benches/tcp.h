/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Messages over TCP as a daemon carries them: a connection to each peer for what is sent there, one
 * from each for what comes, all of them without delay and without blocking. A message is its length
 * in four bytes and itself. What cannot be sent is dropped; a connection that breaks is made again.
 */
#ifndef TCP_H
#define TCP_H

#include <stddef.h>
#include <stdint.h>

#define TCP_PEERS_MAX 3u

/* One direction of one connection. */
struct tcp_link {
    int fd; /* -1 = none */
    int up; /* connected */
    uint64_t retry_ns;
    unsigned char *buf; /* from `at` on what is to be sent, or is yet to be taken apart */
    size_t at, end, room;
};

struct tcp {
    int epoll, listener;
    size_t self, n; /* the own number from 0; of how many */
    uint16_t ports[TCP_PEERS_MAX];
    struct tcp_link out[TCP_PEERS_MAX], in[TCP_PEERS_MAX];
    void (*receive)(void *arg, const void *msg, size_t len);
    /* The connection to this peer has ended, and all that came from there was received; or NULL. */
    void (*lost)(void *arg, size_t peer);
    void *arg;
};

/* Of an event of `epoll`: its data.u32 is one of the links' if it is not less. */
#define TCP_EVENTS 16u

/* Listens, and connects to all others. */
void tcp_open(struct tcp *t);
void tcp_event(struct tcp *t, uint32_t data);
/* Puts a message behind those for this peer that have not left yet. */
void tcp_send(struct tcp *t, size_t to, const void *msg, size_t len);
/* Writes what is to be sent, to each peer as much as it takes at once. */
void tcp_flush(struct tcp *t);
/* When tcp_flush() is to be called though there is nothing to be sent, in ms; -1 = never. */
int tcp_timeout_ms(const struct tcp *t);

#endif
