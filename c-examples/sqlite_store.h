/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A node's state in an SQLite database: keel_storage as a daemon has it that owns such a database.
 * The tables are its own (keel_*); a daemon may keep others in the same file.
 *
 *     s = sqlite_store_open("node.db", &k);
 *     config.storage = sqlite_store_callbacks(s);
 *     keel_new(&k, &config, ..); ..
 *     sqlite_store_stop(s);
 *     keel_free(k);
 *     sqlite_store_close(s);
 */
#ifndef SQLITE_STORE_H
#define SQLITE_STORE_H

#include <raftkeel.h>

struct sqlite_store;

/* Opens the database, and makes it if there is none: whether the node is new is not for this to
 * guess, see KEEL_NEW_NODE. `k`: where the one engine will be that uses it. NULL: it cannot be used,
 * for a reason that was printed; another process that uses it is one. */
struct sqlite_store *sqlite_store_open(const char *path, keel *const *k);

/* For keel_config.storage. */
const keel_storage *sqlite_store_callbacks(struct sqlite_store *s);

/* What the engine has given is written to the end, and reported; to be called when nobody drives
 * the engine any more, and before keel_free(). */
void sqlite_store_stop(struct sqlite_store *s);

/* After keel_free(). */
void sqlite_store_close(struct sqlite_store *s);

#endif
