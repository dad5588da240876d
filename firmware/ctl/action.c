/* see action.h */
#include "firmware/ctl/action.h"

#include "firmware/ctl/commands.h"
#include <string.h>

static int run(
	const struct kb_ctl_command *c, const struct kb_ctl_action *a, struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	if (args->n - 1 < a->args_min || args->n - 1 > a->args_max)
		return kb_ctl_fail(KB_CTL_USAGE, "%s %s: too %s arguments; there is %s %s", c->name, a->name,
			args->n - 1 < a->args_min ? "few" : "many", c->name, c->arguments);
	for (int i = 0; c->options && c->options[i].name; i++)
		if (args->option[i].is_set && !(a->options & KB_OPTION(i)))
			return kb_ctl_fail(KB_CTL_USAGE, "%s %s takes no --%s", c->name, a->name, c->options[i].name);
	return a->run(ctl, args);
}

/* see action.h */
int kb_ctl_act(
	const char *command, const struct kb_ctl_action *table, struct kb_ctl *ctl, const struct kb_ctl_args *args)
{
	const struct kb_ctl_command *c = kb_ctl_command_find(command);
	for (const struct kb_ctl_action *a = table; a->name; a++)
		if (strcmp(args->arg[0], a->name) == 0)
			return run(c, a, ctl, args);
	return kb_ctl_fail(KB_CTL_USAGE, "%s %.64s: there is %s %s", command, args->arg[0], command, c->arguments);
}
