/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The other nodes: where they are, and how raftkeel's messages get there and back.
 *
 * Messages wait in a bounded outbox for each node. At most one exchange is under way with a node: a
 * PUT /.s2s/keel that carries all that waits for it, and whose reply carries all that waits for us
 * over there. An exchange has a deadline of its own, so a node that accepts and never answers costs
 * its own messages and nobody else's. */
#ifndef SXD_PEER_H
#define SXD_PEER_H

#include "sxd.h"

struct peers *peers_new(void);
void peers_free(struct peers *p);

/* Learns or corrects an address. Remembers at most PEERS_MAX nodes. */
void peer_set_address(struct sxd *sx, uint64_t id, const char *address);
/* "" if it is not known. */
const char *peer_address(const struct sxd *sx, uint64_t id);

/* Queues one message; when the outbox is full the oldest are dropped: Raft repeats what matters, and
 * old messages matter least. */
void peer_queue(struct sxd *sx, uint64_t id, const void *msg, size_t len);
/* Starts an exchange with every node that something waits for. */
void peers_run(struct sxd *sx);

/* PUT /.s2s/keel: gives the messages to raftkeel. The request is answered by peers_answer(), after
 * raftkeel has worked on them, so that its acknowledgements ride back. */
void peers_serve(struct sxd *sx, struct http_req *r);
void peers_answer(struct sxd *sx);

/* Calls another node about objects, naming this node and its epoch. False, and DONE is never called,
 * if its address is not known or too many calls to it are under way. */
bool peer_call(struct sxd *sx, uint64_t id, const char *method, const char *path, const void *body, size_t len,
               client_done done, void *arg);

#endif
