// A line of input: edited with history on a terminal (libedit), read plainly from a pipe.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include <stdbool.h>

#define KB_CTL_HISTORY_MAX 1000 // lines kept

struct kb_ctl_editor;

// history: its file, 0600, or NULL for none; a file that cannot be read starts empty. Call setlocale() before.
KB_MUST_CHECK int kb_ctl_editor_create(
	bool is_terminal, const char *history, struct kb_ctl_editor **ret, struct kb_err *err);
// Writes the history. NULL is fine.
void kb_ctl_editor_destroy(struct kb_ctl_editor *e);
// The next line without its line break, NUL-terminated. KB_ECLOSED: the end of input (Ctrl-D). KB_ECANCELLED: Ctrl-C,
// the line is dropped.
KB_MUST_CHECK int kb_ctl_editor_read(struct kb_ctl_editor *e, const char *prompt, struct kb_buf *ret_line);
void kb_ctl_editor_remember(struct kb_ctl_editor *e, const char *line);
