// A service that does not keep its promise, for services_test.py: it says that it is ready and then nothing. With "eat"
// it takes memory without end instead; with "fork" it starts itself without end.
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void say_ready(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/run/kotobako/notify"};
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (fd >= 0 && sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&a, sizeof a) != 7)
		_exit(3);
}

int main(int argc, char **argv)
{
	const size_t piece = 1 << 20;
	if (argc > 1 && strcmp(argv[1], "eat") == 0)
		for (char *p; (p = malloc(piece));)
			memset(p, 1, piece);
	if (argc > 1 && strcmp(argv[1], "fork") == 0)
		for (int n = 0;; n++)
			switch (fork()) {
			case -1:
				_exit(n < 100 ? n : 100); // so many were let live
			case 0:
				pause();
				_exit(0);
			default:
				break;
			}
	say_ready();
	for (;;)
		pause();
}
