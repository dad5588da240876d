#!/usr/bin/env python3
# Who may come in: pairing, refusal in the handshake, revocation of what is open, bearer keys, files' modes.
import http.client
import json
import os
import pathlib
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from box import TMP, Box, check, finish, text_of, wait  # noqa: E402


def is_refused(box, tls, port=None):
    try:
        c = http.client.HTTPSConnection("127.0.0.1", port or box.port, context=tls, timeout=10)
        c.request("GET", "/v1/models")
        return f"answered {c.getresponse().status}"
    except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected) as e:
        return isinstance(e, Exception)


def s_client(box, port, *arguments):
    r = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-quiet", *arguments],
                       input=b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", capture_output=True, timeout=20)
    return r.stdout.decode(errors="replace"), r.stderr.decode(errors="replace")


def test_handshake(box, d):
    before = box.metric("handshake_failures_total")
    check("a paired client comes in", box.ask(d, "GET", "/v1/models")[0] == 200)
    check("no certificate: refused", is_refused(box, box.context(d, False)) is True)
    other = TMP / "stranger"
    other.mkdir()
    shutil.copy(d / "ca.pem", other)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
                    "-keyout", other / "key.pem", "-out", other / "cert.pem", "-subj", "/CN=ann"], check=True, capture_output=True)
    check("a self-made certificate: refused", is_refused(box, box.context(other)) is True)
    server = TMP / "server"
    server.mkdir()
    shutil.copy(d / "ca.pem", server)
    shutil.copy(box.state / "ca/server.pem", server / "cert.pem")
    shutil.copy(box.state / "ca/server.key", server / "key.pem")
    check("the server's own certificate as a client: refused", is_refused(box, box.context(server)) is True)
    stranger = TMP / "stranger2"
    shutil.copytree(other, stranger)
    # Signed by the box's authority, right in every way, but not in the table: as if the table had been lost.
    subprocess.run(["openssl", "x509", "-req", "-in", d / "csr.pem", "-CA", box.state / "ca/ca.pem", "-CAkey",
                    box.state / "ca/ca.key", "-days", "9", "-out", other / "cert.pem"], check=True, capture_output=True)
    shutil.copy(d / "key.pem", other / "key.pem")
    check("an unknown certificate of the same authority: refused", is_refused(box, box.context(other)) is True)
    check("the failures are counted", box.metric("handshake_failures_total") >= before + 4)
    credentials = ["-cert", d / "cert.pem", "-key", d / "key.pem", "-CAfile", d / "ca.pem", "-verify_return_error"]
    out, err = s_client(box, box.port, "-tls1_3", *credentials)
    check("openssl s_client with TLS 1.3 comes in", "200 OK" in out, out + err)
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"):
        out, err = s_client(box, box.port, "-ciphersuites", suite, *credentials)
        check(f"{suite} works", "200 OK" in out, out + err)
        out, err = s_client(box, box.port, "-ciphersuites", suite, "-CAfile", d / "ca.pem")
        check("...and without a certificate the alert says so", "HTTP" not in out and "alert certificate required" in err, out + err)
    for what, credential, alert in (("self-made", stranger, "unknown ca"), ("unknown", other, "certificate revoked"),
                                    ("server's", server, "certificate revoked")):
        out, err = s_client(box, box.port, "-cert", credential / "cert.pem", "-key", credential / "key.pem")
        check(f"the alert for a certificate that is {what}: {alert}", "HTTP" not in out and "alert " + alert in err, out + err)
    out, err = s_client(box, box.port, "-tls1_2", *credentials)
    check("TLS 1.2 is refused", "HTTP" not in out and "alert" in err.lower(), out + err)
    out, err = s_client(box, box.port, "-alpn", "h2", *credentials)
    check("a client that speaks only HTTP/2 is refused", "HTTP" not in out, out + err)
    out, err = s_client(box, box.port, "-groups", "P-384", *credentials)
    check("groups beside x25519 and P-256 are refused", "HTTP" not in out, out + err)
    context = box.context(d)
    context.check_hostname = True
    try:
        s = socket.create_connection(("127.0.0.1", box.port))
        context.wrap_socket(s, server_hostname="elsewhere.example")
        check("the server's certificate does not name other hosts", False)
    except ssl.SSLCertVerificationError:
        check("the server's certificate does not name other hosts", True)
    for name in ("localhost", "127.0.0.1", "box.example"):
        s = box.context(d).wrap_socket(socket.create_connection(("127.0.0.1", box.port)), server_hostname=name)
        check(f"...but {name}", s.version() == "TLSv1.3" and s.cipher()[0] in ("TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"))
        s.close()


