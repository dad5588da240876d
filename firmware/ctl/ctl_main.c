// kotobako: the command line for people and scripts.
#include "base/version.h"
#include "firmware/ctl/commands.h"

#include <locale.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// $variable/kotobako, else HOME/below/kotobako; relative values of the variable are passed over, as XDG wants it.
static char *home_directory(const char *variable, const char *below)
{
	const char *base = getenv(variable), *home = getenv("HOME");
	char *path = NULL;
	if (base && base[0] == '/')
		return kb_ctl_path(base, "kotobako");
	if (!home || home[0] != '/') {
		const struct passwd *user = getpwuid(getuid());
		home = user ? user->pw_dir : "/";
	}
	return asprintf(&path, "%s/%s/kotobako", home, below) < 0 ? NULL : path;
}

static int resolve(struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	const struct kb_ctl_value *g = args->global;
	const char *state = g[KB_GLOBAL_STATE].is_set ? g[KB_GLOBAL_STATE].text : getenv("KB_STATE");
	ctl->has_state = state && state[0];
	ctl->has_client = g[KB_GLOBAL_CLIENT].is_set;
	ctl->box = g[KB_GLOBAL_BOX].text;
	ctl->tpm = g[KB_GLOBAL_TPM].is_set ? g[KB_GLOBAL_TPM].text : getenv("KB_TPM");
	if (ctl->tpm && !ctl->tpm[0])
		ctl->tpm = NULL;
	if (ctl->has_state)
		ctl->state = strdup(state);
	else
		ctl->state = geteuid() == 0 ? strdup("/var/lib/kotobako") : home_directory("XDG_DATA_HOME", ".local/share");
	ctl->client = ctl->has_client ? strdup(g[KB_GLOBAL_CLIENT].text) : home_directory("XDG_CONFIG_HOME", ".config");
	ctl->models = ctl->state ? kb_ctl_path(ctl->state, "models") : NULL;
	return ctl->models && ctl->client ? KB_CTL_OK : kb_ctl_fail(KB_CTL_FAILED, "out of memory");
}

static int usage(const struct kb_err *err, const struct kb_ctl_command *c)
{
	return kb_ctl_fail(KB_CTL_USAGE, "%s\n(kotobako help%s%s shows how)", err->text, c ? " " : "", c ? c->name : "");
}

// kotobako help [COMMAND], and --help anywhere.
static int help(const char *name)
{
	if (!name) {
		kb_ctl_help(stdout);
		return KB_CTL_OK;
	}
	const struct kb_ctl_command *c = kb_ctl_command_find(name);
	if (!c)
		return kb_ctl_fail(KB_CTL_USAGE, "there is no command %.64s (kotobako help lists them)", name);
	kb_ctl_help_command(stdout, c);
	return KB_CTL_OK;
}

static int run(const struct kb_ctl_command *command, struct kb_ctl *ctl, struct kb_ctl_args *args)
{
	struct kb_err err = {0};
	if (kb_ctl_parse(kb_ctl_globals, command, args->n - 1, args->arg + 1, args, &err))
		return usage(&err, command);
	if (args->wants_help)
		return help(command->name);
	int status = resolve(ctl, args);
	if (status == KB_CTL_OK)
		status = command->run(ctl, args);
	free(ctl->state);
	free(ctl->client);
	free(ctl->models);
	if (fflush(stdout) && status == KB_CTL_OK)
		status = kb_ctl_fail(KB_CTL_FAILED, "standard output takes no more");
	return status;
}

int main(int argc, char **argv)
{
	struct kb_ctl ctl = {.program = argv[0]};
	struct kb_ctl_args args = {0};
	struct kb_err err = {0};
	// Characters only: numbers keep their point. Without a locale a terminal of today still speaks UTF-8.
	if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1)
		setlocale(LC_CTYPE, "C.UTF-8");
	if (kb_ctl_parse(kb_ctl_globals, NULL, argc - 1, argv + 1, &args, &err))
		return usage(&err, NULL);
	if (args.global[KB_GLOBAL_VERSION].is_set) {
		puts("kotobako " KB_VERSION);
		return KB_CTL_OK;
	}
	if (args.wants_help)
		return help(args.n ? args.arg[0] : NULL);
	if (args.n == 0) {
		kb_ctl_help(stderr);
		return KB_CTL_USAGE;
	}
	if (strcmp(args.arg[0], "help") == 0)
		return help(args.n > 1 ? args.arg[1] : NULL);
	const struct kb_ctl_command *command = kb_ctl_command_find(args.arg[0]);
	if (!command)
		return kb_ctl_fail(KB_CTL_USAGE, "there is no command %.64s (kotobako help lists them)", args.arg[0]);
	return run(command, &ctl, &args);
}
