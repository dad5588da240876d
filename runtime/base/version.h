// Which release this is: for people, and as the number that images ask for (manifest.h: min_firmware). Both go up with
// each release.
#pragma once

#define KB_VERSION "0.1"
#define KB_FIRMWARE 1u
