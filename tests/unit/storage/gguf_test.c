// Oracle: gguf-py's reading of files that gguf-py wrote (tests/data/make_gguf_fixtures.py).
#include "base/buf.h"
#include "base/limits.h"
#include "storage/gguf.h"
#include "unit/storage/expect.h"

static void reads_what_gguf_py_wrote(void **state)
{
	(void)state;
	static const char *const names[] = {"kinds", "small"};
	for (size_t k = 0; k < 2; k++) {
		char path[64];
		size_t len;
		struct kb_gguf g;
		struct kb_err err = {0};
		snprintf(path, sizeof path, "tests/data/gguf/%s.gguf", names[k]);
		uint8_t *bytes = read_file(path, &len);
		snprintf(path, sizeof path, "tests/data/gguf/%s.txt", names[k]);
		struct expect *e = expect_read(path);
		if (kb_gguf_parse(bytes, len, len, &err, &g))
			fail_msg("%s: %s", names[k], err.text);
		assert_int_equal(g.version, 3);
		assert_int_equal(g.alignment, k == 0 ? 32 : 64);
		assert_int_equal(g.n_meta, e->n_meta);
		assert_int_equal(g.n_tensors, e->n_tensors);
		for (uint32_t i = 0; i < g.n_meta; i++) {
			assert_int_equal(g.meta[i].key.len, strlen(e->meta[i].key));
			assert_memory_equal(g.meta[i].key.data, e->meta[i].key, g.meta[i].key.len);
			assert_int_equal(g.meta[i].encoded.len, e->meta[i].len);
			assert_memory_equal(g.meta[i].encoded.data, e->meta[i].value, e->meta[i].len);
		}
		for (uint32_t i = 0; i < g.n_tensors; i++) {
			const struct kb_gguf_tensor *t = &g.tensors[i];
			const struct expect_tensor *x = &e->tensors[i];
			uint32_t crc = 0;
			float *row = malloc(t->cols * sizeof *row);
			assert_int_equal(t->name.len, strlen(x->name));
			assert_memory_equal(t->name.data, x->name, t->name.len);
			assert_int_equal(t->kind->type, x->type);
			assert_int_equal(t->n_dims, x->n_dims);
			assert_memory_equal(t->dims, x->dims, sizeof t->dims);
			assert_int_equal(t->rows, x->dims[1] * x->dims[2] * x->dims[3]);
			for (uint32_t r = 0; r < t->rows; r++) {
				kb_ggml_decode_row(t->kind, bytes + t->offset + t->bytes / t->rows * r, t->cols, row);
				crc = crc32_of(crc, row, t->cols * sizeof *row);
			}
			assert_int_equal(crc, x->crc);
			free(row);
		}
		kb_gguf_finish(&g);
		free(bytes);
		free(e);
	}
}

static void finds_typed_values(void **state)
{
	(void)state;
	size_t len;
	struct kb_gguf g;
	uint64_t u;
	double d;
	bool b;
	struct kb_str s;
	struct kb_meta_value v;
	uint8_t *bytes = read_file("tests/data/gguf/kinds.gguf", &len);
	assert_int_equal(kb_gguf_parse(bytes, len, len, NULL, &g), 0);
	struct kb_meta_source m = kb_gguf_meta_source(&g);
	assert_int_equal(kb_meta_u64(&m, "test.u64", &u), 0);
	assert_true(u == UINT64_MAX);
	assert_int_equal(kb_meta_u64(&m, "test.u16", &u), 0);
	assert_int_equal(u, 60000);
	assert_int_equal(kb_meta_f64(&m, "test.i32", &d), 0);
	assert_true(d == -2e9);
	assert_int_equal(kb_meta_f64(&m, "test.f64", &d), 0);
	assert_true(d == 0.1);
	assert_int_equal(kb_meta_bool(&m, "test.bool", &b), 0);
	assert_true(b);
	assert_int_equal(kb_meta_str(&m, "general.name", &s), 0);
	assert_int_equal(s.len, strlen("Every kind, 言箱"));
	assert_int_equal(m.find(m.ctx, "test.nothing", &v), KB_ENOTFOUND);
	assert_int_equal(m.find(m.ctx, "tokenizer.ggml.tokens", &v), 0);
	assert_true(v.is_array && v.type == KB_META_STRING && v.count == 5);
	size_t cursor = 0, n = 0;
	while (kb_meta_array_next_str(&v, &cursor, &s))
		n++;
	assert_int_equal(n, 5);
	assert_true(s.len == 1 && s.data[0] == 0);
	kb_gguf_finish(&g);
	free(bytes);
}

