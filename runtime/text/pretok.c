#include "text/pretok.h"

#include <stdbool.h>
#include <string.h>
#include <utf8proc.h>

// A matcher looks at c[i..n) and returns how many characters its expression takes there; 0: none.
typedef size_t matcher(const struct kb_char *c, size_t i, size_t n);

struct kb_pretok {
	const char *name;
	matcher *passes[4];
	bool ignores_merges;
};

static bool is(const struct kb_char *c, unsigned class)
{
	return (c->class & class) != 0;
}

static bool is_newline(const struct kb_char *c)
{
	return c->code == '\r' || c->code == '\n';
}

static size_t run(const struct kb_char *c, size_t i, size_t n, unsigned class)
{
	size_t k = i;
	while (k < n && is(&c[k], class))
		k++;
	return k - i;
}

// [^\s\p{L}\p{N}]+
static size_t run_other(const struct kb_char *c, size_t i, size_t n, unsigned not_class)
{
	size_t k = i;
	while (k < n && !is(&c[k], not_class))
		k++;
	return k - i;
}

// 's 't 're 've 'm 'll 'd
static size_t contraction(const struct kb_char *c, size_t i, size_t n, bool any_case)
{
	static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
	if (c[i].code != '\'')
		return 0;
	for (size_t e = 0; e < sizeof endings / sizeof *endings; e++) {
		size_t len = strlen(endings[e]), k = 0;
		while (k < len && i + 1 + k < n) {
			uint32_t code = c[i + 1 + k].code;
			if (any_case && code >= 'A' && code <= 'Z')
				code += 32;
			if (any_case && code == 0x17f) // long s folds to s
				code = 's';
			if (code != (uint32_t)endings[e][k])
				break;
			k++;
		}
		if (k == len)
			return 1 + len;
	}
	return 0;
}

