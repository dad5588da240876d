/* see chain_file.h */
#include "firmware/ctl/chain_file.h"
#include "base/hex.h"

#include "firmware/ctl/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* see chain_file.h */
int kb_ctl_chain_read(const char *path, struct kb_err *err, struct kb_buf *ret_bytes, struct kb_chain *ret)
{
	struct kb_buf b = {0};
	int r = kb_ctl_read_file(path, &b, err);
	if (r)
		return r;
	r = kb_chain_parse(b.data, b.len, err, ret);
	if (r) {
		kb_err_wrap(err, "%s: ", path);
		kb_buf_finish(&b);
		return r;
	}
	*ret_bytes = b;
	return KB_OK;
}

/* see chain_file.h */
uint64_t kb_ctl_now(void)
{
	const char *said = getenv("SOURCE_DATE_EPOCH"); // reproducible-builds.org/specs/source-date-epoch
	char *end = NULL;
	unsigned long long fixed = said ? strtoull(said, &end, 10) : 0;
	return fixed && !*end && fixed <= INT64_MAX ? fixed : (uint64_t)time(NULL);
}

/* see chain_file.h */
const char *kb_ctl_day(uint64_t seconds, char ret[static 16])
{
	time_t t = (time_t)seconds;
	struct tm day;
	if (!gmtime_r(&t, &day) || day.tm_year > 8000 || strftime(ret, 16, "%Y-%m-%d", &day) == 0)
		snprintf(ret, 16, "no day");
	return ret;
}

static void print_role(const struct kb_root *r, int role)
{
	char hex[2 * KB_KEY_ID + 1];
	uint8_t id[KB_KEY_ID];
	for (uint32_t i = 0; i < r->roles[role].n; i++) {
		const uint8_t k = r->roles[role].key[i];
		kb_key_id(&r->keys[k], id);
		kb_hex(id, sizeof id, hex);
		if (i == 0)
			printf("  %-8s %u of %u: ", kb_role_names[role], r->roles[role].threshold, r->roles[role].n);
		else
			printf("  %18s", "");
		printf("%s%s%s\n", hex, r->is_test[k] ? " (test key)" : "", kb_root_is_revoked(r, id) ? " (revoked)" : "");
	}
}

/* see chain_file.h */
void kb_ctl_root_print(const struct kb_root *r, const struct kb_signatures *signatures)
{
	char day[16], hex[2 * KB_KEY_ID + 1];
	printf("root %" PRIu64 ", fleet ", r->version);
	kb_ctl_text_line((const char *)r->fleet, strnlen((const char *)r->fleet, KB_ROOT_FLEET), KB_ROOT_FLEET);
	printf(", made %s", kb_ctl_day(r->created, day));
	if (r->expires)
		printf(", expires %s", kb_ctl_day(r->expires, day));
	putchar('\n');
	for (int role = 0; role < KB_ROLES; role++)
		print_role(r, role);
	for (uint32_t i = 0; i < r->n_revoked; i++) {
		kb_hex(r->revoked + (size_t)i * KB_KEY_ID, KB_KEY_ID, hex);
		printf("  revoked  %s\n", hex);
	}
	for (uint32_t i = 0; i < signatures->n; i++) {
		kb_hex(signatures->list[i].key_id, KB_KEY_ID, hex);
		printf("  signed by %s\n", hex);
	}
}
