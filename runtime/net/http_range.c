// Parts of something that are asked for. See http.h.
#include "net/http.h"

#include <string.h>
#include <strings.h>

// Digits at *at; false where there are none or too many.
static bool number(struct kb_str s, size_t *at, uint64_t *ret)
{
	const size_t begin = *at;
	uint64_t v = 0;
	for (; *at < s.len && s.data[*at] >= '0' && s.data[*at] <= '9'; (*at)++) {
		const uint64_t digit = (uint64_t)(s.data[*at] - '0');
		if (v > (UINT64_MAX - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*ret = v;
	return *at > begin;
}

int kb_http_range(struct kb_str value, uint64_t total, uint64_t *ret_first, uint64_t *ret_len)
{
	static const char unit[] = "bytes=";
	uint64_t first = 0, last = 0;
	size_t at = sizeof unit - 1;
	if (value.len < at || strncasecmp(value.data, unit, at) != 0)
		return KB_ENOTFOUND;
	const bool has_first = number(value, &at, &first);
	if (at >= value.len || value.data[at] != '-')
		return KB_ENOTFOUND;
	at++;
	const bool has_last = number(value, &at, &last);
	if (at != value.len || (!has_first && !has_last) || (has_first && has_last && last < first))
		return KB_ENOTFOUND;
	if (!has_first) { // the last N
		if (last == 0 || total == 0)
			return KB_ELIMIT;
		*ret_len = last < total ? last : total;
		*ret_first = total - *ret_len;
		return KB_OK;
	}
	if (first >= total)
		return KB_ELIMIT;
	if (!has_last || last >= total)
		last = total - 1;
	*ret_first = first;
	*ret_len = last - first + 1;
	return KB_OK;
}
