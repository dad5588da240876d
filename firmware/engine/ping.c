#include "firmware/engine/ping.h"
#include "base/clock.h"
#include <stdlib.h>

enum { ROWS = KB_PANEL_ROWS, COLS = KB_BLOCK_COLS };

// One allocation; every part at a multiple of 256 bytes, which suits any device.
struct ping_memory {
	_Alignas(256) struct kb_step_head head;
	_Alignas(256) uint32_t token[1];
	_Alignas(256) uint32_t position[1];
	_Alignas(256) uint32_t slot[1];
	_Alignas(256) uint32_t seq[1];
	_Alignas(256) uint32_t page_table[1];
	_Alignas(256) uint32_t out_row[1];
	_Alignas(256) float w[ROWS][COLS]; // an f32 panel of one block is rows one after another (quant/quant.h)
	_Alignas(256) float x[COLS];
	_Alignas(256) float y[ROWS];
	_Alignas(256) float z[ROWS];
};

struct kb_ping {
	struct kb_backend *backend;
	struct kb_mem mem;
	struct kb_graph *graph;
	uint32_t n_runs;
};

static uint32_t weight(uint32_t row, uint32_t col)
{
	return (row * 5 + col * 3) % 11;
}

int kb_ping_create(struct kb_backend *b, struct kb_err *err, struct kb_ping **ret)
{
	struct kb_ping *p = calloc(1, sizeof *p);
	if (!p)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	p->backend = b;
	int rc = b->ops->alloc(b, KB_MEM_HOST, sizeof(struct ping_memory), "health check", err, &p->mem);
	if (rc) {
		free(p);
		return rc;
	}
	struct ping_memory *m = p->mem.host;
	for (uint32_t r = 0; r < ROWS; r++)
		for (uint32_t c = 0; c < COLS; c++)
			m->w[r][c] = (float)weight(r, c);
	kb_addr at = p->mem.addr;
#define AT(field) (at + offsetof(struct ping_memory, field))
	const struct kb_node nodes[] = {
		{.op = KB_OP_MATMUL,
			.name = "ping.matmul",
			.matmul = {.w = {KB_FMT_F32, ROWS, COLS, AT(w)}, .x = AT(x), .y = AT(y), .count = KB_COUNT_TOKENS}},
		{.op = KB_OP_ADD, .name = "ping.add", .add = {.x = AT(z), .y = AT(y), .width = ROWS}},
	};
	const struct kb_graph_desc desc = {
		.nodes = nodes,
		.n_nodes = sizeof nodes / sizeof *nodes,
		.step = {AT(head), AT(token), AT(position), AT(slot), AT(seq), AT(page_table), AT(out_row)},
		.max_tokens = 1,
		.max_out = 1,
	};
#undef AT
	rc = b->ops->graph_create(b, &desc, err, &p->graph);
	if (rc) {
		kb_ping_destroy(p);
		return rc;
	}
	*ret = p;
	return 0;
}

void kb_ping_destroy(struct kb_ping *p)
{
	if (!p)
		return;
	if (p->graph)
		p->backend->ops->graph_destroy(p->backend, p->graph);
	p->backend->ops->free(p->backend, &p->mem);
	free(p);
}

int kb_ping_run(struct kb_ping *p, struct kb_err *err, uint32_t *ret_us)
{
	struct ping_memory *m = p->mem.host;
	uint32_t n = ++p->n_runs;
	m->head = (struct kb_step_head){.n_tokens = 1, .n_out = 1, .pages_per_seq = 1, .canary = n};
	m->slot[0] = KB_NO_SLOT;
	for (uint32_t c = 0; c < COLS; c++)
		m->x[c] = (float)((c + n) % 7);
	for (uint32_t r = 0; r < ROWS; r++) {
		m->y[r] = -1;
		m->z[r] = (float)(r + n % 1024);
	}
	uint64_t start = kb_clock_ns();
	int rc = p->backend->ops->graph_run(p->backend, p->graph, err);
	if (rc)
		return rc;
	uint64_t us = (kb_clock_ns() - start) / 1000;
	for (uint32_t r = 0; r < ROWS; r++) {
		uint32_t sum = r + n % 1024; // whole numbers below 2^24: exact in f32 in any order of summing
		for (uint32_t c = 0; c < COLS; c++)
			sum += weight(r, c) * ((c + n) % 7);
		if (m->z[r] != (float)sum)
			return kb_fail(
				err, KB_EDEVICE, "%s computed %g where %u is right", p->backend->device, (double)m->z[r], sum);
	}
	*ret_us = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
	return 0;
}