// Every prefix, in a buffer of exactly its size (the sanitizer guards its end).
static void refuses_every_truncation(void **state)
{
	(void)state;
	size_t len;
	uint8_t *bytes = read_file("tests/data/gguf/small.gguf", &len);
	struct kb_gguf g;
	assert_int_equal(kb_gguf_parse(bytes, len, len, NULL, &g), 0);
	size_t end = 0, head = g.data_offset;
	for (uint32_t i = 0; i < g.n_tensors; i++)
		if (g.tensors[i].offset + g.tensors[i].bytes > end)
			end = g.tensors[i].offset + g.tensors[i].bytes;
	kb_gguf_finish(&g);
	for (size_t n = 0; n < end; n++) {
		uint8_t *part = malloc(n ? n : 1);
		struct kb_err err = {0};
		memcpy(part, bytes, n);
		assert_int_equal(kb_gguf_parse(part, n, n, &err, &g), KB_EBAD);
		assert_non_null(strstr(err.text, "at byte 0x"));
		// The same prefix of a file known to be longer: more is wanted, until the head is complete.
		int r = kb_gguf_parse(part, n, len, &err, &g);
		if (r == 0) {
			assert_true(n + 64 > head); // only alignment follows
			kb_gguf_finish(&g);
		} else {
			assert_int_equal(r, KB_EPARTIAL);
		}
		free(part);
	}
	free(bytes);
}

