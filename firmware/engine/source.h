// A model image as a source of weights and metadata.
#pragma once
#include "model/model.h"
#include "storage/image.h"

// Valid as long as the image is open.
struct kb_model_source kb_source_of_image(struct kb_image *image);
