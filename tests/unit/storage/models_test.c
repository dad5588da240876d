#include "storage/import_gguf.h"
#include "storage/models.h"
#include "unit/storage/expect.h"

#include <sys/stat.h>
#include <unistd.h>

static void names_are_plain(void **state)
{
	(void)state;
	static const char *const good[] = {"a", "smollm2-135m-instruct.q4_1", "7b", "a.b_c-d",
		"0123456789012345678901234567890123456789012345678901234567890123"};
	static const char *const bad[] = {"", ".", "..", ".a", "-a", "_a", "A", "a b", "a/b", "a\n", "言箱", "a%41",
		"01234567890123456789012345678901234567890123456789012345678901234"};
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		assert_true(kb_model_name_valid(good[i]));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_false(kb_model_name_valid(bad[i]));
}

static void default_names_come_from_files(void **state)
{
	(void)state;
	static const char *const pairs[][2] = {
		{"/a/b/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct.q4_1"},
		{"gemma-3-270m-q4_k_m.GGUF", "gemma-3-270m-q4_k_m"},
		{"My  model (v2).gguf", "my-model-v2"},
		{"言箱.gguf", "model"},
		{"言箱7b.gguf", "7b"},
		{"..gguf", "model"},
		{".gguf", "gguf"},
		{"dir/", "model"},
		{"-x-.gguf", "x"},
		{"0123456789012345678901234567890123456789012345678901234567890123456789.gguf",
			"0123456789012345678901234567890123456789012345678901234567890123"},
	};
	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
		char name[KB_MAX_MODEL_NAME + 1];
		kb_model_name_from_file(pairs[i][0], name);
		assert_string_equal(name, pairs[i][1]);
		assert_true(kb_model_name_valid(name));
	}
}

static void lists_what_is_there(void **state)
{
	(void)state;
	const char *tmp = getenv("KB_TMP");
	char dir[300], path[512];
	struct kb_err err = {0};
	struct kb_model_list list;
	char *found;
	snprintf(dir, sizeof dir, "%s/models", tmp ? tmp : "/tmp");
	assert_int_equal(kb_models_list(dir, &err, &list), 0);
	assert_int_equal(list.n, 0);
	kb_model_list_finish(&list);
	mkdir(dir, 0755);
	static const char *const others[] = {"notes.txt", "Bad Name.kbm", ".kbm", "x.kbm.partial-12"};
	for (size_t i = 0; i < 4; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, others[i]);
		write_file(path, "hello", 5);
	}
	snprintf(path, sizeof path, "%s/damaged.kbm", dir);
	write_file(path, "hello", 5);
	assert_int_equal(kb_model_path(dir, "kinds", &err, &found), 0);
	assert_int_equal(kb_import_gguf("tests/data/gguf/kinds.gguf", found, NULL, &err, NULL), 0);
	free(found);
	assert_int_equal(kb_models_list(dir, &err, &list), 0);
	assert_int_equal(list.n, 2);
	assert_string_equal(list.models[0].name, "damaged");
	assert_int_equal(list.models[0].error.code, KB_EBAD);
	assert_int_equal(list.models[0].file_bytes, 5);
	const struct kb_model_entry *m = &list.models[1];
	assert_string_equal(m->name, "kinds");
	assert_int_equal(m->error.code, 0);
	assert_string_equal(m->arch, "llama");
	assert_string_equal(m->title, "Every kind, 言箱");
	assert_string_equal(m->license, "apache-2.0");
	// Largest as stored: F32, whose matrix of 2 rows of 256 fills a panel of 16.
	print_message("# %s\n", m->weights);
	assert_int_equal(strncmp(m->weights, "F32 ", 4), 0);
	assert_true(m->file_bytes > 60000 && m->parameters > 20000);
	kb_model_list_finish(&list);
	assert_int_equal(kb_model_find(dir, "kinds", &err, &found), 0);
	snprintf(path, sizeof path, "%s/kinds.kbm", dir);
	assert_string_equal(found, path);
	free(found);
	assert_int_equal(kb_model_find(dir, "missing", &err, &found), KB_ENOTFOUND);
	assert_int_equal(kb_model_find(dir, "../models/kinds", &err, &found), KB_EBAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_plain),
		cmocka_unit_test(default_names_come_from_files),
		cmocka_unit_test(lists_what_is_there),
	};
	return cmocka_run_group_tests_name("storage/models", tests, NULL, NULL);
}
