// An engine by script, for tests of the daemon without a device. It speaks proto.h on the socket it is given; the
// model image is a text file, and what it does follows from words in the prompt:
//   len=N       tokens to generate (8)          delay=MS   between tokens (2)
//   prefill=MS  before the first token          big=N      bytes of each token's text
//   error=CODE  ERROR with that code            die=N      the process dies after N tokens, once in its life's file
//   always-die  it dies at every SUBMIT         hold       odd tokens give their text with the next one
//   garbage     sends bytes that are no frame   utf8       text that is not UTF-8
// Files beside the image: IMAGE.log gets a line for each event; while IMAGE.hang exists, nothing is answered;
// while IMAGE.stuck exists, the device is stuck: no PONG and no token, but STATS are answered.
#include "base/clock.h"
#include "proto/proto.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOBS_MAX 256
#define CONTEXT 4096u

struct job {
	uint64_t id, seed, due_ms;
	uint32_t made, len, max_new, big, prompt_tokens, delay_ms, die_at;
	bool is_used, holds, is_utf8_broken, is_random;
	uint8_t logprobs;
	char held[64];
	char stop[64];
};

static struct job jobs[JOBS_MAX];
static const char *image;
static uint32_t n_running, max_seqs = 8;
static uint64_t generated;

static void note(const char *what, uint64_t id, uint32_t n)
{
	char path[1024], line[128];
	snprintf(path, sizeof path, "%s.log", image);
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	int len = snprintf(line, sizeof line, "%d %s %llu %u\n", (int)getpid(), what, (unsigned long long)id, n);
	if (fd >= 0 && write(fd, line, (size_t)len) < 0)
		_exit(9);
	close(fd);
}

static bool exists(const char *suffix)
{
	char path[1024];
	snprintf(path, sizeof path, "%s.%s", image, suffix);
	return access(path, F_OK) == 0;
}

static void touch(const char *suffix)
{
	char path[1024];
	snprintf(path, sizeof path, "%s.%s", image, suffix);
	close(open(path, O_WRONLY | O_CREAT, 0600));
}

static void send_bytes(const uint8_t *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(3, data, len);
		if (n < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){.fd = 3, .events = POLLOUT}, 1, 1000);
			continue;
		}
		if (n <= 0)
			_exit(0);
		data += n;
		len -= (size_t)n;
	}
}

static void put(const struct kb_msg *m)
{
	struct kb_buf b = {0};
	if (kb_proto_encode(&b, m))
		_exit(8);
	send_bytes(b.data, b.len);
	kb_buf_finish(&b);
}

static uint32_t word(const char *text, const char *key, uint32_t otherwise)
{
	const char *at = strstr(text, key);
	return at ? (uint32_t)strtoul(at + strlen(key), NULL, 10) : otherwise;
}

static struct job *job_of(uint64_t id)
{
	for (int i = 0; i < JOBS_MAX; i++)
		if (jobs[i].is_used && jobs[i].id == id)
			return &jobs[i];
	return NULL;
}

static void finish(struct job *j, uint8_t how)
{
	struct kb_msg m = {.type = KB_MSG_DONE, .id = j->id};
	m.done = (struct kb_msg_done){.finish = how,
		.text = {j->held, strlen(j->held)},
		.prompt_tokens = j->prompt_tokens,
		.completion_tokens = j->made,
		.prefill_us = 1000,
		.decode_us = 1000 * (uint64_t)j->made};
	put(&m);
	note("done", j->id, j->made);
	j->is_used = false;
	n_running--;
}

// The text of token i: a function of the request alone, so that a resumed answer goes on as it would have.
static void token_text(const struct job *j, uint32_t i, char *ret, size_t size)
{
	if (j->is_utf8_broken)
		snprintf(ret, size, "\xff\xc3(");
	else if (i % 5 == 4)
		snprintf(ret, size, "\xe8\xa8\x80\"\n");
	else
		snprintf(ret, size, " w%u", j->is_random ? (uint32_t)((i + 1) * 2654435761u * (j->seed | 1)) % 1000 : i);
	if (j->big && j->big < size) {
		size_t n = strlen(ret);
		memset(ret + n, 'x', j->big);
		ret[n + j->big] = 0;
	}
}

