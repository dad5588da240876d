#!/usr/bin/env python3
"""The box's network over the API and by kotobako-net, without a machine of its own: who may set it, what is refused, what is
kept, and what is written for Debian's programs. (tests/image/network_test.py has the whole.) Prints TAP."""
import json
import os
import socket
import subprocess

import box
from box import BIN, TMP, check


def cli(*words):
    return subprocess.run([BIN / "kotobako", *words], capture_output=True, text=True, timeout=60)


def net(*words, program=BIN / "kotobako-net", **variables):
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=10, env={**os.environ, **variables})


def main():
    kept, run = TMP / "state/network", TMP / "run"
    b = box.Box(flags=["--network", kept])
    boss, ann = ["--client", TMP / "client-boss", "--box", f"127.0.0.1:{b.port}"], ["--client", TMP / "client-ann"]
    ann += boss[2:]
    try:
        b.pair("ann"), b.pair("boss", admin=True)
        for words in ((), ("set", "dhcp")):
            r = cli(*ann, "network", *words)
            check(f"network {' '.join(words)} is for administrators", r.returncode == 1 and "administrators" in r.stderr, r.stderr)
        r = cli(*boss, "network", "--json")
        said = json.loads(r.stdout or "{}")
        check("nothing is set: DHCP", said.get("settings") == {"address": "dhcp", "time": []} and
              said.get("name") == socket.gethostname(), r)
        for words, why in ((("set", "192.0.2.255/24"), "that of a network"), (("set", "192.0.2.7"), "ADDRESS/PREFIX"),
                           (("set", "192.0.2.7/24", "--gateway", "192.0.3.1"), "not another machine"),
                           (("set", "dhcp", "--gateway", "192.0.2.1"), "wants a fixed address"),
                           (("set", "dhcp", "--time", "192.0.2.1,x"), "NTP server"),
                           (("set", "dhcp", "--name", "a b"), "name a b")):
            r = cli(*boss, "network", *words)
            check(f"{' '.join(words)} is refused", r.returncode == 1 and why in r.stderr and not kept.exists(), r.stderr)
        r = cli(*boss, "network", "set", "192.0.2.7/24", "--gateway", "192.0.2.1", "--time", "192.0.2.1,192.0.2.2", "--name", "x-1")
        check("what is set is kept", r.returncode == 0 and kept.read_text() ==
              "address 192.0.2.7/24\ngateway 192.0.2.1\ntime 192.0.2.1\ntime 192.0.2.2\nname x-1\n", (r, kept.read_text()))
        r = cli(*boss, "network", "set", "dhcp")
        check("time and name stay, the gateway goes with its address", kept.read_text() ==
              "address dhcp\ntime 192.0.2.1\ntime 192.0.2.2\nname x-1\n", kept.read_text())
        cli(*boss, "network", "set", "dhcp", "--time", "none", "--name", "none")
        check("...until they are taken back", kept.read_text() == "address dhcp\n", kept.read_text())
        rows = TMP / "network.txt"
        rows.write_text("# from Windows\r\naddress 192.0.2.9/28\r\n")
        r = cli("--state", b.state, "network", "load", rows)
        check("a stick's rows", r.returncode == 0 and kept.read_text() == "address 192.0.2.9/28\n", r)
        rows.write_text("address 192.0.2.9/28\nscript /bin/sh\n")
        r = cli("--state", b.state, "network", "load", rows)
        check("...or none of them", r.returncode == 1 and "line 2: script" in r.stderr and
              kept.read_text() == "address 192.0.2.9/28\n", r)
        status, body = b.admin("POST", "/admin/network", {"address": ["dhcp"]})[:2]
        check("JSON of another shape", status == 400, (status, body))
    finally:
        b.stop()
    b2 = box.Box(name="other")
    try:
        b2.pair("boss", admin=True)
        r = cli("--client", TMP / "client-boss", "--box", f"127.0.0.1:{b2.port}", "network")
        check("a machine whose network is somebody else's says so", r.returncode == 1 and "not set by kotobako" in r.stderr, r.stderr)
    finally:
        b2.stop()

    def conf(name):
        return (run / name).read_text() if (run / name).exists() else None

    kept.write_text("address 192.0.2.7/24\ngateway 192.0.2.1\ntime 192.0.2.1\nname x-1\n")
    r = net("apply", "--settings", kept, "--run", run)
    check("configurations are written", r.returncode == 0 and "hostname x-1\n" in conf("dhcpcd.conf") and
          "host-name=x-1\n" in conf("avahi.conf") and "NTP=192.0.2.1\n" in conf("time.conf"), r)
    inode = (run / "dhcpcd.conf").stat().st_ino
    net("apply", "--settings", kept, "--run", run)
    check("...and left alone where nothing changed", (run / "dhcpcd.conf").stat().st_ino == inode)
    kept.write_text("address 1.2.3/24\n")
    r = net("apply", "--settings", kept, "--run", run)
    check("settings that cannot be used are said, and DHCP it is", r.returncode == 0 and "line 1: address" in r.stderr and
          "static" not in conf("dhcpcd.conf") and conf("time.conf") is None, r)
    kept.unlink()
    os.mkfifo(kept)
    r = net("apply", "--settings", kept, "--run", run)
    check("a pipe in their place holds nobody up", r.returncode == 0 and "cannot be read" in r.stderr, r)
    kept.unlink()
    hook = TMP / "kotobako-net-hook"
    hook.symlink_to((BIN / "kotobako-net").resolve())
    r = net("--settings", kept, "--run", run, program=hook, reason="BOUND", interface="eth0", new_ip_address="192.0.2.50",
            new_ntp_servers="192.0.2.3 $(reboot)\n[Time]")
    check("the hook says the address and takes the time server", "stage address: eth0 192.0.2.50 by DHCP" in r.stderr and
          conf("time.conf").endswith("NTP=192.0.2.3\n"), (r, conf("time.conf")))
    kept.write_text("time 192.0.2.1\n")
    net("apply", "--settings", kept, "--run", run)
    net("--settings", kept, "--run", run, program=hook, reason="RENEW", interface="eth0", new_ip_address="192.0.2.50", new_ntp_servers="192.0.2.3")
    check("what is set comes before what DHCP names", conf("time.conf").endswith("NTP=192.0.2.1\n"), conf("time.conf"))
    r = net("--settings", kept, "--run", run, program=hook, reason="BOUND", interface="eth0", new_ip_address="not one")
    check("what is no address is not said", r.returncode == 0 and "stage" not in r.stderr, r)


main()
box.finish([])
