// The blocking client against a scripted server in a child process: over a unix socket, and over TLS.
#include "base/clock.h"
#include "harness/kt.h"
#include "net/http_client.h"
#include "net/x509.h"
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[200];
static pid_t server;

static int listen_unix(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const char *dir = getenv("KB_TMP");
	snprintf(path, sizeof path, "%.80s/s", dir ? dir : ".");
	unlink(path);
	memcpy(a.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

// Reads one request's head (tests send small bodies with it) and writes pieces, pausing at each "\x01"; "\x02": close.
static bool answer(int fd, const char *script)
{
	char request[4096];
	ssize_t n = read(fd, request, sizeof request);
	if (n <= 0)
		return false;
	for (const char *p = script; *p;) {
		size_t len = strcspn(p, "\x01\x02");
		if (len && send(fd, p, len, MSG_NOSIGNAL) != (ssize_t)len)
			return false;
		p += len;
		if (*p == '\x02')
			return false;
		if (*p == '\x01') {
			usleep(50000);
			p++;
		}
	}
	return true;
}

// Serves connections one by one: request i of all gets script i; a script that ends with "\x02" closes.
static void serve(const char *const *scripts)
{
	int fd = listen_unix();
	server = fork();
	assert_true(server >= 0);
	if (server > 0) {
		close(fd);
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL); // a failed test leaves nobody behind
	while (*scripts) {
		int c = accept(fd, NULL, NULL);
		while (*scripts && answer(c, *scripts))
			scripts++;
		if (*scripts && strchr(*scripts, '\x02'))
			scripts++;
		close(c);
	}
	pause();
	_exit(0);
}

static void stop(void)
{
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
}

static struct kb_http_client *client(void)
{
	struct kb_http_client *c;
	struct kb_err err;
	assert_int_equal(kb_http_client_create(&(struct kb_http_target){.unix_path = path}, &c, &err), 0);
	return c;
}

static int collect(void *ctx, const char *data, size_t len)
{
	struct kb_buf *b = ctx;
	assert_int_equal(kb_buf_printf(b, "[%.*s]", (int)len, data), 0);
	return memchr(data, '!', len) ? 42 : 0;
}

#define OK "HTTP/1.1 200 OK\r\n"

static void whole_answers_on_one_connection(void **state)
{
	(void)state;
	serve((const char *[]){OK "Content-Length: 5\r\nx-request-id: r1\r\n\r\nhello",
		"HTTP/1.1 100 Continue\r\n\r\n\x01HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n\x01{}",
		OK "Content-Length: 3\r\nConnection: close\r\n\r\nbye\x02", OK "\r\nuntil the end\x02", NULL});
	struct kb_http_client *c = client();
	struct kb_http_reply r;
	struct kb_err err;
	struct kb_http_call get = {.method = "GET", .path = "/a"},
						post = {.method = "POST", .path = "/b", .body = "{}", .body_len = 2};
	assert_int_equal(kb_http_client_call(c, &get, &r, &err), 0);
	assert_int_equal(r.status, 200);
	assert_string_equal(r.request_id, "r1");
	assert_int_equal(r.retry_after_s, -1);
	assert_string_equal(kb_buf_cstr(&r.body), "hello");
	kb_buf_finish(&r.body);
	assert_int_equal(kb_http_client_call(c, &post, &r, &err), 0);
	assert_int_equal(r.status, 503);
	assert_int_equal(r.retry_after_s, 7);
	assert_string_equal(kb_buf_cstr(&r.body), "{}");
	kb_buf_finish(&r.body);
	for (int i = 0; i < 2; i++) { // each on a new connection
		assert_int_equal(kb_http_client_call(c, &get, &r, &err), 0);
		assert_string_equal(kb_buf_cstr(&r.body), i ? "until the end" : "bye");
		kb_buf_finish(&r.body);
	}
	kb_http_client_destroy(c);
	stop();
}

static void bodies_stream_and_stop(void **state)
{
	(void)state;
	serve((const char *[]){OK "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n\x01"
							  "3\r\ncde\r\n\x01"
							  "0\r\n\r\n",
		"HTTP/1.1 400 Bad\r\nContent-Length: 3\r\n\r\nwhy",
		OK "Transfer-Encoding: chunked\r\n\r\n1\r\n!\r\n\x01"
		   "1\r\nx\r\n\x02",
		NULL});
	struct kb_http_client *c = client();
	struct kb_http_reply r;
	struct kb_err err;
	struct kb_buf got = {0};
	struct kb_http_call call = {.method = "GET", .path = "/", .on_body = collect, .ctx = &got};
	assert_int_equal(kb_http_client_call(c, &call, &r, &err), 0);
	assert_string_equal(kb_buf_cstr(&got), "[ab][cde]");
	assert_int_equal(r.body.len, 0);
	assert_int_equal(kb_http_client_call(c, &call, &r, &err), 0);
	assert_int_equal(r.status, 400);
	assert_string_equal(kb_buf_cstr(&r.body), "why"); // an error's body is not the stream
	kb_buf_finish(&r.body);
	assert_int_equal(kb_http_client_call(c, &call, &r, &err), 42);
	kb_buf_finish(&r.body);
	kb_buf_finish(&got);
	kb_http_client_destroy(c);
	stop();
}

static void a_closed_kept_connection_is_opened_anew(void **state)
{
	(void)state;
	serve((const char *[]){OK "Content-Length: 1\r\n\r\na", "\x02", OK "Content-Length: 1\r\n\r\nb", NULL});
	struct kb_http_client *c = client();
	struct kb_http_reply r;
	struct kb_err err;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(kb_http_client_call(c, &(struct kb_http_call){.method = "GET", .path = "/"}, &r, &err), 0);
		assert_string_equal(kb_buf_cstr(&r.body), i ? "b" : "a");
		kb_buf_finish(&r.body);
	}
	kb_http_client_destroy(c);
	stop();
}

static volatile sig_atomic_t interrupted;

static void on_alarm(int number)
{
	(void)number;
	interrupted = 1;
}

static void bad_answers_and_waiting(void **state)
{
	(void)state;
	static const char *const cut[] = {OK "Content-Length: 9\r\n\r\nshort\x02",
		OK "Transfer-Encoding: chunked\r\n\r\n5\r\nab\x02", "HTT\x02", "\x02", NULL};
	struct kb_http_reply r;
	struct kb_err err;
	struct kb_http_call call = {.method = "GET", .path = "/", .idle_ms = 300};
	serve(cut);
	for (int i = 0; cut[i]; i++) {
		struct kb_http_client *c = client();
		assert_int_equal(kb_http_client_call(c, &call, &r, &err), KB_ECLOSED);
		kb_buf_finish(&r.body);
		kb_http_client_destroy(c);
	}
	stop();
	serve((const char *[]){"nonsense\r\n\r\n\x02", OK "Content-Length: 9\r\n\r\nslow",
		OK "Content-Length: 9\r\n\r\nslow", "unused", NULL});
	struct kb_http_client *c = client();
	assert_int_equal(kb_http_client_call(c, &call, &r, &err), KB_EBAD);
	kb_buf_finish(&r.body);
	uint64_t begun = kb_clock_ms();
	assert_int_equal(kb_http_client_call(c, &call, &r, &err), KB_ETIMEOUT);
	assert_in_range(kb_clock_ms() - begun, 250, 2000);
	kb_buf_finish(&r.body);
	signal(SIGALRM, on_alarm);
	call.interrupt = &interrupted;
	call.idle_ms = 20000;
	ualarm(150000, 0);
	begun = kb_clock_ms();
	assert_int_equal(kb_http_client_call(c, &call, &r, &err), KB_ECANCELLED);
	assert_in_range(kb_clock_ms() - begun, 100, 2000);
	kb_buf_finish(&r.body);
	kb_http_client_destroy(c);
	stop();
	unlink(path);
	interrupted = 0;
	c = client();
	assert_int_equal(kb_http_client_call(c, &call, &r, &err), KB_ENOTFOUND);
	assert_non_null(strstr(err.text, "kotobakod"));
	kb_http_client_destroy(c);
}

// A TLS server for one connection, by our own interface, in a process of its own (one thread each).
static void tls_child(int fd, const struct kb_tls_options *o, const char *reply)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	struct kb_tls_config *config;
	struct kb_tls *t;
	struct kb_err err;
	uint8_t data[16384];
	size_t got;
	int c = accept(fd, NULL, NULL), h = KB_EPARTIAL;
	if (kb_tls_config_create(o, &config, &err) || kb_tls_create(config, NULL, &t, &err))
		_exit(1);
	bool is_answered = false;
	for (;;) {
		if (h == KB_EPARTIAL)
			h = kb_tls_handshake(t, &err);
		if (h == 0 && !is_answered && kb_tls_read(t, data, sizeof data, &got, &err) == 0) {
			if (kb_tls_write(t, reply, strlen(reply), &err))
				_exit(1);
			is_answered = true;
		}
		struct kb_buf *out = kb_tls_output(t);
		if (out->len && send(c, out->data, out->len, MSG_NOSIGNAL) < 0)
			_exit(1);
		out->len = 0;
		if (h != 0 && h != KB_EPARTIAL)
			break;
		ssize_t n = read(c, data, sizeof data);
		if (n <= 0 || kb_tls_feed(t, data, (size_t)n))
			break;
	}
	close(c);
	_exit(0);
}