static void survives_every_bit_flip(void **state)
{
	(void)state;
	size_t len;
	uint8_t *bytes = read_file("tests/data/gguf/small.gguf", &len);
	struct kb_gguf g;
	unsigned accepted = 0, refused = 0;
	assert_int_equal(kb_gguf_parse(bytes, len, len, NULL, &g), 0);
	size_t head = g.data_offset;
	kb_gguf_finish(&g);
	for (size_t i = 0; i < head * 8; i++) {
		struct kb_err err = {0};
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		if (kb_gguf_parse(bytes, len, len, &err, &g) == 0) {
			for (uint32_t t = 0; t < g.n_tensors; t++)
				assert_true(g.tensors[t].offset >= g.data_offset && g.tensors[t].offset + g.tensors[t].bytes <= len);
			kb_gguf_finish(&g);
			accepted++;
		} else {
			assert_true(err.code != 0 && err.text[0]);
			refused++;
		}
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	assert_true(accepted > 0 && refused > accepted / 4);
	free(bytes);
}

// --- hostile heads -----------------------------------------------------------

static void put(struct kb_buf *b, uint64_t v, size_t n)
{
	assert_int_equal(kb_buf_append(b, &v, n), 0);
}

static void put_str(struct kb_buf *b, const char *s)
{
	put(b, strlen(s), 8);
	assert_int_equal(kb_buf_puts(b, s), 0);
}

static struct kb_buf head(uint64_t tensors, uint64_t meta)
{
	struct kb_buf b = {0};
	put(&b, 0x46554747, 4);
	put(&b, 3, 4);
	put(&b, tensors, 8);
	put(&b, meta, 8);
	return b;
}

static void put_tensor(struct kb_buf *b, const char *name, uint32_t type, uint64_t cols, uint64_t rows, uint64_t offset)
{
	put_str(b, name);
	put(b, 2, 4);
	put(b, cols, 8);
	put(b, rows, 8);
	put(b, type, 4);
	put(b, offset, 8);
}

// Parses b followed by `tail` zero bytes, frees it, wants the code and the words.
static void wants(struct kb_buf b, size_t tail, int code, const char *words)
{
	struct kb_err err = {0};
	struct kb_gguf g;
	for (size_t i = 0; i < tail; i++)
		put(&b, 0, 1);
	int r = kb_gguf_parse(b.data, b.len, b.len, &err, &g);
	if (r == 0)
		kb_gguf_finish(&g);
	if (r != code || (words && !strstr(err.text, words)))
		fail_msg("wanted %s \"%s\", got %s \"%s\"", kb_err_name(code), words, kb_err_name(r), err.text);
	kb_buf_finish(&b);
}

static void names_what_is_wrong_in_the_header(void **state)
{
	(void)state;
	struct kb_buf b;
	b = head(0, 0);
	b.data[0] = 'X';
	wants(b, 0, KB_EBAD, "magic at byte 0x0: this is not a GGUF file");
	b = head(0, 0);
	b.data[4] = 1;
	wants(b, 0, KB_EUNSUPPORTED, "version at byte 0x4: GGUF version 1");
	b = head(0, 0);
	memcpy(b.data + 4, "\0\0\0\3", 4);
	wants(b, 0, KB_EUNSUPPORTED, "big-endian");
	wants(head(UINT64_MAX, 0), 0, KB_ELIMIT, "tensor count at byte 0x8");
	wants(head(60000, 0), 0, KB_EBAD, "tensor count at byte 0x8: 60000 do not fit");
	wants(head(0, UINT64_C(1) << 40), 0, KB_ELIMIT, "metadata count at byte 0x10");
	wants(head(0, 0), 0, 0, NULL);
	b = head(0, 0);
	b.data[4] = 2;
	wants(b, 0, 0, NULL);
}

static void names_what_is_wrong_in_metadata(void **state)
{
	(void)state;
	struct kb_buf b;
	b = head(0, 1);
	put(&b, UINT64_MAX, 8);
	wants(b, 40, KB_ELIMIT, "metadata 0, key at byte 0x18: a length of 18446744073709551615");
	b = head(0, 1);
	put_str(&b, "a\nb");
	wants(b, 40, KB_EBAD, "key at byte 0x21: holds the control character 0x0a");
	b = head(0, 1);
	put_str(&b, "");
	wants(b, 40, KB_EBAD, "is empty");
	b = head(0, 1);
	put_str(&b, "key");
	put(&b, 13, 4);
	wants(b, 40, KB_EBAD, "metadata 0 'key', type at byte 0x23: 13");
	b = head(0, 1);
	put_str(&b, "key");
	put(&b, KB_META_BOOL, 4);
	put(&b, 2, 1);
	wants(b, 40, KB_EBAD, "a bool is 0 or 1, not 2");
	b = head(0, 1);
	put_str(&b, "key");
	put(&b, KB_META_STRING, 4);
	put(&b, UINT64_MAX - 7, 8);
	wants(b, 40, KB_ELIMIT, "string at byte 0x27");
	b = head(0, 1);
	put_str(&b, "key");
	put(&b, KB_META_ARRAY, 4);
	put(&b, KB_META_ARRAY, 4);
	put(&b, 1, 8);
	wants(b, 40, KB_EUNSUPPORTED, "arrays of arrays");
	for (unsigned type = 0; type < KB_META_TYPES; type++) {
		if (type == KB_META_ARRAY)
			continue;
		b = head(0, 1);
		put_str(&b, "key");
		put(&b, KB_META_ARRAY, 4);
		put(&b, type, 4);
		put(&b, UINT64_C(0x2000000000000001), 8); // times 8 wraps round to 8
		wants(b, 40, KB_ELIMIT, "count at byte 0x2b");
		b = head(0, 1);
		put_str(&b, "key");
		put(&b, KB_META_ARRAY, 4);
		put(&b, type, 4);
		put(&b, 1000, 8);
		wants(b, 40, KB_EBAD, "value at byte 0x33: needs ");
	}
	b = head(0, 2);
	for (int i = 0; i < 2; i++) {
		put_str(&b, "key");
		put(&b, KB_META_U8, 4);
		put(&b, 1, 1);
	}
	wants(b, 40, KB_EBAD, "metadata 1 'key', key at byte 0x28: comes twice");
	static const uint64_t alignments[] = {0, 4, 24, 1u << 21, UINT32_MAX};
	for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
		b = head(0, 1);
		put_str(&b, "general.alignment");
		put(&b, KB_META_U32, 4);
		put(&b, alignments[i], 4);
		wants(b, 40, KB_EBAD, "'general.alignment', value at byte 0x35");
	}
	b = head(0, 1);
	put_str(&b, "general.alignment");
	put(&b, KB_META_U64, 4);
	put(&b, 32, 8);
	wants(b, 40, KB_EBAD, "is not a u32");
}

