// Bodies to checked requests: defaults, every field's effect, what is refused and what is blamed for it.
#include "firmware/api/json.h"
#include "firmware/api/request.h"
#include "harness/kt.h"
#include <math.h>
#include <stdio.h>

static struct kb_api_request request;
static struct kb_problem problem;

static int parse(enum kb_api_kind kind, const char *body)
{
	kb_request_finish(&request);
	memset(&problem, 0, sizeof problem);
	return kb_request_parse(kind, body, strlen(body), &request, &problem);
}

static void take(enum kb_api_kind kind, const char *body)
{
	if (parse(kind, body))
		fail_msg("%s (%s): %s", problem.text, problem.param, body);
}

static void refuse(enum kb_api_kind kind, const char *body, const char *param)
{
	if (parse(kind, body) == 0)
		fail_msg("taken: %s", body);
	if (strcmp(problem.param, param) != 0 || problem.status != 400 || !problem.text[0])
		fail_msg("%d, blames \"%s\", says \"%s\": %s", problem.status, problem.param, problem.text, body);
}

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static void assert_str(struct kb_str s, const char *text)
{
	assert_int_equal(s.len, strlen(text));
	assert_memory_equal(s.data, text, s.len);
}

static void defaults(void **state)
{
	(void)state;
	struct kb_msg_submit s;
	take(KB_API_CHAT, "{" USER "}");
	assert_int_equal(request.n, 1);
	assert_int_equal(request.n_messages, 1);
	assert_int_equal(request.model.len, 0);
	assert_false(request.is_stream || request.has_seed || request.with_usage || request.ignore_eos);
	kb_request_submit(&request, 0, 77, &s);
	assert_int_equal(s.kind, KB_PROMPT_CHAT);
	assert_int_equal(s.max_new, 0);
	assert_int_equal(s.logprobs, 0);
	assert_int_equal(s.sampling.seed, 77);
	assert_true(fabsf(s.sampling.temperature - 0.7f) < 1e-6f && s.sampling.repeat_penalty == 1.0f);
	take(KB_API_COMPLETION, "{\"prompt\":\"hi\"}");
	kb_request_submit(&request, 0, 1, &s);
	assert_int_equal(s.max_new, 16); // OpenAI's default for this endpoint
	assert_str(s.text, "hi");
}

static void fields_take_effect(void **state)
{
	(void)state;
	struct kb_msg_submit s;
	take(KB_API_CHAT,
		"{\"model\":\"m\"," USER ",\"temperature\":0,\"top_p\":0.5,\"top_k\":3,\"min_p\":0.25,"
		"\"presence_penalty\":-2,\"frequency_penalty\":2,\"repeat_penalty\":1.5,\"seed\":-1,"
		"\"max_tokens\":9,\"stop\":[\"a\",\"bc\"],\"stream\":true,\"stream_options\":{\"include_usage\":true},"
		"\"logprobs\":true,\"top_logprobs\":20,\"n\":2,\"ignore_eos\":true,\"user\":\"u\"}");
	kb_request_submit(&request, 0, request.sampling.seed, &s);
	assert_str(request.model, "m");
	assert_true(s.sampling.temperature == 0 && s.sampling.top_p == 0.5f && s.sampling.min_p == 0.25f);
	assert_true(
		s.sampling.presence_penalty == -2 && s.sampling.frequency_penalty == 2 && s.sampling.repeat_penalty == 1.5f);
	assert_int_equal(s.sampling.top_k, 3);
	assert_int_equal(s.sampling.seed, UINT64_MAX);
	assert_int_equal(s.max_new, 9);
	assert_int_equal(s.n_stop, 2);
	assert_str(s.stop[1], "bc");
	assert_int_equal(s.logprobs, 21);
	assert_true(s.ignore_eos && request.is_stream && request.with_usage && request.has_seed);
	kb_request_submit(&request, 1, request.sampling.seed, &s);
	assert_int_not_equal(s.sampling.seed, UINT64_MAX); // the second sample is another one
	take(KB_API_CHAT, "{" USER ",\"stop\":\"one\",\"logprobs\":true,\"temperature\":null,\"max_completion_tokens\":5}");
	assert_int_equal(request.n_stop, 1);
	assert_int_equal(request.logprobs, 1);
	assert_int_equal(request.max_new, 5);
	take(KB_API_CHAT, "{" USER ",\"logprobs\":false,\"top_logprobs\":0}");
	assert_int_equal(request.logprobs, 0);
	take(KB_API_COMPLETION, "{\"prompt\":\"x\",\"logprobs\":0}");
	assert_int_equal(request.logprobs, 1);
}

