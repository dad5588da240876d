/* see answer.h */
#include "firmware/ctl/answer.h"

#include "base/clock.h"
#include "firmware/ctl/box.h"
#include "firmware/ctl/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>

/* see answer.h */
int kb_ctl_ask_body(const struct kb_ctl_ask *ask, struct kb_buf *out)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *root = yyjson_mut_obj(doc);
	yyjson_mut_doc_set_root(doc, root);
	if (ask->model)
		yyjson_mut_obj_add_str(doc, root, "model", ask->model);
	yyjson_mut_val *list = yyjson_mut_obj_add_arr(doc, root, "messages");
	for (uint32_t i = 0; i < ask->talk->n; i++) {
		yyjson_mut_val *m = yyjson_mut_arr_add_obj(doc, list);
		yyjson_mut_obj_add_str(doc, m, "role", ask->talk->turns[i].role);
		yyjson_mut_obj_add_str(doc, m, "content", ask->talk->turns[i].content);
	}
	yyjson_mut_obj_add_bool(doc, root, "stream", true);
	yyjson_mut_val *options = yyjson_mut_obj_add_obj(doc, root, "stream_options");
	yyjson_mut_obj_add_bool(doc, options, "include_usage", true);
	if (ask->max_tokens.is_set)
		yyjson_mut_obj_add_uint(doc, root, "max_tokens", ask->max_tokens.count);
	if (ask->temperature.is_set)
		yyjson_mut_obj_add_real(doc, root, "temperature", ask->temperature.real);
	if (ask->top_p.is_set)
		yyjson_mut_obj_add_real(doc, root, "top_p", ask->top_p.real);
	if (ask->seed.is_set)
		yyjson_mut_obj_add_uint(doc, root, "seed", ask->seed.count);
	size_t len;
	char *text = yyjson_mut_write(doc, 0, &len);
	yyjson_mut_doc_free(doc);
	int r = text ? kb_buf_append(out, text, len) : KB_EBAD; // not UTF-8
	free(text);
	return r;
}

static void take_usage(struct kb_ctl_answer *a, yyjson_val *usage)
{
	if (!yyjson_is_obj(usage))
		return;
	a->has_usage = true;
	a->prompt_tokens = yyjson_get_uint(yyjson_obj_get(usage, "prompt_tokens"));
	a->completion_tokens = yyjson_get_uint(yyjson_obj_get(usage, "completion_tokens"));
	yyjson_val *details = yyjson_obj_get(usage, "prompt_tokens_details");
	a->cached_tokens = yyjson_get_uint(yyjson_obj_get(details, "cached_tokens"));
}

static int take_choice(struct kb_ctl_answer *a, yyjson_val *choice, uint64_t now_us)
{
	yyjson_val *content = yyjson_obj_get(yyjson_obj_get(choice, "delta"), "content");
	const char *finish = yyjson_get_str(yyjson_obj_get(choice, "finish_reason"));
	if (finish)
		snprintf(a->finish, sizeof a->finish, "%s", finish);
	if (!yyjson_is_str(content) || yyjson_get_len(content) == 0)
		return 0;
	if (!a->first_us)
		a->first_us = now_us;
	a->last_us = now_us;
	a->pieces++;
	int r = kb_buf_append(&a->text, yyjson_get_str(content), yyjson_get_len(content));
	return r == 0 && a->on_text ? a->on_text(a->ctx, yyjson_get_str(content), yyjson_get_len(content)) : r;
}

/* see answer.h */
int kb_ctl_answer_event(struct kb_ctl_answer *a, const char *data, size_t len, uint64_t now_us)
{
	if (len == 6 && memcmp(data, "[DONE]", 6) == 0) {
		a->is_done = true;
		return 0;
	}
	yyjson_doc *doc = yyjson_read(data, len, 0);
	yyjson_val *root = yyjson_doc_get_root(doc);
	int r = 0;
	if (!yyjson_is_obj(root)) {
		r = kb_fail(&a->error, KB_EBAD, "the box sent something that is no JSON object");
	} else if (yyjson_obj_get(root, "error")) {
		char text[KB_ERR_TEXT_MAX];
		kb_ctl_error_text(500, data, len, text);
		r = kb_fail(&a->error, KB_EIO, "%s", text);
	} else {
		const char *model = yyjson_get_str(yyjson_obj_get(root, "model"));
		if (model && !a->model[0])
			snprintf(a->model, sizeof a->model, "%s", model);
		take_usage(a, yyjson_obj_get(root, "usage"));
		yyjson_val *choices = yyjson_obj_get(root, "choices");
		if (yyjson_arr_size(choices) > 0)
			r = take_choice(a, yyjson_arr_get_first(choices), now_us);
	}
	yyjson_doc_free(doc);
	return r;
}

void kb_ctl_answer_finish(struct kb_ctl_answer *a)
{
	kb_buf_finish(&a->text);
}

struct kb_ctl_speed kb_ctl_answer_speed(const struct kb_ctl_answer *a)
{
	struct kb_ctl_speed s = {0};
	if (!a->first_us || !a->asked_us)
		return s;
	s.first_s = (double)(a->first_us - a->asked_us) / 1e6;
	uint64_t read = a->prompt_tokens > a->cached_tokens ? a->prompt_tokens - a->cached_tokens : 0;
	if (s.first_s > 0 && read > 0)
		s.prefill_tps = (double)read / s.first_s;
	double decode_s = (double)(a->last_us - a->first_us) / 1e6;
	if (decode_s > 0 && a->completion_tokens > 1)
		s.decode_tps = (double)(a->completion_tokens - 1) / decode_s;
	return s;
}

