/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What raftkeel says, in words for administrators, who know nodes and settings but no C names. */
#ifndef SXD_WORDS_H
#define SXD_WORDS_H

#include <raftkeel.h>
#include <stddef.h>

/* A text of the library with "node 3" for its "n3". Valid until the next call. */
const char *words(const char *text);

/* "VETO" for KEEL_GUARD_VETO; "" for KEEL_GUARD_NONE. */
const char *guard_code(int guard);
/* Why N is not excluded although it is silent, with the code in brackets; "" if nothing holds that
 * back. */
void guard_words(const keel_info *info, const keel_node *n, char *out, size_t cap);
/* The same for all of them at once, with their names; "" if nothing is held back. */
void notice_words(const keel_status *s, char *out, size_t cap);

#endif
