/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* NULL, everywhere where a pointer is taken: a code, never a crash. */
#include <string.h>

#include "check.h"
#include "cluster.h"

static void without_an_engine(void)
{
    keel_params params = KEEL_PARAMS_INIT;
    keel_peer peer = KEEL_PEER_INIT;
    keel_status *status = (keel_status *)&params;
    uint64_t next_ms = 7;

    CHECK_CODE(keel_bootstrap(NULL, &peer, 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_step(NULL, 1, &next_ms), KEEL_ERR_INVALID);
    CHECK(next_ms == UINT64_MAX);
    CHECK_CODE(keel_step(NULL, 1, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_recv(NULL, 1, "x", 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_fd(NULL), KEEL_ERR_INVALID);
    CHECK(keel_timeout_ms(NULL) == -1);
    CHECK_CODE(keel_dispatch(NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_propose(NULL, "x", 1, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_add(NULL, &peer, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_promote(NULL, 1, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_remove(NULL, 1, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_exclude(NULL, 1, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_readmit(NULL, 1, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_replace(NULL, 1, &peer, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_set_params(NULL, &params, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_barrier(NULL, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_transfer(NULL, 1, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_set_eligible(NULL, 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_heard(NULL, 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_lost(NULL, 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_write_done(NULL, 1, 0), KEEL_ERR_INVALID);
    CHECK_CODE(keel_records_state(NULL, "x", 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_records_entry(NULL, 1, "x", 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_records_image(NULL, 1, 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_role(NULL), KEEL_ERR_INVALID);
    CHECK(keel_leader(NULL) == 0);
    CHECK(keel_epoch(NULL) == 0);
    CHECK_CODE(keel_check_epoch(NULL, 1, 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_lease_ms(NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_get_params(NULL, &params), KEEL_ERR_INVALID);
    CHECK_CODE(keel_status_take(NULL, &status), KEEL_ERR_INVALID);
    CHECK(status == NULL);
    CHECK_CODE(keel_status_take(NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_free(NULL), KEEL_OK);
}

static void without_a_status(void)
{
    keel_status_free(NULL);
    CHECK(keel_status_info(NULL) == NULL);
    CHECK(keel_status_metrics(NULL) == NULL);
    CHECK(keel_status_count(NULL) == 0);
    CHECK(keel_status_node(NULL, 0) == NULL);
    CHECK(keel_status_json(NULL) == NULL);
}

static void without_a_configuration(void)
{
    keel_config config = KEEL_CONFIG_INIT;
    keel_callbacks callbacks = KEEL_CALLBACKS_INIT;
    keel *k = (keel *)&config;

    CHECK_CODE(keel_new(NULL, &config, &callbacks, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_new(&k, NULL, &callbacks, NULL), KEEL_ERR_INVALID);
    CHECK(k == NULL);
    config.id = 1;
    config.cluster = 1;
    config.flags = KEEL_VOLATILE;
    CHECK_CODE(keel_new(&k, &config, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_new(&k, &config, &callbacks, NULL), KEEL_ERR_INVALID);
    CHECK(strstr(keel_errmsg(), "send") != NULL);
}

static void with_an_engine(keel *k)
{
    keel_peer peer = KEEL_PEER_INIT;

    CHECK_CODE(keel_bootstrap(k, NULL, 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_recv(k, 1, NULL, 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_recv(k, 1, NULL, 0), KEEL_ERR_INVALID);
    CHECK_CODE(keel_propose(k, NULL, 1, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_propose(k, NULL, 0, NULL, NULL), KEEL_OK);
    CHECK_CODE(keel_node_add(k, NULL, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_add(k, &peer, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_promote(k, 0, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_remove(k, 0, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_exclude(k, 0, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_readmit(k, 0, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_replace(k, 1, NULL, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_replace(k, 0, &peer, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_node_replace(k, 1, &peer, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_set_params(k, NULL, NULL, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_barrier(k, NULL, NULL), KEEL_OK);
    CHECK_CODE(keel_transfer(k, 0, NULL, NULL), KEEL_OK);
    CHECK_CODE(keel_set_eligible(k, 1), KEEL_OK);
    CHECK_CODE(keel_heard(k, 0), KEEL_ERR_INVALID);
    CHECK_CODE(keel_lost(k, 0), KEEL_ERR_INVALID);
    CHECK_CODE(keel_check_epoch(k, 0, 1), KEEL_ERR_INVALID);
    CHECK_CODE(keel_get_params(k, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_status_take(k, NULL), KEEL_ERR_INVALID);
    CHECK_CODE(keel_step(k, 1000000, NULL), KEEL_OK);
}

int main(void)
{
    struct cluster_options options;
    struct cluster *c;

    CHECK(keel_errmsg()[0] == '\0');
    CHECK(keel_version_number() == KEEL_VERSION_NUMBER);
    CHECK(strcmp(keel_version(), KEEL_VERSION) == 0);
    without_an_engine();
    without_a_status();
    without_a_configuration();
    /* No callback but send is set: every event of this life meets a NULL. */
    cluster_options_init(&options, 1, 1);
    c = cluster_new(&options);
    cluster_elect(c);
    with_an_engine(c->nodes[0].k);
    cluster_free(c);
    return 0;
}
