// Streams as OpenAI documents them: https://platform.openai.com/docs/api-reference/chat-streaming
#include "firmware/ctl/answer.c"
#include "firmware/ctl/box.c"
#include "firmware/ctl/common.c"
#include "firmware/ctl/files.c"
#include "firmware/ctl/options.c"
#include "firmware/ctl/talk.c"
#include "firmware/ctl/text.c"
#include "harness/kt.h"

#define CHUNK(delta, finish)                                                                                         \
	"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{" \
	"\"index\":0,\"delta\":" delta ",\"finish_reason\":" finish "}]}\n\n"
static const char stream[] = CHUNK("{\"role\":\"assistant\",\"content\":\"\"}", "null") ": ping\n\n" CHUNK(
	"{\"content\":\"\xe8\xa8\x80\"}", "null") CHUNK("{\"content\":\"\\u7bb1\\n\"}", "null") CHUNK("{}",
	"\"length\"") "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":31,\"completion_tokens\":5,\"total_tokens\":36,"
				  "\"prompt_tokens_details\":{\"cached_tokens\":16}}}\n\ndata: [DONE]\n\n";

struct watch {
	struct kb_ctl_answer *answer;
	struct kb_buf said;
	uint64_t now_us;
	int stop_after; // pieces; 0: never
};

static int on_text(void *ctx, const char *text, size_t len)
{
	struct watch *w = ctx;
	assert_int_equal(kb_buf_append(&w->said, text, len), 0);
	return w->stop_after && --w->stop_after == 0 ? KB_ECLOSED : 0;
}

static int on_data(void *ctx, const char *data, size_t len)
{
	struct watch *w = ctx;
	return kb_ctl_answer_event(w->answer, data, len, w->now_us += 1000);
}

static int feed(struct watch *w, struct kb_ctl_answer *a, const char *text, size_t len, size_t split)
{
	struct kb_sse_reader events = {0};
	*a = (struct kb_ctl_answer){.on_text = on_text, .ctx = w};
	w->answer = a;
	int r = kb_sse_feed(&events, text, split, on_data, w);
	if (r == 0)
		r = kb_sse_feed(&events, text + split, len - split, on_data, w);
	kb_sse_finish(&events);
	return r;
}

static void an_answer_may_be_cut_anywhere(void **state)
{
	(void)state;
	for (size_t split = 0; split <= sizeof stream - 1; split++) {
		struct watch w = {0};
		struct kb_ctl_answer a;
		assert_int_equal(feed(&w, &a, stream, sizeof stream - 1, split), 0);
		assert_int_equal(w.said.len, 7);
		assert_memory_equal(w.said.data, "\xe8\xa8\x80\xe7\xae\xb1\n", 7);
		assert_int_equal(a.text.len, 7);
		assert_memory_equal(a.text.data, w.said.data, 7);
		assert_string_equal(a.finish, "length");
		assert_string_equal(a.model, "m");
		assert_true(a.is_done && a.has_usage);
		assert_int_equal(a.prompt_tokens, 31);
		assert_int_equal(a.completion_tokens, 5);
		assert_int_equal(a.cached_tokens, 16);
		assert_int_equal(a.pieces, 2);
		assert_true(a.last_us - a.first_us == 1000);
		kb_buf_finish(&w.said);
		kb_ctl_answer_finish(&a);
	}
}

static void a_stream_that_ends_early_is_not_done(void **state)
{
	(void)state;
	for (size_t len = 0; len < sizeof stream - 2; len++) { // the last line break is not needed to know
		struct watch w = {0};
		struct kb_ctl_answer a;
		assert_int_equal(feed(&w, &a, stream, len, 0), 0);
		assert_false(a.is_done);
		kb_buf_finish(&w.said);
		kb_ctl_answer_finish(&a);
	}
}

static void errors_in_the_stream_are_told(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int code;
		const char *says;
	} rows[] = {
		{"data: {\"error\":{\"message\":\"the device \x1b[31mwas lost\",\"type\":\"server_error\"}}\n\n", KB_EBAD,
			"JSON"},
		{"data: {\"error\":{\"message\":\"the device \\u001b[31mwas lost\"}}\n\n", KB_EIO, "the device [31mwas lost"},
		{"data: {\"error\":\"short\"}\n\n", KB_EIO, "short"},
		{"data: {\"error\":{}}\n\n", KB_EIO, "the box failed"},
		{"data: no json\n\n", KB_EBAD, "JSON"},
		{"data: [1]\n\n", KB_EBAD, "JSON"},
		{"data: \"text\"\n\n", KB_EBAD, "JSON"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct watch w = {0};
		struct kb_ctl_answer a;
		assert_int_equal(feed(&w, &a, rows[i].text, strlen(rows[i].text), 0), rows[i].code);
		assert_int_equal(a.error.code, rows[i].code);
		if (!strstr(a.error.text, rows[i].says))
			fail_msg("\"%s\" does not say \"%s\"", a.error.text, rows[i].says);
		kb_ctl_answer_finish(&a);
	}
}

static void odd_events_are_passed_over(void **state)
{
	(void)state;
	static const char *const rows[] = {"data: {}\n\n", "data: {\"choices\":null}\n\n", "data: {\"choices\":[]}\n\n",
		"data: {\"choices\":[{}]}\n\n", "data: {\"choices\":[{\"delta\":{\"content\":null}}]}\n\n",
		"data: {\"choices\":[{\"delta\":{\"content\":5}}],\"usage\":null}\n\n", "data: {\"choices\":{\"a\":1}}\n\n",
		"event: x\nretry: 5\n\n"};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct watch w = {0};
		struct kb_ctl_answer a;
		assert_int_equal(feed(&w, &a, rows[i], strlen(rows[i]), 3), 0);
		assert_int_equal(a.text.len, 0);
		assert_false(a.is_done || a.has_usage);
		kb_ctl_answer_finish(&a);
	}
}

