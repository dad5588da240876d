// The parts of an image's reader that see foreign bytes: records, and LMDB's pages. The first byte picks which.
#include "storage/pages.h"
#include "storage/record.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void tensor(const uint8_t *data, size_t size)
{
	struct kb_image_tensor t;
	struct kb_err err;
	if (kb_record_tensor_decode((struct kb_str){"w", 1}, data, size, &err, &t) != 0)
		return;
	if (t.rows == 0 || t.cols == 0 || t.bytes != kb_record_tensor_bytes(t.format, t.rows, t.cols) || !t.source)
		abort();
}

static void meta(const uint8_t *data, size_t size)
{
	struct kb_image_meta m;
	struct kb_err err;
	struct kb_str s;
	size_t cursor = 0;
	if (kb_record_meta_decode((struct kb_str){"key", 3}, data, size, &err, &m) != 0)
		return;
	if (m.encoded.len + 4 != size || m.value.data + m.value.len != data + size)
		abort();
	uint64_t strings = 0;
	while (m.value.type == KB_META_STRING && kb_meta_array_next_str(&m.value, &cursor, &s))
		strings++;
	if (m.value.type == KB_META_STRING && strings != m.value.count)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_record_info info;
	struct kb_err err;
	if (size == 0)
		return 0;
	// A copy of its own, so that the sanitizer guards its end.
	uint8_t *copy = malloc(size);
	memcpy(copy, data + 1, --size);
	switch (data[0] % 4) {
	case 0:
		if (kb_record_info_decode(copy, size, &err, &info) == 0 && info.format != KB_IMAGE_FORMAT)
			abort();
		break;
	case 1:
		tensor(copy, size);
		break;
	case 2:
		meta(copy, size);
		break;
	default:
		if (kb_pages_check(copy, size, &err) != 0 && err.code == 0)
			abort();
	}
	free(copy);
	return 0;
}
