"""Token ids by another program: llama.cpp (llama-cpp-python 0.3.36).

Usage: python3 make_text_golden.py        in the repository's root, after `make test-inputs`, with
pip install llama-cpp-python==0.3.36
Writes tests/data/tokens.golden: FILE <tab> 1: control tokens are recognised <tab> hex of the UTF-8 text <tab> ids.
"""
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
TRUSTED = [
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n こんにちは \n<|im_end|>\n<|im_start|>assistant\n",
    "<bos><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>", "<|endoftext|><|endoftext|> a",
]
def tokens(out):
    for path in FILES:
        model = llama_cpp.Llama("build/" + path, vocab_only=True, verbose=False)
        for text, trusted in [(t, 0) for t in TEXTS] + [(t, 1) for t in TRUSTED]:
            ids = model.tokenize(text.encode(), add_bos=False, special=bool(trusted))
            out.write(f"{path}\t{trusted}\t{text.encode().hex()}\t{' '.join(map(str, ids))}\n")


with open("tests/data/tokens.golden", "w") as f:
    tokens(f)
