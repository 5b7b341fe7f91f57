/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "place.h"

#include "util.h"

/* FNV-1a, finished with a multiply-xorshift: on its own it moves its high bits too little for ids
 * that differ in one byte. */
static uint64_t score(const char *name, uint64_t node)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    for (int i = 0; i < 8; i++)
        h = (h ^ (node >> (8 * i) & 0xff)) * UINT64_C(0x100000001b3);
    h = (h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93);
    h = (h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

size_t place_owners(const char *name, const uint64_t *members, size_t n, size_t replicas,
                    uint64_t out[MEMBERS_MAX])
{
    uint64_t scores[MEMBERS_MAX];
    size_t count = 0;

    if (n > MEMBERS_MAX || replicas == 0)
        die("place: %zu members, %zu replicas", n, replicas);
    for (size_t i = 0; i < n; i++) {
        uint64_t s = score(name, members[i]);
        size_t at = count;
        while (at > 0 && (scores[at - 1] < s || (scores[at - 1] == s && out[at - 1] > members[i])))
            at--;
        if (at == replicas)
            continue;
        size_t last = count < replicas ? count++ : replicas - 1;
        for (size_t j = last; j > at; j--) {
            scores[j] = scores[j - 1];
            out[j] = out[j - 1];
        }
        scores[at] = s;
        out[at] = members[i];
    }
    return count;
}
