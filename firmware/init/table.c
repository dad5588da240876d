// The tables that PID 1 reads. Pure; see init.h.
#include "efi/efi_var.h"
#include "firmware/init/init.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The next word of *at, ended where it lies; NULL at the end of the line.
static char *word(char **at)
{
	char *begin = *at + strspn(*at, " \t");
	size_t len = strcspn(begin, " \t");
	*at = begin + len;
	if (**at)
		*(*at)++ = 0;
	return len ? begin : NULL;
}

static int parse_number(const char *text, uint64_t max, uint64_t *ret)
{
	char *end;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return errno || *text < '0' || *text > '9' || *end || *ret > max ? -1 : 0;
}

// always, claim, trial, stick:FOLDER, file:PATH, on:PATH, with:PATH
static int parse_when(char *when, struct kb_service *ret)
{
	static const char stick[] = "stick:", plain[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
	static const struct {
		const char *word;
		enum kb_when when;
	} files[] = {{"file:", KB_WHEN_FILE}, {"on:", KB_WHEN_ON}, {"with:", KB_WHEN_WITH}};
	ret->folder = "";
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		if (strncmp(when, files[i].word, strlen(files[i].word)) == 0) {
			ret->when = files[i].when;
			ret->folder = when + strlen(files[i].word);
			return ret->folder[0] == '/' ? 0 : -1;
		}
	if (strcmp(when, "always") == 0) {
		ret->when = KB_WHEN_ALWAYS;
	} else if (strcmp(when, "claim") == 0) {
		ret->when = KB_WHEN_CLAIM;
	} else if (strcmp(when, "trial") == 0) {
		ret->when = KB_WHEN_TRIAL;
	} else if (strncmp(when, stick, sizeof stick - 1) == 0) {
		ret->when = KB_WHEN_STICK;
		ret->folder = when + sizeof stick - 1;
		const size_t len = strlen(ret->folder);
		return len > 0 && len <= KB_INIT_FOLDER_MAX && strspn(ret->folder, plain) == len ? 0 : -1;
	} else {
		return -1;
	}
	return 0;
}

// memory=MIB, pids=N, oom=N
static int parse_limit(const char *text, struct kb_service *ret)
{
	const char *value = strchr(text, '=');
	const size_t len = value ? (size_t)(value - text) : 0;
	uint64_t n;
	const bool is_negative = value && value[1] == '-';
	if (!value || parse_number(value + 1 + is_negative, 1 << 20, &n))
		return -1;
	if (len == 6 && strncmp(text, "memory", len) == 0 && n > 0 && !is_negative)
		ret->memory_max = n << 20;
	else if (len == 4 && strncmp(text, "pids", len) == 0 && n > 0 && !is_negative)
		ret->pids_max = (uint32_t)n;
	else if (len == 3 && strncmp(text, "oom", len) == 0 && n <= 1000)
		ret->oom_adjust = is_negative ? -(int)n : (int)n;
	else
		return -1;
	return 0;
}

static int parse_service(char *line, struct kb_service *ret)
{
	*ret = (struct kb_service){.name = word(&line)};
	char *uid = word(&line), *when = word(&line);
	uint64_t number;
	if (!uid || !when || parse_number(uid, 65533, &number))
		return -1;
	ret->uid = (uid_t)number;
	if (parse_when(when, ret))
		return -1;
	int n = 0;
	char *arg = word(&line);
	for (; arg && arg[0] != '/'; arg = word(&line))
		if (parse_limit(arg, ret))
			return -1;
	for (; arg; arg = word(&line)) {
		if (n == KB_INIT_ARGS_MAX)
			return -1;
		ret->argv[n++] = arg;
	}
	return n > 0 && ret->argv[0][0] == '/' ? 0 : -1;
}

int kb_init_parse_services(char *text, struct kb_service ret[KB_INIT_SERVICES_MAX], unsigned *ret_line)
{
	int n = 0;
	*ret_line = 0;
	while (*text) {
		char *line = text;
		text += strcspn(text, "\n");
		if (*text)
			*text++ = 0;
		(*ret_line)++;
		line[strcspn(line, "#")] = 0;
		if (line[strspn(line, " \t")] == 0)
			continue;
		if (n == KB_INIT_SERVICES_MAX || parse_service(line, &ret[n]))
			return -1;
		n++;
	}
	return n;
}

int kb_init_option(const char *text, const char *key, char *ret, size_t size)
{
	size_t key_len = strlen(key);
	int found = -1;
	for (const char *at = text; *at;) {
		at += strspn(at, " \t\n");
		size_t len = strcspn(at, " \t\n");
		if (len > key_len && strncmp(at, key, key_len) == 0 && at[key_len] == '=') {
			size_t value = len - key_len - 1;
			found = -1;
			if (value < size) {
				memcpy(ret, at + key_len + 1, value);
				ret[value] = 0;
				found = (int)value;
			}
		}
		at += len;
	}
	return found;
}

static bool is_hash(const char *text)
{
	return strlen(text) == KB_INIT_HASH_HEX && strspn(text, "0123456789abcdef") == KB_INIT_HASH_HEX;
}

int kb_init_parse_verity(const char *text, struct kb_verity *ret)
{
	*ret = (struct kb_verity){0};
	const size_t h = KB_INIT_HASH_HEX;
	if (strlen(text) < 2 * h + 3 || text[h] != ':' || text[2 * h + 1] != ':')
		return -1;
	memcpy(ret->hash, text, h);
	memcpy(ret->salt, text + h + 1, h);
	// A root of 2^40 blocks is 4 PiB: more is a mistake, and times 8 sectors it still fits.
	if (parse_number(text + 2 * h + 2, UINT64_C(1) << 40, &ret->blocks) || ret->blocks == 0)
		return -1;
	return is_hash(ret->hash) && is_hash(ret->salt) ? 0 : -1;
}

int kb_init_verity_table(const struct kb_verity *v, const char *device, char *ret, size_t size)
{
	int n = snprintf(ret, size, "1 %s %s 4096 4096 %llu %llu sha256 %s %s 1 panic_on_corruption", device, device,
		(unsigned long long)v->blocks, (unsigned long long)v->blocks, v->hash, v->salt);
	return n > 0 && (size_t)n < size ? 0 : -1;
}

unsigned kb_init_parse_listeners(const char *text, uint16_t *ret, unsigned n, unsigned n_max)
{
	// "   0: 00000000:20FB 00000000:0000 0A ...": state 0A is TCP_LISTEN. The first line is a heading.
	for (const char *line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
		unsigned port, state, i;
		if (sscanf(line + 1, " %*u: %*32[0-9A-F]:%4x %*32[0-9A-F]:%*4x %2x", &port, &state) != 2 || state != 0x0a)
			continue;
		for (i = 0; i < n && ret[i] != port; i++)
			;
		if (i == n && n < n_max)
			ret[n++] = (uint16_t)port;
	}
	return n;
}

void kb_init_recovery(const char *selected, const char *by_default, unsigned n, struct kb_recovery *ret)
{
	const int tried = kb_efi_slot(selected), own = kb_efi_slot(by_default);
	const bool is_trial = tried >= 0 && own >= 0 && tried != own;
	const char *name = selected[0] ? selected : by_default[0] ? by_default : "any kernel";
	*ret = (struct kb_recovery){.new_default = -1, .is_over = n > KB_INIT_RECOVERIES_MAX};
	snprintf(ret->reason, sizeof ret->reason,
		"the firmware did not start %.32s: it is damaged, missing, or not signed by a key that it knows", name);
	// On trial it was a single start: the next one is the old system's by itself.
	if (!is_trial)
		ret->new_default = tried >= 0 ? 1 - tried : own >= 0 ? 1 - own : 0;
}

void kb_init_heard(struct kb_service *s, const char *text, int64_t now)
{
	for (const char *line = text; *line;
		line += line[strcspn(line, "\n")] ? strcspn(line, "\n") + 1 : strcspn(line, "\n")) {
		const size_t len = strcspn(line, "\n");
		if (len == 7 && strncmp(line, "READY=1", len) == 0)
			s->is_ready = true;
		else if (len == 10 && strncmp(line, "STOPPING=1", len) == 0)
			s->is_ready = false;
		else if (len != 10 || strncmp(line, "WATCHDOG=1", len) != 0)
			continue;
		s->heard = now;
	}
}

enum kb_wellness kb_init_wellness(const struct kb_service *s, int64_t now)
{
	if (!s->pid)
		return KB_WELL;
	if (s->killed)
		return now - s->killed > KB_INIT_STUCK_MS ? KB_STUCK : KB_WELL;
	return s->is_ready && now - s->heard > KB_INIT_SILENT_MS ? KB_SILENT : KB_WELL;
}

int64_t kb_init_backoff(unsigned failures)
{
	const int64_t first = 500, most = 30000;
	int64_t ms = failures > 0 ? first << (failures < 8 ? failures - 1 : 7) : 0;
	return ms < most ? ms : most;
}
