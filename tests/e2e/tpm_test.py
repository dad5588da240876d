#!/usr/bin/env python3
"""A box whose state is counted by a TPM (swtpm): what was taken back stays taken back when an earlier copy of the disk is put
in its place; another or a cleared TPM is noticed; power that goes at any moment is not mistaken for either. Prints TAP."""
import json
import shutil
import signal
import socket
import subprocess
import time

import box
import fleet
from fleet import STATE, TMP, Fleet, check, cli, good


class Tpm:
    """A TPM with a memory of its own, until it is closed."""

    def __init__(self, name):
        self.dir = TMP / name
        self.dir.mkdir(exist_ok=True)
        self.port = self.free_pair()
        self.process = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.dir}", "--server", f"type=tcp,port={self.port}", "--ctrl",
             f"type=tcp,port={self.port + 1}", "--flags", "not-need-init,startup-clear"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.tcti = f"swtpm:host=127.0.0.1,port={self.port}"
        time.sleep(0.3)

    @staticmethod
    def free_pair():
        while True:
            port = box.free_port()
            with socket.socket() as s:
                try:
                    s.bind(("127.0.0.1", port + 1))
                    return port
                except OSError:
                    continue

    def close(self):
        self.process.kill()
        self.process.wait()


def active(tcti):
    return {m["name"]: m["version"] for m in json.loads(cli("--tpm", tcti, "model", "list", "--json").out)}


def copy_of(state, name):
    to = TMP / name
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(state, to, ignore=lambda d, names: [n for n in names if n.endswith(".sock")])
    return to


def put_back(copy):
    shutil.rmtree(STATE)
    shutil.copytree(copy, STATE)


def daemon_says(tcti):
    p = subprocess.run([box.BIN / "kotobakod", "--state", STATE, "--listen", f"127.0.0.1:{box.free_port()}", "--tpm", tcti, "--engine",
                        box.BIN / "test/fake_engine"], capture_output=True, text=True, timeout=30)
    return p.returncode, p.stderr


def test_rollback(f, t):
    good("--tpm", t.tcti, "root", "trust", f.chain)
    good("--tpm", t.tcti, "model", "install", f.image("m", 1))
    old = copy_of(STATE, "old")
    good("--tpm", t.tcti, "model", "install", f.image("m", 2))
    check("a box with a TPM installs", active(t.tcti) == {"m": 2})
    put_back(old)
    r = cli("--tpm", t.tcti, "model", "install", f.image("m", 3))
    check("an earlier copy of its disk: nothing is installed", r.returncode == 1 and "earlier day" in r.err, r.err)
    r = cli("--tpm", t.tcti, "audit", "list")
    check("...it can be looked at", r.returncode == 0 and "note:" in r.err and "model installed" in r.out, r.err)
    status, said = daemon_says(t.tcti)
    check("...and the daemon does not run", status == 1 and "earlier day" in said and "root adopt" in said, (status, said))
    r = cli("root", "adopt")
    check("adopt wants to know which TPM", r.returncode == 2 and "--tpm" in r.err, r.err)
    good("--tpm", t.tcti, "root", "adopt")
    good("--tpm", t.tcti, "model", "install", f.image("m", 3))
    log = [json.loads(line)["event"] for line in good("audit", "list", "--json").splitlines()]
    check("the administrator may mean it; that is in the audit log", active(t.tcti) == {"m": 3} and log.count("counter adopted") == 2 and
          good("audit", "verify"), log)


def test_power(f, t):
    """Killed at twenty moments of an install: the next command never takes it for a state that was put back."""
    wrong = []
    for i in range(20):
        image = f.image("p", i + 1)
        p = subprocess.Popen([fleet.CLI, "--tpm", t.tcti, "model", "install", image], env=fleet.ENV, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        time.sleep(0.004 * i)
        p.send_signal(signal.SIGKILL)
        p.wait()
        r = cli("--tpm", t.tcti, "model", "install", image)
        if r.returncode:
            wrong.append((i, r.err))
    check("killed at twenty moments of an install, the next one goes on", not wrong, wrong)


def test_other(f, t):
    other = Tpm("other")
    r = cli("--tpm", other.tcti, "model", "install", f.image("m", 4))
    check("another TPM is noticed", r.returncode == 1 and "changed or cleared" in r.err, r.err)
    other.close()
    r = cli("--tpm", other.tcti, "model", "install", f.image("m", 4))
    check("one that does not answer: nothing is changed", r.returncode == 1 and "cannot be reached" in r.err and
          active(t.tcti)["m"] == 3, r.err)
    b = box.Box(flags=("--tpm", t.tcti), models={})
    b.pair("ann")
    check("with its own the daemon runs", b.admin("GET", "/admin/status")[0] == 200)
    before = copy_of(STATE, "before")
    r = cli("revoke", "ann")
    check("a client is revoked", r.returncode == 0, r.err)
    b.stop()
    put_back(before)
    status, said = daemon_says(t.tcti)
    check("...and does not come back with an earlier disk", status == 1 and "earlier day" in said, said)


def main():
    t = Tpm("tpm")
    f = Fleet()
    test_rollback(f, t)
    test_power(f, t)
    test_other(f, t)
    t.close()
    fleet.done()


if __name__ == "__main__":
    main()