def test_pairing(box, d):
    csr = (d / "csr.pem").read_text()
    for what, body, status in (("no name", {"csr": csr}, 400), ("no request", {"name": "x"}, 400), ("a bad name", {"name": "a/b", "csr": csr}, 400),
                               ("an empty name", {"name": "", "csr": csr}, 400), ("no PEM", {"name": "x", "csr": "x"}, 400),
                               ("a taken name", {"name": "ann", "csr": csr}, 409), ("not an object", [1], 400)):
        s, r = box.admin("POST", "/admin/pair", body)
        check(f"pairing with {what}: {status}", s == status and r["error"]["message"], (s, r))
    s, r = box.admin("GET", "/admin/clients")
    check("the clients are listed", s == 200 and [c["name"] for c in r["clients"]] == ["ann"] and r["clients"][0]["revoked_s"] == 0 and
          r["clients"][0]["fingerprint"] == (d / "fingerprint").read_text(), r)
    for path in ("admin.sock", "state.mdb", "ca/ca.key", "ca/server.key"):
        mode = stat.S_IMODE(os.stat(box.state / path).st_mode)
        check(f"{path} is for its owner only", mode & 0o077 == 0, oct(mode))
    for method, path in (("GET", "/admin/clients"), ("GET", "/admin/status"), ("POST", "/admin/pair"), ("POST", "/admin/bearer"),
                         ("POST", "/admin/clients/revoke")):
        check(f"{path} is for administrators", box.ask(d, method, path, {} if method == "POST" else None)[0] == 403)
    check("what looks for models is not on the network", box.ask(d, "POST", "/admin/reload")[0] == 404)
    check("the models are not on the admin socket", box.admin("GET", "/v1/models")[0] == 404)


def test_revocation(box):
    d = box.pair("bob")
    idle = box.connect(d)
    idle.request("GET", "/v1/models")
    idle.getresponse().read()
    got = []

    def long_stream():
        try:
            got.append(box.stream(d, "len=3000 delay=10"))
        except Exception as e:  # noqa: BLE001 - how it ends is the point
            got.append(e)
    t = threading.Thread(target=long_stream)
    t.start()
    wait(lambda: box.metric("requests_running") == 1)
    s, r = box.admin("POST", "/admin/clients/revoke", {"name": "bob"})
    t.join(5)
    check("revoking cuts what is open", s == 200 and r["cut"] == 2 and not t.is_alive(), (s, r))
    check("...also a running stream", got and (isinstance(got[0], Exception) or got[0][1][-1] != "[DONE]"), str(got)[:200])
    check("...and its request", wait(lambda: any(e[1] == "cancel" for e in box.events())))
    try:
        idle.request("GET", "/v1/models")
        check("...also an idle connection", False, idle.getresponse().status)
    except OSError:
        check("...also an idle connection", True)
    check("a revoked client is refused", is_refused(box, box.context(d)) is True)
    box.stop()
    box.start()
    check("...after a restart too", is_refused(box, box.context(d)) is True)
    check("revoking nobody: 404", box.admin("POST", "/admin/clients/revoke", {"name": "nobody"})[0] == 404)
    check("the name is free again", box.pair("bob") is not None)


def bearer(box, d, key, path="/v1/models", body=None):
    c = http.client.HTTPSConnection("127.0.0.1", box.bearer_port, context=box.context(d, False), timeout=10)
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = key
    c.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
    r = c.getresponse()
    return r.status, json.loads(r.read()), dict((k.lower(), v) for k, v in r.getheaders())


