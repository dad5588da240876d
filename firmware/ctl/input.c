/* see input.h */
#include "firmware/ctl/input.h"

#include <string.h>

#define FENCE "\"\"\""

static bool ends_with_fence(const char *line, size_t len)
{
	return len >= 3 && memcmp(line + len - 3, FENCE, 3) == 0;
}

static size_t trimmed(const char *line)
{
	size_t len = strlen(line);
	while (len > 0 && (line[len - 1] == ' ' || line[len - 1] == '\t'))
		len--;
	return len;
}

static int finish(struct kb_ctl_input *in, bool *ret_done)
{
	in->is_block = in->is_open = false;
	*ret_done = true;
	return kb_buf_cstr(&in->text) ? 0 : KB_ENOMEM;
}

// Inside a block, or just after its opening fence.
static int block_line(struct kb_ctl_input *in, const char *line, bool is_first, bool *ret_done)
{
	size_t len = trimmed(line);
	bool is_last = ends_with_fence(line, len);
	len = is_last ? len - 3 : strlen(line);
	// The fences' own lines add no empty line.
	bool is_empty_edge = len == 0 && (is_first || is_last);
	int r = 0;
	if (!is_empty_edge && in->text.len > 0)
		r = kb_buf_puts(&in->text, "\n");
	if (r == 0)
		r = kb_buf_append(&in->text, line, len);
	return r == 0 && is_last ? finish(in, ret_done) : r;
}

/* see input.h */
int kb_ctl_input_line(struct kb_ctl_input *in, const char *line, bool *ret_done)
{
	*ret_done = false;
	if (in->is_block)
		return block_line(in, line, false, ret_done);
	size_t indent = strspn(line, " \t");
	if (!in->is_open && strncmp(line + indent, FENCE, 3) == 0) {
		in->is_block = in->is_open = in->is_quoted = true;
		return block_line(in, line + indent + 3, true, ret_done);
	}
	size_t len = strlen(line);
	bool goes_on = len > 0 && line[len - 1] == '\\';
	int r = kb_buf_append(&in->text, line, goes_on ? len - 1 : len);
	if (r == 0 && goes_on) {
		in->is_open = true;
		return kb_buf_puts(&in->text, "\n");
	}
	return r == 0 ? finish(in, ret_done) : r;
}

bool kb_ctl_input_end(struct kb_ctl_input *in)
{
	bool has_text = in->is_open && in->text.len > 0 && kb_buf_cstr(&in->text);
	in->is_block = in->is_open = false;
	return has_text;
}

void kb_ctl_input_reset(struct kb_ctl_input *in)
{
	in->text.len = 0;
	in->is_block = in->is_open = in->is_quoted = false;
}
