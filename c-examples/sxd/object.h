/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* PUT and GET of objects at the node that was asked, the coordinator.
 *
 * Both begin by asking every member which version it has. An acknowledged object is at all R owners,
 * so as soon as n - R + 1 of n members have answered, the newest version among the answers is the
 * newest that was ever acknowledged, and a node that does not answer delays nobody. That holds once
 * the cluster has healed; until then all members must answer.
 *
 * A PUT needs all its R owners and is acknowledged when it is durable at all of them. One that fails
 * may still become visible: a later PUT has the newer version in any case. */
#ifndef SXD_OBJECT_H
#define SXD_OBJECT_H

#include "sxd.h"

struct object_ops *objects_new(void);
void objects_free(struct object_ops *o);

/* PUT or GET /objects/NAME. PCT is NAME, percent-encoded. */
void object_put(struct sxd *sx, struct http_req *r, const char *pct);
void object_get(struct sxd *sx, struct http_req *r, const char *pct);

/* What a coordinator asks of another node: GET /.s2s/version/NAME (the head line of the image),
 * GET and PUT /.s2s/object/NAME (the image). */
void object_serve_version(struct sxd *sx, struct http_req *r, const char *pct);
void object_serve_get(struct sxd *sx, struct http_req *r, const char *pct);
void object_serve_put(struct sxd *sx, struct http_req *r, const char *pct);

#endif
