// Drives llama.cpp (built by build_llama.sh) as an oracle and as the peer of `make bench`.
//   kb-peer tokenize MODEL              stdin lines "SPECIAL HEX": 1 parses special tokens, HEX is UTF-8 -> token ids
//   kb-peer greedy MODEL N              stdin lines of prompt ids -> N x "id second margin" per line
//   kb-peer force MODEL N               stdin lines of ids, the last N a continuation -> N x "id second margin gap"
//   kb-peer logits MODEL TOKENS OUT...  TOKENS: u32 n, u32 ids; OUT: f32 (n, vocab); any number of pairs
//   kb-peer bench MODEL PROMPT DECODE   one JSON object of speeds and peak memory
// Options before the command: --gpu (all layers on the Vulkan device), --threads N, --kv-f32 (f32 cache, no flash
// attention: the exact path). Without --gpu nothing but the CPU backend is used.
// margin: logit(best) - logit(second), which is also the difference of their log-probabilities.
// gap: logit(best) - logit(the continuation's token), 0 where they agree. Ties go to the lower id.
#include <llama.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define CHUNK 128       // tokens of one decode call, as in ours
#define CHUNK_BENCH 512 // while measuring: its own default

struct peer {
	struct llama_model *model;
	struct llama_context *ctx;
	const struct llama_vocab *vocab;
	uint32_t n_vocab;
	bool is_gpu, is_exact;
	int threads;
	uint32_t chunk; // tokens of one decode call
};

static void die(const char *what)
{
	fprintf(stderr, "kb-peer: %s\n", what);
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
	(void)user;
	if (level == GGML_LOG_LEVEL_ERROR)
		fputs(text, stderr);
}

static void open_model(struct peer *p, const char *path, uint32_t n_ctx)
{
	static ggml_backend_dev_t none[1] = {NULL};
	struct llama_model_params mp = llama_model_default_params();
	mp.n_gpu_layers = p->is_gpu ? 999 : 0;
	if (!p->is_gpu)
		mp.devices = none;
	llama_log_set(quiet, NULL);
	llama_backend_init();
	p->model = llama_model_load_from_file(path, mp);
	if (!p->model)
		die("cannot load the model");
	p->vocab = llama_model_get_vocab(p->model);
	p->n_vocab = (uint32_t)llama_vocab_n_tokens(p->vocab);
	struct llama_context_params cp = llama_context_default_params();
	cp.n_ctx = n_ctx;
	cp.n_batch = cp.n_ubatch = p->chunk;
	cp.n_threads = cp.n_threads_batch = p->threads;
	if (!p->is_gpu)
		cp.offload_kqv = cp.op_offload = false;
	if (p->is_exact) {
		cp.type_k = cp.type_v = GGML_TYPE_F32;
		cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
		cp.swa_full = true;
	}
	p->ctx = llama_init_from_model(p->model, cp);
	if (!p->ctx)
		die("cannot make a context");
}

// Appends ids at positions pos...; logits for all of them, or for the last only.
static void feed(struct peer *p, const int32_t *ids, uint32_t n, uint32_t pos, bool want_all)
{
	struct llama_batch b = llama_batch_init((int32_t)n, 0, 1);
	b.n_tokens = (int32_t)n;
	for (uint32_t i = 0; i < n; i++) {
		b.token[i] = ids[i];
		b.pos[i] = (llama_pos)(pos + i);
		b.n_seq_id[i] = 1;
		b.seq_id[i][0] = 0;
		b.logits[i] = want_all || i + 1 == n;
	}
	if (llama_decode(p->ctx, b) != 0)
		die("llama_decode failed");
	llama_batch_free(b);
}

static void forget(struct peer *p)
{
	llama_memory_clear(llama_get_memory(p->ctx), true);
}

static void best_two(const struct peer *p, const float *x, uint32_t *ret_best, uint32_t *ret_second)
{
	uint32_t a = 0, b = 1;
	if (x[b] > x[a]) {
		a = 1;
		b = 0;
	}
	for (uint32_t i = 2; i < p->n_vocab; i++) {
		if (x[i] > x[a]) {
			b = a;
			a = i;
		} else if (x[i] > x[b]) {
			b = i;
		}
	}
	*ret_best = a;
	*ret_second = b;
}

