#!/usr/bin/env python3
"""Golden numbers of the methods without a critic, and of those that learn from rankings directly: advantages, losses
and gradients by PyTorch in double precision.

    python3 tests/golden/make_methods.py > tests/golden/methods.json

Needs torch. Written from the formulas of the papers named in rlhf/group.hpp and rlhf/preference.hpp, response by response, without a look at
the engine: gradients are autograd's.
"""

import json

import torch

torch.set_default_dtype(torch.float64)
torch.manual_seed(7)
LENGTHS = [[3, 5, 1, 4], [6, 2, 7, 3]]  # of the responses to each of two prompts
LONGEST = 8
SCORES = [[1.0, 0.0, 0.25, -0.5], [2.0, 2.5, 1.0, 2.0]]


def rounded(x):
    """What a float of 32 bits holds, so that both sides begin with the same numbers."""
    return x.to(torch.float32).to(torch.float64)


def draw():
    old = [[rounded(-torch.rand(n) * 3 - 0.05) for n in group] for group in LENGTHS]
    ref = [[rounded(x + 0.3 * torch.randn(len(x))) for x in group] for group in old]
    new = [[rounded(x + 0.25 * torch.randn(len(x))).requires_grad_() for x in group] for group in old]
    return old, ref, new


def k(kind, lp, ref):
    x = lp - ref
    return {"k1": x, "k2": x**2 / 2, "k3": torch.exp(-x) - 1 + x}[kind]


def clipped(ratio, a, low, high):
    return torch.maximum(-a * ratio, -a * torch.clamp(ratio, 1 - low, 1 + high))


def group_std(s, unbiased=True):
    return (s - s.mean()) / (s.std(unbiased=unbiased) + 1e-4)


def whole(per_response):
    return [[torch.full((n,), float(a)) for n, a in zip(ns, group)] for ns, group in zip(LENGTHS, per_response)]


def whitened(advantages):
    flat = torch.cat([a for group in advantages for a in group])
    inverse = 1 / torch.sqrt(flat.var(unbiased=False) + 1e-8)
    return [[(a - flat.mean()) * inverse for a in group] for group in advantages]


def method(name, old, ref, new):
    """Advantages of each token, and the loss."""
    scores = [torch.tensor(s) for s in SCORES]
    responses = sum(len(group) for group in LENGTHS)
    tokens = sum(sum(group) for group in LENGTHS)
    beta = {"grpo": 0.04, "rloo": 0.05, "reinforce++": 0.01, "reinforce++-baseline": 0.01}.get(name, 0.0)
    if name in ("grpo", "dapo", "gspo", "cispo"):
        advantages = whole([group_std(s) for s in scores])
    elif name == "dr-grpo":
        advantages = whole([s - s.mean() for s in scores])
    elif name == "rloo":
        total = [s - beta * torch.stack([k("k1", o, r).sum() for o, r in zip(os, rs)])
                 for s, os, rs in zip(scores, old, ref)]
        advantages = whole([t - (t.sum() - t) / (len(t) - 1) for t in total])
    elif name == "reinforce++":
        advantages = []
        for s, os, rs in zip(scores, old, ref):
            group = []
            for score, o, r in zip(s, os, rs):
                reward = -beta * k("k1", o, r)
                reward[-1] += score
                group.append(reward.flip(0).cumsum(0).flip(0))
            advantages.append(group)
        advantages = whitened(advantages)
    else:
        advantages = whitened(whole([s - s.mean() for s in scores]))

    loss = torch.zeros(())
    for ns, rs, os, fs, advs in zip(new, ref, old, LENGTHS, advantages):
        for lp, r, o, n, a in zip(ns, rs, os, fs, advs):
            ratio = torch.exp(lp - o)
            if name == "grpo":
                loss = loss + (clipped(ratio, a, 0.2, 0.2) + beta * k("k3", lp, r)).sum() / n / responses
            elif name == "dr-grpo":
                loss = loss + clipped(ratio, a, 0.2, 0.2).sum() / LONGEST / responses
            elif name == "rloo":
                loss = loss + clipped(torch.exp((lp - o).sum()), a[0], 0.2, 0.2) / responses
            elif name == "gspo":
                loss = loss + clipped(torch.exp((lp - o).mean()), a[0], 3e-4, 4e-4) / responses
            elif name == "dapo":
                loss = loss + clipped(ratio, a, 0.2, 0.28).sum() / tokens
            elif name == "cispo":
                weight = torch.clamp(ratio.detach(), 0.0, 5.0)
                loss = loss - (weight * a * lp).sum() / tokens
            elif name == "reinforce++":
                loss = loss + clipped(ratio, a, 0.2, 0.2).sum() / tokens
            else:
                loss = loss + (clipped(ratio, a, 0.2, 0.2) + beta * k("k2", lp, r)).sum() / tokens
    return advantages, loss


# --- from rankings ---------------------------------------------------------------------------------

