#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int max_level = -1;

void kb_log_set_level(enum kb_log_level level)
{
	max_level = (int)level;
}

static int level_from_environment(void)
{
	const char *wish = getenv("KB_LOG");
	return wish && strcmp(wish, "debug") == 0 ? KB_LOG_DEBUG : KB_LOG_INFO;
}

void kb_log(enum kb_log_level level, const char *module, const char *format, ...)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};
	char line[1024]; // longer lines are cut: a log line is for a person
	if (max_level < 0)
		max_level = level_from_environment();
	if ((int)level > max_level)
		return;
	struct timespec now;
	struct tm utc;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
	n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %s %s: ", now.tv_nsec / 1000000, names[level], module);
	va_list args;
	va_start(args, format);
	int m = vsnprintf(line + n, sizeof line - n - 1, format, args);
	va_end(args);
	n = m < 0 ? n : n + (size_t)m < sizeof line - 1 ? n + (size_t)m : sizeof line - 2;
	for (size_t i = 0; i < n; i++) // one event, one line: no injected line breaks or escapes
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	ssize_t written = write(STDERR_FILENO, line, n);
	(void)written;
}
