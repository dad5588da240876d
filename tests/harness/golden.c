#include "harness/golden.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER 64u

static int read_file(const char *path, struct kb_err *err, char **ret_data, size_t *ret_size)
{
	FILE *f = fopen(path, "rb");
	if (!f)
		return kb_fail(err, kb_err_from_errno(errno), "%s: %s", path, strerror(errno));
	int code = 0;
	char *data = NULL;
	size_t size = 0, room = 0;
	for (;;) {
		if (size + 1 >= room) {
			room = room ? 2 * room : 1u << 16;
			char *more = realloc(data, room);
			if (!more) {
				code = kb_fail(err, KB_ENOMEM, "%s: out of memory", path);
				goto out;
			}
			data = more;
		}
		size_t got = fread(data + size, 1, room - size - 1, f);
		if (got == 0)
			break;
		size += got;
	}
	if (ferror(f)) {
		code = kb_fail(err, KB_EIO, "%s: read error", path);
		goto out;
	}
	data[size] = 0;
	*ret_data = data;
	*ret_size = size;
	data = NULL;
out:
	fclose(f);
	free(data);
	return code;
}

static uint32_t u32_at(const char *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return v;
}

// Walks the sequences; 0, or KB_EBAD when lengths and size disagree.
static int index_ref(struct kb_golden_ref *g, size_t size)
{
	const char *data = g->memory;
	size_t at = HEADER + 4 * (size_t)g->n_seq;
	uint32_t row = 0;
	for (uint32_t i = 0; i < g->n_seq; i++) {
		struct kb_golden_seq *s = &g->seq[i];
		s->len = u32_at(data + HEADER + 4 * (size_t)i);
		if (s->len > g->n_pos || size - at < 4 * ((size_t)s->len + 1))
			return KB_EBAD;
		s->tokens = (const uint32_t *)(const void *)(data + at);
		s->first_row = row;
		row += s->len;
		at += 4 * ((size_t)s->len + 1);
	}
	g->rows = (const uint8_t *)data + at;
	return row == g->n_pos && size - at == (size_t)g->n_pos * (8 * (size_t)g->k + 4) ? 0 : KB_EBAD;
}

int kb_golden_ref_open(const char *path, struct kb_err *err, struct kb_golden_ref *ret)
{
	char *data;
	size_t size;
	int code = read_file(path, err, &data, &size);
	if (code < 0)
		return code;
	struct kb_golden_ref g = {.memory = data};
	if (size < HEADER || memcmp(data, "KBKL0001", 8) != 0) {
		free(data);
		return kb_fail(err, KB_EBAD, "%s: no KBKL0001 header", path);
	}
	memcpy(g.model_sha256, data + 8, 32);
	g.n_seq = u32_at(data + 40);
	g.n_pos = u32_at(data + 44);
	g.vocab = u32_at(data + 48);
	g.k = u32_at(data + 52);
	if (g.n_seq == 0 || g.n_seq > (size - HEADER) / 4 || g.k == 0 || g.k > g.vocab) {
		free(data);
		return kb_fail(err, KB_EBAD, "%s: impossible counts in the header", path);
	}
	g.seq = calloc(g.n_seq, sizeof *g.seq);
	if (!g.seq || index_ref(&g, size) < 0) {
		code = g.seq ? KB_EBAD : KB_ENOMEM;
		kb_golden_ref_close(&g);
		return kb_fail(err, code, "%s: its size does not fit its header", path);
	}
	*ret = g;
	return 0;
}

void kb_golden_ref_close(struct kb_golden_ref *g)
{
	free(g->seq);
	free(g->memory);
	memset(g, 0, sizeof *g);
}

