#!/bin/sh
"exec" "build/venv/openai/bin/python" "$0" "$@"
# The unmodified `openai` client (PyPI, pinned in requirements.txt, strict response validation) against a real
# kotobakod with SmolLM2 on the Vulkan device of this machine: mutual TLS, chat, streams, errors. Prints TAP.
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request

import openai

BIN = pathlib.Path("build/release")
TMP = pathlib.Path(os.environ["KB_TMP"])
MODEL = "smollm2-135m-instruct"
tests = 0
failed = 0


def check(what, ok, detail=""):
    global tests, failed
    tests += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {tests} - {what}" + ("" if ok else f"  # {detail}"), flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def tls(with_certificate):
    context = ssl.create_default_context(cafile=TMP / "client/ca.pem")
    if with_certificate:
        context.load_cert_chain(TMP / "client/cert.pem", TMP / "client/key.pem")
    return context


def client(port, with_certificate=True, strict=True, **kw):
    return openai.OpenAI(base_url=f"https://127.0.0.1:{port}/v1", api_key="unused", max_retries=0, timeout=120,
                         http_client=openai.DefaultHttpxClient(verify=tls(with_certificate)),
                         _strict_response_validation=strict, **kw)


def start():
    port = free_port()
    state = TMP / "state"
    (state / "models").mkdir(parents=True)
    os.chmod(state, 0o700)
    os.symlink(pathlib.Path("build/models/smollm2-135m-instruct.kbm").resolve(), state / f"models/{MODEL}.kbm")
    log = open(TMP / "log", "w")
    daemon = subprocess.Popen([BIN / "kotobakod", "--state", state, "--listen", f"127.0.0.1:{port}",
                               "--model", MODEL], stderr=log)
    for _ in range(300):
        if subprocess.run([BIN / "kotobako", "--state", state, "status"], capture_output=True).returncode == 0:
            break
        if daemon.poll() is not None:
            break
        time.sleep(0.1)
    subprocess.run([BIN / "kotobako", "--state", state, "--box", f"127.0.0.1:{port}", "pair", "--name", "test",
                    "--out", TMP / "client"], check=True, capture_output=True)
    return daemon, port


def chat(c, text, **kw):
    return c.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}], **kw)


def test_chat(c):
    r = chat(c, "What is the capital of France?", temperature=0, max_tokens=40)
    text = r.choices[0].message.content
    check("chat answers sensibly", "Paris" in text, text)
    u = r.usage
    check("usage adds up", u.total_tokens == u.prompt_tokens + u.completion_tokens and u.completion_tokens > 2, str(u))
    check("finish reason", r.choices[0].finish_reason in ("stop", "length"), r.choices[0].finish_reason)
    stream = chat(c, "What is the capital of France?", temperature=0, max_tokens=40, stream=True,
                  stream_options={"include_usage": True})
    pieces, roles, usage, finish = [], 0, None, None
    for chunk in stream:
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            roles += choice.delta.role == "assistant"
            pieces.append(choice.delta.content or "")
            finish = choice.finish_reason or finish
    check("the stream says the same as the whole answer", "".join(pieces) == text, "".join(pieces))
    check("the stream comes in pieces", sum(1 for p in pieces if p) > 3, str(pieces))
    same = usage and (usage.prompt_tokens, usage.completion_tokens) == (u.prompt_tokens, u.completion_tokens)
    check("role once, usage at the end", roles == 1 and same and finish, f"{roles} {usage} {finish}")
    check("whole KV pages of a question asked before are known", u.prompt_tokens_details.cached_tokens == 0 and
          usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens // 16 * 16, f"{u} {usage}")
    return text


def test_parameters(c, loose, whole):
    r = chat(c, "What is the capital of France?", temperature=0, max_tokens=3)
    check("max_tokens", r.usage.completion_tokens == 3 and r.choices[0].finish_reason == "length", str(r.usage))
    word = "Paris"
    r = chat(c, "What is the capital of France?", temperature=0, max_tokens=40, stop=[word])
    check("stop ends before the stop string", r.choices[0].message.content == whole.split(word)[0]
          and r.choices[0].finish_reason == "stop", r.choices[0].message.content)
    a = chat(c, "Tell me a tiny story.", temperature=1, seed=7, max_tokens=24).choices[0].message.content
    b = chat(c, "Tell me a tiny story.", temperature=1, seed=7, max_tokens=24).choices[0].message.content
    d = chat(c, "Tell me a tiny story.", temperature=1, seed=8, max_tokens=24).choices[0].message.content
    check("a seed repeats the answer, another does not", a == b and a != d, f"{a!r} {b!r} {d!r}")
    r = chat(c, "Say something.", temperature=1, seed=1, max_tokens=12, n=3)
    check("n gives that many, different", len({x.message.content for x in r.choices}) > 1
          and [x.index for x in r.choices] == [0, 1, 2], str(r.choices))
    r = chat(c, "What is the capital of France?", temperature=0, max_tokens=5, logprobs=True, top_logprobs=4)
    lp = r.choices[0].logprobs.content
    check("logprobs: one a token, greedy is the best, descending", len(lp) == 5 and all(
        x.top_logprobs[0].token == x.token and len(x.top_logprobs) == 4 and x.logprob <= 0 and
        all(p.logprob >= q.logprob for p, q in zip(x.top_logprobs, x.top_logprobs[1:])) for x in lp), str(lp))
    r = c.completions.create(model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=8)
    check("completions", "Paris" in r.choices[0].text, r.choices[0].text)
    # The client's type of a streamed completion has no null finish_reason, which OpenAI's own service sends too.
    text = "".join(x.choices[0].text for x in loose.completions.create(
        model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=8, stream=True) if x.choices)
    check("completions stream", text == r.choices[0].text, text)
    check("models", [m.id for m in c.models.list()] == [MODEL] and c.models.retrieve(MODEL).id == MODEL)


def test_together(c):
    ask = [f"Name one thing that is {w}." for w in ("red", "cold", "round", "loud", "old", "sweet")]
    alone = [chat(c, q, temperature=0, max_tokens=16).choices[0].message.content for q in ask]
    got = [None] * len(ask)

    def one(i):
        got[i] = chat(c, ask[i], temperature=0, max_tokens=16).choices[0].message.content
    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(ask))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check("six at once answer as each alone (greedy)", got == alone, f"{got} {alone}")


