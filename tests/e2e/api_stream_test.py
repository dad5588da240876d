#!/usr/bin/env python3
# Answers: shapes of whole ones and streams, several choices, errors, cancellation, an engine that dies or hangs.
import json
import os
import pathlib
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from box import Box, check, finish, text_of, wait  # noqa: E402


def test_shapes(box, d):
    status, r, h = box.chat(d, "len=6", temperature=0)
    want = " w0 w1 w2 w3\u8a00\"\n w5"
    check("a chat answers", status == 200 and r["choices"][0]["message"]["content"] == want, r)
    check("...in OpenAI's form", r["object"] == "chat.completion" and r["id"].startswith("chatcmpl-") and
          r["model"] == "fake" and isinstance(r["created"], int) and r["choices"][0]["finish_reason"] == "stop" and
          r["choices"][0]["logprobs"] is None and r["choices"][0]["message"]["role"] == "assistant" and
          r["choices"][0]["message"]["refusal"] is None, r)
    check("...with usage", r["usage"]["completion_tokens"] == 6 and
          r["usage"]["total_tokens"] == 6 + r["usage"]["prompt_tokens"], r)
    check("...and x-request-id", h.get("x-request-id", "").startswith("req_"), h)
    status, events = box.stream(d, "len=6", temperature=0, stream_options={"include_usage": True})
    check("a stream says the same", status == 200 and text_of(events) == want, events)
    first, last, usage, done = events[0], events[-3], events[-2], events[-1]
    check("...role first", first["choices"][0]["delta"]["role"] == "assistant" and
          sum("role" in c["delta"] for e in events[:-1] for c in e["choices"]) == 1, first)
    check("...then the finish", last["choices"][0]["finish_reason"] == "stop" and last["choices"][0]["delta"] == {} and
          all(c["finish_reason"] is None for e in events[:-3] for c in e["choices"]), last)
    check("...then usage, [DONE]", usage["choices"] == [] and usage["usage"] == r["usage"] and done == "[DONE]" and
          all("usage" in e and e["usage"] is None for e in events[:-2]), events[-2:])
    check("...one id and form", len({e["id"] for e in events[:-1]}) == 1 and
          {e["object"] for e in events[:-1]} == {"chat.completion.chunk"})
    status, events = box.stream(d, "len=3")
    check("no usage unless asked for", all("usage" not in e for e in events[:-1]), events)
    status, r, _ = box.chat(d, "len=50", max_tokens=4)
    check("max_tokens", r["choices"][0]["finish_reason"] == "length" and r["usage"]["completion_tokens"] == 4, r)
    status, r, _ = box.chat(d, "len=50", max_completion_tokens=5)
    check("max_completion_tokens", r["usage"]["completion_tokens"] == 5, r)
    status, r, _ = box.chat(d, "len=9", stop=["w2"], temperature=0)
    check("stop", r["choices"][0]["message"]["content"] == " w0 w1 " and r["choices"][0]["finish_reason"] == "stop", r)
    status, r, _ = box.chat(d, "utf8 len=2", temperature=0)
    check("text of an engine that is not UTF-8 is mended", r["choices"][0]["message"]["content"] == "\ufffd\ufffd(" * 2, r)
    parts = [{"type": "text", "text": "len"}, {"type": "text", "text": "=2"}]
    status, r, _ = box.ask(d, "POST", "/v1/chat/completions", {"messages": [
        {"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]})
    check("parts of text, no model: the default one", status == 200 and r["usage"]["completion_tokens"] == 2, r)


def test_choices(box, d):
    status, r, _ = box.chat(d, "len=5", n=3, seed=7, temperature=1)
    texts = [c["message"]["content"] for c in r["choices"]]
    check("n choices, unlike", len(set(texts)) == 3 and [c["index"] for c in r["choices"]] == [0, 1, 2], r)
    check("a prompt is counted once", r["usage"]["completion_tokens"] == 15 and
          r["usage"]["prompt_tokens"] == box.chat(d, "len=5")[1]["usage"]["prompt_tokens"], r)
    again = box.chat(d, "len=5", n=3, seed=7, temperature=1)[1]
    check("a seed repeats them", [c["message"]["content"] for c in again["choices"]] == texts)
    other = box.chat(d, "len=5", n=3, seed=8, temperature=1)[1]
    check("another does not", [c["message"]["content"] for c in other["choices"]] != texts)
    status, events = box.stream(d, "len=5", n=3, seed=7, temperature=1)
    by_index = ["".join(c["delta"].get("content", "") for e in events[:-1] for c in e["choices"] if c["index"] == i)
                for i in range(3)]
    check("a stream of n", by_index == texts, by_index)
    status, r, _ = box.chat(d, "len=4", temperature=0, logprobs=True, top_logprobs=2)
    lp = r["choices"][0]["logprobs"]["content"]
    check("logprobs", len(lp) == 4 and lp[0]["token"] == " w0" and bytes(lp[0]["bytes"]) == b" w0" and
          len(lp[0]["top_logprobs"]) == 2 and lp[0]["top_logprobs"][1]["token"] == "\ufffd" and
          lp[0]["top_logprobs"][1]["bytes"] == [255] and lp[0]["logprob"] == -0.25, lp)
    status, events = box.stream(d, "len=6 hold", temperature=0, logprobs=True)
    got = [t["token"] for e in events[:-1] for c in e["choices"] if c["logprobs"] for t in c["logprobs"]["content"]]
    check("logprobs of a stream, text held back or not", got == [" w0", " w1", " w2", " w3", "\u8a00\"\n", " w5"], got)
    check("...and the text", text_of(events) == "".join(got), text_of(events))


def test_completions(box, d):
    def ask(**fields):
        return box.ask(d, "POST", "/v1/completions", {"model": "fake", "temperature": 0, **fields})
    status, r, _ = ask(prompt="len=4")
    check("a completion", status == 200 and r["object"] == "text_completion" and r["choices"][0]["text"] == " w0 w1 w2 w3" and
          r["choices"][0]["finish_reason"] == "stop" and r["choices"][0]["logprobs"] is None, r)
    status, r, _ = ask(prompt="len=99")
    check("16 tokens unless asked for more", r["usage"]["completion_tokens"] == 16, r)
    status, r, _ = ask(prompt=["len=1", "len=2"], n=2)
    check("several prompts and n", [c["index"] for c in r["choices"]] == [0, 1, 2, 3] and
          [c["text"] for c in r["choices"]] == [" w0", " w0", " w0 w1", " w0 w1"] and
          r["usage"]["completion_tokens"] == 6 and r["usage"]["prompt_tokens"] == 4, r)
    status, r, _ = ask(prompt=[1, 2, 3], max_tokens=2)
    check("a prompt of tokens", status == 200 and r["usage"]["prompt_tokens"] == 3, r)
    status, r, _ = ask(prompt=[[1, 2], [3]], max_tokens=2)
    check("prompts of tokens", status == 200 and r["usage"]["prompt_tokens"] == 3 and len(r["choices"]) == 2, r)
    status, r, _ = ask(prompt="len=2", echo=True)
    check("echo", r["choices"][0]["text"] == "len=2 w0 w1", r)
    status, events = box.stream(d, "len=2", path="/v1/completions", echo=True, temperature=0)
    check("echo in a stream", text_of(events) == "len=2 w0 w1" and events[-1] == "[DONE]" and
          events[-2]["choices"][0]["finish_reason"] == "stop", events)
    status, r, _ = ask(prompt="len=6", logprobs=2)
    lp = r["choices"][0]["logprobs"]
    check("logprobs in the old form", lp["tokens"][:2] == [" w0", " w1"] and lp["text_offset"] == [0, 3, 6, 9, 12, 15] and
          lp["token_logprobs"] == [-0.25] * 6 and lp["top_logprobs"][0][" w0"] == -0.25, lp)


def test_errors(box, d):
    status, r, _ = box.chat(d, "x" * 40000)
    check("a prompt over the context", status == 400 and r["error"]["code"] == "context_length_exceeded" and
          set(r["error"]) == {"message", "type", "param", "code"}, r)
    status, r = box.stream(d, "x" * 40000)
    check("...and in a stream it is no stream", status == 400 and r["error"]["code"] == "context_length_exceeded", r)
    status, r, h = box.chat(d, "error=10")
    check("an engine without room: 503 with Retry-After", status == 503 and int(h["retry-after"]) > 0, (status, r, h))
    status, r, _ = box.chat(d, "error=12")
    check("an engine's failure: 500", status == 500 and r["error"]["type"] == "server_error", r)
    status, r, _ = box.ask(d, "POST", "/v1/chat/completions", {"model": "nobody", "messages": [{"role": "user", "content": "x"}]})
    check("an unknown model: 404", status == 404 and r["error"]["code"] == "model_not_found" and "import" in r["error"]["message"], r)


def test_cancel(box, d):
    def leave(events):
        if len(events) == 4:
            raise StopIteration
    box.stream(d, "len=2000 delay=20", on_event=leave)
    check("a client that leaves cancels its request at once",
          wait(lambda: any(e[1] == "cancel" and int(e[3]) < 60 for e in box.events()), 3), box.events()[-3:])
    check("...and nothing runs any more", wait(lambda: box.metric("kv_pages_used") == 0 and box.metric("requests_running") == 0))
    before = box.metric("requests_cancelled_total")
    s = box.raw(d)
    body = json.dumps({"messages": [{"role": "user", "content": "len=2000 delay=20"}]})
    s.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    time.sleep(0.3)
    s.close()
    check("so does one that waits for a whole answer", wait(lambda: box.metric("requests_cancelled_total") == before + 1, 3))


# A reader that stands still is cut and its request cancelled, long before the answer's end.
def test_stalled_reader(box, d):
    before = box.metric("slow_readers_total")
    s = box.raw(d)
    body = json.dumps({"stream": True, "messages": [{"role": "user", "content": "len=4000 delay=0 big=20000"}]})
    s.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    check("a reader that stands still is cut", wait(lambda: box.metric("slow_readers_total") == before + 1, 20))
    check("...and its request cancelled", wait(lambda: any(e[1] == "cancel" and 0 < int(e[3]) < 3900 for e in box.events()), 3),
          box.events()[-3:])
    s.close()


def test_resume(box, d):
    whole = box.chat(d, "len=40 hold", temperature=0)[1]["choices"][0]["message"]["content"]
    for at in (1, 8, 21):
        victim = box.engine()["pid"]

        def kill(events):
            if len(events) == at:
                os.kill(victim, signal.SIGKILL)
        status, events = box.stream(d, "len=40 hold delay=10", on_event=kill, temperature=0,
                                    stream_options={"include_usage": True})
        check(f"killed at event {at}: the stream goes on without gap or repetition", text_of(events) == whole and
              events[-1] == "[DONE]" and events[-2]["usage"]["completion_tokens"] == 40, events)
        check("...in another process", box.engine()["pid"] not in (0, victim))
    check("...and that is counted", box.metric("engine_restarts_total") >= 3 and box.metric("resumed_total") >= 3)
    results = [None] * 5

    def one(i):
        results[i] = text_of(box.stream(d, "len=60 delay=10", seed=i, temperature=1)[1])
    alone = [text_of(box.stream(d, "len=60 delay=0", seed=i, temperature=1)[1]) for i in range(5)]
    threads = [threading.Thread(target=one, args=(i,)) for i in range(5)]
    for t in threads:
        t.start()
    time.sleep(0.25)
    os.kill(box.engine()["pid"], signal.SIGKILL)
    for t in threads:
        t.join()
    check("five at once, sampled: all go on", results == alone)
    box.image().with_suffix(".kbm.died").unlink(missing_ok=True)
    status, r, _ = box.chat(d, "len=12 die=5", temperature=0)
    check("an engine that dies by itself: the whole answer comes", status == 200 and
          r["usage"]["completion_tokens"] == 12, r)


def test_hang(box, d):
    hang = pathlib.Path(str(box.image()) + ".hang")
    whole = box.chat(d, "len=30", temperature=0)[1]["choices"][0]["message"]["content"]
    victim = box.engine()["pid"]

    def stop(events):
        if len(events) == 5:
            hang.touch()
    timer = threading.Timer(4.5, lambda: hang.unlink(missing_ok=True))  # the next engine must not hang too
    timer.start()
    status, events = box.stream(d, "len=30 delay=30", on_event=stop, temperature=0)
    timer.cancel()
    hang.unlink(missing_ok=True)
    check("a hanging engine is killed and the stream goes on", text_of(events) == whole and events[-1] == "[DONE]", events)
    check("...in another process", box.engine()["pid"] not in (0, victim), box.engine())
    stuck = pathlib.Path(str(box.image()) + ".stuck")
    victim = box.engine()["pid"]
    stuck.touch()
    scraping = threading.Timer(4.5, lambda: stuck.unlink(missing_ok=True))
    scraping.start()
    t = threading.Thread(target=lambda: results.append(box.chat(d, "len=4", temperature=0)))
    results = []
    t.start()
    while t.is_alive():  # a process that answers for its stuck device is not alive
        box.metric("kv_pages_used")
        time.sleep(0.1)
    check("a stuck device is noticed although its process answers", results[0][0] == 200 and
          box.engine()["pid"] not in (0, victim), results)


def test_hopeless(box, d):
    status, r, _ = box.chat(d, "always-die")
    check("a request that every engine dies of fails", status in (500, 503) and r["error"]["code"] == "engine_failed", r)
    box.wait_engine("failed", seconds=3)
    status, r, h = box.chat(d, "len=2")
    ok = status == 200 or (status == 503 and int(h["retry-after"]) > 0)
    check("...others are told to come again", ok, (status, r, h))
    check("...and are served after the rest", wait(lambda: box.chat(d, "len=2")[0] == 200, 20), box.engine())

    def kill_for_good(events):
        if len(events) == 3:
            pathlib.Path(str(box.image()) + ".never-ready").touch()
            os.kill(box.engine()["pid"], signal.SIGKILL)
    status, events = box.stream(d, "len=500 delay=20", on_event=kill_for_good)
    pathlib.Path(str(box.image()) + ".never-ready").unlink()
    check("a stream whose engine cannot come back ends with an error event", isinstance(events[-1], dict) and
          events[-1].get("error", {}).get("code") == "engine_failed" and events[-1]["error"]["message"], events[-2:])
    check("the box recovers", wait(lambda: box.chat(d, "len=2")[0] == 200, 20), box.engine())
    status, r, _ = box.chat(d, "garbage len=3")
    check("an engine that sends garbage is replaced", box.metric("engine_failures_total") > 0 and status in (200, 500, 503), r)
    check("...and the box recovers", wait(lambda: box.chat(d, "len=2")[0] == 200, 20), box.engine())


# More choices than an engine takes while it loads: they wait; what is over gets 503.
def test_full_queue(box, d):
    os.kill(box.engine()["pid"], signal.SIGKILL)
    body = {"model": "fake", "prompt": ["len=1"] * 8, "n": 8}
    got = []
    threads = [threading.Thread(target=lambda: got.append(box.ask(d, "POST", "/v1/completions", body))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    codes = sorted(r[0] for r in got)
    full = [r for r in got if r[0] == 503]
    check("two requests of 64 choices wait for the engine, the others get 503", codes == [200, 200, 503, 503], codes)
    check("...with Retry-After", all(int(r[2]["retry-after"]) > 0 and r[1]["error"]["code"] == "overloaded" for r in full))


def test_ping_comments(box, d):
    status, events = box.stream(d, "len=2 prefill=2500")
    check("comments keep a silent stream alive", events.count(":") >= 1 and text_of(events) != "", events)


def main():
    box = Box({"fake": "load=700"}, flags=["--hurry", "10", "--client-rate", "0"])
    try:
        d = box.pair("ann")
        box.wait_engine()
        for test in (test_shapes, test_choices, test_completions, test_errors, test_cancel, test_stalled_reader,
                     test_ping_comments, test_full_queue, test_resume, test_hang, test_hopeless):
            print(f"# {test.__name__}", flush=True)
            test(box, d)
    except Exception as e:  # noqa: BLE001 - reported with the log
        import traceback
        traceback.print_exc(file=sys.stderr)
        check("no unexpected failure", False, repr(e))
    finish([box])


main()
