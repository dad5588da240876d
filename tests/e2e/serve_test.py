#!/usr/bin/env python3
"""`kotobako image serve`: a folder of images, and a box's own installed models, for other boxes. The clients are Python's own
http.client and ssl, and `kotobako image fetch` of a second box. Prints TAP."""
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time

import box
import fleet
from fleet import STATE, TMP, Fleet, check, cli, good

OTHER = TMP / "other"  # the state of the box that fetches


class Mirror:
    def __init__(self, *args, name="mirror"):
        self.port, self.log = box.free_port(), TMP / f"{name}.log"
        self.process = subprocess.Popen([fleet.CLI, "image", "serve", *map(str, args), "--listen", f"127.0.0.1:{self.port}"],
                                        env=fleet.ENV, stderr=open(self.log, "w"))
        self.url = f"https://127.0.0.1:{self.port}"
        for _ in range(200):
            if "serves" in self.log.read_text() or self.process.poll() is not None:
                break
            time.sleep(0.05)

    def ask(self, b, d, method, path, **headers):
        c = http.client.HTTPSConnection("127.0.0.1", self.port, context=b.context(d), timeout=20)
        c.request(method, path, headers=headers)
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, data, {k.lower(): v for k, v in r.getheaders()}

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


def refused(what):
    try:
        what()
    except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
        return True
    return False


def test_who(b, ann, m):
    check("a paired client is answered", m.ask(b, ann, "GET", "/")[0] == 200)

    def stranger():
        c = http.client.HTTPSConnection("127.0.0.1", m.port, context=b.context(ann, False), timeout=20)
        c.request("GET", "/")
        c.getresponse()
    check("without a certificate nobody is", refused(stranger))
    eve = b.pair("eve")
    check("another one, until it is revoked", m.ask(b, eve, "GET", "/")[0] == 200)
    r = cli("revoke", "eve")
    check("a revoked one is not", refused(lambda: m.ask(b, eve, "GET", "/")), r.err)