// Feeds ids in chunks; returns the logits of the last.
static const float *prefill(struct peer *p, const int32_t *ids, uint32_t n)
{
	forget(p);
	for (uint32_t i = 0; i < n; i += p->chunk)
		feed(p, ids + i, n - i < p->chunk ? n - i : p->chunk, i, false);
	return llama_get_logits_ith(p->ctx, -1);
}

static uint32_t read_ids(const char *line, int32_t *ids, uint32_t max)
{
	uint32_t n = 0;
	char *end;
	for (long id = strtol(line, &end, 10); end != line; id = strtol(line, &end, 10)) {
		if (n == max)
			die("too many ids in a line");
		ids[n++] = (int32_t)id;
		line = end;
	}
	return n;
}

static void tokenize(struct peer *p, char *line)
{
	static int32_t ids[65536];
	bool is_special = line[0] == '1';
	const char *hex = line + 2;
	size_t n = strcspn(hex, "\n") / 2;
	char *text = malloc(n + 1);
	for (size_t i = 0; i < n; i++) {
		unsigned byte = 0;
		sscanf(hex + 2 * i, "%2x", &byte);
		text[i] = (char)byte;
	}
	int32_t got = llama_tokenize(p->vocab, text, (int32_t)n, ids, 65536, true, is_special);
	if (got < 0)
		die("text too long");
	for (int32_t i = 0; i < got; i++)
		printf("%d ", ids[i]);
	putchar('\n');
	free(text);
}

static void greedy(struct peer *p, char *line, uint32_t n_new)
{
	static int32_t ids[4096];
	uint32_t n = read_ids(line, ids, 4096), a, b;
	const float *x = prefill(p, ids, n);
	for (uint32_t i = 0; i < n_new; i++) {
		best_two(p, x, &a, &b);
		printf("%u %u %.6f ", a, b, (double)x[a] - (double)x[b]);
		if (i + 1 == n_new)
			break;
		int32_t id = (int32_t)a;
		feed(p, &id, 1, n + i, false);
		x = llama_get_logits_ith(p->ctx, -1);
	}
	putchar('\n');
}

static void force(struct peer *p, char *line, uint32_t n_new)
{
	static int32_t ids[4096];
	uint32_t n = read_ids(line, ids, 4096), a, b;
	if (n <= n_new)
		die("a line shorter than its continuation");
	forget(p);
	for (uint32_t i = 0; i + 1 < n; i += CHUNK) {
		uint32_t m = n - 1 - i < CHUNK ? n - 1 - i : CHUNK;
		feed(p, ids + i, m, i, true);
		for (uint32_t j = 0; j < m; j++) {
			if (i + j + 1 < n - n_new)
				continue;
			const float *x = llama_get_logits_ith(p->ctx, (int32_t)j);
			best_two(p, x, &a, &b);
			printf("%u %u %.6f %.6f ", a, b, (double)x[a] - (double)x[b], (double)x[a] - (double)x[ids[i + j + 1]]);
		}
	}
	putchar('\n');
}

static void logits(struct peer *p, const char *in, const char *out)
{
	uint32_t n = 0;
	FILE *f = fopen(in, "rb"), *g = fopen(out, "wb");
	if (!f || !g || fread(&n, 4, 1, f) != 1 || n == 0 || n > 4096)
		die("cannot open TOKENS or OUT, or a bad count");
	int32_t *ids = malloc(4 * (size_t)n);
	if (fread(ids, 4, n, f) != n)
		die("TOKENS is short");
	forget(p);
	for (uint32_t i = 0; i < n; i += CHUNK) {
		uint32_t m = n - i < CHUNK ? n - i : CHUNK;
		feed(p, ids + i, m, i, true);
		for (uint32_t j = 0; j < m; j++)
			if (fwrite(llama_get_logits_ith(p->ctx, (int32_t)j), 4, p->n_vocab, g) != p->n_vocab)
				die("cannot write OUT");
	}
	free(ids);
	fclose(f);
	if (fclose(g) != 0)
		die("cannot write OUT");
}

