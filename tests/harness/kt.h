// What every unit test includes: cmocka with the headers it wants, in the order it wants them.
// One test program per noun; it prints TAP (CMOCKA_MESSAGE_OUTPUT=TAP) and is run by tests/run.sh.
#pragma once
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
// clang-format on
