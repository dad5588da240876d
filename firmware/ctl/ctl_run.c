// kotobako run: one question, one answer.
#include "firmware/ctl/answer.h"
#include "firmware/ctl/box.h"
#include "firmware/ctl/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>

struct output {
	bool is_terminal;
	bool ends_line; // what was written last ends with a line break
};

static int write_piece(void *ctx, const char *text, size_t len)
{
	struct output *o = ctx;
	o->ends_line = len > 0 && text[len - 1] == '\n';
	return kb_ctl_text_write(stdout, text, len, o->is_terminal);
}

static int print_json(const struct kb_ctl_answer *a)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *root = yyjson_mut_obj(doc);
	struct kb_ctl_speed s = kb_ctl_answer_speed(a);
	yyjson_mut_doc_set_root(doc, root);
	yyjson_mut_obj_add_str(doc, root, "model", a->model);
	yyjson_mut_obj_add_strn(doc, root, "text", a->text.data ? (const char *)a->text.data : "", a->text.len);
	yyjson_mut_obj_add_str(doc, root, "finish_reason", a->finish);
	yyjson_mut_obj_add_str(doc, root, "request_id", a->request_id);
	if (a->has_usage) {
		yyjson_mut_val *usage = yyjson_mut_obj_add_obj(doc, root, "usage");
		yyjson_mut_obj_add_uint(doc, usage, "prompt_tokens", a->prompt_tokens);
		yyjson_mut_obj_add_uint(doc, usage, "cached_tokens", a->cached_tokens);
		yyjson_mut_obj_add_uint(doc, usage, "completion_tokens", a->completion_tokens);
	}
	yyjson_mut_val *timings = yyjson_mut_obj_add_obj(doc, root, "timings");
	yyjson_mut_obj_add_real(doc, timings, "first_token_s", s.first_s);
	yyjson_mut_obj_add_real(doc, timings, "prefill_tps", s.prefill_tps);
	yyjson_mut_obj_add_real(doc, timings, "decode_tps", s.decode_tps);
	char *text = yyjson_mut_write(doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
	yyjson_mut_doc_free(doc);
	if (!text)
		return kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	puts(text);
	free(text);
	return KB_CTL_OK;
}

// The prompt and the system text; "-": standard input.
static int build_talk(const struct kb_ctl_args *args, struct kb_ctl_talk *talk)
{
	struct kb_buf input = {0};
	struct kb_err err = {0};
	const char *prompt = args->arg[0];
	if (strcmp(prompt, "-") == 0) {
		if (kb_ctl_read_file("-", &input, &err))
			return kb_ctl_fail(err.code == KB_ECANCELLED ? KB_CTL_INTERRUPTED : KB_CTL_FAILED, "%s", err.text);
		prompt = (const char *)input.data;
	}
	int status = KB_CTL_OK;
	if (strlen(prompt) == 0 || (input.data && strlen(prompt) != input.len))
		status = kb_ctl_fail(KB_CTL_USAGE, strlen(prompt) ? "the prompt holds a NUL byte" : "the prompt is empty");
	else if (kb_ctl_talk_set_system(talk, args->option[KB_RUN_SYSTEM].text) || kb_ctl_talk_add(talk, "user", prompt))
		status = kb_ctl_fail(KB_CTL_FAILED, "out of memory");
	kb_buf_finish(&input);
	return status;
}

static int answer_it(struct kb_http_client *c, const struct kb_ctl_args *args, struct kb_ctl_ask *ask)
{
	bool is_json = args->option[KB_RUN_JSON].is_set;
	const struct kb_ctl_value *wait = &args->option[KB_RUN_WAIT];
	struct output out = {.is_terminal = isatty(1), .ends_line = true};
	struct kb_ctl_answer a = {.on_text = is_json ? NULL : write_piece, .ctx = &out};
	int status = kb_ctl_ask(c, ask, wait->is_set ? wait->count : 60, &a);
	if (!out.ends_line)
		putchar('\n');
	fflush(stdout); // before the figures on standard error; a failure shows in the last flush
	if (status == KB_CTL_OK && is_json)
		status = print_json(&a);
	if (status == KB_CTL_OK && args->option[KB_RUN_STATS].is_set)
		kb_ctl_answer_stats(&a);
	kb_ctl_answer_finish(&a);
	if (fflush(stdout) && status == KB_CTL_OK)
		status = kb_ctl_fail(KB_CTL_FAILED, "standard output takes no more");
	return status;
}

int kb_ctl_run(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	struct kb_http_client *c = NULL;
	struct kb_ctl_talk talk = {0};
	struct kb_ctl_ask ask = {.model = args->option[KB_RUN_MODEL].text,
		.talk = &talk,
		.max_tokens = args->option[KB_RUN_MAX_TOKENS],
		.temperature = args->option[KB_RUN_TEMPERATURE],
		.top_p = args->option[KB_RUN_TOP_P],
		.seed = args->option[KB_RUN_SEED]};
	kb_ctl_catch_interrupt(true);
	int status = build_talk(args, &talk);
	if (status == 0)
		status = kb_ctl_box_open(ctl, &c);
	if (status == 0)
		status = answer_it(c, args, &ask);
	kb_http_client_destroy(c);
	kb_ctl_talk_finish(&talk);
	return status;
}