static void emit(struct job *j)
{
	static char text[70000], whole[70100];
	struct kb_msg m = {.type = KB_MSG_TOKEN, .id = j->id};
	uint32_t i = j->made;
	token_text(j, i, text, sizeof text);
	bool holds = j->holds && i % 2 == 1 && i + 1 < j->len && i + 1 < j->max_new;
	const char *stop = j->stop[0] ? strstr(text, j->stop) : NULL;
	if (stop)
		text[stop - text] = 0;
	snprintf(whole, sizeof whole, "%s%s", j->held, holds ? "" : text);
	j->held[0] = 0;
	if (holds) {
		whole[0] = 0;
		snprintf(j->held, sizeof j->held, "%.63s", text);
	}
	m.token.token = 100 + i;
	m.token.text = (struct kb_str){whole, strlen(whole)};
	if (j->logprobs) {
		m.token.has_logprob = 1;
		m.token.chosen = (struct kb_logprob){100 + i, -0.25f, {text, strlen(text)}};
		m.token.n_top = j->logprobs - 1u;
		for (uint32_t k = 0; k < m.token.n_top; k++)
			m.token.top[k] =
				(struct kb_logprob){100 + i + k, -0.25f * (float)(k + 1), {k ? "\xff" : text, k ? 1 : strlen(text)}};
	}
	put(&m);
	generated++;
	j->made++;
	if (j->die_at && j->made >= j->die_at && !exists("died")) {
		touch("died");
		_exit(7);
	}
	if (stop)
		finish(j, KB_FINISH_STOP);
	else if (j->made >= j->len)
		finish(j, KB_FINISH_STOP);
	else if (j->made >= j->max_new)
		finish(j, KB_FINISH_LENGTH);
	else
		j->due_ms = kb_clock_ms() + j->delay_ms;
}

// All the prompt's text in one place.
static void gather(const struct kb_msg_submit *s, char *ret, size_t size)
{
	size_t cursor = 0, n = 0;
	struct kb_chat_message c;
	ret[0] = 0;
	if (s->kind == KB_PROMPT_TEXT)
		snprintf(ret, size, "%.*s", (int)s->text.len, s->text.data);
	while (s->kind == KB_PROMPT_CHAT && n < size && kb_proto_next_message(s, &cursor, &c))
		n += (size_t)snprintf(
			ret + n, size - n, "%.*s:%.*s\n", (int)c.role.len, c.role.data, (int)c.content.len, c.content.data);
}

static void refuse(uint64_t id, int code, const char *text)
{
	put(&(struct kb_msg){.type = KB_MSG_ERROR, .id = id, .error = {code, {text, strlen(text)}}});
}

static void submit(uint64_t id, const struct kb_msg_submit *s)
{
	static char text[1 << 20];
	struct job *j = NULL;
	gather(s, text, sizeof text);
	note("submit", id, s->n_resume);
	if (strstr(text, "always-die"))
		_exit(6);
	if (strstr(text, "garbage"))
		send_bytes((const uint8_t *)"\xff\xff\xff\xff nonsense that is no frame", 30);
	if (strstr(text, "error=")) {
		refuse(id, -(int)word(text, "error=", 15), "as the prompt asked");
		return;
	}
	uint32_t tokens = s->kind == KB_PROMPT_TOKENS ? s->n_tokens : (uint32_t)(strlen(text) / 4 + 1);
	if (tokens > CONTEXT) {
		refuse(id, KB_ELIMIT, "the prompt is longer than the context of 4096 tokens");
		return;
	}
	for (int i = 0; i < JOBS_MAX && !j; i++)
		j = jobs[i].is_used ? NULL : &jobs[i];
	if (!j) {
		refuse(id, KB_EBUSY, "no room");
		return;
	}
	*j = (struct job){
		.id = id, .seed = s->sampling.seed, .is_used = true, .prompt_tokens = tokens, .logprobs = s->logprobs};
	j->len = word(text, "len=", 8);
	j->delay_ms = word(text, "delay=", 2);
	j->big = word(text, "big=", 0);
	j->die_at = word(text, "die=", 0);
	j->holds = strstr(text, "hold") != NULL;
	j->is_utf8_broken = strstr(text, "utf8") != NULL;
	j->is_random = s->sampling.temperature > 0;
	j->max_new = s->max_new ? s->max_new : CONTEXT - tokens;
	if (s->n_stop)
		snprintf(j->stop, sizeof j->stop, "%.*s", (int)s->stop[0].len, s->stop[0].data);
	j->made = s->n_resume;
	if (j->holds && j->made % 2 == 0 && j->made > 0) // what the last one held is part of the state to rebuild
		token_text(j, j->made - 1, j->held, sizeof j->held);
	j->due_ms = kb_clock_ms() + (s->n_resume ? 0 : word(text, "prefill=", 0));
	n_running++;
	put(&(struct kb_msg){.type = KB_MSG_ACCEPTED, .id = id, .accepted = {tokens}});
}

