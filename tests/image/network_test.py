#!/usr/bin/env python3
# A box in a network that it has not seen: its address by DHCP, its certificate for that address and its name, the clock
# from an NTP server though the board's says 2020; then a fixed address, a name and a time server that an administrator
# sets over the network, what is refused, and a stick that brings DHCP back. The machine and what it talks to are in a
# network namespace of their own.
import fcntl
import json
import os
import pathlib
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tap import KEYS, OUT, TMP, check, finish  # noqa: E402
from run_image import fetch_client, free_port  # noqa: E402
from vm import Vm, make_stick, make_vars, run  # noqa: E402

FIXED, NAME = "10.0.2.77", "branch-7"
OLD_CLOCK = ("-rtc", "base=2020-01-01T00:00:00")
NTP_EPOCH = 2208988800  # seconds from 1900 to 1970 (RFC 5905)


def own_network():
    """A namespace with nothing but loopback: QEMU's user network leads nowhere else."""
    os.unshare(os.CLONE_NEWNET)
    with socket.socket() as s:
        request = struct.pack("16sH14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(s, 0x8914, request)  # SIOCSIFFLAGS


class Ntp(threading.Thread):
    """An NTP server (RFC 5905, section 7.3: mode 4 answers mode 3), of stratum 2, whose clock is this machine's."""

    def __init__(self):
        super().__init__(daemon=True)
        self.asked = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 123))

    def run(self):
        while True:
            data, peer = self.socket.recvfrom(512)
            if len(data) < 48 or data[0] & 7 != 3:
                continue
            now = time.time() + NTP_EPOCH
            stamp = struct.pack(">II", int(now), int(now % 1 * 2**32))
            self.socket.sendto(struct.pack(">BBbbII4s", 0x24, 2, 6, -20, 0, 0, b"\x7f\0\0\1") + stamp + data[40:48] + stamp
                               + stamp, peer)
            self.asked += 1


def boot(port, stick, name):
    return Vm(TMP / "disk.img", TMP / "vars.fd", port, stick=stick, log=TMP / name, tpm=TMP / "tpm", more=OLD_CLOCK,
              alone=False)


def names(client, port, host):
    """Whether the box's certificate is good for host."""
    tls = ssl.create_default_context(cafile=client / "ca.pem")
    tls.load_cert_chain(client / "cert.pem", client / "key.pem")
    try:
        with socket.create_connection(("127.0.0.1", port), 30) as s, tls.wrap_socket(s, server_hostname=host) as t:
            t.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return (head := t.recv(200)).startswith(b"HTTP/1.1 200") or str(head)
    except (ssl.SSLError, OSError) as e:
        return str(e)


def ask(client, port, *words):
    return subprocess.run(["build/release/kotobako", "--client", client, "--box", f"127.0.0.1:{port}", "network", *words],
                          capture_output=True, text=True, timeout=120)


