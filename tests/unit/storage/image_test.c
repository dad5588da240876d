// A damaged or hostile image must give an error that says what is wrong; never a crash, never other weights.
#include "storage/image.h"
#include "storage/image_write.h"
#include "storage/import_gguf.h"
#include "storage/pages.h"
#include "unit/storage/expect.h"

#include <fcntl.h>
#include <lmdb.h>
#include <sys/stat.h>
#include <unistd.h>

static char image_path[512], work_path[512];
static uint8_t *image;
static size_t image_len;

static int make_image(void **state)
{
	(void)state;
	struct kb_err err = {0};
	struct kb_import_options o = {.segment_bytes = 20000, .replace = true};
	const char *tmp = getenv("KB_TMP");
	snprintf(image_path, sizeof image_path, "%s/whole.kbm", tmp ? tmp : "/tmp");
	snprintf(work_path, sizeof work_path, "%s/work.kbm", tmp ? tmp : "/tmp");
	if (kb_import_gguf("tests/data/gguf/kinds.gguf", image_path, &o, &err, NULL))
		fail_msg("%s", err.text);
	image = read_file(image_path, &image_len);
	return 0;
}

static int drop_image(void **state)
{
	(void)state;
	free(image);
	unlink(image_path);
	unlink(work_path);
	return 0;
}

static struct kb_image *open_or_fail(const char *path)
{
	struct kb_err err = {0};
	struct kb_image *im;
	if (kb_image_open(path, &err, &im))
		fail_msg("%s", err.text);
	return im;
}

// Where in the file a tensor's byte is: the segment's data, found by its own bytes.
static size_t place_in_file(const struct kb_image *im, const struct kb_image_tensor *t)
{
	const uint8_t *want = kb_image_tensor_bytes(im, t);
	for (size_t at = 0; at + t->bytes <= image_len; at += KB_TENSOR_ALIGN)
		if (memcmp(image + at, want, t->bytes) == 0)
			return at;
	fail_msg("%.*s is not in the file", (int)t->name.len, t->name.data);
	return 0;
}

static int verify_work(struct kb_err *err)
{
	struct kb_image *im;
	int r = kb_image_open(work_path, err, &im);
	if (r)
		return r;
	r = kb_image_verify(im, NULL, err);
	kb_image_close(im);
	return r;
}

static void verify_names_the_damaged_tensor(void **state)
{
	(void)state;
	struct kb_image *im = open_or_fail(image_path);
	struct kb_err err;
	char want[256];
	uint32_t n = kb_image_info(im)->n_tensors;
	write_file(work_path, image, image_len);
	assert_int_equal(verify_work(&err), 0);
	for (uint32_t i = 0; i < n; i++) {
		const struct kb_image_tensor *t = kb_image_tensor_at(im, i);
		size_t at = place_in_file(im, t) + t->bytes - 1;
		image[at] ^= 0x10;
		write_file(work_path, image, image_len);
		image[at] ^= 0x10;
		assert_int_equal(verify_work(&err), KB_ECORRUPT);
		snprintf(want, sizeof want, "segment %u is damaged: tensor '%.*s'", t->segment, (int)t->name.len, t->name.data);
		assert_string_equal(err.text, want);
	}
	// Two tensors of one segment; the padding before a segment.
	const struct kb_image_tensor *a = kb_image_tensor_at(im, 0), *b = a;
	for (uint32_t i = 1; i < n && b == a; i++)
		if (kb_image_tensor_at(im, i)->segment == a->segment)
			b = kb_image_tensor_at(im, i);
	size_t at_a = place_in_file(im, a), at_b = place_in_file(im, b), pad = at_a - a->offset - 1;
	image[at_a] ^= 1;
	image[at_b] ^= 1;
	write_file(work_path, image, image_len);
	image[at_a] ^= 1;
	image[at_b] ^= 1;
	assert_int_equal(verify_work(&err), KB_ECORRUPT);
	assert_non_null(strstr(err.text, "and 1 more"));
	image[pad] ^= 1;
	write_file(work_path, image, image_len);
	image[pad] ^= 1;
	assert_int_equal(verify_work(&err), KB_ECORRUPT);
	assert_non_null(strstr(err.text, "between its tensors"));
	kb_image_close(im);
}

static size_t find_bytes(const char *text, size_t n)
{
	for (size_t at = 0; at + n <= image_len; at++)
		if (memcmp(image + at, text, n) == 0)
			return at;
	fail_msg("\"%s\" is not in the image", text);
	return 0;
}