static void handle(const struct kb_msg *m)
{
	struct job *j = job_of(m->id);
	switch (m->type) {
	case KB_MSG_SUBMIT:
		submit(m->id, &m->submit);
		break;
	case KB_MSG_CANCEL:
		note("cancel", m->id, j ? j->made : 0);
		if (j)
			finish(j, KB_FINISH_CANCELLED);
		break;
	case KB_MSG_PING:
		if (exists("stuck"))
			break;
		put(&(struct kb_msg){
			.type = KB_MSG_PONG, .id = m->id, .pong = {.is_healthy = !exists("ill"), .device_us = 123}});
		break;
	case KB_MSG_STATS:
		put(&(struct kb_msg){.type = KB_MSG_STATS_REPLY,
			.id = m->id,
			.stats = {
				.running = n_running, .kv_pages = 64, .kv_pages_used = n_running, .generated_tokens = generated}});
		break;
	default:
		note("quit", 0, 0);
		_exit(0);
	}
}

static void hang(void)
{
	note("hang", 0, 0);
	while (exists("hang"))
		usleep(20000);
}

static int until_next(void)
{
	uint64_t now = kb_clock_ms(), next = now + 50;
	for (int i = 0; i < JOBS_MAX; i++)
		if (jobs[i].is_used && jobs[i].due_ms < next)
			next = jobs[i].due_ms;
	return next > now ? (int)(next - now) : 0;
}

static void serve(void)
{
	struct kb_buf in = {0};
	static uint8_t data[65536];
	for (;;) {
		if (exists("hang"))
			hang();
		struct pollfd p = {.fd = 3, .events = POLLIN};
		if (poll(&p, 1, until_next()) > 0) {
			ssize_t n = read(3, data, sizeof data);
			if (n == 0 || (n < 0 && errno != EAGAIN))
				_exit(0);
			if (n > 0 && kb_buf_append(&in, data, (size_t)n))
				_exit(5);
		}
		struct kb_msg m;
		size_t used;
		while (kb_proto_decode(in.data, in.len, &m, &used) == 0) {
			handle(&m);
			kb_buf_consume(&in, used);
		}
		for (int i = 0; i < JOBS_MAX; i++)
			if (jobs[i].is_used && jobs[i].due_ms <= kb_clock_ms() && !exists("stuck"))
				emit(&jobs[i]);
	}
}

int main(int argc, char **argv)
{
	char text[256] = "";
	if (argc < 4 || strcmp(argv[1], "--serve") != 0 || strcmp(argv[2], "3") != 0)
		return 2;
	image = argv[3];
	signal(SIGPIPE, SIG_IGN);
	for (int i = 4; i + 1 < argc; i += 2)
		if (strcmp(argv[i], "--max-seqs") == 0)
			max_seqs = (uint32_t)strtoul(argv[i + 1], NULL, 10);
	FILE *f = fopen(image, "r");
	size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
	text[n] = 0;
	note("start", 0, 0);
	if (strstr(text, "broken")) {
		refuse(0, KB_ECORRUPT, "the image is damaged");
		return 1;
	}
	usleep(1000 * word(text, "load=", 20));
	if (exists("never-ready"))
		return 4;
	put(&(struct kb_msg){.type = KB_MSG_PROGRESS, .progress = {1, 1, {"weights", 7}}});
	put(&(struct kb_msg){.type = KB_MSG_READY,
		.ready = {.version = KB_PROTO_VERSION,
			.arch = {"fake", 4},
			.name = {"fake", 4},
			.device = {"paper", 5},
			.vocab = 1000,
			.context = CONTEXT,
			.max_seqs = max_seqs,
			.kv_tokens = 8192}});
	serve();
}
