// Installed models: the files NAME.kbm of one directory.
#pragma once
#include "base/err.h"
#include "base/meta.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define KB_MODELS_MAX 256u // of one box; a 1 TB disk holds about as many small ones
#define KB_MODEL_NAME_MAX 64u

struct kb_model {
	char name[KB_MODEL_NAME_MAX + 1];
	int64_t created_s; // when the file was made
	uint64_t bytes;
	ino_t inode;
};

struct kb_models {
	char dir[512];
	struct kb_model row[KB_MODELS_MAX];
	uint32_t n; // sorted by name
};

// Reads the directory anew; a missing one is an empty one.
void kb_models_scan(struct kb_models *m);
// NULL where there is none of that name.
const struct kb_model *kb_models_find(const struct kb_models *m, struct kb_str name);
