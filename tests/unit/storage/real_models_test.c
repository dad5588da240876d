// The two real models, imported, against gguf-py's dequantised rows (tests/data/make_real_rows.py).
// Skipped where build/downloads/ lacks them.
#include "storage/image.h"
#include "storage/import_gguf.h"
#include "unit/storage/expect.h"

#include <unistd.h>

static struct kb_image *import(const char *name)
{
	static char path[512];
	char src[256];
	const char *tmp = getenv("KB_TMP");
	struct kb_import_report report;
	struct kb_import_options o = {.replace = true};
	struct kb_err err = {0};
	struct kb_image *im;
	snprintf(src, sizeof src, "build/downloads/%s", name);
	snprintf(path, sizeof path, "%s/real.kbm", tmp ? tmp : "/tmp");
	if (access(src, R_OK) != 0) {
		print_message("# %s is missing\n", src);
		skip();
	}
	if (kb_import_gguf(src, path, &o, &err, &report) || kb_image_open(path, &err, &im))
		fail_msg("%s", err.text);
	for (uint32_t i = 0; i < report.n_kinds; i++)
		assert_true(report.kinds[i].is_exact);
	assert_true(report.bytes_out < report.bytes_in + report.bytes_in / 40);
	unlink(path); // the map keeps it
	return im;
}

static void check_row(const struct kb_image *im, const char *name, uint32_t row, uint32_t want)
{
	struct kb_image_tensor t;
	if (kb_image_tensor(im, name, &t))
		fail_msg("%s is missing", name);
	assert_true(row < t.rows);
	float *w = malloc(t.cols * sizeof *w);
	if (t.rows == 1)
		memcpy(w, kb_image_tensor_bytes(im, &t), t.cols * sizeof *w);
	else
		kb_quant_decode_row(t.format, kb_image_tensor_bytes(im, &t), t.cols, row, w);
	if (crc32_of(0, w, t.cols * sizeof *w) != want)
		fail_msg("%s row %u (%s) differs from gguf-py's", name, row, kb_formats[t.format].name);
	free(w);
}

static void rows_equal(const char *name, unsigned min_rows)
{
	char line[256], file[128], tensor[128];
	uint32_t row, crc;
	unsigned checked = 0;
	struct kb_image *im = import(name);
	FILE *f = fopen("tests/data/real_rows.txt", "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		assert_int_equal(sscanf(line, "%127s %127s %" SCNu32 " %" SCNx32, file, tensor, &row, &crc), 4);
		if (strcmp(file, name) != 0)
			continue;
		check_row(im, tensor, row, crc);
		checked++;
	}
	fclose(f);
	assert_true(checked >= min_rows);
	kb_image_close(im);
}

static void smollm2_rows_equal_gguf_py(void **state)
{
	(void)state;
	rows_equal("smollm2-135m-instruct-q4_1.gguf", 150);
}

static void gemma3_rows_equal_gguf_py(void **state)
{
	(void)state;
	rows_equal("gemma-3-270m-q4_k_m.gguf", 250);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(smollm2_rows_equal_gguf_py),
		cmocka_unit_test(gemma3_rows_equal_gguf_py),
	};
	return cmocka_run_group_tests_name("storage/real_models", tests, NULL, NULL);
}