static void messages_keep_order_and_bytes(void **state)
{
	(void)state;
	struct kb_msg_submit s;
	struct kb_chat_message m;
	size_t cursor = 0;
	take(KB_API_CHAT, "{\"messages\":[{\"role\":\"developer\",\"content\":\"be \\\"kind\\\"\"},"
					  "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\\u0000b\"},{\"type\":\"text\","
					  "\"text\":\"c\"}]},"
					  "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[]},{\"role\":\"user\",\"content\":"
					  "\"\\u8a00\",\"name\":\"x\"}]}");
	kb_request_submit(&request, 0, 1, &s);
	assert_int_equal(s.n_messages, 4);
	assert_true(kb_proto_next_message(&s, &cursor, &m));
	assert_str(m.role, "system");
	assert_str(m.content, "be \"kind\"");
	assert_true(kb_proto_next_message(&s, &cursor, &m));
	assert_int_equal(m.content.len, 4);
	assert_memory_equal(m.content.data, "a\0bc", 4);
	assert_true(kb_proto_next_message(&s, &cursor, &m));
	assert_str(m.role, "assistant");
	assert_true(kb_proto_next_message(&s, &cursor, &m));
	assert_str(m.content, "\xe8\xa8\x80");
	assert_false(kb_proto_next_message(&s, &cursor, &m));
}

static void prompts_of_every_form(void **state)
{
	(void)state;
	struct kb_msg_submit s;
	take(KB_API_COMPLETION, "{\"prompt\":[\"a\",\"b\"],\"n\":2}");
	assert_int_equal(request.n_prompts, 2);
	kb_request_submit(&request, 3, 5, &s);
	assert_str(s.text, "b");
	assert_int_not_equal(s.sampling.seed, 5);
	kb_request_submit(&request, 2, 5, &s);
	assert_int_equal(s.sampling.seed, 5); // the first sample of each prompt has the seed itself
	take(KB_API_COMPLETION, "{\"prompt\":[[1,2],[300,70000,4]]}");
	kb_request_submit(&request, 1, 5, &s);
	assert_int_equal(s.kind, KB_PROMPT_TOKENS);
	assert_int_equal(s.n_tokens, 3);
	assert_memory_equal(s.tokens, "\x2c\x01\0\0\x70\x11\x01\0\x04\0\0\0", 12);
	take(KB_API_COMPLETION, "{\"prompt\":[7]}");
	assert_int_equal(request.n_prompts, 1);
	for (const char *const *bad = (const char *const[]){"[]", "[[]]", "{}", "true", "[1,\"a\"]", "[\"a\",1]", "[-1]",
			 "[1.5]", "[4294967296]", "[[1],null]", NULL};
		*bad; bad++) {
		char body[128];
		snprintf(body, sizeof body, "{\"prompt\":%s}", *bad);
		refuse(KB_API_COMPLETION, body, "prompt");
	}
}

