// Whom this box trusts: the newest root that it has accepted, and how late it is at least. Table "trust": "root" -> the
// root's bytes, "time" -> u64 seconds since 1970 (little-endian), "signed" and a version (u64, big-endian) -> a root
// that was accepted, with its signatures, as an image carries it.
//
// The administrator sets the first root; from then on only a root that follows takes its place (root.h). A box that
// trusts a root runs signed images only.
#pragma once
#include "storage/chain.h"
#include "storage/state.h"

// Appends the trusted root's bytes. KB_ENOTFOUND: nobody is trusted yet.
KB_MUST_CHECK int kb_trust_root(struct kb_state *s, struct kb_err *err, struct kb_buf *ret);
// Takes the newest root of a chain: at once where nobody is trusted yet; else the chain must lead there from the
// trusted one. KB_OK also where that is it already, or is newer. KB_EDENIED: it does not lead there.
KB_MUST_CHECK int kb_trust_set(
	struct kb_state *s, const struct kb_chain *chain, bool allow_test, uint64_t now_s, struct kb_err *err);
// A root that was proven to follow the trusted one (bundle.h). What is newer already stays.
KB_MUST_CHECK int kb_trust_advance(
	struct kb_state *s, const struct kb_signed *root, uint64_t now_s, struct kb_err *err);
// The roots that this box can show to others, up to the trusted one, without a gap; ret points into ret_bytes. A box
// of before 2026-11-27 kept no signatures: its roots of then are not among them, but the trusted one is, then without.
KB_MUST_CHECK int kb_trust_chain(
	struct kb_state *s, struct kb_err *err, struct kb_buf *ret_bytes, struct kb_chain *ret);

// The clock, but never before the time of anything that was signed and accepted: a box whose battery is empty is not
// back in 1970. Says nothing about how late it really is.
KB_MUST_CHECK int kb_trust_now(struct kb_state *s, uint64_t clock_s, struct kb_err *err, uint64_t *ret);
