// The fields of a request as rows; see request.h.
#pragma once
#include "firmware/api/request.h"

#define KB_LOGPROBS_WANTED 0x80u // "logprobs": true was seen; the low bits are 1 + top_logprobs or 0

struct kb_field {
	const char *name;
	bool in_chat, in_completions;
	// v is not null. Stores into r, or fills p and returns KB_EBAD.
	int (*parse)(struct kb_api_request *r, const char *name, yyjson_val *v, struct kb_problem *p);
};

extern const struct kb_field kb_fields[];
extern const int kb_field_count; // at most 64
