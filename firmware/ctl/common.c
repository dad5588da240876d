/* What every subcommand uses; see ctl.h */
#include "firmware/ctl/ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

volatile sig_atomic_t kb_ctl_interrupted;

static void on_interrupt(int signal_number)
{
	(void)signal_number;
	kb_ctl_interrupted = 1;
}

void kb_ctl_catch_interrupt(bool once)
{
	// No SA_RESTART: what waits for a person or the box is to notice.
	struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = once ? (int)SA_RESETHAND : 0};
	sigaction(SIGINT, &action, NULL);
}

int kb_ctl_fail(int status, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fflush(stdout);
	fputs("kotobako: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	return status;
}

bool kb_ctl_is_terminal(int fd)
{
	const char *said = getenv("KB_TTY");
	if (said && (strcmp(said, "0") == 0 || strcmp(said, "1") == 0))
		return said[0] == '1';
	return isatty(fd);
}
