// The table of subcommands, and what `kotobako help` makes of it.
#pragma once
#include "firmware/ctl/ctl.h"
#include <stdio.h>

extern const struct kb_ctl_command kb_ctl_commands[]; // a row without a name ends it

const struct kb_ctl_command *kb_ctl_command_find(const char *name); // NULL where there is none
void kb_ctl_help(FILE *f);
void kb_ctl_help_command(FILE *f, const struct kb_ctl_command *c);
