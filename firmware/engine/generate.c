// --generate: a text continued greedily, printed as it comes. For debugging; people use `kotobako run`.
#include "base/clock.h"
#include "base/log.h"
#include "firmware/engine/engine.h"
#include "sched/sched.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_over;

static void on_accepted(void *ctx, uint64_t id, uint32_t prompt_tokens)
{
	(void)ctx, (void)id;
	fprintf(stderr, "[%u prompt tokens]\n", prompt_tokens);
}

static void on_token(void *ctx, uint64_t id, const struct kb_sched_token *t)
{
	(void)ctx, (void)id;
	printf("%.*s", (int)t->text.len, t->text.len ? t->text.data : "");
	fflush(stdout);
}

static void on_done(void *ctx, uint64_t id, const struct kb_sched_done *d)
{
	(void)ctx, (void)id;
	printf("%.*s\n", (int)d->text.len, d->text.len ? d->text.data : "");
	fprintf(stderr, "[%u tokens, read in %.3f s, answered in %.3f s]\n", d->completion_tokens,
		(double)d->prefill_us / 1e6, (double)d->decode_us / 1e6);
	is_over = true;
}

static void on_error(void *ctx, uint64_t id, const struct kb_err *err)
{
	(void)ctx, (void)id;
	kb_error("engine", "%s", err->text);
	is_over = true;
}

static int generate(struct kb_engine *e, const char *text, uint32_t max_new, struct kb_err *err)
{
	struct kb_sched_model model = kb_sched_model_of(e->model);
	const struct kb_sched_events events = {NULL, on_accepted, on_token, on_done, on_error};
	const struct kb_span span = {text, strlen(text), true};
	size_t n = 0, cap = kb_tok_bound(span.len) + 1;
	uint32_t *ids = calloc(cap, sizeof *ids);
	struct kb_sched *s = NULL;
	if (!ids)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	int rc = kb_tok_encode(e->tok, &span, 1, KB_TOK_BOS, ids, cap, &n);
	if (rc)
		kb_fail(err, rc, "the text: %s", kb_err_message(rc));
	else
		rc = kb_sched_create(&model, e->tok, NULL, &events, err, &s);
	const struct kb_sched_request r = {.id = 1, .prompt = ids, .n_prompt = (uint32_t)n, .max_new = max_new};
	if (rc == 0)
		rc = kb_sched_submit(s, &r, kb_clock_ns() / 1000, err);
	while (rc == 0 && !is_over && kb_sched_plan(s, kb_clock_ns() / 1000)) {
		struct kb_err step = {0};
		int failure = kb_sched_run(s, &step);
		kb_sched_settle(s, failure, &step, 0, kb_clock_ns() / 1000);
	}
	kb_sched_destroy(s);
	free(ids);
	return rc;
}

int kb_mode_generate(const struct kb_engine_options *o, char **arguments)
{
	struct kb_engine e;
	struct kb_err err = {0};
	int rc = kb_engine_open(&e, o, NULL, NULL, &err);
	if (rc == 0) {
		rc = generate(&e, arguments[1], o->decode_tokens ? o->decode_tokens : 64, &err);
		kb_engine_close(&e);
	}
	if (rc)
		kb_error("engine", "%s", err.text);
	return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
