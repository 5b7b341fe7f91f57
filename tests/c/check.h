/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What every test program here says when something is not as it should be. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

#include "raftkeel.h"

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: not so: %s [keel_errmsg: %s]\n", __FILE__, __LINE__,       \
                    #condition, keel_errmsg());                                                \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* A call that must return this code, and say why if it is a failure. */
#define CHECK_CODE(call, wanted)                                                               \
    do {                                                                                       \
        int code_ = (call);                                                                    \
        if (code_ != (wanted) || (code_ < 0 && keel_errmsg()[0] == '\0')) {                    \
            fprintf(stderr, "%s:%d: %s gives %d (%s: %s), not %d\n", __FILE__, __LINE__,       \
                    #call, code_, keel_strerror(code_), keel_errmsg(), (wanted));              \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

#endif
