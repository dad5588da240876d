// Listing and choosing devices, on the loader's own drivers (lavapipe is always among them).
#include "harness/kt.h"
#include "vk/vk_device.h"
#include <stdio.h>

static struct kb_vk_caps list[KB_VK_DEVICES_MAX];
static uint32_t n;

static uint32_t used(const char *wish)
{
	struct kb_err err = {0};
	uint32_t count = 0;
	assert_int_equal(kb_vk_enumerate(wish, &err, list, &n), KB_OK);
	for (uint32_t i = 0; i < n; i++) {
		assert_true(list[i].name[0] && list[i].reason[0]); // a reason for every device, used or not
		count += list[i].used;
	}
	return count;
}

static void lists_with_reasons(void **state)
{
	(void)state;
	assert_int_equal(used(NULL), 1);
	for (uint32_t i = 0; i < n; i++) {
		const struct kb_vk_caps *c = &list[i];
		assert_int_equal(c->index, i);
		if (!c->usable)
			continue;
		assert_true(c->api_major > 1 || c->api_minor >= 3);
		assert_true(c->invocations_max >= 256 && c->shared_max >= 16384 && c->push_max >= KB_VK_PUSH_MAX);
		assert_true(c->n_heaps > 0 && c->heaps[0].bytes > 0);
		assert_true(c->path[0] && c->path_reason[0]);
	}
}

static void wishes(void **state)
{
	char index[16];
	(void)state;
	assert_int_equal(used(NULL), 1);
	for (uint32_t i = 0; i < n; i++) {
		if (!list[i].usable)
			continue;
		snprintf(index, sizeof index, "%u", i);
		assert_int_equal(used(index), 1);
		assert_true(list[i].used);
		assert_non_null(strstr(list[i].reason, "asked for"));
	}
	assert_int_equal(used("LLVMPIPE"), 1); // part of a name, in any case
	assert_int_equal(used("no such device"), 0);
	assert_int_equal(used("99"), 0);
}

static void refuses_what_is_not_there(void **state)
{
	struct kb_err err = {0};
	struct kb_vk *vk = NULL;
	(void)state;
	assert_int_equal(kb_vk_create(&(struct kb_vk_options){.device = "no such device"}, &err, &vk), KB_EUNSUPPORTED);
	assert_null(vk);
	assert_non_null(strstr(err.text, "no such device"));
	assert_non_null(strstr(err.text, "doctor"));
}

// The choice follows properties alone, so devices can be made up.
static void path_by_properties(void **state)
{
	const uint32_t all = 0xff;
	const struct {
		struct kb_vk_caps caps;
		const char *path, *reason;
	} rows[] = {
		{{.type = KB_VK_CPU, .subgroup = 8, .subgroup_ops = all, .int64 = true, .storage8 = true}, "tuned", "8 lanes"},
		{{.type = KB_VK_CPU, .subgroup = 16, .subgroup_ops = all, .int64 = true, .storage8 = true}, "tuned",
			"16 lanes"},
		{{.type = KB_VK_CPU, .subgroup = 32, .subgroup_ops = all, .int64 = true}, "universal", "4, 8 or 16"},
		{{.type = KB_VK_CPU, .subgroup = 8, .subgroup_ops = all}, "universal", "64-bit"},
		{{.type = KB_VK_CPU, .subgroup = 8, .subgroup_ops = 1, .int64 = true}, "universal", "broadcast"},
		{{.type = KB_VK_CPU, .subgroup = 8, .subgroup_ops = all, .int64 = true}, "universal", "8-bit"},
		{{.type = KB_VK_INTEGRATED, .subgroup = 16, .subgroup_ops = all, .int64 = true, .storage8 = true}, "stream",
			"a GPU"},
		{{.type = KB_VK_DISCRETE, .subgroup = 32}, "stream", "a GPU"},
		{{.type = KB_VK_OTHER, .subgroup = 32}, "universal", "4, 8 or 16"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct kb_vk_caps c = rows[i].caps;
		kb_vk_choose_path(&c);
		assert_string_equal(c.path, rows[i].path);
		assert_non_null(strstr(c.path_reason, rows[i].reason));
	}
}

static void subgroup_text(void **state)
{
	char text[64], small[8];
	(void)state;
	kb_vk_subgroup_text(VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_BALLOT_BIT, text, sizeof text);
	assert_string_equal(text, "basic ballot");
	kb_vk_subgroup_text(0, text, sizeof text);
	assert_string_equal(text, "");
	kb_vk_subgroup_text(0xff, small, sizeof small);
	assert_true(strlen(small) < sizeof small);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_with_reasons),
		cmocka_unit_test(wishes),
		cmocka_unit_test(refuses_what_is_not_there),
		cmocka_unit_test(path_by_properties),
		cmocka_unit_test(subgroup_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
