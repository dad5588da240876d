// The models of this box: signed ones that are installed where it trusts a root, else the files NAME.kbm of one
// directory.
#pragma once
#include "base/err.h"
#include "base/meta.h"
#include "storage/installed.h"
#include <stdbool.h>
#include <stdint.h>

#define KB_MODELS_MAX 256u // of one box; a 1 TB disk holds about as many small ones
#define KB_MODEL_NAME_MAX 64u

struct kb_model {
	char name[KB_MODEL_NAME_MAX + 1];
	int64_t created_s; // when the file was made, or became the active version
	uint64_t bytes;
	uint64_t id;      // another file has another
	uint64_t version; // of a signed one; 0: it is none
	uint8_t digest[KB_MANIFEST_HASH];
};

struct kb_models {
	char dir[512];
	struct kb_state *state; // NULL: there are no signed ones
	bool is_signed;
	uint64_t generation; // of the state when it was read
	struct kb_model row[KB_MODELS_MAX];
	uint32_t n; // sorted by name
};

// Looks anew; a missing directory is an empty one. Whatever the state cannot say does not run.
void kb_models_scan(struct kb_models *m);
// The file of one; free() it, NULL without memory.
char *kb_models_path(const struct kb_models *m, const struct kb_model *row);
// NULL where there is none of that name.
const struct kb_model *kb_models_find(const struct kb_models *m, struct kb_str name);
