// Digests that two programs of others gave (Debian's fsverity 1.6; tests/e2e/cli_test.py asks it again for whole
// models), and streams: every block is proven, whatever is changed in them.
#include "base/hex.h"
#include "storage/verity.h"
#include "unit/storage/expect.h"
#include <stdlib.h>

// Byte i of the test data.
static uint8_t byte_at(uint64_t i)
{
	return (uint8_t)(i * 2654435761u >> 13 ^ i >> 7);
}

static uint8_t *make_data(uint64_t size)
{
	uint8_t *data = malloc(size + 1);
	assert_non_null(data);
	for (uint64_t i = 0; i < size; i++)
		data[i] = byte_at(i);
	return data;
}

static void shapes(void **state)
{
	static const struct {
		uint64_t size;
		uint32_t levels;
		uint64_t data, hashes; // blocks of data and of level 1
	} rows[] = {
		{0, 0, 0, 0},
		{1, 0, 1, 0},
		{4096, 0, 1, 0},
		{4097, 1, 2, 1},
		{128 * 4096, 1, 128, 1},
		{128 * 4096 + 1, 2, 129, 2},
		{128 * 128 * 4096, 2, 16384, 128},
		{128 * 128 * 4096 + 1, 3, 16385, 129},
		{INT32_MAX, 3, 1u << 19, 1u << 12},
		{(1ull << 31) + 1, 3, (1u << 19) + 1, (1u << 12) + 1},
		{UINT32_MAX, 3, 1u << 20, 1u << 13},
		{(1ull << 32) + 1, 3, (1u << 20) + 1, (1u << 13) + 1},
		{KB_VERITY_SIZE_MAX, 8, 1ull << 51, 1ull << 44},
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct kb_verity_shape s;
		kb_verity_shape(rows[i].size, &s);
		assert_int_equal(s.levels, rows[i].levels);
		assert_int_equal(s.blocks[0], rows[i].data);
		assert_int_equal(s.blocks[1], rows[i].hashes);
		assert_true(s.levels == 0 || s.blocks[s.levels] == 1);
		uint64_t tree = 0;
		for (uint32_t l = 1; l <= s.levels; l++)
			tree += s.blocks[l];
		assert_int_equal(s.stream_bytes, rows[i].size + 4096 * tree);
	}
}

static void digest_of(const uint8_t *data, uint64_t size, size_t piece, uint8_t ret[KB_VERITY_HASH])
{
	struct kb_err err = {0};
	struct kb_verity_builder *b = malloc(sizeof *b);
	uint8_t root[KB_VERITY_HASH];
	assert_non_null(b);
	kb_verity_build(b, size);
	for (uint64_t at = 0; at < size; at += piece)
		assert_int_equal(kb_verity_add(b, data + at, size - at < piece ? size - at : piece, &err), KB_OK);
	assert_int_equal(kb_verity_root(b, &err, root), KB_OK);
	assert_int_equal(kb_verity_add(b, "x", 1, &err), KB_EARG);
	kb_verity_digest(size, root, ret);
	free(b);
}

// `fsverity digest` of files of byte_at(0), byte_at(1), ...
static void digests_are_those_of_fsverity(void **state)
{
	static const struct {
		uint64_t size;
		const char *digest;
	} rows[] = {
#include "data/verity.golden"
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		static const size_t pieces[] = {1u << 20, 4096, 1000, 5000};
		uint8_t *data = make_data(rows[i].size), hash[KB_VERITY_HASH];
		char text[2 * KB_VERITY_HASH + 1];
		for (size_t p = 0; p < (rows[i].size > 1u << 20 ? 1 : 4); p++) {
			digest_of(data, rows[i].size, pieces[p], hash);
			kb_hex(hash, sizeof hash, text);
			assert_string_equal(text, rows[i].digest);
		}
		free(data);
	}
}

