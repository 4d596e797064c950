#!/usr/bin/env python3
"""Writes losses.json: inputs and outputs of losses, norms, activations, AdamW, GAE and whitening.

Computed by PyTorch in float64, gradients by autograd, from the definitions and not from this
library's code. Inputs are multiples of 2^-10, so that float32 holds them exactly.
Usage: python3 make_losses.py  (needs numpy and PyTorch; made with 1.24 and 1.13)
"""
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).resolve().parent
rng = np.random.default_rng(20240607)


def grid(x):
    return torch.tensor(np.round(np.asarray(x, dtype=np.float64) * 1024) / 1024)


def normal(*shape, scale=1.0):
    return grid(rng.normal(size=shape) * scale)


def weights(n):
    return grid(rng.uniform(0.0, 0.2, size=n))


def f32(x):
    """A setting as float32 holds it."""
    return float(np.float32(x))


def numbers(x):
    if isinstance(x, torch.Tensor):
        x = x.detach().double().flatten().tolist()
    if isinstance(x, (list, tuple)):
        return [numbers(y) for y in x]
    return float(f"{x:.13g}") if isinstance(x, float) else x


def case(**fields):
    return {name: numbers(value) for name, value in fields.items()}


def policy_losses():
    cases = []
    clips = [(0.2, 0.2, 0, 0), (0.1, 0.3, 0, 0), (0.2, 0.28, 3.0, 0), (0.2, 0.2, 1.25, 0),
             (0.2, 0.2, 0, 0.5), (0.2, 0.2, 2.0, 20.0)]
    for low, high, dual, limit in clips:
        n = 24
        old = normal(n, scale=2)
        new = grid((old + normal(n, scale=0.5)).numpy()).requires_grad_()
        advantage, w = normal(n), weights(n)
        low, high = f32(low), f32(high)
        delta = new - old
        if limit:
            delta = delta.clamp(-limit, limit)
        ratio = delta.exp()
        surr1, surr2 = ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage
        if dual:  # verl core_algos.py: the minimum, and for A < 0 at least c·A
            clipped = torch.min(surr1, surr2)
            term = -torch.where(advantage < 0, torch.max(clipped, dual * advantage), clipped)
        else:
            term = -torch.min(surr1, surr2)
        loss = (w * term).sum()
        loss.backward()
        cases.append(case(
            low=low, high=high, dual=float(dual), log_ratio_limit=float(limit), logprob=new,
            old_logprob=old, advantage=advantage, weight=w, loss=loss.item(), dlogprob=new.grad,
            approx_kl=(w * delta**2 / 2).sum().item(),
            approx_kl_k3=(w * (torch.expm1(delta) - delta)).sum().item(),
            clipfrac=(w * (-surr2 > -surr1)).sum().item(), ratio=(w * ratio).sum().item()))
    return cases


def value_losses():
    cases = []
    for clip in (0.0, 0.2, 0.5):
        n = 20
        old, returns, w = normal(n), normal(n), weights(n)
        value = grid((old + normal(n, scale=0.4)).numpy()).requires_grad_()
        term = (value - returns) ** 2
        if clip:
            clip = f32(clip)
            near = torch.clamp(value, old - clip, old + clip)
            term = torch.max(term, (near - returns) ** 2)
        loss = 0.5 * (w * term).sum()
        loss.backward()
        cases.append(case(clip=clip, value=value, old_value=old, returns=returns, weight=w,
                          loss=loss.item(), dvalue=value.grad,
                          error=(w * (value - returns) ** 2).sum().item()))
    return cases


def bradley_terry(s, rank, margin, center):
    terms, squares = [], []
    for i in range(len(rank)):
        for j in range(i + 1, len(rank)):
            if rank[i] < 0 or rank[j] < 0:
                continue
            squares.append((s[i] + s[j]) ** 2)
            if rank[i] == rank[j]:
                terms.append(-0.5 * (F.logsigmoid(s[i] - s[j]) + F.logsigmoid(s[j] - s[i])))
            else:
                chosen, rejected = (i, j) if rank[i] < rank[j] else (j, i)
                terms.append(-F.logsigmoid(s[chosen] - s[rejected] - margin))
    if not terms:
        return s.sum() * 0
    return torch.stack(terms).mean() + center * torch.stack(squares).mean()


