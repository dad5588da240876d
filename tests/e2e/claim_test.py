#!/usr/bin/env python3
"""A box that has no client is claimed by the code that it shows: who knows it, who does not, who stands between, and nobody
once the box is somebody's. Prints TAP."""
import json
import os
import socket
import ssl
import subprocess
import threading

import box
from box import BIN, TMP, check


def claim(port, code, out, *words, given=None):
    words = ["--code", code, *words] if code else words
    return subprocess.run([BIN / "kotobako", "--box", f"127.0.0.1:{port}", "claim", "--out", TMP / out, *words],
                          input=given, capture_output=True, text=True, timeout=60)


def shown(b):
    """The code as the box says it, or None."""
    return (b.admin("GET", "/admin/status")[1].get("claim") or {}).get("code")


def tls(name=None, certificate=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    if certificate:
        c.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return c


def stranger(port, name, request, more=None):
    """What a client without a certificate gets that asks for a server's name."""
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as s, tls().wrap_socket(s, server_hostname=name) as t:
            t.sendall(request)
            return t.recv(4096).decode(errors="replace")
    except (ssl.SSLError, ConnectionError) as e:
        return f"refused: {e}"


def post(path, body):
    data = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
            ).encode() + data


class Middle(threading.Thread):
    """Somebody between: its own certificate on one side, a connection of its own to the box on the other, every byte handed on."""

    def __init__(self, port, directory):
        super().__init__(daemon=True)
        self.to, self.socket = port, socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-keyout", directory / "middle.key", "-out", directory / "middle.pem", "-subj", "/CN=middle"],
                       check=True, capture_output=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(directory / "middle.pem", directory / "middle.key")
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3

    def run(self):
        with self.context.wrap_socket(self.socket.accept()[0], server_side=True) as near, \
                tls().wrap_socket(socket.create_connection(("127.0.0.1", self.to)), server_hostname="claim.kotobako.invalid") as far:
            far.settimeout(10)
            near.settimeout(10)
            try:
                while data := near.recv(65536):
                    far.sendall(data)
                    near.sendall(far.recv(65536))
            except (ssl.SSLError, OSError):
                pass


def administers(b):
    """The box's people over the network: there is no shell beside its daemon."""
    def boss(*words, client="boss"):
        return subprocess.run([BIN / "kotobako", "--client", TMP / client, *words], capture_output=True, text=True, timeout=30,
                              env={**os.environ, "KB_STATE": ""})
    r = boss("pair", "--name", "ann", "--out", TMP / "ann")
    check("the administrator makes another client", r.returncode == 0 and 'paired as "ann"' in r.stdout and
          json.loads((TMP / "ann/box.json").read_text())["port"] == b.port, r)
    r = boss("clients", client="ann")
    check("...who is none", r.returncode == 1 and "administrators" in r.stderr, r)
    r = boss("pair", "--name", "eve", "--out", TMP / "eve", client="ann")
    check("...and makes none", r.returncode == 1 and "administrators" in r.stderr and not (TMP / "eve/cert.pem").exists(), r)
    r = boss("clients")
    check("who there is", r.returncode == 0 and r.stdout.startswith("boss") and "administrator" in r.stdout and "\nann " in r.stdout, r)
    r = boss("revoke", "boss")
    check("nobody shuts out everybody", r.returncode == 1 and "only administrator" in r.stderr, r)
    r = boss("pair", "--name", "deputy", "--admin", "--out", TMP / "deputy")
    check("a second administrator", r.returncode == 0, r)
    r = boss("revoke", "deputy")
    check("...is taken back", r.returncode == 0 and boss("clients", client="deputy").returncode == 3, r)
    r = boss("revoke", "ann")
    check("so is the client", r.returncode == 0 and boss("status", client="ann").returncode == 3, r)


