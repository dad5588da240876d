/* see options.h */
#include "firmware/ctl/options.h"

#include "firmware/ctl/ctl.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct kb_ctl_option *find(const struct kb_ctl_option *table, const char *name, size_t len)
{
	for (const struct kb_ctl_option *o = table; o && o->name; o++)
		if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
			return o;
	return NULL;
}

static int set_value(const struct kb_ctl_option *o, const char *text, struct kb_ctl_value *v, struct kb_err *err)
{
	char *end = NULL;
	struct kb_ctl_value got = {.is_set = true, .text = text};
	errno = 0;
	if (o->kind == KB_CTL_COUNT) {
		got.count = strtoull(text, &end, 10);
		got.real = (double)got.count;
		if (text[0] < '0' || text[0] > '9')
			end = NULL; // strtoull takes a sign and spaces
	} else if (o->kind == KB_CTL_REAL) {
		got.real = strtod(text, &end);
		if (text[0] == ' ' || got.real != got.real)
			end = NULL;
	}
	if (o->kind == KB_CTL_COUNT || o->kind == KB_CTL_REAL) {
		if (!end || end == text || *end || errno == ERANGE)
			return kb_fail(err, KB_EARG, "--%s wants a number, not \"%s\"", o->name, text);
		if (got.real < o->min || got.real > o->max)
			return kb_fail(err, KB_EARG, "--%s is %s; it may be %.15g to %.15g", o->name, text, o->min, o->max);
	}
	*v = got;
	return 0;
}

// One option at argv[*at]; *at is moved past its value where that is a word of its own.
static int parse_option(const struct kb_ctl_option *globals, const struct kb_ctl_command *command, int argc,
	char **argv, int *at, struct kb_ctl_args *ret, struct kb_err *err)
{
	const char *word = argv[*at];
	if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
		ret->wants_help = true;
		return 0;
	}
	if (word[1] != '-')
		return kb_fail(err, KB_EARG, "there is no option %s", word);
	const char *name = word + 2, *equals = strchr(name, '=');
	size_t len = equals ? (size_t)(equals - name) : strlen(name);
	const struct kb_ctl_option *table = command ? command->options : NULL, *o = find(table, name, len);
	struct kb_ctl_value *values = ret->option;
	if (!o) {
		table = globals;
		values = ret->global;
		o = find(globals, name, len);
	}
	if (!o)
		return kb_fail(err, KB_EARG, "there is no option --%.*s", len < 64 ? (int)len : 64, name);
	if (o->kind == KB_CTL_FLAG && equals)
		return kb_fail(err, KB_EARG, "--%s takes no value", o->name);
	if (o->kind != KB_CTL_FLAG && !equals && *at + 1 >= argc)
		return kb_fail(err, KB_EARG, "--%s wants %s after it", o->name, o->argument);
	const char *text = equals ? equals + 1 : o->kind == KB_CTL_FLAG ? "" : argv[++*at];
	return set_value(o, text, &values[o - table], err);
}

/* see options.h */
int kb_ctl_parse(const struct kb_ctl_option *globals, const struct kb_ctl_command *command, int argc, char **argv,
	struct kb_ctl_args *ret, struct kb_err *err)
{
	struct kb_ctl_args args = *ret; // global options given before the subcommand stay
	int n = 0;
	bool is_over = false;
	args.arg = argv;
	for (int i = 0; i < argc; i++) {
		if (is_over || argv[i][0] != '-' || argv[i][1] == 0) {
			if (!command && !is_over) { // the subcommand's name: what follows is parsed with its row
				args.n = argc - i;
				args.arg = argv + i;
				*ret = args;
				return 0;
			}
			argv[n++] = argv[i];
			continue;
		}
		if (strcmp(argv[i], "--") == 0) {
			is_over = true;
			continue;
		}
		int r = parse_option(globals, command, argc, argv, &i, &args, err);
		if (r)
			return r;
	}
	args.n = n;
	if (command && !args.wants_help && n < command->args_min)
		return kb_fail(err, KB_EARG, "too few arguments: it wants %s", command->arguments);
	if (command && !args.wants_help && n > command->args_max)
		return kb_fail(
			err, KB_EARG, "\"%s\" is one argument too many (text with spaces wants quotes)", argv[command->args_max]);
	*ret = args;
	return 0;
}

/* see options.h */
int kb_ctl_parse_box(const char *text, char *ret_host, size_t size, uint16_t *ret_port)
{
	const char *host = text, *end, *colon;
	if (text[0] == '[') {
		host = text + 1;
		end = strchr(host, ']');
		if (!end || (end[1] != 0 && end[1] != ':'))
			return KB_EARG;
		colon = end[1] ? end + 1 : NULL;
	} else {
		colon = strchr(text, ':');
		if (colon && strchr(colon + 1, ':')) // an IPv6 address without brackets
			colon = NULL;
		end = colon ? colon : text + strlen(text);
	}
	size_t len = (size_t)(end - host);
	unsigned long port = KB_CTL_PORT;
	if (colon) {
		char *rest = NULL;
		port = strtoul(colon + 1, &rest, 10);
		if (colon[1] < '0' || colon[1] > '9' || *rest || port == 0 || port > 65535)
			return KB_EARG;
	}
	if (len == 0 || len >= size)
		return KB_EARG;
	memcpy(ret_host, host, len);
	ret_host[len] = 0;
	*ret_port = (uint16_t)port;
	return 0;
}
