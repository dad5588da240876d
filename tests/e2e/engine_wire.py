"""The engine's side of runtime/proto/proto.h, written anew from its description: an independent reader and writer.
Starts kotobako-engine on one end of a socketpair and talks to it on the other."""
import os
import select
import signal
import socket
import struct
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENGINE = os.environ.get("KB_ENGINE", os.path.join(TOP, "build/release/kotobako-engine"))
MODEL = os.path.join(TOP, "build/models/smollm2-135m-instruct.kbm")

SUBMIT, CANCEL, PING, STATS, QUIT = 1, 2, 3, 4, 5
READY, PROGRESS, ACCEPTED, TOKEN, DONE, ERROR, PONG, STATS_REPLY = range(32, 40)
FINISH = ["stop", "length", "cancelled"]


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, fmt):
        values = struct.unpack_from("<" + fmt, self.data, self.at)
        self.at += struct.calcsize("<" + fmt)
        return values[0] if len(values) == 1 else values

    def str(self):
        n = self.take("I")
        self.at += n
        assert self.at <= len(self.data)
        return self.data[self.at - n:self.at]


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack("<I", len(s)) + s


def frame(kind, rid, body=b""):
    return struct.pack("<IBQ", len(body) + 9, kind, rid) + body


def submit(rid, prompt="", messages=(), tokens=(), resume=(), max_new=32, temperature=0.0, top_p=1.0, min_p=0.0,
           top_k=0, repeat=1.0, presence=0.0, frequency=0.0, seed=0, logprobs=0, ignore_eos=False, stop=(),
           client="test"):
    kind = 0 if messages else 2 if tokens else 1
    body = struct.pack("<BI", kind, len(messages)) + b"".join(text(r) + text(c) for r, c in messages)
    body += text(prompt)
    for ids in (tokens, resume):
        body += struct.pack("<I%dI" % len(ids), len(ids), *ids)
    body += struct.pack("<IfffIfffQBB", max_new, temperature, top_p, min_p, top_k, repeat, presence, frequency, seed,
                        logprobs, int(ignore_eos))
    body += struct.pack("<I", len(stop)) + b"".join(text(s) for s in stop)
    return frame(SUBMIT, rid, body + text(client))


def parse(kind, rid, body):
    r, m = Reader(body), {"type": kind, "id": rid}
    if kind == READY:
        m["version"] = r.take("I")
        m["arch"], m["name"], m["device"] = r.str().decode(), r.str().decode(), r.str().decode()
        m["vocab"], m["context"], m["max_seqs"], m["kv_tokens"] = r.take("IIII")
        m["weight_bytes"], m["kv_bytes"], m["parameters"] = r.take("QQQ")
    elif kind == PROGRESS:
        m["done"], m["total"] = r.take("QQ")
        m["what"] = r.str().decode()
    elif kind == ACCEPTED:
        m["prompt_tokens"] = r.take("I")
    elif kind == TOKEN:
        m["token"], m["text"] = r.take("I"), r.str().decode()  # strict: text must be whole UTF-8
        if r.take("B"):
            m["logprob"], m["top"] = (r.take("I"), r.take("f"), r.str()), []
            for _ in range(r.take("I")):
                m["top"].append((r.take("I"), r.take("f"), r.str()))
    elif kind == DONE:
        m["finish"], m["text"] = FINISH[r.take("B")], r.str().decode()
        m["prompt_tokens"], m["completion_tokens"], m["cached_tokens"] = r.take("III")
        m["queue_us"], m["prefill_us"], m["decode_us"] = r.take("QQQ")
    elif kind == ERROR:
        m["code"], m["text"] = r.take("i"), r.str().decode()
    elif kind == PONG:
        m["is_healthy"], m["device_us"], m["text"] = r.take("B"), r.take("I"), r.str().decode()
    elif kind == STATS_REPLY:
        names = "running waiting kv_pages kv_pages_used kv_pages_idle prompt_tokens generated_tokens steps step_us " \
                "resident_bytes preemptions guessed_tokens guessed_right"
        m.update(zip(names.split(), r.take("IIIIIQQQQQQQQ")))
    else:
        raise AssertionError("unknown message %d" % kind)
    assert r.at == len(body), "bytes left over in message %d" % kind
    return m


class Engine:
    def __init__(self, *options, model=MODEL, engine=ENGINE):
        ours, theirs = socket.socketpair()
        self.started = time.monotonic()
        self.process = subprocess.Popen([engine, "--serve", str(theirs.fileno()), model, *options],
                                        pass_fds=[theirs.fileno()])
        theirs.close()
        self.socket, self.buffer, self.ready = ours, b"", None
        self.progress = []

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, timeout=120):
        """The next message, or None at the end."""
        deadline = time.monotonic() + timeout
        while True:
            if len(self.buffer) >= 4:
                n = struct.unpack_from("<I", self.buffer)[0]
                if len(self.buffer) >= 4 + n:
                    kind, rid = struct.unpack_from("<BQ", self.buffer, 4)
                    body, self.buffer = self.buffer[13:4 + n], self.buffer[4 + n:]
                    return parse(kind, rid, body)
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError("the engine said nothing for %d s" % timeout)
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.buffer += data

    def wait_ready(self):
        while True:
            m = self.receive()
            assert m, "the engine ended while loading"
            assert m["type"] in (PROGRESS, READY), m
            if m["type"] == READY:
                self.ready = m
                return self
            self.progress.append(m)

    def answers(self, ids, on_message=None):
        """Collects tokens of the requests until each is over: {id: {"tokens", "text", "end", "messages"}}"""
        result = {i: {"tokens": [], "text": "", "messages": []} for i in ids}
        left = set(ids)
        while left:
            m = self.receive()
            assert m, "the engine ended with status %d" % self.process.wait(20)
            if on_message:
                on_message(m)
            if m["id"] not in result:
                continue
            a = result[m["id"]]
            a["messages"].append(m)
            if m["type"] == TOKEN:
                a["tokens"].append(m["token"])
                a["text"] += m["text"]
            elif m["type"] in (DONE, ERROR):
                if m["type"] == DONE:
                    a["text"] += m["text"]
                a["end"] = m
                left.discard(m["id"])
        return result

    def ask(self, prompt, rid=1, **options):
        self.send(submit(rid, prompt, **options))
        return self.answers([rid])[rid]

    def stats(self):
        self.send(frame(STATS, 999))
        while True:
            m = self.receive()
            if m["type"] == STATS_REPLY:
                return m

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.socket.close()

    def close(self, timeout=20):
        self.socket.close()
        return self.process.wait(timeout)


class Tap:
    def __init__(self):
        self.n, self.bad = 0, 0

    def ok(self, condition, name, detail=""):
        self.n += 1
        self.bad += not condition
        print("%sok %d - %s" % ("" if condition else "not ", self.n, name), flush=True)
        if detail or not condition:
            print("# %s" % (detail,), flush=True)
        return condition

    def finish(self):
        print("1..%d" % self.n)
        return 1 if self.bad else 0
