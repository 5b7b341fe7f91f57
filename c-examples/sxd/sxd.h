/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One sxd process: its parts, all driven by the one thread that runs the loop in sxd.c.
 *
 *   util, base64   helpers
 *   http           requests in        client   calls out
 *   store, place   objects on this disk; which nodes an object belongs to
 *   peer           the other nodes, and raftkeel's messages to and from them
 *   cluster        raftkeel: its callbacks, and what they mean for sxd
 *   object         PUT and GET of objects, at the node that was asked
 *   heal           copies objects to the owners that a change of membership has given them
 *   view, words    what administrators see
 *   admin          what they change */
#ifndef SXD_SXD_H
#define SXD_SXD_H

#include <raftkeel.h>

#include "client.h"
#include "http.h"
#include "store.h"

#define ADDRESS_SIZE 64
/* Ids travel as JSON numbers, which are exact so far. */
#define ID_MAX ((1ll << 53) - 1)

/* The deadline of every request: one that is found later has been given up by who sent it, and must
 * not take effect any more. */
#define REQUEST_MS 10000u

struct sxd {
    uint64_t id;
    const char *listen;
    uint64_t started_ms;
    size_t replicas;
    keel *keel;
    struct http *http;
    struct client *client;
    struct store *store;
    struct peers *peers;
    struct cluster *cluster;
    struct heal *heal;
    struct admin *admin;
    struct object_ops *objects;
};

#endif
