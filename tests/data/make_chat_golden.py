#!/usr/bin/env python3
"""Makes tests/data/chat.golden: conversations as Jinja2 renders the models' own templates.

Usage: python3 make_chat_golden.py > tests/data/chat.golden     in the repository's root, after `make test-inputs`,
with pip install jinja2==3.1.6 gguf==0.19.0
The templates: SmolLM2's from its GGUF file; models/templates and tests/test-chat-template.cpp of llama.cpp, out of the
source package that tests/data/fetch_llama_vocab.sh fetched; the rest is written below after the models' tokenizer
files (google/gemma-3-270m-it, meta-llama/Llama-2-7b-chat-hf, Qwen/Qwen2-7B-Instruct, llm-jp/llm-jp-3.1-1.8b-instruct4,
sbintuitions/sarashina2.2-3b-instruct-v0.1).
Lines: "find" FILE FRAME ("-": none) - what kb_chat_find is to say of a template of models/templates; and
"render" FRAME TURNS TEXT - TURNS is role=hex of content, ..., TEXT the hex of the rendered text without the BOS in
front, or "!" where the template refuses.
"""
import pathlib
import re
import tarfile

import gguf
import jinja2
import jinja2.sandbox

SDIST = "build/downloads/llama_cpp_python-0.3.36.tar.gz"
LLAMA = "llama_cpp_python-0.3.36/vendor/llama.cpp/"
FOUND = {
    "LFM2-8B-A1B.jinja": "chatml",
    "Qwen-Qwen2.5-7B-Instruct.jinja": "qwen2.5",
    "Qwen-Qwen3-0.6B.jinja": "qwen3",
    "google-gemma-2-2b-it.jinja": "gemma",
    "meta-llama-Llama-3.1-8B-Instruct.jinja": "llama3.1",
    "meta-llama-Llama-3.2-3B-Instruct.jinja": "llama3.1",
    "meta-llama-Llama-3.3-70B-Instruct.jinja": "llama3.1",
    "microsoft-Phi-3.5-mini-instruct.jinja": "phi3",
    "mistralai-Mistral-Nemo-Instruct-2407.jinja": "mistral-v3-tekken",
}
CHATS = [
    [("user", "Hello")],
    [("system", "Be brief."), ("user", "こんにちは")],
    [("user", " a \n"), ("assistant", " b\n"), ("user", "\tc")],
    [("system", " S\n"), ("user", " one "), ("assistant", "two"), ("user", "three"), ("assistant", "four"), ("user", "five")],
    [("user", "q"), ("assistant", "<think>\nhm\n</think>\n\nanswer"), ("user", "next")],
    [("user", "a"), ("user", "b")],
    [("assistant", "a"), ("user", "b")],
]
NO_SYSTEM = [c for c in CHATS if c[0][0] != "system"]  # the template refuses one; the row takes it into the first turn
ALTERNATE = ("{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('order') }}{%- endif -%}")
GEMMA3 = ("{{ bos_token }}{%- set sys = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' -%}"
          "{%- for m in (messages[1:] if sys else messages) -%}" + ALTERNATE +
          "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
          "{{- (sys if loop.first else '') + (m['content'] | trim) + '<end_of_turn>\n' }}{%- endfor -%}"
          "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}")
LLAMA2 = ("{%- set sys = messages[0]['role'] == 'system' -%}{%- for m in (messages[1:] if sys else messages) -%}" + ALTERNATE +
          "{%- set c = ('<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' if sys and loop.first else '') + m['content'] -%}"
          "{%- if m['role'] == 'user' -%}{{ bos_token + '[INST] ' + c.strip() + ' [/INST]' }}"
          "{%- else -%}{{ ' ' + c.strip() + ' ' + eos_token }}{%- endif -%}{%- endfor -%}")
QWEN2 = ("{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
         "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
         "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}")
LLM_JP = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '\n\n### 指示:\n' + m['content'] }}"
          "{% elif m['role'] == 'system' %}{{ m['content'] }}{% else %}{{ '\n\n### 応答:\n' + m['content'] + eos_token }}"
          "{% endif %}{% endfor %}{{ '\n\n### 応答:\n' }}")
SARASHINA = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}{% endfor %}{{ '<|assistant|>' }}"


def fail(message):
    raise jinja2.TemplateError(message)


def render(source, chat):
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.globals["raise_exception"] = fail
    messages = [{"role": r, "content": c} for r, c in chat]
    try:
        text = env.from_string(source).render(messages=messages, bos_token="<s>", eos_token="</s>",
                                              add_generation_prompt=True)
    except jinja2.TemplateError:
        return None
    return text.removeprefix("<s>")


def members():
    with tarfile.open(SDIST) as tar:
        for m in tar:
            path = m.name.removeprefix(LLAMA)
            if path.startswith("models/templates/") and path.endswith(".jinja") or path == "tests/test-chat-template.cpp":
                yield path.rsplit("/")[-1], tar.extractfile(m).read().decode()


def quoted(cpp, name):
    text = re.search(r'name= \*/ "%s".*?template_str= \*/ "((?:[^"\\]|\\.)*)"' % re.escape(name), cpp, re.S).group(1)
    return re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m.group(1), m.group(1)), text)


def main():
    files = dict(members())
    cpp = files.pop("test-chat-template.cpp")
    for name in sorted(files):
        print("find", name, FOUND.get(name, "-"), sep="\t")
    smollm = gguf.GGUFReader("build/downloads/smollm2-135m-instruct-q4_1.gguf").fields["tokenizer.chat_template"].contents()
    sources = [("smollm", smollm, CHATS), ("qwen2", QWEN2, CHATS), ("gemma", GEMMA3, CHATS), ("llama2", LLAMA2, CHATS),
               ("llm-jp-3.1", LLM_JP, CHATS), ("sarashina2.2", SARASHINA, CHATS),
               ("chatml", quoted(cpp, "teknium/OpenHermes-2.5-Mistral-7B"), CHATS), ("llama3", quoted(cpp, "Llama-3"), CHATS),
               ("mistral-v7", quoted(cpp, "mistralai/Mistral-Large-Instruct-2411 (mistralai 'v7' template)"), CHATS),
               ("mistral-v1", quoted(cpp, "mistralai/Mistral-7B-Instruct-v0.2 (NOTE: Old pre-v1 without a system prompt)"),
                NO_SYSTEM)]
    for name in FOUND:
        if name not in ("LFM2-8B-A1B.jinja", "google-gemma-2-2b-it.jinja"):
            sources.append((FOUND[name], files[name], CHATS))
    sources.append(("gemma", files["google-gemma-2-2b-it.jinja"], NO_SYSTEM))
    seen = set()
    for frame, source, chats in sources:
        for chat in chats:
            text = render(source, chat)
            turns = ",".join(f"{r}={c.encode().hex()}" for r, c in chat)
            line = f"render\t{frame}\t{turns}\t{'!' if text is None else text.encode().hex()}"
            if line not in seen:
                print(line)
            seen.add(line)


main()
