// What gguf-py says of a fixture (tests/data/gguf/NAME.txt), and reading whole files.
#pragma once
#include "harness/kt.h"

#include <inttypes.h>
#include <stdio.h>

struct expect_tensor {
	char name[128];
	uint32_t type, n_dims, crc;
	uint64_t dims[4];
};
struct expect_meta {
	char key[128];
	uint8_t value[512];
	size_t len;
};
struct expect {
	uint32_t n_tensors, n_meta;
	struct expect_tensor tensors[64];
	struct expect_meta meta[64];
};

static inline uint8_t *read_file(const char *path, size_t *ret_len)
{
	FILE *f = fopen(path, "rb");
	if (!f)
		fail_msg("cannot open %s", path);
	fseek(f, 0, SEEK_END);
	*ret_len = (size_t)ftell(f);
	rewind(f);
	uint8_t *bytes = malloc(*ret_len + 1);
	assert_int_equal(fread(bytes, 1, *ret_len, f), *ret_len);
	bytes[*ret_len] = 0;
	fclose(f);
	return bytes;
}

static inline void write_file(const char *path, const void *bytes, size_t len)
{
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static inline void expect_line(struct expect *e, const char *line)
{
	struct expect_tensor *t = &e->tensors[e->n_tensors];
	struct expect_meta *m = &e->meta[e->n_meta];
	int at = 0;
	if (sscanf(line, "tensor %127s %" SCNu32 " %" SCNu32 "%n", t->name, &t->type, &t->n_dims, &at) == 3) {
		for (uint32_t i = 0; i < 4; i++) {
			int used = 0;
			t->dims[i] = 1;
			if (i < t->n_dims)
				assert_int_equal(sscanf(line + at, "%" SCNu64 "%n", &t->dims[i], &used), 1);
			at += used;
		}
		assert_int_equal(sscanf(line + at, "%" SCNx32, &t->crc), 1);
		e->n_tensors++;
	} else if (sscanf(line, "meta %127s %n", m->key, &at) == 1) {
		unsigned byte;
		while (sscanf(line + at, "%2x", &byte) == 1) {
			assert_true(m->len < sizeof m->value);
			m->value[m->len++] = (uint8_t)byte;
			at += 2;
		}
		e->n_meta++;
	}
}

static inline struct expect *expect_read(const char *path)
{
	struct expect *e = calloc(1, sizeof *e);
	char line[2048];
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f))
		expect_line(e, line);
	fclose(f);
	assert_true(e->n_tensors > 0 && e->n_meta > 0);
	return e;
}

// zlib's CRC-32 (reflected polynomial 0xedb88320), chained over crc; begin with 0.
static inline uint32_t crc32_of(uint32_t crc, const void *data, size_t n)
{
	const uint8_t *p = data;
	crc = ~crc;
	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}
