#!/usr/bin/env python3
"""Trains small SentencePiece models (pieces/) and writes pieces.json: the original's ids and texts.

The same pieces as tokenizer.json, as Llama 2, Llama 2 of later transformers, and T5 have them, with
the package tokenizers' ids.

The unigram model's rules of normalisation are those of nmt_nfkc for the characters of the texts,
since all of them would take a quarter of a megabyte.
Usage: python3 make_pieces.py  (needs sentencepiece and tokenizers)
"""
import itertools
import json
import os
import pathlib
import random

import sentencepiece
import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers

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


def rules_of(path):
    """The compiled rules in a model file: field 2 of field 3, by a look at the wire format."""
    def fields(data):
        at = 0
        def number():
            nonlocal at
            value = shift = 0
            while True:
                byte = data[at]
                at += 1
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    return value
        while at < len(data):
            key = number()
            size = {0: 0, 1: 8, 5: 4}.get(key & 7)
            if size is None:
                size = number()
            if key & 7 == 0:
                yield key >> 3, number()
            else:
                yield key >> 3, data[at:at + size]
                at += size
    normalizer = dict(fields(path.read_bytes()))[3]
    return dict(fields(normalizer))[2]


def as_bpe(model, later):
    pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for i, piece in enumerate(pieces):
        if model.is_control(i) or model.is_byte(i) or model.is_unknown(i):
            continue
        cuts = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        cuts = [(a, b) for a, b in cuts if a in ids and b in ids]
        merges += [(-model.get_score(i), ids[a], ids[b], a, b) for a, b in cuts]
    t = tokenizers.Tokenizer(tokenizers.models.BPE(
        ids, [(a, b) for *_, a, b in sorted(merges)], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if later:
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    return t


def as_unigram(model, charsmap, later):
    scores = [(model.id_to_piece(i), model.get_score(i)) for i in range(model.vocab_size())]
    t = tokenizers.Tokenizer(tokenizers.models.Unigram(scores, model.unk_id(), False))
    if later:
        t.normalizer = normalizers.Sequence([
            normalizers.Precompiled(charsmap), normalizers.Strip(False, True),
            normalizers.Replace(tokenizers.Regex(" {2,}"), "▁")])
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    else:
        t.normalizer = normalizers.Precompiled(charsmap)
        t.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    t.decoder = decoders.Metaspace()
    t.add_special_tokens(["<s>", "</s>", "<unk>", "<pad>"])
    return t


def as_json(texts):
    """The same pieces in Hugging Face's form, and their ids."""
    load = lambda name: sentencepiece.SentencePieceProcessor(model_file=f"pieces/{name}.model")
    charsmap = rules_of(HERE / "pieces/unigram.model")
    out = {}
    for name, t in (("llama", as_bpe(load("bpe"), False)), ("llama-later", as_bpe(load("bpe"), True)),
                    ("t5", as_unigram(load("unigram"), charsmap, False)),
                    ("t5-later", as_unigram(load("unigram"), charsmap, True))):
        pathlib.Path(f"pieces/{name}.json").write_text(t.to_str())
        # What reads as a special token is one to the package, and a user's letters to Plumb.
        special = lambda x: any(s in x for s in ("<s>", "</s>", "<unk>", "<pad>"))
        out[f"{name}.json"] = {"ids": [None if special(x) else t.encode(x, add_special_tokens=False).ids
                                       for x in texts]}
        files = out[f"{name}.json"]["files"] = {}
        for file in sorted(DATA.iterdir()):
            if file.suffix in (".txt", ".jsonl"):
                files[file.name] = summed(t.encode(file.read_text(), add_special_tokens=False).ids)
    return out


def summed(ids):
    """How many ids there are, and a sum that depends on their order."""
    total = 0
    for token in ids:
        total = (total * 1000003 + token + 1) % 2**64
    return {"count": len(ids), "sum": f"{total:016x}"}


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
            said["files"][file.name] = summed(model.encode(file.read_text()))
        out["models"][path.name] = said
    out["json"] = as_json(texts)
    (HERE / "pieces.json").write_text(json.dumps(out, separators=(",", ":")))


if __name__ == "__main__":
    main()
