/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Brings objects to the owners that a change of membership has given them.
 *
 * Every node walks through the objects that it holds, once an epoch, and gives each to those of its
 * owners that do not have it or have an older one. When all of them have been served the node says,
 * with its messages to the others, that it has healed for this epoch; it remembers so on its disk.
 * Once all members have, every object that was ever acknowledged is at all its owners again. */
#ifndef SXD_HEAL_H
#define SXD_HEAL_H

#include "sxd.h"

struct heal *heal_new(struct sxd *sx);
void heal_free(struct heal *h);

/* Moves the walk on; at most one call to another node is under way. */
void heal_run(struct sxd *sx);
/* Has every member healed for the present epoch, as far as this node has been told? */
bool heal_complete(const struct sxd *sx);
/* The epoch that this node has healed for. */
uint64_t heal_epoch(const struct sxd *sx);

/* What rides on every batch of messages: {"healed": {"1": 5, "2": 5}}. It is passed on, so that a
 * node that has just started knows of those it cannot reach. */
void heal_tell(const struct sxd *sx, cJSON *batch);
void heal_hear(struct sxd *sx, const cJSON *batch);

#endif
