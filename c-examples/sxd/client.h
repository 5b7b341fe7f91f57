/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The client side: HTTP calls to other nodes through one libcurl multi handle.
 *
 * A call never blocks and always ends: with an answer, or with the reason why there is none, at
 * the latest when its deadline is over. */
#ifndef SXD_CLIENT_H
#define SXD_CLIENT_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;

struct call {
    const char *method;  /* "GET" or "PUT" */
    const char *address; /* "A.B.C.D:PORT" */
    const char *path;    /* percent-encoded */
    const char *const *headers; /* "Name: value", NULL-terminated; or NULL */
    const void *body;
    size_t len;
    long deadline_ms;
};

struct answer {
    long status;       /* HTTP's, or 0: there was no answer */
    const char *error; /* why there was none */
    bool broken;       /* there was none, as no connection could be made, or it ended */
    const char *data;  /* NUL-terminated, never NULL; gone when the callback returns */
    size_t len;
};

/* Why the call was no success: the reason of the transfer, or the ErrorMessage of the reply. */
void answer_error(const struct answer *a, char *out, size_t cap);

/* Called exactly once a call, from client_run() or client_free(). */
typedef void (*client_done)(void *arg, const struct answer *a);

struct client *client_new(void);
/* Ends the calls under way, and those that their callbacks start, as unanswered. */
void client_free(struct client *c);
/* All of CALL is copied. */
void client_start(struct client *c, const struct call *call, client_done done, void *arg);
/* Moves every call on as far as it can go without waiting. */
void client_run(struct client *c);
/* Waits until a call can move on, one of FDS is readable, or TIMEOUT_MS is over. */
void client_wait(struct client *c, struct curl_waitfd *fds, unsigned n, int timeout_ms);

#endif
