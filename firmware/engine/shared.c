#include "firmware/engine/shared.h"
#include "firmware/engine/prompt.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

int kb_shared_read(const char *path, struct kb_err *err, struct kb_buf *ret)
{
	FILE *f = fopen(path, "re");
	if (!f)
		return kb_fail(err, KB_EIO, "the shared system prompt %s cannot be opened: %s", path, strerror(errno));
	int rc = kb_buf_reserve(ret, KB_SHARED_SYSTEM_MAX + 1);
	if (rc == 0)
		ret->len = fread(ret->data, 1, KB_SHARED_SYSTEM_MAX + 1, f);
	if (rc)
		kb_fail(err, rc, "out of memory for the shared system prompt");
	else if (ferror(f))
		rc = kb_fail(err, KB_EIO, "the shared system prompt %s cannot be read", path);
	else if (ret->len > KB_SHARED_SYSTEM_MAX)
		rc = kb_fail(err, KB_ELIMIT, "the shared system prompt %s has more than %u bytes", path, KB_SHARED_SYSTEM_MAX);
	fclose(f);
	while (rc == 0 && ret->len > 0 && (ret->data[ret->len - 1] == '\n' || ret->data[ret->len - 1] == '\r'))
		ret->len--;
	return rc;
}

static int chat_tokens(
	const struct kb_engine *e, struct kb_str system, const char *user, struct kb_err *err, struct kb_buf *ret)
{
	struct kb_buf list = {0};
	int rc = kb_proto_add_message(&list, (struct kb_str){"system", 6}, system);
	if (rc == 0)
		rc = kb_proto_add_message(&list, (struct kb_str){"user", 4}, (struct kb_str){user, strlen(user)});
	if (rc)
		kb_fail(err, rc, "the shared system prompt: %s", kb_err_message(rc));
	const struct kb_msg_submit m = {
		.kind = KB_PROMPT_CHAT, .n_messages = 2, .messages = list.data, .messages_len = list.len};
	if (rc == 0)
		rc = kb_prompt_tokens(e, &m, err, ret);
	kb_buf_finish(&list);
	return rc;
}

int kb_shared_tokens(const struct kb_engine *e, struct kb_str system, struct kb_err *err, struct kb_buf *ret)
{
	// What two chats with nothing else in common have in common; where frames put the system prompt is their business.
	struct kb_buf other = {0};
	int rc = chat_tokens(e, system, "a", err, ret);
	if (rc == 0)
		rc = chat_tokens(e, system, "9", err, &other);
	size_t n = 0;
	while (rc == 0 && n + 4 <= ret->len && n + 4 <= other.len && memcmp(ret->data + n, other.data + n, 4) == 0)
		n += 4;
	ret->len = n;
	kb_buf_finish(&other);
	return rc;
}
