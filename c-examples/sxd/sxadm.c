/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* sxadm: the administrator's command for sxd, and a client for its objects.
 *
 * Everything is asked of the one node that the administrator names: its view has all nodes in it, so
 * a node that hangs delays nothing. */
#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

enum { OK = 0, WARN = 1, NO_QUORUM = 2, NOT_DONE = 3, CANNOT_ASK = 4, USAGE = 64 };

#define VIEW_MS 2500L
/* Longer than sxd takes at most to answer a change or a write. */
#define CHANGE_MS 15000L
#define ANSWER_MAX ((size_t)64 << 20)

static int usage(void)
{
    fputs("usage: sxadm cluster -I URL                          show the cluster as the node at URL sees it\n"
          "       sxadm cluster --json URL                      the same, as JSON\n"
          "       sxadm cluster --get-param URL                 show the settings\n"
          "       sxadm cluster --set-param KEY=SECONDS ... URL change settings on all nodes\n"
          "         KEY: hb_keepalive, hb_warntime (0 = derived), hb_deadtime (0 = exclude nobody),\n"
          "         hb_initdead (0 = derived)\n"
          "       sxadm cluster --set-faulty ID URL             exclude a node\n"
          "       sxadm cluster --readmit ID URL                take an excluded node back as it is\n"
          "       sxadm cluster --replace-faulty OLD=NEW/HOST:PORT [--force] URL\n"
          "         put a new node in its place; --force: also if it does not answer at HOST:PORT\n"
          "       sxadm put NAME FILE URL                       store an object; - is standard input\n"
          "       sxadm get NAME FILE URL                       read an object; - is standard output\n"
          "URL is http://HOST:PORT of any node. Exit status: 0 all is well, or done; 1 a node is not\n"
          "well; 2 no quorum; 3 refused or not confirmed; 4 the node at URL could not be asked.\n",
          stderr);
    return USAGE;
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
    return buf_add(arg, data, size * n, ANSWER_MAX) ? size * n : 0;
}

/* Instead of HTTP's status: the request was not sent; it was, and nothing is known about it. */
enum { NOT_SENT = 0, NOT_ANSWERED = -1 };

/* What became of a request without an answer, with a line on standard error. A change may have been
 * made, or be made yet. */
static long no_answer(CURL *c, CURLcode rc, bool changes, const char *base)
{
    long sent = 0;

    curl_easy_getinfo(c, CURLINFO_REQUEST_SIZE, &sent);
    if (sent > 0 && changes) {
        fprintf(stderr, "ERROR: Not confirmed: %s: %s; it may still take effect\n", base, curl_easy_strerror(rc));
        return NOT_ANSWERED;
    }
    fprintf(stderr, "sxadm: cannot ask %s: %s\n", base, curl_easy_strerror(rc));
    return NOT_SENT;
}

/* HTTP's status, or one of the above. */
static long request(const char *method, const char *base, const char *path, const struct buf *body, long deadline_ms,
                    struct buf *answer)
{
    char url[1024];
    long status = 0;
    CURL *c = curl_easy_init();
    if (!c)
        die("libcurl does not start");
    size_t n = strlen(base);
    while (n && base[n - 1] == '/')
        n--;
    if (n >= sizeof url || (size_t)snprintf(url, sizeof url, "%.*s%s", (int)n, base, path) >= sizeof url)
        die("sxadm: the URL is too long");
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
    if (body) {
        curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->len);
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, body->data ? body->data : "");
    }
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, deadline_ms);
    curl_easy_setopt(c, CURLOPT_PROXY, "");
    CURLcode rc = curl_easy_perform(c);
    if (rc == CURLE_OK)
        curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    else
        status = no_answer(c, rc, body != NULL, base);
    curl_easy_cleanup(c);
    return status;
}

/* The exit status for a request that was no success; says why it was refused. */
static int refused(long status, const struct buf *answer)
{
    if (status <= 0)
        return status == NOT_SENT ? CANNOT_ASK : NOT_DONE;
    cJSON *json = cJSON_ParseWithLength(answer->data ? answer->data : "", answer->len);
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(json, "ErrorMessage");
    fprintf(stderr, "ERROR: %s (%ld)\n", cJSON_IsString(message) ? message->valuestring : "Refused", status);
    cJSON_Delete(json);
    return NOT_DONE;
}

static const char *text(const cJSON *o, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsString(item) ? item->valuestring : "";
}

static bool truth(const cJSON *o, const char *key)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o, key));
}

/* -1 if there is none. */
static double number(const cJSON *o, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(item) ? item->valuedouble : -1;
}

