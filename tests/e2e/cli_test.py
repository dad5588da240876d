#!/usr/bin/env python3
"""The command line against a scripted box: a TLS 1.3 server and an admin socket made of Python's standard library and
the openssl program, so that nothing of ours judges itself. Prints TAP.

The box does what the last message asks for: hello, control, slow, broken, cut, busy, refuse, echo.
"""
import http.server
import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import socketserver
import ssl
import stat
import subprocess
import sys
import threading
import time

CLI = str(pathlib.Path(os.environ.get("KB_CLI", "build/release/kotobako")).resolve())
TMP = pathlib.Path(os.environ["KB_TMP"])
STATE, CLIENT, CA = TMP / "state", TMP / "client", TMP / "ca"
ENV = {**os.environ, "XDG_CONFIG_HOME": str(TMP / "config"), "XDG_DATA_HOME": str(TMP / "data"), "HOME": str(TMP),
       "TERM": "xterm", "LC_ALL": "C.UTF-8", "KB_STATE": "", "KB_TTY": ""}
tests = failed = 0
requests = []   # bodies of chat requests
gone = threading.Event()   # a reader went away in the middle of an answer
busy = [0]
revoked = set()


def check(what, ok, detail=""):
    global tests, failed
    tests += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {tests} - {what}" + ("" if ok else f"  # {str(detail)[:600]!r}"), flush=True)


def openssl(*args, text=None):
    return subprocess.run(["openssl", *map(str, args)], input=text, check=True, capture_output=True, text=True).stdout


# --- the box -----------------------------------------------------------------------
def make_authority():
    CA.mkdir()
    for name, extension in (("ca", "basicConstraints=critical,CA:TRUE"), ("other", "basicConstraints=critical,CA:TRUE")):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                CA / f"{name}.key", "-out", CA / f"{name}.pem", "-days", "90", "-subj", f"/CN=test {name}", "-addext",
                extension)
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", CA / "box.key",
            "-out", CA / "box.csr", "-subj", "/CN=box")
    (CA / "box.ext").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    openssl("x509", "-req", "-in", CA / "box.csr", "-CA", CA / "ca.pem", "-CAkey", CA / "ca.key", "-days", "90",
            "-extfile", CA / "box.ext", "-out", CA / "box.pem")


def sign(csr):
    (CA / "client.ext").write_text("extendedKeyUsage=clientAuth\n")
    return openssl("x509", "-req", "-CA", CA / "ca.pem", "-CAkey", CA / "ca.key", "-days", "90", "-extfile",
                   CA / "client.ext", text=csr)


class Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def body(self):
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")

    def reply(self, status, value, **headers):
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Box(Quiet):
    def do_GET(self):
        if self.path == "/v1/models":
            return self.reply(200, {"object": "list", "data": [{"id": "first", "object": "model"}, {"id": "second"}]})
        if self.path == "/healthz":
            return self.reply(200, {"status": "ok", "model": "first", "device": "d", "device_us": 5})
        return self.reply(404, {"error": {"message": "no such path"}})

    def event(self, value):
        data = value if isinstance(value, str) else json.dumps(value)
        data = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def piece(self, text, finish=None):
        self.event({"object": "chat.completion.chunk", "model": "first", "choices": [{"index": 0, "delta": {"content": text} if text else {},
                                                                    "finish_reason": finish}]})

    def finish_stream(self, tokens):
        self.piece("", "stop")
        self.event({"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 15}})
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def do_POST(self):
        body = self.body()
        requests.append(body)
        wish = body["messages"][-1]["content"]
        if wish == "refuse":
            return self.reply(400, {"error": {"message": "the context is \x1b[31mexceeded", "type": "invalid_request_error"}},
                              x_request_id="req-7")
        if wish == "busy" and busy[0] < 2:
            busy[0] += 1
            return self.reply(503, {"error": {"message": "loading"}}, Retry_After="1")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self.script(wish, body)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            gone.set()
            self.close_connection = True

    def script(self, wish, body):
        if wish == "control":
            self.piece("a\x1b[2Jb\x07\u009bc\n")
        elif wish == "slow":
            for i in range(600):
                self.piece(f"tick{i} ")
                time.sleep(0.05)
        elif wish == "broken":
            self.piece("so far")
            self.event({"error": {"message": "the device was lost"}})
        elif wish == "cut":
            self.piece("so far")
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        elif wish == "echo":
            self.piece(json.dumps(body["messages"], ensure_ascii=False))
        else:
            for text in ("Hel", "lo ", "言", "箱"):
                self.piece(text)
                time.sleep(0.01)
        self.finish_stream(4)


class Admin(Quiet):
    def address_string(self):
        return "admin"

    def do_GET(self):
        if self.path == "/admin/clients":
            return self.reply(200, {"clients": [{"name": "ann", "fingerprint": "ab" * 32, "created_s": 86400 * 365,
                                                 "revoked_s": 86400 * 366 if "ann" in revoked else 0,
                                                 "has_bearer": True}]})
        return self.reply(200, {"version": "0.1", "listen": f"0.0.0.0:{Admin.port}", "engines": [{"model": "fir\x1b[31mst"}]})

    def do_POST(self):
        body = self.body()
        if self.path == "/admin/pair":
            Admin.csr = body["csr"]
            return self.reply(200, {"certificate": sign(body["csr"]), "ca": (CA / "ca.pem").read_text(),
                                    "fingerprint": "cd" * 32, "name": body["name"]})
        if body.get("name") != "ann":
            return self.reply(404, {"error": {"message": "there is no client of that name"}})
        if self.path == "/admin/clients/revoke":
            revoked.add(body["name"])
            return self.reply(200, {})
        return self.reply(200, {"key": "kb-secret"})


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("admin", 0)


class TlsServer(http.server.ThreadingHTTPServer):
    def finish_request(self, request, client_address):
        try:
            request = self.tls.wrap_socket(request, server_side=True)
        except (OSError, ssl.SSLError):
            return
        super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        pass


def start_box():
    make_authority()
    STATE.mkdir(mode=0o700)
    server = TlsServer(("127.0.0.1", 0), Box)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.minimum_version = ssl.TLSVersion.TLSv1_3
    server.tls.load_cert_chain(CA / "box.pem", CA / "box.key")
    server.tls.load_verify_locations(CA / "ca.pem")
    server.tls.verify_mode = ssl.CERT_REQUIRED
    Admin.port = server.server_address[1]
    admin = UnixServer(str(STATE / "admin.sock"), Admin)
    for s in (server, admin):
        threading.Thread(target=s.serve_forever, daemon=True).start()
    return server.server_address[1]


# --- the command line -----------------------------------------------------------------
def cli(*args, text="", client=CLIENT):
    return subprocess.run([CLI, "--client", client, *map(str, args)], input=text, capture_output=True, text=True, env=ENV,
                          timeout=60)


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *args):
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(CLI, [CLI, "--client", str(CLIENT), *map(str, args)], ENV)

    def read(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            data = b""
        self.seen += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, pattern, seconds=15):
        """What was shown up to the end of pattern; "" when it does not come."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = re.search(pattern, self.seen, re.S)
            if found:
                shown, self.seen = self.seen[:found.end()], self.seen[found.end():]
                return shown
            if not self.read(0.2) and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
        print(f"# waited for {pattern!r}, saw {self.seen!r}", flush=True)
        return ""

    def send(self, text):
        os.write(self.fd, text.encode())

    def status(self, seconds=15):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.read(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return None


def test_usage():
    r = cli("help")
    check("help names every command", r.returncode == 0 and all(
        c in r.stdout for c in "chat run import model pair clients revoke bearer status bench doctor".split()), r)
    for c in re.findall(r"^  (\w+) ", cli("help").stdout.split("options")[0], re.M):
        if c != "help":
            r, s = cli("help", c), cli(c, "--help")
            check(f"help {c}", r.returncode == 0 and f"usage: kotobako {c}" in r.stdout and s.stdout == r.stdout, r)
    page = pathlib.Path("docs/cli.md").read_text()
    sections = {m[0]: m[1] for m in re.findall(r"^### `kotobako (\w+)[^\n]*\n(.*?)(?=^##|\Z)", page, re.S | re.M)}
    for c, section in sections.items():
        said = cli("help", c).stdout.split("options for every command")[0]
        written = set(re.findall(r"^\| `(--[a-z-]+)", section, re.M))
        if c == "chat":  # "takes run's options ..."
            written |= set(re.findall(r"`(--[a-z-]+)`", section))
        missing = set(re.findall(r"^  (--[a-z-]+)", said, re.M)) ^ written
        check(f"docs/cli.md has the options of {c}", said and not missing, missing)
    check("docs/cli.md has every command", set(sections) == {c for c in re.findall(
        r"^  (\w+) ", cli("help").stdout.split("options")[0], re.M) if c != "help"}, sections.keys())
    for args in ([], ["nosuch"], ["run"], ["run", "a", "b"], ["run", "--nosuch", "x"], ["model", "nosuch"],
                 ["model", "show"], ["run", "--temperature", "9", "x"], ["--box", "x:y", "run", "x"], ["run", ""]):
        r = cli(*args)
        check(f"usage: {' '.join(args) or 'nothing'}", r.returncode == 2 and r.stderr and not r.stdout, r)
    r = cli("run", "hello", client=TMP / "nowhere")
    check("unpaired: 3, and what to do", r.returncode == 3 and "kotobako pair" in r.stderr, r)
    r = cli("--state", TMP / "nowhere", "status")
    check("no daemon: 3, and what to do", r.returncode == 3 and "kotobakod" in r.stderr, r)


def test_pair(port):
    r = cli("--state", STATE, "--box", f"127.0.0.1:{port}", "pair", "--name", "ann", "--out", CLIENT)
    check("pair", r.returncode == 0 and "ann" in r.stdout, r)
    mode = {f: stat.S_IMODE((CLIENT / f).stat().st_mode) for f in ("key.pem", "cert.pem", "ca.pem", "box.json")}
    check("the key is only the owner's", mode["key.pem"] == 0o600 and stat.S_IMODE(CLIENT.stat().st_mode) == 0o700, mode)
    key = openssl("pkey", "-in", CLIENT / "key.pem", "-noout", "-text")
    check("the key is P-256", "P-256" in key, key)
    request = openssl("req", "-verify", "-noout", "-subject", text=Admin.csr)
    check("the request is signed and names the client", "ann" in request, request)
    public = openssl("pkey", "-in", CLIENT / "key.pem", "-pubout")
    check("the certificate is for that key", openssl("x509", "-in", CLIENT / "cert.pem", "-noout", "-pubkey") == public)
    box = json.loads((CLIENT / "box.json").read_text())
    check("box.json", box == {"host": "127.0.0.1", "port": port, "name": "ann", "fingerprint": "cd" * 32}, box)
    before = (CLIENT / "key.pem").read_text()
    r = cli("--state", STATE, "pair", "--out", CLIENT)
    check("a pairing is not overwritten", r.returncode == 1 and (CLIENT / "key.pem").read_text() == before, r)
    (CLIENT / "box.json").unlink()
    r = cli("--state", STATE, "pair", "--name", "ann", "--out", CLIENT, "--replace")
    check("--replace replaces it", r.returncode == 0 and (CLIENT / "key.pem").read_text() != before, r)
    check("without --box the daemon says where it listens", json.loads((CLIENT / "box.json").read_text()) == box)
    r = cli("--state", STATE, "pair", "--name", "a/b", "--out", TMP / "other")
    check("a bad name is a usage error", r.returncode == 2 and not (TMP / "other").exists(), r)
    r = cli("--state", TMP / "nowhere", "pair", "--out", TMP / "other")
    check("pair without a daemon: 3, no credentials", r.returncode == 3 and not (TMP / "other/key.pem").exists(), r)


def test_models():
    """Images from the importer's own fixture, whole, cut and damaged."""
    state = TMP / "models-state"
    small = pathlib.Path("tests/data/gguf/small.gguf").resolve()
    expected = [line.split() for line in small.with_suffix(".txt").read_text().splitlines()]
    n_tensors = sum(row[0] == "tensor" for row in expected)
    r = cli("--state", state, "model", "list")
    check("no models yet: said, and no failure", r.returncode == 0 and r.stdout == "" and "import" in r.stderr, r)
    r = cli("--state", state, "import", small)
    image = state / "models/small.kbm"
    check("import", r.returncode == 0 and image.exists() and f"{n_tensors} tensors" in r.stderr
          and "exact" in r.stderr and re.search(r"^importing small.gguf: \d+ %$", r.stderr, re.M), r)
    r = cli("--state", state, "import", small)
    check("an image is not overwritten", r.returncode == 1 and "--replace" in r.stderr, r)
    r = cli("--state", state, "import", small, "--replace")
    check("--replace replaces it", r.returncode == 0, r)
    r = cli("--state", state, "import", small, "--name", "Other Name")
    check("a bad name is a usage error", r.returncode == 2, r)
    r = cli("--state", state, "import", small, "--name", "x", "--out", TMP / "x.kbm")
    check("--name and --out exclude each other", r.returncode == 2 and not (TMP / "x.kbm").exists(), r)
    r = cli("import", small, "--out", TMP / "out.kbm")
    check("--out", r.returncode == 0 and (TMP / "out.kbm").read_bytes() == image.read_bytes(), r)
    data = small.read_bytes()
    for what, bad in (("cut", data[:len(data) // 2]), ("no GGUF", b"PK" + data[2:]), ("empty", b"")):
        file = TMP / "bad.gguf"
        file.write_bytes(bad)
        r = cli("--state", state, "import", file)
        check(f"import of a file that is {what}: 1, nothing left", r.returncode == 1 and "bad.gguf" in r.stderr
              and os.listdir(state / "models") == ["small.kbm"], r)
    r = cli("--state", state, "model", "list")
    check("model list", r.returncode == 0 and r.stdout.startswith("small "), r)
    row = json.loads(cli("--state", state, "model", "list", "--json").stdout)[0]
    check("model list --json", row["name"] == "small" and row["bytes"] == image.stat().st_size, row)
    r = cli("--state", state, "model", "show", "small")
    check("model show", r.returncode == 0 and row["sha256"] in r.stdout and f"tensors     {n_tensors} in" in r.stdout
          and "general.architecture = " in r.stdout, r)
    r = cli("--state", state, "model", "verify", "small")
    check("model verify", r.returncode == 0 and row["sha256"] in r.stdout, r)
    r = cli("--state", state, "model", "digest", "small")
    other = subprocess.run(["fsverity", "digest", image], stdout=subprocess.PIPE, text=True, check=True).stdout
    check("model digest is fsverity's", r.returncode == 0 and r.stdout == other, (r, other))
    damaged = bytearray(image.read_bytes())
    place = next(at for at in (damaged.find(data[k:k + 16]) for k in range(len(data) - 16, 0, -16)) if at > 0)
    damaged[place] ^= 1  # a weight that is stored as it was
    image.write_bytes(damaged)
    r = cli("--state", state, "model", "verify", "small")
    check("one bit turned: verify says so", r.returncode == 1 and r.stderr, r)
    image.write_bytes(damaged[:5000])
    r = cli("--state", state, "model", "list")
    check("a cut image is listed as damaged: 1", r.returncode == 1 and "damaged" in r.stdout, r)
    r = cli("--state", state, "model", "remove", "small")
    check("model remove", r.returncode == 0 and not image.exists(), r)
    for action in ("show", "verify", "digest", "remove"):
        r = cli("--state", state, "model", action, "small")
        check(f"model {action} of what is not there: 1", r.returncode == 1 and "small" in r.stderr, r)
    r = cli("--state", state, "model", "remove", "../small")
    check("a name is no path", r.returncode == 1, r)


def test_doctor():
    """Its own checks; what kotobako-engine says is another test's matter, so the program is a script here."""
    place = TMP / "bin"
    place.mkdir()
    (place / "kotobako").write_bytes(pathlib.Path(CLI).read_bytes())
    (place / "kotobako-engine").write_text('#!/bin/sh\necho "engine: $@"\n[ ! -e "$KB_ILL" ]\n')
    for f in place.iterdir():
        f.chmod(0o755)

    def there(*args, **env):
        return subprocess.run([place / "kotobako", "--client", CLIENT, *map(str, args)], capture_output=True, text=True,
                              env={**ENV, **env}, timeout=60)

    r = there("--state", STATE, "doctor")
    marks = re.findall(r"^(ok|note|BAD) +(state|models|daemon|box's CA|certificate|key|box) ", r.stdout, re.M)
    check("doctor checks everything", r.returncode == 0 and [m for m, _ in marks] == ["ok", "note"] + ["ok"] * 5, r)
    check("and runs the engine", "engine: --doctor\n" in r.stdout, r)
    r = there("doctor", "--image", "x.kbm", KB_ILL=str(CLIENT))
    check("an ill engine: 1", r.returncode == 1 and "engine: --doctor x.kbm" in r.stdout, r)
    os.chmod(CLIENT / "key.pem", 0o644)
    r = there("--state", STATE, "doctor")
    check("a key that others can read: 1", r.returncode == 1 and re.search(r"^BAD +key", r.stdout, re.M), r)
    os.chmod(CLIENT / "key.pem", 0o600)
    r = there("bench", "--image", "x.kbm", "--prompt", "7", "--decode", "9", "--json")
    check("bench runs the engine", r.stdout == "engine: --bench x.kbm --prompt 7 --decode 9 --json\n", r)
    r = there("--state", STATE, "bench")
    check("bench without a model: 1, and what to do", r.returncode == 1 and "--image" in r.stderr, r)
    (place / "kotobako-engine").unlink()
    r = there("bench", "--image", "x.kbm", PATH="/nonexistent")
    check("no engine: 1, and where it belongs", r.returncode == 1 and "beside" in r.stderr, r)


def test_admin():
    r = cli("--state", STATE, "clients")
    check("clients", r.returncode == 0 and "ann" in r.stdout and "1971-01-01" in r.stdout and "bearer" in r.stdout, r)
    r = cli("--state", STATE, "revoke", "bob")
    check("an unknown client", r.returncode == 1 and "no client of that name" in r.stderr, r)
    r = cli("--state", STATE, "revoke", "ann")
    check("revoke", r.returncode == 0 and "revoked" in cli("--state", STATE, "clients").stdout, r)
    r = cli("--state", STATE, "clients", "--json")
    check("clients --json", json.loads(r.stdout)[0]["name"] == "ann", r)
    r = cli("--state", STATE, "bearer", "ann")
    check("bearer: the key alone on standard output", r.returncode == 0 and r.stdout == "kb-secret\n" and r.stderr, r)
    r = cli("--state", STATE, "status")
    check("status over the admin socket, cleaned", r.returncode == 0 and "fir[31mst" in r.stdout and "\x1b" not in r.stdout, r)
    r = cli("status")
    check("status over TLS", r.returncode == 0 and re.search(r"^device_us +5$", r.stdout, re.M), r)
    r = cli("status", "--json")
    check("status --json", json.loads(r.stdout)["status"] == "ok", r)


def test_run():
    r = cli("run", "hello")
    check("run prints the answer", r.returncode == 0 and r.stdout == "Hello 言箱\n" and r.stderr == "", r)
    b = requests[-1]
    check("the request", "model" not in b and b["stream"] is True and b["stream_options"] == {"include_usage": True}
          and b["messages"] == [{"role": "user", "content": "hello"}] and "temperature" not in b, b)
    r = cli("run", "--model", "second", "--system", "Be brief.", "--max-tokens", "9", "--temperature", "0", "--seed", "3",
            "--stats", "-", text="hello 言箱\n")
    b = requests[-1]
    check("options and standard input", b == {
        "model": "second", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello 言箱\n"}],
        "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 9, "temperature": 0.0, "seed": 3}, b)
    check("--stats on standard error", "prefill 12 tokens" in r.stderr and "decode 4 tokens" in r.stderr, r)
    r = cli("run", "--json", "hello")
    j = json.loads(r.stdout)
    check("--json", j["model"] == "first" and j["text"] == "Hello 言箱" and j["finish_reason"] == "stop" and j["usage"]["completion_tokens"] == 4
          and 0 < j["timings"]["first_token_s"] < 30 and j["timings"]["decode_tps"] > 0, r)
    r = cli("run", "refuse")
    check("a refusal: 1, its text, cleaned, with its id", r.returncode == 1 and "the context is [31mexceeded" in r.stderr
          and "req-7" in r.stderr and "\x1b" not in r.stderr and r.stdout == "", r)
    r = cli("run", "broken")
    check("an error in the stream: 1", r.returncode == 1 and r.stdout == "so far\n" and "the device was lost" in r.stderr, r)
    r = cli("run", "cut")
    check("a cut stream: 1, incomplete", r.returncode == 1 and r.stdout == "so far\n" and "incomplete" in r.stderr, r)
    started = time.monotonic()
    r = cli("run", "busy")
    check("a busy box is asked again, when it says", r.returncode == 0 and r.stdout == "Hello 言箱\n"
          and 1.9 < time.monotonic() - started < 20, r)
    busy[0] = 0
    r = cli("run", "--wait", "0", "busy")
    check("--wait 0 does not wait", r.returncode == 1 and "loading" in r.stderr, r)
    busy[0] = 2
    r = cli("run", "control")
    check("a pipe gets the bytes", r.returncode == 0 and r.stdout == "a\x1b[2Jb\x07\u009bc\n", r)
    with open("/dev/full", "w") as full:
        r = subprocess.run([CLI, "--client", CLIENT, "run", "hello"], stdout=full, stderr=subprocess.PIPE, text=True, env=ENV)
    check("a full disk is a failure", r.returncode == 1 and r.stderr, r)


def test_trust(port):
    other = TMP / "stranger"
    other.mkdir()
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", other / "key.pem",
            "-out", other / "cert.pem", "-days", "90", "-subj", "/CN=mallory")
    (other / "ca.pem").write_text((CA / "ca.pem").read_text())
    (other / "box.json").write_text((CLIENT / "box.json").read_text())
    r = cli("run", "hello", client=other)
    check("a stranger is refused: 3", r.returncode == 3 and r.stdout == "" and r.stderr, r)
    for f in ("key.pem", "cert.pem"):
        (other / f).write_text((CLIENT / f).read_text())
    (other / "ca.pem").write_text((CA / "other.pem").read_text())
    n = len(requests)
    r = cli("run", "hello", client=other)
    check("a box that our CA does not vouch for: 3, nothing was asked", r.returncode == 3 and len(requests) == n, r)
    r = cli("--box", f"localhost:{port}", "run", "hello")
    check("a name that its certificate lacks: 3", r.returncode == 3 and len(requests) == n, r)


def test_interrupt():
    p = subprocess.Popen([CLI, "--client", CLIENT, "run", "slow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV)
    os.read(p.stdout.fileno(), 5)
    gone.clear()
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=10)
    check("Ctrl-C: 130", p.returncode == 130, p.returncode)
    check("and the box notices", gone.wait(10))


def test_chat_pipe():
    n = len(requests)
    r = cli("chat", "--system", "Be brief.", text='hello\n\nfirst\\\nsecond\n"""\n/quit\n  x\n"""\n/new\n//slash\n/quit\nhello\n')
    check("chat through a pipe", r.returncode == 0 and r.stdout == "Hello 言箱\n" * 4 and r.stderr == "", r)
    sent = [[m["content"] for m in b["messages"]] for b in requests[n:]]
    check("the conversation grows; /new forgets it", sent == [
        ["Be brief.", "hello"],
        ["Be brief.", "hello", "Hello 言箱", "first\nsecond"],
        ["Be brief.", "hello", "Hello 言箱", "first\nsecond", "Hello 言箱", "/quit\n  x"],
        ["Be brief.", "/slash"]], sent)
    saved = TMP / "talk.json"
    r = cli("chat", text=f"hello\n/system Speak up.\n/model second\n/save {saved}\n")
    check("/save", r.returncode == 0 and json.loads(saved.read_text())["messages"][0]["content"] == "Speak up."
          and stat.S_IMODE(saved.stat().st_mode) == 0o600, r)
    r = cli("chat", text=f"/load {saved}\necho\n/save {saved}\n")
    check("/load goes on", requests[-1]["model"] == "second" and [m["role"] for m in json.loads(r.stdout)] == [
        "system", "user", "assistant", "user"], r)
    check("what was loaded is saved again", len(json.loads(saved.read_text())["messages"]) == 5)
    r = cli("chat", text=f"/save {saved}\n")
    check("another's file is not overwritten", "exists" in r.stderr and len(json.loads(saved.read_text())["messages"]) == 5)
    r = cli("chat", text="refuse\nhello\n")
    check("a script ends at the first failure", r.returncode == 1 and r.stdout == "", r)
    r = cli("chat", text="/nosuch\nhello")
    check("an unknown command; a last line without its end", "/nosuch" in r.stderr and r.stdout == "Hello 言箱\n", r)
    check("a pipe keeps no history", not (CLIENT / "history").exists())


def test_terminal():
    t = Terminal("run", "control")
    shown = t.wait_for(r"c\r\n")
    check("on a terminal control characters are left out", "a[2Jbc" in shown and "\x1b" not in shown and "\x07" not in shown
          and t.status() == 0, shown)
    t = Terminal("chat")
    check("chat prompts", t.wait_for(r"first.*Ctrl-D leaves.*> "))
    t.send("hello 言箱\r")
    check("chat answers", t.wait_for(r"Hello 言箱\r\n.*> "))
    check("what was typed arrives", requests[-1]["messages"][-1]["content"] == "hello 言箱", requests[-1])
    gone.clear()
    t.send("slow\r")
    t.wait_for(r"tick2 ")
    t.send("\x03")
    check("Ctrl-C stops the answer and not the program", t.wait_for(r"\[stopped\].*> "))
    check("and the box notices", gone.wait(10))
    t.send("echo\r")
    shown = t.wait_for(r"\"echo\"}\].*> ")
    check("what was said before Ctrl-C stays in the conversation", "tick2" in shown, shown)
    t.send("this is dropped\x03")
    t.wait_for(r"> ")
    n = len(requests)
    t.send("\x1b[A\r")
    t.wait_for(r"\"echo\"}\]\r\n.*> ")
    check("Ctrl-C drops the line; the arrow brings back the last one", len(requests) == n + 1
          and requests[-1]["messages"][-1]["content"] == "echo", requests[n:])
    t.send("one\\\r")
    check("a line goes on", t.wait_for(r"\.\.\. "))
    t.send("two\r")
    t.wait_for(r"Hello.*> ")
    check("both are one message", requests[-1]["messages"][-1]["content"] == "one\ntwo", requests[-1])
    t.send("/model\r")
    check("/model lists", t.wait_for(r"\* first\r\n  second\r\n.*> "))
    t.send("refuse\r")
    check("a failure is said and the conversation goes on", t.wait_for(r"exceeded.*> "))
    t.send("\x04")
    check("Ctrl-D leaves: 0", t.status() == 0)
    history = CLIENT / "history"
    check("history is kept, only for its owner", stat.S_IMODE(history.stat().st_mode) == 0o600
          and "refuse" in history.read_text())
    t = Terminal("chat", "--no-history")
    t.wait_for(r"> ")
    t.send("\x1b[Ahello\r")
    t.wait_for(r"Hello.*> ")
    t.send("secret\r/quit\r")
    check("--no-history reads and keeps none", t.status() == 0 and "secret" not in history.read_text()
          and "hello" in [m["content"] for m in requests[-1]["messages"]])


def main():
    port = start_box()
    test_usage()
    test_models()
    test_pair(port)
    test_doctor()
    test_admin()
    test_run()
    test_trust(port)
    test_interrupt()
    test_chat_pipe()
    test_terminal()
    print(f"1..{tests}")
    sys.exit(1 if failed else 0)


main()
