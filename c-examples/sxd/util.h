/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What every part of sxd needs: memory that is there, a log line, the time, a growing buffer. */
#ifndef SXD_UTIL_H
#define SXD_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A daemon that survives kill -9 may also survive running out of memory in the same way: these
 * end the process instead of returning NULL, so no half-done request is ever acknowledged. */
void *xcalloc(size_t n, size_t size);
char *xstrdup(const char *s);

/* Opens FILE for the log lines, appending; NULL is stderr. 0, or -1 with errno. */
int log_open(const char *file);
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Milliseconds that never go back and have no relation to the time of day. */
uint64_t now_ms(void);

/* Whole decimal number in [min, max]; anything else, and trailing bytes, is false. */
bool parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out);

struct buf {
    char *data; /* NUL-terminated when not NULL; the NUL is not counted in len */
    size_t len, cap;
};

/* False, and nothing added, if the buffer would hold more than MAX bytes. */
bool buf_add(struct buf *b, const void *data, size_t len, size_t max);
void buf_free(struct buf *b);

#endif
