// Written behind: the same bytes, holes where there are zeros, and a full or broken file said.
#include "storage/write_behind.h"
#include "unit/storage/expect.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALL (9u * KB_WRITE_BEHIND + 12345u)

static char path[512];

static uint8_t *make(void)
{
	uint8_t *data = malloc(ALL);
	assert_non_null(data);
	for (uint32_t i = 0; i < ALL; i++)
		data[i] = i / KB_WRITE_BEHIND % 3 == 1 ? 0 : (uint8_t)(i * 2654435761u >> 17) | 1;
	return data;
}

static void the_same_bytes(void **state)
{
	static const size_t pieces[] = {KB_WRITE_BEHIND, 4096, 1000003, 1};
	struct kb_err err = {0};
	uint8_t *data = make();
	(void)state;
	for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
		struct kb_write_behind *w = NULL;
		size_t all = pieces[p] == 1 ? 70000 : ALL, len;
		int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
		assert_int_equal(kb_write_behind_begin(fd, path, &err, &w), KB_OK);
		for (size_t at = 0; at < all; at += pieces[p])
			assert_int_equal(
				kb_write_behind_put(w, data + at, all - at < pieces[p] ? all - at : pieces[p], &err), KB_OK);
		assert_int_equal(kb_write_behind_end(w, &err), KB_OK);
		kb_write_behind_destroy(w);
		struct stat st;
		assert_int_equal(fstat(fd, &st), 0);
		if (pieces[p] == KB_WRITE_BEHIND)
			assert_true((uint64_t)st.st_blocks * 512 <= ALL - 3u * KB_WRITE_BEHIND + 65536);
		close(fd);
		uint8_t *got = read_file(path, &len);
		assert_int_equal(len, all);
		assert_memory_equal(got, data, all);
		free(got);
		unlink(path);
	}
	free(data);
}

static void zeros_at_the_end_count(void **state)
{
	uint8_t *zeros = calloc(1, KB_WRITE_BEHIND);
	struct kb_write_behind *w = NULL;
	struct kb_err err = {0};
	struct stat st;
	(void)state;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_int_equal(kb_write_behind_begin(fd, path, &err, &w), KB_OK);
	assert_int_equal(kb_write_behind_put(w, zeros, 5000, &err), KB_OK);
	assert_int_equal(kb_write_behind_end(w, &err), KB_OK);
	kb_write_behind_destroy(w);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 5000);
	assert_int_equal(st.st_blocks, 0);
	close(fd);
	unlink(path);
	free(zeros);
}

// What cannot be written is said, at the latest at the end; and giving up in the middle leaves no thread behind.
static void errors_arrive(void **state)
{
	uint8_t *data = make();
	struct kb_write_behind *w = NULL;
	struct kb_err err = {0};
	(void)state;
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC), rc = KB_OK;
	assert_int_equal(kb_write_behind_begin(fd, "/dev/full", &err, &w), KB_OK);
	for (int i = 0; i < 5 && rc == KB_OK; i++)
		rc = kb_write_behind_put(w, data, KB_WRITE_BEHIND, &err);
	rc = rc ? rc : kb_write_behind_end(w, &err);
	assert_int_equal(rc, KB_ENOSPACE);
	assert_non_null(strstr(err.text, "/dev/full at byte 0"));
	assert_int_equal(kb_write_behind_end(w, &err), KB_ENOSPACE);
	kb_write_behind_destroy(w);
	assert_int_equal(kb_write_behind_begin(fd, "/dev/full", &err, &w), KB_OK);
	assert_int_equal(kb_write_behind_put(w, data, KB_WRITE_BEHIND, &err), KB_OK);
	assert_int_equal(kb_write_behind_put(w, data, 1, &err), KB_OK);
	kb_write_behind_destroy(w);
	close(fd);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_bytes),
		cmocka_unit_test(zeros_at_the_end_count),
		cmocka_unit_test(errors_arrive),
	};
	const char *dir = getenv("KB_TMP");
	snprintf(path, sizeof path, "%s/file", dir ? dir : ".");
	return cmocka_run_group_tests_name("storage/write_behind", tests, NULL, NULL);
}
