// kb_catalog_parse and kb_catalog_file_parse must accept or refuse anything; what they accept can be walked, and is
// written as it was read where nothing from the future was passed over.
#include "storage/catalog.h"
#include <stdlib.h>
#include <string.h>

static struct kb_catalog_file file;
static struct kb_catalog_image images[KB_CATALOG_IMAGES_MAX];

static void same(const struct kb_buf *b, const uint8_t *data, size_t size)
{
	if (b->len > size || (b->len == size && memcmp(b->data, data, size) != 0))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_err err;
	struct kb_catalog c;
	struct kb_buf b = {0};
	if (kb_catalog_parse(data, size, &err, &c) == KB_OK) {
		uint32_t n = 0;
		for (size_t at = 0; kb_catalog_next(&c, &at, &images[n]); n++)
			if (at > c.images_len || images[n].model.data + images[n].model.len > (const char *)data + size)
				abort();
		if (n != c.n || kb_catalog_write(c.fleet, c.version, c.created, images, n, &err, &b) != KB_OK)
			abort();
		same(&b, data, size);
	} else if (kb_catalog_file_parse(data, size, &err, &file) == KB_OK) {
		if (kb_catalog_file_write(&file, &err, &b) != KB_OK || b.len != size)
			abort();
		same(&b, data, size);
	}
	kb_buf_finish(&b);
	return 0;
}
