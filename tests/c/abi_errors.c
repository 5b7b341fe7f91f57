/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a host or a peer can get wrong, and the code for it. Runs in an empty directory. */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "cluster.h"

#define CAUGHT_MAX 4096

static struct {
    unsigned char data[CAUGHT_MAX];
    size_t len;
    keel_id to;
} caught;

static void catch_message(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud;
    if (caught.len > 0 || len > CAUGHT_MAX)
        return;
    memcpy(caught.data, msg, len);
    caught.len = len;
    caught.to = to;
}

static void drop_message(void *ud, keel_id to, const void *msg, size_t len)
{
    (void)ud, (void)to, (void)msg, (void)len;
}

static keel_config good_config(void)
{
    keel_config config = KEEL_CONFIG_INIT;

    config.id = 1;
    config.cluster = 77;
    config.seed = 5;
    config.flags = KEEL_VOLATILE;
    return config;
}

static keel_callbacks good_callbacks(void)
{
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;

    callbacks.send = drop_message;
    return callbacks;
}

static int try_new(const keel_config *config)
{
    keel_callbacks callbacks = good_callbacks();
    keel *k;
    int code = keel_new(&k, config, &callbacks, NULL);

    CHECK((k != NULL) == (code == KEEL_OK));
    keel_free(k);
    return code;
}

#define CHECK_CONFIG(change, wanted)                                                           \
    do {                                                                                       \
        keel_config config = good_config();                                                    \
        config.change;                                                                         \
        CHECK_CODE(try_new(&config), wanted);                                                  \
    } while (0)

static void configurations(void)
{
    CHECK_CONFIG(id = 1, KEEL_OK);
    CHECK_CONFIG(size = 0, KEEL_ERR_INVALID);
    CHECK(strstr(keel_errmsg(), "KEEL_CONFIG_INIT") != NULL);
    CHECK_CONFIG(size = 8, KEEL_ERR_INVALID);
    CHECK_CONFIG(size = (size_t)-1, KEEL_ERR_INVALID);
    CHECK_CONFIG(id = 0, KEEL_ERR_INVALID);
    CHECK_CONFIG(cluster = 0, KEEL_ERR_INVALID);
    CHECK_CONFIG(flags = 0, KEEL_ERR_INVALID);
    CHECK_CONFIG(dir = "somewhere", KEEL_ERR_INVALID);
    CHECK_CONFIG(flags |= 1u << 31, KEEL_ERR_UNSUPPORTED);
    CHECK_CONFIG(log_level = 6, KEEL_ERR_INVALID);
    CHECK_CONFIG(log_level = -1, KEEL_ERR_INVALID);
    CHECK_CONFIG(heartbeat_ms = 60001, KEEL_ERR_INVALID);
    CHECK_CONFIG(election_ms = 299, KEEL_ERR_INVALID);
    CHECK_CONFIG(election_ms = 300, KEEL_OK);
    CHECK_CONFIG(election_ms = 3600000, KEEL_OK);
    CHECK_CONFIG(election_ms = 3600001, KEEL_ERR_INVALID);
    CHECK_CONFIG(heartbeat_ms = 60000, KEEL_OK);
    CHECK_CONFIG(queue_max = 1u << 21, KEEL_ERR_INVALID);
    CHECK_CONFIG(entry_max = 1u << 25, KEEL_ERR_INVALID);
    CHECK_CONFIG(params.size = 0, KEEL_ERR_INVALID);
    CHECK_CONFIG(params.reserved[21] = 1, KEEL_ERR_UNSUPPORTED);
}

