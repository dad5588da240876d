#include "harness/gguf_file.h"

#include "harness/kt.h"
#include "storage/gguf.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct gguf_file {
	void *map;
	size_t len;
	struct kb_gguf gguf;
	struct kb_meta_source meta;
};

struct gguf_file *gguf_file_open(const char *path)
{
	struct gguf_file *g = calloc(1, sizeof *g);
	struct stat st;
	struct kb_err err;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		fail_msg("%s is missing: `make test-inputs` fetches it", path);
	g->len = (size_t)st.st_size;
	g->map = mmap(NULL, g->len, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	assert_true(g->map != MAP_FAILED);
	if (kb_gguf_parse(g->map, g->len, g->len, &err, &g->gguf))
		fail_msg("%s: %s", path, err.text);
	g->meta = kb_gguf_meta_source(&g->gguf);
	return g;
}

const struct kb_meta_source *gguf_file_meta(struct gguf_file *g)
{
	return &g->meta;
}

void gguf_file_close(struct gguf_file *g)
{
	kb_gguf_finish(&g->gguf);
	munmap(g->map, g->len);
	free(g);
}

char *read_whole_file(const char *path, size_t *ret_len)
{
	FILE *f = fopen(path, "rb");
	if (!f)
		fail_msg("cannot open %s", path);
	fseek(f, 0, SEEK_END);
	long n = ftell(f);
	rewind(f);
	char *text = malloc((size_t)n + 1);
	assert_non_null(text);
	assert_int_equal(fread(text, 1, (size_t)n, f), n);
	text[n] = 0;
	fclose(f);
	if (ret_len)
		*ret_len = (size_t)n;
	return text;
}
