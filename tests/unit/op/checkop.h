// checkop: runs every op on the reference and on Vulkan over many shapes, compares, checks batch invariance bit for
// bit. tests/unit/op/checkop_test.c is the program; checkop_cases.c the cases; checkop_bench.c the speeds.
#pragma once
#include "op/op.h"
#include "op/op_vk.h"
#include <stdbool.h>

#define BUFS_MAX 8
#define TOKENS_MAX KB_STEP_TOKENS_MAX

// A buffer of a case. Rows go with tokens (or outputs); a table does not.
struct buf {
	uint64_t row_bytes; // of one token; 0: not by token
	uint64_t bytes;
	bool out;  // compared
	bool half; // f16 values, compared as bits
};

// A case: one node over buffers. node() must use addr[i] only.
struct op_case {
	char label[96];
	struct buf bufs[BUFS_MAX];
	int n_bufs;
	void *init[BUFS_MAX]; // contents before a run, owned by the case; NULL: zero
	uint32_t tokens, outs;
	uint32_t token[TOKENS_MAX], position[TOKENS_MAX], slot[TOKENS_MAX], seq[TOKENS_MAX], out_row[TOKENS_MAX];
	uint32_t *pages; // (n_seqs, pages_per_seq), owned
	uint32_t n_seqs, pages_per_seq;
	struct kb_node node;
	void (*bind)(struct kb_node *n, const kb_addr *addr);
	double nmse_max, error_max; // bounds: mean squared error over mean square; largest error over root mean square
};

struct score {
	double nmse, error; // worst so far, as a part of their bounds
	unsigned cases;
	char failed[480]; // the first failure; empty: none
};

struct checkop {
	struct kb_backend *ref, *vk;
	bool quick;
	unsigned number, failures; // TAP
	const char *title;         // "tuned, 256 bits"
};

// Runs c on both sides and adds to s; frees what the case owns.
void run_case(struct checkop *o, struct op_case *c, struct score *s);
void report(struct checkop *o, const char *what, const struct score *s);
// only: names of what is to be checked ("matmul,layer"), or NULL: everything.
void check_all(struct checkop *o, const char *only);
void check_layer(struct checkop *o);
int bench(struct kb_backend *vk);

uint64_t rng_next(void);
float rng_float(void); // -1..1
void fill_floats(float *f, uint64_t n, float scale);
// A random matrix in panel layout: 64-byte aligned, free() it. Scales are such that weights are around 0.1.
void *random_panels(enum kb_format f, uint32_t rows, uint32_t cols, uint64_t *ret_bytes);