struct kb_golden_row kb_golden_row(const struct kb_golden_ref *g, uint32_t i)
{
	const uint8_t *p = g->rows + (size_t)i * (8 * (size_t)g->k + 4);
	struct kb_golden_row r = {.k = g->k};
	r.ids = (const uint32_t *)(const void *)p;
	r.logprobs = (const float *)(const void *)(p + 4 * (size_t)g->k);
	memcpy(&r.rest, p + 8 * (size_t)g->k, 4);
	return r;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

double kb_golden_kl(const struct kb_golden_row *row, const float *logits, uint32_t vocab)
{
	double peak = -INFINITY, total = 0, rest = 0, kl = 0;
	uint32_t *sorted = malloc(row->k * sizeof *sorted), next = 0;
	if (!sorted)
		return INFINITY;
	memcpy(sorted, row->ids, row->k * sizeof *sorted);
	qsort(sorted, row->k, sizeof *sorted, compare_u32);
	for (uint32_t i = 0; i < vocab; i++)
		peak = logits[i] > peak ? logits[i] : peak;
	// The rest is summed by itself: as a difference it would drown in rounding where it is small.
	for (uint32_t i = 0; i < vocab; i++) {
		double e = exp((double)logits[i] - peak);
		total += e;
		if (next < row->k && sorted[next] == i)
			next++;
		else
			rest += e;
	}
	bool is_covered = next == row->k; // else an id is not below vocab
	free(sorted);
	if (!is_covered || !isfinite(total))
		return INFINITY;
	for (uint32_t i = 0; i < row->k; i++) {
		double p = row->logprobs[i], q = (double)logits[row->ids[i]] - peak - log(total);
		kl += exp(p) * (p - q);
	}
	if (row->rest > -INFINITY)
		kl += exp((double)row->rest) * ((double)row->rest - log(rest / total));
	return isnan(kl) ? INFINITY : kl;
}

// The JSON string at *at (quotes, with the escapes that make_goldens.py writes) as a new string; NULL if malformed.
static char *unquote(const char *at)
{
	size_t n = 0, len = strlen(at);
	char *out = malloc(len + 1);
	if (!out || at[0] != '"') {
		free(out);
		return NULL;
	}
	for (at++; *at && *at != '"'; at++) {
		unsigned code = 0;
		int digits = 0;
		if (*at != '\\') {
			out[n++] = *at;
			continue;
		}
		const char *from = "nrtbf\"\\/", *to = "\n\r\t\b\f\"\\/";
		const char *known = strchr(from, *++at);
		if (*at && known) {
			out[n++] = to[known - from];
		} else if (*at == 'u' && sscanf(at + 1, "%4x%n", &code, &digits) == 1 && digits == 4 && code < 0x80) {
			out[n++] = (char)code;
			at += 4;
		} else {
			free(out);
			return NULL;
		}
	}
	out[n] = 0;
	if (*at == '"' && at[1] == 0)
		return out;
	free(out);
	return NULL;
}

static int parse_ids(const char *at, struct kb_golden_case *c)
{
	size_t max = strlen(at) / 2 + 1;
	c->prompt = malloc(max * sizeof *c->prompt);
	if (!c->prompt)
		return KB_ENOMEM;
	for (char *end; *at; at = end) {
		unsigned long v = strtoul(at, &end, 10);
		if (end == at || v > UINT32_MAX || c->n_prompt == max)
			return KB_EBAD;
		c->prompt[c->n_prompt++] = (uint32_t)v;
	}
	return c->n_prompt ? 0 : KB_EBAD;
}

static int new_case(struct kb_golden_greedy *g, const char *words)
{
	char name[64], kind[8];
	if (sscanf(words, "%63s %7s", name, kind) != 2 || g->n_new == 0 || g->n_new > 4096)
		return KB_EBAD;
	struct kb_golden_case *more = realloc(g->cases, (g->n_cases + 1) * sizeof *more);
	if (!more)
		return KB_ENOMEM;
	g->cases = more;
	struct kb_golden_case *c = &more[g->n_cases++];
	*c = (struct kb_golden_case){.name = strdup(name), .is_chat = strcmp(kind, "chat") == 0};
	c->tokens = calloc(g->n_new, sizeof *c->tokens);
	return c->name && c->tokens ? 0 : KB_ENOMEM;
}

// One line; *n_tokens counts those of the case at hand, *n_cases is how many there should be.
static int parse_line(struct kb_golden_greedy *g, char *line, uint32_t *n_tokens, uint32_t *n_cases)
{
	struct kb_golden_case *c = g->n_cases ? &g->cases[g->n_cases - 1] : NULL;
	struct kb_golden_token t;
	if (line[0] == '#' || line[0] == 0)
		return 0;
	if (strncmp(line, "case ", 5) == 0) {
		bool is_whole = !c || (*n_tokens == g->n_new && c->prompt && c->text);
		*n_tokens = 0;
		return is_whole ? new_case(g, line + 5) : KB_EBAD;
	}
	if (!c && strncmp(line, "model ", 6) == 0)
		return sscanf(line, "model %*s %64s", g->model_sha256) == 1 ? 0 : KB_EBAD;
	if (!c && strncmp(line, "vocab ", 6) == 0)
		return sscanf(line, "vocab %u", &g->vocab) == 1 ? 0 : KB_EBAD;
	if (!c && strncmp(line, "new ", 4) == 0)
		return sscanf(line, "new %u", &g->n_new) == 1 ? 0 : KB_EBAD;
	if (!c && strncmp(line, "cases ", 6) == 0)
		return sscanf(line, "cases %u", n_cases) == 1 ? 0 : KB_EBAD;
	if (!c && strncmp(line, "made-by ", 8) == 0) {
		g->is_f32 = strcmp(line + 8, "f32") == 0;
		return g->is_f32 || strcmp(line + 8, "q") == 0 ? 0 : KB_EBAD;
	}
	if (c && strncmp(line, "say ", 4) == 0 && !c->say)
		return (c->say = unquote(line + 4)) ? 0 : KB_EBAD;
	if (c && strncmp(line, "text ", 5) == 0 && !c->text)
		return (c->text = unquote(line + 5)) ? 0 : KB_EBAD;
	if (c && strncmp(line, "prompt ", 7) == 0 && !c->prompt)
		return parse_ids(line + 7, c);
	if (c && *n_tokens < g->n_new &&
		sscanf(line, "token %u %u %f %u %f %f", &t.id, &t.second, &t.margin, &t.other, &t.other_margin, &t.other_gap) ==
			6 &&
		t.id < g->vocab && t.second < g->vocab && t.other < g->vocab) {
		c->tokens[(*n_tokens)++] = t;
		return 0;
	}
	return KB_EBAD;
}

int kb_golden_greedy_open(const char *path, struct kb_err *err, struct kb_golden_greedy *ret)
{
	char *data, *rest, *line;
	size_t size;
	int code = read_file(path, err, &data, &size);
	if (code < 0)
		return code;
	struct kb_golden_greedy g = {.n_cases = 0};
	uint32_t number = 0, n_tokens = 0, n_cases = 0;
	rest = data;
	while (code == 0 && (line = strsep(&rest, "\n"))) {
		number++;
		code = parse_line(&g, line, &n_tokens, &n_cases);
	}
	free(data);
	if (code == 0 && (g.n_cases == 0 || g.n_cases != n_cases || n_tokens != g.n_new))
		code = KB_EBAD;
	if (code < 0) {
		kb_golden_greedy_close(&g);
		return kb_fail(err, code, "%s:%u: not a line of a greedy golden file, or the file is cut", path, number);
	}
	*ret = g;
	return 0;
}

void kb_golden_greedy_close(struct kb_golden_greedy *g)
{
	for (uint32_t i = 0; i < g->n_cases; i++) {
		free(g->cases[i].name);
		free(g->cases[i].say);
		free(g->cases[i].text);
		free(g->cases[i].prompt);
		free(g->cases[i].tokens);
	}
	free(g->cases);
	memset(g, 0, sizeof *g);
}
