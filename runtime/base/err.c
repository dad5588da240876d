#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void kb_err_set(struct kb_err *err, int code, const char *format, ...)
{
	if (err) {
		va_list args;
		va_start(args, format);
		err->code = code;
		vsnprintf(err->text, sizeof err->text, format, args);
		va_end(args);
	}
}

int kb_err_wrap(struct kb_err *err, const char *format, ...)
{
	char old[KB_ERR_TEXT_MAX];
	va_list args;
	memcpy(old, err->text, sizeof old);
	va_start(args, format);
	int n = vsnprintf(err->text, sizeof err->text, format, args);
	va_end(args);
	if (n >= 0 && (size_t)n < sizeof err->text)
		snprintf(err->text + n, sizeof err->text - (size_t)n, "%s", old);
	return err->code;
}

const char *kb_err_name(int code)
{
	switch (code) {
	case KB_OK:
		return "OK";
#define XX(name, value, message) \
	case KB_E##name:             \
		return #name;
		KB_ERR_MAP(XX)
#undef XX
	}
	return "UNKNOWN";
}

const char *kb_err_message(int code)
{
	switch (code) {
	case KB_OK:
		return "success";
#define XX(name, value, message) \
	case KB_E##name:             \
		return message;
		KB_ERR_MAP(XX)
#undef XX
	}
	return "unknown error";
}

int kb_err_from_errno(int number)
{
	switch (number) {
	case ENOMEM:
		return KB_ENOMEM;
	case ENOSPC:
	case EDQUOT:
		return KB_ENOSPACE;
	case ENOENT:
		return KB_ENOTFOUND;
	case EEXIST:
		return KB_EEXISTS;
	case EACCES:
	case EPERM:
	case EROFS:
		return KB_EDENIED;
	case EBUSY:
	case EAGAIN:
		return KB_EBUSY;
	default:
		return KB_EIO;
	}
}