static void verify_covers_metadata(void **state)
{
	(void)state;
	struct kb_err err;
	size_t at = find_bytes("apache-2.0", 10);
	image[at] = 'A';
	write_file(work_path, image, image_len);
	image[at] = 'a';
	assert_int_equal(verify_work(&err), KB_ECORRUPT);
	assert_string_equal(err.text, "metadata or the tensor table is damaged (their SHA-256 does not match)");
}

struct counted {
	uint64_t last, total;
	unsigned calls, stop_at;
};

static int count(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	struct counted *c = ctx;
	assert_true(done > c->last && done <= total);
	assert_int_equal(strncmp(what, "segment ", 8), 0);
	c->last = done;
	c->total = total;
	return ++c->calls == c->stop_at;
}

static void verify_reports_and_stops(void **state)
{
	(void)state;
	struct kb_err err;
	struct counted c = {0};
	struct kb_progress p = {count, &c};
	struct kb_image *im = open_or_fail(image_path);
	assert_int_equal(kb_image_verify(im, &p, &err), 0);
	assert_int_equal(c.calls, kb_image_info(im)->n_segments);
	assert_int_equal(c.last, c.total);
	c = (struct counted){.stop_at = 2};
	assert_int_equal(kb_image_verify(im, &p, &err), KB_ECANCELLED);
	kb_image_close(im);
}

static void wants(const void *bytes, size_t len, int code, const char *words)
{
	struct kb_err err = {0};
	struct kb_image *im;
	write_file(work_path, bytes, len);
	int r = kb_image_open(work_path, &err, &im);
	if (r == 0)
		kb_image_close(im);
	if (r != code || !strstr(err.text, words) || !strstr(err.text, work_path))
		fail_msg("wanted %s \"%s\", got %s \"%s\"", kb_err_name(code), words, kb_err_name(r), err.text);
}

static void says_what_is_no_image(void **state)
{
	(void)state;
	struct kb_err err;
	struct kb_image *im;
	size_t gguf_len;
	uint8_t *gguf = read_file("tests/data/gguf/kinds.gguf", &gguf_len);
	wants("", 0, KB_EBAD, "empty");
	wants("hello", 5, KB_EBAD, "too short");
	wants(gguf, gguf_len, KB_EBAD, "not a model image");
	free(gguf);
	assert_int_equal(kb_image_open("tests/data", &err, &im), KB_EBAD);
	assert_int_equal(kb_image_open("no/such.kbm", &err, &im), KB_ENOTFOUND);

	MDB_env *env;
	unlink(work_path);
	assert_int_equal(mdb_env_create(&env), 0);
	assert_int_equal(mdb_env_open(env, work_path, MDB_NOSUBDIR | MDB_NOLOCK, 0644), 0);
	mdb_env_close(env);
	assert_int_equal(kb_image_open(work_path, &err, &im), KB_EBAD);
	assert_non_null(strstr(err.text, "without its tables"));

	size_t at = find_bytes(KB_IMAGE_MAGIC, 8);
	image[at + 8] = 2;
	wants(image, image_len, KB_EUNSUPPORTED, "made by a newer Kotobako (format 2; this one reads 1)");
	image[at + 8] = 0;
	wants(image, image_len, KB_EBAD, "own record is damaged");
	image[at + 8] = 1;
	image[at] = 'X';
	wants(image, image_len, KB_EBAD, "no Kotobako record");
	image[at] = 'K';
	static const uint32_t fields[] = {16, 20, 24}; // n_meta, n_tensors, n_segments
	static const char *const one_less[] = {"damaged: place", "more tensors", "too many"};
	for (size_t i = 0; i < 3; i++) {
		image[at + fields[i]]++;
		wants(image, image_len, KB_EBAD, "incomplete");
		image[at + fields[i]] -= 2;
		wants(image, image_len, KB_EBAD, one_less[i]);
		image[at + fields[i]]++;
	}
}

static void a_cut_image_is_an_error(void **state)
{
	(void)state;
	for (size_t n = 0; n < image_len; n += n % 4096 ? 4095 : 1) {
		struct kb_err err = {0};
		write_file(work_path, image, n);
		int r = verify_work(&err);
		// Only pages that nothing refers to may be missing.
		if (r == 0)
			assert_true(n + 4 * 4096 > image_len);
		else
			assert_true(err.text[0]);
	}
}