// Peak resident bytes of this process image: VmHWM, because ru_maxrss also counts the parent's before exec.
static double peak_rss(void)
{
	char line[256];
	double kb = 0;
	FILE *f = fopen("/proc/self/status", "r");
	while (f && fgets(line, sizeof line, f))
		if (strncmp(line, "VmHWM:", 6) == 0)
			kb = strtod(line + 6, NULL);
	if (f)
		fclose(f);
	return kb * 1024.0;
}

static void bench(struct peer *p, const char *path, uint32_t n_prompt, uint32_t n_decode, double start)
{
	uint32_t a, b;
	p->chunk = CHUNK_BENCH;
	open_model(p, path, n_prompt + n_decode + 1);
	int32_t *ids = malloc(4 * (size_t)n_prompt);
	for (uint32_t i = 0; i < n_prompt; i++) // which ids does not matter to the time
		ids[i] = (int32_t)((100 + 7 * i) % p->n_vocab);
	best_two(p, prefill(p, ids, n_prompt), &a, &b);
	double first = now() - start;
	double t0 = now();
	best_two(p, prefill(p, ids, n_prompt), &a, &b);
	double t1 = now();
	for (uint32_t i = 0; i < n_decode; i++) {
		int32_t id = (int32_t)a;
		feed(p, &id, 1, n_prompt + i, false);
		best_two(p, llama_get_logits_ith(p->ctx, -1), &a, &b);
	}
	double t2 = now();
	printf("{\"prefill_tps\": %.3f, \"decode_tps\": %.3f, \"start_to_first_token_s\": %.4f, \"peak_rss_bytes\": %.0f, "
		   "\"device\": \"%s\", \"weight_bytes\": %llu}\n",
		n_prompt / (t1 - t0), n_decode / (t2 - t1), first, peak_rss(), p->is_gpu ? "llama.cpp Vulkan" : "llama.cpp CPU",
		(unsigned long long)llama_model_size(p->model));
	free(ids);
}

int main(int argc, char **argv)
{
	double start = now();
	struct peer p = {.threads = 2, .chunk = CHUNK};
	int i = 1;
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--gpu") == 0)
			p.is_gpu = true;
		else if (strcmp(argv[i], "--kv-f32") == 0)
			p.is_exact = true;
		else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
			p.threads = (int)strtol(argv[++i], NULL, 10);
		else
			die("unknown option");
	}
	if (argc - i < 2)
		die("usage: kb-peer [--gpu] [--kv-f32] [--threads N] tokenize|greedy|force|logits|bench MODEL ...");
	const char *command = argv[i], *path = argv[i + 1];
	uint32_t n_new = argc - i > 2 ? (uint32_t)strtoul(argv[i + 2], NULL, 10) : 0;
	if (strcmp(command, "bench") == 0) {
		if (argc - i < 4)
			die("bench MODEL PROMPT DECODE");
		bench(&p, path, n_new, (uint32_t)strtoul(argv[i + 3], NULL, 10), start);
	} else if (strcmp(command, "logits") == 0) {
		open_model(&p, path, 4096);
		for (int j = i + 2; j + 1 < argc; j += 2)
			logits(&p, argv[j], argv[j + 1]);
	} else {
		char *line = NULL;
		size_t room = 0;
		open_model(&p, path, 4096);
		while (getline(&line, &room, stdin) > 0) {
			if (strcmp(command, "tokenize") == 0)
				tokenize(&p, line);
			else if (strcmp(command, "greedy") == 0)
				greedy(&p, line, n_new);
			else if (strcmp(command, "force") == 0)
				force(&p, line, n_new);
			else
				die("unknown command");
			fflush(stdout);
		}
		free(line);
	}
	llama_free(p.ctx);
	llama_model_free(p.model);
	return 0;
}