static bool is_excluded(const cJSON *v)
{
    return strcmp(text(v, "role"), "excluded") == 0;
}

/* As --set-param takes them. */
static void print_set(const cJSON *v)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(v, "settings"))
        printf("%s=%.0f\n", item->string, item->valuedouble);
}

static void print_in_force(const cJSON *v)
{
    const cJSON *set = cJSON_GetObjectItemCaseSensitive(v, "settings"), *item;
    const cJSON *in_force = cJSON_GetObjectItemCaseSensitive(v, "inForce");
    double deadtime = number(in_force, "hb_deadtime");

    if (is_excluded(v)) {
        /* What it knows is of the time before its exclusion. */
        printf("Automatic exclusion: not known to a node that is out\n");
        return;
    }
    if (deadtime > 0)
        printf("Automatic exclusion: after %g seconds, at least %.0f nodes remain; a node that is cut off stops serving "
               "after %g seconds\n",
               deadtime, number(in_force, "minNodes"), number(in_force, "fencetime"));
    else
        printf("Automatic exclusion: off (hb_deadtime 0)\n");
    printf("Settings: ");
    cJSON_ArrayForEach(item, set)
    {
        double value = number(in_force, item->string);
        printf("%s %g%s%s", item->string, value, value == item->valuedouble ? "" : " (derived)", item->next ? ", " : "\n");
    }
}

static void print_quorum(const cJSON *v)
{
    const cJSON *q = cJSON_GetObjectItemCaseSensitive(v, "quorum");
    double heard = number(q, "heard"), voters = number(q, "voters"), needed = number(q, "needed");

    if (is_excluded(v))
        printf("** NO ** (this node has no vote)\n");
    else if (voters <= 0)
        printf("not known to a node that is no member\n");
    else if (!truth(q, "has") && heard >= needed)
        printf("no leader yet (%.0f of %.0f voters heard)\n", heard, voters);
    else
        printf("%s (%.0f of %.0f voters heard, %.0f needed)\n", truth(q, "has") ? "yes" : "** NO **", heard, voters,
               needed);
}

static void print_head(const cJSON *v)
{
    printf("Cluster: %s, epoch: %.0f, term: %.0f, log index: %.0f, as seen by node %.0f (%s)\n", text(v, "cluster"),
           number(v, "epoch"), number(v, "term"), number(v, "applied"), number(v, "node"), text(v, "role"));
    if (number(v, "leader") > 0)
        printf("Leader: node %.0f", number(v, "leader"));
    else
        printf("Leader: <nobody>");
    printf(", quorum: ");
    print_quorum(v);
    print_in_force(v);
    if (!truth(v, "healed") && !is_excluded(v))
        printf("Healing: objects are being copied to their new owners\n");
    if (!truth(v, "serves"))
        printf("Refuses to serve: %s\n", text(v, "refusal"));
    if (text(v, "warning")[0])
        printf("Warning: %s\n", text(v, "warning"));
    if (is_excluded(v))
        printf("Nodes as of epoch %.0f, %s:\n", number(v, "epoch"),
               number(v, "epoch") < number(v, "outEpoch") ? "before its exclusion" : "the last that it was told of");
}

static void print_exclusion(const cJSON *n, bool faulty)
{
    double left = number(n, "excludesIn");
    const char *why = text(n, "blockedWhy");

    if (faulty && number(n, "epoch") > 0)
        printf(", excluded at epoch %.0f, index %.0f", number(n, "epoch"), number(n, "index"));
    if (faulty && number(n, "faultyFor") >= 0)
        printf(", %.0f seconds ago", number(n, "faultyFor"));
    if (faulty)
        return;
    if (left >= 0)
        printf(", excluded in %.0f s%s%s", left, why[0] ? ": " : "", why);
    else if (why[0])
        printf(", not excluded: %s", why);
    else if (!truth(n, "online") && number(n, "heardBy") > 0)
        printf(", heard by %.0f of %.0f others", number(n, "heardBy"), number(n, "witnesses"));
}

/* True if all is well with the node. */
static bool print_node(const cJSON *v, const cJSON *n)
{
    const char *status = text(n, "status");
    bool faulty = strcmp(status, "faulty") == 0, leads = strcmp(status, "leader") == 0;

    printf("  * node %.0f: addr: %s, status: %s, online: %s", number(n, "id"), text(n, "address"),
           faulty ? "** FAULTY **" : status, truth(n, "online") ? "yes" : "** NO **");
    if (!truth(n, "online") && number(n, "lastContact") >= 0)
        printf(" (last contact: %.0f seconds ago)", number(n, "lastContact"));
    else if (!truth(n, "online"))
        printf(" (never heard)");
    print_exclusion(n, faulty);
    if (truth(n, "lostState"))
        printf(", lost its data: %sreplace it under a new id", faulty ? "" : "exclude it (--set-faulty), then ");
    if (leads && text(v, "notice")[0])
        printf(", notice: %s", text(v, "notice"));
    printf("\n");
    return !faulty && truth(n, "online") && strcmp(status, "joining") != 0;
}