def test_parts(b, ann, m, data):
    status, body, h = m.ask(b, ann, "GET", "/plain.kbm")
    check("a whole file", status == 200 and body == data and h["accept-ranges"] == "bytes", h)
    n = len(data)
    for text, first, last in (("0-0", 0, 0), (f"0-{n - 1}", 0, n - 1), (f"{n - 1}-", n - 1, n - 1), ("-5", n - 5, n - 1),
                              (f"-{n + 9}", 0, n - 1), (f"1000-{n + 9}", 1000, n - 1), ("4095-8193", 4095, 8193)):
        status, body, h = m.ask(b, ann, "GET", "/plain.kbm", Range=f"bytes={text}")
        check(f"bytes={text}", status == 206 and body == data[first:last + 1] and
              h["content-range"] == f"bytes {first}-{last}/{n}", (status, h))
    for text in (f"{n}-", f"{n}-{n + 5}", "-0"):
        status, body, h = m.ask(b, ann, "GET", "/plain.kbm", Range=f"bytes={text}")
        check(f"bytes={text}: there is nothing", status == 416 and h["content-range"] == f"bytes */{n}" and not body, (status, h))
    for text in ("bytes=5-1", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes=99999999999999999999-", "bytes=-"):
        status, body, _ = m.ask(b, ann, "GET", "/plain.kbm", Range=text)
        check(f"{text}: not one range, so the whole", status == 200 and body == data, status)
    status, body, h = m.ask(b, ann, "HEAD", "/plain.kbm")
    check("HEAD", status == 200 and not body and int(h["content-length"]) == n, h)


def test_paths(b, ann, m):
    listed = json.loads(m.ask(b, ann, "GET", "/")[1])["images"]
    check("the list has files, and no links, folders, hidden files", sorted(x["name"] for x in listed) == ["empty.kbm",
          "plain.kbm"], listed)
    for path in ("/none.kbm", "/../secret", "/%2e%2e/secret", "/%2e%2e%2fsecret", "/.hidden", "/link.kbm", "/folder",
                 "/folder/x", "/pipe", "/plain.kbm%00", "/" + "a" * 500, "//plain.kbm"):
        status = m.ask(b, ann, "GET", path)[0]
        check(f"{path[:30]}: not there", status == 404, status)
    check("an empty file", m.ask(b, ann, "GET", "/empty.kbm")[:2] == (200, b""))
    status, _, h = m.ask(b, ann, "POST", "/plain.kbm")
    check("POST: not allowed", status == 405 and h["allow"] == "GET, HEAD", (status, h))


def raw(b, ann, m):
    return b.context(ann).wrap_socket(socket.create_connection(("127.0.0.1", m.port), timeout=30), server_hostname="127.0.0.1")


def test_hostile(b, ann, m, data):
    for text in (b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"x" * 70000 + b"\r\n\r\n",
                 b"GET /plain.kbm HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"):
        s = raw(b, ann, m)
        s.sendall(text)
        answer = s.recv(100)
        check(f"{text[:20]}: said to be wrong", answer.startswith(b"HTTP/1.1 4"), answer)
        s.close()
    idle = [socket.create_connection(("127.0.0.1", m.port)) for _ in range(31)]  # that do not even shake hands
    check("with 31 idle connections one is still served", m.ask(b, ann, "GET", "/plain.kbm")[1] == data)
    more = [socket.create_connection(("127.0.0.1", m.port)) for _ in range(5)]
    began = time.monotonic()
    check("with more than there is room for it waits until they are cut", m.ask(b, ann, "GET", "/")[0] == 200)
    check("...ten seconds", time.monotonic() - began < 18, time.monotonic() - began)
    for s in idle + more:
        s.close()
    s = raw(b, ann, m)
    s.sendall(b"GET /plain.kbm HTTP/1.1\r\nHost: x\r\n\r\n")
    s.close()  # in the middle of the answer
    results = []
    threads = [threading.Thread(target=lambda: results.append(m.ask(b, ann, "GET", "/plain.kbm")[1] == data)) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check("eight at once", results == [True] * 8, results)
    s = raw(b, ann, m)
    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /plain.kbm HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    while piece := s.recv(65536):
        answer += piece
    check("two requests in one go", answer.count(b"HTTP/1.1 200") == 2 and answer.endswith(data), len(answer))


def test_folder(b, ann):
    folder = TMP / "folder"
    (folder / "folder").mkdir(parents=True)
    data = random.Random(5).randbytes(3_000_001)
    (folder / "plain.kbm").write_bytes(data)
    (folder / "empty.kbm").write_bytes(b"")
    (folder / ".hidden").write_bytes(b"x")
    (TMP / "secret").write_bytes(b"secret")
    (folder / "link.kbm").symlink_to(TMP / "secret")
    os.mkfifo(folder / "pipe")
    m = Mirror(folder)
    test_who(b, ann, m)
    test_parts(b, ann, m, data)
    test_paths(b, ann, m)
    test_hostile(b, ann, m, data)
    out = TMP / "fetched"
    r = cli("--client", ann, "image", "fetch", f"{m.url}/plain.kbm", out)
    check("kotobako image fetch, with the client's certificate and no --ca", r.returncode == 0 and out.read_bytes() == data, r.err)
    check("Ctrl-C ends it, and its connections", m.stop() == 0 and refused(lambda: m.ask(b, ann, "GET", "/")))


def sha(data):
    return hashlib.sha256(data).hexdigest()


def test_installed(b, ann, f):
    images = {"m": f.image("m", 1, rows=8192, cols=512), "small": f.image("small", 3)}
    for image in images.values():
        good("model", "install", image)
    m = Mirror(name="installed")
    listed = {x["name"]: x["bytes"] for x in json.loads(m.ask(b, ann, "GET", "/")[1])["images"]}
    check("the installed models are listed as images", listed == {"m-1.kbm": images["m"].stat().st_size, "small-3.kbm":
          images["small"].stat().st_size}, listed)
    whole = images["m"].read_bytes()
    status, body, _ = m.ask(b, ann, "GET", "/m-1.kbm")
    check("one is, byte by byte, the image that was installed", status == 200 and sha(body) == sha(whole), len(body))
    rng = random.Random(9)
    wrong = []
    for _ in range(60):
        first = rng.randrange(len(whole))
        last = min(len(whole) - 1, first + rng.choice((0, 1, 4095, 4096, 9999, 600_000)))
        if m.ask(b, ann, "GET", "/m-1.kbm", Range=f"bytes={first}-{last}")[1] != whole[first:last + 1]:
            wrong.append((first, last))
    check("60 parts of it anywhere", not wrong, wrong)
    good("root", "trust", f.chain, state=OTHER)
    out = TMP / "from-a-box.kbm"
    r = cli("--client", ann, "image", "fetch", f"{m.url}/m-1.kbm", out, state=OTHER)
    check("another box fetches it, four parts at a time", r.returncode == 0 and sha(out.read_bytes()) == sha(whole), r.err)
    check("...and installs it", "m version 1 is installed" in good("model", "install", out, state=OTHER))
    good("model", "install", f.image("m", 2))
    listed = [x["name"] for x in json.loads(m.ask(b, ann, "GET", "/")[1])["images"]]
    check("a version that is installed meanwhile takes the old one's place", sorted(listed) == ["m-2.kbm", "small-3.kbm"], listed)
    good("model", "remove", "small")
    listed = [x["name"] for x in json.loads(m.ask(b, ann, "GET", "/")[1])["images"]]
    check("one that is removed is not served any more", listed == ["m-2.kbm"], listed)
    m.stop()
    # A newer root, known to the box that gives and not to the one that takes.
    f.root()
    image = f.image("n", 1)
    good("model", "install", image)
    m = Mirror(name="rotated")
    out = TMP / "rotated.kbm"
    good("--client", ann, "image", "fetch", f"{m.url}/n-1.kbm", out)
    check("the roots come along, with their signatures", sha(out.read_bytes()) == sha(image.read_bytes()))
    check("so a box that has slept follows", "n version 1 is installed" in good("model", "install", out, state=OTHER) and
          "root 2" in good("root", "trusted", state=OTHER), good("root", "trusted", state=OTHER))
    m.stop()
    stored = next(p for p in (STATE / "models/store").glob("*.kbm") if p.stat().st_size == (OTHER / "models/store" / p.name).stat()
                  .st_size if (OTHER / "models/store" / p.name).exists())
    stored.chmod(0o644)
    with open(stored, "r+b") as file:
        file.seek(20000)
        byte = file.read(1)[0]
        file.seek(20000)
        file.write(bytes([byte ^ 4]))
    m = Mirror(name="damaged")
    listed = [x["name"] for x in json.loads(m.ask(b, ann, "GET", "/")[1])["images"]]
    check("a model that is damaged is not given on", listed == ["m-2.kbm"] and "n-1.kbm is not served" in m.log.read_text(),
          (listed, m.log.read_text()))
    m.stop()


def main():
    r = cli("image", "serve", TMP)
    check("a box that never ran has no certificate", r.returncode == 1 and "kotobakod makes it" in r.err, r.err)
    b = box.Box()
    ann = b.pair("ann")
    check("a folder that is not there", cli("image", "serve", TMP / "none").returncode == 1)
    r = cli("image", "serve", "--listen", "nowhere:x")
    check("a wrong address: usage", r.returncode == 2 and "--listen" in r.err, r.err)
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    r = cli("image", "serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    check("an address that is taken", r.returncode == 1 and "in use" in r.err, r.err)
    test_folder(b, ann)
    f = Fleet()
    good("root", "trust", f.chain)
    test_installed(b, ann, f)
    b.stop()
    fleet.done()


if __name__ == "__main__":
    main()
