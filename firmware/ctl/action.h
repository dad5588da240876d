// Subcommands that are families of actions ("model list", "model show NAME"), as tables.
#pragma once
#include "firmware/ctl/ctl.h"

#define KB_OPTION(place) (1u << (place)) // for options below

struct kb_ctl_action {
	const char *name;
	int args_min, args_max;                                         // after its own name
	uint32_t options;                                               // of the subcommand's, those that it takes
	int (*run)(struct kb_ctl *ctl, const struct kb_ctl_args *args); // args->arg[0] is its name
};

// Runs the action that args->arg[0] names; wrong usage is said, with what there is. A row without a name ends the
// table.
int kb_ctl_act(
	const char *command, const struct kb_ctl_action *table, struct kb_ctl *ctl, const struct kb_ctl_args *args);
