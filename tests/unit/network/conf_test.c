#include "firmware/network/net.h"
#include "harness/kt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct kb_net_port eth0 = {"eth0", {0x52, 0x54, 0, 0x12, 0x34, 0xff}};

static void put(const char *dir, const char *name, const char *text)
{
	char path[300];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void make_port(const char *sys, const char *name, const char *type, const char *mac, bool has_device)
{
	char dir[200], device[220];
	snprintf(dir, sizeof dir, "%s/%s", sys, name);
	snprintf(device, sizeof device, "%s/device", dir);
	assert_int_equal(mkdir(dir, 0755), 0);
	put(dir, "type", type);
	put(dir, "address", mac);
	if (has_device)
		assert_int_equal(mkdir(device, 0755), 0);
}

static void finds_the_first_port(void **state)
{
	(void)state;
	char sys[64] = "/tmp/kb-net-XXXXXX", command[100];
	struct kb_net_port port;
	assert_non_null(mkdtemp(sys));
	kb_net_find_port(sys, &port);
	assert_string_equal(port.name, "");
	make_port(sys, "lo", "772\n", "00:00:00:00:00:00\n", false);
	make_port(sys, "br0", "1\n", "02:00:00:00:00:09\n", false);
	make_port(sys, "eth1", "1\n", "02:00:00:00:00:01\n", true);
	make_port(sys, "eth0", "1\n", "52:54:00:12:34:ff\n", true);
	make_port(sys, "can0", "280\n", "02:00:00:00:00:02\n", true);
	kb_net_find_port(sys, &port);
	assert_string_equal(port.name, "eth0");
	assert_memory_equal(port.mac, eth0.mac, 6);
	kb_net_find_port("/nowhere", &port);
	assert_string_equal(port.name, "");
	snprintf(command, sizeof command, "rm -r %s", sys);
	assert_int_equal(system(command), 0);
}

static void has_a_name(void **state)
{
	(void)state;
	char name[KB_SITE_NAME_MAX + 1];
	struct kb_site_network n = {0};
	kb_net_name(&n, &eth0, name);
	assert_string_equal(name, "kotobako-1234ff");
	snprintf(n.name, sizeof n.name, "branch-7");
	kb_net_name(&n, &eth0, name);
	assert_string_equal(name, "branch-7");
}

static void writes_what_is_set(void **state)
{
	(void)state;
	struct kb_site_network n = {0};
	struct kb_buf b = {0};
	assert_int_equal(kb_net_dhcpcd(&n, &eth0, "box", &b), 0);
	assert_non_null(strstr(kb_buf_cstr(&b), "\nhostname box\n"));
	assert_non_null(strstr(kb_buf_cstr(&b), "\nscript /usr/bin/kotobako-net-hook\n"));
	assert_null(strstr(kb_buf_cstr(&b), "static"));
	b.len = 0;
	n = (struct kb_site_network){.is_fixed = true, .address = 0xc0000207, .prefix = 24, .gateway = 0xc0000201};
	assert_int_equal(kb_net_dhcpcd(&n, &eth0, "box", &b), 0);
	assert_non_null(
		strstr(kb_buf_cstr(&b), "\ninterface eth0\nstatic ip_address=192.0.2.7/24\nstatic routers=192.0.2.1\n"));
	b.len = 0;
	n.gateway = 0;
	assert_int_equal(kb_net_dhcpcd(&n, &eth0, "box", &b), 0);
	assert_null(strstr(kb_buf_cstr(&b), "routers"));
	b.len = 0;
	assert_int_equal(kb_net_avahi("box", &b), 0);
	assert_non_null(strstr(kb_buf_cstr(&b), "\nhost-name=box\n"));
	b.len = 0;
	assert_int_equal(kb_net_time((const uint32_t[]){0xc0000201, 0xc0000202}, 2, &b), 0);
	assert_non_null(strstr(kb_buf_cstr(&b), "\nNTP=192.0.2.1 192.0.2.2\n"));
	kb_buf_finish(&b);
}

// What a DHCP server says is put into an environment variable as it came.
static void takes_addresses_only(void **state)
{
	(void)state;
	uint32_t a[3];
	assert_int_equal(kb_net_servers("", a, 3), 0);
	assert_int_equal(kb_net_servers("192.0.2.1 192.0.2.2", a, 3), 2);
	assert_int_equal(a[1], 0xc0000202);
	assert_int_equal(kb_net_servers("  192.0.2.1\n[Time] $(reboot) 192.0.2.256 192.0.2.9 ", a, 3), 1);
	assert_int_equal(a[0], 0xc0000209);
	assert_int_equal(kb_net_servers("192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4", a, 3), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_the_first_port),
		cmocka_unit_test(has_a_name),
		cmocka_unit_test(writes_what_is_set),
		cmocka_unit_test(takes_addresses_only),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
