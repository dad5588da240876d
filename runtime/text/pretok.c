#include "text/pretok.h"

#include <stdbool.h>
#include <string.h>
#include <utf8proc.h>

// A matcher looks at c[i..n) and returns how many characters its expression takes there; 0: none.
typedef size_t matcher(const struct kb_char *c, size_t i, size_t n);

enum { IGNORES_MERGES = 1, ADDS_BOS = 2 };

struct kb_pretok {
	const char *name;
	matcher *passes[KB_PRETOK_PASSES];
	unsigned flags;
};

static bool is(const struct kb_char *c, unsigned class)
{
	return (c->class & class) != 0;
}

static bool is_newline(const struct kb_char *c)
{
	return c->code == '\r' || c->code == '\n';
}

// Is it one of these ASCII characters?
static bool is_one_of(const struct kb_char *c, const char *set)
{
	return c->code && c->code < 128 && strchr(set, (int)c->code);
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

// What the rows after Llama 3 differ in.
struct style {
	size_t digits;    // at most so many numbers in a piece
	unsigned word;    // \p{L}, or [\p{L}\p{M}]
	const char *tail; // may follow other characters, any number: "\r\n", "\r\n/"
};

// [^\r\n\p{L}\p{N}]?WORD+
static size_t led_word(const struct kb_char *c, size_t i, size_t n, unsigned word)
{
	size_t lead = !is_newline(&c[i]) && !is(&c[i], KB_CHAR_LETTER | KB_CHAR_NUMBER) && i + 1 < n;
	size_t k = run(c, i + lead, n, word);
	return k ? lead + k : run(c, i, n, word);
}

//  ?[^\s WORD \p{N}]+[tail]*
static size_t spaced_other(const struct kb_char *c, size_t i, size_t n, const struct style *s)
{
	size_t lead = c[i].code == ' ' && i + 1 < n;
	size_t k = run_other(c, i + lead, n, KB_CHAR_SPACE | s->word | KB_CHAR_NUMBER);
	if (!k)
		return 0;
	for (k += lead; i + k < n && is_one_of(&c[i + k], s->tail);)
		k++;
	return k;
}

// \s*[\r\n]+|\s+(?!\S)|\s+ ; \s*[\r\n]|... takes the same: \s* has all newlines but the last.
static size_t spaces_by_line(const struct kb_char *c, size_t i, size_t n)
{
	size_t all = run(c, i, n, KB_CHAR_SPACE), k = all;
	while (k > 0 && !is_newline(&c[i + k - 1]))
		k--;
	return k ? k : spaces(c, i, n);
}

// (?i:contraction)|[^\r\n\p{L}\p{N}]?WORD+|\p{N}{1,digits}| ?[^\s WORD \p{N}]+[tail]*|\s*[\r\n]+|\s+(?!\S)|\s+
static size_t match_style(const struct kb_char *c, size_t i, size_t n, const struct style *s)
{
	size_t k = contraction(c, i, n, true);
	if (k || (k = led_word(c, i, n, s->word)))
		return k;
	if ((k = run(c, i, n, KB_CHAR_NUMBER)))
		return k < s->digits ? k : s->digits;
	if ((k = spaced_other(c, i, n, s)))
		return k;
	return spaces_by_line(c, i, n);
}

static size_t match_llama3(const struct kb_char *c, size_t i, size_t n)
{
	return match_style(c, i, n, &(struct style){3, KB_CHAR_LETTER, "\r\n"});
}

static size_t match_qwen2(const struct kb_char *c, size_t i, size_t n)
{
	return match_style(c, i, n, &(struct style){1, KB_CHAR_LETTER, "\r\n"});
}

static size_t match_qwen35(const struct kb_char *c, size_t i, size_t n)
{
	return match_style(c, i, n, &(struct style){1, KB_CHAR_LETTER | KB_CHAR_MARK, "\r\n"});
}

static size_t match_seed_coder(const struct kb_char *c, size_t i, size_t n)
{
	return match_style(c, i, n, &(struct style){1, KB_CHAR_LETTER, ""});
}

// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
static bool is_upperish(const struct kb_char *c)
{
	return is(c, KB_CHAR_MARK) || (is(c, KB_CHAR_LETTER) && !is(c, KB_CHAR_LOWER));
}

// [\p{Ll}\p{Lm}\p{Lo}\p{M}]
static bool is_lowerish(const struct kb_char *c)
{
	return is(c, KB_CHAR_MARK) || (is(c, KB_CHAR_LETTER) && !is(c, KB_CHAR_UPPER));
}

// UPPERISH*LOWERISH+ and, where that is not there, UPPERISH+LOWERISH*: the end of the match, or i.
static size_t cased_word(const struct kb_char *c, size_t i, size_t n, bool needs_lower)
{
	size_t upper = i, end;
	while (upper < n && is_upperish(&c[upper]))
		upper++;
	for (end = upper; end < n && is_lowerish(&c[end]);)
		end++;
	if (!needs_lower || end > upper)
		return end > i && (upper > i || needs_lower) ? end : i;
	while (end > i && !is_lowerish(&c[end - 1])) // the expression steps back to the last that is both
		end--;
	return end;
}

// [^\r\n\p{L}\p{N}]? before either; the expression tries the first alternative with and without it before the second.
static size_t led_cased_word(const struct kb_char *c, size_t i, size_t n)
{
	size_t lead = !is_newline(&c[i]) && !is(&c[i], KB_CHAR_LETTER | KB_CHAR_NUMBER);
	for (int needs_lower = 1; needs_lower >= 0; needs_lower--)
		for (size_t skip = lead + 1; skip-- > 0;) {
			size_t end = i + skip < n ? cased_word(c, i + skip, n, needs_lower) : i + skip;
			if (end > i + skip)
				return end - i;
		}
	return 0;
}

static size_t match_cased(const struct kb_char *c, size_t i, size_t n, size_t digits, bool has_contractions)
{
	const struct style s = {digits, KB_CHAR_LETTER, "\r\n/"};
	size_t k = led_cased_word(c, i, n);
	if (k)
		return k + (has_contractions && i + k < n ? contraction(c, i + k, n, true) : 0);
	if ((k = run(c, i, n, KB_CHAR_NUMBER)))
		return k < digits ? k : digits;
	if ((k = spaced_other(c, i, n, &s)))
		return k;
	return spaces_by_line(c, i, n);
}

static size_t match_gpt4o(const struct kb_char *c, size_t i, size_t n)
{
	return match_cased(c, i, n, 3, true);
}

static size_t match_tekken(const struct kb_char *c, size_t i, size_t n)
{
	return match_cased(c, i, n, 1, false);
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
	while (k < n && (is(&c[k], KB_CHAR_PUNCT) || is_one_of(&c[k], "$+<=>^~|`")))
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

static size_t match_spaced_letters(const struct kb_char *c, size_t i, size_t n)
{
	return match_spaced(c, i, n, KB_CHAR_LETTER);
}

static size_t match_spaced_punctuation(const struct kb_char *c, size_t i, size_t n)
{
	return match_spaced(c, i, n, KB_CHAR_PUNCT);
}

// Ranges of code points, in order.
struct range {
	uint32_t first, last;
};

static size_t run_in(const struct kb_char *c, size_t i, size_t n, const struct range *ranges, size_t count)
{
	size_t k = i;
	for (size_t r = 0; k < n && r < count;) {
		if (c[k].code >= ranges[r].first && c[k].code <= ranges[r].last) {
			k++;
			r = 0;
		} else {
			r++;
		}
	}
	return k - i;
}

// DeepSeek's ranges for CJK, kana, Hangul and all that lies between U+0800 and U+4E00.
static size_t match_east(const struct kb_char *c, size_t i, size_t n)
{
	static const struct range ranges[] = {{0x800, 0x9fa5}, {0xac00, 0xd7ff}};
	return run_in(c, i, n, ranges, 2);
}

// [U+4E00-U+9FA5 U+3040-U+30FF]+
static size_t match_han_and_kana(const struct kb_char *c, size_t i, size_t n)
{
	static const struct range ranges[] = {{0x3040, 0x30ff}, {0x4e00, 0x9fa5}};
	return run_in(c, i, n, ranges, 2);
}

// DeepSeek LLM's list of letters: those with case as of an early Unicode, without these.
static bool is_old_cased(const struct kb_char *c)
{
	static const struct range younger[] = {{0x560, 0x588}, {0x10c7, 0x10ff}, {0x1c80, 0x1c8f}, {0x2d00, 0x2d2d},
		{0xa790, 0xa7fa}, {0xab30, 0xab68}, {0x10570, 0x105bc}, {0x10d50, 0x10d85}, {0x16e40, 0x16e7f},
		{0x16ea0, 0x16ed3}, {0x1d400, 0x1d7cb}, {0x1df00, 0x1df2a}};
	return is(c, KB_CHAR_UPPER | KB_CHAR_LOWER) && !run_in(c, 0, 1, younger, sizeof younger / sizeof *younger);
}

// \s?[cased letters]+
static size_t match_spaced_cased(const struct kb_char *c, size_t i, size_t n)
{
	size_t lead = is(&c[i], KB_CHAR_SPACE) && i + 1 < n, k = i + lead;
	while (k < n && is_old_cased(&c[k]))
		k++;
	return k > i + lead ? k - i : 0;
}

// \s?[!-/:-~ and their full-width forms, U+2018-U+201F, U+3000-U+3002]+ ; ":-~" has the ASCII letters too.
static size_t match_spaced_marks(const struct kb_char *c, size_t i, size_t n)
{
	static const struct range marks[] = {
		{'!', '/'}, {':', '~'}, {0x2018, 0x201f}, {0x3000, 0x3002}, {0xff01, 0xff0f}, {0xff1a, 0xff5e}};
	size_t lead = is(&c[i], KB_CHAR_SPACE) && i + 1 < n;
	size_t k = run_in(c, i + lead, n, marks, sizeof marks / sizeof *marks);
	return k ? lead + k : run_in(c, i, n, marks, sizeof marks / sizeof *marks);
}

// \s+$
static size_t match_last_spaces(const struct kb_char *c, size_t i, size_t n)
{
	size_t k = run(c, i, n, KB_CHAR_SPACE);
	return i + k == n ? k : 0;
}

// \p{N}+
static size_t match_numbers(const struct kb_char *c, size_t i, size_t n)
{
	return run(c, i, n, KB_CHAR_NUMBER);
}

// \p{N}{1,3}
static size_t match_up_to_three(const struct kb_char *c, size_t i, size_t n)
{
	size_t k = run(c, i, n, KB_CHAR_NUMBER);
	return k < 3 ? k : 3;
}

// ASCII punctuation then [A-Za-z]+ |[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|
// ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
static size_t match_deepseek3(const struct kb_char *c, size_t i, size_t n)
{
	const unsigned word = KB_CHAR_LETTER | KB_CHAR_MARK, mark = KB_CHAR_PUNCT | KB_CHAR_SYMBOL;
	size_t k = 1, lead;
	if (c[i].code < 128 && is(&c[i], mark))
		while (i + k < n && ((c[i + k].code | 32) >= 'a' && (c[i + k].code | 32) <= 'z'))
			k++;
	if (k > 1)
		return k;
	lead = !is_newline(&c[i]) && !is(&c[i], KB_CHAR_LETTER | mark) && i + 1 < n;
	if ((k = run(c, i + lead, n, word)))
		return lead + k;
	if ((k = run(c, i, n, word)))
		return k;
	lead = c[i].code == ' ' && i + 1 < n;
	if ((k = run(c, i + lead, n, mark))) {
		for (k += lead; i + k < n && is_newline(&c[i + k]);)
			k++;
		return k;
	}
	return spaces_by_line(c, i, n);
}

//  ?[^(\s|.,!?...)]+ : the list is inside the brackets, so "(", "|" and ")" are of it too.
static size_t match_bloom(const struct kb_char *c, size_t i, size_t n)
{
	static const struct range stops[] = {
		{0x60c, 0x60c}, {0x6d4, 0x6d4}, {0x964, 0x964}, {0x2026, 0x2026}, {0x3001, 0x3002}, {0xff0c, 0xff0c}};
	size_t lead = c[i].code == ' ' && i + 1 < n, k = i + lead;
	while (k < n && !is(&c[k], KB_CHAR_SPACE) && !is_one_of(&c[k], "(|.,!?)") &&
		   !run_in(c, k, k + 1, stops, sizeof stops / sizeof *stops))
		k++;
	return k > i + lead ? k - i : 0;
}

#define DEEPSEEK_LLM \
	{match_newline, match_spaced_cased, match_spaced_marks, match_last_spaces, match_east, match_numbers}

static const struct kb_pretok rows[] = {
	{"gpt-2", {match_gpt2}, 0},
	{"phi-2", {match_gpt2}, 0},
	{"mpt", {match_gpt2}, 0},
	{"olmo", {match_gpt2}, 0},
	{"jais", {match_gpt2}, 0},
	{"trillion", {match_gpt2}, 0},
	{"exaone4", {match_gpt2}, 0},
	{"modern-bert", {match_gpt2}, 0},
	{"smollm", {match_digit, match_gpt2}, 0},
	{"starcoder", {match_digit, match_gpt2}, 0},
	{"refact", {match_digit, match_gpt2}, 0},
	{"command-r", {match_digit, match_gpt2}, 0},
	{"codeshell", {match_digit, match_gpt2}, 0},
	{"exaone", {match_digit, match_gpt2}, 0},
	{"minerva-7b", {match_digit, match_gpt2}, 0},
	{"falcon", {match_punctuation, match_gpt2, match_three_digits}, 0},
	{"llama-bpe", {match_llama3}, IGNORES_MERGES | ADDS_BOS},
	{"llama3", {match_llama3}, IGNORES_MERGES | ADDS_BOS},
	{"llama-v3", {match_llama3}, IGNORES_MERGES | ADDS_BOS},
	{"falcon3", {match_llama3}, IGNORES_MERGES | ADDS_BOS},
	{"falcon-h1", {match_llama3}, IGNORES_MERGES | ADDS_BOS},
	{"lfm2", {match_llama3}, IGNORES_MERGES | ADDS_BOS},
	{"glm4", {match_llama3}, IGNORES_MERGES},
	{"chatglm-bpe", {match_llama3}, 0},
	{"dbrx", {match_llama3}, 0},
	{"smaug-bpe", {match_llama3}, 0},
	{"qwen2", {match_qwen2}, 0},
	{"stablelm2", {match_qwen2}, 0},
	{"deepseek-r1-qwen", {match_qwen2}, 0},
	{"hunyuan", {match_qwen2}, 0},
	{"megrez", {match_qwen2}, 0},
	{"grok-2", {match_qwen2}, 0},
	{"qwen35", {match_qwen35}, 0},
	{"seed-coder", {match_seed_coder}, 0},
	{"bailingmoe", {match_qwen2}, 0},
	{"gpt-4o", {match_gpt4o}, 0},
	{"llama4", {match_gpt4o}, 0},
	{"kanana2", {match_gpt4o}, 0},
	{"tekken", {match_tekken}, IGNORES_MERGES | ADDS_BOS},
	{"deepseek-llm", DEEPSEEK_LLM, 0},
	{"deepseek-coder", {match_newline, match_spaced_letters, match_spaced_punctuation, match_east, match_digit}, 0},
	{"deepseek-v3", {match_up_to_three, match_han_and_kana, match_deepseek3}, 0},
	{"hunyuan-dense", {match_up_to_three, match_han_and_kana, match_deepseek3}, 0},
	{"bloom", {match_bloom}, 0},
	{"poro-chat", {match_bloom}, 0},
	{"gpt3-finnish", {match_bloom}, 0},
	{"viking", {match_bloom, match_digit}, 0},
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
	return p->flags & IGNORES_MERGES;
}

bool kb_pretok_adds_bos(const struct kb_pretok *p)
{
	return p->flags & ADDS_BOS;
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
	for (size_t pass = 0; pass < KB_PRETOK_PASSES && p->passes[pass]; pass++) {
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
