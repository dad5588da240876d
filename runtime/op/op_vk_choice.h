// Whether a small step runs as chains (op_vk_chain.c) or as dispatches of their own: the same bits, in different time.
// A chain is far quicker as long as every thread has a core to itself. Where other programs take cores away, its groups
// wait for each other at every op, while single dispatches let whoever is there do the work. So both are recorded, and
// which one runs is decided from measured times. Pure: no clock of its own.
#pragma once
#include <stdint.h>

enum { KB_RUN_CHAINED, KB_RUN_APART, KB_RUNS };

// Zeroed: chained, nothing known.
struct kb_choice {
	double ns[KB_RUNS]; // smoothed; 0: not measured
	double least;       // chained, undisturbed: the least so far, rising slowly as contexts grow
	uint32_t now;       // the one in use
	uint32_t since;     // runs since the other was tried
};

// Which one the next run is to be.
uint32_t kb__choice_next(const struct kb_choice *c);
// What it took.
void kb__choice_ran(struct kb_choice *c, uint32_t kind, double ns);
