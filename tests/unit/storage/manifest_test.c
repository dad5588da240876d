// Manifests: one way to write each, and every way to get one wrong has its error.
#include "storage/manifest.h"
#include "unit/storage/expect.h"

static const uint8_t root[KB_MANIFEST_HASH] = {1, 2, 3}, base[KB_MANIFEST_HASH] = {4, 5, 6};

static struct kb_str str(const char *s)
{
	return (struct kb_str){s, strlen(s)};
}

static struct kb_manifest sample(void)
{
	return (struct kb_manifest){
		.model = str("office-7b"),
		.version = 3,
		.kind = KB_MANIFEST_MODEL,
		.created = 1795651200,
		.family = str("llama"),
		.licence = str("Apache-2.0"),
		.origin = str("言箱株式会社"),
		.min_firmware = 1,
		.device_memory = 5ull << 30,
		.payload_bytes = (1ull << 32) + 1,
		.payload_root = root,
	};
}

static size_t write_sample(const struct kb_manifest *m, uint8_t bytes[4096])
{
	struct kb_err err = {0};
	size_t len = 0;
	if (kb_manifest_write(m, 4096, &err, bytes, &len) != KB_OK)
		fail_msg("%s", err.text);
	return len;
}

static void written_is_read(void **state)
{
	uint8_t bytes[4096], again[4096];
	struct kb_manifest m = sample(), n;
	struct kb_err err = {0};
	(void)state;
	size_t len = write_sample(&m, bytes);
	assert_int_equal(kb_manifest_parse(bytes, len, &err, &n), KB_OK);
	assert_int_equal(n.version, 3);
	assert_int_equal(n.payload_bytes, (1ull << 32) + 1);
	assert_memory_equal(n.payload_root, root, sizeof root);
	assert_null(n.base);
	assert_int_equal(n.origin.len, strlen("言箱株式会社"));
	assert_int_equal(n.recipe.len, 0);
	assert_int_equal(write_sample(&n, again), len);
	assert_memory_equal(again, bytes, len);
	m.kind = KB_MANIFEST_ADAPTER;
	m.base = base;
	len = write_sample(&m, bytes);
	assert_int_equal(kb_manifest_parse(bytes, len, &err, &n), KB_OK);
	assert_memory_equal(n.base, base, sizeof base);
	assert_int_equal(kb_manifest_role(&n), KB_ROLE_MODEL);
	m.kind = KB_MANIFEST_OS;
	m.base = NULL;
	m.floor = 2;
	len = write_sample(&m, bytes);
	assert_int_equal(kb_manifest_parse(bytes, len, &err, &n), KB_OK);
	assert_int_equal(n.floor, 2);
	assert_int_equal(kb_manifest_role(&n), KB_ROLE_OS);
	memset(bytes + len - 8, 0, 8); // the floor, the last field: 0 is written by leaving it out
	assert_int_equal(kb_manifest_parse(bytes, len, &err, &n), KB_EBAD);
}

// tests/data/make_manifest_corpus.py writes the same from docs/images.md alone.
static void another_program_writes_the_same(void **state)
{
	static const struct {
		const char *name;
		int code;
	} rows[] = {{"model", KB_OK}, {"adapter", KB_OK}, {"all", KB_OK}, {"from-the-future", KB_OK},
		{"must-understand", KB_EUNSUPPORTED}, {"twice", KB_EBAD}, {"cut", KB_EBAD}, {"no-root", KB_EBAD},
		{"bad-text", KB_EBAD}, {"bad-name", KB_EBAD}, {"base-of-model", KB_EBAD}};
	uint8_t bytes[4096];
	char path[128];
	struct kb_manifest m;
	struct kb_err err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		size_t len;
		snprintf(path, sizeof path, "tests/fuzz/corpus/manifest/%s", rows[i].name);
		uint8_t *other = read_file(path, &len);
		assert_int_equal(kb_manifest_parse(other, len, &err, &m), rows[i].code);
		if (rows[i].code == KB_OK && strcmp(rows[i].name, "from-the-future") != 0) {
			assert_int_equal(write_sample(&m, bytes), len);
			assert_memory_equal(bytes, other, len);
		}
		free(other);
	}
}

