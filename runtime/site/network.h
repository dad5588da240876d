// What an administrator may set about a box's network: a text of rows KEY VALUE, one a line, # begins a comment.
//   address dhcp | ADDRESS/PREFIX   by DHCP (and, where nobody answers, an address of 169.254.0.0/16), or fixed
//   gateway ADDRESS                 of a fixed address; without it the box answers its own network only
//   time ADDRESS                    an NTP server, up to KB_SITE_TIMES rows; with DHCP its answer may name others
//   name NAME                       NAME.local by mDNS, and in the server's certificate; else one is made from the
//   hardware
// IPv4, host byte order. Pure functions; a program that runs as root reads what a service's user wrote.
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

enum {
	KB_SITE_TIMES = 4,          // more than NTP needs to outvote a wrong one (RFC 5905 wants at least four for that)
	KB_SITE_NAME_MAX = 63,      // a label of a host name (RFC 1035, 2.3.4)
	KB_SITE_NETWORK_MAX = 1024, // bytes of the text; all rows with long values are half of it
	KB_SITE_ADDRESS_TEXT = 20,  // "255.255.255.255/32" and NUL
};

struct kb_site_network {
	bool is_fixed;             // else by DHCP
	uint32_t address, gateway; // gateway 0: none
	uint8_t prefix;
	uint32_t times[KB_SITE_TIMES], n_times;
	char name[KB_SITE_NAME_MAX + 1]; // "": none is set
};

// One row's value into n. KB_EARG for what is not one, or an unknown key.
KB_MUST_CHECK int kb_site_network_set(
	struct kb_site_network *n, const char *key, const char *value, struct kb_err *err);
// Whether the rows fit together: a gateway inside of the network, an address that a machine can have.
KB_MUST_CHECK int kb_site_network_check(const struct kb_site_network *n, struct kb_err *err);
// A whole text, checked. KB_EBAD says which line. An empty text is DHCP.
KB_MUST_CHECK int kb_site_network_parse(const char *text, size_t len, struct kb_err *err, struct kb_site_network *ret);
// The text of it, appended.
KB_MUST_CHECK int kb_site_network_format(const struct kb_site_network *n, struct kb_buf *ret);

// "a.b.c.d" in digits only, or "a.b.c.d/n". KB_EBAD without a text.
KB_MUST_CHECK int kb_site_parse_address(const char *text, uint32_t *ret);
KB_MUST_CHECK int kb_site_parse_subnet(const char *text, uint32_t *ret_address, uint8_t *ret_prefix);
// "a.b.c.d"; ret holds at least KB_SITE_ADDRESS_TEXT bytes.
const char *kb_site_address_text(uint32_t address, char *ret);
// 1 to KB_SITE_NAME_MAX of a-z, 0-9 and - (inside only).
bool kb_site_name_ok(const char *name);
