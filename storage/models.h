// The models directory: one image a model, NAME.kbm.
#pragma once
#include "base/limits.h"
#include "storage/image.h"
#include <stdbool.h>
#include <stddef.h>

#define KB_MODEL_SUFFIX ".kbm"

// 1 to 64 of a-z 0-9 . _ -, the first a letter or digit. Such a name is safe in a path, a URL and a command line.
bool kb_model_name_valid(const char *name);
// "…/SmolLM2-135M-Instruct.Q4_1.gguf" -> "smollm2-135m-instruct.q4_1". Always valid.
void kb_model_name_from_file(const char *path, char ret_name[static KB_MAX_MODEL_NAME + 1]);

struct kb_model_entry {
	char name[KB_MAX_MODEL_NAME + 1];
	char *path; // owned by the list
	uint64_t file_bytes, parameters;
	char arch[32];    // general.architecture; "" where unknown, as the next two
	char title[128];  // general.name
	char license[64]; // general.license
	char weights[96]; // "Q8_0 54 %, Q5_0 31 %, Q4_K 10 %": source kinds by stored bytes, at most three
	uint8_t total[KB_HASH_BYTES];
	uint64_t version, previous; // of a signed image; 0: none (store.h)
	struct kb_err error;        // code is not 0 where the image cannot be opened; then only name, path, file_bytes hold
};

// Fills all but name, path and versions from the file at path.
void kb_model_describe(struct kb_model_entry *e);

struct kb_model_list {
	struct kb_model_entry *models; // in order of name
	uint32_t n;
};

// A directory that does not exist holds no models. Files with other names are passed over. finish() the list.
KB_MUST_CHECK int kb_models_list(const char *directory, struct kb_err *err, struct kb_model_list *ret);
void kb_model_list_finish(struct kb_model_list *list);

// Where a model of that name is or would be; free() it. KB_EBAD for an invalid name.
KB_MUST_CHECK int kb_model_path(const char *directory, const char *name, struct kb_err *err, char **ret_path);
// The same, KB_ENOTFOUND where there is no such file.
KB_MUST_CHECK int kb_model_find(const char *directory, const char *name, struct kb_err *err, char **ret_path);
