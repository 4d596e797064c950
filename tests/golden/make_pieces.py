#!/usr/bin/env python3
"""Trains small SentencePiece models (pieces/) and writes pieces.json: the original's ids and texts.

The unigram model's rules of normalisation are those of nmt_nfkc for the characters of the texts,
since all of them would take a quarter of a megabyte.
Usage: python3 make_pieces.py  (needs sentencepiece)
"""
import itertools
import json
import os
import pathlib
import random

import sentencepiece

from make_tokenizers import TEXTS

HERE = pathlib.Path(__file__).resolve().parent
os.chdir(HERE)  # the models keep the names of what they were made of
DATA = pathlib.Path("../../examples/data")
STORIES = [DATA / "tinystories_train.txt", DATA / "tinystories_heldout.txt"]
MORE = [
    "Lily and <|user|> Lily<|user|>  x <|end|> <s> <unk> </s> ▁once upon a time once upon <x><x> ▁a ▁ ▁▁", " Lily",
    "ﬀ ①  ㍿ ｶﾞ ﾊﾟ a\u0301\u0323 ½ ﷺ", "  two  spaces \u3000 and\u00a0 others\t\n ", "\u200b\u00ad", "x \u200b", "zero\0byte",
]


def random_texts():
    random.seed(1)
    pool = "aab  é\u0301ｶﾞ½①\u200b\u00a0▁é😀\n\tLily<x>你好xyz\u00ad"
    return ["".join(random.choice(pool) for _ in range(random.randrange(40))) for _ in range(60)]


def rules(texts):
    """nmt_nfkc for single characters of the texts, and for letters with accents, as a table."""
    normal = sentencepiece.SentencePieceNormalizer(
        rule_name="nmt_nfkc", add_dummy_prefix=False, escape_whitespaces=False, remove_extra_whitespaces=False)
    characters = sorted({c for text in texts for c in text} - {"\0"}) + [chr(c) for c in range(0xA0, 0x180)]
    marks = [c for c in characters if c in "\u0300\u0301\u0303\u030a\u0323ﾞﾟ"]
    pairs = [a + b for a, b in itertools.product([*map(chr, range(65, 123)), *"ｶﾊ"], marks)]
    lines = []
    for source in sorted(set(characters + pairs)):
        target = normal.normalize(source)
        if target != source:
            code = lambda text: " ".join(f"{ord(c):X}" for c in text)
            lines.append(f"{code(source)}\t{code(target)}\n")
    return "".join(lines)


def train(name, **settings):
    sentencepiece.SentencePieceTrainer.train(
        input=",".join(map(str, STORIES)), model_prefix=f"pieces/{name}", num_threads=1, minloglevel=2,
        **settings)
    (HERE / "pieces" / f"{name}.vocab").unlink()


def main():
    texts = TEXTS + MORE + random_texts()
    (HERE / "pieces").mkdir(exist_ok=True)
    raw = dict(normalization_rule_name="identity", remove_extra_whitespaces=False)
    train("bpe", model_type="bpe", vocab_size=700, byte_fallback=True, split_digits=True,
          allow_whitespace_only_pieces=True, user_defined_symbols=["<|user|>", "Lily"],
          control_symbols=["<|end|>"], **raw)
    table = pathlib.Path("pieces/rules.tsv")
    table.write_text(rules(texts))
    train("unigram", model_type="unigram", vocab_size=600, user_defined_symbols=["▁once upon", "<x>"], pad_id=3,
          normalization_rule_tsv=str(table))
    table.unlink()
    train("plain", model_type="unigram", vocab_size=600, byte_fallback=True, add_dummy_prefix=False, **raw)
    out = {"texts": texts, "models": {}}
    for path in sorted((HERE / "pieces").glob("*.model")):
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        said = {"ids": [model.encode(x) for x in texts], "decoded": [], "files": {}}
        said["decoded"] = [model.decode(ids) for ids in said["ids"]]
        for file in sorted(DATA.iterdir()):
            if file.suffix not in (".txt", ".jsonl"):
                continue
            ids, total = model.encode(file.read_text()), 0
            for token in ids:
                total = (total * 1000003 + token + 1) % 2**64
            said["files"][file.name] = {"count": len(ids), "sum": f"{total:016x}"}
        out["models"][path.name] = said
    (HERE / "pieces.json").write_text(json.dumps(out, separators=(",", ":")))


if __name__ == "__main__":
    main()