// What a reader sees: the CRC of all keys, values, records and weights.
static uint32_t content(const struct kb_image *im)
{
	uint32_t crc = 0;
	for (uint32_t i = 0; i < kb_image_info(im)->n_meta; i++) {
		const struct kb_image_meta *m = kb_image_meta_at(im, i);
		crc = crc32_of(crc, m->key.data, m->key.len);
		crc = crc32_of(crc, m->encoded.data, m->encoded.len);
	}
	for (uint32_t i = 0; i < kb_image_info(im)->n_tensors; i++) {
		const struct kb_image_tensor *t = kb_image_tensor_at(im, i);
		crc = crc32_of(crc, t->name.data, t->name.len);
		crc = crc32_of(crc, &t->format, sizeof t->format);
		crc = crc32_of(crc, t->dims, sizeof t->dims);
		crc = crc32_of(crc, &t->bytes, sizeof t->bytes);
	}
	return crc;
}

static bool is_tree_page(const uint8_t *page)
{
	uint16_t flags;
	memcpy(&flags, page + 10, 2);
	return (flags & ~0x10) == 1 || (flags & ~0x10) == 2 || flags == 8;
}

struct flips {
	unsigned refused, same, other;
};

// Flips a bit or more of every stride-th used byte of the file's trees and meta pages, and a few unused ones.
static struct flips flip_trees(const char *path, size_t stride)
{
	size_t len;
	uint32_t seed = 7;
	struct flips n = {0};
	struct kb_err err;
	uint8_t *bytes = read_file(path, &len);
	struct kb_image *im = open_or_fail(path);
	uint32_t want = content(im);
	kb_image_close(im);
	write_file(work_path, bytes, len);
	int fd = open(work_path, O_RDWR);
	size_t skipped = 0;
	for (size_t at = 0; at < len; at++) {
		bool used = bytes[at] != 0 && (at % 4096 < 64 || ++skipped % stride == 0);
		if (!is_tree_page(bytes + at / 4096 * 4096) || (!used && at % 256 != 0))
			continue;
		seed = seed * 1664525u + 1013904223u;
		uint8_t damaged = bytes[at] ^ (uint8_t)(seed >> 31 ? 1u << (seed >> 24 & 7) : seed >> 24 | 1);
		assert_int_equal(pwrite(fd, &damaged, 1, (off_t)at), 1);
		if (kb_image_open(work_path, &err, &im) != 0) {
			n.refused++;
		} else {
			if (kb_image_verify(im, NULL, &err) != 0)
				n.refused++;
			else if (content(im) == want)
				n.same++;
			else
				n.other++;
			kb_image_close(im);
		}
		assert_int_equal(pwrite(fd, bytes + at, 1, (off_t)at), 1);
	}
	close(fd);
	free(bytes);
	print_message("# %u refused, %u in unused bytes\n", n.refused, n.same);
	return n;
}

// What still opens and verifies has the same contents.
static void survives_damaged_trees(void **state)
{
	(void)state;
	struct flips n = flip_trees(image_path, 1);
	assert_int_equal(n.other, 0);
	assert_true(n.refused > 1000);
}

// Enough records for trees with branches.
static void survives_damaged_branches(void **state)
{
	(void)state;
	char path[600], name[64];
	struct kb_err err;
	struct kb_image_writer *w;
	uint8_t *data;
	snprintf(path, sizeof path, "%s.wide", image_path);
	unlink(path);
	assert_int_equal(kb_image_writer_create(path, 4 << 20, &err, &w), 0);
	assert_int_equal(kb_image_writer_segment(w, 300 * 256, &err, &data), 0);
	for (uint32_t i = 0; i < 300; i++) {
		struct kb_image_tensor t = {.name = {name, (size_t)snprintf(name, sizeof name, "blk.%u.attn_norm.weight", i)},
			.format = KB_FMT_F32,
			.source = kb_ggml_find(0),
			.n_dims = 1,
			.dims = {8, 1, 1, 1},
			.rows = 1,
			.cols = 8,
			.offset = 256 * i,
			.bytes = 32,
			.is_exact = true};
		assert_int_equal(kb_image_writer_tensor(w, &t, &err), 0);
	}
	assert_int_equal(kb_image_writer_segment_end(w, &err), 0);
	for (uint32_t i = 0; i < 300; i++) {
		static const char value[] = {KB_META_U8, 0, 0, 0, 7};
		struct kb_str key = {name, (size_t)snprintf(name, sizeof name, "a.longer.key.of.the.metadata.%u", i)};
		assert_int_equal(kb_image_writer_meta(w, key, (struct kb_str){value, 5}, i, &err), 0);
	}
	assert_int_equal(kb_image_writer_finish(w, &err), 0);
	kb_image_writer_destroy(w);
	struct flips n = flip_trees(path, 13);
	unlink(path);
	assert_int_equal(n.other, 0);
	assert_true(n.refused > 1000);
}

