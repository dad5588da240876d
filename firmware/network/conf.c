// What goes into the configurations. See net.h.
#include "firmware/network/net.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool read_small(const char *path, char *ret, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);
	if (fd >= 0)
		close(fd);
	ret[n > 0 ? n : 0] = 0;
	return n > 0;
}

// Ethernet (ARPHRD_ETHER, 1) with a device behind it: not loopback, not a bridge. Names as the kernel gives them.
static bool is_port(const char *sys, const char *name, uint8_t mac[6])
{
	char path[300], text[64];
	snprintf(path, sizeof path, "%s/%.64s/device", sys, name);
	if (access(path, F_OK) || strlen(name) >= KB_NET_PORT_MAX)
		return false;
	snprintf(path, sizeof path, "%s/%.64s/type", sys, name);
	if (!read_small(path, text, sizeof text) || strcmp(text, "1\n") != 0)
		return false;
	snprintf(path, sizeof path, "%s/%.64s/address", sys, name);
	return read_small(path, text, sizeof text) && sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &mac[0], &mac[1],
													  &mac[2], &mac[3], &mac[4], &mac[5]) == 6;
}

void kb_net_find_port(const char *sys, struct kb_net_port *ret)
{
	uint8_t mac[6];
	*ret = (struct kb_net_port){0};
	DIR *d = opendir(sys);
	for (struct dirent *e; d && (e = readdir(d));)
		if (e->d_name[0] != '.' && is_port(sys, e->d_name, mac) &&
			(!ret->name[0] || strcmp(e->d_name, ret->name) < 0)) {
			snprintf(ret->name, sizeof ret->name, "%.15s", e->d_name);
			memcpy(ret->mac, mac, sizeof mac);
		}
	if (d)
		closedir(d);
}

void kb_net_name(const struct kb_site_network *n, const struct kb_net_port *port, char ret[KB_SITE_NAME_MAX + 1])
{
	const uint8_t *m = port->mac;
	if (n->name[0])
		memcpy(ret, n->name, sizeof n->name);
	else
		snprintf(ret, KB_SITE_NAME_MAX + 1, "kotobako-%02x%02x%02x", m[3], m[4], m[5]);
}

int kb_net_dhcpcd(const struct kb_site_network *n, const struct kb_net_port *port, const char *name, struct kb_buf *ret)
{
	char a[KB_SITE_ADDRESS_TEXT];
	int r = kb_buf_printf(ret,
		"# by kotobako-net\nscript " KB_NET_HOOK "\nallowinterfaces eth* en*\nipv4only\nnodelay\nhostname %s\n"
		"option ntp_servers\nrequire dhcp_server_identifier\n",
		name);
	if (r || !n->is_fixed || !port->name[0])
		return r;
	r = kb_buf_printf(
		ret, "interface %s\nstatic ip_address=%s/%u\n", port->name, kb_site_address_text(n->address, a), n->prefix);
	if (r == 0 && n->gateway)
		r = kb_buf_printf(ret, "static routers=%s\n", kb_site_address_text(n->gateway, a));
	return r;
}

int kb_net_avahi(const char *name, struct kb_buf *ret)
{
	return kb_buf_printf(ret,
		"# by kotobako-net\n[server]\nhost-name=%s\nuse-ipv4=yes\nuse-ipv6=no\nenable-dbus=no\ndeny-interfaces=lo\n"
		"[wide-area]\nenable-wide-area=no\n"
		"[publish]\npublish-hinfo=no\npublish-workstation=no\ndisable-user-service-publishing=yes\n",
		name);
}

int kb_net_time(const uint32_t *servers, uint32_t n, struct kb_buf *ret)
{
	char a[KB_SITE_ADDRESS_TEXT];
	int r = kb_buf_puts(ret, "# by kotobako-net\n[Time]\nFallbackNTP=\nNTP=");
	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = kb_buf_printf(ret, "%s%s", i ? " " : "", kb_site_address_text(servers[i], a));
	return r ? r : kb_buf_puts(ret, "\n");
}

uint32_t kb_net_servers(const char *text, uint32_t *ret, uint32_t n_max)
{
	uint32_t n = 0;
	while (*text && n < n_max) {
		char word[KB_SITE_ADDRESS_TEXT];
		text += strspn(text, " ");
		const size_t len = strcspn(text, " ");
		if (len > 0 && len < sizeof word) {
			memcpy(word, text, len);
			word[len] = 0;
			n += kb_site_parse_address(word, &ret[n]) == 0;
		}
		text += len;
	}
	return n;
}
