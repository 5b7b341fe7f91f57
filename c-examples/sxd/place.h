/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Which nodes an object belongs to: rendezvous hashing. Every node computes the same owners from
 * the same members, and a node that leaves or comes moves only what it owned or will own. */
#ifndef SXD_PLACE_H
#define SXD_PLACE_H

#include <stddef.h>
#include <stdint.h>

#define MEMBERS_MAX 64

/* Puts the min(replicas, n) owners of NAME among MEMBERS into OUT, best first; returns how many. */
size_t place_owners(const char *name, const uint64_t *members, size_t n, size_t replicas,
                    uint64_t out[MEMBERS_MAX]);

#endif