def plackett_luce(s, rank, center):
    judged = [i for i in range(len(rank)) if rank[i] >= 0]
    groups = sorted({rank[i] for i in judged})
    terms = []
    for group in groups[:-1]:
        remaining = torch.stack([s[i] for i in judged if rank[i] >= group])
        terms += [torch.logsumexp(remaining, 0) - s[i] for i in judged if rank[i] == group]
    if not terms:
        return s.sum() * 0
    return torch.stack(terms).mean() + center * torch.stack([s[i] ** 2 for i in judged]).mean()


def ranking_losses():
    prompts = [[0, 1], [1, 0], [0, 0], [2, 0, 1, 3], [0, 1, 1, 1], [1, 1, 0, 0, 2], [0, -1, 1],
               [-1, 0], [], [3, 3, 3], [5, 1, -1, 9, 1, 0]]
    offsets = [0]
    for rank in prompts:
        offsets.append(offsets[-1] + len(rank))
    cases = []
    for kind, margin, center in [("BradleyTerry", 0, 0), ("BradleyTerry", 0.5, 0.01),
                                 ("PlackettLuce", 0, 0), ("PlackettLuce", 0, 0.01)]:
        score, w = normal(offsets[-1], scale=2).requires_grad_(), weights(len(prompts))
        center = f32(center)
        loss = torch.zeros((), dtype=torch.float64)
        for p, rank in enumerate(prompts):
            s = score[offsets[p]:offsets[p + 1]]
            term = bradley_terry(s, rank, margin, center) if kind == "BradleyTerry" else \
                plackett_luce(s, rank, center)
            loss = loss + w[p] * term
        loss.backward()
        cases.append(case(kind=kind, margin=float(margin), center=center, score=score,
                          rank=sum(prompts, []), offsets=offsets, weight=w, loss=loss.item(),
                          dscore=score.grad))
    return cases


def heads():
    cases = []
    for n, c, v, scale in [(5, 6, 11, 1.0), (4, 9, 40, 1.25), (3, 260, 5, 0.5)]:
        x = normal(n, c).requires_grad_()
        w = normal(v, c, scale=1.5 / math.sqrt(c)).requires_grad_()
        targets = rng.integers(0, v, size=n)
        dlogprob, dentropy = normal(n), normal(n)
        z = scale * x @ w.T
        logp = torch.log_softmax(z, -1)
        entropy = -(logp.exp() * logp).sum(-1)
        logprob = logp[torch.arange(n), torch.tensor(targets)]
        (dlogprob @ logprob + dentropy @ entropy).backward()
        x_q = normal(n, c)
        kl = F.kl_div(torch.log_softmax(scale * x_q @ w.T, -1), logp, reduction="none",
                      log_target=True).sum(-1)
        cases.append(case(
            n=n, c=c, v=v, inverse_temperature=scale, x=x, w=w, targets=targets.tolist(),
            dlogprob=dlogprob, dentropy=dentropy, logprob=logprob, entropy=entropy,
            cross_entropy=F.cross_entropy(z, torch.tensor(targets)).item(), dx=x.grad, dw=w.grad,
            x_q=x_q, kl=kl))
    return cases


def gae():
    """A_t = Σ_l (γλ)^l δ_{t+l} by its definition, sequence by sequence; V after the last is 0."""
    cases = []
    lengths = [1, 4, 9, 2]
    for gamma, lam in [(1.0, 0.95), (1.0, 1.0), (0.99, 0.9), (1.0, 0.0)]:
        rewards, values = normal(sum(lengths)), normal(sum(lengths))
        advantages, start = [], 0
        for length in lengths:
            r = rewards[start:start + length].tolist()
            v = values[start:start + length].tolist() + [0.0]
            delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
            advantages += [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, length))
                           for t in range(length)]
            start += length
        advantages = torch.tensor(advantages, dtype=torch.float64)
        cases.append(case(gamma=gamma, lam=lam, lengths=lengths, rewards=rewards, values=values,
                          advantages=advantages, returns=advantages + values))
    return cases


