// kotobakod: the process that talks to the network. See daemon.h.
#include "base/log.h"
#include "firmware/api/daemon.h"
#include "firmware/api/options.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int main(int argc, char **argv)
{
	static struct kb_daemon daemon; // large, and one
	struct kb_err err = {0};
	int status = kb_options_parse(argc, argv, &daemon.o);
	if (status)
		return status == 1 ? EXIT_SUCCESS : status;
	umask(0077); // nothing that is made here is for others
	if (kb_daemon_open(&daemon, &err)) {
		kb_error("daemon", "%s", err.text);
		status = EXIT_FAILURE;
	} else {
		kb_daemon_run(&daemon);
	}
	kb_daemon_close(&daemon);
	return status;
}
