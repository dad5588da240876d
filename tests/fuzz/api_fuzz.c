// A body -> a checked request -> the engine's messages; what was accepted must encode.
#include "firmware/api/request.h"
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_api_request r;
	struct kb_problem p;
	if (size < 1)
		return 0;
	enum kb_api_kind kind = data[0] & 1 ? KB_API_CHAT : KB_API_COMPLETION;
	if (kb_request_parse(kind, data + 1, size - 1, &r, &p)) {
		if (p.status < 400 || !p.text[0] || !p.type)
			abort();
		kb_request_finish(&r);
		return 0;
	}
	if (r.n * r.n_prompts == 0 || r.n * r.n_prompts > KB_ANSWER_CHOICES_MAX)
		abort();
	for (uint32_t i = 0; i < r.n * r.n_prompts; i++) {
		struct kb_msg m = {.type = KB_MSG_SUBMIT, .id = i + 1};
		struct kb_buf out = {0};
		kb_request_submit(&r, i, 42, &m.submit);
		if (kb_proto_encode(&out, &m))
			abort();
		kb_buf_finish(&out);
	}
	kb_request_finish(&r);
	return 0;
}
