#!/usr/bin/env python3
# What a hostile or broken client can send: limits of size and time, bad JSON, pipelining, floods, several models.
import concurrent.futures
import json
import os
import pathlib
import random
import re
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from box import Box, check, finish, wait  # noqa: E402

SUITE = pathlib.Path(__file__).resolve().parents[3] / "shared/data/json/test_parsing"


# The status of each answer to raw bytes, until the box closes.
def statuses(box, d, data, pause=0.0, timeout=10):
    s = box.raw(d, timeout)
    got = b""
    try:
        for piece in data if isinstance(data, list) else [data]:
            s.sendall(piece)
            if pause:  # reading on meanwhile: what the box says before it closes is not to be lost
                s.settimeout(pause)
                try:
                    got += s.recv(65536)
                except TimeoutError:
                    pass
                s.settimeout(timeout)
        while True:
            more = s.recv(65536)
            if not more:
                break
            got += more
    except OSError:
        pass
    s.close()
    return [int(x) for x in re.findall(rb"HTTP/1\.1 (\d\d\d) ", got)], got


def post(body, path="/v1/chat/completions", extra=""):
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
            .encode() + body)


def test_refusals(box, d):
    get = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n"
    good = b'{"messages":[{"role":"user","content":"len=1"}]}'
    for what, data, status in (
            ("an unknown path", b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
            ("a wrong method", b"GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
            ("PUT", b"PUT /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 405),
            ("no content type", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 415),
            ("text/plain", post(good).replace(b"application/json", b"text/plain"), 415),
            ("a long URL", b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
            ("a long header", get + b"X: " + b"a" * 40000 + b"\r\n\r\n", 431),
            ("many headers", get + b"X: y\r\n" * 100 + b"\r\n", 431),
            ("a large body", post(good).replace(b"Content-Length: ", b"Content-Length: 9"), 0),
            ("a body that says it is large", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
             b"Content-Length: 99999999\r\n\r\n", 413),
            ("chunks without end", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
             b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + b"x" * 0x100000 + b"\r\n" + (b"100000\r\n" + b"y" * 0x100000 + b"\r\n") * 8, 413),
            ("both lengths", post(good, extra="Transfer-Encoding: chunked\r\n"), 400),
            ("no HTTP", b"nonsense\r\n\r\n", 400),
            ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            ("CONNECT", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("gzip", post(good, extra="Content-Encoding: gzip\r\n"), 400)):
        if status == 0:
            continue
        got, raw = statuses(box, d, data)
        ok = got[:1] == [status]
        body = raw.split(b"\r\n\r\n", 1)[-1]
        if ok:
            error = json.loads(body)["error"]
            ok = set(error) == {"message", "type", "param", "code"} and error["message"]
        check(f"{what}: {status}", ok, (got, raw[-300:]))
    _, raw = statuses(box, d, b"GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    check("405 says what is allowed", b"Allow: POST" in raw, raw[:300])
    r = box.ask(d, "GET", "/v1/models/fake")
    check("one model", r[0] == 200 and r[1]["id"] == "fake" and r[1]["object"] == "model", r)
    check("a model that is not there", box.ask(d, "GET", "/v1/models/no%20such")[0] == 404)
    check("a broken escape", box.ask(d, "GET", "/v1/models/%zz")[0] == 400)
    check("a list of models", [m["id"] for m in box.ask(d, "GET", "/v1/models")[1]["data"]] == ["broken", "fake", "other"])


def test_messages(box, d):
    user = [{"role": "user", "content": "len=1"}]
    for fields, param in (
            ({}, "messages"), ({"messages": []}, "messages"), ({"messages": "x"}, "messages"), ({"messages": [1]}, "messages[0]"),
            ({"messages": [{"role": "user"}]}, "messages[0].content"),
            ({"messages": user + [{"role": "robot", "content": "x"}]}, "messages[1].role"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content[0]"),
            ({"messages": user, "temperature": -1}, "temperature"), ({"messages": user, "temperature": "hot"}, "temperature"),
            ({"messages": user, "top_p": 2}, "top_p"), ({"messages": user, "n": 0}, "n"), ({"messages": user, "n": 9}, "n"),
            ({"messages": user, "n": 1.5}, "n"), ({"messages": user, "max_tokens": 0}, "max_tokens"),
            ({"messages": user, "stop": ["a"] * 17}, "stop"), ({"messages": user, "stop": [1]}, "stop"),
            ({"messages": user, "stream": "yes"}, "stream"), ({"messages": user, "top_logprobs": 3}, "top_logprobs"),
            ({"messages": user, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
            ({"messages": user, "stream_options": {"include_usage": True}}, "stream_options"),
            ({"messages": user, "tools": [{"type": "function"}]}, "tools"),
            ({"messages": user, "response_format": {"type": "json_object"}}, "response_format"),
            ({"messages": user, "logit_bias": {"1": 5}}, "logit_bias"), ({"messages": user, "audio": {"voice": "x"}}, "audio"),
            ({"messages": user, "temprature": 1}, "temprature"), ({"messages": user, "seed": "x"}, "seed")):
        s, r, _ = box.ask(d, "POST", "/v1/chat/completions", fields)
        check(f"400 names {param}", s == 400 and r["error"]["param"] == param and r["error"]["type"] == "invalid_request_error", (s, r))
    for fields in ({"user": "u", "store": False, "metadata": {"a": "b"}, "service_tier": "auto", "reasoning_effort": "low"},
                   {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "logit_bias": {}, "stop": None},
                   {"temperature": None, "n": None, "stream": False, "seed": -5, "modalities": ["text"]}):
        s, r, _ = box.ask(d, "POST", "/v1/chat/completions", {"messages": user, **fields})
        check("taken: " + ", ".join(fields), s == 200, (s, r))


# JSONTestSuite: every file that must be refused is refused as JSON, and nothing else is.
def test_json(box, d):
    if not SUITE.is_dir():
        print("# JSONTestSuite is not here: skipped")
        check("bad JSON # SKIP the suite is not here", True)
        return
    c = box.connect(d)
    wrong = []
    files = sorted(SUITE.glob("*.json"))
    for f in files:
        data = f.read_bytes()
        for _ in range(20):
            c.request("POST", "/v1/completions", data, {"Content-Type": "application/json"})
            r = c.getresponse()
            text = r.read()
            if r.status != 429:
                break
            time.sleep(0.5)
        message = json.loads(text)["error"]["message"] if r.status != 200 else ""
        is_json_problem = "not JSON" in message or "nested" in message or "no body" in message
        if r.status != 400 or (f.name[0] == "n" and not is_json_problem) or (f.name[0] == "y" and is_json_problem):
            wrong.append((f.name, r.status, message))
    check(f"{len(files)} files of JSONTestSuite on one connection", len(files) > 300 and not wrong, wrong[:5])
    deep = b"[" * 100000
    check("deep nesting", box.ask(d, "POST", "/v1/completions", deep)[0] == 400)
    c.close()


def test_pipelining(box, d):
    good = b'{"messages":[{"role":"user","content":"len=2 delay=30"}]}'
    data = (b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" + post(good) + b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" + post(good) +
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    got, raw = statuses(box, d, data)
    check("five requests at once are answered in order", got == [200, 200, 404, 200, 200], (got, raw[-500:]))
    got, raw = statuses(box, d, [bytes([b]) for b in b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])
    check("a request byte by byte", got == [200], got)
    got, raw = statuses(box, d, b"GET /v1/models HTTP/1.0\r\n\r\n")
    check("HTTP/1.0", got == [200] and b"Connection: close" in raw, raw[:200])
    head = post(good, extra="Expect: 100-continue\r\nConnection: close\r\n").split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    got, raw = statuses(box, d, [head, good], pause=0.3)
    check("100-continue", got == [100, 200], raw[:300])


def test_slow(box, d):
    begun = time.monotonic()
    got, _ = statuses(box, d, [b"GET /v1/models HT"] + [b"x"] * 0, timeout=10)
    took = time.monotonic() - begun
    check("half a header: 408 in time", got == [408] and took < 4, (got, took))
    begun = time.monotonic()
    got, _ = statuses(box, d, [b"GET /v1/models HTTP/1.1\r\n"] + [b"X: y\r\n"] * 30, pause=0.1)
    check("a header dripped in line by line: 408 in time", got == [408] and time.monotonic() - begun < 5, got)
    begun = time.monotonic()
    got, _ = statuses(box, d, post(b"x" * 1000)[:-500], timeout=20)
    check("half a body: 408 in time", got == [408] and time.monotonic() - begun < 15, got)
    s = socket.create_connection(("127.0.0.1", box.port))
    s.settimeout(10)
    begun = time.monotonic()
    check("a silent handshake is ended", s.recv(100) == b"" and time.monotonic() - begun < 4)


# More silent strangers than there are places for handshakes; and a client that opens too much.
def test_hoarders(box, d):
    silent = []
    for _ in range(150):
        s = socket.create_connection(("127.0.0.1", box.port))
        silent.append(s)
    check("150 silent connections do not keep a client out", box.ask(d, "GET", "/v1/models")[0] == 200)
    check("...and most are gone", box.metric("connections_handshaking") <= 64, box.metric("connections_handshaking"))
    for s in silent:
        s.close()
    kept, refused = [], 0
    for _ in range(70):
        c = box.connect(d)
        try:
            c.request("GET", "/nothing")
            c.getresponse().read()
            kept.append(c)
        except OSError:
            refused += 1
    check("one client has 64 connections at most", len(kept) <= 64 and refused >= 6, (len(kept), refused))
    for c in kept:
        c.close()


# 1000 connections of garbage, while a paired client works on.
def test_garbage(box, d):
    seed = random.Random(1)
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(200)

    def garbage(i):
        try:
            s = socket.create_connection(("127.0.0.1", box.port), timeout=5)
            kind = i % 4
            if kind == 0:
                s.sendall(seed.randbytes(seed.randrange(1, 3000)))
            elif kind == 1:
                s.sendall(hello[:seed.randrange(1, len(hello))])
            elif kind == 2:
                s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            s.close()
        except OSError:
            pass
    served = []

    def work():
        for _ in range(20):
            try:
                served.append(box.ask(d, "GET", "/v1/models")[0])
            except OSError as e:
                served.append(repr(e))
    t = threading.Thread(target=work)
    t.start()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(garbage, range(1000)))
    t.join()
    check("1000 connections of garbage: a paired client is served", served.count(200) >= 19, served)
    check("...and all are gone", wait(lambda: box.metric("connections") <= 1, 10), box.metric("connections"))
    lines = box.log.read_text().count("handshakes failed")
    check("...and the log is not flooded", 1 <= lines < 20, lines)


def test_limits_of_a_client(box):
    d = box.pair("busy")
    codes = []

    def one():
        codes.append(box.chat(d, "len=50 delay=20"))
    threads = [threading.Thread(target=one) for _ in range(7)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    over = [r for r in codes if r[0] == 429]
    check("over its share a client gets 429 with Retry-After", len(over) == 3 and int(over[0][2]["retry-after"]) > 0 and
          over[0][1]["error"]["code"] == "rate_limit_exceeded", [c[0] for c in codes])
    check("...the others are served", sum(r[0] == 200 for r in codes) == 4, [c[0] for c in codes])
    c = box.connect(d)
    got = []
    for _ in range(120):
        c.request("GET", "/v1/models")
        r = c.getresponse()
        r.read()
        got.append((r.status, r.getheader("retry-after")))
    check("too many requests a second: 429", (429, "1") in got and got[0][0] == 200, got[-3:])
    time.sleep(1.1)
    check("...and later it goes on", box.ask(d, "GET", "/v1/models")[0] == 200)


def test_models(box, d):
    r = box.ask(d, "POST", "/v1/chat/completions", {"model": "other", "messages": [{"role": "user", "content": "len=1"}]})
    check("another model is loaded when asked for", r[0] == 200 and r[1]["model"] == "other" and box.engine("other")["state"] == "ready", r)
    check("...beside the first", box.engine("fake")["state"] == "ready")
    t = threading.Thread(target=lambda: box.chat(d, "len=100 delay=20"))
    t.start()
    wait(lambda: box.engine("fake").get("requests") == 1)
    r = box.ask(d, "POST", "/v1/chat/completions", {"model": "broken", "messages": [{"role": "user", "content": "x"}]})
    check("a damaged image is tried once", sum(e[1] == "start" for e in box.events("broken")) == 1, box.events("broken"))
    check("a damaged image: 503 with the engine's words", r[0] == 503 and "damaged" in r[1]["error"]["message"], r)
    check("...in place of the idle one", box.engine("other")["state"] == "none" and box.engine("fake")["state"] == "ready")
    t.join()
    check("health", box.ask(d, "GET", "/healthz")[:1] == (200,), box.ask(d, "GET", "/healthz"))
    pathlib.Path(str(box.image()) + ".ill").touch()
    r = box.ask(d, "GET", "/healthz")
    check("an ill device: 503", r[0] == 503 and r[1]["status"] == "failing", r)
    pathlib.Path(str(box.image()) + ".ill").unlink()
    box.image("fresh").write_text("")
    check("reload finds a new model", "fresh" in box.admin("POST", "/admin/reload")[1]["models"])
    os.replace(box.image("fresh"), box.image("fake"))
    box.admin("POST", "/admin/reload")
    check("a replaced image gets a new engine", box.chat(d, "len=1")[0] == 200 and
          sum(e[1] == "start" for e in box.events("fake")) == 2, box.events("fake"))


def test_metrics(box, d):
    status, text, headers = box.ask(d, "GET", "/metrics")
    check("metrics", status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4"), headers)
    typed, bad = {}, []
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line[7:].split()
            if name in typed:
                bad.append(line)
            typed[name] = kind
        elif not line.startswith("# HELP "):
            name, value = line.rsplit(" ", 1)
            base = name.split("{")[0]
            for suffix in ("_bucket", "_sum", "_count"):
                if base.removesuffix(suffix) in typed and typed[base.removesuffix(suffix)] == "histogram":
                    base = base.removesuffix(suffix)
            float(value)
            if base not in typed:
                bad.append(line)
    check("...every line of a known type", not bad and len(typed) > 25, bad)
    buckets = [float(x.rsplit(" ", 1)[1]) for x in text.splitlines() if x.startswith("kotobako_request_seconds_bucket")]
    count = [float(x.rsplit(" ", 1)[1]) for x in text.splitlines() if x.startswith("kotobako_request_seconds_count")]
    check("...buckets that add up", buckets == sorted(buckets) and buckets[-1] == count[0] > 0, buckets)
    check("...no client's name", "ann" not in text.replace("channel", "") and "busy" not in text)
    log = box.log.read_text()
    check("no prompt in the log", "len=1" not in log and "delay=" not in log)


def test_empty(box_flags):
    empty = Box({}, box_flags, "empty")
    d = empty.pair("zed")
    r = empty.chat(d, "hello")
    check("no model: 404 that says how to get one", r[0] == 404 and "kotobako import" in r[1]["error"]["message"], r)
    r = empty.ask(d, "GET", "/healthz")
    check("no model: health says so", r[0] == 503 and r[1]["status"] == "no model" and "import" in r[1]["message"], r)
    check("no model: an empty list", empty.ask(d, "GET", "/v1/models")[1]["data"] == [])
    return empty


def main():
    flags = ["--hurry", "6", "--client-requests", "4", "--max-engines", "2"]
    box = Box({"fake": "", "other": "", "broken": "broken"}, [*flags, "--model", "fake", "--client-rate", "50"])
    boxes = [box]
    try:
        d = box.pair("ann")
        box.wait_engine()
        for test in (test_refusals, test_messages, test_json, test_pipelining, test_slow, test_hoarders, test_garbage):
            print(f"# {test.__name__}", flush=True)
            test(box, d)
        test_limits_of_a_client(box)
        test_models(box, d)
        test_metrics(box, d)
        boxes.append(test_empty(flags))
    except Exception as e:  # noqa: BLE001 - reported with the log
        import traceback
        traceback.print_exc(file=sys.stderr)
        check("no unexpected failure", False, repr(e))
    finish(boxes)


main()