def main():
    own_network()
    ntp = Ntp()
    ntp.start()
    client, stick, port, fixed_port = TMP / "client", TMP / "stick.img", free_port(), free_port()
    run("cp", "--sparse=always", OUT / "disk.img", TMP / "disk.img")
    make_vars(KEYS, TMP / "vars.fd")
    make_stick(stick)
    vm = boot(port, stick, "first.log")
    try:
        check("the clock is put forward to the image's time at least", vm.wait_line(
            r"init: the clock was \d+ s behind", 240) is not None, vm.text()[-900:])
        check("it has an address by DHCP", vm.wait_line("net: stage address: eth0 10.0.2.15 by DHCP", 120) is not None,
              vm.text()[-900:])
        check("its certificate names it", vm.wait_line(r"ca: made the server's certificate for \d+ names", 30) and
              vm.wait_line("this box is at 10.0.2.15 port 8443", 30), vm.text()[-900:])
        check("it says its name by mDNS", vm.wait_line("Registering new address record for 10.0.2.15 on eth0", 30), vm.text()[-900:])
        check("it is paired", vm.wait_line("init: stage paired", 60) is not None, vm.text()[-900:])
        fetch_client(stick, client)
        where = json.loads((client / "box.json").read_text())
        check("the client's files say where the box is", where["host"] == "10.0.2.15" and where["port"] == 8443, where)
        for host in ("10.0.2.15", "kotobako-123456.local"):
            check(f"a client may call it {host}", (r := names(client, port, host)) is True, r)
        check("...and nothing else", (r := names(client, port, FIXED)) is not True and "match" in r, r)
        r = ask(client, port)
        check("it says what is set", r.returncode == 0 and re.search(r"^set +dhcp$", r.stdout, re.M) and
              re.search(r"^is at +10\.0\.2\.15$", r.stdout, re.M), (r.stdout, r.stderr))
        for words, why in ((("set", "10.0.2.255/24"), "that of a network"),
                           (("set", f"{FIXED}/24", "--gateway", "10.0.3.1"), "not another machine"),
                           (("set", "dhcp", "--time", "time.example"), "NTP server"),
                           (("set", "dhcp", "--name", "Branch 7"), "name Branch 7")):
            r = ask(client, port, *words)
            check(f"{' '.join(words)} is refused", r.returncode == 1 and why in r.stderr, r.stderr)
        check("no time server was asked yet", ntp.asked == 0)
        # The other address, from outside: QEMU forwards a port to it from now on.
        vm.human(f"hostfwd_add net tcp:127.0.0.1:{fixed_port}-{FIXED}:8443")
        r = ask(client, port, "set", f"{FIXED}/24", "--gateway", "10.0.2.2", "--time", "10.0.2.2", "--name", NAME)
        check("a fixed address is set over the network", r.returncode == 0 and f"{FIXED}/24" in r.stdout, (r.stdout, r.stderr))
        check("the box goes there", vm.wait_line(f"net: stage address: eth0 {FIXED} as it was set", 60) is not None,
              vm.text()[-900:])
        check("its certificate follows", vm.wait_line(f"this box is at {FIXED} port 8443", 30) is not None, vm.text()[-900:])
        for host in (FIXED, f"{NAME}.local"):
            check(f"a client may call it {host}", (r := names(client, fixed_port, host)) is True, r)
        check("its clock is set by the time server", vm.wait_line("clock synchronization to .* 20(2[6-9]|[3-9])", 120) is not None
              and ntp.asked > 0, vm.text()[-1500:])
        vm.power_button()
        check("off in order", vm.wait_line("init: stage off", 60) and vm.wait_off(30) == 0, vm.text()[-900:])
    finally:
        vm.close()
    settings = TMP / "network.txt"
    settings.write_text("# back in the office\naddress dhcp\n")
    make_stick(stick, files={"network/network.txt": settings})
    vm = boot(port, stick, "second.log")
    try:
        check("the clock is put forward to when the box last ran", vm.wait_line(
            r"init: the clock was \d+ s behind", 240) is not None, vm.text()[-900:])
        behind = int(re.search(r"the clock was (\d+) s behind", vm.text() + "the clock was 0 s behind").group(1))
        check("...not the image's", behind > time.time() - 1577836800 - 3600, behind)
        check("the fixed address is kept", vm.wait_line(rf"net: {NAME}\.local, port eth0, address {FIXED}", 120) is not None,
              vm.text()[-900:])
        check("a stick brings DHCP back", vm.wait_line("net: stage address: eth0 10.0.2.15 by DHCP", 120) is not None,
              vm.text()[-900:])
        check("...which the box says", vm.wait_line("init: stage network: done", 60) is not None, vm.text()[-900:])
        end = time.monotonic() + 30
        while (r := names(client, port, "10.0.2.15")) is not True and time.monotonic() < end:
            time.sleep(1)
        check("its client comes in there", r is True, r)
        vm.power_button()
        check("off in order", vm.wait_line("init: stage off", 60) and vm.wait_off(30) == 0, vm.text()[-900:])
        check("one TCP port is listened on", "init: listening on 1 TCP ports: 8443" in vm.text(), vm.text()[-900:])
    finally:
        vm.close()


if __name__ == "__main__":
    main()
    finish()
