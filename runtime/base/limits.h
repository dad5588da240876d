// Ceilings on what comes from outside, each with its reason. Past one: KB_ELIMIT and a text that names it.
#pragma once

// --- model files and images --------------------------------------------------
#define KB_MAX_META_KEYS 4096u                 // real files have 20 to 60
#define KB_MAX_META_KEY_BYTES 255u             // LMDB takes keys up to 511; the longest in use is below 64
#define KB_MAX_TENSORS 65536u                  // the largest mixture-of-experts files have about 2,000
#define KB_MAX_TENSOR_NAME 127u                // GGUF allows 64
#define KB_MAX_ARRAY (16u << 20)               // elements; vocabularies and merge lists stay below 1 Mi
#define KB_MAX_STRING_BYTES (16u << 20)        // chat templates and model cards stay below 100 KiB
#define KB_MAX_HEAD_BYTES (512u << 20)         // metadata and tensor table together; read into memory by the importer
#define KB_MAX_VALUE_BYTES (UINT64_C(1) << 30) // one LMDB value; 0.9 silently loses data above 2 GiB
#define KB_MAX_SEGMENTS 4096u                  // 1 TiB of weights in segments of the usual size
#define KB_MAX_MODEL_NAME 64u                  // fits a directory listing and a URL
#define KB_MAX_MODELS 1024u                    // of one models directory

// --- a model's numbers ---------------------------------------------------------
#define KB_MAX_LAYERS 1024u            // the deepest open models have 126
#define KB_MAX_WIDTH 65536u            // the widest have 18,432
#define KB_MAX_FEED_FORWARD (1u << 18) // the widest have 53,248
#define KB_MAX_HEADS 1024u             // the most in use is 128
#define KB_MAX_HEAD_DIM 512u           // kernels are tested from 64 to 256
#define KB_MAX_VOCAB (1u << 20)        // the largest in use is 262,144
#define KB_MAX_CONTEXT (1u << 24)      // positions stay exact in f32
#define KB_MAX_SEQS 1024u              // of one engine; each has a row of the page table
