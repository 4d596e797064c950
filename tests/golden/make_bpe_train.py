#!/usr/bin/env python3
"""Writes bpe_train.json: vocabularies that the package tokenizers trains, as sums that depend on order.

On the files of examples/data, line by line, for each way to split words; and on a text of
repetitions, in which tokens come about in several ways.
Usage: python3 make_bpe_train.py  (needs tokenizers)
"""
import json
import os
import pathlib
import random
import tempfile

os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE / "../../examples/data"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>"]


def words(family):
    bytes_by_regex = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if family == "gpt2":
        return bytes_by_regex
    if family == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_by_regex])
    pattern = LLAMA3 if family == "llama3" else LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def trained(files, family, vocab, min_frequency, all_bytes):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = words(family)
    if family == "qwen2":
        t.normalizer = normalizers.NFC()
    t.train([str(f) for f in files], trainers.BpeTrainer(
        vocab_size=vocab, min_frequency=min_frequency, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if all_bytes else []))
    model = json.loads(t.to_str())["model"]
    ids, total = model["vocab"], 0
    for left, right in model["merges"]:
        for token in (ids[left], ids[right], ids[left + right]):
            total = (total * 1000003 + token + 1) % 2**64
    return {"words": family, "vocab": vocab, "min_frequency": min_frequency, "all_bytes": all_bytes,
            "tokens": len(ids), "merges": len(model["merges"]), "sum": f"{total:016x}"}


def repetitions():
    random.seed(11)
    part = lambda: "".join(random.choice("ab-é") * random.choice([1, 1, 2, 5]) for _ in range(random.randrange(1, 12)))
    return "".join(part() + random.choice([" ", "\n", "  "]) for _ in range(600))


def main():
    files = sorted(f for f in DATA.iterdir() if f.suffix in (".txt", ".jsonl"))
    out = {"files": [f.name for f in files], "text": repetitions(), "trained": [], "of_text": []}
    for family in ("gpt2", "smollm", "llama3", "qwen2"):
        for settings in ((1000, 0, True), (6000, 2, True), (20000, 0, False)):
            out["trained"].append(trained(files, family, *settings))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(out["text"])
        file.flush()
        for vocab in (300, 400, 5000):
            out["of_text"].append(trained([file.name], "gpt2", vocab, 0, True))
    (HERE / "bpe_train.json").write_text(json.dumps(out, separators=(",", ":")))


if __name__ == "__main__":
    main()
