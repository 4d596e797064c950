"""The kernels of compare_kernels (kernels.cpp, kernels_ops.hpp) in PyTorch: the same shapes, names and
passes. A backward pass starts from inputs and weights without gradients, as a training step's does.

    torch_kernels.py [--what gemm|ops|all] [--threads N] [--rounds N] [--only TEXT] [--json FILE]
"""

import time

import torch
import torch.nn.functional as F

import torch_support
from torch_end_to_end import Model, count


def seconds_of(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def uniform(*shape):
    return torch.rand(shape) * 2 - 1


# --- matrix products -----------------------------------------------------------------------------


def gemm_cases():
    """Those of kernels.cpp."""
    layers = ((768, 256), (1024, 256), (256, 1024), (3072, 768), (768, 3072))
    for form in ("NN", "NT", "TN"):
        for tokens in (1, 2, 4, 8, 16, 64, 512, 2048):
            for n, k in layers:
                if form != "TN":
                    yield form, tokens, n, k
                elif tokens >= 64:
                    yield form, n, k, tokens
    for tokens in (1, 2, 4, 8, 16, 64):
        for n, k in layers:
            yield "packed", tokens, n, k  # weights as they lie: it packs none by hand
    for tokens in (1, 2, 4, 8, 16, 64, 512):
        yield "NT", tokens, 50257, 768
    for tokens in (64, 512):
        yield "NN", tokens, 768, 50257
        yield "TN", 50257, 768, tokens


def gemm_case(form, m, n, k, rounds):
    """The weights, or their gradients, rotate over 64 MiB or more; results are written in place."""
    name = f"gemm/{form}/{m}x{n}x{k}"
    rotate = lambda rows, columns: uniform(1 + 2**24 // (rows * columns), rows, columns)
    a = uniform(k, m).t() if form == "TN" else uniform(m, k)
    if form == "TN":
        b, c = uniform(1, k, n), rotate(m, n)
    else:
        b = rotate(k, n) if form == "NN" else rotate(n, k).transpose(1, 2)
        c = uniform(1, m, n)

    def calls(number, at=[0]):
        for _ in range(number):
            at[0] += 1
            left, right, out = a, b[at[0] % len(b)], c[at[0] % len(c)]
            if form == "TN":
                out.addmm_(left, right)
            else:
                torch.mm(left, right, out=out)

    calls(2)
    number = min(max(int(0.02 / seconds_of(lambda: calls(1))), 2), 20000)
    result = torch_support.Result(name, "s")
    result.work = {"flops": 2 * m * n * k}
    for _ in range(rounds):
        calls(1)
        result.samples.append(seconds_of(lambda: calls(number)) / number)
    return [result]


# --- ops -----------------------------------------------------------------------------------------


def op_case(name, work, rounds, op, inputs=(), weights=(), dy=None):
    """Forward, and forward with backward, of op(). The result's gradient is dy; None: no backward."""
    forward = torch_support.Result(name + "/forward", "s")
    both = torch_support.Result(name + "/forward+backward", "s")
    forward.work = both.work = work
    trained = [*inputs, *weights]
    for x in trained:
        x.requires_grad_(dy is not None)
    for round in range(-1, rounds):  # the first one warms up
        f = b = calls = 0
        while calls < 3 or f + b < 0.05:
            for x in trained:
                x.grad = None
            start = time.perf_counter()
            y = op()
            middle = time.perf_counter()
            f += middle - start
            if dy is not None:
                y.backward(dy)
                b += time.perf_counter() - middle
            calls += 1
        if round >= 0:
            forward.samples.append(f / calls)
            both.samples.append((f + b) / calls)
    if dy is None:
        forward.name = name
        return [forward]
    return [forward, both]


def attention(b, h, t, d, rounds):
    q, k, v, dy = (uniform(b, h, t, d) for _ in range(4))
    op = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    work = {"b": b, "h": h, "t": t, "d": d}
    return op_case(f"attention/b{b}h{h}t{t}d{d}", work, rounds, op, (q, k, v), (), dy)


def norm(layer, n, c, rounds):
    x, dy, weight, bias = uniform(n, c), uniform(n, c), uniform(c), uniform(c)
    if layer:
        op, weights = (lambda: F.layer_norm(x, (c,), weight, bias, 1e-5)), (weight, bias)
    else:
        op, weights = (lambda: F.rms_norm(x, (c,), weight, 1e-5)), (weight,)
    name = f"{'layer_norm' if layer else 'rms_norm'}/{n}x{c}"
    return op_case(name, {"n": n, "c": c}, rounds, op, (x,), weights, dy)


def gelu(n, c, rounds):
    x, dy = uniform(n, c), uniform(n, c)
    op = lambda: F.gelu(x, approximate="tanh")
    return op_case(f"gelu/{n}x{c}", {"n": n, "c": c}, rounds, op, (x,), (), dy)


def softmax(n, c, rounds):
    x, dy = uniform(n, c), uniform(n, c)
    return op_case(f"softmax/{n}x{c}", {"n": n, "c": c}, rounds, lambda: x.softmax(-1), (x,), (), dy)


def add(n, c, rounds):
    a, b = uniform(n, c), uniform(n, c)
    return op_case(f"add/{n}x{c}", {"n": n, "c": c}, rounds, lambda: a + b)


def cross_entropy(n, v, rounds):
    logits, targets = uniform(n, v), torch.randint(v, (n,))
    op = lambda: F.cross_entropy(logits, targets, reduction="none")
    return op_case(f"cross_entropy/{n}x{v}", {"n": n, "c": v}, rounds, op)


def head_cross_entropy(n, c, v, rounds):
    x, weight, targets = uniform(n, c), uniform(v, c), torch.randint(v, (n,))
    op = lambda: F.cross_entropy(F.linear(x, weight), targets)
    name, work = f"head_cross_entropy/{n}x{c}x{v}", {"n": n, "c": c, "v": v}
    return op_case(name, work, rounds, op, (x,), (weight,), torch.tensor(1.0))


def embedding(n, c, v, rounds):
    table, ids, dy = uniform(v, c), torch.randint(v, (n,)), uniform(n, c)
    op = lambda: F.embedding(ids, table)
    name, work = f"embedding/{n}x{c}x{v}", {"n": n, "c": c, "v": v}
    return op_case(name, work, rounds, op, (), (table,), dy)


def optimizer(size, step, rounds):
    """The gradient's norm, or clipping, fused AdamW and clearing the gradients."""
    model = Model(size)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters]
    adamw = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=True)

    def clip_adamw_clear():
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=False)

    name = f"{'clip_adamw_clear' if step else 'gradient_norm'}/{size}"
    op = clip_adamw_clear if step else lambda: torch.nn.utils.get_total_norm(gradients).item()
    return op_case(name, {"parameters": count(model)}, rounds, op)


