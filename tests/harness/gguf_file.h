// Tests' way to a GGUF file's metadata and to whole files. Failures end the test.
#pragma once
#include "base/meta.h"

struct gguf_file;
struct gguf_file *gguf_file_open(const char *path);
const struct kb_meta_source *gguf_file_meta(struct gguf_file *g);
void gguf_file_close(struct gguf_file *g);
// NUL-terminated; free() it. ret_len may be NULL.
char *read_whole_file(const char *path, size_t *ret_len);
