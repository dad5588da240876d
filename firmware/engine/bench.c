// --bench: one request of known size through the scheduler, as a client's would go, and what it took.
#include "base/clock.h"
#include "base/log.h"
#include "firmware/engine/engine.h"
#include "sched/sched.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct bench {
	uint64_t first_ns, last_ns;
	uint32_t n_tokens;
	bool is_over, has_failed;
	struct kb_err err;
};

static void on_accepted(void *ctx, uint64_t id, uint32_t prompt_tokens)
{
	(void)ctx, (void)id, (void)prompt_tokens;
}

static void on_token(void *ctx, uint64_t id, const struct kb_sched_token *t)
{
	(void)id, (void)t;
	struct bench *b = ctx;
	b->last_ns = kb_clock_ns();
	if (b->n_tokens++ == 0)
		b->first_ns = b->last_ns;
}

static void on_done(void *ctx, uint64_t id, const struct kb_sched_done *d)
{
	(void)id, (void)d;
	((struct bench *)ctx)->is_over = true;
}

static void on_error(void *ctx, uint64_t id, const struct kb_err *err)
{
	(void)id;
	struct bench *b = ctx;
	b->err = *err;
	b->is_over = b->has_failed = true;
}

// When this process was started, on the clock of kb_clock_ns; the kernel counts in ticks of 10 ms.
static uint64_t process_start_ns(void)
{
	char line[1024];
	unsigned long long ticks = 0;
	struct timespec boot, mono;
	FILE *f = fopen("/proc/self/stat", "re");
	if (!f)
		return kb_clock_ns();
	size_t n = fread(line, 1, sizeof line - 1, f);
	fclose(f);
	line[n] = 0;
	const char *at = strrchr(line, ')'); // the name may hold anything; field 22 is the 20th after it
	if (!at || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
				   &ticks) != 1)
		return kb_clock_ns();
	clock_gettime(CLOCK_BOOTTIME, &boot);
	clock_gettime(CLOCK_MONOTONIC, &mono);
	int64_t age_ns = (boot.tv_sec * 1000000000ll + boot.tv_nsec) -
					 (int64_t)(ticks * (1000000000ull / (unsigned long long)sysconf(_SC_CLK_TCK)));
	return (uint64_t)(mono.tv_sec * 1000000000ll + mono.tv_nsec - age_ns);
}

// Ordinary tokens in no particular order; which ones does not matter for speed.
static void make_prompt(const struct kb_engine *e, uint32_t n, uint32_t *ret)
{
	uint32_t vocab = kb_model_info(e->model)->vocab, state = 12345;
	for (uint32_t i = 0; i < n;) {
		state = state * 1664525u + 1013904223u;
		uint32_t id = (state >> 8) % vocab;
		if (!kb_tok_is_control(e->tok, id))
			ret[i++] = id;
	}
}

static int run(struct kb_engine *e, uint32_t n_prompt, uint32_t n_decode, struct bench *b, struct kb_err *err)
{
	struct kb_sched_model model = kb_sched_model_of(e->model);
	const struct kb_sched_events events = {b, on_accepted, on_token, on_done, on_error};
	struct kb_sched *s;
	uint32_t *prompt = calloc(n_prompt, sizeof *prompt);
	if (!prompt)
		return kb_fail(err, KB_ENOMEM, "out of memory");
	make_prompt(e, n_prompt, prompt);
	int rc = kb_sched_create(&model, e->tok, NULL, &events, err, &s);
	if (rc) {
		free(prompt);
		return rc;
	}
	const struct kb_sched_request r = {
		.id = 1, .prompt = prompt, .n_prompt = n_prompt, .max_new = n_decode + 1, .ignore_eos = true};
	rc = kb_sched_submit(s, &r, 0, err);
	while (rc == 0 && !b->is_over && kb_sched_plan(s, 0)) {
		int step = kb_sched_run(s, err);
		kb_sched_settle(s, step, err, 0, 0);
	}
	if (rc == 0 && b->has_failed) {
		*err = b->err;
		rc = err->code;
	}
	kb_sched_destroy(s);
	free(prompt);
	return rc;
}

static void print_json(const char *key, const char *text)
{
	printf("\"%s\": \"", key);
	for (; *text; text++)
		if ((unsigned char)*text >= 0x20 && *text != '"' && *text != '\\')
			putchar(*text);
	putchar('"');
}

int kb_mode_bench(const struct kb_engine_options *o, char **arguments)
{
	(void)arguments;
	uint64_t start_ns = process_start_ns();
	uint32_t n_prompt = o->prompt_tokens ? o->prompt_tokens : 128, n_decode = o->decode_tokens ? o->decode_tokens : 64;
	struct kb_engine e;
	struct kb_err err = {0};
	struct bench b = {0};
	int rc = kb_engine_open(&e, o, NULL, NULL, &err);
	if (rc) {
		kb_error("engine", "%s", err.text);
		return EXIT_FAILURE;
	}
	struct bench cold = {0};
	rc = run(&e, n_prompt, 1, &cold, &err); // as after a start: first use compiles what is left to compile
	uint64_t read_ns = kb_clock_ns();
	if (rc == 0)
		rc = run(&e, n_prompt, n_decode, &b, &err);
	if (rc) {
		kb_error("engine", "%s", err.text);
		kb_engine_close(&e);
		return rc == KB_EDEVICE ? KB_EXIT_DEVICE : EXIT_FAILURE;
	}
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	const struct kb_model_info *info = kb_model_info(e.model);
	double prefill = n_prompt / ((double)(b.first_ns - read_ns) / 1e9);
	double decode = (b.n_tokens - 1) / ((double)(b.last_ns - b.first_ns) / 1e9);
	double first = (double)(cold.first_ns - start_ns) / 1e9;
	unsigned long long peak = (unsigned long long)usage.ru_maxrss * 1024;
	if (o->json) {
		printf("{\"prefill_tps\": %.3f, \"decode_tps\": %.3f, \"start_to_first_token_s\": %.3f, \"peak_rss_bytes\": "
			   "%llu, ",
			prefill, decode, first, peak);
		print_json("device", e.backend->device);
		printf(", \"weight_bytes_per_token\": %llu, ", (unsigned long long)info->weight_bytes_per_token);
		print_json("model", info->name);
		printf("}\n");
	} else {
		printf("model            %s (%s, %.1f M parameters)\n", info->name, info->arch, (double)info->parameters / 1e6);
		printf("device           %s\n", e.backend->device);
		printf("prefill          %.1f t/s (%u tokens)\n", prefill, n_prompt);
		printf("decode           %.1f t/s (%u tokens)\n", decode, n_decode);
		printf("first token      %.2f s after the start of the process\n", first);
		printf("peak memory      %.1f MB\n", (double)peak / 1e6);
		printf("weights read     %.1f MB a token, %.2f GB/s while decoding\n",
			(double)info->weight_bytes_per_token / 1e6, (double)info->weight_bytes_per_token * decode / 1e9);
	}
	kb_engine_close(&e);
	return EXIT_SUCCESS;
}
