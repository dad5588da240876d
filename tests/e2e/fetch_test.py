#!/usr/bin/env python3
"""Files from a static HTTPS server on the network: Python's own, with ranges, that also fails as servers and cables do.
Prints TAP."""
import http.server
import os
import random
import re
import signal
import ssl
import subprocess
import threading
import time

import fleet
from fleet import TMP, Fleet, check, cli, good

files, log = {}, []
behaviour = {"cut": 0.0, "busy": 0.0, "slow": 0.0, "ranges": True}
lock = threading.Lock()
rng = random.Random(3)


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        data = files.get(self.path)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        with lock:
            log.append((self.path, self.headers.get("Range")))
            cut, busy = rng.random() < behaviour["cut"], rng.random() < behaviour["busy"]
        if data is None or busy:
            self.send_response(404 if data is None else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if wanted and behaviour["ranges"]:
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            first, last = 0, len(data) - 1
            self.send_response(200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        body = data[first:last + 1]
        time.sleep(behaviour["slow"])
        if cut and len(body) > 1:
            self.wfile.write(body[:len(body) // 3])
            self.close_connection = True
            return
        self.wfile.write(body)


class Tls(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def finish_request(self, request, client_address):
        try:
            super().finish_request(self.tls.wrap_socket(request, server_side=True), client_address)
        except OSError:
            pass

    def handle_error(self, request, client_address):
        pass


def start():
    for name in ("server", "other"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                        TMP / f"{name}.key", "-out", TMP / f"{name}.pem", "-days", "2", "-subj", "/CN=mirror", "-addext",
                        "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    server = Tls(("127.0.0.1", 0), Server)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(TMP / "server.pem", TMP / "server.key")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"https://127.0.0.1:{server.server_address[1]}"


def fetch(url, out, ca="server"):
    return cli("image", "fetch", url, out, "--ca", TMP / f"{ca}.pem")


def parts(out):
    return [p.name for p in TMP.glob(out.name + ".part*")]


def main():
    url = start()
    for size in (1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 21_000_007):
        files["/f"] = os.urandom(size)
        out = TMP / f"out-{size}"
        r = fetch(f"{url}/f", out)
        check(f"{size} bytes", r.returncode == 0 and out.read_bytes() == files["/f"] and not parts(out), r.err)
    asked = [(int(a), int(b)) for a, b in re.findall(r"bytes=(\d+)-(\d+)", str([x for _, x in log[-7:]]))]
    check("each byte is asked for once, the first one twice", sum(b - a + 1 for a, b in asked) == size + 1, asked)
    r = fetch(f"{url}/f", TMP / "out-1")
    check("what is there already stays", r.returncode == 1 and "already" in r.err and (TMP / "out-1").stat().st_size == 1, r.err)
    for wrong, says, status in ((f"{url}/none", "has no", 1), ("http://127.0.0.1/x", "https://", 2), (f"{url}/a b", "https://", 2),
                                ("https://127.0.0.1:1/x", "", 3)):
        r = fetch(wrong, TMP / "wrong")
        check(f"{wrong.split('//')[1][-6:]}: refused", r.returncode == status and says in r.err and not (TMP / "wrong").exists(),
              r.err)
    r = fetch(f"{url}/f", TMP / "wrong", ca="other")
    check("a server that nobody vouches for", r.returncode != 0 and not (TMP / "wrong").exists(), r.err)
    check("no --ca: usage", cli("image", "fetch", f"{url}/f", TMP / "wrong").returncode == 2)
    behaviour["ranges"] = False
    r = fetch(f"{url}/f", TMP / "wrong")
    check("a server without ranges is told from one with", r.returncode == 1 and "range" in r.err, r.err)
    behaviour.update(ranges=True, cut=0.4, busy=0.2)
    out = TMP / "rough"
    r = fetch(f"{url}/f", out)
    check("connections that are cut, answers that do not come: it comes through", r.returncode == 0 and out.read_bytes() ==
          files["/f"], r.err)
    behaviour.update(cut=0.0, busy=0.0, slow=0.4)
    files["/g"] = os.urandom(60 << 20)
    out = TMP / "resumed"
    p = subprocess.Popen([fleet.CLI, "image", "fetch", f"{url}/g", out, "--ca", TMP / "server.pem"], env=fleet.ENV,
                         stderr=subprocess.DEVNULL)
    time.sleep(1.4)
    p.send_signal(signal.SIGKILL)
    p.wait()
    behaviour["slow"] = 0.0
    before = len(log)
    r = fetch(f"{url}/g", out)
    asked = len(log) - before - 1
    check("killed: the same command goes on, and asks only for what is missing", r.returncode == 0 and "goes on" in r.err and
          asked < 15 and out.read_bytes() == files["/g"], (asked, r.err))
    (TMP / "changed.part").write_bytes(bytes(100))
    (TMP / "changed.part.map").write_bytes((100).to_bytes(8, "little") + b"\1")
    r = fetch(f"{url}/f", TMP / "changed")
    check("parts of a file of another length are not used", r.returncode == 0 and (TMP / "changed").read_bytes() == files["/f"],
          r.err)
    f = Fleet()
    image = f.image("m", rows=8192, cols=512)
    files["/images/m.kbm"] = image.read_bytes()
    good("root", "trust", f.chain)
    good("image", "fetch", f"{url}/images/m.kbm", TMP / "m.kbm", "--ca", TMP / "server.pem")
    check("an image from the mirror is installed", "m version 1 is installed" in good("model", "install", TMP / "m.kbm"))
    fleet.done()


main()
