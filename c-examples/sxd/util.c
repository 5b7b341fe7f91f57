/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "util.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static FILE *log_file;

void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p)
        die("out of memory");
    return p;
}

char *xstrdup(const char *s)
{
    size_t len = strlen(s);
    char *p = xcalloc(len + 1, 1);
    memcpy(p, s, len);
    return p;
}

int log_open(const char *file)
{
    if (!file)
        return 0;
    FILE *f = fopen(file, "ae");
    if (!f)
        return -1;
    log_file = f;
    return 0;
}

static void log_line(const char *fmt, va_list ap)
{
    FILE *f = log_file ? log_file : stderr;
    struct timespec t;
    struct tm tm;
    char day[32] = "";

    clock_gettime(CLOCK_REALTIME, &t);
    if (localtime_r(&t.tv_sec, &tm))
        strftime(day, sizeof day, "%H:%M:%S", &tm);
    fprintf(f, "%s.%03ld ", day, t.tv_nsec / 1000000);
    vfprintf(f, fmt, ap);
    fputc('\n', f);
    fflush(f);
}

void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    log_line(fmt, ap);
    va_end(ap);
}

void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    log_line(fmt, ap);
    va_end(ap);
    exit(1);
}

uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

bool parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    char *end;

    /* strtoull would take signs and blanks. */
    if (!text || *text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *end || v < min || v > max)
        return false;
    *out = v;
    return true;
}

bool buf_add(struct buf *b, const void *data, size_t len, size_t max)
{
    if (b->len > max || len > max - b->len)
        return false;
    if (b->cap - b->len <= len) {
        size_t cap = (b->len + len + 1) * 2;
        char *p = realloc(b->data, cap);
        if (!p)
            die("out of memory");
        b->data = p;
        b->cap = cap;
    }
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
    return true;
}

void buf_free(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}