/* As hosts compiled against later headers have them. */
static void newer_structs(void)
{
    struct {
        keel_config known;
        uint64_t more[2];
    } config;
    struct {
        keel_callbacks known;
        void *more;
    } callbacks;
    keel *k;

    memset(&config, 0, sizeof config);
    memset(&callbacks, 0, sizeof callbacks);
    config.known = good_config();
    config.known.size = sizeof config;
    callbacks.known = good_callbacks();
    callbacks.known.size = sizeof callbacks;
    CHECK_CODE(keel_new(&k, &config.known, &callbacks.known, NULL), KEEL_OK);
    CHECK_CODE(keel_free(k), KEEL_OK);
    config.more[1] = 1;
    CHECK_CODE(keel_new(&k, &config.known, &callbacks.known, NULL), KEEL_ERR_UNSUPPORTED);
    config.more[1] = 0;
    callbacks.more = &k;
    CHECK_CODE(keel_new(&k, &config.known, &callbacks.known, NULL), KEEL_ERR_UNSUPPORTED);
}

static keel *make(const keel_config *config, const keel_callbacks *callbacks)
{
    keel *k;

    CHECK_CODE(keel_new(&k, config, callbacks, NULL), KEEL_OK);
    return k;
}

static void peers_of(keel_peer *peers, size_t n)
{
    const keel_peer blank = KEEL_PEER_INIT;

    for (size_t i = 0; i < n; i++) {
        peers[i] = blank;
        peers[i].id = i + 1;
    }
}

static void bootstraps(void)
{
    keel_config config = good_config();
    keel_callbacks callbacks = good_callbacks();
    keel_peer peers[65];
    keel *k = make(&config, &callbacks);

    peers_of(peers, 65);
    CHECK_CODE(keel_bootstrap(k, peers, 0), KEEL_ERR_INVALID);
    CHECK_CODE(keel_bootstrap(k, peers, 65), KEEL_ERR_INVALID);
    peers[1].id = 0;
    CHECK_CODE(keel_bootstrap(k, peers, 3), KEEL_ERR_INVALID);
    peers[1].id = 1;
    CHECK_CODE(keel_bootstrap(k, peers, 3), KEEL_ERR_INVALID);
    peers[0].id = 7;
    peers[1].id = 8;
    CHECK_CODE(keel_bootstrap(k, peers, 3), KEEL_ERR_INVALID); /* without this node */
    peers_of(peers, 3);
    CHECK_CODE(keel_bootstrap(k, peers, 3), KEEL_OK);
    CHECK_CODE(keel_bootstrap(k, peers, 3), KEEL_ERR_EXISTS);
    CHECK_CODE(keel_free(k), KEEL_OK);
}

/* Wherever bad settings are noticed, it is before anything was written. */
static void first_settings(void)
{
    keel_config config = good_config();
    keel_callbacks callbacks = good_callbacks();
    keel_peer peers[3];
    keel *k;
    int code;

    peers_of(peers, 3);
    config.params.hb_keepalive_ms = 1000;
    config.params.hb_deadtime_ms = 2000;
    code = keel_new(&k, &config, &callbacks, NULL);
    if (code == KEEL_OK)
        code = keel_bootstrap(k, peers, 3);
    CHECK_CODE(code, KEEL_ERR_INVALID);
    keel_free(k);
}

static void directories(void)
{
    keel_config config = good_config();
    keel_callbacks callbacks = good_callbacks();
    keel_peer peers[3];
    keel *k, *second;

    peers_of(peers, 3);
    config.flags = 0;
    config.dir = "";
    CHECK_CODE(try_new(&config), KEEL_ERR_INVALID);
    config.dir = "node1";
    CHECK_CODE(try_new(&config), KEEL_ERR_NOT_FOUND);
    config.flags = KEEL_NEW_NODE;
    k = make(&config, &callbacks);
    CHECK_CODE(keel_bootstrap(k, peers, 3), KEEL_OK);
    config.flags = 0;
    CHECK_CODE(keel_new(&second, &config, &callbacks, NULL), KEEL_ERR_LOCKED);
    CHECK_CODE(keel_free(k), KEEL_OK);

    config.flags = KEEL_NEW_NODE;
    CHECK_CODE(try_new(&config), KEEL_ERR_EXISTS);
    config.flags = 0;
    config.id = 2;
    CHECK_CODE(try_new(&config), KEEL_ERR_FOREIGN);
    config.id = 1;
    config.cluster = 78;
    CHECK_CODE(try_new(&config), KEEL_ERR_FOREIGN);
    config.cluster = 77;
    k = make(&config, &callbacks);
    CHECK_CODE(keel_bootstrap(k, peers, 3), KEEL_ERR_EXISTS);
    CHECK_CODE(keel_free(k), KEEL_OK);
}

