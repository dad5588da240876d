// By what names and addresses clients come to this box. See daemon.h.
#include "base/clock.h"
#include "base/log.h"
#include "firmware/api/daemon.h"
#include "firmware/api/json.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
	LOOK_MS = 5000,              // between looks at the machine's addresses: somebody waits for the box to be there
	RENEW_MS = 24 * 3600 * 1000, // between looks at the certificate's end
	ADDRESSES_MAX = 16,          // of this machine; its certificate has room for them beside the names
};

static void add(struct kb_names *l, const char *name)
{
	if (l->n == KB_X509_SERVER_NAMES_MAX || !kb_x509_server_name_ok(name))
		return;
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->text[i], name) == 0)
			return;
	snprintf(l->text[l->n++], sizeof l->text[0], "%s", name);
}

static bool is_any(const char *host)
{
	return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

// Of interfaces that lead somewhere. IPv6's link-local ones mean nothing without the interface, which a name cannot
// say.
static void add_interfaces(struct kb_names *l)
{
	uv_interface_address_t *all;
	int n_all;
	if (uv_interface_addresses(&all, &n_all))
		return;
	for (int i = 0, n = 0; i < n_all && n < ADDRESSES_MAX; i++) {
		char text[64] = "";
		const bool is_6 = all[i].address.address4.sin_family == AF_INET6;
		if (all[i].is_internal || (is_6 && IN6_IS_ADDR_LINKLOCAL(&all[i].address.address6.sin6_addr)))
			continue;
		if ((is_6 ? uv_ip6_name(&all[i].address.address6, text, sizeof text)
				  : uv_ip4_name(&all[i].address.address4, text, sizeof text)) == 0) {
			add(l, text);
			n++;
		}
	}
	uv_free_interface_addresses(all, n_all);
}

// A machine's name that no certificate can carry is left out; a --name like that was refused.
void kb_names_collect(const struct kb_daemon *d, struct kb_names *ret)
{
	char host[250] = "", local[256];
	*ret = (struct kb_names){0};
	add(ret, "localhost");
	add(ret, "127.0.0.1");
	add(ret, "::1");
	if (gethostname(host, sizeof host - 1) == 0 && host[0]) {
		add(ret, host);
		snprintf(local, sizeof local, "%s.local", host); // by mDNS
		if (!strchr(host, '.') && strcmp(host, "localhost") != 0)
			add(ret, local);
	}
	for (uint32_t i = 0; i < d->o.n_names; i++)
		add(ret, d->o.names[i]);
	ret->first_address = ret->n;
	const struct kb_address *listening[] = {&d->o.listen, &d->o.bearer};
	for (size_t i = 0; i < 2; i++)
		if (!is_any(listening[i]->host))
			add(ret, listening[i]->host);
	if (is_any(d->o.listen.host) || (d->o.bearer.port && is_any(d->o.bearer.host)))
		add_interfaces(ret);
}

void kb_print_addresses(const struct kb_daemon *d, struct kb_json *j)
{
	const bool listens_on_all = is_any(d->o.listen.host);
	kb_json_raw(j, "\"addresses\":[");
	if (!listens_on_all)
		kb_json_cstr(j, d->o.listen.host);
	for (size_t i = d->names.first_address; i < d->names.n && listens_on_all; i++) {
		kb_json_raw(j, i > d->names.first_address ? "," : "");
		kb_json_cstr(j, d->names.text[i]);
	}
	kb_json_raw(j, "]");
}

static bool are_equal(const struct kb_names *a, const struct kb_names *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->text[i], b->text[i]) != 0)
			return false;
	return true;
}

void kb_names_tick(struct kb_daemon *d, uint64_t now)
{
	struct kb_names names;
	struct kb_err err;
	if (d->is_stopping || now - d->names_ms < LOOK_MS)
		return;
	const bool is_day_over = now / RENEW_MS != d->names_ms / RENEW_MS;
	d->names_ms = now;
	kb_names_collect(d, &names);
	if (are_equal(&names, &d->names) && !is_day_over)
		return;
	for (size_t i = names.first_address; i < names.n && !is_day_over; i++)
		kb_info("net", "this box is at %s port %u", names.text[i], d->o.listen.port);
	if (kb_daemon_open_tls(d, &err))
		kb_warn("net", "the certificate for these names: %s; the one before stays", err.text);
}
