/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Objects on this node's disk, each with the version that it was written as.
 *
 * What store_write() has said to be stored is there after kill -9 and after a power cut. The calls
 * wait for the local disk; sxd's loop accepts that, because no other node's failure can make it
 * longer. Nothing is ever deleted: a copy too many costs space, a copy too few costs data. */
#ifndef SXD_STORE_H
#define SXD_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "util.h"

/* So that the percent-encoded name is a file name: 3 * 80 < NAME_MAX. */
#define NAME_LEN_MAX 80
/* Room for a percent-encoded name and its NUL. */
#define NAME_PCT_SIZE (3 * NAME_LEN_MAX + 1)
#define IMAGE_HEAD_MAX 128
#define OBJECT_MAX ((size_t)4 << 20)

/* Orders the writes of one object. The epoch of the membership comes first: what an excluded node
 * holds of a write that was never acknowledged loses against every write since, also when the node
 * is taken back. Within an epoch the coordinator takes a counter above every one that it was told of
 * and above every one it has used since its own start; its node id and the number of that start make
 * two coordinators' versions differ, whatever they know of each other. */
struct version {
    uint64_t epoch, counter, node, boot;
};
int version_cmp(const struct version *a, const struct version *b);

/* An image is an object as it travels between nodes and lies on the disk: one line of text with the
 * version and the length, then the bytes. */
void image_make(struct buf *out, const struct version *v, const void *data, size_t len);
/* False if it is not one; else *data points into IMAGE. */
bool image_parse(const char *image, size_t image_len, struct version *v, const char **data, size_t *len);

/* Percent-encoding of names, for URLs and file names. False: not a valid name. */
bool name_encode(const char *name, char out[NAME_PCT_SIZE]);
bool name_decode(const char *pct, char out[NAME_LEN_MAX + 1]);

struct store;

/* Opens DIR/objects, making it if needed. NULL, with a line in the log, if that is not possible. */
struct store *store_open(const char *dir);
void store_free(struct store *s);

/* How often this directory has been opened, this time included. */
uint64_t store_boot(const struct store *s);

/* 1 and *v, 0 if there is no such object, -1 with errno. */
int store_version(struct store *s, const char *name, struct version *v);
/* The same; *image is appended to. */
int store_read(struct store *s, const char *name, struct buf *image);
/* Durable when it returns 0. An image that is not newer than what is stored changes nothing and is
 * a success: it was overtaken. -1 with errno. */
int store_write(struct store *s, const char *name, const char *image, size_t len);

/* Every name, each to be freed, in *names, to be freed. -1 with errno. */
int store_list(struct store *s, char ***names, size_t *n);

/* A small number that outlives the process, e.g. an epoch. 0 if it was never written. */
uint64_t store_get_number(struct store *s, const char *key);
int store_put_number(struct store *s, const char *key, uint64_t value);

#endif
