// Oracle: gguf-py's dequantised weights and metadata bytes (tests/data/make_gguf_fixtures.py).
#include "base/buf.h"
#include "storage/image.h"
#include "storage/import_gguf.h"
#include "storage/partial.h"
#include "unit/storage/expect.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256]; // emptied before every test

static const char *in_dir(const char *name)
{
	static char paths[4][512];
	static unsigned turn;
	char *p = paths[turn++ % 4];
	snprintf(p, sizeof paths[0], "%s/%s", dir, name);
	return p;
}

// Names in dir, and how many.
static unsigned list_dir(char *ret_names, size_t size)
{
	unsigned n = 0;
	struct dirent *e;
	DIR *d = opendir(dir);
	assert_non_null(d);
	ret_names[0] = 0;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		strncat(ret_names, e->d_name, size - strlen(ret_names) - 1);
		strncat(ret_names, " ", size - strlen(ret_names) - 1);
		n++;
	}
	closedir(d);
	return n;
}

static void nothing_left(void)
{
	char names[1024];
	if (list_dir(names, sizeof names))
		fail_msg("left in the directory: %s", names);
}

static int fresh_dir(void **state)
{
	(void)state;
	const char *tmp = getenv("KB_TMP");
	snprintf(dir, sizeof dir, "%s/import", tmp ? tmp : "/tmp");
	mkdir(dir, 0755);
	struct dirent *e;
	DIR *d = opendir(dir);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
	return 0;
}

static uint32_t crc_of_tensor(const struct kb_image *im, const struct kb_image_tensor *t)
{
	uint32_t crc = 0;
	const void *bytes = kb_image_tensor_bytes(im, t);
	float *row = malloc(t->cols * sizeof *row);
	for (uint32_t r = 0; r < t->rows; r++) {
		if (t->rows == 1)
			memcpy(row, bytes, t->cols * sizeof *row);
		else
			kb_quant_decode_row(t->format, bytes, t->cols, r, row);
		crc = crc32_of(crc, row, t->cols * sizeof *row);
	}
	free(row);
	return crc;
}

static void check_tensor(const struct kb_image *im, const struct expect_tensor *x)
{
	struct kb_image_tensor t;
	const void *segment;
	uint64_t len;
	if (kb_image_tensor(im, x->name, &t))
		fail_msg("%s is missing", x->name);
	assert_int_equal(t.source->type, x->type);
	assert_int_equal(t.n_dims, x->n_dims);
	assert_memory_equal(t.dims, x->dims, sizeof t.dims);
	assert_int_equal(t.cols, x->dims[0]);
	assert_int_equal(t.rows, x->dims[1] * x->dims[2] * x->dims[3]);
	assert_int_equal(t.format, t.rows == 1 ? KB_FMT_F32 : t.source->format);
	assert_int_equal(t.offset % KB_TENSOR_ALIGN, 0);
	assert_int_equal(kb_image_segment(im, t.segment, &segment, &len), 0);
	assert_true(t.offset + t.bytes <= len);
	assert_int_equal((uintptr_t)segment % 4096, 0);
	assert_int_equal(len % kb_image_info(im)->page_bytes, 0);
	if (t.is_exact) {
		if (crc_of_tensor(im, &t) != x->crc)
			fail_msg("%s: weights differ from gguf-py's", x->name);
		assert_true(t.rms_error == 0);
	} else {
		assert_int_equal(x->type, KB_GGML_Q2_K);
		assert_true(t.rms_error > 0 && t.rms_error < 0.005);
	}
}

static void check_image(const char *path, const char *expected, uint32_t min_segments)
{
	struct kb_err err = {0};
	struct kb_image *im;
	struct expect *e = expect_read(expected);
	uint64_t parameters = 0;
	if (kb_image_open(path, &err, &im))
		fail_msg("%s", err.text);
	const struct kb_image_info *info = kb_image_info(im);
	assert_int_equal(info->n_tensors, e->n_tensors);
	assert_int_equal(info->n_meta, e->n_meta);
	assert_true(info->n_segments >= min_segments);
	for (uint32_t i = 0; i < e->n_tensors; i++) {
		check_tensor(im, &e->tensors[i]);
		parameters += e->tensors[i].dims[0] * e->tensors[i].dims[1] * e->tensors[i].dims[2] * e->tensors[i].dims[3];
	}
	assert_int_equal(info->parameters, parameters);
	struct kb_meta_source m = kb_image_meta_source(im);
	for (uint32_t i = 0; i < e->n_meta; i++) {
		const struct kb_image_meta *have = kb_image_meta_at(im, i);
		struct kb_meta_value v;
		assert_int_equal(have->key.len, strlen(e->meta[i].key));
		assert_memory_equal(have->key.data, e->meta[i].key, have->key.len);
		assert_int_equal(have->encoded.len, e->meta[i].len);
		assert_memory_equal(have->encoded.data, e->meta[i].value, e->meta[i].len);
		assert_int_equal(m.find(m.ctx, e->meta[i].key, &v), 0);
		assert_ptr_equal(v.data, have->value.data);
	}
	struct kb_meta_value v;
	struct kb_image_tensor t;
	assert_int_equal(m.find(m.ctx, "general.nam", &v), KB_ENOTFOUND);
	assert_int_equal(kb_image_tensor(im, "blk.99", &t), KB_ENOTFOUND);
	assert_null(kb_image_meta_at(im, e->n_meta));
	assert_null(kb_image_tensor_at(im, e->n_tensors));
	if (kb_image_verify(im, NULL, &err))
		fail_msg("%s", err.text);
	kb_image_close(im);
	free(e);
}

