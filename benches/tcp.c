/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base.h"

#define LENGTH 4
#define PENDING_MAX ((size_t)64 << 20)
#define READ_ROOM ((size_t)256 << 10)
#define MESSAGE_MAX ((size_t)17 << 20)
#define RETRY_MS 50

enum { LISTENER = TCP_EVENTS, OUT, IN = OUT + TCP_PEERS_MAX };

static void watch(struct tcp *t, int op, int fd, uint32_t events, uint32_t data)
{
    struct epoll_event event = {.events = events, .data.u32 = data};
    if (epoll_ctl(t->epoll, op, fd, &event) < 0)
        die("epoll_ctl");
}

static struct sockaddr_in address(const struct tcp *t, size_t i)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(t->ports[i])};
}

static void no_delay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* Room for `len` bytes behind what is there. */
static void reserve(struct tcp_link *l, size_t len)
{
    if (l->at == l->end)
        l->at = l->end = 0;
    if (l->end + len <= l->room)
        return;
    memmove(l->buf, l->buf + l->at, l->end - l->at);
    l->end -= l->at;
    l->at = 0;
    if (l->end + len <= l->room)
        return;
    l->room = 2 * (l->end + len);
    l->buf = realloc(l->buf, l->room);
    if (!l->buf)
        die("realloc");
}

static void drop(struct tcp_link *l)
{
    close(l->fd);
    l->fd = -1;
    l->up = 0;
    l->at = l->end = 0;
    l->retry_ns = now_ns() + RETRY_MS * UINT64_C(1000000);
}

static void connect_to(struct tcp *t, size_t i)
{
    struct tcp_link *l = &t->out[i];
    struct sockaddr_in a = address(t, i);
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0)
        die("socket");
    no_delay(l->fd);
    if (connect(l->fd, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS) {
        drop(l);
        return;
    }
    watch(t, EPOLL_CTL_ADD, l->fd, EPOLLOUT, OUT + (uint32_t)i);
}

void tcp_open(struct tcp *t)
{
    struct sockaddr_in a = address(t, t->self);
    int one = 1;
    t->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (t->listener < 0 || setsockopt(t->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(t->listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(t->listener, 16) < 0)
        die("listen");
    watch(t, EPOLL_CTL_ADD, t->listener, EPOLLIN, LISTENER);
    for (size_t i = 0; i < t->n; i++) {
        t->out[i].fd = t->in[i].fd = -1;
        if (i != t->self)
            connect_to(t, i);
    }
}

static void accept_one(struct tcp *t)
{
    int fd = accept4(t->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    for (size_t i = 0; i < t->n; i++)
        if (t->in[i].fd < 0) {
            no_delay(fd);
            t->in[i].fd = fd;
            watch(t, EPOLL_CTL_ADD, fd, EPOLLIN, IN + (uint32_t)i);
            return;
        }
    close(fd);
}

/* Hands out every message that is there as a whole; false if it is none. */
static int take_apart(struct tcp *t, struct tcp_link *l)
{
    uint32_t len;
    while (l->end - l->at >= LENGTH) {
        memcpy(&len, l->buf + l->at, LENGTH);
        if (len > MESSAGE_MAX)
            return 0;
        if (l->end - l->at < LENGTH + len) {
            reserve(l, LENGTH + len);
            break;
        }
        t->receive(t->arg, l->buf + l->at + LENGTH, len);
        l->at += LENGTH + len;
    }
    return 1;
}

static void read_from(struct tcp *t, struct tcp_link *l)
{
    for (;;) {
        reserve(l, READ_ROOM);
        size_t room = l->room - l->end;
        ssize_t got = recv(l->fd, l->buf + l->end, room, 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got > 0)
            l->end += (size_t)got;
        if (got <= 0 || !take_apart(t, l)) {
            drop(l);
            return;
        }
        if ((size_t)got < room)
            return;
    }
}

static void write_to(struct tcp *t, size_t i)
{
    struct tcp_link *l = &t->out[i];
    while (l->at < l->end) {
        ssize_t sent = send(l->fd, l->buf + l->at, l->end - l->at, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            watch(t, EPOLL_CTL_MOD, l->fd, EPOLLOUT, OUT + (uint32_t)i);
            l->up = 2;
            return;
        }
        if (sent < 0) {
            drop(l);
            return;
        }
        l->at += (size_t)sent;
    }
}

/* What it has sent before it ended comes first. */
static void lose(struct tcp *t, size_t i)
{
    drop(&t->out[i]);
    for (size_t j = 0; j < t->n; j++)
        if (t->in[j].fd >= 0)
            read_from(t, &t->in[j]);
    if (t->lost)
        t->lost(t->arg, i);
}

void tcp_event(struct tcp *t, uint32_t data)
{
    if (data == LISTENER) {
        accept_one(t);
    } else if (data >= IN) {
        if (t->in[data - IN].fd >= 0)
            read_from(t, &t->in[data - IN]);
    } else if (t->out[data - OUT].fd >= 0) {
        struct tcp_link *l = &t->out[data - OUT];
        int error = 0;
        socklen_t len = sizeof error;
        if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error != 0 || l->up == 1) {
            /* Only its end is news of a connection that waits for nothing. */
            lose(t, data - OUT);
            return;
        }
        watch(t, EPOLL_CTL_MOD, l->fd, EPOLLRDHUP, data);
        l->up = 1;
        write_to(t, data - OUT);
    }
}

void tcp_send(struct tcp *t, size_t to, const void *msg, size_t len)
{
    struct tcp_link *l = &t->out[to];
    uint32_t length = (uint32_t)len;
    struct iovec parts[] = {{&length, LENGTH}, {(void *)(uintptr_t)msg, len}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = 2};
    size_t sent = 0;
    if (!l->up || l->end - l->at + len > PENDING_MAX)
        return;
    if (l->up == 1 && l->at == l->end) {
        ssize_t n = sendmsg(l->fd, &header, MSG_NOSIGNAL);
        /* What is wrong with the connection is found by who writes next. */
        sent = n < 0 ? 0 : (size_t)n;
    }
    if (sent == LENGTH + len)
        return;
    reserve(l, LENGTH + len);
    memcpy(l->buf + l->end, &length, LENGTH);
    memcpy(l->buf + l->end + LENGTH, msg, len);
    l->end += LENGTH + len;
    l->at += sent;
}

void tcp_flush(struct tcp *t)
{
    for (size_t i = 0; i < t->n; i++) {
        struct tcp_link *l = &t->out[i];
        if (i != t->self && l->fd < 0 && now_ns() >= l->retry_ns)
            connect_to(t, i);
        else if (l->up == 1 && l->at < l->end)
            write_to(t, i);
    }
}

int tcp_timeout_ms(const struct tcp *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (i != t->self && t->out[i].fd < 0)
            return RETRY_MS;
    return -1;
}
