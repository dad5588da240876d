// --logits: what the model says after every token of a given text, for comparison with an oracle.
#include "base/log.h"
#include "firmware/engine/engine.h"
#include <stdio.h>
#include <stdlib.h>

#define TOKENS_MAX (1u << 20)

static int read_tokens(const char *path, uint32_t vocab, struct kb_err *err, uint32_t **ret, uint32_t *ret_n)
{
	uint32_t n = 0, *tokens = NULL;
	FILE *f = fopen(path, "rb");
	if (!f)
		return kb_fail(err, KB_EIO, "%s cannot be read", path);
	int rc = 0;
	if (fread(&n, sizeof n, 1, f) != 1 || n == 0 || n > TOKENS_MAX)
		rc = kb_fail(err, KB_EBAD, "%s: begins with a count of 1 to %u", path, TOKENS_MAX);
	else if (!(tokens = calloc(n, sizeof *tokens)))
		rc = kb_fail(err, KB_ENOMEM, "%s: out of memory", path);
	else if (fread(tokens, sizeof *tokens, n, f) != n)
		rc = kb_fail(err, KB_EBAD, "%s: shorter than its %u tokens", path, n);
	for (uint32_t i = 0; i < n && rc == 0; i++)
		if (tokens[i] >= vocab)
			rc = kb_fail(err, KB_EBAD, "%s: token %u is %u of a vocabulary of %u", path, i, tokens[i], vocab);
	fclose(f);
	if (rc) {
		free(tokens);
		return rc;
	}
	*ret = tokens;
	*ret_n = n;
	return 0;
}

// One sequence in row 0, pages in order; as many tokens a step as get logits.
static int write_rows(struct kb_engine *e, const uint32_t *tokens, uint32_t n, FILE *out, struct kb_err *err)
{
	const struct kb_model_info *info = kb_model_info(e->model);
	uint32_t chunk = info->max_out < info->max_tokens ? info->max_out : info->max_tokens;
	uint32_t position[KB_STEP_TOKENS_MAX], seq[KB_STEP_TOKENS_MAX] = {0}, out_row[KB_STEP_TOKENS_MAX];
	uint32_t *row = kb_model_page_row(e->model, 0);
	if (n > info->context || n > info->kv_pages * KB_KV_PAGE_TOKENS)
		return kb_fail(err, KB_ELIMIT, "%u tokens do not fit: the context is %u, the KV cache %u (--kv-tokens)", n,
			info->context, info->kv_pages * KB_KV_PAGE_TOKENS);
	for (uint32_t i = 0; i < info->kv_pages; i++)
		row[i] = i;
	for (uint32_t at = 0; at < n; at += chunk) {
		uint32_t m = n - at < chunk ? n - at : chunk;
		for (uint32_t i = 0; i < m; i++) {
			position[i] = at + i;
			out_row[i] = i;
		}
		const struct kb_batch batch = {
			.n_tokens = m,
			.n_out = m,
			.token = tokens + at,
			.position = position,
			.slot = position, // page i is page i
			.seq = seq,
			.out_row = out_row,
		};
		const float *logits;
		int rc = kb_model_step(e->model, &batch, err, &logits);
		if (rc)
			return rc;
		if (fwrite(logits, sizeof(float) * info->vocab, m, out) != m)
			return kb_fail(err, KB_EIO, "the output cannot be written");
	}
	return 0;
}

int kb_mode_logits(const struct kb_engine_options *o, char **arguments)
{
	struct kb_engine_options with_room = *o;
	struct kb_engine e;
	struct kb_err err = {0};
	uint32_t *tokens = NULL, n = 0;
	with_room.no_sandbox = true; // reads and writes the caller's files
	if (!with_room.max_seqs)
		with_room.max_seqs = 64;
	int rc = kb_engine_open(&e, &with_room, NULL, NULL, &err);
	if (rc) {
		kb_error("engine", "%s", err.text);
		return EXIT_FAILURE;
	}
	rc = read_tokens(arguments[0], kb_model_info(e.model)->vocab, &err, &tokens, &n);
	FILE *out = rc ? NULL : fopen(arguments[1], "wb");
	if (rc == 0 && !out)
		rc = kb_fail(&err, KB_EIO, "%s cannot be written", arguments[1]);
	if (rc == 0)
		rc = write_rows(&e, tokens, n, out, &err);
	if (out && fclose(out) && rc == 0)
		rc = kb_fail(&err, KB_EIO, "%s cannot be written", arguments[1]);
	if (rc)
		kb_error("engine", "%s", err.text);
	free(tokens);
	kb_engine_close(&e);
	return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
