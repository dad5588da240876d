// kotobako-engine: the process that computes. Started by kotobakod with one socket; by people for figures.
#include "base/log.h"
#include "firmware/engine/engine.h"
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct mode {
	const char *flag, *arguments;
	int n_arguments;
	int image_argument; // which argument is the model image; -1: none
	int (*run)(const struct kb_engine_options *o, char **arguments);
	const char *help; // NULL: for tests
} modes[] = {
	{"--serve", "FD IMAGE", 2, 1, kb_mode_serve, "answer requests that come as frames over socket FD"},
	{"--bench", "IMAGE", 1, 0, kb_mode_bench, "measure reading, answering, start and memory"},
	{"--doctor", "[IMAGE]", 0, 0, kb_mode_doctor, "devices, limits, what is used and why; memory with IMAGE"},
	{"--logits", "TOKENS.bin OUT.bin IMAGE", 3, 2, kb_mode_logits, "u32 n, u32 ids in; f32 rows of logits out"},
	{"--generate", "IMAGE TEXT", 2, 0, kb_mode_generate, "continue TEXT greedily, for debugging"},
	{"--sandbox-selftest", "", 0, -1, kb_mode_sandbox_selftest, NULL},
};

static int parse_u32(const char *text, void *ret)
{
	char *end;
	errno = 0;
	unsigned long n = strtoul(text, &end, 10);
	if (errno || end == text || *end || n > UINT32_MAX || *text == '-')
		return -1;
	*(uint32_t *)ret = (uint32_t)n;
	return 0;
}

static int parse_string(const char *text, void *ret)
{
	*(const char **)ret = text;
	return 0;
}

static int parse_path(const char *text, void *ret)
{
	static const char *const names[] = {"auto", "universal", "tuned", "stream"};
	for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
		if (strcmp(text, names[i]) == 0) {
			*(enum kb_op_vk_path *)ret = (enum kb_op_vk_path)i;
			return 0;
		}
	return -1;
}

#define AT(field) offsetof(struct kb_engine_options, field)
static const struct option {
	const char *flag, *argument; // NULL: a switch
	int (*parse)(const char *text, void *ret);
	size_t offset;
	const char *help; // NULL: for tests
} options[] = {
	{"--device", "X", parse_string, AT(device), "an index or part of a name (see --doctor); \"reference\": plain C"},
	{"--path", "P", parse_path, AT(path), "kernels: auto, universal, tuned or stream"},
	{"--cache", "FILE", parse_string, AT(cache), "pipeline cache; its directory must exist"},
	{"--digest", "HEX", parse_string, AT(digest), "prove the image first: its fs-verity digest"},
	{"--kv-tokens", "N", parse_u32, AT(kv_tokens), "KV cache over all requests"},
	{"--max-seqs", "N", parse_u32, AT(max_seqs), "requests that run at once"},
	{"--max-tokens", "N", parse_u32, AT(max_tokens), "tokens of one step"},
	{"--prompt", "N", parse_u32, AT(prompt_tokens), "--bench: tokens to read (128)"},
	{"--decode", "N", parse_u32, AT(decode_tokens), "--bench: tokens to generate (64)"},
	{"--json", NULL, NULL, AT(json), "--bench: one JSON object"},
	{"--speculate", "N", parse_u32, AT(guesses), "guessed tokens checked at once, at most (15); 0: none"},
	{"--shared-system", "FILE", parse_string, AT(shared_system), "a system prompt kept once for all clients"},
	{"--no-prefix-cache", NULL, NULL, AT(no_prefix_cache), "read every prompt from its first token on"},
	{"--no-import", NULL, NULL, AT(no_import), "copy the weights even where they could be used in place"},
	{"--no-sandbox", NULL, NULL, AT(no_sandbox), NULL},
	{"--fault-after-steps", "N", parse_u32, AT(fault_after), NULL},
};
#undef AT

static int usage(FILE *f)
{
	fprintf(f, "usage: kotobako-engine MODE [OPTION...]\n\nmodes:\n");
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
		if (modes[i].help)
			fprintf(
				f, "  %s %-*s %s\n", modes[i].flag, 34 - (int)strlen(modes[i].flag), modes[i].arguments, modes[i].help);
	fprintf(f, "\noptions:\n");
	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		if (options[i].help)
			fprintf(f, "  %s %-*s %s\n", options[i].flag, 20 - (int)strlen(options[i].flag),
				options[i].argument ? options[i].argument : "", options[i].help);
	return f == stdout ? 0 : 2;
}

// Takes the option at argv[i]; returns how many words it was, 0 if it is none, -1 on a bad value.
static int take_option(struct kb_engine_options *o, char **argv, int i, int argc)
{
	for (size_t k = 0; k < sizeof options / sizeof *options; k++) {
		if (strcmp(argv[i], options[k].flag) != 0)
			continue;
		char *at = (char *)o + options[k].offset;
		if (!options[k].argument) {
			*(bool *)at = true;
			return 1;
		}
		if (i + 1 < argc && options[k].parse(argv[i + 1], at) == 0)
			return 2;
		fprintf(stderr, "kotobako-engine: %s needs a value: %s (%s)\n", options[k].flag, options[k].argument,
			options[k].help ? options[k].help : "a number");
		return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct kb_engine_options o = {.guesses = KB_ENGINE_GUESSES};
	const struct mode *mode = NULL;
	char *arguments[4] = {0};
	int n_arguments = 0;
	if (argc < 2 || strcmp(argv[1], "--help") == 0)
		return usage(argc < 2 ? stderr : stdout);
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
		if (strcmp(argv[1], modes[i].flag) == 0)
			mode = &modes[i];
	if (!mode) {
		fprintf(stderr, "kotobako-engine: no mode %s\n", argv[1]);
		return usage(stderr);
	}
	for (int i = 2; i < argc;) {
		int n = take_option(&o, argv, i, argc);
		if (n < 0)
			return 2;
		if (n == 0 && (argv[i][0] == '-' || n_arguments == 3)) {
			fprintf(stderr, "kotobako-engine: what is %s?\n", argv[i]);
			return usage(stderr);
		}
		if (n == 0)
			arguments[n_arguments++] = argv[i];
		i += n ? n : 1;
	}
	if (n_arguments < mode->n_arguments) {
		fprintf(stderr, "kotobako-engine: %s needs %s\n", mode->flag, mode->arguments);
		return 2;
	}
	if (mode->image_argument >= 0)
		o.image = arguments[mode->image_argument];
	return mode->run(&o, arguments);
}