static void on_snapshot(void *arg, int status, uint64_t index)
{
    (void)index;
    *(int *)arg = status;
}

/* A path is what it was when the directory was opened, wherever the host goes then. */
static void working_directory(void)
{
    keel_config config = good_config();
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel_peer peer = KEEL_PEER_INIT;
    uint64_t now_ms = 1000;
    int status = 1;
    keel *k;

    peer.id = config.id;
    config.dir = "here";
    config.flags = KEEL_NEW_NODE;
    callbacks.send = drop_message;
    k = make(&config, &callbacks);
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_OK);
    CHECK(mkdir("there", 0700) == 0 && chdir("there") == 0);
    while (keel_role(k) != KEEL_ROLE_LEADER)
        CHECK_CODE(keel_step(k, now_ms, &now_ms), KEEL_OK);
    CHECK_CODE(keel_snapshot(k, on_snapshot, &status), KEEL_OK);
    while (status == 1)
        CHECK_CODE(keel_step(k, now_ms++, NULL), KEEL_OK);
    CHECK_CODE(status, KEEL_OK);
    CHECK_CODE(keel_free(k), KEEL_OK);
    CHECK(chdir("..") == 0);
    config.flags = 0;
    k = make(&config, &callbacks);
    CHECK_CODE(keel_free(k), KEEL_OK);
}

/* A message that node 1 of a cluster of two sends to node 2. */
static void catch_one(void)
{
    keel_config config = good_config();
    keel_callbacks callbacks = good_callbacks();
    keel_peer peers[2];
    keel *k;

    callbacks.send = catch_message;
    peers_of(peers, 2);
    k = make(&config, &callbacks);
    CHECK_CODE(keel_bootstrap(k, peers, 2), KEEL_OK);
    for (uint64_t now_ms = 1000; caught.len == 0; now_ms += 100) {
        CHECK(now_ms < 60000);
        CHECK_CODE(keel_step(k, now_ms, NULL), KEEL_OK);
    }
    CHECK(caught.to == 2);
    CHECK_CODE(keel_free(k), KEEL_OK);
}

static keel *receiver(keel_id id, uint64_t cluster)
{
    keel_config config = good_config();
    keel_callbacks callbacks = good_callbacks();
    keel_peer peers[3];
    keel *k;

    config.id = id;
    config.cluster = cluster;
    peers_of(peers, 3);
    k = make(&config, &callbacks);
    CHECK_CODE(keel_bootstrap(k, peers, id > 2 ? 3 : 2), KEEL_OK);
    return k;
}

