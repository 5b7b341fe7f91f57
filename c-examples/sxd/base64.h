/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Base64 (RFC 4648, padded): raftkeel's messages are bytes, and JSON has no bytes. */
#ifndef SXD_BASE64_H
#define SXD_BASE64_H

#include <stddef.h>

/* A NUL-terminated string that the caller frees. */
char *base64_encode(const void *data, size_t len);

/* The bytes, which the caller frees, and their number in *len; NULL if TEXT is not base64. */
unsigned char *base64_decode(const char *text, size_t *len);

#endif
