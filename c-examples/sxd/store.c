/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "store.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGE_MAX (OBJECT_MAX + IMAGE_HEAD_MAX)

struct store {
    int dir, objects; /* directories */
    uint64_t boot;
};

int version_cmp(const struct version *a, const struct version *b)
{
    const uint64_t of_a[] = {a->epoch, a->counter, a->node, a->boot};
    const uint64_t of_b[] = {b->epoch, b->counter, b->node, b->boot};

    for (size_t i = 0; i < sizeof of_a / sizeof *of_a; i++)
        if (of_a[i] != of_b[i])
            return of_a[i] < of_b[i] ? -1 : 1;
    return 0;
}

void image_make(struct buf *out, const struct version *v, const void *data, size_t len)
{
    char head[IMAGE_HEAD_MAX];
    int n = snprintf(head, sizeof head, "sxd1 %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %zu\n",
                     v->epoch, v->counter, v->node, v->boot, len);
    if (n < 0 || (size_t)n >= sizeof head || !buf_add(out, head, (size_t)n, IMAGE_MAX) ||
        !buf_add(out, data, len, IMAGE_MAX))
        die("store: an object is larger than its limit");
}

/* Where the bytes begin, or NULL if IMAGE does not begin with a head line. */
static const char *parse_head(const char *image, size_t image_len, struct version *v, size_t *len)
{
    const char *nl = memchr(image, '\n', image_len < IMAGE_HEAD_MAX ? image_len : IMAGE_HEAD_MAX - 1);
    char head[IMAGE_HEAD_MAX];
    if (!nl)
        return NULL;
    memcpy(head, image, (size_t)(nl - image));
    head[nl - image] = '\0';
    if (sscanf(head, "sxd1 %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %zu", &v->epoch, &v->counter, &v->node,
               &v->boot, len) != 5)
        return NULL;
    return nl + 1;
}

bool image_parse(const char *image, size_t image_len, struct version *v, const char **data, size_t *len)
{
    *data = parse_head(image, image_len, v, len);
    return *data && *len == image_len - (size_t)(*data - image);
}