// A stream in memory.
struct stream {
	struct kb_verity_shape shape;
	uint8_t root[KB_VERITY_HASH];
	uint8_t *tree[KB_VERITY_LEVELS_MAX + 1]; // by level
	uint8_t *bytes;
};

static int keep_block(void *ctx, uint32_t level, uint64_t index, const uint8_t block[static KB_VERITY_BLOCK])
{
	struct stream *s = ctx;
	assert_true(index < s->shape.blocks[level]);
	memcpy(s->tree[level] + index * KB_VERITY_BLOCK, block, KB_VERITY_BLOCK);
	return 0;
}

static void open_stream(struct stream *s, uint64_t size)
{
	struct kb_err err = {0};
	struct kb_verity_builder *b = malloc(sizeof *b);
	uint8_t *data = make_data(size);
	assert_non_null(b);
	kb_verity_build(b, size);
	*s = (struct stream){.shape = b->shape};
	for (uint32_t l = 1; l <= s->shape.levels; l++)
		assert_non_null(s->tree[l] = malloc(s->shape.blocks[l] * KB_VERITY_BLOCK));
	b->emit = keep_block;
	b->ctx = s;
	assert_int_equal(kb_verity_add(b, data, size, &err), KB_OK);
	assert_int_equal(kb_verity_root(b, &err, s->root), KB_OK);
	s->bytes = malloc(s->shape.stream_bytes + 1);
	assert_non_null(s->bytes);
	uint32_t level = s->shape.levels;
	uint64_t index = 0, at = 0;
	for (bool is_there = size > 0; is_there; is_there = kb_verity_after(&s->shape, &level, &index)) {
		uint64_t from = index * KB_VERITY_BLOCK;
		uint64_t n = level || size - from > KB_VERITY_BLOCK ? KB_VERITY_BLOCK : size - from;
		memcpy(s->bytes + at, level ? s->tree[level] + from : data + from, n);
		at += n;
	}
	assert_int_equal(at, s->shape.stream_bytes);
	free(data);
	free(b);
}

static void close_stream(struct stream *s)
{
	for (uint32_t l = 1; l <= s->shape.levels; l++)
		free(s->tree[l]);
	free(s->bytes);
}

// How many bytes of the stream are proven; err says why not all.
static uint64_t read_stream(const struct stream *s, struct kb_err *err)
{
	struct kb_verity_reader *r = malloc(sizeof *r);
	uint64_t data, at = 0, expected = 0;
	size_t n;
	assert_non_null(r);
	kb_verity_read(r, s->shape.size, s->root);
	while ((n = kb_verity_next(r, &data)) > 0) {
		if (kb_verity_take(r, s->bytes + at, err) != KB_OK)
			break;
		if (data != KB_VERITY_TREE) {
			assert_int_equal(data, expected); // data comes in its own order
			for (size_t i = 0; i < n; i++)
				assert_int_equal(s->bytes[at + i], byte_at(data + i));
			expected += n;
		}
		at += n;
	}
	if (n == 0) {
		assert_int_equal(expected, s->shape.size);
		assert_int_equal(kb_verity_take(r, s->bytes, err), KB_EARG);
	}
	free(r);
	return at;
}

static void streams_are_read(void **state)
{
	static const uint64_t sizes[] = {0, 1, 4096, 4097, 524288, 524289, 1048576 + 5, 128ull * 128 * 4096 + 4097};
	struct kb_err err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct stream s;
		open_stream(&s, sizes[i]);
		assert_int_equal(read_stream(&s, &err), s.shape.stream_bytes);
		close_stream(&s);
	}
}

