# Kotobako. One non-recursive make; `make help` lists the targets.
# On a host without the Debian 13 packages of image/buildroot.list every goal is
# forwarded into a build root made for it (image/buildroot.sh), at the same path.
.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# --- the firmware image: in a root of its own packages, so these goals start outside the build root ----------------
BOARD ?= qemu-x86_64
IMAGE_MODEL ?= build/models/smollm2-135m-instruct.kbm
IMAGE_GOALS := image run-image check-image check-update check-full
IMAGE_TOOLS := KB_TOOLS=image image/buildroot.sh exec
.PHONY: $(IMAGE_GOALS)
image: ## the firmware image of BOARD (qemu-x86_64) with IMAGE_MODEL on it: build/image/BOARD/disk.img
	@$(MAKE) --no-print-directory release $(filter build/models/%,$(IMAGE_MODEL))
	@$(IMAGE_TOOLS) env MODEL=$(IMAGE_MODEL) MODEL_LICENCE=$(MODEL_LICENCE) KB_KEYS=$(KB_KEYS) image/make_image.sh $(BOARD)

run-image: image ## boots it in QEMU (Secure Boot, TPM), pairs, asks; ONCE=1 powers it off after the answer
	@$(IMAGE_TOOLS) env ONCE=$(ONCE) PORT=$(PORT) TOKENS=$(TOKENS) QUESTION="$(QUESTION)" KB_KEYS=$(KB_KEYS) image/run_image.py $(BOARD)

check-image: ## the image's tests: boots, tampering, attack surface, two builds alike
	@$(MAKE) --no-print-directory image-inputs
	@$(IMAGE_TOOLS) tests/image/run.sh

check-update: ## a box with the image of the commit before takes this one's as an update, and goes back
	@$(MAKE) --no-print-directory image-inputs
	@$(IMAGE_TOOLS) env KB_IMAGE_OUT=build/image/next OS_VERSION=2 MODEL=build/image/tiny.kbm MODEL_LICENCE=CC0-1.0 image/make_image.sh $(BOARD)
	@tests/image/previous.sh $(BOARD)
	@$(IMAGE_TOOLS) env KB_IMAGE_OUT=build/image/next KB_TEST_TIMEOUT=1800 tests/run.sh tests/image/previous_update.py

check-full: ## test, then the long ones: images of 6 GB, whole distributions, the firmware image
	@$(MAKE) --no-print-directory check-programs
	@$(MAKE) --no-print-directory check-image

ifneq ($(shell image/buildroot.sh probe),native)

.DEFAULT_GOAL := help
GOALS := $(filter-out $(IMAGE_GOALS),$(or $(MAKECMDGOALS),help))
ifneq ($(GOALS),)
.PHONY: $(GOALS) forward
$(GOALS): forward
	@:
forward:
	@exec image/buildroot.sh exec env TERM="$${TERM:-dumb}" KB_TTY=$$( [ -t 1 ] && echo 1 || echo 0 ) \
		CI="$${CI:-}" make --no-print-directory -j2 $(GOALS) $(MAKEOVERRIDES)
endif

else

.DEFAULT_GOAL := all
config ?= release
CONFIGS := release asan tsan fuzz
ifeq ($(filter $(config),$(CONFIGS)),)
$(error config=$(config) is not one of: $(CONFIGS))
endif

B := build/$(config)
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
CC_release := gcc
CC_asan := gcc
CC_tsan := gcc
CC_fuzz := clang
ifeq ($(origin CC),default)
CC := $(CC_$(config))
endif

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Werror
CFLAGS_release := -O2 -g -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fPIE
CFLAGS_asan := -O1 -g -DKB_TEST_KEYS -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -fPIE
CFLAGS_tsan := -O1 -g -DKB_TEST_KEYS -fsanitize=thread -fPIE
CFLAGS_fuzz := -O1 -g -DKB_TEST_KEYS -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -DKB_FUZZ -fPIE
LDFLAGS_release := -pie -Wl,-z,relro,-z,now
LDFLAGS_asan := -fsanitize=address,undefined -pie
LDFLAGS_tsan := -fsanitize=thread -pie
LDFLAGS_fuzz := -fsanitize=fuzzer,address,undefined -pie
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE -Iruntime -Itests -I. -Ibuild $(WARN) $(CFLAGS_$(config)) $(CFLAGS)
LDFLAGS_ALL := $(LDFLAGS_$(config)) -Wl,--as-needed $(LDFLAGS)