#define TEXT(b) ((const char *)(b).data)

static void tls_is_checked_on_both_sides(void **state)
{
	(void)state;
	struct kb_buf ca_key = {0}, ca = {0}, key = {0}, cert = {0}, client_key = {0}, csr = {0}, client_cert = {0};
	struct kb_err err;
	uint8_t fingerprint[32];
	char serial[33];
	static const char *const names[] = {"127.0.0.1"};
	assert_int_equal(kb_tls_init(&err), 0);
	assert_int_equal(kb_x509_make_ca("test", &ca_key, &ca, &err), 0);
	struct kb_x509_ca authority = {TEXT(ca_key), TEXT(ca)};
	assert_int_equal(kb_x509_make_server(&authority, names, 1, &key, &cert, &err), 0);
	assert_int_equal(kb_x509_make_csr("c", &client_key, &csr, &err), 0);
	assert_int_equal(kb_x509_issue_client(&authority, TEXT(csr), "c", &client_cert, fingerprint, serial, &err), 0);
	const struct {
		const char *host;
		bool with_cert;
		int expected;
	} rows[] = {{"127.0.0.1", true, 0}, {"127.0.0.1", false, KB_EDENIED}, {"localhost", true, KB_EDENIED}};
	for (size_t i = 0; i < 3; i++) {
		struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		socklen_t len = sizeof a;
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		assert_true(bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 1) == 0);
		assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
		struct kb_tls_options o = {
			.role = KB_TLS_SERVER_MUTUAL, .ca_pem = TEXT(ca), .cert_pem = TEXT(cert), .key_pem = TEXT(key)};
		server = fork();
		if (server == 0)
			tls_child(fd, &o, OK "Content-Length: 6\r\n\r\nsecret");
		close(fd);
		struct kb_http_client *c;
		struct kb_http_reply r;
		struct kb_http_target target = {.host = rows[i].host,
			.port = ntohs(a.sin_port),
			.ca_pem = TEXT(ca),
			.cert_pem = rows[i].with_cert ? TEXT(client_cert) : NULL,
			.key_pem = rows[i].with_cert ? TEXT(client_key) : NULL};
		assert_int_equal(kb_http_client_create(&target, &c, &err), 0);
		int result = kb_http_client_call(c, &(struct kb_http_call){.method = "GET", .path = "/"}, &r, &err);
		if (result != rows[i].expected)
			fail_msg("%zu: %d %s", i, result, result ? err.text : "");
		if (result == 0)
			assert_string_equal(kb_buf_cstr(&r.body), "secret");
		kb_buf_finish(&r.body);
		kb_http_client_destroy(c);
		stop();
	}
	struct kb_buf *all[] = {&ca_key, &ca, &key, &cert, &client_key, &csr, &client_cert};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		kb_buf_finish(all[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_answers_on_one_connection),
		cmocka_unit_test(bodies_stream_and_stop),
		cmocka_unit_test(a_closed_kept_connection_is_opened_anew),
		cmocka_unit_test(bad_answers_and_waiting),
		cmocka_unit_test(tls_is_checked_on_both_sides),
	};
	return cmocka_run_group_tests_name("net/http_client", tests, NULL, NULL);
}