static int print_view(const cJSON *v)
{
    const cJSON *n;
    bool well = true, led = number(v, "leader") > 0;

    print_head(v);
    cJSON_ArrayForEach(n, cJSON_GetObjectItemCaseSensitive(v, "nodes"))
    {
        /* Gone for good; SX does not list them either. */
        if (strcmp(text(n, "status"), "replaced") != 0)
            well &= print_node(v, n);
    }
    if (!led && text(v, "notice")[0])
        printf("Notice: %s\n", text(v, "notice"));
    if (!truth(cJSON_GetObjectItemCaseSensitive(v, "quorum"), "has"))
        return NO_QUORUM;
    return well && led && !text(v, "notice")[0] && !text(v, "warning")[0] ? OK : WARN;
}

/* WHAT: -I, --json or --get-param. */
static int view(const char *what, const char *url)
{
    struct buf answer = {0};
    int rc = OK;
    long status = request("GET", url, "/.cluster", NULL, VIEW_MS, &answer);
    cJSON *json = status == 200 ? cJSON_ParseWithLength(answer.data ? answer.data : "", answer.len) : NULL;

    if (status != NOT_SENT && !json)
        fprintf(stderr, "sxadm: %s is no sxd\n", url);
    if (!json)
        rc = CANNOT_ASK;
    else if (!strcmp(what, "-I"))
        rc = print_view(json);
    else if (!strcmp(what, "--json"))
        puts(answer.data);
    else
        print_set(json);
    cJSON_Delete(json);
    buf_free(&answer);
    return rc;
}

/* Sends JSON, which it takes, and waits until the change is committed or refused. */
static int change(const char *url, const char *path, cJSON *json)
{
    struct buf body = {0}, answer = {0};
    char *printed = cJSON_PrintUnformatted(json);
    int rc = OK;

    if (!printed)
        die("out of memory");
    buf_add(&body, printed, strlen(printed), SIZE_MAX);
    cJSON_free(printed);
    cJSON_Delete(json);
    long status = request("PUT", url, path, &body, CHANGE_MS, &answer);
    cJSON *done = cJSON_ParseWithLength(answer.data ? answer.data : "", answer.len);
    if (status == 200)
        printf("Done: log index %.0f, epoch %.0f\n", number(done, "index"), number(done, "epoch"));
    else
        rc = refused(status, &answer);
    cJSON_Delete(done);
    buf_free(&body);
    buf_free(&answer);
    return rc;
}

/* "--set-param K=V --set-param K=V URL" or "--set-param K=V K=V URL" */
static int set_param(int n, char **args)
{
    cJSON *json = cJSON_CreateObject();

    for (int i = 0; i < n - 1; i++) {
        char *eq = strchr(args[i], '=');
        uint64_t value;
        if (!strcmp(args[i], "--set-param"))
            continue;
        if (!eq || !parse_u64(eq + 1, 0, UINT32_MAX, &value)) {
            fprintf(stderr, "sxadm: %s is not KEY=SECONDS\n", args[i]);
            cJSON_Delete(json);
            return USAGE;
        }
        *eq = '\0';
        cJSON_AddNumberToObject(json, args[i], (double)value);
    }
    return change(args[n - 1], "/.clusterSettings", json);
}

/* PATH: "/.setfaulty" or "/.readmit". */
static int change_node(const char *path, const char *id, const char *url)
{
    uint64_t node;
    if (!parse_u64(id, 1, UINT64_MAX, &node))
        return usage();
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "node", (double)node);
    return change(url, path, json);
}

/* A node under a wrong address would be a member that nobody hears, and be excluded in its turn. */
static bool answers_as(const char *address, uint64_t node)
{
    struct buf answer = {0};
    char base[512];
    bool right = false;

    if ((size_t)snprintf(base, sizeof base, "http://%s", address) < sizeof base) {
        long status = request("GET", base, "/.cluster", NULL, VIEW_MS, &answer);
        cJSON *json = status == 200 ? cJSON_ParseWithLength(answer.data ? answer.data : "", answer.len) : NULL;
        right = number(json, "node") == (double)node;
        cJSON_Delete(json);
    }
    buf_free(&answer);
    if (!right)
        fprintf(stderr, "ERROR: Node %" PRIu64 " does not answer at %s: start it there with --join, or use --force\n",
                node, address);
    return right;
}