static void a_closed_output_ends_the_answer(void **state)
{
	(void)state;
	struct watch w = {.stop_after = 1};
	struct kb_ctl_answer a;
	assert_int_equal(feed(&w, &a, stream, sizeof stream - 1, 0), KB_ECLOSED);
	assert_int_equal(w.said.len, 3);
	kb_buf_finish(&w.said);
	kb_ctl_answer_finish(&a);
}

static void speed_is_of_tokens_and_own_time(void **state)
{
	(void)state;
	struct kb_ctl_answer a = {.prompt_tokens = 110,
		.cached_tokens = 10,
		.completion_tokens = 41,
		.asked_us = 1000000,
		.first_us = 1500000,
		.last_us = 2500000};
	struct kb_ctl_speed s = kb_ctl_answer_speed(&a);
	assert_true(s.first_s == 0.5 && s.prefill_tps == 200 && s.decode_tps == 40);
	a.completion_tokens = 1;
	a.last_us = a.first_us;
	s = kb_ctl_answer_speed(&a);
	assert_true(s.first_s == 0.5 && s.decode_tps == 0);
	a.first_us = 0;
	assert_true(kb_ctl_answer_speed(&a).first_s == 0);
}

static void the_request_says_what_was_set(void **state)
{
	(void)state;
	struct kb_ctl_talk talk = {0};
	struct kb_buf out = {0};
	assert_int_equal(kb_ctl_talk_add(&talk, "user", "say \"hi\"\n"), 0);
	struct kb_ctl_ask ask = {.model = "m", .talk = &talk};
	assert_int_equal(kb_ctl_ask_body(&ask, &out), 0);
	assert_non_null(kb_buf_cstr(&out));
	assert_string_equal((const char *)out.data,
		"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"say \\\"hi\\\"\\n\"}],\"stream\":true,"
		"\"stream_options\":{\"include_usage\":true}}");
	out.len = 0;
	ask.max_tokens = (struct kb_ctl_value){.is_set = true, .count = 5};
	ask.temperature = (struct kb_ctl_value){.is_set = true, .real = 0};
	ask.top_p = (struct kb_ctl_value){.is_set = true, .real = 0.5};
	ask.seed = (struct kb_ctl_value){.is_set = true, .count = 42};
	assert_int_equal(kb_ctl_ask_body(&ask, &out), 0);
	assert_non_null(kb_buf_cstr(&out));
	assert_non_null(strstr((const char *)out.data, "\"max_tokens\":5,\"temperature\":0.0,\"top_p\":0.5,\"seed\":42}"));
	out.len = 0;
	assert_int_equal(kb_ctl_ask_body(&(struct kb_ctl_ask){.talk = &talk}, &out), 0);
	assert_memory_equal(out.data, "{\"messages\":", 12);
	kb_ctl_talk_clear(&talk);
	assert_int_equal(kb_ctl_talk_add(&talk, "user", "\xff"), 0);
	out.len = 0;
	assert_int_equal(kb_ctl_ask_body(&ask, &out), KB_EBAD);
	assert_int_equal(out.len, 0);
	kb_ctl_talk_finish(&talk);
	kb_buf_finish(&out);
}

static void a_busy_box_is_asked_again(void **state)
{
	(void)state;
	struct kb_http_reply r = {.status = 503, .retry_after_s = 5};
	assert_int_equal(pause_of(&r, 0, 60), 5);
	assert_int_equal(pause_of(&r, 58, 60), 2);
	assert_int_equal(pause_of(&r, 60, 60), 0);
	r.retry_after_s = -1;
	assert_int_equal(pause_of(&r, 0, 60), 1);
	r.status = 429;
	assert_int_equal(pause_of(&r, 0, 60), 1);
	r.status = 500;
	assert_int_equal(pause_of(&r, 0, 60), 0);
	r.status = 200;
	assert_int_equal(pause_of(&r, 0, 60), 0);
}

static void bodies_of_errors_become_text(void **state)
{
	(void)state;
	static const struct {
		int status;
		const char *body, *says;
	} rows[] = {
		{400, "{\"error\":{\"message\":\"'temperature' is 3: 0 to 2\",\"type\":\"invalid_request_error\"}}",
			"'temperature' is 3: 0 to 2"},
		{404, "{\"error\":{\"message\":\"\"}}", "HTTP status 404"},
		{503, "<html>", "busy"},
		{503, "{\"status\":\"no model\",\"message\":\"no model is installed\"}", "no model is installed"},
		{500, NULL, "HTTP status 500"},
		{418, "[]", "refused"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char text[KB_ERR_TEXT_MAX];
		kb_ctl_error_text(rows[i].status, rows[i].body, rows[i].body ? strlen(rows[i].body) : 0, text);
		if (!strstr(text, rows[i].says))
			fail_msg("\"%s\" does not say \"%s\"", text, rows[i].says);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_may_be_cut_anywhere),
		cmocka_unit_test(a_stream_that_ends_early_is_not_done),
		cmocka_unit_test(errors_in_the_stream_are_told),
		cmocka_unit_test(odd_events_are_passed_over),
		cmocka_unit_test(a_closed_output_ends_the_answer),
		cmocka_unit_test(speed_is_of_tokens_and_own_time),
		cmocka_unit_test(the_request_says_what_was_set),
		cmocka_unit_test(a_busy_box_is_asked_again),
		cmocka_unit_test(bodies_of_errors_become_text),
	};
	return cmocka_run_group_tests_name("ctl/answer", tests, NULL, NULL);
}
