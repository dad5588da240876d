// One log line: "<time> <level> <module>: <text>" on standard error.
// Only programs (firmware/) log above debug; rooms below return errors instead.
// Never log prompts, answers or keys.
#pragma once

enum kb_log_level { KB_LOG_ERROR, KB_LOG_WARN, KB_LOG_INFO, KB_LOG_DEBUG };

// Lines above this level are dropped. Starts at INFO, or at DEBUG where KB_LOG=debug is in the environment.
void kb_log_set_level(enum kb_log_level level);
void kb_log(enum kb_log_level level, const char *module, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define kb_error(module, ...) kb_log(KB_LOG_ERROR, module, __VA_ARGS__)
#define kb_warn(module, ...) kb_log(KB_LOG_WARN, module, __VA_ARGS__)
#define kb_info(module, ...) kb_log(KB_LOG_INFO, module, __VA_ARGS__)
#define kb_debug(module, ...) kb_log(KB_LOG_DEBUG, module, __VA_ARGS__)