static void pages_check_takes_anything(void **state)
{
	(void)state;
	uint32_t seed = 1;
	for (unsigned round = 0; round < 3000; round++) {
		size_t len = round % 7 == 0 ? image_len : 2 * 4096 + (seed >> 8) % 40000;
		len = len > image_len ? image_len : len;
		uint8_t *copy = malloc(len);
		memcpy(copy, image, len);
		for (unsigned i = 0; i < 1 + round % 5; i++) {
			seed = seed * 1664525u + 1013904223u;
			size_t at = (seed >> 4) % len;
			if (i % 2 == 0) // near the beginning of a page, where the bounds are
				at = at / 4096 * 4096 + at % 64;
			seed = seed * 1664525u + 1013904223u;
			if (at < len)
				copy[at] = (uint8_t)(seed >> 24);
		}
		struct kb_err err;
		int r = kb_pages_check(copy, len, &err);
		assert_true(r == 0 || r == KB_EBAD || r == KB_EUNSUPPORTED);
		free(copy);
	}
}

static void the_writer_keeps_its_limits(void **state)
{
	(void)state;
	struct kb_err err;
	struct kb_image_writer *w;
	uint8_t *data;
	assert_true(kb_image_segment_max() + 2 * 4096 >= UINT64_C(1) << 30);
	assert_true(kb_image_segment_max() < UINT64_C(1) << 30);
	unlink(work_path);
	assert_int_equal(kb_image_writer_create(work_path, 1 << 20, &err, &w), 0);
	assert_int_equal(kb_image_writer_segment(w, kb_image_segment_max() + 1, &err, &data), KB_ELIMIT);
	assert_int_equal(kb_image_writer_segment(w, 0, &err, &data), KB_ELIMIT);
	kb_image_writer_destroy(w);
	unlink(work_path);
	assert_int_equal(kb_image_writer_create(work_path, 1 << 20, &err, &w), 0);
	// Past the size that was asked for: an error, not a larger file.
	assert_int_equal(kb_image_writer_segment(w, 4 << 20, &err, &data), KB_ELIMIT);
	kb_image_writer_destroy(w);
	unlink(work_path);
	assert_int_equal(kb_image_writer_create(work_path, 1 << 20, &err, &w), 0);
	assert_int_equal(kb_image_writer_segment(w, 5000, &err, &data), 0);
	for (size_t i = 0; i < 8192; i++)
		assert_int_equal(data[i], 0);
	struct kb_image_tensor t = {.name = {"t", 1},
		.format = KB_FMT_F32,
		.source = kb_ggml_find(0),
		.n_dims = 1,
		.dims = {1250, 1, 1, 1},
		.rows = 1,
		.cols = 1250,
		.bytes = 5000,
		.is_exact = true};
	t.offset = 8192;
	assert_int_equal(kb_image_writer_tensor(w, &t, &err), KB_EARG);
	t.offset = 4;
	assert_int_equal(kb_image_writer_tensor(w, &t, &err), KB_EBAD);
	t.offset = 0;
	t.bytes = 4999;
	assert_int_equal(kb_image_writer_tensor(w, &t, &err), KB_EBAD);
	t.bytes = 5000;
	assert_int_equal(kb_image_writer_tensor(w, &t, &err), 0);
	assert_int_not_equal(kb_image_writer_tensor(w, &t, &err), 0); // the name is taken
	kb_image_writer_destroy(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(verify_names_the_damaged_tensor),
		cmocka_unit_test(verify_covers_metadata),
		cmocka_unit_test(verify_reports_and_stops),
		cmocka_unit_test(says_what_is_no_image),
		cmocka_unit_test(a_cut_image_is_an_error),
		cmocka_unit_test(survives_damaged_trees),
		cmocka_unit_test(survives_damaged_branches),
		cmocka_unit_test(pages_check_takes_anything),
		cmocka_unit_test(the_writer_keeps_its_limits),
	};
	return cmocka_run_group_tests_name("storage/image", tests, make_image, drop_image);
}
