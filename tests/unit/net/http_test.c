// The HTTP parser: RFC 9112 messages whole and in every split, refusals, limits; writers read back by the parser.
#include "harness/kt.h"
#include "net/http.h"
#include "net/http_client.h"
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

// Feeds text in pieces of step bytes, each copied to end at an unreadable page, so that an over-read faults.
static int feed(struct kb_http *h, const char *text, size_t len, size_t step, size_t *ret_used)
{
	static uint8_t *page;
	size_t size = (size_t)sysconf(_SC_PAGESIZE) * 16;
	if (!page) {
		page = mmap(NULL, size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_true(page != MAP_FAILED);
		assert_int_equal(mprotect(page + size, 4096, PROT_NONE), 0);
	}
	size_t at = 0;
	*ret_used = 0;
	while (at < len && !h->is_done) {
		size_t n = len - at < step ? len - at : step, used = 0;
		assert_in_range(n, 1, size);
		memcpy(page + size - n, text + at, n);
		int r = kb_http_feed(h, page + size - n, n, &used, NULL);
		if (r)
			return r;
		at += used;
		*ret_used = at;
	}
	return 0;
}

static const char post[] =
	"POST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: box\r\nX-Empty:\r\nContent-TYPE:  application/json \r\n"
	"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;a=b\r\n, world\r\n0\r\nX-Trailer: t\r\n\r\n";

static void assert_slice(struct kb_str s, const char *text)
{
	assert_int_equal(s.len, strlen(text));
	assert_memory_equal(s.data, text, s.len);
}

static void reads_in_every_split(void **state)
{
	(void)state;
	size_t len = sizeof post - 1, used;
	for (size_t step = 1; step <= len; step++) {
		struct kb_http h;
		struct kb_str v;
		kb_http_init(&h, true, 100);
		assert_int_equal(feed(&h, post, len, step, &used), 0);
		assert_true(h.is_done && h.is_keep_alive);
		assert_int_equal(used, len);
		assert_string_equal(kb_http_method(&h), "POST");
		assert_slice(kb_http_path(&h), "/v1/chat/completions");
		assert_true(kb_http_header(&h, "content-type", &v));
		assert_slice(v, "application/json");
		assert_true(kb_http_header(&h, "x-empty", &v));
		assert_int_equal(v.len, 0);
		assert_false(kb_http_header(&h, "x-trailer", &v)); // dropped, not merged
		assert_int_equal(h.n_headers, 4);
		assert_int_equal(h.body.len, 12);
		assert_memory_equal(h.body.data, "hello, world", 12);
		kb_http_finish(&h);
	}
}

static void no_prefix_is_a_message(void **state)
{
	(void)state;
	size_t used;
	for (size_t n = 1; n < sizeof post - 1; n++) {
		struct kb_http h;
		kb_http_init(&h, true, 100);
		assert_int_equal(feed(&h, post, n, n, &used), 0);
		assert_false(h.is_done);
		assert_int_equal(kb_http_feed_end(&h, NULL), KB_ECLOSED);
		kb_http_finish(&h);
	}
}

static void pipelined_requests_come_one_by_one(void **state)
{
	(void)state;
	char text[512];
	size_t used, at = 0, len;
	struct kb_http h;
	len = (size_t)snprintf(text, sizeof text, "%s%s",
		"GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
		"GET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	kb_http_init(&h, true, 100);
	for (const char *path = "abc"; *path; path++) {
		char expected[3] = {'/', *path, 0};
		assert_int_equal(feed(&h, text + at, len - at, 1000, &used), 0);
		assert_true(h.is_done);
		assert_slice(kb_http_path(&h), expected);
		assert_int_equal(h.body.len, *path == 'b' ? 2 : 0);
		assert_int_equal(h.is_keep_alive, *path != 'c');
		at += used;
		kb_http_next(&h);
	}
	assert_int_equal(at, len);
	kb_http_finish(&h);
}

static void refuses(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int status;
	} rows[] = {
		{"GET / HTTP/1.1\r\n\r\n", 400},                       // no Host
		{"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400}, // two
		{"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505}, {"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"FOO / HTTP/1.1\r\nHost: a\r\n\r\n", 400}, {"GET / HTTP/1.1\nHost: a\n\n", 400}, // bare line feeds
		{"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},                                      // blank before the colon
		{"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400},                                 // folded
		{"GET / HTTP/1.1\r\nHost: a\x01\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400}, // smuggling
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413}, // before the body comes
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\nContent-Length: 1\r\n\r\n", 417},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n", 400},
		{"\x16\x03\x01\x02", 400}, // a TLS hello sent to a plain port
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		for (size_t step = 1; step < 200; step += 198) {
			struct kb_http h;
			size_t used;
			kb_http_init(&h, true, 100);
			if (feed(&h, rows[i].text, strlen(rows[i].text), step, &used) == 0)
				fail_msg("taken: %s", rows[i].text);
			if (h.failed_status != rows[i].status)
				fail_msg("%d for: %s", h.failed_status, rows[i].text);
			assert_true(kb_http_feed(&h, "x", 1, &used, NULL) != 0); // and it stays so
			kb_http_finish(&h);
		}
	}
}

// What repeats until a limit is passed, and the status then.
static int flood(const char *head, const char *again, int times)
{
	struct kb_http h;
	size_t used;
	kb_http_init(&h, true, 1000);
	int r = feed(&h, head, strlen(head), 1000, &used);
	for (int i = 0; r == 0 && i < times; i++)
		r = feed(&h, again, strlen(again), 1000, &used);
	int status = r ? h.failed_status : 0;
	kb_http_finish(&h);
	return status;
}

static void limits_hold(void **state)
{
	(void)state;
	char tens[101], blanks[101];
	memset(tens, 'a', 100);
	memset(blanks, ' ', 100);
	tens[100] = blanks[100] = 0;
	assert_int_equal(flood("GET /", tens, 30), 414);
	assert_int_equal(flood("GET /", tens, 20), 0);
	assert_int_equal(flood("GET / HTTP/1.1\r\nA: ", tens, 400), 431);
	assert_int_equal(flood("GET / HTTP/1.1\r\nA: ", blanks, 400), 431);
	assert_int_equal(flood("GET / HTTP/1.1\r\nA", tens, 400), 431);
	assert_int_equal(flood("GET / HTTP/1.1\r\n", "A: b\r\n", 65), 431);
	assert_int_equal(flood("GET / HTTP/1.1\r\n", "A: b\r\n", 64), 0);
	assert_int_equal(flood("", "\r\n", 20000), 431);
#define CHUNKED "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	assert_int_equal(flood(CHUNKED, "5\r\nhello\r\n", 201), 413);
	assert_int_equal(flood(CHUNKED, "5\r\nhello\r\n", 200), 0);
	assert_int_equal(flood(CHUNKED, "1;extension=something\r\nx\r\n", 100), 413);
	assert_int_equal(flood(CHUNKED "0\r\n", "Trailer-Field: more\r\n", 100), 413);
}

static void expects_and_upgrades(void **state)
{
	(void)state;
	struct kb_http h;
	size_t used;
	const char expects[] = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
	const char upgrade[] = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
	kb_http_init(&h, true, 100);
	assert_int_equal(feed(&h, expects, sizeof expects - 1, 1000, &used), 0);
	assert_true(h.is_head_done && h.wants_continue && !h.is_done);
	assert_int_equal(feed(&h, "hi", 2, 2, &used), 0);
	assert_true(h.is_done && !h.wants_continue);
	kb_http_next(&h);
	assert_int_equal(feed(&h, upgrade, sizeof upgrade - 1, 1000, &used), 0);
	assert_true(h.is_done);
	kb_http_finish(&h);
}

static void answers_read_back(void **state)
{
	(void)state;
	struct kb_buf out = {0};
	struct kb_http h;
	struct kb_str v;
	size_t used;
	assert_int_equal(kb_http_put_head(&out, &(struct kb_http_head){.status = 429,
												.content_type = "application/json",
												.is_chunked = true,
												.request_id = "req-1",
												.retry_after_s = 3}),
		0);
	assert_int_equal(kb_http_put_chunk(&out, "{\"a\":", 5), 0);
	assert_int_equal(kb_http_put_chunk(&out, "1}", 2), 0);
	assert_int_equal(kb_http_put_last_chunk(&out), 0);
	kb_http_init(&h, false, 100);
	assert_int_equal(feed(&h, (char *)out.data, out.len, 7, &used), 0);
	assert_true(h.is_done);
	assert_int_equal(h.ll.status_code, 429);
	assert_true(kb_http_header(&h, "retry-after", &v));
	assert_slice(v, "3");
	assert_int_equal(h.body.len, 7);
	assert_memory_equal(h.body.data, "{\"a\":1}", 7);
	kb_http_finish(&h);
	kb_buf_finish(&out);
	// One that lasts until the connection ends.
	const char old[] = "HTTP/1.0 200 OK\r\n\r\nall of it";
	kb_http_init(&h, false, 100);
	assert_int_equal(feed(&h, old, sizeof old - 1, 5, &used), 0);
	assert_false(h.is_done);
	assert_int_equal(kb_http_feed_end(&h, NULL), 0);
	assert_int_equal(h.body.len, 9);
	kb_http_finish(&h);
}

static void paths_unescape(void **state)
{
	(void)state;
	char text[8];
	assert_int_equal(kb_http_unescape((struct kb_str){"a%2Fb", 5}, text, sizeof text), 0);
	assert_string_equal(text, "a/b");
	assert_int_equal(kb_http_unescape((struct kb_str){"a%2", 3}, text, sizeof text), KB_EBAD);
	assert_int_equal(kb_http_unescape((struct kb_str){"%00", 3}, text, sizeof text), KB_EBAD);
	assert_int_equal(kb_http_unescape((struct kb_str){"12345678", 8}, text, sizeof text), KB_EBAD);
}

static int collect(void *ctx, const char *data, size_t len)
{
	struct kb_buf *b = ctx;
	return kb_buf_printf(b, "[%.*s]", (int)len, data);
}

static void events_come_whole(void **state)
{
	(void)state;
	const char text[] = ": ping\n\ndata: one\n\ndata:two\r\n\r\nevent: x\ndata: a\ndata: b\n\ndata: [DONE]\n\n";
	for (size_t step = 1; step < sizeof text; step++) {
		struct kb_sse_reader r = {0};
		struct kb_buf got = {0};
		for (size_t at = 0; at < sizeof text - 1; at += step) {
			size_t n = sizeof text - 1 - at < step ? sizeof text - 1 - at : step;
			assert_int_equal(kb_sse_feed(&r, text + at, n, collect, &got), 0);
		}
		assert_string_equal(kb_buf_cstr(&got), "[one][two][a\nb][[DONE]]");
		kb_sse_finish(&r);
		kb_buf_finish(&got);
	}
}

static void parts_are_understood(void **state)
{
	static const struct {
		const char *text;
		uint64_t total;
		int r;
		uint64_t first, len;
	} rows[] = {
		{"bytes=0-0", 10, KB_OK, 0, 1},
		{"bytes=0-9", 10, KB_OK, 0, 10},
		{"Bytes=3-", 10, KB_OK, 3, 7},
		{"bytes=3-99", 10, KB_OK, 3, 7},
		{"bytes=-4", 10, KB_OK, 6, 4},
		{"bytes=-40", 10, KB_OK, 0, 10},
		{"bytes=10-", 10, KB_ELIMIT, 0, 0},
		{"bytes=-0", 10, KB_ELIMIT, 0, 0},
		{"bytes=0-", 0, KB_ELIMIT, 0, 0},
		{"bytes=-1", 0, KB_ELIMIT, 0, 0},
		{"bytes=0-18446744073709551615", UINT64_MAX, KB_OK, 0, UINT64_MAX},
		{"bytes=0-18446744073709551616", 10, KB_ENOTFOUND, 0, 0},
		{"bytes=5-4", 10, KB_ENOTFOUND, 0, 0},
		{"bytes=", 10, KB_ENOTFOUND, 0, 0},
		{"bytes=-", 10, KB_ENOTFOUND, 0, 0},
		{"bytes=5", 10, KB_ENOTFOUND, 0, 0},
		{"bytes=0-1,3-4", 10, KB_ENOTFOUND, 0, 0},
		{"bytes=0-1 ", 10, KB_ENOTFOUND, 0, 0},
		{"bytes", 10, KB_ENOTFOUND, 0, 0},
		{"lines=0-1", 10, KB_ENOTFOUND, 0, 0},
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		uint64_t first = 0, len = 0;
		int r = kb_http_range((struct kb_str){rows[i].text, strlen(rows[i].text)}, rows[i].total, &first, &len);
		if (r != rows[i].r || first != rows[i].first || len != rows[i].len)
			fail_msg(
				"%s: %d, %llu bytes from %llu", rows[i].text, r, (unsigned long long)len, (unsigned long long)first);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_in_every_split),
		cmocka_unit_test(no_prefix_is_a_message),
		cmocka_unit_test(pipelined_requests_come_one_by_one),
		cmocka_unit_test(refuses),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(expects_and_upgrades),
		cmocka_unit_test(answers_read_back),
		cmocka_unit_test(paths_unescape),
		cmocka_unit_test(parts_are_understood),
		cmocka_unit_test(events_come_whole),
	};
	return cmocka_run_group_tests_name("net/http", tests, NULL, NULL);
}
