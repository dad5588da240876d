// kb_proto_decode must accept or refuse anything; what it accepts must encode to the same bytes again.
#include "proto/proto.h"

#include <stdlib.h>
#include <string.h>

static void check(const uint8_t *data, const struct kb_msg *m, size_t used)
{
	struct kb_buf out = {0};
	if (kb_proto_encode(&out, m) != 0 || out.len != used || memcmp(out.data, data, used) != 0)
		abort();
	kb_buf_finish(&out);
	if (m->type != KB_MSG_SUBMIT)
		return;
	uint32_t n = 0;
	size_t cursor = 0;
	struct kb_chat_message message;
	while (kb_proto_next_message(&m->submit, &cursor, &message))
		n++;
	if (n != m->submit.n_messages || cursor != m->submit.messages_len)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t at = 0, used;
	struct kb_msg m;
	while (at < size && kb_proto_decode(data + at, size - at, &m, &used) == 0) {
		check(data + at, &m, used);
		at += used;
	}
	return 0;
}
