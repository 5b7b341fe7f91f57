/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* fsync() and fdatasync() of the whole process: counted, delayed, and failed. */
#ifndef CONFORMANCE_SYNCS_H
#define CONFORMANCE_SYNCS_H

/* From now on every call takes so much longer; 0: as long as it takes. */
void syncs_delay(unsigned ms);
/* So many calls from now on fail with EIO. */
void syncs_fail(unsigned calls);
/* How many calls have begun so far. */
unsigned long syncs_begun(void);
/* Whether one has succeeded that began after the first `begun`. */
int synced_since(unsigned long begun);

#endif
