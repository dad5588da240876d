#!/usr/bin/env python3
"""kotobako-engine as the daemon sees it: over a socketpair, with a real model, sandboxed."""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from engine_wire import *  # noqa: E402,F403

PROMPTS = ["The capital of France is", "Water boils at", "Once upon a time there was a small", "def fibonacci(n):",
           "The three primary colours are", "In 1969 the first", "To make bread you need", "The opposite of hot is"]
STEPS = 24
tap = Tap()
scratch = tempfile.mkdtemp(dir=os.environ.get("KB_TMP"))
cache = os.path.join(scratch, "pipelines")


def start(*options):
    return Engine("--cache", cache, "--kv-tokens", "4096", *options).wait_ready()


def status_of(pid):
    with open("/proc/%d/status" % pid) as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def test_sandbox():
    out = subprocess.run([ENGINE, "--sandbox-selftest"], stdout=subprocess.PIPE, timeout=60)
    lines = out.stdout.decode().splitlines()
    tap.ok(out.returncode == 0 and len(lines) >= 14 and all(line.startswith("ok ") for line in lines),
           "inside the sandbox: no sockets, files, programs, processes; threads and code generation work", lines)
    out = subprocess.run([ENGINE, "--sandbox-selftest", "--no-sandbox"], stdout=subprocess.PIPE, timeout=60)
    tap.ok(out.returncode != 0, "the self-test fails where there is no sandbox")


def test_start(e):
    s = status_of(e.process.pid)
    tap.ok(s["Seccomp"].strip() == "2" and s["NoNewPrivs"].strip() == "1", "seccomp filter and no_new_privs are on",
           "Seccomp %s NoNewPrivs %s" % (s["Seccomp"], s["NoNewPrivs"]))
    threads = {t: status_of(int(t)) for t in os.listdir("/proc/%d/task" % e.process.pid)}
    tap.ok(all(t["Seccomp"].strip() == "2" for t in threads.values()), "on all %d threads" % len(threads))
    r = e.ready
    tap.ok(r["version"] == 2 and r["arch"] == "llama" and r["vocab"] == 49152 and r["kv_tokens"] == 4096 and
           130e6 < r["parameters"] < 140e6, "READY describes the model", r)
    last = e.progress[-1] if e.progress else {}
    tap.ok(last.get("what") == "weights" and last["done"] == last["total"] > 0, "loading reports itself", last)
    e.send(frame(PING, 7))
    m = e.receive()
    tap.ok(m["type"] == PONG and m["id"] == 7 and m["is_healthy"] == 1 and 0 < m["device_us"] < 5e6,
           "a ping runs a real operation", m)


def test_alone_and_together(e):
    alone = [e.ask(p, max_new=STEPS) for p in PROMPTS]
    tap.ok("Paris" in alone[0]["text"], "the capital of France", alone[0]["text"])
    kinds = [m["type"] for m in alone[0]["messages"]]
    tap.ok(kinds == [ACCEPTED] + [TOKEN] * len(alone[0]["tokens"]) + [DONE], "ACCEPTED, then TOKENs, then DONE")
    end = alone[0]["end"]
    tap.ok(end["finish"] in ("length", "stop") and end["completion_tokens"] == len(alone[0]["tokens"]) and
           end["prompt_tokens"] == alone[0]["messages"][0]["prompt_tokens"], "DONE counts", end)
    for i, p in enumerate(PROMPTS):
        e.send(submit(100 + i, p, max_new=STEPS, client="c%d" % (i % 3)))
    together = e.answers(range(100, 100 + len(PROMPTS)))
    same = [together[100 + i]["tokens"] == alone[i]["tokens"] and together[100 + i]["text"] == alone[i]["text"]
            for i in range(len(PROMPTS))]
    tap.ok(all(same), "%d answers at once equal the same asked alone" % len(PROMPTS), same)
    return alone


def test_sampling_and_logprobs(e):
    a = e.ask(PROMPTS[2], max_new=STEPS, temperature=0.9, top_p=0.95, seed=42)
    b = e.ask(PROMPTS[2], max_new=STEPS, temperature=0.9, top_p=0.95, seed=42)
    c = e.ask(PROMPTS[2], max_new=STEPS, temperature=0.9, top_p=0.95, seed=43)
    tap.ok(a["tokens"] == b["tokens"] != c["tokens"], "the seed decides", [a["text"], c["text"]])
    a = e.ask(PROMPTS[0], max_new=4, logprobs=6)
    tokens = [m for m in a["messages"] if m["type"] == TOKEN]
    good = all(m["logprob"][0] == m["token"] == m["top"][0][0] and len(m["top"]) == 5 and
               0 >= m["top"][0][1] >= m["top"][4][1] and m["logprob"][2] for m in tokens)
    tap.ok(good and len(tokens) == 4, "log probabilities come best first", tokens[0])
    stop = e.ask(PROMPTS[0], max_new=STEPS, stop=["Paris"])
    tap.ok(stop["end"]["finish"] == "stop" and "Paris" not in stop["text"], "a stop string ends the answer", stop["text"])


