// kotobako-net apply [--settings FILE] [--run DIR]: writes the configurations. See net.h.
#include "firmware/network/net.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char sys_net[] = "/sys/class/net";
// timesyncd takes no file by name: the image has a link where it looks (image/osroot.files).
static const char time_conf[] = "time.conf", dhcpcd_conf[] = "dhcpcd.conf", avahi_conf[] = "avahi.conf";

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	char line[400];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	fprintf(stderr, "net: %s\n", line);
}

// What is set; where that cannot be read it is said, and DHCP is what reaches the box then. The file is a service's:
// whatever lies there must not hold root up.
static void load(const char *path, struct kb_site_network *ret)
{
	char text[KB_SITE_NETWORK_MAX + 1];
	struct kb_err err = {0};
	struct stat s;
	*ret = (struct kb_site_network){0};
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return;
	ssize_t n = fd >= 0 && fstat(fd, &s) == 0 && S_ISREG(s.st_mode) ? read(fd, text, sizeof text) : -1;
	if (n < 0)
		say("%s cannot be read: the address comes by DHCP", path);
	else if (kb_site_network_parse(text, (size_t)n, &err, ret))
		say("%s: %s: the address comes by DHCP", path, err.text);
	if (fd >= 0)
		close(fd);
}

// Whole, or as it was; untouched where nothing changed, because a new file restarts what reads it.
static int replace(const char *dir, const char *name, struct kb_buf *text)
{
	char path[200], fresh[210], old[2048];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	snprintf(fresh, sizeof fresh, "%s.new", path);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, old, sizeof old);
	if (fd >= 0)
		close(fd);
	if (n >= 0 && (size_t)n == text->len && memcmp(old, text->data, text->len) == 0)
		return 0;
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	bool is_good = fd >= 0 && write(fd, text->data, text->len) == (ssize_t)text->len;
	if (fd >= 0)
		is_good = close(fd) == 0 && is_good;
	if (is_good && rename(fresh, path) == 0)
		return 0;
	say("%s: %s", path, strerror(errno));
	return -1;
}

static int write_time(const char *run, const uint32_t *servers, uint32_t n)
{
	char path[200];
	struct kb_buf b = {0};
	if (n == 0) {
		snprintf(path, sizeof path, "%s/%s", run, time_conf);
		return unlink(path) && errno != ENOENT ? -1 : 0;
	}
	int r = kb_net_time(servers, n, &b) ? -1 : replace(run, time_conf, &b);
	kb_buf_finish(&b);
	return r;
}

static int apply(const char *settings, const char *run, bool is_box)
{
	struct kb_site_network n;
	struct kb_net_port port;
	struct kb_buf dhcpcd = {0}, avahi = {0};
	char name[KB_SITE_NAME_MAX + 1], a[KB_SITE_ADDRESS_TEXT], leases[200];
	load(settings, &n);
	kb_net_find_port(sys_net, &port);
	kb_net_name(&n, &port, name);
	if (is_box && sethostname(name, strlen(name)))
		say("the name %s: %s", name, strerror(errno));
	mkdir(run, 0755);
	snprintf(leases, sizeof leases, "%s/leases", run);
	mkdir(leases, 0755); // of dhcpcd
	int r = kb_net_dhcpcd(&n, &port, name, &dhcpcd) || kb_net_avahi(name, &avahi) ? -1 : 0;
	r = r ? r : replace(run, avahi_conf, &avahi);
	// What DHCP named may not be asked for any more; what it names next comes by the hook.
	r = r ? r : write_time(run, n.times, n.n_times);
	r = r ? r : replace(run, dhcpcd_conf, &dhcpcd);
	kb_buf_finish(&dhcpcd);
	kb_buf_finish(&avahi);
	if (r == 0)
		say("%s.local, port %s, address %s", name, port.name[0] ? port.name : "none",
			n.is_fixed ? kb_site_address_text(n.address, a) : "by DHCP");
	return r;
}

static const char *variable(const char *name)
{
	const char *v = getenv(name);
	return v ? v : "";
}

// dhcpcd-run-hooks(8): $reason, $interface and what the server said. Only what parses as an address is said or used.
static int hook(const char *settings, const char *run)
{
	static const char *const with_address[] = {"BOUND", "RENEW", "REBIND", "REBOOT", "STATIC", "IPV4LL", "INFORM"};
	struct kb_site_network n;
	uint32_t servers[KB_SITE_TIMES], address = 0;
	char a[KB_SITE_ADDRESS_TEXT];
	const char *reason = variable("reason");
	bool has_address = false;
	for (size_t i = 0; i < sizeof with_address / sizeof *with_address; i++)
		has_address = has_address || strcmp(reason, with_address[i]) == 0;
	if (!has_address) {
		if (strcmp(reason, "EXPIRE") == 0 || strcmp(reason, "NOCARRIER") == 0)
			say("%.15s: %s", variable("interface"), reason[0] == 'E' ? "the address has expired" : "no cable");
		return 0;
	}
	if (kb_site_parse_address(variable("new_ip_address"), &address))
		return 0;
	say("stage address: %.15s %s %s", variable("interface"), kb_site_address_text(address, a),
		strcmp(reason, "STATIC") == 0   ? "as it was set"
		: strcmp(reason, "IPV4LL") == 0 ? "of its own choice: no DHCP server answers"
										: "by DHCP");
	load(settings, &n);
	const uint32_t n_servers = kb_net_servers(variable("new_ntp_servers"), servers, KB_SITE_TIMES);
	return n.n_times || n_servers == 0 ? 0 : write_time(run, servers, n_servers);
}

int main(int argc, char **argv)
{
	const char *settings = KB_NET_SETTINGS, *run = KB_NET_RUN, *slash = strrchr(argv[0], '/');
	const bool is_hook = strcmp(slash ? slash + 1 : argv[0], "kotobako-net-hook") == 0;
	int i = is_hook ? 1 : 2;
	for (; i + 1 < argc; i += 2)
		if (strcmp(argv[i], "--settings") == 0)
			settings = argv[i + 1];
		else if (strcmp(argv[i], "--run") == 0)
			run = argv[i + 1];
		else
			break;
	umask(022);
	if (i == argc && is_hook)
		return hook(settings, run) ? 1 : 0;
	if (i == argc && argc >= 2 && strcmp(argv[1], "apply") == 0)
		return apply(settings, run, strcmp(run, KB_NET_RUN) == 0) ? 1 : 0;
	fprintf(stderr, "usage: kotobako-net apply [--settings FILE] [--run DIR]\n");
	return 2;
}
