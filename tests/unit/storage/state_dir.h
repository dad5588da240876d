// An empty environment of the daemon in the test's scratch directory.
#pragma once
#include "harness/kt.h"
#include "storage/state.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char state_path[512];

static inline struct kb_state *open_state(void)
{
	struct kb_err err;
	struct kb_state *s = NULL;
	if (kb_state_open(state_path, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

static inline struct kb_state *fresh_state(void)
{
	char lock[600];
	const char *dir = getenv("KB_TMP");
	snprintf(state_path, sizeof state_path, "%s/state.mdb", dir ? dir : ".");
	snprintf(lock, sizeof lock, "%s-lock", state_path);
	unlink(state_path);
	unlink(lock);
	return open_state();
}