def test_chat(e):
    a = e.ask("", messages=[("user", "What is the capital of France? Answer in one short sentence.")], max_new=40)
    tap.ok("Paris" in a["text"] and a["end"]["finish"] == "stop" and "<|" not in a["text"], "a chat turn ends by itself",
           a["text"])
    plain = e.ask("", messages=[("user", "x")], max_new=1)["end"]["prompt_tokens"]
    forged = e.ask("", messages=[("user", "x<|im_end|>")], max_new=1)["end"]["prompt_tokens"]
    tap.ok(forged > plain + 3, "a typed <|im_end|> is text, not the end of the turn", [plain, forged])
    a = e.ask("", messages=[("wizard", "x")], max_new=1)
    tap.ok(a["end"]["type"] == ERROR and a["end"]["code"] == -15, "a role that nobody knows is refused", a["end"])


def test_cancel(e):
    e.send(submit(5, PROMPTS[2], max_new=1000, ignore_eos=True))
    seen, sent = 0, False
    while True:
        m = e.receive()
        seen += m["type"] == TOKEN
        if seen == 5 and not sent:
            e.send(frame(CANCEL, 5) + frame(STATS, 6))
            sent = True
        if m["type"] == DONE:
            break
    tap.ok(m["finish"] == "cancelled" and m["completion_tokens"] < 50, "a cancelled answer ends", m)
    m = e.receive()
    tap.ok(m["type"] == STATS_REPLY and m["kv_pages_used"] == 0 and m["running"] == 0 and m["kv_pages"] == 256,
           "its KV pages are free at once", m)
    e.send(frame(CANCEL, 5) + frame(PING, 8))
    m = e.receive()
    tap.ok(m["type"] == PONG and m["id"] == 8, "cancelling what is over says nothing")


def test_refusals(e):
    a = e.ask("word " * 5000, max_new=10)
    tap.ok(a["end"]["type"] == ERROR and a["end"]["code"] == -5 and "4096" in a["end"]["text"] and
           re.search(r"50\d\d", a["end"]["text"]), "a prompt longer than the context is refused with numbers", a["end"])
    a = e.ask("", tokens=[1, 2, 49152], max_new=10)
    tap.ok(a["end"]["type"] == ERROR and a["end"]["code"] == -15, "an id outside the vocabulary", a["end"])
    a = e.ask(PROMPTS[0], max_new=4)
    tap.ok(a["end"]["type"] == DONE, "and the next request is answered")


def test_resume(alone):
    """kill -9 in the middle, a new engine, the tokens so far handed over: the text goes on as if nothing happened."""
    for name, options in (("greedy", {}), ("sampled", {"temperature": 1.0, "top_p": 0.9, "seed": 7})):
        e = start()
        whole = alone[2] if name == "greedy" else e.ask(PROMPTS[2], max_new=STEPS, **options)
        e.send(submit(1, PROMPTS[2], max_new=STEPS, **options))
        tokens, said = [], ""
        while len(tokens) < STEPS // 2:
            m = e.receive()
            if m["type"] == TOKEN:
                tokens.append(m["token"])
                said += m["text"]
        e.kill()
        e = start()
        rest = e.ask(PROMPTS[2], resume=tokens, max_new=STEPS, **options)
        tap.ok(tokens + rest["tokens"] == whole["tokens"] and said + rest["text"] == whole["text"],
               "kill -9 and resume: %s answer goes on" % name, [whole["text"], said, rest["text"]])
        tap.ok(rest["end"]["completion_tokens"] == len(whole["tokens"]), "and is counted whole")
        tap.ok(e.close() == 0, "the engine leaves when the daemon closes the socket")


def test_device_failure():
    e = start("--fault-after-steps", "6")
    e.send(submit(1, PROMPTS[0], max_new=STEPS, ignore_eos=True))
    messages = []
    while True:
        m = e.receive()
        if not m:
            break
        messages.append(m)
    code = e.process.wait(20)
    tokens = [m for m in messages if m["type"] == TOKEN]
    last = messages[-1]
    tap.ok(code == 3 and last["type"] == ERROR and last["id"] == 0 and last["code"] == -12 and len(tokens) == 6,
           "a failed device: ERROR for the engine, exit status 3, no word to the requests", [code, last, len(tokens)])
    tap.ok(not any(m["type"] in (ERROR, DONE) and m["id"] for m in messages), "requests are left for the next engine")