static void what_cannot_be_is_not_written(void **state)
{
	uint8_t bytes[4096];
	size_t len;
	struct kb_err err;
	struct kb_manifest rows[11];
	static const char *const names[] = {
		"model", "model", "version", "kind", "base", "base", "payload_bytes", "licence", "floor", "floor", "base"};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		rows[i] = sample();
	rows[0].model = (struct kb_str){0};
	rows[1].model = str("../x");
	rows[2].version = 0;
	rows[3].kind = KB_MANIFEST_KINDS;
	rows[4].base = base;
	rows[5].kind = KB_MANIFEST_ADAPTER;
	rows[6].payload_bytes = 1ull << 63;
	rows[7].licence = str("a\nb");
	rows[8].floor = 1; // of a model
	rows[9].kind = rows[10].kind = KB_MANIFEST_OS;
	rows[9].floor = rows[9].version + 1;
	rows[10].base = base;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		assert_int_equal(kb_manifest_write(&rows[i], sizeof bytes, &err, bytes, &len), KB_EARG);
		assert_non_null(strstr(err.text, names[i]));
	}
	rows[0] = sample();
	for (size_t room = 0; room < write_sample(&rows[0], bytes); room++) {
		uint8_t small[4096];
		assert_int_equal(kb_manifest_write(&rows[0], room, &err, small, &len), KB_ELIMIT);
	}
}

static int parse(const uint8_t *bytes, size_t len, struct kb_err *err)
{
	struct kb_manifest m;
	return kb_manifest_parse(bytes, len, err, &m);
}

static void put_field(uint8_t *bytes, size_t *len, uint16_t tag, const char *value)
{
	uint8_t head[8] = {(uint8_t)tag, (uint8_t)(tag >> 8), 0, 0, (uint8_t)strlen(value), 0, 0, 0};
	memcpy(bytes + *len, head, 8);
	memcpy(bytes + *len + 8, value, strlen(value));
	*len += 8 + strlen(value);
}

static void hostile_ones_are_refused(void **state)
{
	uint8_t bytes[4096], cut[4096];
	struct kb_manifest m = sample();
	struct kb_err err = {0};
	(void)state;
	size_t len = write_sample(&m, bytes);
	// Cut anywhere: a field is cut or one that is needed is missing.
	for (size_t n = 0; n < len; n++) {
		memcpy(cut, bytes, n);
		assert_int_equal(parse(cut, n, &err), KB_EBAD);
	}
	// The first field once more, right behind itself and at the end.
	size_t first = 8 + strlen("office-7b");
	memcpy(cut, bytes, 8 + first);
	memcpy(cut + 8 + first, bytes + 8, len - 8);
	assert_int_equal(parse(cut, len + first, &err), KB_EBAD);
	assert_non_null(strstr(err.text, "twice"));
	memcpy(cut, bytes, len);
	memcpy(cut + len, bytes + 8, first);
	assert_int_equal(parse(cut, len + first, &err), KB_EBAD);
	// From the future: an even tag may be passed over, an odd one not.
	memcpy(cut, bytes, len);
	size_t longer = len;
	put_field(cut, &longer, 1000, "later");
	assert_int_equal(parse(cut, longer, &err), KB_OK);
	longer = len;
	put_field(cut, &longer, 1001, "later");
	assert_int_equal(parse(cut, longer, &err), KB_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "newer firmware"));
	assert_int_equal(parse(bytes, KB_MANIFEST_MAX + 1, &err), KB_ELIMIT); // by its length alone
	// The reserved bytes, and every length by one bit.
	for (size_t at = 8; at < len;) {
		size_t n = bytes[at + 4] | (size_t)bytes[at + 5] << 8;
		for (size_t bit = 16; bit < 64; bit++) {
			memcpy(cut, bytes, len);
			cut[at + bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_int_not_equal(parse(cut, len, &err), KB_OK);
		}
		at += 8 + n;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_is_read),
		cmocka_unit_test(another_program_writes_the_same),
		cmocka_unit_test(what_cannot_be_is_not_written),
		cmocka_unit_test(hostile_ones_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
