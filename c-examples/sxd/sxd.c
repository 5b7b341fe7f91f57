/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* sxd: a small replicated object store over HTTP, in the shape of Skylable SX, whose failover is
 * raftkeel's. One thread, one loop; see sxd.h for the parts. Run it without options for its usage.
 *
 * It shows how a daemon embeds raftkeel. It is no storage product: requests are not authenticated,
 * an object is held in memory while it travels, and nothing is ever deleted. */
#include "sxd.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin.h"
#include "cluster.h"
#include "heal.h"
#include "object.h"
#include "peer.h"
#include "view.h"

/* While something in sxd waits for a time of its own: retries, deadlines. */
#define TICK_MS 100

static volatile sig_atomic_t stop_requested;

static void on_signal(int sig)
{
    (void)sig;
    stop_requested = 1;
}

struct options {
    uint64_t id, replicas, keepalive;
    const char *listen, *dir, *log;
    bool init, join;
    struct cluster_options cluster;
    keel_peer peers[MEMBERS_MAX];
};

static _Noreturn void usage(const char *complaint)
{
    fprintf(stderr,
            "%s\n"
            "usage: sxd --id N --cluster NAME --listen HOST:PORT --dir DIR [options]\n"
            "  --init            first start of a first member of a new cluster; needs --peers. If it was\n"
            "                    cut off, start again with the same options\n"
            "  --join            first start of a node that will replace an excluded one\n"
            "  --peers LIST      \"1=HOST:PORT,2=HOST:PORT\": the first members, with this one\n"
            "  --replicas R      copies of every object, the same on all nodes (default 2)\n"
            "  --hb-keepalive S  first value of the setting, with --init (default 1 second)\n"
            "  --log FILE        instead of standard error\n"
            "Later starts need neither --init, --join nor --peers.\n",
            complaint);
    exit(2);
}

/* A number, or any other name by its hash (FNV-1a). */
static uint64_t cluster_number(const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    if (parse_u64(name, 1, UINT64_MAX, &h))
        return h;
    h = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    return h ? h : 1;
}

/* Cuts LIST into O's peers. */
static void parse_peers(struct options *o, char *list)
{
    char *save = NULL;
    for (char *p = strtok_r(list, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        char *eq = strchr(p, '=');
        keel_peer *peer = &o->peers[o->cluster.n_peers];
        if (eq)
            *eq = '\0';
        *peer = (keel_peer)KEEL_PEER_INIT;
        if (o->cluster.n_peers == MEMBERS_MAX || !eq || !parse_u64(p, 1, ID_MAX, &peer->id) ||
            strlen(eq + 1) >= ADDRESS_SIZE)
            usage("--peers is not a list of ID=HOST:PORT");
        peer->address = eq + 1;
        o->cluster.n_peers++;
    }
}

static void check_options(struct options *o)
{
    if (!o->id || !o->cluster.cluster || !o->listen || !o->dir)
        usage("--id, --cluster, --listen and --dir are needed");
    if (o->init && o->join)
        usage("--init and --join exclude each other");
    if (o->init && !o->cluster.n_peers)
        usage("--init needs --peers");
    o->cluster.dir = o->dir;
    o->cluster.init = o->init;
    o->cluster.join = o->join;
    o->cluster.keepalive_ms = (uint32_t)o->keepalive * 1000;
    o->cluster.peers = o->peers;
}

static void parse_options(struct options *o, int argc, char **argv)
{
    enum { ID = 1, CLUSTER, LISTEN, DIR_, REPLICAS, PEERS, INIT, JOIN, KEEPALIVE, LOG };
    static const struct option names[] = {
        {"id", required_argument, NULL, ID},           {"cluster", required_argument, NULL, CLUSTER},
        {"listen", required_argument, NULL, LISTEN},   {"dir", required_argument, NULL, DIR_},
        {"replicas", required_argument, NULL, REPLICAS}, {"peers", required_argument, NULL, PEERS},
        {"init", no_argument, NULL, INIT},             {"join", no_argument, NULL, JOIN},
        {"hb-keepalive", required_argument, NULL, KEEPALIVE}, {"log", required_argument, NULL, LOG},
        {NULL, 0, NULL, 0}};
    bool ok = true;

    *o = (struct options){.replicas = 2, .keepalive = 1};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case ID: ok = parse_u64(optarg, 1, ID_MAX, &o->id); break;
        case CLUSTER: o->cluster.cluster = cluster_number(optarg); break;
        case LISTEN: o->listen = optarg; break;
        case DIR_: o->dir = optarg; break;
        case REPLICAS: ok = parse_u64(optarg, 1, MEMBERS_MAX, &o->replicas); break;
        case PEERS: parse_peers(o, optarg); break;
        case INIT: o->init = true; break;
        case JOIN: o->join = true; break;
        case KEEPALIVE: ok = parse_u64(optarg, 1, UINT32_MAX / 1000, &o->keepalive); break;
        case LOG: o->log = optarg; break;
        default: usage("unknown option");
        }
        if (!ok)
            usage("a number is out of range");
    }
    if (optind != argc)
        usage("there are arguments that are no options");
    check_options(o);
}

