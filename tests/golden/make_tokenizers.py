#!/usr/bin/env python3
"""Writes tokenizers.json: the original implementations' ids of texts that are hard to split.

For each tokenizer.json of models/, the tokenizers package's; for GPT-2's files (gpt2/), tiktoken's
and transformers' rules by the tokenizers package.
Usage: python3 make_tokenizers.py  (after make_models.py; needs tokenizers)
"""
import json
import pathlib

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
TEXTS = [
    "", " ", "  ", "a", " a", "a ", "\n", "\n\n\n", "\r\n", " \n \n  x", "\t\ttabs\tand  spaces   ",
    "Hello, world! It's 9 o'clock; they've won 1,234,567.89 points -- wow!!!",
    "I'M SHOUTING: DON'T, WE'LL, YOU'RE, 'S, 'T  'ſ", "snake_case camelCase kebab-case x=y+1; // end",
    "naïve café Ångström ﬁ ½ ² Ⅷ ٣٤٥ １２３", "e\u0301 A\u030a \u1112\u1161\u11ab n\u0303o",
    "Привет, мир! Ёлка 2024", "你好，世界。今天天气很好！", "こんにちは世界カタカナ", "안녕하세요 세계",
    "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Γειά σου Κόσμε", "😀😃👍🏽👨‍👩‍👧‍👦🇩🇪 emoji",
    "\u00a0nbsp\u2003em\u3000ideographic\u180emvs\u200bzw\u2028ls\u2029ps\u0085nel\ufeffbom",
    "\x01\x02\x1b[31mred\x1b[0m\x7f", "zero\u200djoiner\u0300\u0301 combining", "<|endoftex|> <| im_start |>",
    "a" * 300, "ab" * 150 + " " * 120 + "!" * 90, "0123456789" * 12, "\n" * 40 + "x" + " \t" * 20,
    "ﷺ ǅ ß İ ı ŉ \u0130stanbul", "🜁𝔘𝕟𝕚 𐍈 \U0001f9ff\U000e0041", "mixed漢字and kana カナ123abc",
]


def gpt2():
    t = tokenizers.Tokenizer(models.BPE.from_file(str(HERE / "gpt2/encoder.json"), str(HERE / "gpt2/vocab.bpe")))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    return t


def trained_without_alphabet():
    """Its bytes are those of its text: most control characters and other scripts have no token."""
    t = tokenizers.Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    text = "".join(chr(c) for c in [*range(32, 127), *range(0xa0, 0x250), *range(0x390, 0x450)]) + "\n"
    t.train_from_iterator([text, (HERE / "make_tokenizers.py").read_text()], trainers.BpeTrainer(vocab_size=280))
    (HERE / "sparse").mkdir(exist_ok=True)
    t.save(str(HERE / "sparse/tokenizer.json"), pretty=False)
    return t


def main():
    out = {"texts": TEXTS, "ids": {}}
    for folder in sorted((HERE / "models").iterdir()):
        if folder.is_dir():
            t = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            out["ids"][f"models/{folder.name}"] = [t.encode(x, add_special_tokens=False).ids for x in TEXTS]
    sparse = trained_without_alphabet()
    out["ids"]["sparse"] = [sparse.encode(x).ids for x in TEXTS]
    big = gpt2()
    out["ids"]["gpt2/encoder.json"] = [big.encode(x).ids for x in TEXTS]
    # Whole files: how many ids, and a sum that depends on their order.
    data = HERE / "../../examples/data"
    out["files"] = {}
    for path in sorted(data.iterdir()):
        if path.suffix not in (".txt", ".jsonl"):
            continue
        ids, total = big.encode(path.read_text()).ids, 0
        for token in ids:
            total = (total * 1000003 + token + 1) % 2**64
        out["files"][path.name] = {"count": len(ids), "sum": f"{total:016x}"}
    (HERE / "tokenizers.json").write_text(json.dumps(out, separators=(",", ":")))


if __name__ == "__main__":
    main()
