#!/usr/bin/env python3
"""Writes ratings.json: ratings fitted by SciPy, to which rlhf/ratings.hpp is held.

Votes are drawn; of each model the log-likelihood of a ranking is written out as its definition says, minimised by
SciPy's trust-exact, with derivatives by complex steps (gradient) and differences of these (Hessian). The sandwich is
H^-1 (G/(G-1) sum s s^T) H^-1 of the scores by prompt. System 0 has the rating 0. Needs numpy and scipy; the numbers
were made with SciPy 1.x.

Usage: make_ratings.py > ratings.json
"""
import json

import numpy as np
from scipy.optimize import minimize

SYSTEMS = 4


def log_likelihood(model, systems, rank, x):
    """Of one ranking; x: ratings of all systems but the first and, of davidson, log nu."""
    theta = np.concatenate([[0], x[:SYSTEMS - 1]])
    total = 0
    if model == "pl":
        judged = [k for k in range(len(rank)) if rank[k] >= 0]
        for k in judged:
            if rank[k] < max(rank):
                rest = [theta[systems[j]] for j in judged if rank[j] >= rank[k]]
                if all(systems[j] == systems[k] for j in judged if rank[j] >= rank[k]):
                    continue  # among one system's own responses nothing is said
                total = total + theta[systems[k]] - np.log(sum(np.exp(r) for r in rest))
        return total
    for i in range(len(rank)):
        for j in range(i):
            if rank[i] < 0 or rank[j] < 0 or systems[i] == systems[j]:
                continue
            a, b = np.exp(theta[systems[i]]), np.exp(theta[systems[j]])
            if model == "bt":
                first, second = np.log(a / (a + b)), np.log(b / (a + b))
                tie = (first + second) / 2
            else:
                nu = np.exp(x[SYSTEMS - 1])
                total_mass = a + b + nu * np.sqrt(a * b)
                first, second, tie = np.log(a / total_mass), np.log(b / total_mass), np.log(nu * np.sqrt(a * b) / total_mass)
            total = total + (first if rank[i] < rank[j] else second if rank[i] > rank[j] else tie)
    return total


def gradient(f, x):
    step = 1e-30
    return np.array([f(x + 1j * step * e).imag / step for e in np.eye(len(x))])


def main():
    random = np.random.default_rng(7)
    votes = []
    for prompt in range(40):
        for _ in range(int(random.integers(1, 4))):
            k = int(random.integers(2, 5))
            systems = [int(s) for s in random.integers(0, SYSTEMS, k)]
            noise = random.normal(size=k) + 0.6 * np.array(systems)
            rank = [int(r) for r in np.argsort(np.argsort(-noise))]
            if random.random() < 0.4:  # the two best are alike
                rank = [max(0, r - 1) for r in rank]
            if k > 2 and random.random() < 0.3:
                rank[int(random.integers(0, k))] = -1
            votes.append({"prompt": prompt, "systems": systems, "rank": rank})
    out = {"systems": SYSTEMS, "votes": votes, "models": {}}
    for model in ("bt", "davidson", "pl"):
        n = SYSTEMS - 1 + (model == "davidson")
        nll = lambda x: -sum(log_likelihood(model, v["systems"], v["rank"], x) for v in votes)
        slope = lambda x: gradient(nll, x)
        bend = lambda x: np.array([(slope(x + 1e-5 * e) - slope(x - 1e-5 * e)) / 2e-5 for e in np.eye(n)])
        best = minimize(nll, np.zeros(n), jac=slope, hess=bend, method="trust-exact", options={"gtol": 1e-10}).x
        for _ in range(3):
            best = best - np.linalg.solve(bend(best), slope(best))
        inverse = np.linalg.inv(bend(best))
        scores = np.zeros((40, n))
        for v in votes:
            scores[v["prompt"]] += gradient(lambda x: log_likelihood(model, v["systems"], v["rank"], x), best)
        seen = np.any(scores != 0, axis=1).sum()  # prompts that say anything
        sandwich = inverse @ (seen / (seen - 1) * scores.T @ scores) @ inverse
        out["models"][model] = {
            "rating": [0.0, *best[:SYSTEMS - 1]], "nll": nll(best), "prompts": int(seen),
            "error": [0.0, *np.sqrt(np.diag(inverse))[:SYSTEMS - 1]],
            "clustered_error": [0.0, *np.sqrt(np.diag(sandwich))[:SYSTEMS - 1]]}
        if model == "davidson":
            out["models"][model]["nu"] = float(np.exp(best[-1]))
    print(json.dumps(out, indent=None))


if __name__ == "__main__":
    main()
