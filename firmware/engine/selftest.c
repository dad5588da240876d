// --sandbox-selftest: the engine's own start without a model, then the proof. For tests.
#include "base/log.h"
#include "firmware/engine/engine.h"
#include <stdlib.h>

int kb_mode_sandbox_selftest(const struct kb_engine_options *o, char **arguments)
{
	(void)arguments;
	struct kb_engine e;
	struct kb_err err = {0};
	if (kb_engine_open(&e, o, NULL, NULL, &err)) {
		kb_error("engine", "%s", err.text);
		return EXIT_FAILURE;
	}
	int rc = kb_sandbox_selftest();
	kb_engine_close(&e);
	return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
