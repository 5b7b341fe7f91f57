/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "http.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "util.h"

#define CONNECTIONS_MAX 512u
#define IDLE_SECONDS 60u

struct http {
    struct MHD_Daemon *daemon;
    http_handler handler;
    void *ud;
    struct http_req *waiting; /* handed to the handler and not answered yet */
};

struct http_req {
    struct http *http;
    struct http_req *prev, *next; /* in http->waiting */
    struct MHD_Connection *connection;
    char *method, *path;
    struct buf body;
    bool too_big, handed, suspended;
    struct MHD_Response *response;
    unsigned status;
};

static void unlink_waiting(struct http_req *r)
{
    if (r->prev)
        r->prev->next = r->next;
    else if (r->http->waiting == r)
        r->http->waiting = r->next;
    if (r->next)
        r->next->prev = r->prev;
    r->prev = r->next = NULL;
}

static void link_waiting(struct http_req *r)
{
    r->next = r->http->waiting;
    if (r->next)
        r->next->prev = r;
    r->http->waiting = r;
}

static void hand_over(struct http_req *r)
{
    r->handed = true;
    link_waiting(r);
    if (r->too_big)
        http_reply_error(r, MHD_HTTP_CONTENT_TOO_LARGE, "The body is larger than %zu bytes", HTTP_BODY_MAX);
    else
        r->http->handler(r->http->ud, r);
}

static enum MHD_Result on_request(void *ud, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_len, void **con_cls)
{
    struct http_req *r = *con_cls;
    (void)version;

    if (!r) {
        r = xcalloc(1, sizeof *r);
        r->http = ud;
        r->connection = c;
        r->method = xstrdup(method);
        r->path = xstrdup(url);
        *con_cls = r;
        return MHD_YES;
    }
    if (*upload_len) {
        if (!r->too_big && !buf_add(&r->body, upload, *upload_len, HTTP_BODY_MAX)) {
            r->too_big = true;
            buf_free(&r->body);
        }
        *upload_len = 0;
        return MHD_YES;
    }
    if (!r->handed)
        hand_over(r);
    if (r->response)
        return MHD_queue_response(c, r->status, r->response);
    r->suspended = true;
    MHD_suspend_connection(c);
    return MHD_YES;
}

static void on_completed(void *ud, struct MHD_Connection *c, void **con_cls, enum MHD_RequestTerminationCode code)
{
    struct http_req *r = *con_cls;
    (void)ud, (void)c, (void)code;

    if (!r)
        return;
    /* The handler holds a pointer to a request until it answers, and a suspended connection does
     * not end: so an unanswered request cannot come by here. */
    if (r->handed && !r->response)
        die("http: a connection ended before its request was answered");
    if (r->response)
        MHD_destroy_response(r->response);
    buf_free(&r->body);
    free(r->method);
    free(r->path);
    free(r);
    *con_cls = NULL;
}

/* Names of objects may contain any byte; only the router knows where decoding is right. */
static size_t keep_escaped(void *ud, struct MHD_Connection *c, char *s)
{
    (void)ud, (void)c;
    return strlen(s);
}

static bool parse_address(const char *address, struct sockaddr_in *sin)
{
    char host[INET_ADDRSTRLEN];
    const char *colon = strrchr(address, ':');
    uint64_t port;

    if (!colon || (size_t)(colon - address) >= sizeof host || !parse_u64(colon + 1, 1, UINT16_MAX, &port))
        return false;
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = '\0';
    *sin = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    return inet_pton(AF_INET, host, &sin->sin_addr) == 1;
}

struct http *http_start(const char *address, http_handler handler, void *ud)
{
    struct sockaddr_in sin;
    if (!parse_address(address, &sin)) {
        say("--listen %s: not an IPv4 address and port", address);
        return NULL;
    }
    struct http *h = xcalloc(1, sizeof *h);
    h->handler = handler;
    h->ud = ud;
    h->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, h,
                                 MHD_OPTION_SOCK_ADDR, &sin,
                                 MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
                                 MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS,
                                 MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                                 MHD_OPTION_UNESCAPE_CALLBACK, keep_escaped, NULL, MHD_OPTION_END);
    if (!h->daemon) {
        say("cannot listen on %s", address);
        free(h);
        return NULL;
    }
    return h;
}

int http_fd(const struct http *h)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        die("http: libmicrohttpd was built without epoll");
    return info->epoll_fd;
}

int http_timeout_ms(const struct http *h)
{
    MHD_UNSIGNED_LONG_LONG ms;
    if (MHD_get_timeout(h->daemon, &ms) != MHD_YES)
        return -1;
    return ms > 60000 ? 60000 : (int)ms;
}

void http_run(struct http *h)
{
    MHD_run(h->daemon);
}

static void refuse(void *ud, struct http_req *r)
{
    (void)ud;
    http_reply_error(r, MHD_HTTP_SERVICE_UNAVAILABLE, "This node is stopping");
}

void http_stop(struct http *h)
{
    /* The run below sends the last answers, and may find new requests as well. */
    h->handler = refuse;
    while (h->waiting)
        refuse(NULL, h->waiting);
    MHD_run(h->daemon);
    MHD_stop_daemon(h->daemon);
    free(h);
}

const char *http_method(const struct http_req *r)
{
    return r->method;
}

const char *http_path(const struct http_req *r)
{
    return r->path;
}

const char *http_header(const struct http_req *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

const char *http_body(const struct http_req *r, size_t *len)
{
    *len = r->body.len;
    return r->body.data ? r->body.data : "";
}

uint64_t http_age_ms(const struct http_req *r)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct tcp_info tcp = {0};
    socklen_t len = sizeof tcp;

    /* A time of accept() would not do: connections wait in the kernel as well. */
    if (!info || getsockopt(info->connect_fd, IPPROTO_TCP, TCP_INFO, &tcp, &len))
        die("http: the kernel does not say how old a request is");
    return tcp.tcpi_last_data_recv;
}

void http_reply(struct http_req *r, unsigned status, const char *type, const void *data, size_t len)
{
    if (r->response)
        die("http: a request was answered twice");
    void *copy = xcalloc(len, 1);
    if (len)
        memcpy(copy, data, len);
    r->response = MHD_create_response_from_buffer(len, copy, MHD_RESPMEM_MUST_FREE);
    if (!r->response)
        die("out of memory");
    if (MHD_add_response_header(r->response, MHD_HTTP_HEADER_CONTENT_TYPE, type) != MHD_YES)
        die("out of memory");
    r->status = status;
    unlink_waiting(r);
    if (r->suspended)
        MHD_resume_connection(r->connection);
}

void http_reply_json(struct http_req *r, unsigned status, cJSON *json)
{
    char *text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    if (!text)
        die("out of memory");
    http_reply(r, status, "application/json", text, strlen(text));
    cJSON_free(text);
}

void http_reply_error(struct http_req *r, unsigned status, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cJSON *json = cJSON_CreateObject();
    if (!json || !cJSON_AddStringToObject(json, "ErrorMessage", text))
        die("out of memory");
    http_reply_json(r, status, json);
}