# The rooms, lowest first. Who may include whom: tests/lint/rooms.txt, checked by `make lint`.
ROOMS := $(shell sed -n 's/^\([a-z/]*\):.*/\1/p' tests/lint/rooms.txt)
# Libraries every program may draw on; --as-needed keeps only what a program really uses.
LIBS := -luv -llmdb -lmbedtls -lmbedx509 -lmbedcrypto -lnettle -lvulkan -lllhttp -lyyjson -lutf8proc -lseccomp -lcryptsetup -ltss2-sys -ltss2-tctildr -ledit -lqrencode -lm -lpthread

room_src = $(sort $(wildcard $(1)/*.c))
room_lib = $(B)/lib/$(subst /,_,$(1)).a
obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
# shaders/variants.list: NAME SOURCE [-DX=Y ...]; each row is one SPIR-V module kb_spv_NAME.
SPV_NAMES := $(shell sed 's/\#.*//' shaders/variants.list 2>/dev/null | awk 'NF{print $$1}')
SPV_OBJ := $(SPV_NAMES:%=$(B)/obj/spv/%.o)
LIBRARIES := $(foreach r,$(filter-out firmware/%,$(ROOMS)),$(if $(call room_src,$(r)),$(call room_lib,$(r))))

# Programs: each firmware room is one program. Its main is firmware/<room>/<room>_main.c.
PROGRAM_kotobakod := firmware/api
PROGRAM_kotobako-engine := firmware/engine
PROGRAM_kotobako := firmware/ctl
PROGRAM_kotobako-disk := firmware/disk
PROGRAM_kotobako-boot := firmware/boot
PROGRAM_kotobako-net := firmware/network
PROGRAM_NAMES := kotobakod kotobako-engine kotobako kotobako-disk kotobako-boot kotobako-net
PROGRAMS := $(foreach p,$(PROGRAM_NAMES),$(if $(call room_src,$(PROGRAM_$(p))),$(B)/$(p)))

# PID 1 of the image: static, of nothing but its own room and the firmware's variables.
PROGRAMS += $(if $(filter release,$(config)),$(B)/kotobako-init)
BOOT_PARTS := $(call obj,$(filter-out %_main.c,$(call room_src,firmware/boot)))
NET_PARTS := $(call obj,$(filter-out %_main.c,$(call room_src,firmware/network)))
DISK_PARTS := $(B)/obj/firmware/disk/recovery.o
INIT_PARTS := $(call obj,$(filter-out %_main.c,$(call room_src,firmware/init)))
INIT_ROOMS := $(call obj,$(call room_src,runtime/efi))

TESTS_SRC := $(sort $(wildcard tests/unit/*/*_test.c))
TESTS := $(patsubst tests/unit/%.c,$(B)/test/%,$(TESTS_SRC))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/*_fuzz.c))
FUZZERS := $(patsubst tests/fuzz/%.c,build/fuzz/bin/%,$(FUZZ_SRC))

.PHONY: all
all: $(PROGRAMS) ## build the programs (config=release|asan|tsan|fuzz, V=1 shows commands)

.PHONY: help
help: ## this list
	@echo "Targets (make run and make test need nothing installed by hand):"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 16

# --- compiling ---------------------------------------------------------------
$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	@[ "$(V)" = 1 ] || echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c $< -o $@

define room_rule
$(call room_lib,$(1)): $(call obj,$(call room_src,$(1))) $(if $(filter runtime/op,$(1)),$$(SPV_OBJ))
	@mkdir -p $$(@D)
	$$(Q)rm -f $$@ && ar rcsD $$@ $$^
endef
$(foreach r,$(filter-out firmware/%,$(ROOMS)),$(eval $(call room_rule,$(r))))

define program_rule
$(B)/$(1): $(call obj,$(call room_src,$(PROGRAM_$(1)))) $(LIBRARIES)
	@[ "$(V)" = 1 ] || echo "  LD   $$@"
	$$(Q)$$(CC) $$(LDFLAGS_ALL) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(LIBRARIES) -Wl,--end-group $$(LIBS)
endef
$(foreach p,$(PROGRAM_NAMES),$(eval $(call program_rule,$(p))))

$(B)/kotobako-init: $(call obj,$(call room_src,firmware/init)) $(INIT_ROOMS)
	@[ "$(V)" = 1 ] || echo "  LD   $@"
	$(Q)$(CC) -static-pie -Wl,-z,relro,-z,now $(LDFLAGS) -o $@ $^

# --- shaders -----------------------------------------------------------------
build/shaders/rules.mk: shaders/variants.list Makefile
	@mkdir -p build/shaders
	@sed 's/#.*//' $< | awk 'NF{n=$$1; s=$$2; $$1="";$$2=""; printf "build/shaders/%s.spv: shaders/%s\nbuild/shaders/%s.spv: SPVDEF :=%s\n", n, s, n, $$0}' >$@
-include build/shaders/rules.mk
build/shaders/%.spv: shaders/variants.list
	@mkdir -p $(@D)
	$(Q)glslc --target-env=vulkan1.3 -O -Werror -MD -MF $@.d -MT $@ -Ishaders -I. $(SPVDEF) -fshader-stage=compute $(filter shaders/%.comp,$^) -o $@
	$(Q)spirv-val --target-env vulkan1.3 $@
build/shaders/%.spv.c: build/shaders/%.spv
	$(Q)name=$(notdir $*); { printf '#include <stddef.h>\n#include <stdint.h>\n#include "op/spv.h"\n'; \
		printf 'const uint32_t kb_spv_%s[] = {\n' $$name; od -An -v -tx4 $< | sed 's/ \([0-9a-f]\)/ 0x\1/g; s/\([0-9a-f]\)\( \|$$\)/\1,\2/g'; \
		printf '};\nconst size_t kb_spv_%s_size = sizeof kb_spv_%s;\n' $$name $$name; } >$@
build/shaders/spv.h: shaders/variants.list
	@mkdir -p $(@D)
	$(Q){ printf '// Generated from shaders/variants.list.\n#pragma once\n#include <stddef.h>\n#include <stdint.h>\n'; \
		for n in $(SPV_NAMES); do printf 'extern const uint32_t kb_spv_%s[];\nextern const size_t kb_spv_%s_size;\n' $$n $$n; done; } >$@
$(B)/obj/spv/%.o: build/shaders/%.spv.c build/shaders/spv.h
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) -c $< -o $@
-include $(wildcard build/shaders/*.d)
$(call obj,$(call room_src,runtime/op)): build/shaders/spv.h

# --- tests -------------------------------------------------------------------
$(B)/test/%: $(B)/obj/tests/unit/%.o $(LIBRARIES) $(call obj,$(call room_src,tests/harness))
	@mkdir -p $(@D)
	@[ "$(V)" = 1 ] || echo "  LD   $@"
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) -Wl,--start-group $(LIBRARIES) -Wl,--end-group $(LIBS) -lcmocka
# A test that is more than one file: NOUN_test.c with NOUN_*.c beside it.
test_parts = $(call obj,$(filter-out %_test.c,$(wildcard tests/unit/$(1)_*.c)))
$(foreach t,$(TESTS_SRC:tests/unit/%_test.c=%),$(if $(call test_parts,$(t)),$(eval $(B)/test/$(t)_test: $(call test_parts,$(t)))))
# Tests of the daemon's pure parts, and the scripted engine that stands in for kotobako-engine.
API_PARTS := $(call obj,$(filter-out %_main.c,$(call room_src,firmware/api)))
$(filter $(B)/test/api/%,$(TESTS)): $(API_PARTS)
build/fuzz/bin/api_fuzz: $(API_PARTS)
$(filter $(B)/test/init/%,$(TESTS)): $(INIT_PARTS)
$(filter $(B)/test/disk/%,$(TESTS)): $(DISK_PARTS)
$(filter $(B)/test/boot/%,$(TESTS)): $(BOOT_PARTS)
$(filter $(B)/test/network/%,$(TESTS)): $(NET_PARTS)
$(B)/test/fake_engine: $(B)/obj/tests/e2e/fake_engine.o $(LIBRARIES)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) -Wl,--start-group $(LIBRARIES) -Wl,--end-group $(LIBS)
# Preloaded by power_test.py.
$(B)/test/record_io.so: tests/e2e/record_io.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) -U_FORTIFY_SOURCE -fPIC -shared -o $@ $< -ldl
build/fuzz/bin/%: build/fuzz/obj/tests/fuzz/%.o $(LIBRARIES)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) -Wl,--start-group $(LIBRARIES) -Wl,--end-group $(LIBS)

# Tests that run whole real models against the oracles: as built for release, because what they exercise is the
# driver's compiled shaders, which sanitizers do not see and only slow down and bloat.
MODEL_TESTS := $(patsubst %,model/%_test,greedy kl kl_universal kl_stream batch model_vk)
.PHONY: unit-tests model-tests
unit-tests: $(filter-out $(MODEL_TESTS:%=$(B)/test/%),$(TESTS))
model-tests: $(MODEL_TESTS:%=$(B)/test/%)

# Models as the tests and benchmarks use them: fetched, checked, imported.
MODELS := build/models/smollm2-135m-instruct.kbm build/models/gemma-3-270m.kbm
GGUF_smollm2-135m-instruct := smollm2-135m-instruct-q4_1
GGUF_gemma-3-270m := gemma-3-270m-q4_k_m
build/models/%.kbm: build/release/kotobako image/models.list
	@mkdir -p $(@D)
	$(Q)image/fetch_model.sh $(GGUF_$*)
	$(Q)build/release/kotobako import build/downloads/$(GGUF_$*).gguf --replace --out $@

.PHONY: release test-inputs test check-programs image-inputs run bench bench-serve bench-install bench-plot bench-op fuzz fuzz-replay tidy format
release:
	$(Q)$(MAKE) --no-print-directory config=release all

test-inputs: release
	$(Q)$(MAKE) --no-print-directory config=release $(MODELS) build/release/test/fake_engine build/release/test/record_io.so
	$(Q)tests/data/fetch_llama_vocab.sh
	$(Q)tests/e2e/venv.sh openai tests/e2e/requirements.txt
	$(Q)tests/e2e/venv.sh seal tests/e2e/seal.txt
	$(Q)tests/e2e/venv.sh screen tests/e2e/screen.txt

# The tests: unit tests with sanitizers, then whole programs as built for release. Heavier: check-full.
E2E := $(sort $(wildcard tests/e2e/*_test.sh tests/e2e/*_test.py))
test: lint test-inputs ## everything that must hold, in under 40 minutes on two cores
	$(Q)$(MAKE) --no-print-directory tidy
	$(Q)$(MAKE) --no-print-directory config=asan unit-tests
	$(Q)$(MAKE) --no-print-directory config=release model-tests
	$(Q)$(MAKE) --no-print-directory config=fuzz fuzz-replay
	$(Q)tests/run.sh $(filter-out $(MODEL_TESTS:%=build/asan/test/%),$(patsubst $(B)/%,build/asan/%,$(TESTS))) \
		$(E2E) $(MODEL_TESTS:%=build/release/test/%)

check-programs: test
	$(Q)KB_POWER_STATES=2000 tests/run.sh tests/e2e/system_power_test.py
	$(Q)tests/run.sh $(sort $(wildcard tests/full/*_test.py))
	$(Q)tests/golden/full_kl.sh

# A model with made-up weights, small enough for a processor that is itself emulated.
image-inputs: release build/image/tiny.kbm build/image/silent build/models/smollm2-135m-instruct.kbm
# A service that goes wrong (tests/image/services_test.py); the image has no libraries for it.
build/image/silent: tests/image/silent.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -O2 $(WARN) -static -o $@ $<
build/image/tiny.kbm: tests/bench/random_model.py build/release/kotobako
	@mkdir -p $(@D)
	$(Q)image/fetch_model.sh smollm2-135m-instruct-q4_1
	$(Q)python3 $< $(@D)/tiny.gguf --tokenizer build/downloads/smollm2-135m-instruct-q4_1.gguf --layers 2 --width 64 \
		--heads 2 --kv-heads 1 --ff 128 --format q8_0
	$(Q)build/release/kotobako import $(@D)/tiny.gguf --replace --out $@

run: release ## the box on this machine: a model answers over TLS (ONCE=1 leaves after the answer)
	$(Q)ONCE=$(ONCE) PORT=$(PORT) image/run.sh

bench: release $(MODELS) ## ours beside llama.cpp (Vulkan and CPU) on the same model, in turns
	$(Q)tests/bench/build_llama.sh
	$(Q)$(MAKE) --no-print-directory config=release build/release/test/op/checkop_test
	$(Q)python3 tests/bench/bench.py
	$(Q)python3 tests/bench/curves.py

bench-serve: release $(MODELS) ## the box as a server beside llama-server: many clients, latency, fairness
	$(Q)tests/bench/build_llama.sh llama llama-server
	$(Q)python3 tests/bench/serve.py

bench-install: release $(MODELS) ## installing and loading signed images beside what one would do without
	$(Q)python3 tests/bench/install.py

bench-plot: ## docs/bench/*.svg from what bench and bench-serve measured
	$(Q)tests/bench/build_llama.sh packages
	$(Q)tests/bench/plot.py

bench-op: ## GMAC/s and GB/s of each kernel beside what the device can do
	$(Q)$(MAKE) --no-print-directory config=release build/release/test/op/checkop_test
	$(Q)KB_CHECKOP_BENCH=1 build/release/test/op/checkop_test

FUZZ_SECONDS ?= 600
ifeq ($(config),fuzz)
fuzz-replay: $(FUZZERS)
	$(Q)for f in $(FUZZERS); do tests/fuzz/replay.sh $$f || exit 1; done
fuzz: $(FUZZERS)
	$(Q)for f in $(FUZZERS); do tests/fuzz/run.sh $$f $(FUZZ_SECONDS) || exit 1; done
else
fuzz: ## each parser's fuzzer for FUZZ_SECONDS (600)
	$(Q)$(MAKE) --no-print-directory config=fuzz fuzz FUZZ_SECONDS=$(FUZZ_SECONDS)
endif

SOURCES := $(foreach r,$(ROOMS),$(call room_src,$(r)))
tidy: ## clang-tidy over the sources
	@echo "  TIDY"
	$(Q)printf '%s\n' $(SOURCES) | xargs -P 2 -n 1 sh -c \
		'clang-tidy --quiet "$$1" -- -std=c11 -D_GNU_SOURCE -Iruntime -Itests -I. -Ibuild 2>/dev/null || { echo "tidy: $$1"; exit 255; }' sh
format: ## clang-format over sources and tests
	$(Q)git ls-files '*.c' '*.h' | xargs clang-format -i

.PHONY: lint
lint: ## rooms' direction, sizes, names, format
	$(Q)tests/lint/lint.sh

.PHONY: clean
clean: ## remove everything built (keeps the build root and downloads)
	rm -rf build/release build/asan build/tsan build/fuzz build/shaders build/models

DEPS := $(shell find $(B)/obj -name '*.d' 2>/dev/null)
-include $(DEPS)

endif
