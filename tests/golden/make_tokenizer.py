#!/usr/bin/env python3
"""Writes tokenizer_stories260k.json: strings and the ids that llama2.c gives them.

An independent statement of karpathy/llama2.c run.c encode() and decode(), by the naive rescan of all
adjacent pairs after every merge. It shares no code or data structure with the library.
Usage: python3 make_tokenizer.py  (needs only the standard library)
"""
import json
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
VOCAB = 512


def load(path):
    blob = path.read_bytes()
    at = 4  # skips max_token_length
    pieces, scores = [], []
    for _ in range(VOCAB):
        score, length = struct.unpack_from("<fi", blob, at)
        pieces.append(blob[at + 8 : at + 8 + length])
        scores.append(score)
        at += 8 + length
    assert at == len(blob)
    return pieces, scores


def encode(text, pieces, scores):
    index = {piece: i for i, piece in enumerate(pieces)}
    ids = [index[b" "]] if text else []
    at = 0
    while at < len(text):
        end = at + 1
        while end < len(text) and text[end] & 0xC0 == 0x80 and end - at < 4:
            end += 1
        char = text[at:end]
        ids += [index[char]] if char in index else [byte + 3 for byte in char]
        at = end
    while True:
        best = (-1e10, None, None)
        for i in range(len(ids) - 1):
            merged = index.get(pieces[ids[i]] + pieces[ids[i + 1]])
            if merged is not None and scores[merged] > best[0]:
                best = (scores[merged], i, merged)
        if best[1] is None:
            return ids
        ids[best[1] : best[1] + 2] = [best[2]]


def decode(ids, pieces):
    """What run.c prints for `ids` after a BOS."""
    out, previous = b"", 1
    for token in ids:
        piece = pieces[token]
        if previous == 1 and piece.startswith(b" "):
            piece = piece[1:]
        if len(piece) == 6 and piece.startswith(b"<0x") and piece.endswith(b">"):
            piece = bytes([int(piece[3:5], 16)])
        out += piece
        previous = token
    return out


STRINGS = [
    "", " ", "  ", "   a", "a", "Z", "\n", "\n\n", "\t", "Once upon a time",
    "Once upon a time, there was a little girl named Lily.",
    " Once upon a time", "once upon a time ", "the the the", "thethethe", "aaaaaaaaaaaaaaaaa",
    "Hello, world!", "I don't know; \"what?\" she said.", "1234567890", "3.14159 + 2 = 5.14159",
    "The cat\nsat on\n\nthe mat.\n", "tab\there", "MiXeD CaSe WoRdS", "supercalifragilisticexpialidocious",
    "caf\u00e9 na\u00efve", "\u00fcber", "\u65e5\u672c\u8a9e", "\u0440\u0443\u0441\u0441\u043a\u0438\u0439",
    "\U0001f600", "smile \U0001f600\U0001f680 end", "\u201cquoted\u201d \u2018single\u2019",
    "dash \u2014 and \u2013", "ellipsis\u2026", "trade\u2122", "\u200a", "e\u0301", "<s>", "</s>", "<unk>",
    "\n<s>\n", "<0x0A>", "<0x41>b", "[x]~{y}", "a  b   c    d", "!!!???...", "https://example.com/a?b=c&d=e",
    "\u0001\u007f", "She was so happy. They went home and had a big dinner with Mom and Dad. The end.",
    "He said, \"Wow! That's a big, red ball.\" Then he ran away to the park with his dog, Max.",
]

if __name__ == "__main__":
    pieces, scores = load(HERE / "../../examples/data/tok512.bin")
    story = (HERE / "../../examples/data/tinystories_heldout.txt").read_text().split("\n<|endoftext|>\n")[0]
    cases = []
    for text in STRINGS + [story]:
        ids = encode(text.encode(), pieces, scores)
        # Decoded bytes as a list, since a decoded piece need not be UTF-8 by itself.
        cases.append({"text": text, "ids": ids, "decoded": list(decode(ids, pieces))})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "tokenizer_stories260k.json").write_text("[\n" + lines + "\n]\n")
    print(len(cases), "cases")
