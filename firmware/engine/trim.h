// Gives memory back to the kernel that only compiling needed: lavapipe brings LLVM, some 60 MB of code and tables
// that no step touches. Read-only file pages come back by themselves when they are used again.
#pragma once

void kb_trim(void);
