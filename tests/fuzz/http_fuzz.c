// Requests and answers in pieces whose sizes come from the input's first byte.
#include "net/http.h"
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	size_t step = data[0] % 64 + 1;
	struct kb_http h;
	struct kb_str v;
	char text[64];
	kb_http_init(&h, data[1] & 1, 4096);
	int r = 0;
	for (size_t at = 2; r == 0 && at < size;) {
		size_t n = size - at < step ? size - at : step, used = 0;
		r = kb_http_feed(&h, data + at, n, &used, NULL);
		if (r == 0 && used > n)
			abort();
		at += used;
		if (r || !h.is_done)
			continue;
		if (h.body.len > 4096 || h.text.len > KB_HTTP_HEADER_BYTES_MAX + KB_HTTP_URL_MAX)
			abort();
		(void)kb_http_header(&h, "content-type", &v);
		uint64_t first = 0, len = 0, total = data[0] * 1000003ull;
		if (kb_http_header(&h, "range", &v) && kb_http_range(v, total, &first, &len) == 0 &&
			(len == 0 || first >= total || len > total - first))
			abort();
		(void)!kb_http_unescape(kb_http_path(&h), text, sizeof text);
		kb_http_next(&h);
	}
	kb_http_finish(&h);
	return 0;
}
