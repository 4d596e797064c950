#!/usr/bin/env python3
"""Writes reward_head.json: linear heads fitted by SciPy, to which rlhf/reward_head.hpp is held.

Objective: mean over prompts of the prompt's loss + penalty/2 |w|^2, on features of mean 0 and deviation
1/sqrt(F) and a log-length of deviation 1. Minimised by SciPy's trust-exact with the Hessian written out.
Needs numpy and scipy; the numbers were made with SciPy 1.x.

Usage: make_reward_head.py > reward_head.json
"""
import json

import numpy as np
from scipy.optimize import minimize

CHANNELS = 3


def term(kind, rank, s):
    """Loss of one prompt, its gradient and Hessian by the scores."""
    k, total, gradient, hessian, terms = len(rank), 0.0, np.zeros(len(rank)), np.zeros((len(rank),) * 2), 0.0
    if kind == "bt":
        for i in range(k):
            for j in range(i + 1, k):
                if rank[i] < 0 or rank[j] < 0:
                    continue
                a, b = (i, j) if rank[i] <= rank[j] else (j, i)
                x = s[a] - s[b]
                p = 1 / (1 + np.exp(-x))
                e = np.zeros(k)
                e[a], e[b] = 1, -1
                if rank[i] == rank[j]:
                    total += -0.5 * np.log(p) - 0.5 * np.log(1 - p)
                    gradient += (p - 0.5) * e
                else:
                    total -= np.log(p)
                    gradient += (p - 1) * e
                hessian += p * (1 - p) * np.outer(e, e)
                terms += 1
    else:
        last = max(rank)
        for i in range(k):
            if rank[i] < 0 or rank[i] == last:
                continue
            open_ = np.array([r >= rank[i] for r in rank], float)
            p = open_ * np.exp(s - s.max())
            p /= p.sum()
            total += np.log((open_ * np.exp(s)).sum()) - s[i]
            gradient += p
            gradient[i] -= 1
            hessian += np.diag(p) - np.outer(p, p)
            terms += 1
    return total / terms, gradient / terms, hessian / terms


def fit(kind, prompts, rows, penalty):
    n, width = len(prompts), rows.shape[1]

    def parts(w):
        value, gradient, hessian = penalty / 2 * w @ w, penalty * w, penalty * np.eye(width)
        for first, rank in prompts:
            x = rows[first:first + len(rank)]
            v, g, h = term(kind, rank, x @ w)
            value, gradient, hessian = value + v / n, gradient + x.T @ g / n, hessian + x.T @ h @ x / n
        return value, gradient, hessian

    found = minimize(lambda w: parts(w)[0], np.zeros(width), jac=lambda w: parts(w)[1],
                     hess=lambda w: parts(w)[2], method="trust-exact", options={"gtol": 1e-12, "maxiter": 1000})
    return found.x


def main():
    random = np.random.RandomState(5)
    ranks = [[0, 1], [2, 0, 1, 3], [0, 1, 1, 1], [1, -1, 0], [1, 0], [1, 0, 0, 2, 1], [0, 2, 1], [1, 0], [-1, 0, 1, 1]]
    prompts, count = [], 0
    for rank in ranks:
        prompts.append((count, rank))
        count += len(rank)
    features = np.float32(random.normal(size=(count, 2 * CHANNELS)) * [1, 5, 0.1, 2, 1, 30] + [0, 3, 0, -40, 1, 0])
    lengths = random.randint(0, 60, size=count)
    out = {"channels": CHANNELS, "ranks": ranks, "features": features.astype(float).ravel().tolist(),
           "lengths": lengths.tolist(), "fits": []}
    for pool, columns in (("last", slice(0, CHANNELS)), ("mean", slice(CHANNELS, None)), ("both", slice(None))):
        for kind in ("bt", "pl"):
            for length in (False, True):
                for penalty in (0.1, 0.001):
                    x = features[:, columns].astype(float)
                    x = (x - x.mean(0)) / x.std(0) / np.sqrt(x.shape[1])
                    if length:
                        log = np.log1p(lengths)
                        x = np.c_[x, (log - log.mean()) / log.std()]
                    scores = x @ fit(kind, prompts, x, penalty)
                    out["fits"].append({"pool": pool, "loss": kind, "length": length, "penalty": penalty,
                                        "scores": np.round(scores, 9).tolist()})
    text = json.dumps(out)
    print(text.replace('"fits": ', '\n"fits": ').replace('{"pool"', '\n{"pool"').replace("]}]", "]}\n]"))


if __name__ == "__main__":
    main()
