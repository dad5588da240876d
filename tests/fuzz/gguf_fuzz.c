// kb_gguf_parse must accept or refuse anything, and what it accepts must be inside the file.
#include "storage/gguf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_gguf g;
	struct kb_err err;
	if (kb_gguf_parse(data, size, size, &err, &g) != 0)
		return 0;
	for (uint32_t i = 0; i < g.n_tensors; i++) {
		const struct kb_gguf_tensor *t = &g.tensors[i];
		if (t->offset < g.data_offset || t->bytes > size || t->offset > size - t->bytes || t->rows == 0 || t->cols == 0)
			abort();
	}
	for (uint32_t i = 0; i < g.n_meta; i++) {
		struct kb_meta_value v;
		const struct kb_str e = g.meta[i].encoded;
		if (kb_gguf_value_parse((const uint8_t *)e.data, e.len, "again", &err, &v) != 0 ||
			v.count != g.meta[i].value.count)
			abort();
	}
	kb_gguf_finish(&g);
	return 0;
}
