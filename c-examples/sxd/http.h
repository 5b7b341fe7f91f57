/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The server side: libmicrohttpd driven from sxd's one loop.
 *
 * A request is handed to the handler once, complete with its body. The handler answers at once or
 * later, with exactly one of the http_reply functions; until then the connection is suspended and
 * costs nothing. A request is gone as soon as it is answered. */
#ifndef SXD_HTTP_H
#define SXD_HTTP_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_BODY_MAX ((size_t)8 << 20)

struct http;
struct http_req;
typedef void (*http_handler)(void *ud, struct http_req *r);

/* Listens on "A.B.C.D:PORT". NULL, with a line in the log, if that is not possible. */
struct http *http_start(const char *address, http_handler handler, void *ud);
/* Readable => http_run(). */
int http_fd(const struct http *h);
/* Milliseconds until http_run() is needed without input; -1 = never. */
int http_timeout_ms(const struct http *h);
void http_run(struct http *h);
/* Answers what is still waiting, and what may come yet, with 503, and stops. */
void http_stop(struct http *h);

const char *http_method(const struct http_req *r);
/* As the client wrote it: percent-encoded. Without the query. */
const char *http_path(const struct http_req *r);
/* NULL if there is none. */
const char *http_header(const struct http_req *r, const char *name);
/* NUL-terminated, never NULL. */
const char *http_body(const struct http_req *r, size_t *len);

/* For how long the request, as far as it has come, has lain in the kernel unread: this process, or the
 * whole machine, may have been stopped. */
uint64_t http_age_ms(const struct http_req *r);

/* DATA is copied. */
void http_reply(struct http_req *r, unsigned status, const char *type, const void *data, size_t len);
/* Takes JSON. */
void http_reply_json(struct http_req *r, unsigned status, cJSON *json);
/* {"ErrorMessage": "..."}, the shape that SX's clients know. */
void http_reply_error(struct http_req *r, unsigned status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
