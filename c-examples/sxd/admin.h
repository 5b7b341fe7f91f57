/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What administrators change, at any node that serves.
 *
 *   PUT /.clusterSettings  {"hb_deadtime": 6, ...}, whole seconds as in SX
 *   PUT /.setfaulty        {"node": 3}
 *   PUT /.readmit          {"node": 3}
 *   PUT /.replace          {"old": 3, "new": 4, "address": "127.0.0.1:7004"}
 *
 * A change is passed on to the leader and answered when it is committed, refused (with the reason),
 * or not known to be either within REQUEST_MS of its arrival. */
#ifndef SXD_ADMIN_H
#define SXD_ADMIN_H

#include "sxd.h"

struct admin *admin_new(void);
/* Call it after cluster_close(): the engine's completions refer to it. */
void admin_free(struct admin *a);

/* WHAT is the path of one of the PUT requests. */
void admin_change(struct sxd *sx, struct http_req *r, const char *what);
/* Answers the changes whose time is over. */
void admin_run(struct sxd *sx);

#endif