def test_errors(c, port):
    def expect(what, error, call):
        try:
            call()
            check(what, False, "no error")
        except error as e:
            check(what, True)
            return e
        except Exception as e:  # noqa: BLE001 - any other is the failure that we report
            check(what, False, repr(e))
    expect("unknown model is 404", openai.NotFoundError, lambda: c.chat.completions.create(
        model="nobody", messages=[{"role": "user", "content": "x"}]))
    e = expect("bad temperature is 400 and names it", openai.BadRequestError, lambda: chat(c, "x", temperature=-3))
    check("...in OpenAI's shape", e is not None and e.body and e.body.get("param") == "temperature", str(e and e.body))
    e = expect("a prompt over the context is 400", openai.BadRequestError, lambda: chat(c, "word " * 20000))
    check("...with its code", e is not None and e.code == "context_length_exceeded", str(e and e.body))
    expect("without a certificate: refused", openai.APIConnectionError, lambda: client(port, False).models.list())


def test_cancel(c, port):
    def metrics():
        request = urllib.request.Request(f"https://127.0.0.1:{port}/metrics")
        return urllib.request.urlopen(request, context=tls(True)).read().decode()
    stream = chat(c, "Count from one to five hundred in words.", temperature=0, max_tokens=400, stream=True)
    for i, _ in enumerate(stream):
        if i == 3:
            break
    stream.close()
    for _ in range(50):
        used = [x for x in metrics().splitlines() if x.startswith("kotobako_kv_pages_used")]
        if used and float(used[0].split()[-1]) == 0:
            break
        time.sleep(0.1)
    check("a dropped stream frees its KV", bool(used) and float(used[0].split()[-1]) == 0, str(used))


def engine_pid(daemon):
    for p in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            s = p.read_text()
        except OSError:
            continue
        if f"PPid:\t{daemon.pid}\n" in s:
            return int(p.parent.name)


def test_resume(c, daemon):
    ask = "Explain how rain forms."
    whole = chat(c, ask, temperature=0, max_tokens=48).choices[0].message.content
    pieces = []
    victim = engine_pid(daemon)
    for chunk in chat(c, ask, temperature=0, max_tokens=48, stream=True):
        if chunk.choices:
            pieces.append(chunk.choices[0].delta.content or "")
        if len(pieces) == 6:
            os.kill(victim, signal.SIGKILL)
    check("the engine killed in mid-stream: the answer goes on, word for word", "".join(pieces) == whole,
          f"{''.join(pieces)!r} {whole!r}")
    check("...from a new engine process", engine_pid(daemon) not in (None, victim))


def main():
    daemon, port = start()
    try:
        c = client(port)
        whole = test_chat(c)
        test_parameters(c, client(port, strict=False), whole)
        test_together(c)
        test_errors(c, port)
        test_cancel(c, port)
        test_resume(c, daemon)
        health = urllib.request.urlopen(f"https://127.0.0.1:{port}/healthz", context=tls(True))
        check("healthz runs a GPU operation", health.status == 200 and json.load(health).get("status") == "ok")
    except Exception as e:  # noqa: BLE001 - reported, then the log is shown
        check("no unexpected failure", False, repr(e))
    finally:
        daemon.send_signal(signal.SIGTERM)
        check("the daemon leaves in order", daemon.wait(20) == 0, str(daemon.returncode))
    if failed:
        print("# log:\n# " + "\n# ".join((TMP / "log").read_text().splitlines()[-30:]))
    print(f"1..{tests}")
    return 1 if failed else 0


sys.exit(main())
