/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "client.h"

#include <stdio.h>
#include <stdlib.h>

#include "http.h"
#include "util.h"

#define CONNECT_MS 1000L
/* An answer may be an object with its header line, or a full batch of messages. */
#define ANSWER_MAX (HTTP_BODY_MAX + 4096)

struct client {
    CURLM *multi;
    struct running *running;
};

struct running {
    struct running *prev, *next;
    CURL *easy;
    struct curl_slist *headers;
    struct buf answer;
    client_done done;
    void *arg;
};

struct client *client_new(void)
{
    struct client *c = xcalloc(1, sizeof *c);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(c->multi = curl_multi_init()))
        die("libcurl does not start");
    return c;
}

static void release(struct client *c, struct running *r)
{
    if (r->prev)
        r->prev->next = r->next;
    else
        c->running = r->next;
    if (r->next)
        r->next->prev = r->prev;
    curl_multi_remove_handle(c->multi, r->easy);
    curl_easy_cleanup(r->easy);
    curl_slist_free_all(r->headers);
    buf_free(&r->answer);
    free(r);
}

void client_free(struct client *c)
{
    const struct answer stopping = {.error = "this node is stopping", .data = ""};

    for (struct running *r; (r = c->running);) {
        r->done(r->arg, &stopping);
        release(c, r);
    }
    curl_multi_cleanup(c->multi);
    curl_global_cleanup();
    free(c);
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
    struct running *r = arg;
    /* Any other number than the one given makes libcurl end the transfer. */
    return buf_add(&r->answer, data, size * n, ANSWER_MAX) ? size * n : 0;
}

static void add_header(struct running *r, const char *line)
{
    struct curl_slist *list = curl_slist_append(r->headers, line);
    if (!list)
        die("out of memory");
    r->headers = list;
}

/* A program error or lack of memory: every option used here exists since long. */
#define SET(easy, option, value)                                        \
    do {                                                                \
        if (curl_easy_setopt(easy, option, value) != CURLE_OK)          \
            die("libcurl refuses " #option);                            \
    } while (0)

static void set_options(struct running *r, const struct call *call)
{
    char url[1024];
    int n = snprintf(url, sizeof url, "http://%s%s", call->address, call->path);
    if (n < 0 || (size_t)n >= sizeof url)
        die("client: address and path are too long");

    SET(r->easy, CURLOPT_URL, url);
    SET(r->easy, CURLOPT_CUSTOMREQUEST, call->method);
    if (call->body) {
        SET(r->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->len);
        SET(r->easy, CURLOPT_COPYPOSTFIELDS, call->body);
        add_header(r, "Content-Type: application/octet-stream");
        /* Without this libcurl waits for a "100 Continue" before it sends a large body. */
        add_header(r, "Expect:");
    }
    for (size_t i = 0; call->headers && call->headers[i]; i++)
        add_header(r, call->headers[i]);
    SET(r->easy, CURLOPT_HTTPHEADER, r->headers);
    SET(r->easy, CURLOPT_WRITEFUNCTION, on_data);
    SET(r->easy, CURLOPT_WRITEDATA, r);
    SET(r->easy, CURLOPT_PRIVATE, r);
    SET(r->easy, CURLOPT_TIMEOUT_MS, call->deadline_ms);
    SET(r->easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    SET(r->easy, CURLOPT_NOSIGNAL, 1L);
    /* A proxy from the environment has no place between nodes. */
    SET(r->easy, CURLOPT_PROXY, "");
}

void client_start(struct client *c, const struct call *call, client_done done, void *arg)
{
    struct running *r = xcalloc(1, sizeof *r);
    r->easy = curl_easy_init();
    if (!r->easy)
        die("out of memory");
    r->done = done;
    r->arg = arg;
    set_options(r, call);
    r->next = c->running;
    if (r->next)
        r->next->prev = r;
    c->running = r;
    if (curl_multi_add_handle(c->multi, r->easy) != CURLM_OK)
        die("libcurl takes no more calls");
}

static void finish(struct client *c, CURL *easy, CURLcode result)
{
    struct running *r;
    struct answer a = {0};

    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &r);
    if (result == CURLE_OK)
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &a.status);
    a.error = a.status ? NULL : curl_easy_strerror(result);
    a.broken = result == CURLE_COULDNT_CONNECT || result == CURLE_SEND_ERROR || result == CURLE_RECV_ERROR ||
               result == CURLE_GOT_NOTHING;
    a.data = r->answer.data ? r->answer.data : "";
    a.len = r->answer.len;
    r->done(r->arg, &a);
    release(c, r);
}

void client_run(struct client *c)
{
    int running, left;
    CURLMsg *m;

    curl_multi_perform(c->multi, &running);
    while ((m = curl_multi_info_read(c->multi, &left)))
        if (m->msg == CURLMSG_DONE)
            finish(c, m->easy_handle, m->data.result);
}

void answer_error(const struct answer *a, char *out, size_t cap)
{
    cJSON *json = cJSON_ParseWithLength(a->data, a->len);
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(json, "ErrorMessage");

    if (!a->status)
        snprintf(out, cap, "%s", a->error);
    else if (cJSON_IsString(message))
        snprintf(out, cap, "%s", message->valuestring);
    else
        snprintf(out, cap, "HTTP status %ld", a->status);
    cJSON_Delete(json);
}

void client_wait(struct client *c, struct curl_waitfd *fds, unsigned n, int timeout_ms)
{
    curl_multi_poll(c->multi, fds, n, timeout_ms, NULL);
}