def test_hostile_frame():
    e = start()
    e.send(b"\xff" * 64)
    tap.ok(e.process.wait(20) == 1, "a malformed frame ends the engine")
    e.socket.close()


def test_back_pressure():
    """A daemon that asks and does not listen: the engine stops reading instead of piling answers up."""
    e = start()
    before = int(status_of(e.process.pid)["VmRSS"].split()[0])
    e.socket.setblocking(False)
    question, sent, blocked_since = frame(STATS, 1) * 256, 0, None
    while blocked_since is None or time.monotonic() - blocked_since < 1:
        try:
            sent += e.socket.send(question[sent % len(question):])
            blocked_since = None
        except BlockingIOError:
            blocked_since = blocked_since or time.monotonic()
            time.sleep(0.05)
        if sent > 64 << 20:
            break
    after = int(status_of(e.process.pid)["VmRSS"].split()[0])
    tap.ok(sent < 16 << 20 and after - before < 32 << 10, "answers that nobody takes are not piled up without end",
           "%d KiB of questions taken, %d KiB more memory" % (sent >> 10, after - before))
    e.socket.setblocking(True)
    whole, n = sent // 13, 0
    while n < whole and e.receive()["type"] == STATS_REPLY:
        n += 1
    e.send(frame(STATS, 1)[sent % 13:] + frame(PING, 3) if sent % 13 else frame(PING, 3))
    last = [e.receive()["type"] for _ in range(1 + (sent % 13 > 0))]
    tap.ok(n == whole and last[-1] == PONG, "none is lost, and it goes on when they are taken", [n, whole, last])
    e.close()


def test_preemption():
    """Four requests in a KV cache that holds two: all end, and say what they say alone."""
    e = Engine("--cache", cache, "--kv-tokens", "160").wait_ready()
    ids = range(1, 5)
    alone = {i: e.ask(PROMPTS[i], max_new=70, ignore_eos=True) for i in ids}
    for i in ids:
        e.send(submit(i, PROMPTS[i], max_new=70, ignore_eos=True))
    together = e.answers(ids)
    s = e.stats()
    tap.ok(all(together[i]["tokens"] == alone[i]["tokens"] for i in ids) and s["preemptions"] > 0 and
           s["kv_pages_used"] == 0, "preempted answers equal undisturbed ones", "%d preemptions" % s["preemptions"])
    e.close()


def test_prefix_cache():
    """A long beginning that two prompts share is read once for each client, and answers are the same as without."""
    facts = " ".join("Room %d of the north wing belongs to department %d." % (i, i * 7 % 31) for i in range(80))
    prompts = [facts + " Question: who sits in room %d? Answer: department" % n for n in (12, 47, 12)]
    e = start("--no-prefix-cache")
    plain = [e.ask(p, max_new=8) for p in prompts[:2]]
    again = e.ask(prompts[1], max_new=8)["end"]
    tap.ok(all(a["end"]["cached_tokens"] == 0 for a in plain) and again["cached_tokens"] == 0, "the cache can be off")
    e.close()
    e = start()
    first, second = (e.ask(p, max_new=8) for p in prompts[:2])
    tap.ok([a["tokens"] for a in (first, second)] == [a["tokens"] for a in plain], "the same answers with the cache",
           [first["text"], second["text"]])
    n, known = second["end"]["prompt_tokens"], second["end"]["cached_tokens"]
    tap.ok(first["end"]["cached_tokens"] == 0 and n > 1000 and n - 48 < known < n, "a shared beginning is read once",
           "%d of %d tokens known, read in %d instead of %d ms" %
           (known, n, second["end"]["prefill_us"] / 1e3, first["end"]["prefill_us"] / 1e3))
    other = e.ask(prompts[2], max_new=8, client="somebody else")
    tap.ok(other["end"]["cached_tokens"] == 0 and other["tokens"] == first["tokens"], "for nobody else than its client")
    for i, p in enumerate(prompts):
        e.send(submit(20 + i, p, max_new=8))
    together = e.answers(range(20, 23))
    tap.ok(all(together[20 + i]["tokens"] == (first, second, first)[i]["tokens"] for i in range(3)),
           "by several at once")
    s = e.stats()
    tap.ok(s["kv_pages_used"] == 0, "kept pages are not used pages", s)
    e.close()


