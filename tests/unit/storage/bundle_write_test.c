// Images that are written are read by a box as the same model; writing is repeatable, whole or nothing, and keeps
// holes.
#include "storage/bundle.h"
#include "storage/bundle_write.h"
#include "unit/storage/keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOM 256u
#define HOLE (3u << 20)

static const char *scratch; // made and emptied by tests/harness/one.sh

struct fixture {
	struct kb_signer *key;
	struct kb_buf root;
	uint8_t block[ROOM];
	struct kb_bundle_parts parts;
	char payload[256], image[256];
};

static struct kb_str str(const char *text)
{
	return (struct kb_str){text, strlen(text)};
}

static struct fixture *make(void)
{
	struct fixture *f = calloc(1, sizeof *f);
	assert_non_null(f);
	f->key = new_signer(KB_CURVE_P256);
	memcpy(f->block, KB_SIGNATURES_NONE, 8);
	one_key_root(f->key, 1, false, &f->root);
	put_signature(f->key, KB_DOMAIN_ROOT, &f->root, f->block, ROOM);
	f->parts.chain.n = 1;
	f->parts.chain.roots[0] = signed_of(&f->root, f->block, ROOM);
	f->parts.manifest = (struct kb_manifest){.model = str("m"),
		.version = 1,
		.created = 2,
		.family = str("llama"),
		.licence = str("Apache-2.0"),
		.min_firmware = 1,
		.device_memory = 5};
	snprintf(f->payload, sizeof f->payload, "%s/payload", scratch);
	snprintf(f->image, sizeof f->image, "%s/image.kbm", scratch);
	f->parts.payload = f->payload;
	return f;
}

static void finish(struct fixture *f)
{
	unlink(f->payload);
	unlink(f->image);
	kb_signer_close(f->key);
	kb_buf_finish(&f->root);
	free(f);
}

// A file of that many bytes with a hole of 1 MiB where it is long enough.
static void make_payload(const struct fixture *f, size_t size)
{
	uint8_t *bytes = malloc(size);
	assert_non_null(bytes);
	for (size_t i = 0; i < size; i++)
		bytes[i] = i >= HOLE && i < HOLE + (1u << 20) ? 0 : (uint8_t)(i * 2654435761u >> 11 ^ i >> 9) | 1;
	write_file(f->payload, bytes, size);
	free(bytes);
}

static void sign(struct fixture *f)
{
	uint8_t id[KB_KEY_ID], raw[KB_SIGNATURE_MAX];
	struct kb_bundle_head *h = calloc(1, sizeof *h);
	struct kb_buf bytes = {0};
	struct kb_err err = {0};
	size_t len = 0;
	int fd = open(f->image, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0 && h != NULL);
	assert_int_equal(kb_bundle_head_read(fd, &err, &bytes, h), KB_OK);
	assert_int_equal(h->len % KB_VERITY_BLOCK, 0);
	kb_key_id(kb_signer_key(f->key), id);
	assert_int_equal(
		kb_signer_sign(f->key, KB_DOMAIN_MODEL, h->manifest.bytes, h->manifest.len, &err, raw, &len), KB_OK);
	assert_int_equal(kb_bundle_head_sign(fd, &(struct kb_signature){id, (uint32_t)len, raw}, &err), KB_OK);
	close(fd);
	kb_buf_finish(&bytes);
	free(h);
}

struct seen {
	uint8_t *bytes;
	uint64_t len;
};

static int on_root(void *ctx, const struct kb_root *root, const struct kb_signed *signed_, struct kb_err *err)
{
	(void)ctx, (void)root, (void)signed_;
	return kb_fail(err, KB_EARG, "there is no newer root");
}

static int on_manifest(
	void *ctx, const struct kb_manifest *m, const uint8_t digest[static KB_VERITY_HASH], struct kb_err *err)
{
	struct seen *s = ctx;
	(void)digest, (void)err;
	s->bytes = malloc(m->payload_bytes);
	assert_non_null(s->bytes);
	return KB_OK;
}

static int on_data(void *ctx, uint64_t offset, const uint8_t *bytes, size_t len, struct kb_err *err)
{
	struct seen *s = ctx;
	(void)err;
	assert_int_equal(offset, s->len);
	memcpy(s->bytes + s->len, bytes, len);
	s->len += len;
	return KB_OK;
}

static int read_by_box(const struct fixture *f, const uint8_t *image, size_t len, struct seen *s, struct kb_err *err)
{
	const struct kb_bundle_policy policy = {
		.role = KB_ROLE_MODEL, .root = f->root.data, .root_len = f->root.len, .firmware = 1};
	const struct kb_bundle_events events = {.ctx = s, .root = on_root, .manifest = on_manifest, .data = on_data};
	struct kb_bundle *b;
	assert_int_equal(kb_bundle_create(&policy, &events, err, &b), KB_OK);
	int rc = kb_bundle_feed(b, image, len, err);
	rc = rc ? rc : kb_bundle_end(b, err);
	kb_bundle_destroy(b);
	return rc;
}