static int replace_faulty(char *what, bool force, const char *url)
{
    uint64_t old, new;
    char *eq = strchr(what, '='), *slash = eq ? strchr(eq, '/') : NULL;

    if (!eq || !slash)
        return usage();
    *eq = *slash = '\0';
    if (!parse_u64(what, 1, UINT64_MAX, &old) || !parse_u64(eq + 1, 1, UINT64_MAX, &new))
        return usage();
    if (!force && !answers_as(slash + 1, new))
        return NOT_DONE;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "old", (double)old);
    cJSON_AddNumberToObject(json, "new", (double)new);
    cJSON_AddStringToObject(json, "address", slash + 1);
    return change(url, "/.replace", json);
}

static int cluster(int n, char **args)
{
    const char *what = args[0];
    bool is_view = !strcmp(what, "-I") || !strcmp(what, "--json") || !strcmp(what, "--get-param");

    if (is_view && n == 2)
        return view(what, args[1]);
    if (!strcmp(what, "--set-param") && n >= 3)
        return set_param(n - 1, args + 1);
    if (!strcmp(what, "--set-faulty") && n == 3)
        return change_node("/.setfaulty", args[1], args[2]);
    if (!strcmp(what, "--readmit") && n == 3)
        return change_node("/.readmit", args[1], args[2]);
    if (!strcmp(what, "--replace-faulty") && n == 3)
        return replace_faulty(args[1], false, args[2]);
    if (!strcmp(what, "--replace-faulty") && n == 4 && !strcmp(args[2], "--force"))
        return replace_faulty(args[1], true, args[3]);
    return usage();
}

/* "/objects/NAME", percent-encoded. */
static bool object_path(const char *name, char *out, size_t cap)
{
    char *pct = curl_easy_escape(NULL, name, 0);
    int n = pct ? snprintf(out, cap, "/objects/%s", pct) : -1;
    curl_free(pct);
    return n > 0 && (size_t)n < cap;
}

static int put(const char *name, const char *file, const char *url)
{
    char path[512], chunk[65536];
    struct buf body = {0}, answer = {0};
    FILE *f = strcmp(file, "-") ? fopen(file, "rb") : stdin;

    if (!f || !object_path(name, path, sizeof path)) {
        fprintf(stderr, "sxadm: cannot send %s as %s\n", file, name);
        return USAGE;
    }
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
        if (!buf_add(&body, chunk, n, ANSWER_MAX))
            die("sxadm: %s is too large", file);
    if (ferror(f))
        die("sxadm: cannot read %s", file);
    long status = request("PUT", url, path, &body, CHANGE_MS, &answer);
    int rc = status == 200 ? OK : refused(status, &answer);
    if (rc == OK) {
        cJSON *json = cJSON_ParseWithLength(answer.data, answer.len);
        printf("Stored on node(s) %s\n", text(json, "nodes"));
        cJSON_Delete(json);
    }
    buf_free(&body);
    buf_free(&answer);
    return rc;
}

static int get(const char *name, const char *file, const char *url)
{
    char path[512];
    struct buf answer = {0};

    if (!object_path(name, path, sizeof path))
        return usage();
    long status = request("GET", url, path, NULL, CHANGE_MS, &answer);
    int rc = status == 200 ? OK : refused(status, &answer);
    if (rc == OK) {
        FILE *f = strcmp(file, "-") ? fopen(file, "wb") : stdout;
        if (!f || fwrite(answer.data ? answer.data : "", 1, answer.len, f) != answer.len || fflush(f))
            die("sxadm: cannot write %s", file);
    }
    buf_free(&answer);
    return rc;
}

int main(int argc, char **argv)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return CANNOT_ASK;
    if (argc > 1 && strncmp(argv[argc - 1], "sx://", 5) == 0) {
        fprintf(stderr, "sxadm: %s: use http://HOST:PORT\n", argv[argc - 1]);
        return USAGE;
    }
    if (argc >= 3 && !strcmp(argv[1], "cluster"))
        return cluster(argc - 2, argv + 2);
    if (argc == 5 && !strcmp(argv[1], "put"))
        return put(argv[2], argv[3], argv[4]);
    if (argc == 5 && !strcmp(argv[1], "get"))
        return get(argv[2], argv[3], argv[4]);
    return usage();
}
