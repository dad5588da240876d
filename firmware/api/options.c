// See options.h.
#include "firmware/api/options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int parse_text(const char *text, struct kb_options *o, size_t offset)
{
	*(const char **)(void *)((char *)o + offset) = text;
	return text[0] ? 0 : -1;
}

static int parse_count(const char *text, struct kb_options *o, size_t offset)
{
	char *end;
	errno = 0;
	unsigned long n = strtoul(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || n > 1u << 30)
		return -1;
	*(uint32_t *)(void *)((char *)o + offset) = (uint32_t)n;
	return 0;
}

// "127.0.0.1:8443", "[::1]:8443".
static int parse_address(const char *text, struct kb_options *o, size_t offset)
{
	struct kb_address *a = (struct kb_address *)(void *)((char *)o + offset);
	const char *colon = strrchr(text, ':');
	char *end;
	if (!colon)
		return -1;
	const char *host = text;
	size_t len = (size_t)(colon - text);
	if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
		host++;
		len -= 2;
	}
	unsigned long port = strtoul(colon + 1, &end, 10);
	if (len == 0 || len >= sizeof a->host || end == colon + 1 || *end || port == 0 || port > 65535)
		return -1;
	memset(a->host, 0, sizeof a->host);
	memcpy(a->host, host, len);
	a->port = (uint16_t)port;
	return 0;
}

static int parse_name(const char *text, struct kb_options *o, size_t offset)
{
	(void)offset;
	if (o->n_names == sizeof o->names / sizeof *o->names)
		return -1;
	o->names[o->n_names++] = text;
	return 0;
}

#define AT(field) offsetof(struct kb_options, field)
static const struct option {
	const char *flag, *value;
	int (*parse)(const char *text, struct kb_options *o, size_t offset);
	size_t offset;
	const char *help; // NULL: for tests
} options[] = {
	{"--state", "DIR", parse_text, AT(state_dir), "where models, clients and keys are kept (needed)"},
	{"--listen", "ADDRESS:PORT", parse_address, AT(listen), "for paired clients (127.0.0.1:8443)"},
	{"--bearer", "ADDRESS:PORT", parse_address, AT(bearer), "a second listener for bearer keys (off)"},
	{"--name", "NAME", parse_name, 0, "another name or address of this box for its certificate; may be repeated"},
	{"--model", "NAME", parse_text, AT(model), "loaded at start, and meant where a request names none"},
	{"--engine", "PATH", parse_text, AT(engine_program), "kotobako-engine (the one beside this program)"},
	{"--max-engines", "N", parse_count, AT(max_engines), "models loaded at once (2)"},
	{"--kv-tokens", "N", parse_count, AT(kv_tokens), "KV cache of an engine, in tokens (its choice)"},
	{"--max-seqs", "N", parse_count, AT(max_seqs), "answers that an engine makes at once (its choice)"},
	{"--shared-system", "FILE", parse_text, AT(shared_system), "a system prompt whose memory all clients share (none)"},
	{"--speculate", "N", parse_count, AT(speculate), "tokens an answer may guess ahead; 0: none (its choice)"},
	{"--client-requests", "N", parse_count, AT(client_requests), "answers for one client at once; 0: no limit (16)"},
	{"--client-rate", "N", parse_count, AT(client_rate), "requests a second of one client; 0: no limit (20)"},
	{"--roots", "CHAIN", parse_text, AT(roots),
		"whom the box trusts from its first start: a fleet's chain of roots (nobody)"},
	{"--tpm", "TCTI", parse_text, AT(tpm), "the TPM that counts changes of the state: device:/dev/tpmrm0 (none)"},
	{"--adopt", "FILE", parse_text, AT(adopt),
		"where this file is, the TPM's counter is taken as it is, and the file removed"},
	{"--boot", "FILE", parse_text, AT(boot),
		"what this start is, as kotobako-boot wrote it: systems may be uploaded (none)"},
	{"--network", "FILE", parse_text, AT(network),
		"settings of this machine's network, which kotobako-net makes so: administrators may change them (none)"},
	{"--claim", "MINUTES", parse_count, AT(claim),
		"so long after the machine's start its first client may claim it with a code that is said on the console (0)"},
	{"--patience", "N", parse_count, AT(patience),
		"multiplies the times that an engine may take; for slow machines (1)"},
	{"--hurry", "N", parse_count, AT(hurry), NULL},
};
#undef AT

static int usage(FILE *f)
{
	fprintf(f,
		"usage: kotobakod --state DIR [OPTION...]\n\nServes the installed models to paired clients over TLS 1.3.\n\n");
	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		if (options[i].help)
			fprintf(f, "  %s %-*s %s\n", options[i].flag, 30 - (int)strlen(options[i].flag), options[i].value,
				options[i].help);
	fprintf(f, "\nSIGTERM stops it in order, SIGHUP looks for new models. KB_LOG=debug says more.\n");
	return f == stdout ? 1 : 2;
}

static int wrong(const char *format, const char *what)
{
	fprintf(stderr, "kotobakod: ");
	fprintf(stderr, format, what);
	fprintf(stderr, " (--help lists the options)\n");
	return 2;
}

static const char *engine_beside(void)
{
	static char path[1024];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
	if (n <= 0)
		return "kotobako-engine";
	path[n] = 0;
	char *slash = strrchr(path, '/');
	snprintf(slash ? slash + 1 : path, 32, "kotobako-engine");
	return path;
}

int kb_options_parse(int argc, char **argv, struct kb_options *ret)
{
	*ret = (struct kb_options){.listen = {"127.0.0.1", 8443},
		.max_engines = 2,
		.speculate = KB_ENGINES_CHOICE,
		.client_requests = KB_CLIENT_REQUESTS_DEFAULT,
		.client_rate = KB_CLIENT_RATE_DEFAULT,
		.hurry = 1,
		.patience = 1};
	for (int i = 1; i < argc; i += 2) {
		const struct option *o = NULL;
		if (strcmp(argv[i], "--help") == 0)
			return usage(stdout);
		if (strcmp(argv[i], "--version") == 0) {
			printf("kotobakod " KB_VERSION "\n");
			return 1;
		}
		for (size_t k = 0; k < sizeof options / sizeof *options; k++)
			if (strcmp(argv[i], options[k].flag) == 0)
				o = &options[k];
		if (!o)
			return wrong("there is no option %s", argv[i]);
		if (i + 1 >= argc || o->parse(argv[i + 1], ret, o->offset))
			return wrong("%s wants a value of the right form", argv[i]);
	}
	if (!ret->state_dir)
		return wrong("%s is needed", "--state DIR");
	if (strlen(ret->state_dir) > 200)
		return wrong("%s: the path is too long", "--state");
	if (ret->max_engines == 0 || ret->max_engines > KB_ENGINES_MAX || ret->hurry == 0)
		return wrong("%s is from 1 to 8", "--max-engines");
	if (ret->patience == 0 || ret->patience > KB_PATIENCE_MAX)
		return wrong("%s is from 1 to 100", "--patience");
	if (!ret->engine_program)
		ret->engine_program = engine_beside();
	return 0;
}
