// How far work has come: one line that is redrawn on a terminal, a line for every tenth elsewhere.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct kb_ctl_progress {
	FILE *out;
	bool is_terminal;
	const char *label; // "importing x"
	uint64_t started_ms, drawn_ms;
	int tenth; // the last one said, -1: none
	bool is_drawn;
};

void kb_ctl_progress_begin(struct kb_ctl_progress *p, FILE *out, bool is_terminal, const char *label, uint64_t now_ms);
// At most ten times a second on a terminal, however often it is called. total may be 0: nothing is known yet.
void kb_ctl_progress_step(struct kb_ctl_progress *p, uint64_t done, uint64_t total, const char *what, uint64_t now_ms);
// Leaves the line; harmless where nothing was drawn.
void kb_ctl_progress_end(struct kb_ctl_progress *p);

// "12 MB", "1.5 GB": decimal units, as disks are sold.
const char *kb_ctl_bytes(uint64_t n, char ret[static 16]);
