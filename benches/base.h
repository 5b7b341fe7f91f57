/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What every program that measures needs. */
#ifndef BASE_H
#define BASE_H

#include <stdint.h>
#include <sys/types.h>

/* CLOCK_MONOTONIC, which all processes share. */
uint64_t now_ns(void);
void sleep_ms(long ms);

/* As fork(), of a child that ends with its parent: nobody stays behind, however a measurement ends. */
pid_t fork_child(void);

/* Says what failed and why, and exits: errno if it is set, else what the program knows. */
_Noreturn void die(const char *what);
/* Of the library that the program measures: why its last call failed. Each program has its own. */
const char *failure_detail(void);

#endif
