// What other machines say is data: on a terminal it must not move the cursor, set titles or answer back.
#pragma once
#include "base/buf.h"
#include <stdbool.h>
#include <stdio.h>

// Appends text without control characters other than \n and \t (C0, DEL, C1 in UTF-8), and with what is not UTF-8
// replaced by U+FFFD. Pieces must end at character borders.
KB_MUST_CHECK int kb_ctl_text_clean(struct kb_buf *out, const char *text, size_t len);
// Writes it to f, cleaned where is_terminal, and flushes. KB_ECLOSED where f takes no more.
KB_MUST_CHECK int kb_ctl_text_write(FILE *f, const char *text, size_t len, bool is_terminal);
// Prints it on standard output, cleaned, without line breaks, at most max bytes of it; a longer one's length is said.
void kb_ctl_text_line(const char *text, size_t len, size_t max);