// Every bit of a small stream, and every block of a larger one.
static void changes_are_found(void **state)
{
	struct kb_err err = {0};
	struct stream s;
	char where[64];
	(void)state;
	open_stream(&s, 4096 + 3);
	for (uint64_t bit = 0; bit < 8 * s.shape.stream_bytes; bit++) {
		s.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		uint64_t block = bit / 8 / KB_VERITY_BLOCK * KB_VERITY_BLOCK;
		assert_int_equal(read_stream(&s, &err), block);
		assert_int_equal(err.code, KB_ECORRUPT);
		s.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	close_stream(&s);
	open_stream(&s, 300 * 4096);
	for (uint64_t block = 0; block < s.shape.stream_bytes; block += KB_VERITY_BLOCK) {
		uint64_t at = block + block / 7 % KB_VERITY_BLOCK;
		s.bytes[at] ^= 0x10;
		assert_int_equal(read_stream(&s, &err), block);
		snprintf(where, sizeof where, "at byte %llu of", (unsigned long long)block);
		assert_non_null(strstr(err.text, where));
		s.bytes[at] ^= 0x10;
	}
	// The right blocks under another size.
	s.shape.size--;
	assert_true(read_stream(&s, &err) < s.shape.stream_bytes);
	close_stream(&s);
}

// Every bit of the tree, and 10,000 bits of the data, where a reader meets them; it says where, and the right block is
// taken afterwards.
static void no_bit_of_a_larger_stream_may_be_turned(void **state)
{
	struct kb_err err = {0};
	struct stream s;
	uint32_t random = 1, tried = 0;
	uint64_t at = 0, data;
	size_t len;
	(void)state;
	open_stream(&s, 300 * KB_VERITY_BLOCK + 77);
	struct kb_verity_reader *r = malloc(sizeof *r);
	assert_non_null(r);
	kb_verity_read(r, s.shape.size, s.root);
	while ((len = kb_verity_next(r, &data))) {
		uint8_t *block = s.bytes + at;
		char offset[32];
		snprintf(offset, sizeof offset, "byte %llu ", (unsigned long long)at);
		const uint32_t tries = data == KB_VERITY_TREE ? 8 * KB_VERITY_BLOCK : 34;
		for (uint32_t i = 0; i < tries; i++) {
			random = random * 1664525 + 1013904223;
			const size_t bit = data == KB_VERITY_TREE ? i : (random >> 8) % (8 * len);
			block[bit / 8] ^= (uint8_t)(1u << bit % 8);
			if (kb_verity_take(r, block, &err) != KB_ECORRUPT || !strstr(err.text, offset))
				fail_msg("bit %zu of the block at %llu: %s", bit, (unsigned long long)at, err.text);
			block[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		tried += data == KB_VERITY_TREE ? 0 : tries;
		assert_int_equal(kb_verity_take(r, block, &err), KB_OK);
		at += len;
	}
	assert_true(tried > 10000);
	assert_int_equal(at, s.shape.stream_bytes);
	free(r);
	close_stream(&s);
}

// From any byte the block is found that the walk from the beginning comes to.
static void places_are_those_of_the_walk(void **state)
{
	static const uint64_t sizes[] = {1, 4096, 4097, 128 * 4096, 128 * 4096 + 1, 128ull * 128 * 4096,
		128ull * 128 * 4096 + 1, (2 * 128ull * 128 + 300) * 4096 - 7};
	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct kb_verity_shape s;
		kb_verity_shape(sizes[i], &s);
		uint32_t level = s.levels, found_level = 99;
		uint64_t index = 0, at = 0, found = 0;
		do {
			for (size_t in = 0; in < KB_VERITY_BLOCK && at + in < s.stream_bytes; in += 1365) {
				assert_int_equal(kb_verity_at(&s, at + in, &found_level, &found), in);
				assert_int_equal(found_level, level);
				assert_int_equal(found, index);
			}
			at += KB_VERITY_BLOCK;
		} while (kb_verity_after(&s, &level, &index));
		assert_true(at >= s.stream_bytes && at - s.stream_bytes < KB_VERITY_BLOCK);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shapes),
		cmocka_unit_test(digests_are_those_of_fsverity),
		cmocka_unit_test(streams_are_read),
		cmocka_unit_test(places_are_those_of_the_walk),
		cmocka_unit_test(changes_are_found),
		cmocka_unit_test(no_bit_of_a_larger_stream_may_be_turned),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
