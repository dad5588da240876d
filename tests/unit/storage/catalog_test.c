// Catalogs: what is written parses to the same, every cut and many changes are refused or parse, files come apart as
// they were put together.
#include "storage/catalog.h"
#include "unit/storage/keys.h"

static const uint8_t fleet[KB_ROOT_FLEET] = "fleet of tests";
static uint8_t digest[3][KB_MANIFEST_HASH];

static struct kb_catalog_image image(const char *name, uint64_t version, unsigned of)
{
	memset(digest[of], 'a' + (int)of, KB_MANIFEST_HASH);
	return (struct kb_catalog_image){{name, strlen(name)}, version, digest[of], 1000 + of};
}

static struct kb_buf written(const struct kb_catalog_image *images, uint32_t n)
{
	struct kb_buf b = {0};
	struct kb_err err = {0};
	if (kb_catalog_write(fleet, 7, 1795651200, images, n, &err, &b))
		fail_msg("%s", err.text);
	return b;
}

static void what_is_written_is_read(void **state)
{
	const struct kb_catalog_image images[] = {image("a", 3, 0), image("a-b", 1, 1), image("b", 1ull << 40, 2)};
	struct kb_buf b = written(images, 3), again = written(images, 3);
	struct kb_catalog c;
	struct kb_catalog_image found;
	struct kb_err err = {0};
	(void)state;
	assert_int_equal(b.len, again.len);
	assert_memory_equal(b.data, again.data, b.len);
	assert_int_equal(kb_catalog_parse(b.data, b.len, &err, &c), KB_OK);
	assert_int_equal(c.version, 7);
	assert_int_equal(c.created, 1795651200);
	assert_int_equal(c.n, 3);
	assert_memory_equal(c.fleet, fleet, sizeof fleet);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(kb_catalog_find(&c, images[i].model, &found));
		assert_int_equal(found.version, images[i].version);
		assert_int_equal(found.bytes, images[i].bytes);
		assert_memory_equal(found.digest, images[i].digest, KB_MANIFEST_HASH);
	}
	assert_false(kb_catalog_find(&c, (struct kb_str){"ab", 2}, &found));
	kb_buf_finish(&again);
	again = written(images, 0); // a fleet may have nothing
	assert_int_equal(kb_catalog_parse(again.data, again.len, &err, &c), KB_OK);
	assert_int_equal(c.n, 0);
	kb_buf_finish(&again);
	kb_buf_finish(&b);
}

static void what_is_wrong_is_not_written(void **state)
{
	const struct kb_catalog_image rows[][2] = {
		{image("b", 1, 0), image("a", 1, 1)}, // order
		{image("a", 1, 0), image("a", 2, 1)}, // twice
		{image("a", 0, 0), image("b", 1, 1)}, // no version
		{image("A", 1, 0), image("b", 1, 1)}, // no name
		{image("", 1, 0), image("b", 1, 1)},
	};
	struct kb_err err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct kb_buf b = {0};
		assert_int_equal(kb_catalog_write(fleet, 1, 1, rows[i], 2, &err, &b), KB_EARG);
		kb_buf_finish(&b);
	}
	struct kb_buf b = {0};
	assert_int_equal(kb_catalog_write(fleet, 0, 1, rows[0], 1, &err, &b), KB_EARG);
	kb_buf_finish(&b);
}

static void every_cut_is_refused(void **state)
{
	const struct kb_catalog_image images[] = {image("a", 3, 0), image("b", 1, 1)};
	struct kb_buf b = written(images, 2);
	struct kb_catalog c;
	struct kb_err err = {0};
	(void)state;
	for (size_t len = 0; len < b.len; len++) {
		uint8_t *copy = malloc(len ? len : 1);
		assert_non_null(copy);
		memcpy(copy, b.data, len);
		if (kb_catalog_parse(copy, len, &err, &c) != KB_EBAD)
			fail_msg("cut at %zu: accepted", len);
		free(copy);
	}
	// A field from the future: even ones are passed over, odd ones are not.
	static const uint8_t even[] = {8, 0, 0, 0, 1, 0, 0, 0, 'x'}, odd[] = {9, 0, 0, 0, 1, 0, 0, 0, 'x'};
	assert_int_equal(kb_buf_append(&b, even, sizeof even), 0);
	assert_int_equal(kb_catalog_parse(b.data, b.len, &err, &c), KB_OK);
	assert_int_equal(kb_buf_append(&b, odd, sizeof odd), 0);
	assert_int_equal(kb_catalog_parse(b.data, b.len, &err, &c), KB_EUNSUPPORTED);
	kb_buf_finish(&b);
}

static void files_come_apart(void **state)
{
	const struct kb_catalog_image images[] = {image("a", 3, 0)};
	static const uint8_t block[64] = KB_SIGNATURES_NONE;
	struct kb_signer *key = new_signer(KB_CURVE_P256);
	struct kb_buf root = {0}, catalog = written(images, 1), file = {0};
	struct kb_catalog_file *f = calloc(1, sizeof *f);
	struct kb_err err = {0};
	(void)state;
	assert_non_null(f);
	one_key_root(key, 1, false, &root);
	f->chain.n = 1;
	f->chain.roots[0] = signed_of(&root, block, sizeof block);
	f->catalog = signed_of(&catalog, block, sizeof block);
	assert_int_equal(kb_catalog_file_write(f, &err, &file), KB_OK);
	memset(f, 0, sizeof *f);
	assert_int_equal(kb_catalog_file_parse(file.data, file.len, &err, f), KB_OK);
	assert_int_equal(f->catalog.len, catalog.len);
	assert_memory_equal(f->catalog.bytes, catalog.data, catalog.len);
	for (size_t len = 0; len < file.len; len++)
		if (kb_catalog_file_parse(file.data, len, &err, f) != KB_EBAD)
			fail_msg("cut at %zu: accepted", len);
	assert_int_equal(kb_buf_append(&file, "", 1), 0);
	assert_int_equal(kb_catalog_file_parse(file.data, file.len, &err, f), KB_EBAD);
	free(f);
	kb_buf_finish(&file);
	kb_buf_finish(&catalog);
	kb_buf_finish(&root);
	kb_signer_close(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(what_is_wrong_is_not_written),
		cmocka_unit_test(every_cut_is_refused),
		cmocka_unit_test(files_come_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