static void messages(void)
{
    unsigned char damaged[CAUGHT_MAX];
    keel *k = receiver(2, 77), *other = receiver(3, 77), *foreign = receiver(2, 78);

    catch_one();
    CHECK_CODE(keel_recv(k, 1, "", 0), KEEL_ERR_MALFORMED);
    /* What recv() returned, not looked at. */
    CHECK_CODE(keel_recv(k, 1, "", (size_t)-1), KEEL_ERR_TOO_BIG);
    for (size_t len = 1; len < caught.len; len++)
        CHECK_CODE(keel_recv(k, 1, caught.data, len), KEEL_ERR_MALFORMED);
    for (size_t bit = 0; bit < 8 * caught.len; bit++) {
        memcpy(damaged, caught.data, caught.len);
        damaged[bit / 8] = (unsigned char)(damaged[bit / 8] ^ (1u << bit % 8));
        CHECK_CODE(keel_recv(k, 1, damaged, caught.len), KEEL_ERR_MALFORMED);
    }
    CHECK_CODE(keel_recv(other, 1, caught.data, caught.len), KEEL_ERR_FOREIGN);
    CHECK_CODE(keel_recv(foreign, 1, caught.data, caught.len), KEEL_ERR_FOREIGN);
    CHECK_CODE(keel_recv(k, 5, caught.data, caught.len), KEEL_ERR_FOREIGN);
    CHECK_CODE(keel_recv(k, 1, caught.data, caught.len), KEEL_OK);
    CHECK_CODE(keel_recv(k, 0, caught.data, caught.len), KEEL_OK);
    CHECK_CODE(keel_step(k, 1000, NULL), KEEL_OK);
    CHECK_CODE(keel_free(k), KEEL_OK);
    CHECK_CODE(keel_free(other), KEEL_OK);
    CHECK_CODE(keel_free(foreign), KEEL_OK);
}

