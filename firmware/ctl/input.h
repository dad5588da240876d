// Lines of a person become one message: a line that ends with a backslash goes on, and """ brackets a block.
#pragma once
#include "base/buf.h"
#include <stdbool.h>

// Zero-initialise; kb_buf_finish(&text) at the end.
struct kb_ctl_input {
	struct kb_buf text;
	bool is_block;  // between """ and """
	bool is_open;   // the message goes on
	bool is_quoted; // it came as a block: what is in it is no command
};

// One line without its line break. *ret_done: text holds the whole message (NUL-terminated, not counted); reset()
// before the next one.
KB_MUST_CHECK int kb_ctl_input_line(struct kb_ctl_input *in, const char *line, bool *ret_done);
// The end of input: true where an unfinished message is in text.
bool kb_ctl_input_end(struct kb_ctl_input *in);
void kb_ctl_input_reset(struct kb_ctl_input *in);
