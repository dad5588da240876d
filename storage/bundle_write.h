// Making an image of a model file. The same parts give the same bytes. Memory does not grow with the file: the hash
// tree lies in a temporary file beside the image (a 128th of the model's size).
#pragma once
#include "storage/bundle_head.h"
#include "storage/progress.h"

struct kb_bundle_parts {
	struct kb_chain chain;
	struct kb_manifest manifest; // payload_bytes and payload_root are filled in
	const char *payload;         // the file's path
	bool replace;                // an image of that name
};

// Writes path, whole or not at all. What it makes is not signed yet. KB_ECORRUPT: the payload changed meanwhile.
KB_MUST_CHECK int kb_bundle_write(
	const struct kb_bundle_parts *parts, const char *path, const struct kb_progress *progress, struct kb_err *err);