static void keeps_every_kind_and_key(void **state)
{
	(void)state;
	struct kb_err err = {0};
	struct kb_import_report report;
	struct kb_import_options small_segments = {.segment_bytes = 20000};
	if (kb_import_gguf("tests/data/gguf/kinds.gguf", in_dir("a.kbm"), NULL, &err, &report))
		fail_msg("%s", err.text);
	check_image(in_dir("a.kbm"), "tests/data/gguf/kinds.txt", 1);
	assert_int_equal(report.segments, 1);
	assert_int_equal(report.tensors, 21);
	if (kb_import_gguf("tests/data/gguf/kinds.gguf", in_dir("b.kbm"), &small_segments, &err, &report))
		fail_msg("%s", err.text);
	check_image(in_dir("b.kbm"), "tests/data/gguf/kinds.txt", 3);
	unsigned requantised = 0;
	for (uint32_t i = 0; i < report.n_kinds; i++) {
		char text[128];
		if (report.kinds[i].is_exact)
			continue;
		requantised++;
		kb_import_kind_text(&report.kinds[i], text, sizeof text);
		print_message("# %s\n", text);
		assert_int_equal(strncmp(text, "Q2_K -> Q8_0, re-quantised, RMS error 0.", 40), 0);
	}
	assert_int_equal(requantised, 1);
}

static void the_same_file_makes_the_same_image(void **state)
{
	(void)state;
	struct kb_import_options o = {.segment_bytes = 20000};
	size_t n[2];
	mallopt(M_PERTURB, 0x11); // memory that nobody wrote to shows itself
	assert_int_equal(kb_import_gguf("tests/data/gguf/kinds.gguf", in_dir("a.kbm"), &o, NULL, NULL), 0);
	mallopt(M_PERTURB, 0x22);
	assert_int_equal(kb_import_gguf("tests/data/gguf/kinds.gguf", in_dir("b.kbm"), &o, NULL, NULL), 0);
	uint8_t *a = read_file(in_dir("a.kbm"), &n[0]), *b = read_file(in_dir("b.kbm"), &n[1]);
	assert_int_equal(n[0], n[1]);
	assert_memory_equal(a, b, n[0]);
	free(a);
	free(b);
}

static void truncated_files_leave_nothing(void **state)
{
	(void)state;
	const char *names[] = {"tests/data/gguf/small.gguf", "tests/data/gguf/kinds.gguf"};
	for (size_t k = 0; k < 2; k++) {
		size_t len;
		uint8_t *bytes = read_file(names[k], &len);
		const char *tmp = getenv("KB_TMP");
		char src[512];
		snprintf(src, sizeof src, "%s/cut.gguf", tmp ? tmp : "/tmp");
		// small.gguf ends with 32 bytes of its last tensor and padding to 64.
		for (size_t n = 0; n < len - 64; n += k == 0 ? 1 : 397) {
			struct kb_err err = {0};
			write_file(src, bytes, n);
			assert_int_equal(kb_import_gguf(src, in_dir("x.kbm"), NULL, &err, NULL), KB_EBAD);
			assert_non_null(strstr(err.text, "cut.gguf: "));
			assert_non_null(strstr(err.text, "byte 0x"));
			nothing_left();
		}
		unlink(src);
		free(bytes);
	}
}

