/* see network.h */
#include "site/network.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

int kb_site_parse_address(const char *text, uint32_t *ret)
{
	struct in_addr a;
	if (inet_pton(AF_INET, text, &a) != 1)
		return KB_EBAD;
	*ret = ntohl(a.s_addr);
	return 0;
}

int kb_site_parse_subnet(const char *text, uint32_t *ret_address, uint8_t *ret_prefix)
{
	char address[KB_SITE_ADDRESS_TEXT];
	const char *slash = strchr(text, '/');
	const size_t len = slash ? (size_t)(slash - text) : 0;
	unsigned prefix;
	int end = 0;
	if (len == 0 || len >= sizeof address || strspn(slash + 1, "0123456789") != strlen(slash + 1) ||
		sscanf(slash + 1, "%2u%n", &prefix, &end) != 1 || slash[1 + end] || prefix > 32)
		return KB_EBAD;
	memcpy(address, text, len);
	address[len] = 0;
	*ret_prefix = (uint8_t)prefix;
	return kb_site_parse_address(address, ret_address);
}

const char *kb_site_address_text(uint32_t address, char *ret)
{
	snprintf(ret, KB_SITE_ADDRESS_TEXT, "%u.%u.%u.%u", address >> 24, address >> 16 & 255, address >> 8 & 255,
		address & 255);
	return ret;
}

bool kb_site_name_ok(const char *name)
{
	const size_t len = strlen(name);
	return len > 0 && len <= KB_SITE_NAME_MAX && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len &&
		   name[0] != '-' && name[len - 1] != '-';
}

static uint32_t mask_of(uint8_t prefix)
{
	return prefix ? UINT32_MAX << (32 - prefix) : 0;
}

// Not this network, not loopback, not multicast or beyond (RFC 6890).
static bool is_host(uint32_t address)
{
	return address >> 24 != 0 && address >> 24 != 127 && address >> 28 < 14;
}

static int set_address(struct kb_site_network *n, const char *value, struct kb_err *err)
{
	n->is_fixed = strcmp(value, "dhcp") != 0;
	n->address = n->prefix = 0;
	if (n->is_fixed && kb_site_parse_subnet(value, &n->address, &n->prefix))
		return kb_fail(err, KB_EARG, "address %.40s: it wants dhcp or ADDRESS/PREFIX, as 192.0.2.7/24", value);
	return 0;
}

int kb_site_network_set(struct kb_site_network *n, const char *key, const char *value, struct kb_err *err)
{
	if (strcmp(key, "address") == 0)
		return set_address(n, value, err);
	if (strcmp(key, "gateway") == 0)
		return kb_site_parse_address(value, &n->gateway)
				   ? kb_fail(err, KB_EARG, "gateway %.40s: it wants an address, as 192.0.2.1", value)
				   : 0;
	if (strcmp(key, "time") == 0) {
		uint32_t server;
		if (kb_site_parse_address(value, &server) || !is_host(server))
			return kb_fail(err, KB_EARG, "time %.40s: it wants the address of an NTP server", value);
		if (n->n_times == KB_SITE_TIMES)
			return kb_fail(err, KB_EARG, "more than %d time servers", KB_SITE_TIMES);
		n->times[n->n_times++] = server;
		return 0;
	}
	if (strcmp(key, "name") == 0) {
		if (!kb_site_name_ok(value))
			return kb_fail(
				err, KB_EARG, "name %.70s: it wants 1 to %d of a-z, 0-9 and - (inside)", value, KB_SITE_NAME_MAX);
		memcpy(n->name, value, strlen(value) + 1);
		return 0;
	}
	return kb_fail(err, KB_EARG, "%.40s: there is address, gateway, time and name", key);
}

int kb_site_network_check(const struct kb_site_network *n, struct kb_err *err)
{
	char a[KB_SITE_ADDRESS_TEXT], b[KB_SITE_ADDRESS_TEXT];
	if (!n->is_fixed)
		return n->gateway ? kb_fail(err, KB_EARG, "a gateway wants a fixed address; with dhcp the server names it") : 0;
	kb_site_address_text(n->address, a);
	const uint32_t mask = mask_of(n->prefix), host = n->address & ~mask;
	// /31 has no network and broadcast address (RFC 3021); /32 has no neighbours to talk to.
	if (n->prefix < 8 || n->prefix > 31 || !is_host(n->address))
		return kb_fail(err, KB_EARG, "address %s/%u: a machine cannot have it", a, n->prefix);
	if (n->prefix < 31 && (host == 0 || host == ~mask))
		return kb_fail(err, KB_EARG, "address %s/%u is that of a network, not of a machine in it", a, n->prefix);
	if (n->gateway && ((n->gateway ^ n->address) & mask || n->gateway == n->address))
		return kb_fail(err, KB_EARG, "gateway %s is not another machine of %s/%u", kb_site_address_text(n->gateway, b),
			a, n->prefix);
	return 0;
}

// KEY and VALUE of a line, and nothing more on it.
static int set_line(struct kb_site_network *n, char *line, struct kb_err *err)
{
	line[strcspn(line, "#")] = 0;
	char *key = line + strspn(line, " \t\r"), *value = key + strcspn(key, " \t\r");
	if (*key == 0)
		return 0;
	if (*value)
		*value++ = 0;
	value += strspn(value, " \t\r");
	value[strcspn(value, " \t\r")] = 0;
	return kb_site_network_set(n, key, value, err);
}

int kb_site_network_parse(const char *text, size_t len, struct kb_err *err, struct kb_site_network *ret)
{
	char copy[KB_SITE_NETWORK_MAX + 1];
	struct kb_site_network n = {0};
	struct kb_err why = {0};
	if (len > KB_SITE_NETWORK_MAX || memchr(text, 0, len))
		return kb_fail(err, KB_EBAD, "it is not a text of up to %d bytes", KB_SITE_NETWORK_MAX);
	memcpy(copy, text, len);
	copy[len] = 0;
	unsigned number = 0;
	for (char *at = copy; *at;) {
		char *line = at;
		at += strcspn(at, "\n");
		if (*at)
			*at++ = 0;
		number++;
		if (set_line(&n, line, &why))
			return kb_fail(err, KB_EBAD, "line %u: %s", number, why.text);
	}
	if (kb_site_network_check(&n, &why))
		return kb_fail(err, KB_EBAD, "%s", why.text);
	*ret = n;
	return 0;
}

int kb_site_network_format(const struct kb_site_network *n, struct kb_buf *ret)
{
	char a[KB_SITE_ADDRESS_TEXT];
	int r = n->is_fixed ? kb_buf_printf(ret, "address %s/%u\n", kb_site_address_text(n->address, a), n->prefix)
						: kb_buf_puts(ret, "address dhcp\n");
	if (r == 0 && n->gateway)
		r = kb_buf_printf(ret, "gateway %s\n", kb_site_address_text(n->gateway, a));
	for (uint32_t i = 0; r == 0 && i < n->n_times; i++)
		r = kb_buf_printf(ret, "time %s\n", kb_site_address_text(n->times[i], a));
	if (r == 0 && n->name[0])
		r = kb_buf_printf(ret, "name %s\n", n->name);
	return r;
}
