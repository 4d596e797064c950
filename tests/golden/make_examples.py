#!/usr/bin/env python3
"""Writes examples.json: losses of a few updates of the models of examples 11 to 14.

Computed by PyTorch in float64 from the models' definitions and not from this library's code. Weights
and inputs are made by the rule of `grid`, which tests/test_examples.cpp repeats.
Usage: python3 make_examples.py  (needs PyTorch; made with 2.15)
"""
import json
import pathlib

import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).resolve().parent


def grid(*shape, seed, scale):
    """Numbers in [-scale/2, scale/2), as float32 holds them."""
    count = torch.Size(shape).numel()
    whole = torch.tensor([(i * 7919 + seed * 104729) % 1009 for i in range(count)], dtype=torch.float64)
    return ((whole / 1009 - 0.5) * scale).float().double().reshape(shape)


def ids(count, below, seed):
    return torch.tensor([(i * 31 + i * i * 7 + seed) % below for i in range(count)])


def weights(*shapes):
    return [grid(*shape, seed=k, scale=0.5).requires_grad_() for k, shape in enumerate(shapes)]


def train(parameters, loss, optimizer, updates=5):
    losses = []
    for _ in range(updates):
        optimizer.zero_grad()
        value = loss()
        losses.append(value.item())
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return losses


def logistic():
    w, b = weights((1, 3), (1,))
    x, y = grid(20, 3, seed=7, scale=4.0), torch.sign(grid(20, 1, seed=8, scale=1.0))
    return train([w, b], lambda: F.softplus(-y * (x @ w.T + b)).mean(),
                 torch.optim.SGD([w, b], lr=0.5, momentum=0.9))


def lstm():
    hidden, steps, batch = 6, 5, 3
    table, recurrent, bias, head = weights((128, 4 * hidden), (4 * hidden, hidden), (4 * hidden,),
                                           (128, hidden))
    tokens = ids((steps + 1) * batch, 128, 3)
    cell = torch.nn.LSTMCell(128, hidden, dtype=torch.float64)

    def loss():  # PyTorch's own cell, whose gates stand in the same order: i, f, g, o
        h = c = torch.zeros(batch, hidden, dtype=torch.float64)
        total = 0
        for t in range(steps):
            one = F.one_hot(tokens[t * batch:(t + 1) * batch], 128).double()
            values = {"weight_ih": table.T, "weight_hh": recurrent, "bias_ih": bias,
                      "bias_hh": torch.zeros_like(bias)}
            h, c = torch.func.functional_call(cell, values, (one, (h, c)))
            total = total + F.cross_entropy(h @ head.T, tokens[(t + 1) * batch:(t + 2) * batch])
        return total / steps

    parameters = [table, recurrent, bias, head]
    return train(parameters, loss, torch.optim.AdamW(parameters, lr=0.05, weight_decay=0))


def convolution():
    kernel, bias, head = weights((12, 9), (12,), (10, 9 * 12))
    n = 4
    pixels, labels = grid(n * 64, seed=5, scale=2.0), ids(n, 10, 1)

    def loss():
        y = F.relu(F.conv2d(pixels.reshape(n, 1, 8, 8), kernel.reshape(12, 1, 3, 3), bias))
        y = F.max_pool2d(y, 2).permute(0, 2, 3, 1).reshape(n, -1)  # the channel last, as in rows
        return F.cross_entropy(y @ head.T, labels)

    parameters = [kernel, bias, head]
    return train(parameters, loss, torch.optim.AdamW(parameters, lr=0.05, weight_decay=0))


def two_towers():
    words, prompt, reply = weights((50, 8), (8, 8), (8, 8))
    counts = [2, 5, 1, 3]
    texts = [ids(sum(counts), 50, s).split(counts) for s in (1, 2)]
    better, worse = torch.tensor([0, 1, 3]), torch.tensor([1, 2, 2])

    def loss():
        a, b = (torch.tanh(torch.stack([words[t].mean(0) for t in text]) @ w.T)
                for text, w in zip(texts, (prompt, reply)))
        scores = (a * b).sum(1)
        return F.softplus(-(scores[better] - scores[worse])).mean()

    parameters = [words, prompt, reply]
    return train(parameters, loss, torch.optim.AdamW(parameters, lr=0.05, weight_decay=0))


models = {f.__name__: f() for f in (logistic, lstm, convolution, two_towers)}
(HERE / "examples.json").write_text(json.dumps(models, indent=1) + "\n")
