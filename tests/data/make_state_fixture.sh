#!/bin/sh
# Makes state-0.1.mdb.gz: what the release before schema 2 (commit d65d01c) wrote: clients ann and bob, bob revoked, a bearer
# key of ann's. Usage: make_state_fixture.sh PROGRAMS-OF-THAT-COMMIT OUT.gz
set -eu
bin=$1 out=$2 dir=$(mktemp -d)
"$bin/kotobakod" --state "$dir/s" --listen 127.0.0.1:18999 2>/dev/null &
daemon=$!
until [ -S "$dir/s/admin.sock" ]; do sleep 0.1; done
for name in ann bob; do "$bin/kotobako" --state "$dir/s" --box 127.0.0.1:18999 pair --name $name --out "$dir/$name" >/dev/null; done
"$bin/kotobako" --state "$dir/s" bearer ann >/dev/null
"$bin/kotobako" --state "$dir/s" revoke bob >/dev/null
kill $daemon
wait $daemon || true
gzip -9nc "$dir/s/state.mdb" >"$out"
rm -rf "$dir"
