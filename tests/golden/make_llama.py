#!/usr/bin/env python3
"""Writes stories260k.json: logits, log-probabilities and greedy text of stories260K in float64.

An independent statement of karpathy/llama2.c's transformer in numpy, the whole sequence at once and
without a cache; it shares no code with the library. Tokens by make_tokenizer.py.
Usage: python3 make_llama.py  (needs numpy)
"""
import json
import math
import pathlib
import struct

import numpy as np

import make_tokenizer

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE / "../../examples/data"
BOS = 1


class Llama:
    """llama2.c version 0: header, then all arrays one after another."""

    def __init__(self, path):
        blob = path.read_bytes()
        dim, hidden, layers, heads, kv_heads, vocab, context = struct.unpack_from("<7i", blob)
        assert vocab > 0, "the head is tied"
        self.heads, self.kv_heads, self.size, self.layers = heads, kv_heads, dim // heads, layers
        self.context = context
        values = np.frombuffer(blob, dtype="<f4", offset=28).astype(np.float64)
        kv_dim, at = self.size * kv_heads, 0

        def take(*shape):
            nonlocal at
            at += math.prod(shape)
            return values[at - math.prod(shape):at].reshape(shape)

        self.embedding = take(vocab, dim)
        self.norm_attention = take(layers, dim)
        self.wq = take(layers, dim, dim)
        self.wk = take(layers, kv_dim, dim)
        self.wv = take(layers, kv_dim, dim)
        self.wo = take(layers, dim, dim)
        self.norm_mlp = take(layers, dim)
        self.w1 = take(layers, hidden, dim)
        self.w2 = take(layers, dim, hidden)
        self.w3 = take(layers, hidden, dim)
        self.norm_final = take(dim)
        take(2, context, self.size // 2)  # RoPE tables, computed below instead
        assert at == len(values)

    def rotate(self, x):
        """x (T, heads, size): each pair (2i, 2i+1) as a complex number turned by t · 10000^(-2i/size)."""
        steps = np.arange(x.shape[0])[:, None] * 10000.0 ** (-np.arange(0, self.size, 2) / self.size)
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * steps)[:, None, :]
        return np.stack([turned.real, turned.imag], -1).reshape(x.shape)

    def attention(self, x, layer):
        count = x.shape[0]
        q = self.rotate((x @ self.wq[layer].T).reshape(count, self.heads, self.size))
        k = self.rotate((x @ self.wk[layer].T).reshape(count, self.kv_heads, self.size))
        v = (x @ self.wv[layer].T).reshape(count, self.kv_heads, self.size)
        out = np.zeros_like(q)
        for h in range(self.heads):
            kv = h // (self.heads // self.kv_heads)
            scores = q[:, h] @ k[:, kv].T / math.sqrt(self.size)
            scores[np.triu_indices(count, 1)] = -np.inf
            p = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, h] = p / p.sum(-1, keepdims=True) @ v[:, kv]
        return out.reshape(count, -1) @ self.wo[layer].T

    def logits(self, ids):
        """(T, V) for ids (T)."""
        x = self.embedding[ids]
        for layer in range(self.layers):
            x = x + self.attention(rms_norm(x, self.norm_attention[layer]), layer)
            h = rms_norm(x, self.norm_mlp[layer])
            gate = h @ self.w1[layer].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ self.w3[layer].T)) @ self.w2[layer].T
        return rms_norm(x, self.norm_final) @ self.embedding.T

    def logprobs(self, ids):
        """log p of each id but the first, given those before."""
        z = self.logits(ids[:-1])
        z = z - z.max(-1, keepdims=True)
        logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
        return logp[np.arange(len(ids) - 1), ids[1:]]


def rms_norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight


def greedy(model, ids, count):
    """Continuation, and the least lead of a chosen logit over the next: how near a tie it came."""
    ids, lead = list(ids), math.inf
    for _ in range(count):
        z = model.logits(ids)[-1]
        order = np.argsort(-z, kind="stable")
        lead = min(lead, z[order[0]] - z[order[1]])
        ids.append(int(order[0]))
    return ids[-count:], lead


PROMPTS = [
    ("Once upon a time, there was a little girl named Lily.",
     " She loved to play outside in the park with her dog."),
    ("One day, Tom and his mom went to the", " big zoo to see the animals."),
    ("The cat was sad because", " it could not find its red ball."),
]

# From tinystories_heldout.txt.
STORIES = [
    "Once upon a time, there was a naughty boy named Tim. He liked to kick things all day. One day, "
    "he saw a big red brick.\nTim said, \"I want to kick this brick!\" So, he kicked the brick very "
    "hard. But, his foot hurt a lot. He started to cry.\nHis friend Sam came and said, \"Oh no, Tim! "
    "Don't kick bricks. That's naughty.\" Tim learned his lesson and never kicked bricks again. They "
    "played with their ball and had a happy day.",
    "Once upon a time, there was a little dinosaur. He had a big friend who would carry him. They "
    "liked to play together.\nOne day, they went for a walk. The sun was mild and warm. They saw a "
    "big tree with many leaves. The little dinosaur wanted to climb the tree.\nHis big friend "
    "carried him up to the tree. They sat on a branch and looked at the sky. The little dinosaur "
    "was so happy. They laughed and played all day. The end.",
    "One day, a boy named Tim found a hammer. He liked to hit things with it. He hit a big rock and "
    "it made a loud sound. Tim was happy.\nTim saw a cat. The cat was calm. Tim wanted to play with "
    "the cat. He hit the ground with the hammer. The cat got scared and screamed. Tim felt sad.\n"
    "Tim's mom came and took the hammer. She told Tim to be nice to the cat. Tim said sorry to the "
    "cat. The cat came back and they played together. Tim was happy and the cat was calm.",
]

if __name__ == "__main__":
    model = Llama(DATA / "stories260K.bin")
    pieces, scores = make_tokenizer.load(DATA / "tok512.bin")
    heldout = (DATA / "tinystories_heldout.txt").read_text()

    def encode(text):
        return [BOS] + make_tokenizer.encode(text.encode(), pieces, scores)

    prompts = []
    for prompt, continuation in PROMPTS:
        ids, text_ids = encode(prompt), encode(prompt + continuation)
        continued, lead = greedy(model, ids, 64)
        prompts.append({
            "prompt": prompt, "ids": ids,
            "logits": [round(x, 6) for x in model.logits(ids)[-1].tolist()],
            "text": prompt + continuation, "text_ids": text_ids,
            "text_logprob": round(float(model.logprobs(text_ids).sum()), 7),
            "greedy": continued, "greedy_least_lead": round(float(lead), 6),
            "greedy_text": make_tokenizer.decode([*ids[1:], *continued], pieces).decode(),
        })
    logprobs = []
    for story in STORIES:
        assert story in heldout
        logprobs.append(model.logprobs(encode(story)))
    golden = {
        "source": "make_llama.py, numpy float64; ids start with BOS; log-probs in nats",
        "prompts": prompts,
        "heldout": {
            "texts": STORIES,
            "tokens": [len(x) for x in logprobs],
            "nll": [round(float(-x.mean()), 8) for x in logprobs],
            "mean_nll": round(float(-np.concatenate(logprobs).mean()), 8),
        },
    }
    text = json.dumps(golden).replace(', "logits"', ',\n"logits"').replace('}, {', '},\n{')
    (HERE / "stories260k.json").write_text(text.replace('"heldout"', '\n"heldout"') + "\n")
