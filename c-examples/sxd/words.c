/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "words.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *words(const char *text)
{
    static char out[1024];
    size_t at = 0;
    char before = ' ';

    for (const char *p = text; *p && at + sizeof "node " < sizeof out; before = *p++) {
        size_t digits = *p == 'n' ? strspn(p + 1, "0123456789") : 0;
        if (digits && !isalnum((unsigned char)before) && before != '_' && !isalnum((unsigned char)p[1 + digits])) {
            memcpy(out + at, "node ", 5);
            at += 5;
        } else {
            out[at++] = *p;
        }
    }
    out[at] = '\0';
    return out;
}

const char *guard_code(int guard)
{
    static const char *const names[] = {"", "DISABLED", "NOT_LEADER_FRESH", "LISTENER_UNHEALTHY", "NO_QUORUM_AFTER",
                                        "MIN_NODES", "VETO", "INITDEAD", "SETTLING"};
    return guard >= 0 && (size_t)guard < sizeof names / sizeof *names ? names[guard] : "UNKNOWN";
}

/* What this daemon's own guard, or the leader's, has said: the end of the notice. */
static const char *veto_words(const keel_info *info)
{
    const char *code = strstr(info->notice, "VETO: ");
    return code ? words(code + strlen("VETO: ")) : "the daemon at the leader does not allow it";
}

static void initdead_words(const keel_info *info, const keel_node *n, char *out, size_t cap)
{
    if (n->silent_ms == UINT32_MAX)
        snprintf(out, cap, "not heard since node %" PRIu64 " started (hb_initdead %" PRIu32 ")", info->self,
                 info->hb_initdead_ms / 1000);
    else
        snprintf(out, cap, "a node has not heard it since that node started (hb_initdead %" PRIu32 ")",
                 info->hb_initdead_ms / 1000);
}

static void reason(const keel_info *info, const keel_node *n, char *out, size_t cap)
{
    switch (n->blocked_by) {
    case KEEL_GUARD_DISABLED:
        snprintf(out, cap, "automatic exclusion is off (hb_deadtime 0)");
        break;
    case KEEL_GUARD_NOT_LEADER_FRESH:
        snprintf(out, cap, info->has_quorum ? "the leader is too new to decide it"
                                            : "there is no leader that a majority has confirmed");
        break;
    case KEEL_GUARD_LISTENER_UNHEALTHY:
        snprintf(out, cap, "the node that judges was itself paused or deaf a moment ago");
        break;
    case KEEL_GUARD_NO_QUORUM_AFTER:
        snprintf(out, cap, "the others would be no majority (%" PRIu32 " of %" PRIu32 " voters heard, %" PRIu32 " needed)",
                 info->voters_heard, info->voters, info->quorum);
        break;
    case KEEL_GUARD_MIN_NODES:
        snprintf(out, cap, "fewer than %" PRIu32 " nodes would remain", info->min_nodes);
        break;
    case KEEL_GUARD_VETO:
        snprintf(out, cap, "%s", veto_words(info));
        break;
    case KEEL_GUARD_INITDEAD:
        initdead_words(info, n, out, cap);
        break;
    case KEEL_GUARD_SETTLING:
        snprintf(out, cap, "waiting whether other nodes have died with it (at most %" PRIu32 " seconds)",
                 (info->settle_ms + 999) / 1000);
        break;
    default:
        snprintf(out, cap, "a reason that this sxd does not know");
    }
}

void guard_words(const keel_info *info, const keel_node *n, char *out, size_t cap)
{
    char why[256];

    out[0] = '\0';
    if (n->blocked_by == KEEL_GUARD_NONE)
        return;
    reason(info, n, why, sizeof why);
    snprintf(out, cap, "%s [%s]", why, guard_code(n->blocked_by));
}

void notice_words(const keel_status *s, char *out, size_t cap)
{
    const keel_info *info = keel_status_info(s);
    const keel_node *first = NULL;
    char ids[256] = "", why[320];
    size_t at = 0;

    out[0] = '\0';
    if (!info->notice[0])
        return;
    for (size_t i = 0; i < keel_status_count(s); i++) {
        const keel_node *n = keel_status_node(s, i);
        if (n->blocked_by == KEEL_GUARD_NONE || (first && n->blocked_by != first->blocked_by))
            continue;
        int len = snprintf(ids + at, sizeof ids - at, "%snode %" PRIu64, first ? ", " : "", n->id);
        at += len > 0 && (size_t)len < sizeof ids - at ? (size_t)len : 0;
        first = first ? first : n;
    }
    if (!first) {
        snprintf(out, cap, "%s", words(info->notice));
        return;
    }
    guard_words(info, first, why, sizeof why);
    snprintf(out, cap, "%s: %s", ids, why);
}