def test_bearer(box):
    d = box.pair("eve")
    s, r = box.admin("POST", "/admin/bearer", {"name": "eve"})
    key = r["key"]
    check("a key is made", s == 200 and key.startswith("kb-") and len(key) == 67, s)
    check("...and is not stored", key.encode() not in (box.state / "state.mdb").read_bytes() and key not in box.log.read_text())
    check("it opens the bearer listener", bearer(box, d, "Bearer " + key)[0] == 200)
    s, r, h = bearer(box, d, "Bearer " + key, "/v1/chat/completions", {"messages": [{"role": "user", "content": "len=2"}]})
    check("...for answers", s == 200 and r["usage"]["completion_tokens"] == 2, r)
    for what, value in (("no key", None), ("another key", "Bearer kb-" + "0" * 64), ("an empty key", "Bearer "),
                        ("another scheme", "Basic " + key), ("the key cut short", "Bearer " + key[:-1])):
        s, r, h = bearer(box, d, value)
        check(f"{what}: 401", s == 401 and r["error"]["code"] == "invalid_api_key" and "www-authenticate" in h, (s, r))
    s, r = box.admin("POST", "/admin/bearer", {"name": "eve"})
    check("a new key ends the old one", bearer(box, d, "Bearer " + key)[0] == 401 and bearer(box, d, "Bearer " + r["key"])[0] == 200)
    box.admin("POST", "/admin/clients/revoke", {"name": "eve"})
    check("revoking the client ends its key", bearer(box, d, "Bearer " + r["key"])[0] == 401)
    check("a key does not open the other listener", is_refused(box, box.context(d, False)) is True)


def test_restart(box, d):
    ca = (box.state / "ca/ca.pem").read_bytes()
    server = (box.state / "ca/server.pem").read_bytes()
    box.stop()
    box.start()
    check("authority and certificate stay", (box.state / "ca/ca.pem").read_bytes() == ca and (box.state / "ca/server.pem").read_bytes() == server)
    box.stop()
    box.flags += ["--name", "new.example"]
    box.start()
    check("a new name: a new certificate", (box.state / "ca/server.pem").read_bytes() != server and (box.state / "ca/ca.pem").read_bytes() == ca)
    s = box.context(d).wrap_socket(socket.create_connection(("127.0.0.1", box.port)), server_hostname="new.example")
    check("...that names it", s.version() == "TLSv1.3")
    s.close()
    r = subprocess.run([box.daemon.args[0], "--state", box.state, "--listen", "127.0.0.1:1"], capture_output=True, timeout=20)
    check("a second daemon on the same state is refused", r.returncode != 0 and b"another kotobakod" in r.stderr, r.stderr)
    box.daemon.kill()
    box.daemon.wait()
    box.start()
    check("after kill -9 it starts again", box.ask(d, "GET", "/v1/models")[0] == 200)


def test_stop(box, d):
    got = []
    t = threading.Thread(target=lambda: got.append(box.stream(d, "len=60 delay=10")))
    t.start()
    wait(lambda: box.metric("requests_running") == 1)
    code = box.stop()
    t.join(10)
    check("SIGTERM lets a running answer end", code == 0 and got and got[0][1][-1] == "[DONE]" and len(text_of(got[0][1])) > 100, (code, str(got)[-200:]))
    check("...and removes the socket", not (box.state / "admin.sock").exists())
    box.start()
    t = threading.Thread(target=lambda: got.append(box.stream(d, "len=4000 delay=50")))
    t.start()
    wait(lambda: box.metric("requests_running") == 1)
    begun = time.monotonic()
    code = box.stop()
    t.join(10)
    check("...but not for ever", code == 0 and time.monotonic() - begun < 8, (code, time.monotonic() - begun))


def main():
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(TMP / "notify"))
    notify.settimeout(5)
    os.environ["NOTIFY_SOCKET"] = str(TMP / "notify")
    box = Box(flags=["--hurry", "5", "--client-rate", "0", "--name", "box.example"])
    try:
        check("the service manager is told", notify.recv(100) == b"READY=1")
        del os.environ["NOTIFY_SOCKET"]
        d = box.pair("ann")
        test_pairing(box, d)
        test_handshake(box, d)
        test_revocation(box)
        test_bearer(box)
        test_restart(box, d)
        test_stop(box, d)
    except Exception as e:  # noqa: BLE001 - reported with the log
        import traceback
        traceback.print_exc(file=sys.stderr)
        check("no unexpected failure", False, repr(e))
    finish([box])


main()