def whitening():
    """(x - mean) / sqrt(var + 1e-8), + mean unless shift_mean; population or unbiased variance."""
    cases = []
    for unbiased in (False, True):
        for shift_mean in (True, False):
            x = normal(13, scale=3) + 1
            white = (x - x.mean()) * torch.rsqrt(x.var(unbiased=unbiased) + 1e-8)
            cases.append(case(unbiased=unbiased, shift_mean=shift_mean, x=x,
                              white=white if shift_mean else white + x.mean()))
    return cases


def kl_estimators():
    logprob, reference = normal(12, scale=2), normal(12, scale=2)
    x = logprob - reference
    return case(logprob=logprob, reference=reference, k1=x, k2=x**2 / 2, k3=torch.expm1(-x) + x)


def adamw():
    cases = []
    n, steps = 10, 6
    for style, eps, decay in [("PyTorch", 1e-8, 0.0), ("PyTorch", 1e-5, 0.1),
                              ("TensorFlow", 1e-5, 0.0)]:
        lr, beta1, beta2, eps, decay = (f32(x) for x in (0.01, 0.9, 0.999, eps, decay))
        start, grads = normal(n), [normal(n, scale=0.01 * 4**k) for k in range(steps)]
        after = []
        if style == "PyTorch":
            p = start.clone().requires_grad_()
            optimizer = torch.optim.AdamW([p], lr, (beta1, beta2), eps, decay)
            for grad in grads:
                p.grad = grad.clone()
                optimizer.step()
                after.append(p.detach().clone())
        else:  # tf.train.AdamOptimizer: lr_t = lr √(1-β2^t)/(1-β1^t); p -= lr_t m/(√v + eps)
            p, m, v = start.clone(), torch.zeros(n).double(), torch.zeros(n).double()
            for t, grad in enumerate(grads, 1):
                m = beta1 * m + (1 - beta1) * grad
                v = beta2 * v + (1 - beta2) * grad * grad
                lr_t = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
                p = p - lr_t * m / (v.sqrt() + eps)
                after.append(p.clone())
        cases.append(case(style=style, lr=lr, beta1=beta1, beta2=beta2, eps=eps,
                          weight_decay=decay, start=start, grads=grads, after=after))
    return cases


def activations():
    x, dy = grid(np.linspace(-6, 6, 41)).requires_grad_(), normal(41)
    y = F.gelu(x, approximate="tanh")
    y.backward(dy)
    gelu = case(x=x, dy=dy, y=y, dx=x.grad)
    gate, up = normal(30, scale=2).requires_grad_(), normal(30).requires_grad_()
    dy = normal(30)
    y = F.silu(gate) * up
    y.backward(dy)
    return gelu, case(gate=gate, up=up, dy=dy, y=y, dgate=gate.grad, dup=up.grad)


def norms():
    n, c, eps = 4, 37, f32(1e-5)
    x, weight, bias, dy = normal(n, c, scale=2), normal(c), normal(c), normal(n, c)
    for t in (x, weight, bias):
        t.requires_grad_()
    y = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight
    y.backward(dy)
    rms = case(n=n, c=c, eps=eps, x=x, weight=weight, dy=dy, y=y, dx=x.grad, dweight=weight.grad)
    x.grad = weight.grad = None
    y = F.layer_norm(x, (c,), weight, bias, eps)
    y.backward(dy)
    return rms, case(n=n, c=c, eps=eps, x=x, weight=weight, bias=bias, dy=dy, y=y, dx=x.grad,
                     dweight=weight.grad, dbias=bias.grad)


if __name__ == "__main__":
    gelu, swiglu = activations()
    rms_norm, layer_norm = norms()
    golden = {
        "source": f"make_losses.py, PyTorch {torch.__version__}, float64",
        "ppo_policy_loss": policy_losses(), "ppo_value_loss": value_losses(),
        "ranking_loss": ranking_losses(), "head": heads(), "gae": gae(), "whitening": whitening(),
        "kl_estimators": kl_estimators(), "adamw": adamw(), "gelu": gelu, "swiglu": swiglu,
        "rms_norm": rms_norm, "layer_norm": layer_norm,
    }
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in golden.items()]
    (HERE / "losses.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