static void a_box_reads_the_same_model(void **state)
{
	static const size_t sizes[] = {1, 4095, 4096, 4097, 128 * 4096, 128 * 4096 + 1, (6u << 20) + 77};
	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct fixture *f = make();
		struct kb_err err = {0};
		struct seen s = {0};
		struct stat st;
		size_t len, again_len, payload_len;
		make_payload(f, sizes[i]);
		assert_int_equal(kb_bundle_write(&f->parts, f->image, NULL, &err), KB_OK);
		uint8_t *first = read_file(f->image, &len);
		assert_int_equal(read_by_box(f, first, len, &s, &err), KB_EDENIED); // nobody has signed it
		f->parts.replace = true;
		assert_int_equal(kb_bundle_write(&f->parts, f->image, NULL, &err), KB_OK);
		uint8_t *again = read_file(f->image, &again_len);
		assert_int_equal(len, again_len);
		assert_memory_equal(first, again, len);
		free(first);
		free(again);
		sign(f);
		first = read_file(f->image, &len);
		uint8_t *payload = read_file(f->payload, &payload_len);
		int rc = read_by_box(f, first, len, &s, &err);
		if (rc != KB_OK)
			fail_msg("%zu bytes: %d, %s", sizes[i], rc, err.text);
		assert_int_equal(s.len, payload_len);
		assert_memory_equal(s.bytes, payload, payload_len);
		if (sizes[i] > HOLE && stat(f->image, &st) == 0)
			assert_true((uint64_t)st.st_blocks * 512 < (uint64_t)st.st_size - (1u << 19));
		free(s.bytes);
		free(payload);
		free(first);
		finish(f);
	}
}

static unsigned files_in_scratch(void)
{
	DIR *d = opendir(scratch);
	unsigned n = 0;
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

struct meddler {
	const char *path, *when;
	int rc;
};

// Changes a byte of the payload between the two readings.
static int meddle(void *ctx, uint64_t done, uint64_t total, const char *what)
{
	const struct meddler *m = ctx;
	(void)done, (void)total;
	if (strcmp(what, m->when) != 0)
		return 0;
	int fd = open(m->path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "", 1, (5 << 20) + 5), 1);
	close(fd);
	return m->rc;
}

static void whole_or_nothing(void **state)
{
	struct fixture *f = make();
	struct kb_err err = {0};
	struct meddler m = {f->payload, "reading", 1};
	const struct kb_progress progress = {meddle, &m};
	(void)state;
	assert_int_equal(kb_bundle_write(&f->parts, f->image, NULL, &err), KB_ENOTFOUND);
	assert_non_null(strstr(err.text, f->payload));
	write_file(f->payload, "", 0);
	assert_int_equal(kb_bundle_write(&f->parts, f->image, NULL, &err), KB_EBAD);
	make_payload(f, 6u << 20);
	assert_int_equal(kb_bundle_write(&f->parts, f->image, &progress, &err), KB_ECANCELLED);
	m = (struct meddler){f->payload, "writing", 0};
	make_payload(f, 6u << 20);
	assert_int_equal(kb_bundle_write(&f->parts, f->image, &progress, &err), KB_ECORRUPT);
	assert_non_null(strstr(err.text, "changed while it was read"));
	struct kb_manifest good = f->parts.manifest;
	f->parts.manifest.licence = (struct kb_str){0};
	assert_int_equal(kb_bundle_write(&f->parts, f->image, NULL, &err), KB_EARG);
	assert_non_null(strstr(err.text, "licence"));
	f->parts.manifest = good;
	assert_int_equal(files_in_scratch(), 1); // the payload
	assert_int_equal(kb_bundle_write(&f->parts, f->image, NULL, &err), KB_OK);
	assert_int_equal(kb_bundle_write(&f->parts, f->image, NULL, &err), KB_EEXISTS);
	assert_int_equal(files_in_scratch(), 2);
	finish(f);
}

static void heads_are_read_again(void **state)
{
	struct fixture *f = make();
	struct kb_bundle_head *h = calloc(1, sizeof *h);
	struct kb_buf bytes = {0};
	struct kb_err err = {0};
	struct kb_manifest m;
	size_t len;
	(void)state;
	assert_non_null(h);
	make_payload(f, 5000);
	assert_int_equal(kb_bundle_write(&f->parts, f->image, NULL, &err), KB_OK);
	uint8_t *image = read_file(f->image, &len);
	assert_int_equal(kb_bundle_head_parse(image, len, &err, h), KB_OK);
	assert_int_equal(h->chain.n, 1);
	assert_int_equal(h->chain.roots[0].len, f->root.len);
	assert_int_equal(kb_manifest_parse(h->manifest.bytes, h->manifest.len, &err, &m), KB_OK);
	assert_int_equal(m.payload_bytes, 5000);
	const size_t head = h->len;
	for (size_t n = 0; n < head; n++)
		assert_int_equal(kb_bundle_head_parse(image, n, &err, h), KB_EPARTIAL);
	image[12] = KB_BUNDLE_ENCODINGS;
	assert_int_equal(kb_bundle_head_parse(image, len, &err, h), KB_EUNSUPPORTED);
	int fd = open(f->image, O_RDWR | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, (off_t)head - 1), 0);
	assert_int_equal(kb_bundle_head_read(fd, &err, &bytes, h), KB_EBAD);
	close(fd);
	free(image);
	free(h);
	finish(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_box_reads_the_same_model),
		cmocka_unit_test(whole_or_nothing),
		cmocka_unit_test(heads_are_read_again),
	};
	scratch = getenv("KB_TMP");
	if (!scratch)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
