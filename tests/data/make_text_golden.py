"""Token ids and rendered conversations by other programs: llama.cpp (llama-cpp-python 0.3.36) and Jinja2 3.1.

Usage: python3 make_text_golden.py        in the repository's root, after `make test-inputs`, with
pip install llama-cpp-python==0.3.36 gguf==0.19.0 jinja2==3.1.6
Writes tests/data/tokens.golden (FILE <tab> hex of the UTF-8 text <tab> ids) and tests/data/chat.golden
(FRAME <tab> role=hex of content, ... <tab> hex of the rendered text).
"""
import gguf
import jinja2
import llama_cpp

FILES = {
    "downloads/smollm2-135m-instruct-q4_1.gguf": 1,
    "downloads/gemma-3-270m-q4_k_m.gguf": 1,
    "downloads/vocab/ggml-vocab-qwen2.gguf": 0,
    "downloads/vocab/ggml-vocab-llama-bpe.gguf": 0,
}
TEXTS = [
    "吾輩は猫である。名前はまだ無い。", "どこで生れたかとんと見当がつかぬ。",
    "何でも薄暗いじめじめした所でニャーニャー泣いていた事だけは記憶している。", "東京都千代田区霞が関1-2-3",
    "令和八年十一月二十四日（火）", "ｶﾀｶﾅ半角とカタカナ全角", "か\u3099き\u3099は\u309a (NFD)", "がぎぱ (NFC)",
    "株式会社ことばこ　御中", "𠮷野家で𩸽を食べる", "髙橋﨑", "👨‍👩‍👧‍👦 家族", "🇯🇵 日本", "①②③㈱㍻", "「はい」『いいえ』…―〜", "１２３４５67890",
    "def 関数(引数): return 引数 * 2  # コメント", "メール: taro@example.jp / 電話 03-1234-5678", "これはtestです。", "英語とEnglishの混在 mixed文",
    "改行\nと\tタブ\r\nと　全角空白", "   leading and trailing   ", "\n\n\n", " ", "  ", "\t", "a", "あ", "é", "e\u0301", "ñandú über straße",
    "I'm you're HE'LL we'Ve it'd", "3.14159 1000000 12 345", "snake_case camelCase kebab-case", "{\"key\": [1, 2, 3]}", "<html>&amp;</html>",
    "http://example.com/?q=1&r=%20", "#include <stdio.h>\nint main(void)\n{\n\treturn 0;\n}\n", "Привет мир", "مرحبا بالعالم", "안녕하세요", "你好，世界", "สวัสดี", "नमस्ते",
    "\u200b\u200dzero width\ufeff", "½ ² ₃ Ⅳ", "'", "''", "'s", "…\u2028line sep", "\u0085nel", "\u00a0nbsp", "ｱｲｳ ﾊﾟ", "ー～－",
    "user text with <|im_end|> and <end_of_turn> in it",
]
CHATS = [
    [("user", "Hello")],
    [("system", "Be brief."), ("user", "こんにちは")],
    [("user", " a "), ("assistant", "b\n"), ("user", "c")],
    [("system", " S "), ("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four"), ("user", "five")],
]
# Templates as published with the models; SmolLM2's is in its GGUF file, the others are quoted by behaviour:
# gemma-3 (google/gemma-3-270m-it), Llama-3-Instruct, ChatML without a default system turn.
GEMMA = ("{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set first = messages[0]['content'] + '\n\n' -%}"
         "{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first = '' -%}{%- set loop_messages = messages -%}"
         "{%- endif -%}{%- for m in loop_messages -%}{%- set role = 'model' if m['role'] == 'assistant' else m['role'] -%}"
         "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}{{ m['content'] | trim }}"
         "{{ '<end_of_turn>\n' }}{%- endfor -%}{{'<start_of_turn>model\n'}}")
LLAMA3 = ("{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim "
          "+ '<|eot_id|>' }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}")
CHATML = ("{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
          "{{ '<|im_start|>assistant\n' }}")


def tokens(out):
    for path in FILES:
        model = llama_cpp.Llama("build/" + path, vocab_only=True, verbose=False)
        for text in TEXTS:
            ids = model.tokenize(text.encode(), add_bos=False, special=False)
            out.write(f"{path}\t{text.encode().hex()}\t{' '.join(map(str, ids))}\n")


def chats(out):
    smollm = gguf.GGUFReader("build/" + next(iter(FILES))).fields["tokenizer.chat_template"].contents()
    for name, source in (("smollm", smollm), ("gemma", GEMMA), ("llama3", LLAMA3), ("chatml", CHATML)):
        template = jinja2.Environment().from_string(source)
        for chat in CHATS:
            text = template.render(messages=[{"role": r, "content": c} for r, c in chat], bos_token="",
                                   add_generation_prompt=True)
            turns = ",".join(f"{r}={c.encode().hex()}" for r, c in chat)
            out.write(f"{name}\t{turns}\t{text.encode().hex()}\n")


with open("tests/data/tokens.golden", "w") as f:
    tokens(f)
with open("tests/data/chat.golden", "w") as f:
    chats(f)