static void refusals_name_the_field(void **state)
{
	(void)state;
	static const struct {
		const char *fields, *param;
	} rows[] = {
		{"\"temperature\":2.1", "temperature"}, {"\"temperature\":\"1\"", "temperature"},
		{"\"temperature\":1e999", ""}, // not JSON: yyjson refuses infinities
		{"\"top_p\":-0.1", "top_p"}, {"\"min_p\":1.1", "min_p"}, {"\"top_k\":-1", "top_k"}, {"\"top_k\":0.5", "top_k"},
		{"\"presence_penalty\":3", "presence_penalty"}, {"\"repeat_penalty\":0", "repeat_penalty"}, {"\"n\":9", "n"},
		{"\"n\":\"2\"", "n"}, {"\"max_tokens\":0", "max_tokens"}, {"\"max_tokens\":-1", "max_tokens"},
		{"\"max_completion_tokens\":1e12", "max_completion_tokens"}, {"\"seed\":1.5", "seed"},
		{"\"stop\":\"\"", "stop"}, {"\"stop\":{}", "stop"}, {"\"stream\":1", "stream"},
		{"\"stream_options\":{\"include_usage\":true}", "stream_options"},
		{"\"stream\":true,\"stream_options\":{\"other\":true}", "stream_options"},
		{"\"stream\":true,\"stream_options\":{\"include_usage\":1}", "stream_options.include_usage"},
		{"\"top_logprobs\":2", "top_logprobs"}, {"\"logprobs\":2", "logprobs"}, {"\"tools\":[{}]", "tools"},
		{"\"tool_choice\":\"required\"", "tool_choice"}, {"\"functions\":[{}]", "functions"},
		{"\"response_format\":{\"type\":\"json_schema\"}", "response_format"},
		{"\"response_format\":\"json\"", "response_format"}, {"\"modalities\":[\"text\",\"audio\"]", "modalities"},
		{"\"logit_bias\":{\"5\":1}", "logit_bias"}, {"\"prompt\":\"x\"", "prompt"}, // the other endpoint's
		{"\"temprature\":1", "temprature"}, {"\"n\":1,\"n\":2", "n"}, {"\"messages\":[]", "messages"}, // given twice
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char body[256];
		snprintf(body, sizeof body, "{" USER ",%s}", rows[i].fields);
		refuse(KB_API_CHAT, body, rows[i].param);
	}
	refuse(KB_API_CHAT, "", "");
	refuse(KB_API_CHAT, "[]", "");
	refuse(KB_API_CHAT, "{} x", "");
	refuse(KB_API_CHAT, "{}", "messages");
	refuse(KB_API_COMPLETION, "{}", "prompt");
	refuse(KB_API_COMPLETION, "{\"prompt\":\"x\",\"suffix\":\"y\"}", "suffix");
	refuse(KB_API_COMPLETION, "{\"prompt\":\"x\",\"best_of\":2}", "best_of");
	refuse(KB_API_COMPLETION, "{\"prompt\":\"x\",\"echo\":true,\"logprobs\":1}", "echo");
	refuse(KB_API_COMPLETION, "{\"prompt\":[1],\"echo\":true}", "echo");
	refuse(KB_API_COMPLETION, "{\"prompt\":\"x\",\"messages\":[]}", "messages");
	refuse(KB_API_CHAT, "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages[0].role");
	refuse(KB_API_CHAT, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":[{}]}]}",
		"messages[0].tool_calls");
	refuse(KB_API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "messages[0].content");
	refuse(KB_API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
		"messages[0].content[0]");
}

static void limits_hold(void **state)
{
	(void)state;
	struct kb_buf body = {0};
	for (unsigned depth = KB_JSON_DEPTH_MAX - 2; depth < KB_JSON_DEPTH_MAX + 3; depth++) {
		body.len = 0;
		assert_int_equal(kb_buf_puts(&body, "{" USER ",\"metadata\":"), 0);
		for (unsigned i = 0; i < depth; i++)
			assert_int_equal(kb_buf_puts(&body, "["), 0);
		for (unsigned i = 0; i < depth; i++)
			assert_int_equal(kb_buf_puts(&body, "]"), 0);
		assert_int_equal(kb_buf_puts(&body, "}"), 0);
		int r = parse(KB_API_CHAT, kb_buf_cstr(&body));
		assert_int_equal(r == 0, depth + 1 <= KB_JSON_DEPTH_MAX);
	}
	// Brackets inside strings are not nesting.
	take(KB_API_CHAT,
		"{\"messages\":[{\"role\":\"user\",\"content\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"{{{{{{{{\"}]}");
	body.len = 0;
	assert_int_equal(kb_buf_puts(&body, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}"), 0);
	for (unsigned i = 1; i < KB_MESSAGES_MAX + 1; i++)
		assert_int_equal(kb_buf_puts(&body, ",{\"role\":\"user\",\"content\":\"x\"}"), 0);
	assert_int_equal(kb_buf_puts(&body, "]}"), 0);
	refuse(KB_API_CHAT, kb_buf_cstr(&body), "messages");
	body.len = 0;
	assert_int_equal(kb_buf_puts(&body, "{\"n\":8,\"prompt\":[\"x\""), 0);
	for (unsigned i = 1; i < 9; i++)
		assert_int_equal(kb_buf_puts(&body, ",\"x\""), 0);
	assert_int_equal(kb_buf_puts(&body, "]}"), 0);
	refuse(KB_API_COMPLETION, kb_buf_cstr(&body), "n");
	kb_buf_finish(&body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(fields_take_effect),
		cmocka_unit_test(messages_keep_order_and_bytes),
		cmocka_unit_test(prompts_of_every_form),
		cmocka_unit_test(refusals_name_the_field),
		cmocka_unit_test(limits_hold),
	};
	int r = cmocka_run_group_tests_name("api/request", tests, NULL, NULL);
	kb_request_finish(&request);
	return r;
}