static void limits(void)
{
    keel_config config = good_config();
    keel_callbacks callbacks = good_callbacks();
    keel_params params = KEEL_PARAMS_INIT;
    keel *k;

    config.entry_max = 4;
    config.queue_max = 2;
    k = make(&config, &callbacks);
    CHECK_CODE(keel_propose(k, "12345", 5, NULL, NULL), KEEL_ERR_TOO_BIG);
    CHECK_CODE(keel_propose(k, "1234", 4, NULL, NULL), KEEL_OK);
    CHECK_CODE(keel_propose(k, "1234", 4, NULL, NULL), KEEL_OK);
    CHECK_CODE(keel_propose(k, "1234", 4, NULL, NULL), KEEL_ERR_FULL);
    params.size = 0;
    CHECK_CODE(keel_get_params(k, &params), KEEL_ERR_INVALID);
    CHECK_CODE(keel_set_params(k, &params, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_free(k), KEEL_OK);
}

/* One or the other, for good; and time does not go back. */
static void modes(void)
{
    keel_config config = good_config();
    keel_callbacks callbacks = good_callbacks();
    keel *stepped = make(&config, &callbacks), *watched = make(&config, &callbacks);
    uint64_t next_ms = 0;
    int fd;

    CHECK_CODE(keel_dispatch(stepped), KEEL_ERR_STATE);
    CHECK_CODE(keel_step(stepped, 1000, NULL), KEEL_OK);
    CHECK_CODE(keel_fd(stepped), KEEL_ERR_STATE);
    CHECK_CODE(keel_step(stepped, 999, &next_ms), KEEL_ERR_INVALID);
    CHECK(next_ms == UINT64_MAX);
    CHECK_CODE(keel_step(stepped, UINT64_MAX, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_step(stepped, next_ms, &next_ms), KEEL_ERR_INVALID); /* that was "never" */
    CHECK_CODE(keel_step(stepped, 1000, NULL), KEEL_OK);
    CHECK_CODE(keel_step(stepped, INT64_MAX, &next_ms), KEEL_OK);
    CHECK(next_ms > INT64_MAX && next_ms < UINT64_MAX);
    CHECK_CODE(keel_free(stepped), KEEL_OK);

    fd = keel_fd(watched);
    CHECK(fd >= 0 && keel_fd(watched) == fd);
    CHECK_CODE(keel_step(watched, 2, NULL), KEEL_ERR_STATE);
    CHECK_CODE(keel_dispatch(watched), KEEL_OK);
    CHECK_CODE(keel_free(watched), KEEL_OK);
}

/* Whatever it dies of, it does not go on as the leader that it was. */
static void a_dead_leader(void)
{
    keel_config config = good_config();
    keel_callbacks callbacks = good_callbacks();
    keel_peer peer = KEEL_PEER_INIT;
    int fd, null = open("/dev/null", O_RDONLY);
    keel_status *status;
    keel_id leader = 1;
    keel *k;

    peer.id = config.id;
    config.heartbeat_ms = 10;
    config.election_ms = 30;
    k = make(&config, &callbacks);
    CHECK_CODE(keel_bootstrap(k, &peer, 1), KEEL_OK);
    fd = keel_fd(k);
    CHECK(fd >= 0 && null >= 0);
    while (keel_role(k) != KEEL_ROLE_LEADER)
        CHECK_CODE(keel_dispatch(k), KEEL_OK);
    CHECK(keel_leader(k) == 1);
    CHECK(dup2(null, fd) == fd); /* "never read, write or close it" */
    CHECK_CODE(keel_dispatch(k), KEEL_ERR_IO);
    CHECK_CODE(keel_role(k), KEEL_ROLE_FOLLOWER);
    CHECK(keel_leader(k) == 0 && keel_lease_ms(k) == 0);
    CHECK_CODE(keel_find_leader(k, &leader, NULL, NULL, 0), KEEL_OK);
    CHECK(leader == 0);
    CHECK_CODE(keel_status_take(k, &status), KEEL_OK);
    CHECK(keel_status_info(status)->role == KEEL_ROLE_FOLLOWER);
    CHECK(keel_status_info(status)->leader == 0 && keel_status_info(status)->fenced);
    CHECK(keel_status_node(status, 0)->role == KEEL_ROLE_FOLLOWER);
    keel_status_free(status);
    CHECK_CODE(keel_free(k), KEEL_OK);
    close(null);
}

static int refusal, refused_applies, stops, stop_code, closed;

static int refuse(void *ud, uint64_t index, uint64_t term, const void *data, size_t len)
{
    (void)ud, (void)index, (void)term, (void)data, (void)len;
    refused_applies++;
    return refusal;
}

static void on_stopped(void *ud, int why)
{
    (void)ud;
    stops++;
    stop_code = why;
    CHECK(keel_errmsg()[0] != '\0');
}

static void on_done(void *arg, int status, uint64_t index)
{
    (void)arg;
    CHECK(status == KEEL_ERR_CLOSED && index == 0);
    closed++;
}

/* The host could not apply an entry: the engine ends, says so once, and stays ended. */
static void refused_apply(int with)
{
    struct cluster_options options;
    struct cluster *c;
    keel *k;
    int code;

    refusal = with;
    refused_applies = stops = closed = 0;
    cluster_options_init(&options, 1, 9);
    options.callbacks.apply = refuse;
    options.callbacks.stopped = on_stopped;
    c = cluster_new(&options);
    k = cluster_elect(c)->k;
    CHECK_CODE(keel_propose(k, "x", 1, on_done, NULL), KEEL_OK);
    CHECK_CODE(keel_propose(k, "y", 1, on_done, NULL), KEEL_OK);
    code = keel_step(k, c->now_ms, NULL);
    CHECK(code < 0 && code == stop_code);
    CHECK(refused_applies == 1 && stops == 1);
    CHECK(closed == 2);
    CHECK_CODE(keel_step(k, c->now_ms + 1, NULL), code);
    CHECK_CODE(keel_propose(k, "z", 1, on_done, NULL), KEEL_ERR_CLOSED);
    CHECK_CODE(keel_heard(k, 1), KEEL_ERR_CLOSED);
    CHECK_CODE(keel_lost(k, 1), KEEL_ERR_CLOSED);
    CHECK(keel_lease_ms(k) == 0);
    cluster_free(c);
    CHECK(refused_applies == 1 && stops == 1 && closed == 2);
}

int main(void)
{
    configurations();
    newer_structs();
    bootstraps();
    first_settings();
    limits();
    modes();
    a_dead_leader();
    refused_apply(-5);
    refused_apply(5);
    messages();
    directories();
    working_directory();
    return 0;
}
