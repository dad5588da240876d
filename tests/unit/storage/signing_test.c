// Keys and signatures of our own: what is signed is what signature.h accepts, always the same bytes; other kinds of
// keys are refused. That openssl reads the same keys and accepts the same signatures: tests/e2e/image_test.py.
#include "unit/storage/keys.h"

static void what_is_signed_is_accepted(void **state)
{
	static const enum kb_curve curves[] = {KB_CURVE_P256, KB_CURVE_P384};
	struct kb_err err = {0};
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct kb_buf secret = {0}, public = {0}, text = {0};
		struct kb_signer *s;
		struct kb_public_key key;
		struct kb_signatures list;
		uint8_t block[2][256] = {KB_SIGNATURES_NONE, KB_SIGNATURES_NONE};
		assert_int_equal(kb_key_new(curves[i], &err, &secret, &public), KB_OK);
		assert_int_equal(secret.data[secret.len], 0);
		assert_int_equal(kb_signer_open((const char *)secret.data, &err, &s), KB_OK);
		assert_int_equal(kb_public_key_read((const char *)public.data, &err, &key), KB_OK);
		assert_int_equal(key.curve, curves[i]);
		assert_memory_equal(&key, kb_signer_key(s), sizeof key);
		assert_int_equal(kb_buf_puts(&text, "text"), KB_OK);
		for (int twice = 0; twice < 2; twice++)
			put_signature(s, KB_DOMAIN_MODEL, &text, block[twice], sizeof block[twice]);
		assert_memory_equal(block[0], block[1], sizeof block[0]);
		assert_int_equal(kb_signatures_parse(block[0], sizeof block[0], &err, &list), KB_OK);
		assert_int_equal(list.n, 1);
		assert_int_equal(kb_signatures_check(KB_DOMAIN_MODEL, text.data, text.len, &list, &key, 1, 1, &err), KB_OK);
		assert_int_equal(kb_signatures_check(KB_DOMAIN_ROOT, text.data, text.len, &list, &key, 1, 1, &err), KB_EBAD);
		kb_signer_close(s);
		kb_buf_finish(&secret);
		kb_buf_finish(&public);
		kb_buf_finish(&text);
	}
}

// Public keys that openssl made: of RSA, of secp256k1 (as long as P-256), and of Ed25519.
static void other_keys_are_refused(void **state)
{
	static const struct {
		const char *pem;
		int code;
	} rows[] = {
		{"", KB_EBAD},
		{"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", KB_EBAD},
		{"-----BEGIN PUBLIC KEY-----\n"
		 "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDH9jZ6linBa89FM5RMjq+eV3/u\n"
		 "jxe2Y0E2Cml/ok25A3mJapEaTthqyySMu6TrqHwrb4YcABhUOLd3qGCivPdzTEQt\n"
		 "pH6qaPUsWeXCRE+cYXkHgqMxEnOSh0zfeXzA/xUaUgKbFeI4vPcHMGtsMibP5tgZ\n"
		 "3wNk5d7vDU2rFu+mFwIDAQAB\n"
		 "-----END PUBLIC KEY-----\n",
			KB_EUNSUPPORTED},
		{"-----BEGIN PUBLIC KEY-----\n"
		 "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEvhgYvYnGraCFmTj5erGP/2TW1T3djGY7\n"
		 "+j8UKf0HDwA581nQxE/T9S3kk6FQSZ0g/9fJqeu6Vsu6ESv+VlIKuQ==\n"
		 "-----END PUBLIC KEY-----\n",
			KB_EUNSUPPORTED},
		{"-----BEGIN PUBLIC KEY-----\n"
		 "MCowBQYDK2VwAyEAEaMHF5Z6dxyUPy+tlxuJSol0knyEjEVzODKbbo1N308=\n"
		 "-----END PUBLIC KEY-----\n",
			KB_EBAD},
	};
	struct kb_err err = {0};
	struct kb_public_key key;
	struct kb_signer *s;
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		int rc = kb_public_key_read(rows[i].pem, &err, &key);
		if (rc != rows[i].code)
			fail_msg("row %zu: %d, expected %d (%s)", i, rc, rows[i].code, err.text);
		assert_int_equal(kb_signer_open(rows[i].pem, &err, &s), KB_EBAD);
	}
}

static void der_is_read(void **state)
{
	// r = 1, s = 2^255 (a zero in front of it), as DER.
	uint8_t der[6 + 2 + 1 + 33] = {0x30, 38, 2, 1, 1, 2, 33, 0, 0x80}, raw[KB_SIGNATURE_MAX];
	struct kb_public_key key = {.curve = KB_CURVE_P256};
	struct kb_err err = {0};
	size_t len = 0, whole = 2 + 38;
	(void)state;
	assert_int_equal(kb_signature_from_der(&key, der, whole, &err, raw, &len), KB_OK);
	assert_int_equal(len, 64);
	assert_int_equal(raw[31], 1);
	assert_int_equal(raw[32], 0x80);
	for (size_t n = 0; n < whole; n++)
		assert_int_equal(kb_signature_from_der(&key, der, n, &err, raw, &len), KB_EBAD);
	assert_int_equal(kb_signature_from_der(&key, der, whole + 1, &err, raw, &len), KB_EBAD);
}

static void a_block_is_filled_up(void **state)
{
	uint8_t block[8 + 2 * (KB_KEY_ID + 4 + 64) + 10] = KB_SIGNATURES_NONE, before[sizeof block];
	struct kb_err err = {0};
	struct kb_buf text = {0};
	struct kb_signatures list;
	struct kb_signer *s[3];
	uint8_t id[KB_KEY_ID], raw[64] = {1};
	(void)state;
	assert_int_equal(kb_buf_puts(&text, "text"), KB_OK);
	for (int i = 0; i < 3; i++)
		s[i] = new_signer(KB_CURVE_P256);
	put_signature(s[0], KB_DOMAIN_MODEL, &text, block, sizeof block);
	put_signature(s[1], KB_DOMAIN_MODEL, &text, block, sizeof block);
	put_signature(s[0], KB_DOMAIN_MODEL, &text, block, sizeof block); // again: in its own place
	assert_int_equal(kb_signatures_parse(block, sizeof block, &err, &list), KB_OK);
	assert_int_equal(list.n, 2);
	memcpy(before, block, sizeof block);
	kb_key_id(kb_signer_key(s[2]), id);
	assert_int_equal(kb_signatures_put(block, sizeof block, &(struct kb_signature){id, 64, raw}, &err), KB_ELIMIT);
	assert_memory_equal(block, before, sizeof block);
	block[sizeof block - 1] = 1; // what is behind them must be zeros
	assert_int_equal(kb_signatures_parse(block, sizeof block, &err, &list), KB_EBAD);
	for (int i = 0; i < 3; i++)
		kb_signer_close(s[i]);
	kb_buf_finish(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_signed_is_accepted),
		cmocka_unit_test(other_keys_are_refused),
		cmocka_unit_test(der_is_read),
		cmocka_unit_test(a_block_is_filled_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
