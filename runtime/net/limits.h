// Every limit of the wire, each with its reason. Times in milliseconds.
#pragma once

// --- one HTTP message
#define KB_HTTP_URL_MAX 2048u             // our longest path is under 100 bytes
#define KB_HTTP_HEADER_BYTES_MAX 16384u   // all header names and values of a message; proxies use 8-16 KiB
#define KB_HTTP_HEADERS_MAX 64u           // header lines of a message; clients send about 15
#define KB_HTTP_BODY_MAX (8u << 20)       // a request: 32k tokens of text take under 1 MiB as JSON
#define KB_HTTP_REPLY_MAX (64u << 20)     // a whole answer read by our client: 8 choices with 20 logprobs a token
#define KB_HTTP_CHUNK_EXTENSION_MAX 1024u // bytes of chunk extensions and trailers of a message; nobody needs them
#define KB_HTTP_PIPELINE_MAX (1u << 20)   // bytes received and not yet parsed while an answer is being written

// --- TLS
#define KB_TLS_RECORD_MAX 16384u       // plaintext of one record (RFC 8446, 5.1)
#define KB_TLS_INPUT_MAX (64u << 10)   // ciphertext received and not yet read
#define KB_TLS_OUTPUT_MAX (512u << 10) // ciphertext made and not yet sent; writers look before they write
#define KB_TLS_NAME_MAX 64u            // a certificate's common name (X.520 upper bound)
#define KB_X509_SERVER_NAMES_MAX 48u   // names and addresses in the server's certificate: 2 KiB of it
#define KB_X509_PEM_MAX 16384u         // a certificate, key or signing request as PEM
