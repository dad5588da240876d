// kotobako-net: the box's network, as root. It turns what the administrator set (runtime/site/network.h) into the
// configurations of Debian's programs, which the supervisor starts (again) when these files change:
//   RUN/dhcpcd.conf    dhcpcd: addresses, by DHCP or fixed
//   RUN/avahi.conf     avahi-daemon: NAME.local by mDNS
//   RUN/time.conf      systemd-timesyncd: the clock, where a server is known; else the file is not there
// As kotobako-net-hook it is what dhcpcd runs when an address comes or goes: it says so on the console and takes the
// time servers that DHCP names. What DHCP says is anybody's word: addresses are parsed, nothing else of it is used. In
// them is only what was parsed: no text of the settings or of DHCP gets into a configuration as it came.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "site/network.h"

#define KB_NET_RUN "/run/net"
#define KB_NET_SETTINGS "/state/network"
#define KB_NET_HOOK "/usr/bin/kotobako-net-hook"

enum { KB_NET_PORT_MAX = 16 }; // IFNAMSIZ

// The first port with a cable's socket, by its name, and its hardware address; port "" where there is none.
struct kb_net_port {
	char name[KB_NET_PORT_MAX];
	uint8_t mac[6];
};
// sys: "/sys/class/net"
void kb_net_find_port(const char *sys, struct kb_net_port *ret);

// "kotobako-" and half of the hardware address, where n sets no name.
void kb_net_name(const struct kb_site_network *n, const struct kb_net_port *port, char ret[KB_SITE_NAME_MAX + 1]);

// The texts of the configurations, appended. KB_ENOMEM.
KB_MUST_CHECK int kb_net_dhcpcd(
	const struct kb_site_network *n, const struct kb_net_port *port, const char *name, struct kb_buf *ret);
KB_MUST_CHECK int kb_net_avahi(const char *name, struct kb_buf *ret);
KB_MUST_CHECK int kb_net_time(const uint32_t *servers, uint32_t n, struct kb_buf *ret);

// Addresses that stand in text between blanks, at most n_max; what is none is passed over. (dhcpcd-run-hooks(8):
// $new_ntp_servers)
uint32_t kb_net_servers(const char *text, uint32_t *ret, uint32_t n_max);
