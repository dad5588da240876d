"""The servers that `make bench-serve` compares, and a streaming client for them.

Ours is the whole box: kotobakod with TLS 1.3 and a paired client, the engine behind it. The peer is llama-server from
the pinned source (build_llama.sh), plain HTTP on loopback, which spares it the encryption. Both are asked by the same
asyncio client: it only notes when bytes came and takes them apart when the answer is over, so it stays a small part of
the two cores that it shares with what it measures.
"""
import asyncio
import bisect
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RELEASE = "build/release"  # relative: a unix socket's path has room for 108 bytes, a checkout may lie deep
SCRATCH = "build/bench-serve"
LLAMA_SERVER = os.path.join(TOP, "build/llama/bin/llama-server")
os.chdir(TOP)
os.makedirs(SCRATCH, exist_ok=True)
os.environ.setdefault("KB_TMP", SCRATCH)
os.environ.setdefault("KB_BIN", RELEASE)
sys.path.insert(0, os.path.join(TOP, "tests/e2e"))
import box  # noqa: E402


class Answer:
    """One finished answer: when it was asked for, and when each of its events came (seconds, one clock for all)."""

    def __init__(self, asked, pieces):
        self.asked = asked
        raw = b"".join(data for _, data in pieces)
        head, _, _ = raw.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/"):
            raise RuntimeError("no answer")
        self.status = int(head.split(b" ", 2)[1])
        body, origin = _body(raw, len(head) + 4, b"chunked" in head.lower())
        if self.status != 200:
            raise RuntimeError(f"status {self.status}: {body[:400].decode('utf-8', 'replace')}")
        ends, at = [], 0
        for _, data in pieces:
            at += len(data)
            ends.append(at)
        self.times, self.text, self.usage, self.is_whole = [], "", None, False
        for m in re.finditer(rb"data: (.*?)\r?\n\r?\n", body, re.DOTALL):
            if m[1] == b"[DONE]":
                self.is_whole = True
                continue
            event = json.loads(m[1])
            if "error" in event:
                raise RuntimeError(str(event["error"])[:400])
            self.usage = event.get("usage") or self.usage
            for choice in event.get("choices", []):
                text = choice.get("text") or choice.get("delta", {}).get("content") or ""
                if text:
                    self.text += text
                    self.times.append(pieces[bisect.bisect_left(ends, origin(m.end()))][0])
        if self.is_whole and (not self.usage or not self.times):
            raise RuntimeError(f"an answer without usage or text: {body[-300:]!r}")

    @property
    def tokens(self):
        return self.usage["completion_tokens"] if self.usage else len(self.times)

    @property
    def first(self):
        """Seconds to the first token."""
        return self.times[0] - self.asked

    @property
    def gaps(self):
        return [b - a for a, b in zip(self.times, self.times[1:])]

    def tokens_between(self, start, end):
        """Tokens that came after start, until end. An event may be more than one token or (half a character) less."""
        n = bisect.bisect_right(self.times, end) - bisect.bisect_right(self.times, start)
        return n * self.tokens / len(self.times)


def _body(raw, at, is_chunked):
    """The body without its chunk headers, and a function from a place in it (an end) to that in raw."""
    if not is_chunked:
        return raw[at:], lambda end: end + at
    parts, starts, shifts, n = [], [], [], 0
    while True:
        eol = raw.find(b"\r\n", at)
        if eol < 0 or not raw[at:eol].strip():
            break
        size = int(raw[at:eol].split(b";")[0], 16)
        if size == 0:
            break
        data = raw[eol + 2:eol + 2 + size]
        starts.append(n)
        shifts.append(eol + 2 - n)
        parts.append(data)
        n += len(data)
        at = eol + 2 + size + 2
    return b"".join(parts), lambda end: end + shifts[bisect.bisect_left(starts, end) - 1]