void kb_ctl_answer_stats(const struct kb_ctl_answer *a)
{
	struct kb_ctl_speed s = kb_ctl_answer_speed(a);
	if (!a->has_usage || !a->first_us) {
		fprintf(stderr, "the box did not say how many tokens it read and wrote\n");
		return;
	}
	char cached[48] = "";
	if (a->cached_tokens)
		snprintf(cached, sizeof cached, " (%llu known before)", (unsigned long long)a->cached_tokens);
	fprintf(stderr, "prefill %llu tokens%s, first token after %.2f s (%.1f t/s); decode %llu tokens, %.1f t/s\n",
		(unsigned long long)a->prompt_tokens, cached, s.first_s, s.prefill_tps,
		(unsigned long long)a->completion_tokens, s.decode_tps);
}

// --- calling
struct listening {
	struct kb_sse_reader events;
	struct kb_ctl_answer *answer;
};

static int on_event(void *ctx, const char *data, size_t len)
{
	return kb_ctl_answer_event(ctx, data, len, kb_clock_ns() / 1000);
}

static int on_body(void *ctx, const char *data, size_t len)
{
	struct listening *l = ctx;
	return kb_sse_feed(&l->events, data, len, on_event, l->answer);
}

// Seconds to wait before asking again, 0: no more.
static uint64_t pause_of(const struct kb_http_reply *reply, uint64_t waited_s, uint64_t wait_s)
{
	if (reply->status != 503 && reply->status != 429)
		return 0;
	uint64_t pause = reply->retry_after_s > 0 ? (uint64_t)reply->retry_after_s : 1;
	uint64_t left = wait_s > waited_s ? wait_s - waited_s : 0;
	return pause < left ? pause : left;
}

static void rest(uint64_t seconds)
{
	for (uint64_t i = 0; i < seconds * 10 && !kb_ctl_interrupted; i++)
		usleep(100000);
}

static int ask_once(struct kb_http_client *c, const struct kb_buf *body, struct kb_ctl_answer *a,
	struct kb_http_reply *reply, struct kb_err *err)
{
	struct listening l = {.answer = a};
	struct kb_http_call call = {.method = "POST",
		.path = "/v1/chat/completions",
		.body = body->data,
		.body_len = body->len,
		.interrupt = &kb_ctl_interrupted,
		.on_body = on_body,
		.ctx = &l};
	a->asked_us = kb_clock_ns() / 1000;
	int r = kb_http_client_call(c, &call, reply, err);
	kb_sse_finish(&l.events);
	snprintf(a->request_id, sizeof a->request_id, "%s", reply->request_id);
	return r;
}

// What the end of the call means.
static int judge(int r, const struct kb_err *err, const struct kb_http_reply *reply, const struct kb_ctl_answer *a)
{
	if (r == KB_ECANCELLED)
		return KB_CTL_INTERRUPTED;
	if (a->error.code)
		return kb_ctl_fail(KB_CTL_FAILED, "%s", a->error.text);
	if (r && a->pieces)
		return kb_ctl_fail(KB_CTL_FAILED, "the answer is incomplete: %s", err->text[0] ? err->text : kb_err_message(r));
	if (r || reply->status != 200)
		return kb_ctl_call_failed(r, err, reply);
	if (!a->is_done)
		return kb_ctl_fail(KB_CTL_FAILED, "the answer is incomplete: the box ended it without [DONE]");
	return KB_CTL_OK;
}

int kb_ctl_ask(struct kb_http_client *c, const struct kb_ctl_ask *ask, uint64_t wait_s, struct kb_ctl_answer *ret)
{
	struct kb_buf body = {0};
	if (kb_ctl_ask_body(ask, &body)) {
		kb_buf_finish(&body);
		return kb_ctl_fail(KB_CTL_FAILED, "the text is not UTF-8");
	}
	int status = KB_CTL_INTERRUPTED;
	for (uint64_t waited_s = 0;;) {
		struct kb_err err = {0};
		struct kb_http_reply reply;
		int r = ask_once(c, &body, ret, &reply, &err);
		uint64_t pause = r ? 0 : pause_of(&reply, waited_s, wait_s);
		if (pause && waited_s == 0 && kb_ctl_is_terminal(2))
			fprintf(stderr, "the box is busy or loading the model; waiting\n");
		if (pause)
			rest(pause);
		else
			status = judge(r, &err, &reply, ret);
		kb_buf_finish(&reply.body);
		waited_s += pause;
		if (!pause || kb_ctl_interrupted)
			break;
	}
	kb_buf_finish(&body);
	return status;
}

int kb_ctl_default_model(struct kb_http_client *c, char **ret)
{
	struct kb_err err = {0};
	struct kb_http_reply reply;
	struct kb_http_call call = {
		.method = "GET", .path = "/healthz", .idle_ms = 30000, .interrupt = &kb_ctl_interrupted};
	int r = kb_http_client_call(c, &call, &reply, &err), status = KB_CTL_OK;
	if (r) {
		status = kb_ctl_call_failed(r, &err, &reply);
	} else { // a box that is still loading names it too, with status 503
		yyjson_doc *doc = yyjson_read((const char *)reply.body.data, reply.body.len, 0);
		const char *model = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "model"));
		*ret = model ? strdup(model) : NULL;
		yyjson_doc_free(doc);
	}
	kb_buf_finish(&reply.body);
	return status;
}
