# A kotobakod with the scripted engine (fake_engine.c) for tests of the daemon; clients by Python's own ssl and
# http.client, certificates by openssl: nothing of ours on this side of the wire. Prints TAP.
import http.client
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import time

BIN = pathlib.Path(os.environ.get("KB_BIN", "build/release"))
TMP = pathlib.Path(os.environ["KB_TMP"])
count = 0
failed = 0


def check(what, ok, detail=""):
    global count, failed
    count += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {count} - {what}" + ("" if ok else f"  # {str(detail)[:900].replace(chr(10), " / ")}"), flush=True)
    return ok


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.path)


class Box:
    def __init__(self, models={"fake": ""}, flags=(), name="state"):
        self.state = TMP / name
        (self.state / "models").mkdir(parents=True, exist_ok=True)
        self.port, self.bearer_port = free_port(), free_port()
        self.flags = list(flags)
        for model, text in models.items():
            self.image(model).write_text(text)
        self.log = TMP / f"{name}.log"
        self.start()

    def image(self, model="fake"):
        return self.state / f"models/{model}.kbm"

    def start(self):
        self.daemon = subprocess.Popen(
            [BIN / "kotobakod", "--state", self.state, "--listen", f"127.0.0.1:{self.port}", "--bearer",
             f"127.0.0.1:{self.bearer_port}", "--engine", BIN / "test/fake_engine", *self.flags],
            stderr=open(self.log, "a"))
        for _ in range(200):
            if self.daemon.poll() is not None:
                break
            try:
                if self.admin("GET", "/admin/status")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the daemon does not start: " + self.log.read_text()[-2000:])

    def stop(self, number=signal.SIGTERM):
        self.daemon.send_signal(number)
        try:
            return self.daemon.wait(30)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            return "did not stop"

    def admin(self, method, path, body=None):
        c = UnixConnection(self.state / "admin.sock")
        c.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, json.loads(data) if "json" in r.getheader("Content-Type", "") else data.decode()

    # A key by openssl, a certificate by the box. Returns the directory of ca.pem, cert.pem, key.pem.
    def pair(self, name, **more):
        d = TMP / f"client-{name}"
        d.mkdir(exist_ok=True)
        subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", d / "key.pem", "-out", d / "csr.pem", "-subj", "/CN=whatever"],
                       check=True, capture_output=True)
        status, r = self.admin("POST", "/admin/pair", {"name": name, "csr": (d / "csr.pem").read_text(), **more})
        if status != 200:
            raise RuntimeError(str(r))
        (d / "cert.pem").write_text(r["certificate"])
        (d / "ca.pem").write_text(r["ca"])
        (d / "fingerprint").write_text(r["fingerprint"])
        return d

    def context(self, d, with_certificate=True):
        tls = ssl.create_default_context(cafile=d / "ca.pem")
        if with_certificate:
            tls.load_cert_chain(d / "cert.pem", d / "key.pem")
        return tls

    def connect(self, d, timeout=20):
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context(d), timeout=timeout)

    # A bare TLS socket, for requests that no library would send.
    def raw(self, d, timeout=20):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        return self.context(d).wrap_socket(s, server_hostname="localhost")

    def ask(self, d, method, path, body=None, headers=None):
        c = self.connect(d)
        try:
            data = body if isinstance(body, (str, bytes)) or body is None else json.dumps(body)
            c.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            r = c.getresponse()
            text = r.read()
            parsed = json.loads(text) if "json" in r.getheader("Content-Type", "") else text.decode()
            return r.status, parsed, dict((k.lower(), v) for k, v in r.getheaders())
        finally:
            c.close()

    def chat(self, d, prompt, **fields):
        return self.ask(d, "POST", "/v1/chat/completions",
                        {"model": "fake", "messages": [{"role": "user", "content": prompt}], **fields})

    # The events of a stream, parsed; comments as ":". on_event may raise StopIteration to leave.
    def stream(self, d, prompt, path="/v1/chat/completions", on_event=None, **fields):
        c = self.connect(d, timeout=60)
        body = {"model": "fake", "stream": True, **fields}
        body.update({"messages": [{"role": "user", "content": prompt}]} if "chat" in path else {"prompt": prompt})
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        events = []
        if r.status != 200:
            return r.status, json.loads(r.read())
        for line in r:
            line = line.rstrip(b"\n")
            if line.startswith(b":"):
                events.append(":")
            elif line.startswith(b"data: "):
                data = line[6:].decode()
                events.append(data if data == "[DONE]" else json.loads(data))
            else:
                continue
            try:
                if on_event:
                    on_event(events)
            except StopIteration:
                c.close()
                return r.status, events
        c.close()
        return r.status, events

    def metric(self, name):
        for line in self.admin("GET", "/metrics")[1].splitlines():
            if line.startswith("kotobako_" + name + " ") or line.startswith("kotobako_" + name + "{"):
                return float(line.rsplit(" ", 1)[1])
        return None

    def events(self, model="fake"):
        path = pathlib.Path(str(self.image(model)) + ".log")
        return [x.split() for x in path.read_text().splitlines()] if path.exists() else []

    def engine(self, model="fake"):
        for e in self.admin("GET", "/admin/status")[1]["engines"]:
            if e["model"] == model:
                return e
        return {"state": "none", "pid": 0}

    def wait_engine(self, state="ready", model="fake", seconds=10):
        return wait(lambda: self.engine(model)["state"] == state, seconds)


def wait(condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def text_of(events):
    return "".join(c["delta"].get("content") or "" if "delta" in c else c["text"]
                   for e in events if isinstance(e, dict) for c in e.get("choices", []))


def finish(boxes):
    for box in boxes:
        if box.daemon.poll() is None:
            check("the daemon leaves in order", (r := box.stop()) == 0, r)
        if failed:
            print("# " + "\n# ".join(box.log.read_text().splitlines()[-40:]))
        if "Sanitizer" in box.log.read_text():
            check("no sanitizer report", False, "")
            print("# " + "\n# ".join(box.log.read_text()[box.log.read_text().index("Sanitizer"):].splitlines()[:40]))
    print(f"1..{count}")
    sys.exit(1 if failed else 0)
