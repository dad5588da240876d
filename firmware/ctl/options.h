// Command lines as tables: a subcommand's row says its arguments and options, and the parser and `help` read the row.
// Options may stand anywhere, as "--name VALUE" or "--name=VALUE"; "--" ends them; "-" alone is an argument.
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KB_CTL_OPTIONS_MAX 24

enum kb_ctl_kind { KB_CTL_FLAG, KB_CTL_TEXT, KB_CTL_COUNT, KB_CTL_REAL };

struct kb_ctl_option {
	const char *name; // without the dashes; a row without a name ends the table
	enum kb_ctl_kind kind;
	const char *argument; // "FILE" in help; NULL for a flag
	const char *help;
	double min, max; // of numbers
};

struct kb_ctl_value {
	bool is_set;
	const char *text;
	uint64_t count;
	double real;
};

// The place of a value is the place of its option in the table. Strings are argv's.
struct kb_ctl_args {
	struct kb_ctl_value global[KB_CTL_OPTIONS_MAX], option[KB_CTL_OPTIONS_MAX];
	bool wants_help;
	int n; // arguments that are not options
	char **arg;
};

struct kb_ctl;

struct kb_ctl_command {
	const char *name;
	const char *arguments; // "FILE.gguf" in help
	const char *help;      // one line
	const char *text;      // paragraphs of `kotobako help NAME`, wrapped at 80 columns
	const struct kb_ctl_option *options;
	int args_min, args_max;
	int (*run)(struct kb_ctl *ctl, const struct kb_ctl_args *args); // returns the exit status
};

// Parses argv[0, argc): global options only up to the first argument, which is left in ret->arg[0] with everything
// after it (command NULL), or all of a command's words. Reorders argv so that ret->arg points into it.
// KB_EARG with a text for the user.
KB_MUST_CHECK int kb_ctl_parse(const struct kb_ctl_option *globals, const struct kb_ctl_command *command, int argc,
	char **argv, struct kb_ctl_args *ret, struct kb_err *err);

// "HOST", "HOST:PORT", "[V6]:PORT". KB_EARG. host gets at most size bytes with its NUL.
KB_MUST_CHECK int kb_ctl_parse_box(const char *text, char *ret_host, size_t size, uint16_t *ret_port);