def main():
    b = box.Box(flags=["--claim", "100000"])
    NAME = "claim.kotobako.invalid"
    get = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    try:
        code = shown(b)
        check("the box shows a code of eight digits", code and len(code) == 8 and code.isdigit(), code)
        check("...on its console", f"code {code[:4]}-{code[4:]}" in b.log.read_text())
        r = stranger(b.port, "localhost", get)
        check("without a certificate nobody comes in", r.startswith("refused"), r)
        r = stranger(b.port, NAME, get)
        check("who comes to claim gets nothing else", r.startswith("HTTP/1.1 404"), r)
        r = stranger(b.port, NAME, b"GET /admin/status HTTP/1.1\r\nHost: x\r\n\r\n")
        check("...above all not the code", r.startswith("HTTP/1.1 404") and code not in r, r)
        r = stranger(b.port, NAME, post("/claim/finish", {"two": "00", "name": "x", "csr": "y", "proof": "00"}))
        check("the end does not come first", r.startswith("HTTP/1.1 409"), r)
        for body in ({}, {"one": "zz"}, {"one": "00" * 330}, {"one": 5}, [], "x"):
            r = stranger(b.port, NAME, post("/claim/begin", body))
            check(f"{str(body)[:20]} is no message", r.startswith("HTTP/1.1 400"), r)
        check("that was no try of a code", shown(b) == code)
        middle = Middle(b.port, TMP)
        middle.start()
        r = claim(middle.port, code, "between")
        check("who stands between is found out, with the right code", r.returncode == 1 and "something stands between" in r.stderr and
              not (TMP / "between/cert.pem").exists(), r)
        wrong = f"{(int(code) + 1) % 10**8:08}"
        r = claim(b.port, wrong, "wrong")
        check("a wrong code", r.returncode == 1 and "3 tries left" in r.stderr and not (TMP / "wrong/cert.pem").exists(), r)
        check("...made no client", b.admin("GET", "/admin/clients")[1]["clients"] == [])
        for words, why in (((), "claim wants --box"), (("--code", "12"), "8 digits")):
            r = subprocess.run([BIN / "kotobako", *(["--box", f"127.0.0.1:{b.port}"] if words else []), "claim", *words],
                               capture_output=True, text=True, timeout=20)
            check(why, r.returncode == 2 and why in r.stderr, r)
        r = claim(b.port, None, "boss", "--name", "boss", given=f" {code[:4]}-{code[4:]}\n")
        check("the right code, typed", r.returncode == 0 and 'paired as "boss"' in r.stdout, r)
        check("the files are a client's", {p.name for p in (TMP / "boss").iterdir()} == {"key.pem", "cert.pem", "ca.pem", "box.json"} and
              (TMP / "boss/key.pem").stat().st_mode & 0o077 == 0)
        r = subprocess.run([BIN / "kotobako", "--client", TMP / "boss", "status"], capture_output=True, text=True, timeout=30)
        check("it comes in, and the box is the one of its authority", "ok" in r.stdout, r)
        clients = b.admin("GET", "/admin/clients")[1]["clients"]
        check("it is an administrator", [(c["name"], c["is_admin"]) for c in clients] == [("boss", True)], clients)
        administers(b)
        check("the box shows no code any more", shown(b) is None and (b.state / "claimed").exists())
        r = claim(b.port, code, "second")
        check("a second one is refused in the handshake", r.returncode == 3 and "refused" in r.stderr, r)
        r = stranger(b.port, NAME, get)
        check("...whoever it is", r.startswith("refused"), r)
        b.admin("POST", "/admin/clients/revoke", {"name": "boss"})
        b.stop()
        b.start()
        check("a box whose only client was revoked is still somebody's", shown(b) is None)
    finally:
        b.stop()
    b = box.Box(flags=["--claim", "100000"], name="tried")
    try:
        first = shown(b)
        wrong = f"{(int(first) + 1) % 10**8:08}"
        tries = [claim(b.port, wrong, "wrong").stderr for _ in range(5)]
        check("five wrong codes", all("tries left" in t for t in tries), tries)
        r = claim(b.port, first, "late")
        check("...close it, for the right one too", r.returncode == 3 and shown(b) is None, r)
        b.stop()
        b.start()
        check("until the box starts again, with another code", shown(b) not in (None, first))
        b.pair("by-stick")
        check("a stick's client closes it as well", shown(b) is None)
    finally:
        b.stop()
    for flags, what in (((), "a box that is not to be claimed"), (("--claim", "1"), "a box that has been on for long")):
        if flags and float(open("/proc/uptime").read().split()[0]) < 60:
            print("# this machine has not been on for a minute")
            continue
        b = box.Box(flags=list(flags), name=f"closed{len(flags)}")
        check(f"{what} shows none", shown(b) is None)
        r = stranger(b.port, NAME, get)
        check("...and lets nobody in", r.startswith("refused"), r)
        b.stop()


main()
box.finish([])