def op_cases():
    """(name's beginning, the call that times it): inputs are made when its turn comes."""
    for shape in ((8, 8, 256, 32), (8, 8, 1024, 32), (4, 12, 256, 64), (4, 12, 1024, 64)):
        yield lambda rounds, shape=shape: attention(*shape, rounds)
    for layer in (False, True):
        for n, c in ((4096, 256), (1024, 768)):
            yield lambda rounds, layer=layer, n=n, c=c: norm(layer, n, c, rounds)
    for n, c in ((4096, 1024), (1024, 3072)):
        yield lambda rounds, n=n, c=c: gelu(n, c, rounds)
    yield lambda rounds: softmax(4096, 256, rounds)  # no op of its own in Plumb
    yield lambda rounds: add(3072, 768, rounds)
    for n, v in ((1024, 50257), (3072, 4096)):
        yield lambda rounds, n=n, v=v: cross_entropy(n, v, rounds)
    for n, c, v in ((4096, 256, 512), (3072, 384, 4096), (1024, 768, 50257)):
        yield lambda rounds, n=n, c=c, v=v: head_cross_entropy(n, c, v, rounds)
    yield lambda rounds: embedding(1024, 768, 50257, rounds)
    for size in ("S", "L"):
        for step in (False, True):
            yield lambda rounds, size=size, step=step: optimizer(size, step, rounds)


def show(results):
    for result in results:
        result.samples.sort()
        middle = result.samples[len(result.samples) // 2]
        flops = result.work.get("flops")
        rate = f"{flops / middle * 1e-9:8.1f} GFLOP/s" if flops else ""
        print(f"{result.name:42} {1e6 * middle:10.1f} µs  {rate}", flush=True)
    return results


def main():
    parser = torch_support.arguments(__doc__.splitlines()[0])
    parser.add_argument("--what", default="all", choices=("gemm", "ops", "all"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch_support.keep_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    results = []
    if options.what != "ops":
        for form, m, n, k in gemm_cases():
            if options.only in f"gemm/{form}/{m}x{n}x{k}":
                results += show(gemm_case(form, m, n, k, options.rounds))
    if options.what != "gemm":
        for case in op_cases():
            results += show([r for r in case(options.rounds) if options.only in r.name])
    torch_support.write(options.json, torch.__version__, torch.get_num_threads(), results)


if __name__ == "__main__":
    main()
