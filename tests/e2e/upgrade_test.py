#!/usr/bin/env python3
"""A box's state that the release before wrote (tests/data/make_state_fixture.sh) goes on being used; one from the future is
refused with a line that says so. Prints TAP."""
import gzip
import json
import pathlib
import subprocess

import box
import fleet
from fleet import STATE, TMP, Fleet, check, cli, good

FIXTURE = pathlib.Path("tests/data/state-0.1.mdb.gz")


def main():
    STATE.mkdir(mode=0o700)
    before = gzip.decompress(FIXTURE.read_bytes())
    check("the fixture has schema 1", b"schema1" in before and b"schema2" not in before)
    (STATE / "state.mdb").write_bytes(before)
    b = box.Box(models={"plain": ""})
    try:
        clients = {c["name"]: c for c in b.admin("GET", "/admin/clients")[1]["clients"]}
        check("the clients are there", set(clients) == {"ann", "bob"}, clients)
        check("with what was known of them", clients["ann"]["has_bearer"] and clients["ann"]["revoked_s"] == 0 and
              clients["bob"]["revoked_s"] > 0 and not clients["ann"]["is_admin"], clients)
        d = b.pair("cem", admin=True)
        check("new ones come", b.ask(d, "GET", "/v1/models")[1]["data"][0]["id"] == "plain")
        f = Fleet()
        good("root", "trust", f.chain)
        good("model", "install", f.image())
        check("and signed models too", b.ask(d, "GET", "/v1/models")[1]["data"][0]["id"] == "m")
        check("the log begins with it", [json.loads(x)["event"] for x in good("audit", "list", "--json").splitlines()] ==
              ["root trusted", "model installed"])
    finally:
        b.stop()
    now = (STATE / "state.mdb").read_bytes()
    check("it has schema 2 from then on", b"schema2" in now)
    (STATE / "state.mdb").write_bytes(now.replace(b"schema2", b"schema9"))
    r = subprocess.run([box.BIN / "kotobakod", "--state", STATE, "--listen", f"127.0.0.1:{box.free_port()}"],
                       capture_output=True, text=True, timeout=60)
    check("the daemon refuses one from the future", r.returncode != 0 and "newer release" in r.stderr, r.stderr)
    for args in (("model", "list"), ("model", "install", TMP / "x"), ("audit", "verify"), ("root", "trusted")):
        r = cli(*args)
        check(f"so does {' '.join(map(str, args[:2]))}", r.returncode == 1 and "newer release" in r.err, r.err)
    fleet.done()


main()