bool name_encode(const char *name, char out[NAME_PCT_SIZE])
{
    size_t len = strlen(name);
    if (len == 0 || len > NAME_LEN_MAX)
        return false;
    for (const char *p = name; *p; p++) {
        unsigned char c = (unsigned char)*p;
        /* '.' too is encoded: no name becomes "." or "..", or a hidden file. */
        if (c < 128 && (isalnum(c) || c == '-' || c == '_'))
            *out++ = *p;
        else
            out += snprintf(out, 4, "%%%02X", c);
    }
    *out = '\0';
    return true;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

bool name_decode(const char *pct, char out[NAME_LEN_MAX + 1])
{
    size_t n = 0;
    for (const char *p = pct; *p; p++) {
        char c = *p;
        if (c == '%') {
            int high = hex(p[1]), low = high < 0 ? -1 : hex(p[2]);
            if (low < 0 || (high == 0 && low == 0))
                return false;
            c = (char)(high * 16 + low);
            p += 2;
        }
        if (n == NAME_LEN_MAX)
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return n > 0;
}

static bool write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* The whole of DATA under NAME in DIR, or what was there before; durable when it returns 0. */
static int replace_file(int dir, const char *name, const char *data, size_t len)
{
    /* One name is enough: there is one thread, and what a crash has left is overwritten. A '.'
     * never begins an object's file name. */
    static const char tmp[] = ".tmp";
    int fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    bool ok = write_all(fd, data, len) && fsync(fd) == 0;
    int saved = errno;
    close(fd);
    if (!ok) {
        errno = saved;
        return -1;
    }
    if (renameat(dir, tmp, dir, name) || fsync(dir))
        return -1;
    return 0;
}

/* 1, 0 if there is no such file, -1 with errno. Reads at most LIMIT bytes. */
static int read_file(int dir, const char *name, struct buf *out, size_t limit)
{
    char chunk[65536];
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    for (size_t total = 0; total < limit;) {
        size_t want = limit - total < sizeof chunk ? limit - total : sizeof chunk;
        ssize_t n = read(fd, chunk, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int saved = errno;
            close(fd);
            errno = saved;
            return -1;
        }
        if (n == 0)
            break;
        total += (size_t)n;
        buf_add(out, chunk, (size_t)n, SIZE_MAX);
    }
    close(fd);
    return 1;
}

static int open_dir(int at, const char *path)
{
    if (mkdirat(at, path, 0755) && errno != EEXIST)
        return -1;
    return openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

struct store *store_open(const char *dir)
{
    struct store *s = xcalloc(1, sizeof *s);
    s->objects = -1;
    s->dir = open_dir(AT_FDCWD, dir);
    if (s->dir >= 0)
        s->objects = open_dir(s->dir, "objects");
    /* The directory's own entry must last as long as what will be put into it. What an earlier
     * process renamed and did not live to fsync is made durable too, so that it may be shown. */
    if (s->objects >= 0 && fsync(s->dir) == 0 && fsync(s->objects) == 0) {
        s->boot = store_get_number(s, "boot") + 1;
        if (store_put_number(s, "boot", s->boot) == 0)
            return s;
    }
    say("cannot open %s: %s", dir, strerror(errno));
    store_free(s);
    return NULL;
}

void store_free(struct store *s)
{
    if (s->objects >= 0)
        close(s->objects);
    if (s->dir >= 0)
        close(s->dir);
    free(s);
}

uint64_t store_boot(const struct store *s)
{
    return s->boot;
}

int store_version(struct store *s, const char *name, struct version *v)
{
    char pct[NAME_PCT_SIZE];
    struct buf head = {0};
    size_t len;

    if (!name_encode(name, pct)) {
        errno = EINVAL;
        return -1;
    }
    int got = read_file(s->objects, pct, &head, IMAGE_HEAD_MAX);
    if (got == 1 && (!head.data || !parse_head(head.data, head.len, v, &len))) {
        errno = EBADMSG;
        got = -1;
    }
    buf_free(&head);
    return got;
}

int store_read(struct store *s, const char *name, struct buf *image)
{
    char pct[NAME_PCT_SIZE];
    if (!name_encode(name, pct)) {
        errno = EINVAL;
        return -1;
    }
    return read_file(s->objects, pct, image, IMAGE_MAX);
}

int store_write(struct store *s, const char *name, const char *image, size_t len)
{
    char pct[NAME_PCT_SIZE];
    struct version v, old;
    const char *data;
    size_t data_len;

    if (!name_encode(name, pct) || !image_parse(image, len, &v, &data, &data_len)) {
        errno = EINVAL;
        return -1;
    }
    int found = store_version(s, name, &old);
    if (found < 0)
        return -1;
    /* store_open() and replace_file() have made durable whatever can be read here. */
    if (found == 1 && version_cmp(&v, &old) <= 0)
        return 0;
    return replace_file(s->objects, pct, image, len);
}

int store_list(struct store *s, char ***names, size_t *n)
{
    size_t cap = 0;
    *names = NULL;
    *n = 0;
    int fd = openat(s->objects, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    for (struct dirent *e; (e = readdir(d));) {
        char name[NAME_LEN_MAX + 1];
        if (e->d_name[0] == '.' || !name_decode(e->d_name, name))
            continue;
        if (*n == cap) {
            cap = cap ? cap * 2 : 64;
            char **grown = xcalloc(cap, sizeof *grown);
            if (*n)
                memcpy(grown, *names, *n * sizeof *grown);
            free(*names);
            *names = grown;
        }
        (*names)[(*n)++] = xstrdup(name);
    }
    closedir(d);
    return 0;
}

uint64_t store_get_number(struct store *s, const char *key)
{
    struct buf b = {0};
    uint64_t v = 0;
    if (read_file(s->dir, key, &b, 32) == 1 && b.data && !parse_u64(b.data, 0, UINT64_MAX, &v))
        die("store: the file %s is damaged", key);
    buf_free(&b);
    return v;
}

int store_put_number(struct store *s, const char *key, uint64_t value)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%" PRIu64, value);
    return replace_file(s->dir, key, text, (size_t)n);
}
