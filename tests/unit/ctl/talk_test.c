#include "firmware/ctl/talk.c"
#include "harness/kt.h"

static void assert_talk(const struct kb_ctl_talk *t, const char *want)
{
	struct kb_buf got = {0};
	for (uint32_t i = 0; i < t->n; i++)
		assert_int_equal(kb_buf_printf(&got, "%s:%s;", t->turns[i].role, t->turns[i].content), 0);
	assert_non_null(kb_buf_cstr(&got));
	assert_string_equal((const char *)got.data, want);
	kb_buf_finish(&got);
}

static void turns_come_and_go(void **state)
{
	(void)state;
	struct kb_ctl_talk t = {0};
	assert_int_equal(kb_ctl_talk_set_system(&t, ""), 0);
	assert_talk(&t, "");
	assert_int_equal(kb_ctl_talk_add(&t, "user", "a"), 0);
	assert_int_equal(kb_ctl_talk_add(&t, "assistant", "b"), 0);
	assert_int_equal(kb_ctl_talk_set_system(&t, "be brief"), 0);
	assert_talk(&t, "system:be brief;user:a;assistant:b;");
	assert_int_equal(kb_ctl_talk_set_system(&t, "be long"), 0);
	assert_talk(&t, "system:be long;user:a;assistant:b;");
	kb_ctl_talk_drop_last(&t);
	assert_talk(&t, "system:be long;user:a;");
	kb_ctl_talk_clear(&t);
	assert_talk(&t, "system:be long;");
	assert_int_equal(kb_ctl_talk_set_system(&t, NULL), 0);
	kb_ctl_talk_drop_last(&t);
	assert_talk(&t, "");
	for (uint32_t i = 0; i < KB_CTL_TURNS_MAX; i++)
		assert_int_equal(kb_ctl_talk_add(&t, "user", "x"), 0);
	assert_int_equal(kb_ctl_talk_add(&t, "user", "x"), KB_ELIMIT);
	assert_int_equal(t.n, KB_CTL_TURNS_MAX);
	kb_ctl_talk_finish(&t);
	assert_int_equal(t.n, 0);
}

static void saved_is_what_is_loaded(void **state)
{
	(void)state;
	struct kb_ctl_talk t = {0}, u = {0};
	struct kb_buf text = {0};
	struct kb_err err;
	char *model = NULL;
	assert_int_equal(kb_ctl_talk_add(&t, "system", "\xe8\xa8\x80\xe7\xae\xb1"), 0);
	assert_int_equal(kb_ctl_talk_add(&t, "user", "\"quotes\"\n\x1b[1m\\"), 0);
	assert_int_equal(kb_ctl_talk_add(&t, "assistant", ""), 0);
	assert_int_equal(kb_ctl_talk_save(&t, "m1", &text), 0);
	assert_int_equal(kb_ctl_talk_add(&u, "user", "replaced"), 0);
	assert_int_equal(kb_ctl_talk_load(&u, (const char *)text.data, text.len, &model, &err), 0);
	assert_talk(&u, "system:\xe8\xa8\x80\xe7\xae\xb1;user:\"quotes\"\n\x1b[1m\\;assistant:;");
	assert_string_equal(model, "m1");
	free(model);
	kb_ctl_talk_finish(&t);
	kb_ctl_talk_finish(&u);
	kb_buf_finish(&text);
}

static void a_body_for_any_openai_server_can_be_loaded(void **state)
{
	(void)state;
	static const char text[] =
		"{\"temperature\": 0, \"messages\": [{\"role\": \"user\", \"content\": \"hi\", \"name\": \"x\"}]}";
	struct kb_ctl_talk t = {0};
	struct kb_err err;
	char *model = NULL;
	assert_int_equal(kb_ctl_talk_load(&t, text, sizeof text - 1, &model, &err), 0);
	assert_talk(&t, "user:hi;");
	assert_null(model);
	kb_ctl_talk_finish(&t);
}

static void other_files_change_nothing(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} rows[] = {
		{"", "JSON"},
		{"{", "JSON"},
		{"[]", "messages"},
		{"{\"messages\": 1}", "messages"},
		{"{\"messages\": [1]}", "message 1"},
		{"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"tool\", \"content\": \"a\"}]}",
			"message 2"},
		{"{\"messages\": [{\"role\": \"user\"}]}", "content"},
		{"{\"messages\": [{\"role\": \"user\", \"content\": [\"x\"]}]}", "content"},
		{"{\"messages\": [{\"role\": \"user\", \"content\": \"a\\u0000b\"}]}", "content"},
		{"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"system\", \"content\": \"a\"}]}",
			"first"},
	};
	struct kb_ctl_talk t = {0};
	assert_int_equal(kb_ctl_talk_add(&t, "user", "kept"), 0);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct kb_err err = {0};
		char *model = NULL;
		assert_int_equal(kb_ctl_talk_load(&t, rows[i].text, strlen(rows[i].text), &model, &err), KB_EBAD);
		if (!strstr(err.text, rows[i].says))
			fail_msg("\"%s\" does not say \"%s\"", err.text, rows[i].says);
		assert_null(model);
		assert_talk(&t, "user:kept;");
	}
	kb_ctl_talk_finish(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(turns_come_and_go),
		cmocka_unit_test(saved_is_what_is_loaded),
		cmocka_unit_test(a_body_for_any_openai_server_can_be_loaded),
		cmocka_unit_test(other_files_change_nothing),
	};
	return cmocka_run_group_tests_name("ctl/talk", tests, NULL, NULL);
}