static void names_what_is_wrong_in_tensors(void **state)
{
	(void)state;
	struct kb_buf b;
	struct {
		uint32_t type;
		uint64_t cols, rows, offset;
		int code;
		const char *words;
	} bad[] = {
		{KB_GGML_F32, 8, 4, 0, 0, NULL},
		{KB_GGML_F32, 8, 5, 0, KB_EBAD, "is past the end of the file"},
		{KB_GGML_F32, 8, 1, 128, KB_EBAD, "tensor 0 'w', data"},
		{KB_GGML_F32, 8, 1, 16, KB_EBAD, "tensor 0 'w', offset at byte 0x39: 0x10 is not aligned to 32"},
		{KB_GGML_F32, 8, 1, UINT64_MAX - 31, KB_EBAD, "offset 0xffffffffffffffe0 + size 0x20 is past the end"},
		{KB_GGML_F32, 0, 1, 0, KB_EBAD, "dimension at byte 0x25: 0 is not 1 to 2147483647"},
		{KB_GGML_F32, 8, 0, 0, KB_EBAD, "dimension at byte 0x2d: 0"},
		{KB_GGML_F32, UINT64_C(1) << 32, 1, 0, KB_EBAD, "dimension at byte 0x25"},
		{KB_GGML_F32, INT32_MAX, INT32_MAX, 0, KB_EBAD, "is past the end of the file"},
		{KB_GGML_Q4_0, 48, 1, 0, KB_EBAD, "no multiple of Q4_0's block of 32"},
		{KB_GGML_Q4_K, 32, 1, 0, KB_EBAD, "no multiple of Q4_K's block of 256"},
		{4, 32, 1, 0, KB_EUNSUPPORTED, "tensor 0 'w', type at byte 0x35: weights of GGML type 4"},
		{999, 32, 1, 0, KB_EUNSUPPORTED, "type 999"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		b = head(1, 0);
		put_tensor(&b, "w", bad[i].type, bad[i].cols, bad[i].rows, bad[i].offset);
		size_t pad = (32 - b.len % 32) % 32;
		wants(b, pad + 128, bad[i].code, bad[i].words);
	}
	static const uint64_t dims[] = {0, 5, UINT32_MAX};
	for (size_t i = 0; i < 3; i++) {
		b = head(1, 0);
		put_str(&b, "w");
		put(&b, dims[i], 4);
		wants(b, 100, KB_EBAD, "n_dims at byte 0x21");
	}
	b = head(1, 0);
	put_str(&b, "w");
	put(&b, 4, 4);
	for (int i = 0; i < 4; i++)
		put(&b, INT32_MAX, 8);
	wants(b, 100, KB_ELIMIT, "more than 2147483647 rows");
	b = head(2, 0);
	put_tensor(&b, "w", 0, 8, 1, 0);
	put_tensor(&b, "w", 0, 8, 1, 32);
	wants(b, 128, KB_EBAD, "tensor 1 'w', name at byte 0x41: comes twice");
	b = head(2, 0);
	put_tensor(&b, "v", 0, 8, 2, 0);
	put_tensor(&b, "w", 0, 8, 1, 32);
	wants(b, 128, KB_EBAD, "tensor 1 'w', data at byte 0xa0: overlaps tensor 'v', which ends at 0xc0");
	b = head(1, 0);
	put(&b, 128, 8);
	wants(b, 200, KB_ELIMIT, "a length of 128 bytes is over the limit of 127");
}

static void parses_stored_values(void **state)
{
	(void)state;
	struct kb_meta_value v;
	struct kb_err err;
	static const uint8_t u8[] = {0, 0, 0, 0, 7};
	assert_int_equal(kb_gguf_value_parse(u8, 5, "k", &err, &v), 0);
	assert_true(v.type == KB_META_U8 && !v.is_array && v.len == 1 && v.data[0] == 7);
	static const uint8_t more[] = {0, 0, 0, 0, 7, 7};
	assert_int_equal(kb_gguf_value_parse(more, 6, "k", &err, &v), KB_EBAD);
	assert_non_null(strstr(err.text, "'k', value at byte 0x5: 1 bytes too many"));
	for (size_t n = 0; n < 5; n++)
		assert_int_equal(kb_gguf_value_parse(u8, n, "k", &err, &v), KB_EBAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_gguf_py_wrote),
		cmocka_unit_test(finds_typed_values),
		cmocka_unit_test(refuses_every_truncation),
		cmocka_unit_test(survives_every_bit_flip),
		cmocka_unit_test(names_what_is_wrong_in_the_header),
		cmocka_unit_test(names_what_is_wrong_in_metadata),
		cmocka_unit_test(names_what_is_wrong_in_tensors),
		cmocka_unit_test(parses_stored_values),
	};
	return cmocka_run_group_tests_name("storage/gguf", tests, NULL, NULL);
}