RANKS = [[1, 0, 2, 1], [0, -1, 1, 1]]  # of the same responses: ties, and one that nobody judged
LS = torch.nn.functional.logsigmoid


def pair(name, d, margin, e):
    if name == "ipo":
        return (d - margin) ** 2
    if name == "hinge":
        return torch.clamp(margin - d, min=0)
    if name == "robust":
        return (-(1 - e) * LS(d) + e * LS(-d)) / (1 - 2 * e)
    if name == "conservative":
        return -(1 - e) * LS(d) - e * LS(-d)
    return -LS(d - margin)


def tie(name, d):
    if name == "ipo":
        return d**2
    if name == "hinge":
        return d.abs() / 2
    return -(LS(d) + LS(-d)) / 2


def preference(name, new, ref, beta, margin=0.0, e=0.0):
    """The mean over prompts, and each score."""
    loss = torch.zeros(())
    scores = []
    for ns, rs, ranks in zip(new, ref, RANKS):
        if name == "simpo":
            s = [beta * x.mean() for x in ns]
        elif name == "orpo":
            s = [x.mean() - torch.log(1 - torch.exp(x.mean())) for x in ns]
        elif name == "ipo":
            s = [x.sum() - r.sum() for x, r in zip(ns, rs)]
        else:
            s = [beta * (x.sum() - r.sum()) for x, r in zip(ns, rs)]
        scores.append(s)
        terms = []
        if name == "pl":  # each but the last group chooses among what is left; ties by Breslow
            last = max(ranks)
            for i, rank in enumerate(ranks):
                if 0 <= rank < last:
                    left = torch.stack([s[j] for j, other in enumerate(ranks) if other >= rank])
                    terms.append(torch.logsumexp(left, 0) - s[i])
        else:
            for i in range(len(ranks)):
                for j in range(i):
                    if ranks[i] < 0 or ranks[j] < 0:
                        continue
                    if ranks[i] == ranks[j]:
                        terms.append(tie(name, s[i] - s[j]))
                    else:
                        d = s[i] - s[j] if ranks[i] < ranks[j] else s[j] - s[i]
                        terms.append(pair(name, d, margin, e))
        mean = torch.stack(terms).mean()
        if name == "orpo":
            best = torch.stack([x.mean() for x, rank in zip(ns, ranks) if rank == 0])
            mean = beta * mean - best.mean()
        loss = loss + mean / len(RANKS)
    return loss


def kto(new, ref, beta, z, wanted, unwanted):
    loss = torch.zeros(())
    for ns, rs, ranks in zip(new, ref, RANKS):
        last = max(ranks)
        terms = []
        for x, r, rank in zip(ns, rs, ranks):
            s = beta * (x.sum() - r.sum())
            if rank == 0:
                terms.append(wanted * (1 - torch.sigmoid(s - z)))
            elif rank == last:
                terms.append(unwanted * (1 - torch.sigmoid(z - s)))
        loss = loss + torch.stack(terms).mean() / len(RANKS)
    return loss


def flat(groups):
    return [x.tolist() for group in groups for x in group]


def main():
    old, ref, new = draw()
    out = {"longest": LONGEST, "scores": SCORES, "old": flat(old), "ref": flat(ref),
           "new": flat([[x.detach() for x in group] for group in new]), "methods": {}}
    names = ["grpo", "dr-grpo", "rloo", "reinforce++", "reinforce++-baseline", "dapo", "gspo", "cispo"]
    for name in names:
        for group in new:
            for x in group:
                x.grad = None
        advantages, loss = method(name, old, ref, new)
        loss.backward()
        out["methods"][name] = {"advantages": flat(advantages), "loss": loss.item(),
                                "gradient": flat([[x.grad for x in group] for group in new])}
    out["ranks"], out["kto_reference"], out["preferences"] = RANKS, 0.07, {}
    preferences = {
        "dpo": lambda: preference("dpo", new, ref, 0.1),
        "conservative": lambda: preference("conservative", new, ref, 0.1, e=0.125),
        "robust": lambda: preference("robust", new, ref, 0.1, e=0.125),
        "ipo": lambda: preference("ipo", new, ref, 0.25, margin=1 / (2 * 0.25)),
        "hinge": lambda: preference("hinge", new, ref, 0.1, margin=1.0),
        "simpo": lambda: preference("simpo", new, ref, 2.0, margin=0.5),
        "orpo": lambda: preference("orpo", new, ref, 0.25),
        "pl": lambda: preference("pl", new, ref, 0.1),
        "kto": lambda: kto(new, ref, 0.1, 0.07, 1.0, 1.5),
    }
    for name, compute in preferences.items():
        for group in new:
            for x in group:
                x.grad = torch.zeros_like(x)
        loss = compute()
        loss.backward()
        out["preferences"][name] = {"loss": loss.item(), "gradient": flat([[x.grad for x in group] for group in new])}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
