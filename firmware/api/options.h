// The command line of kotobakod.
#pragma once
#include "firmware/api/daemon.h"

// 0: go on. 1: --help or --version was printed. 2: wrong, and said so.
int kb_options_parse(int argc, char **argv, struct kb_options *ret);