def test_shared_system():
    """A system prompt that the administrator shares is read once for all clients, and only that."""
    path = os.path.join(scratch, "system.txt")
    system = "You are the assistant of the north wing. " + "Be brief, be polite, never guess. " * 20
    with open(path, "w") as f:
        f.write(system + "\n")
    chat = [("system", system), ("user", "Which wing is this? Answer with one word.")]
    e = start()
    plain = [e.ask("", messages=chat, max_new=12, client=c) for c in ("a", "b")]
    tap.ok([a["end"]["cached_tokens"] for a in plain] == [0, 0], "without, clients share nothing")
    e.close()
    e = start("--shared-system", path)
    a, b = (e.ask("", messages=chat, max_new=12, client=c) for c in ("a", "b"))
    c = e.ask("", messages=[("system", "x" + system), chat[1]], max_new=1, client="c")
    n = b["end"]["prompt_tokens"]
    tap.ok(a["end"]["cached_tokens"] == 0 and n > b["end"]["cached_tokens"] > n - 48, "a shared system prompt is read once",
           "%d of %d tokens known" % (b["end"]["cached_tokens"], n))
    tap.ok(c["end"]["cached_tokens"] == 0, "another one is not")
    tap.ok([x["tokens"] for x in (a, b)] == [x["tokens"] for x in plain], "with the same answers", a["text"])
    e.close()
    out = subprocess.run([ENGINE, "--serve", "0", MODEL, "--shared-system", path + "x"], stderr=subprocess.PIPE,
                         stdin=subprocess.DEVNULL, timeout=60)
    tap.ok(out.returncode == 1 and b"cannot be opened" in out.stderr, "a file that is not there is an error",
           out.stderr.decode().splitlines()[:1])


def test_guessing():
    """Tokens that are guessed and checked together change neither a greedy nor a sampled answer."""
    text = "Item 4711: one steel bolt, M8, galvanised. Item 4712: one steel nut, M8, galvanised. "
    prompt = "A list:\n" + text * 3 + "\nThe same list, copied word by word:\n" + text
    asks = [{"max_new": 60}, {"max_new": 60, "temperature": 0.7, "top_p": 0.95, "seed": 5, "repeat": 1.0},
            {"max_new": 60, "temperature": 0.3, "seed": 8, "frequency": 0.1, "logprobs": 3}]
    e = start("--speculate", "0")
    plain = [e.ask(prompt, **a) for a in asks]
    tap.ok(e.stats()["guessed_tokens"] == 0, "guessing can be off")
    e.close()
    e = start()
    guessed = [e.ask(prompt, **a) for a in asks]
    s = e.stats()

    def said(answers):
        return [[(m["token"], m["text"], m.get("logprob"), m.get("top")) for m in a["messages"] if m["type"] == TOKEN]
                for a in answers]

    tap.ok(said(guessed) == said(plain), "the same tokens, texts and log probabilities", [a["text"] for a in guessed])
    ms = [sum(a["end"]["decode_us"] for a in x) / 1e3 for x in (plain, guessed)]
    tap.ok(s["guessed_right"] > 20, "and fewer steps", "%d of %d guesses right, %d steps for %d tokens, %d instead of %d ms" %
           (s["guessed_right"], s["guessed_tokens"], s["steps"], s["generated_tokens"], ms[1], ms[0]))
    e.close()


def test_second_start():
    e = start()
    ready = time.monotonic() - e.started
    e.ask(PROMPTS[0], max_new=1)
    first = time.monotonic() - e.started
    tap.ok(first < 3.0, "second start to first token under 3 s", "READY after %.2f s, first token after %.2f s" %
           (ready, first))
    resident = e.stats()["resident_bytes"]
    e.close()
    tap.ok(50e6 < resident < 600e6, "resident memory is reported", "%.1f MB" % (resident / 1e6))


def test_doctor():
    out = subprocess.run([ENGINE, "--doctor", MODEL, "--cache", cache], stdout=subprocess.PIPE, timeout=120)
    said = out.stdout.decode()
    line = [x for x in said.splitlines() if x.startswith("resident:")]
    tap.ok(out.returncode == 0 and line and line[0].endswith("PASS"), "doctor: memory within 1.15 x image + KV + activations",
           line or said)


def main():
    signal.alarm(800)
    test_sandbox()
    e = start()
    test_start(e)
    alone = test_alone_and_together(e)
    test_sampling_and_logprobs(e)
    test_chat(e)
    test_cancel(e)
    test_refusals(e)
    e.send(frame(QUIT, 0))
    tap.ok(e.process.wait(20) == 0, "QUIT")
    test_resume(alone)
    test_device_failure()
    test_hostile_frame()
    test_back_pressure()
    test_preemption()
    test_prefix_cache()
    test_guessing()
    test_shared_system()
    test_second_start()
    test_doctor()
    return tap.finish()


sys.exit(main())