class Connection:
    """One kept-alive connection; made before the clock starts, as a client's pool would have it."""

    def __init__(self, server):
        self.server = server

    async def open(self):
        s = self.server
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", s.port, ssl=s.tls, server_hostname="localhost" if s.tls else None)
        return self

    def close(self):
        self.writer.close()

    async def ask(self, path="/v1/completions", leave=None, on_data=None, **fields):
        """Sends a request and reads its stream to the end, or until leave() is true (then the connection is gone)."""
        body = json.dumps({"model": self.server.model, "stream": True, "stream_options": {"include_usage": True},
                           "temperature": 0, **self.server.fields, **fields}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" \
               f"Content-Length: {len(body)}\r\n\r\n"
        pieces, tail, is_error = [], b"", False
        asked = time.perf_counter()
        self.writer.write(head.encode() + body)
        while tail != b"\r\n0\r\n\r\n":
            data = await asyncio.wait_for(self.reader.read(1 << 16), 600)
            pieces.append((time.perf_counter(), data))
            tail = (tail + data)[-7:]
            if len(pieces) == 1:
                is_error = b" 200 " not in data[:20]
            if not data or is_error:
                break
            if on_data:
                on_data()
            if leave and leave():
                self.close()
                break
        answer = Answer(asked, pieces)
        if not answer.is_whole and not (leave and leave()):
            raise RuntimeError("the stream ended early")
        return answer


async def connections(server, n):
    return [await Connection(server).open() for _ in range(n)]


class Ours:
    """kotobakod, paired, with its engine; options go to the engine (by a script in its place)."""
    label = "ours"

    def __init__(self, image, name="ours", options=(), flags=()):
        self.name, self.model, self.fields, self.label = name, "bench", {}, name
        state = os.path.join(SCRATCH, name)
        for entry in os.listdir(state) if os.path.isdir(state) else []:
            if entry != "cache":  # compiled shaders stay, as they do on a box
                path = os.path.join(state, entry)
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        os.makedirs(os.path.join(state, "models"), exist_ok=True)
        os.link(image, os.path.join(state, "models/bench.kbm"))
        engine = os.path.join(TOP, RELEASE, "kotobako-engine")
        if options:
            script = os.path.join(TOP, state, "engine.sh")
            with open(script, "w", encoding="utf-8") as f:
                f.write("#!/bin/sh\nexec '%s' \"$@\" %s\n" % (engine, " ".join(options)))
            os.chmod(script, 0o755)
            engine = script
        self.box = box.Box({}, ["--engine", engine, "--model", "bench", "--client-requests", "0", "--client-rate", "0",
                                *flags], name)
        try:
            paired = self.box.pair(f"{name}-bench")
            self.tls, self.port = self.box.context(paired), self.box.port
            if not self.box.wait_engine(model="bench", seconds=120):
                raise RuntimeError("the engine does not start")
        except BaseException:
            self.stop()
            raise

    def info(self):
        return self.box.engine("bench")

    def pids(self):
        return [self.box.daemon.pid, self.info()["pid"]]

    def stop(self):
        if self.box.daemon.poll() is None:
            self.box.stop()


class Llama:
    """llama-server. backend: cpu or vulkan (the device that the loader lists first: lavapipe where there is no GPU)."""

    def __init__(self, gguf, backend, name, options, threads):
        if not os.access(LLAMA_SERVER, os.X_OK):
            raise RuntimeError("llama-server is not built")
        self.name, self.model, self.tls, self.port = name, "bench", None, box.free_port()
        self.label = "llama.cpp " + backend
        self.fields = {"cache_prompt": True}
        env = {"VK_DRIVER_FILES": "/nonexistent"} if backend == "cpu" else {
            "GGML_VK_VISIBLE_DEVICES": os.environ.get("GGML_VK_VISIBLE_DEVICES", "0")}
        where = ["--device", "none"] if backend == "cpu" else ["-ngl", "999"]
        self.log = open(os.path.join(SCRATCH, name + ".log"), "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [LLAMA_SERVER, "-m", gguf, "--host", "127.0.0.1", "--port", str(self.port), "--threads", str(threads),
             "--no-webui", *where, *options], stdout=self.log, stderr=subprocess.STDOUT, env={**os.environ, **env})
        if not box.wait(self.is_up, 120):
            self.stop()
            raise RuntimeError(f"{name} does not start; see {self.log.name}")

    def pids(self):
        return [self.process.pid]

    def is_up(self):
        if self.process.poll() is not None:
            return False
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            c.request("GET", "/health")
            return c.getresponse().status == 200
        except OSError:
            return False
        finally:
            c.close()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()