// \s+(?!\S) | \s+ : a run of spaces leaves its last one to the word after it.
static size_t spaces(const struct kb_char *c, size_t i, size_t n)
{
	size_t k = run(c, i, n, KB_CHAR_SPACE);
	return k > 1 && i + k < n ? k - 1 : k;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
static size_t match_gpt2(const struct kb_char *c, size_t i, size_t n)
{
	size_t k = contraction(c, i, n, false);
	if (k)
		return k;
	size_t lead = c[i].code == ' ' && i + 1 < n;
	if ((k = run(c, i + lead, n, KB_CHAR_LETTER)))
		return lead + k;
	if ((k = run(c, i + lead, n, KB_CHAR_NUMBER)))
		return lead + k;
	if ((k = run_other(c, i + lead, n, KB_CHAR_SPACE | KB_CHAR_LETTER | KB_CHAR_NUMBER)))
		return lead + k;
	return spaces(c, i, n);
}

// (?i:contraction)|[^\r\n\p{L}\p{N}]?WORD+|\p{N}{1,digits}| ?[^\s WORD \p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
// where WORD is \p{L}, or [\p{L}\p{M}].
static size_t match_llama3_like(const struct kb_char *c, size_t i, size_t n, size_t digits, unsigned word)
{
	size_t k = contraction(c, i, n, true);
	if (k)
		return k;
	size_t lead = !is_newline(&c[i]) && !is(&c[i], KB_CHAR_LETTER | KB_CHAR_NUMBER) && i + 1 < n;
	if ((k = run(c, i + lead, n, word)))
		return lead + k;
	if ((k = run(c, i, n, word)))
		return k;
	if ((k = run(c, i, n, KB_CHAR_NUMBER)))
		return k < digits ? k : digits;
	lead = c[i].code == ' ' && i + 1 < n;
	if ((k = run_other(c, i + lead, n, KB_CHAR_SPACE | word | KB_CHAR_NUMBER))) {
		k += lead;
		while (i + k < n && is_newline(&c[i + k]))
			k++;
		return k;
	}
	size_t all = run(c, i, n, KB_CHAR_SPACE);
	for (k = all; k > 0; k--)
		if (is_newline(&c[i + k - 1]))
			return k;
	return spaces(c, i, n);
}

static size_t match_llama3(const struct kb_char *c, size_t i, size_t n)
{
	return match_llama3_like(c, i, n, 3, KB_CHAR_LETTER);
}

static size_t match_qwen2(const struct kb_char *c, size_t i, size_t n)
{
	return match_llama3_like(c, i, n, 1, KB_CHAR_LETTER);
}

static size_t match_qwen35(const struct kb_char *c, size_t i, size_t n)
{
	return match_llama3_like(c, i, n, 1, KB_CHAR_LETTER | KB_CHAR_MARK);
}

// \p{N}
static size_t match_digit(const struct kb_char *c, size_t i, size_t n)
{
	(void)n;
	return is(&c[i], KB_CHAR_NUMBER);
}

// [0-9][0-9][0-9]
static size_t match_three_digits(const struct kb_char *c, size_t i, size_t n)
{
	for (size_t k = 0; k < 3; k++)
		if (i + k >= n || c[i + k].code < '0' || c[i + k].code > '9')
			return 0;
	return 3;
}

// [\p{P}\$\+<=>\^~\|`]+
static size_t match_punctuation(const struct kb_char *c, size_t i, size_t n)
{
	size_t k = i;
	while (k < n && (is(&c[k], KB_CHAR_PUNCT) || (c[k].code < 128 && c[k].code && strchr("$+<=>^~|`", (int)c[k].code))))
		k++;
	return k - i;
}

// [\r\n]
static size_t match_newline(const struct kb_char *c, size_t i, size_t n)
{
	(void)n;
	return is_newline(&c[i]);
}

static size_t match_spaced(const struct kb_char *c, size_t i, size_t n, unsigned class)
{
	size_t lead = is(&c[i], KB_CHAR_SPACE) && i + 1 < n;
	size_t k = run(c, i + lead, n, class);
	return k ? lead + k : 0;
}

// \s?\p{L}+ , \s?\p{P}+ , \p{N} and runs of CJK and Hangul, in the order of DeepSeek Coder's expressions
static size_t match_spaced_letters(const struct kb_char *c, size_t i, size_t n)
{
	return match_spaced(c, i, n, KB_CHAR_LETTER);
}

static size_t match_spaced_punctuation(const struct kb_char *c, size_t i, size_t n)
{
	return match_spaced(c, i, n, KB_CHAR_PUNCT);
}

static const struct kb_pretok rows[] = {
	{"gpt-2", {match_gpt2}, false},
	{"mpt", {match_gpt2}, false},
	{"olmo", {match_gpt2}, false},
	{"jais", {match_gpt2}, false},
	{"smollm", {match_digit, match_gpt2}, false},
	{"starcoder", {match_digit, match_gpt2}, false},
	{"refact", {match_digit, match_gpt2}, false},
	{"command-r", {match_digit, match_gpt2}, false},
	{"codeshell", {match_digit, match_gpt2}, false},
	{"exaone", {match_digit, match_gpt2}, false},
	{"falcon", {match_punctuation, match_gpt2, match_three_digits}, false},
	{"llama-bpe", {match_llama3}, true},
	{"llama3", {match_llama3}, true},
	{"llama-v3", {match_llama3}, true},
	{"dbrx", {match_llama3}, false},
	{"smaug-bpe", {match_llama3}, false},
	{"qwen2", {match_qwen2}, false},
	{"stablelm2", {match_qwen2}, false},
	{"deepseek-r1-qwen", {match_qwen2}, false},
	{"qwen35", {match_qwen35}, false},
	{"deepseek-coder", {match_newline, match_spaced_letters, match_spaced_punctuation, match_digit}, false},
};

const struct kb_pretok *kb_pretok_find(struct kb_str name)
{
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (strlen(rows[i].name) == name.len && memcmp(rows[i].name, name.data, name.len) == 0)
			return &rows[i];
	return NULL;
}

bool kb_pretok_ignores_merges(const struct kb_pretok *p)
{
	return p->ignores_merges;
}

static uint8_t class_of(uint32_t code)
{
	if ((code >= 9 && code <= 13) || code == 0x85)
		return KB_CHAR_SPACE;
	switch (utf8proc_category((utf8proc_int32_t)code)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LT:
		return KB_CHAR_LETTER | KB_CHAR_UPPER;
	case UTF8PROC_CATEGORY_LL:
		return KB_CHAR_LETTER | KB_CHAR_LOWER;
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
		return KB_CHAR_LETTER;
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
		return KB_CHAR_MARK;
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
	case UTF8PROC_CATEGORY_NO:
		return KB_CHAR_NUMBER;
	case UTF8PROC_CATEGORY_PC:
	case UTF8PROC_CATEGORY_PD:
	case UTF8PROC_CATEGORY_PS:
	case UTF8PROC_CATEGORY_PE:
	case UTF8PROC_CATEGORY_PI:
	case UTF8PROC_CATEGORY_PF:
	case UTF8PROC_CATEGORY_PO:
		return KB_CHAR_PUNCT;
	case UTF8PROC_CATEGORY_ZS:
	case UTF8PROC_CATEGORY_ZL:
	case UTF8PROC_CATEGORY_ZP:
		return KB_CHAR_SPACE;
	case UTF8PROC_CATEGORY_SM:
	case UTF8PROC_CATEGORY_SC:
	case UTF8PROC_CATEGORY_SK:
	case UTF8PROC_CATEGORY_SO:
		return KB_CHAR_SYMBOL;
	default:
		return 0;
	}
}

size_t kb_pretok_chars(const char *text, size_t len, struct kb_char *chars)
{
	size_t n = 0;
	for (size_t at = 0; at < len; n++) {
		utf8proc_int32_t code;
		utf8proc_ssize_t used =
			utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(len - at), &code);
		if (used < 1) {
			used = 1;
			code = 0xfffd;
		}
		chars[n] = (struct kb_char){(uint32_t)at, (uint32_t)code, class_of((uint32_t)code)};
		at += (size_t)used;
	}
	chars[n] = (struct kb_char){.at = (uint32_t)len};
	return n;
}

// Cuts c[begin..end) at the matches of one pass; what lies between two matches is a piece too.
static size_t cut(matcher *match, const struct kb_char *c, size_t begin, size_t end, uint32_t *ends)
{
	size_t n = 0, open = begin;
	for (size_t i = begin; i < end;) {
		size_t k = match(c, i, end);
		if (!k) {
			i++;
			continue;
		}
		if (open < i)
			ends[n++] = (uint32_t)i;
		i += k;
		ends[n++] = (uint32_t)i;
		open = i;
	}
	if (open < end)
		ends[n++] = (uint32_t)end;
	return n;
}

size_t kb_pretok_split(
	const struct kb_pretok *p, const struct kb_char *chars, size_t n, uint32_t *ends, uint32_t *scratch)
{
	size_t n_ends = n ? 1 : 0;
	if (n)
		ends[0] = (uint32_t)n;
	for (size_t pass = 0; pass < 4 && p->passes[pass]; pass++) {
		size_t m = 0, begin = 0;
		for (size_t i = 0; i < n_ends; i++) {
			m += cut(p->passes[pass], chars, begin, ends[i], scratch + m);
			begin = ends[i];
		}
		memcpy(ends, scratch, m * sizeof *ends);
		n_ends = m;
	}
	return n_ends;
}