static void flipped_bits_import_whole_or_not_at_all(void **state)
{
	(void)state;
	size_t len;
	unsigned imported = 0;
	uint8_t *bytes = read_file("tests/data/gguf/small.gguf", &len);
	const char *tmp = getenv("KB_TMP");
	char src[512];
	snprintf(src, sizeof src, "%s/flip.gguf", tmp ? tmp : "/tmp");
	for (size_t bit = 0; bit < 448 * 8; bit++) {
		struct kb_err err = {0};
		struct kb_image *im;
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		write_file(src, bytes, len);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (kb_import_gguf(src, in_dir("x.kbm"), NULL, &err, NULL)) {
			assert_true(err.text[0]);
		} else {
			assert_int_equal(kb_image_open(in_dir("x.kbm"), &err, &im), 0);
			assert_int_equal(kb_image_verify(im, NULL, &err), 0);
			kb_image_close(im);
			unlink(in_dir("x.kbm"));
			imported++;
		}
		nothing_left();
	}
	assert_true(imported > 100 && imported < 448 * 8 - 1000);
	unlink(src);
	free(bytes);
}

// In a child: a write past the limit fails as it does on a full disk.
static int import_within(uint64_t file_limit)
{
	pid_t child = fork();
	if (child == 0) {
		struct rlimit limit = {file_limit, file_limit};
		struct kb_err err = {0};
		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &limit);
		_exit(-kb_import_gguf("tests/data/gguf/kinds.gguf", in_dir("x.kbm"), NULL, &err, NULL));
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

static void a_full_disk_leaves_nothing(void **state)
{
	(void)state;
	unsigned failed = 0;
	for (uint64_t limit = 0; limit < 400000; limit += 4096 * 3 + 100) {
		int r = import_within(limit);
		if (r == 0) {
			check_image(in_dir("x.kbm"), "tests/data/gguf/kinds.txt", 1);
			break;
		}
		assert_true(r == KB_ENOSPACE || r == KB_EIO);
		nothing_left();
		failed++;
	}
	assert_true(failed >= 5);
}

// On a file system of 64 KiB, in a namespace of the child's own.
static void too_small_a_disk_is_told_before(void **state)
{
	(void)state;
	enum { CANNOT = 77 };
	pid_t child = fork();
	if (child == 0) {
		struct kb_err err = {0};
		char names[256];
		// In a chroot "/" may be no mount point: EINVAL. The build root's mounts are private already.
		if (unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) != 0 ||
			(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 && errno != EINVAL) ||
			mount("tmpfs", dir, "tmpfs", 0, "size=64k") != 0)
			_exit(CANNOT);
		int r = kb_import_gguf("tests/data/gguf/kinds.gguf", in_dir("x.kbm"), NULL, &err, NULL);
		bool said = strstr(err.text, "not enough room at ") && strstr(err.text, ": needs 1 MB, has 0 MB");
		_exit(r == KB_ENOSPACE && said && list_dir(names, sizeof names) == 0 ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == CANNOT) {
		print_message("# no mount namespaces here\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int kill_half_way(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	(void)ctx;
	(void)what;
	if (done > total / 2)
		raise(SIGKILL);
	return 0;
}

static void a_killed_import_is_cleaned_up_by_the_next(void **state)
{
	(void)state;
	char names[1024];
	struct kb_partial other;
	pid_t child = fork();
	if (child == 0) {
		struct kb_import_options o = {.segment_bytes = 20000, .progress = {kill_half_way, NULL}};
		_exit(kb_import_gguf("tests/data/gguf/kinds.gguf", in_dir("x.kbm"), &o, NULL, NULL) != 0);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(list_dir(names, sizeof names), 1);
	assert_non_null(strstr(names, "x.kbm.partial-"));
	write_file(in_dir("keep.partial-notes"), "mine", 4); // no process number: not ours
	assert_int_equal(kb_partial_create(in_dir("y.kbm"), NULL, &other), 0);
	assert_int_equal(list_dir(names, sizeof names), 2); // y's creation removed x's leftover
	assert_int_equal(kb_import_gguf("tests/data/gguf/kinds.gguf", in_dir("x.kbm"), NULL, NULL, NULL), 0);
	list_dir(names, sizeof names);
	assert_null(strstr(names, "x.kbm.partial-"));
	assert_non_null(strstr(names, "y.kbm.partial-")); // being written: untouched
	assert_non_null(strstr(names, "keep.partial-notes"));
	struct kb_err err;
	struct kb_partial twice;
	assert_int_equal(kb_partial_create(in_dir("y.kbm"), &err, &twice), KB_EBUSY);
	kb_partial_abandon(&other);
	check_image(in_dir("x.kbm"), "tests/data/gguf/kinds.txt", 1);
}

static int cancel(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	(void)what;
	assert_true(done <= total);
	return ++*(int *)ctx == 3;
}

static void a_cancelled_import_leaves_nothing(void **state)
{
	(void)state;
	int calls = 0;
	struct kb_import_options o = {.progress = {cancel, &calls}};
	assert_int_equal(kb_import_gguf("tests/data/gguf/kinds.gguf", in_dir("x.kbm"), &o, NULL, NULL), KB_ECANCELLED);
	assert_int_equal(calls, 3);
	nothing_left();
}

static void replaces_only_when_told(void **state)
{
	(void)state;
	struct kb_err err = {0};
	struct kb_import_options o = {.replace = true};
	write_file(in_dir("x.kbm"), "mine", 4);
	assert_int_equal(kb_import_gguf("tests/data/gguf/small.gguf", in_dir("x.kbm"), NULL, &err, NULL), KB_EEXISTS);
	assert_non_null(strstr(err.text, "exists already"));
	size_t n;
	uint8_t *b = read_file(in_dir("x.kbm"), &n);
	assert_int_equal(n, 4);
	free(b);
	// A failed replacement leaves the old one.
	assert_int_equal(kb_import_gguf("tests/data/gguf/small.txt", in_dir("x.kbm"), &o, &err, NULL), KB_EBAD);
	b = read_file(in_dir("x.kbm"), &n);
	assert_int_equal(n, 4);
	free(b);
	assert_int_equal(kb_import_gguf("tests/data/gguf/small.gguf", in_dir("x.kbm"), &o, &err, NULL), 0);
	check_image(in_dir("x.kbm"), "tests/data/gguf/small.txt", 1);
	char names[256];
	assert_int_equal(list_dir(names, sizeof names), 1);
}

// --- files made here ---------------------------------------------------------

static void put(struct kb_buf *b, uint64_t v, size_t n)
{
	assert_int_equal(kb_buf_append(b, &v, n), 0);
}

static void put_str(struct kb_buf *b, const char *s)
{
	put(b, strlen(s), 8);
	assert_int_equal(kb_buf_puts(b, s), 0);
}

static void put_arch(struct kb_buf *b)
{
	put_str(b, "general.architecture");
	put(b, KB_META_STRING, 4);
	put_str(b, "llama");
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

static void put_tensor(struct kb_buf *b, const char *name, uint32_t type, uint32_t cols, uint32_t rows, uint64_t offset)
{
	put_str(b, name);
	put(b, 2, 4);
	put(b, cols, 8);
	put(b, rows, 8);
	put(b, type, 4);
	put(b, offset, 8);
}

static int import_made(struct kb_buf *b, struct kb_err *err)
{
	const char *tmp = getenv("KB_TMP");
	char src[512];
	snprintf(src, sizeof src, "%s/made.gguf", tmp ? tmp : "/tmp");
	write_file(src, b->data, b->len);
	kb_buf_finish(b);
	return kb_import_gguf(src, in_dir("made.kbm"), NULL, err, NULL);
}

static void refuses_what_is_no_model(void **state)
{
	(void)state;
	struct kb_err err;
	struct kb_buf b = head(0, 1);
	put_arch(&b);
	assert_int_equal(import_made(&b, &err), KB_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "holds no weights"));

	b = head(1, 2);
	put_arch(&b);
	put_str(&b, "split.count");
	put(&b, KB_META_U16, 4);
	put(&b, 3, 2);
	put_tensor(&b, "w", KB_GGML_F32, 32, 2, 0);
	for (int i = 0; i < 100; i++)
		put(&b, 0, 4);
	assert_int_equal(import_made(&b, &err), KB_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "one of 3 parts"));

	b = head(1, 0);
	put_tensor(&b, "w", KB_GGML_F32, 32, 2, 0);
	for (int i = 0; i < 100; i++)
		put(&b, 0, 4);
	assert_int_equal(import_made(&b, &err), KB_EBAD);
	assert_non_null(strstr(err.text, "'general.architecture' is missing"));

	b = head(1, 1);
	put_arch(&b);
	put_tensor(&b, "odd", KB_GGML_F32, 30, 2, 0);
	for (int i = 0; i < 100; i++)
		put(&b, 0, 4);
	assert_int_equal(import_made(&b, &err), KB_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "tensor 'odd' has rows of 30 values"));

	b = head(1, 1);
	put_arch(&b);
	put_tensor(&b, "nan", KB_GGML_Q2_K, 256, 2, 0);
	for (int i = 0; i < 100; i++)
		put(&b, UINT32_MAX, 4);
	assert_int_equal(import_made(&b, &err), KB_EBAD);
	assert_non_null(strstr(err.text, "not finite"));

	assert_int_equal(kb_import_gguf("tests/data/gguf", in_dir("x.kbm"), NULL, &err, NULL), KB_EBAD);
	assert_int_equal(kb_import_gguf("no/such.gguf", in_dir("x.kbm"), NULL, &err, NULL), KB_ENOTFOUND);
	assert_int_equal(kb_import_gguf("tests/data/gguf/small.gguf", "no/such/dir/x.kbm", NULL, &err, NULL), KB_ENOTFOUND);
	nothing_left();
}

// Metadata of 2.5 MiB is read in several goes, and an image with a value over many pages works.
static void reads_large_heads(void **state)
{
	(void)state;
	enum { STRINGS = 250000 };
	struct kb_err err = {0};
	struct kb_buf b = head(1, 2);
	put_arch(&b);
	put_str(&b, "tokenizer.ggml.tokens");
	put(&b, KB_META_ARRAY, 4);
	put(&b, KB_META_STRING, 4);
	put(&b, STRINGS, 8);
	for (uint32_t i = 0; i < STRINGS; i++) {
		put(&b, 3, 8);
		put(&b, i, 3);
	}
	put_tensor(&b, "w", KB_GGML_F32, 32, 2, 0);
	for (int i = 0; i < 100; i++)
		put(&b, 0x3f800000, 4);
	if (import_made(&b, &err))
		fail_msg("%s", err.text);
	struct kb_image *im;
	struct kb_meta_value v;
	struct kb_str s;
	assert_int_equal(kb_image_open(in_dir("made.kbm"), &err, &im), 0);
	struct kb_meta_source m = kb_image_meta_source(im);
	assert_int_equal(m.find(m.ctx, "tokenizer.ggml.tokens", &v), 0);
	assert_int_equal(v.count, STRINGS);
	size_t cursor = 0;
	for (uint32_t i = 0; i < STRINGS; i++) {
		uint32_t n = 0;
		assert_true(kb_meta_array_next_str(&v, &cursor, &s) && s.len == 3);
		memcpy(&n, s.data, 3);
		assert_int_equal(n, i);
	}
	kb_image_close(im);
}

static int cut_source(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	(void)total;
	(void)what;
	if (done < 8192)
		assert_int_equal(truncate(ctx, 20000), 0);
	return 0;
}

static int touch_source(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	(void)what;
	if (done < total / 2) {
		FILE *f = fopen(ctx, "ab");
		fputc(0, f);
		fclose(f);
	}
	return 0;
}

static void notices_a_source_that_changes(void **state)
{
	(void)state;
	size_t n;
	struct kb_err err = {0};
	uint8_t *bytes = read_file("tests/data/gguf/kinds.gguf", &n);
	const char *tmp = getenv("KB_TMP");
	char src[512];
	snprintf(src, sizeof src, "%s/changing.gguf", tmp ? tmp : "/tmp");
	write_file(src, bytes, n);
	struct kb_import_options o = {.progress = {cut_source, src}};
	assert_int_equal(kb_import_gguf(src, in_dir("x.kbm"), &o, &err, NULL), KB_EBAD);
	assert_non_null(strstr(err.text, "was cut off at byte 0x4e20 while it was read"));
	nothing_left();
	write_file(src, bytes, n);
	o.progress.step = touch_source;
	assert_int_equal(kb_import_gguf(src, in_dir("x.kbm"), &o, &err, NULL), KB_EBAD);
	assert_non_null(strstr(err.text, "changed while it was read"));
	nothing_left();
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(keeps_every_kind_and_key, fresh_dir),
		cmocka_unit_test_setup(the_same_file_makes_the_same_image, fresh_dir),
		cmocka_unit_test_setup(truncated_files_leave_nothing, fresh_dir),
		cmocka_unit_test_setup(flipped_bits_import_whole_or_not_at_all, fresh_dir),
		cmocka_unit_test_setup(a_full_disk_leaves_nothing, fresh_dir),
		cmocka_unit_test_setup(too_small_a_disk_is_told_before, fresh_dir),
		cmocka_unit_test_setup(a_killed_import_is_cleaned_up_by_the_next, fresh_dir),
		cmocka_unit_test_setup(a_cancelled_import_leaves_nothing, fresh_dir),
		cmocka_unit_test_setup(replaces_only_when_told, fresh_dir),
		cmocka_unit_test_setup(refuses_what_is_no_model, fresh_dir),
		cmocka_unit_test_setup(reads_large_heads, fresh_dir),
		cmocka_unit_test_setup(notices_a_source_that_changes, fresh_dir),
	};
	return cmocka_run_group_tests_name("storage/import", tests, NULL, NULL);
}