/* What follows PREFIX in PATH, or NULL. */
static const char *after(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);
    return strncmp(path, prefix, len) == 0 ? path + len : NULL;
}

static void route_get(struct sxd *sx, struct http_req *r, const char *path)
{
    const char *name;
    if (!strcmp(path, "/.cluster"))
        view_show(sx, r);
    else if ((name = after(path, "/objects/")))
        object_get(sx, r, name);
    else if ((name = after(path, "/.s2s/version/")))
        object_serve_version(sx, r, name);
    else if ((name = after(path, "/.s2s/object/")))
        object_serve_get(sx, r, name);
    else
        http_reply_error(r, 404, "There is nothing at this path");
}

static void route_put(struct sxd *sx, struct http_req *r, const char *path)
{
    const char *name;
    if (!strcmp(path, "/.s2s/keel"))
        peers_serve(sx, r);
    else if (!strcmp(path, "/.clusterSettings") || !strcmp(path, "/.setfaulty") || !strcmp(path, "/.readmit") ||
             !strcmp(path, "/.replace"))
        admin_change(sx, r, path);
    else if ((name = after(path, "/objects/")))
        object_put(sx, r, name);
    else if ((name = after(path, "/.s2s/object/")))
        object_serve_put(sx, r, name);
    else
        http_reply_error(r, 404, "There is nothing at this path");
}

static void on_request(void *ud, struct http_req *r)
{
    uint64_t age = http_age_ms(r);

    if (age >= REQUEST_MS)
        http_reply_error(r, 503, "Not done: this node was paused, the request has waited for %" PRIu64 " seconds",
                         age / 1000);
    else if (!strcmp(http_method(r), "GET"))
        route_get(ud, r, http_path(r));
    else if (!strcmp(http_method(r), "PUT"))
        route_put(ud, r, http_path(r));
    else
        http_reply_error(r, 405, "GET and PUT only");
}

/* Everything that may make work for something else is followed by it: requests and answers give
 * raftkeel its messages, raftkeel works on them, its own messages and the replies leave. */
static bool turn(struct sxd *sx)
{
    http_run(sx->http);
    client_run(sx->client);
    if (!cluster_run(sx))
        return false;
    peers_answer(sx);
    peers_run(sx);
    heal_run(sx);
    admin_run(sx);
    return true;
}

static int loop(struct sxd *sx)
{
    int fd = keel_fd(sx->keel);
    if (fd < 0) {
        say("the engine has no descriptor: %s", keel_errmsg());
        return 1;
    }
    while (!stop_requested) {
        if (!turn(sx))
            return 1;
        struct curl_waitfd fds[] = {{.fd = fd, .events = CURL_WAIT_POLLIN},
                                    {.fd = http_fd(sx->http), .events = CURL_WAIT_POLLIN}};
        int timeout = http_timeout_ms(sx->http);
        client_wait(sx->client, fds, 2, timeout < 0 || timeout > TICK_MS ? TICK_MS : timeout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options o;
    struct sxd sx = {0};
    struct sigaction sa = {.sa_handler = on_signal};

    parse_options(&o, argc, argv);
    if (log_open(o.log)) {
        perror(o.log);
        return 1;
    }
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sa.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &sa, NULL);

    sx.id = o.id;
    sx.listen = o.listen;
    sx.started_ms = now_ms();
    sx.replicas = o.replicas;
    sx.client = client_new();
    sx.peers = peers_new();
    sx.admin = admin_new();
    sx.objects = objects_new();
    /* Before anything is made on the disk: a mistake in the options leaves nothing behind. */
    sx.http = http_start(o.listen, on_request, &sx);
    if (!sx.http)
        return 1;
    sx.store = store_open(o.dir);
    if (!sx.store || !cluster_open(&sx, &o.cluster))
        return 1;
    sx.heal = heal_new(&sx);
    say("sxd %s, raftkeel %s: node %" PRIu64 " listens on %s", argv[0], keel_version(), o.id, o.listen);
    int status = loop(&sx);
    say("stopping");
    /* Calls and the engine first: they complete what they were asked for, and the requests that wait for
     * that are still there. */
    client_free(sx.client);
    cluster_close(&sx);
    http_stop(sx.http);
    admin_free(sx.admin);
    objects_free(sx.objects);
    heal_free(sx.heal);
    peers_free(sx.peers);
    store_free(sx.store);
    return status;
}
