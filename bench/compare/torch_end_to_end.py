"""The work of bench/end_to_end.cpp in PyTorch, written by hand and lean: packed q, k, v, fused attention,
fused AdamW, a key/value cache that is allocated once, the head only on the rows whose loss counts.

    torch_end_to_end.py [--size S|M|L] [--what train|generate|ppo|reward|ranked|group|all]
                        [--autocast] [--compile]

--lengths FILE takes the response lengths of the PPO iterations from end_to_end's --json FILE, so that both
engines handle the same number of tokens.
"""

import json
import time

import torch
import torch.nn.functional as F
from torch import nn

import torch_support

SIZES = {  # layers, channels, heads, vocab, context, sequences per training step
    "S": (4, 256, 8, 512, 256, 16),
    "M": (6, 384, 6, 4096, 256, 12),
    "L": (12, 768, 12, 50257, 1024, 4),
}


WHAT = ("train", "generate", "ppo", "reward", "ranked", "group", "all")


class Block(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.qkv, self.projection = nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.up, self.down = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, x, cache=None, start=0):
        b, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if cache is not None:
            keys, values = cache
            keys[:, :, start : start + t] = k
            values[:, :, start : start + t] = v
            k, v = keys[:, :, : start + t], values[:, :, : start + t]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        x = x + self.projection(y.transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Model(nn.Module):
    """GPT-2 with a tied head, and optionally a scalar head."""

    def __init__(self, size, scalar=False, context=None):
        super().__init__()
        layers, c, heads, vocab, default, _ = SIZES[size]
        context = context or default
        self.embedding, self.positions = nn.Embedding(vocab, c), nn.Embedding(context, c)
        self.blocks = nn.ModuleList(Block(c, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(c)
        self.scalar = nn.Linear(c, 1) if scalar else None
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens, caches=None, start=0):
        positions = torch.arange(start, start + tokens.shape[1])
        x = self.embedding(tokens) + self.positions(positions)
        for i, block in enumerate(self.blocks):
            x = block(x, caches[i] if caches else None, start)
        return self.norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.embedding.weight)

    def make_caches(self, sequences, capacity):
        heads, c = self.blocks[0].heads, self.embedding.embedding_dim
        shape = (2, sequences, heads, capacity, c // heads)
        return [torch.empty(shape) for _ in self.blocks]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


class Optimizer:
    """Clipping to norm 1 and fused AdamW; weight decay on matrices only."""

    def __init__(self, model, lr=3e-4, weight_decay=0.01, eps=1e-8):
        self.parameters = list(model.parameters())
        groups = [
            {"params": [p for p in self.parameters if p.dim() > 1], "weight_decay": weight_decay},
            {"params": [p for p in self.parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=lr, eps=eps, fused=True)

    def step(self):
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)


def random_tokens(vocab, *shape):
    return torch.randint(vocab, shape)


# --- training step -------------------------------------------------------------------------------


class Mode:
    """How a step is run: as it is written, under bf16 autocast, compiled."""

    def __init__(self, autocast=False, compiled=False):
        self.autocast, self.compiled = autocast, compiled

    def forward(self, function):
        function = torch.compile(function) if self.compiled else function

        def run(*arguments):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
                return function(*arguments)

        return run


def train_on(result, repeat, optimizer, forward):
    """Measures steps of training by the loss that forward() gives."""
    losses = []

    def step():
        loss = forward()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()

    result.measure(2, repeat, step)
    assert losses[-1] < losses[0], "the loss did not fall: this is not training"
    return result


def train(size, repeat, mode):
    vocab, batch, length = SIZES[size][3], SIZES[size][5], 256
    model = Model(size)
    optimizer = Optimizer(model)
    tokens, targets = random_tokens(vocab, batch, length), random_tokens(vocab, batch * length)

    def loss_of(tokens, targets):
        hidden = model(tokens)
        return F.cross_entropy(model.logits(hidden).view(-1, vocab), targets)

    forward = mode.forward(loss_of)

    result = torch_support.Result(f"train/{size}", "tokens/s", batch * length)
    result.work = {
        "parameters": count(model),
        "sequences": batch,
        "length": length,
        "predicted": targets.numel(),
    }
    return train_on(result, repeat, optimizer, lambda: forward(tokens, targets))


# --- generation ----------------------------------------------------------------------------------


@torch.inference_mode()
def sample(model, prompts, lengths, with_logprobs=False):
    """prompts (B, P), lengths: of each response -> tokens (B, P + longest), log-probs (B, longest) or
    None. Once half of the rows have ended, the others go on without them."""
    sequences, prompt = prompts.shape
    longest = max(lengths)
    tokens = torch.zeros(sequences, prompt + longest, dtype=torch.long)
    tokens[:, :prompt] = prompts
    logprobs = torch.zeros(sequences, longest) if with_logprobs else None
    caches = model.make_caches(sequences, prompt + longest)
    rows, lengths = torch.arange(sequences), torch.tensor(lengths)
    hidden = model(prompts, caches)[:, -1]
    for t in range(longest):
        logits = model.logits(hidden)
        probabilities = torch.softmax(logits, -1)
        drawn = torch.multinomial(probabilities, 1)
        tokens[rows, prompt + t] = drawn[:, 0]
        if with_logprobs:
            logprobs[rows, t] = probabilities.gather(1, drawn)[:, 0].log()
        if t + 1 == longest:
            break
        alive = lengths[rows] > t + 1
        if 2 * int(alive.sum()) <= len(rows):
            caches = [cache[:, alive].contiguous() for cache in caches]
            rows, drawn = rows[alive], drawn[alive]
        hidden = model(drawn, caches, prompt + t)[:, -1]
    return tokens, logprobs


def generate(size, batch, repeat):
    prompt, new = 32, 128
    model = Model(size).eval()
    prompts = random_tokens(SIZES[size][3], batch, prompt)
    result = torch_support.Result(f"generate/{size}/b{batch}", "tokens/s", batch * new)
    result.work = {
        "parameters": count(model),
        "sequences": batch,
        "prompt": prompt,
        "new_tokens": new,
    }
    return result.measure(1, repeat, lambda: sample(model, prompts, [new] * batch))


# --- PPO -----------------------------------------------------------------------------------------

PROMPTS, PROMPT, NEW, EPOCHS, MINIBATCH = 64, 32, 64, 4, 16
BETA, GAMMA, LAMBDA, CLIP, VALUE_COEF = 0.05, 1.0, 0.95, 0.2, 0.1


class Ppo:
    def __init__(self, size, shared):
        self.vocab = SIZES[size][3]
        self.reference, self.reward_model = Model(size), Model(size, scalar=True)
        self.policy = Model(size, scalar=shared)
        self.value_model = None if shared else Model(size, scalar=True)
        self.policy.load_state_dict(self.reference.state_dict(), strict=False)
        self.optimizers = [Optimizer(self.policy, 1e-4, 0.0, 1e-5)]
        if not shared:
            self.optimizers.append(Optimizer(self.value_model, 1e-3, 0.0, 1e-5))
        self.updates = 0

    def response_rows(self, hidden, mask):
        """Hidden states (B, T, C) of the tokens before those of the responses: (Σ R, C)."""
        return hidden[:, PROMPT - 1 : -1][mask]

    def values(self, tokens, mask, policy_rows):
        if self.value_model is None:
            return self.policy.scalar(policy_rows)[:, 0]
        rows = self.response_rows(self.value_model(tokens), mask)
        return self.value_model.scalar(rows)[:, 0]

    @torch.inference_mode()
    def evaluate(self, tokens, mask):
        """Reference log-probs and values (B, R), zero after the end."""
        rows = self.response_rows(self.reference(tokens), mask)
        targets = tokens[:, PROMPT:][mask]
        logits = self.reference.logits(rows)
        reference, values = torch.zeros(mask.shape), torch.zeros(mask.shape)
        reference[mask] = -F.cross_entropy(logits, targets, reduction="none")
        policy_rows = None
        if self.value_model is None:
            policy_rows = self.response_rows(self.policy(tokens), mask)
        values[mask] = self.values(tokens, mask, policy_rows)
        return reference, values

    @torch.inference_mode()
    def score(self, tokens, lengths):
        hidden = self.reward_model(tokens)
        last = PROMPT + torch.tensor(lengths) - 1
        return self.reward_model.scalar(hidden[torch.arange(len(lengths)), last])[:, 0]

    @torch.inference_mode()
    def advantages(self, logprobs, reference, values, scores, mask, lengths):
        rewards = -BETA * (logprobs - reference) * mask
        rewards[torch.arange(len(lengths)), torch.tensor(lengths) - 1] += scores
        advantages, running = torch.zeros_like(values), torch.zeros(len(lengths))
        for t in reversed(range(values.shape[1])):
            following = values[:, t + 1] if t + 1 < values.shape[1] else 0.0
            delta = rewards[:, t] + GAMMA * following - values[:, t]
            running = (delta + GAMMA * LAMBDA * running) * mask[:, t]
            advantages[:, t] = running
        returns = advantages + values
        valid = advantages[mask]
        advantages = (advantages - valid.mean()) / (valid.var(unbiased=False) + 1e-8).sqrt()
        return advantages, returns

    def minibatch(self, tokens, mask, old_logprobs, advantages, old_values, returns):
        longest = int(mask.sum(1).max())
        tokens, mask = tokens[:, : PROMPT + longest], mask[:, :longest]
        old_logprobs, advantages, old_values, returns = (
            x[:, :longest][mask] for x in (old_logprobs, advantages, old_values, returns)
        )
        rows = self.response_rows(self.policy(tokens), mask)
        logits = self.policy.logits(rows)
        logprobs = -F.cross_entropy(logits, tokens[:, PROMPT:][mask], reduction="none")
        values = self.values(tokens, mask, rows)
        ratio = torch.exp(logprobs - old_logprobs)
        clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
        policy_loss = torch.max(-advantages * ratio, -advantages * clipped).mean()
        near = old_values + (values - old_values).clamp(-CLIP, CLIP)
        value_loss = 0.5 * torch.max((values - returns) ** 2, (near - returns) ** 2).mean()
        (policy_loss + VALUE_COEF * value_loss).backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.updates += 1
        with torch.no_grad():  # what every trainer reports
            lse = torch.logsumexp(logits, -1)
            entropy = (lse - (torch.softmax(logits, -1) * logits).sum(-1)).mean()
            clipfrac = ((ratio - 1).abs() > CLIP).float().mean()
            approx_kl = 0.5 * ((logprobs - old_logprobs) ** 2).mean()
            return entropy.item(), clipfrac.item(), approx_kl.item()

    def iteration(self, prompts, lengths):
        """One iteration with responses of these lengths. Returns its phases, seconds."""
        clock = [time.perf_counter()]
        lap = lambda: clock.append(time.perf_counter())
        longest = max(lengths)
        mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
        tokens, logprobs = sample(self.policy, prompts, lengths, with_logprobs=True)
        lap()
        reference, values = self.evaluate(tokens, mask)
        lap()
        scores = self.score(tokens, lengths)
        lap()
        advantages, returns = self.advantages(logprobs, reference, values, scores, mask, lengths)
        data = [x.clone() for x in (tokens, mask, logprobs, advantages, values, returns)]
        for _ in range(EPOCHS):
            for part in torch.randperm(len(lengths)).split(MINIBATCH):
                self.minibatch(*(x[part] for x in data))
        lap()
        names = ("sample", "evaluate", "score", "update")
        return {name: b - a for name, a, b in zip(names, clock, clock[1:])}


def ppo(size, shared, geometric, repeat, lengths):
    """`lengths`: of each iteration, the warm-up included."""
    trainer = Ppo(size, shared)
    prompts = random_tokens(SIZES[size][3], PROMPTS, PROMPT)
    form = ("shared" if shared else "separate") + ("/geometric" if geometric else "/full")
    result = torch_support.Result(f"ppo/{size}/{form}", "s")
    steps = iter(lengths)

    def step():
        result.lengths.append(next(steps))
        result.phases.append(trainer.iteration(prompts, result.lengths[-1]))

    result.work = {"parameters": count(trainer.reference), "prompts": PROMPTS, "prompt": PROMPT}
    result.measure(1, repeat, step)
    result.work["response_tokens"] = sum(sum(each) for each in result.lengths[1:])
    result.work["updates"] = trainer.updates / (repeat + 1)
    result.work["trained_models"] = len(trainer.optimizers)
    return result


# --- reward model --------------------------------------------------------------------------------


def reward(size, repeat, mode):
    pairs, length = 16, 128
    model = Model(size, scalar=True)
    optimizer = Optimizer(model)
    tokens = random_tokens(SIZES[size][3], 2 * pairs, length)

    def loss_of(tokens):
        scores = model.scalar(model(tokens)[:, -1]).view(pairs, 2).float()
        return -F.logsigmoid(scores[:, 0] - scores[:, 1]).mean()

    forward = mode.forward(loss_of)

    result = torch_support.Result(f"reward/{size}", "pairs/s", pairs)
    result.work = {"parameters": count(model), "pairs": pairs, "length": length}
    return train_on(result, repeat, optimizer, lambda: forward(tokens))


def answered_prompts(vocab, prompts, responses, prompt, response):
    """(prompts · responses, prompt + response): a prompt's rows begin alike."""
    begin = random_tokens(vocab, prompts, prompt).repeat_interleave(responses, 0)
    return torch.cat([begin, random_tokens(vocab, prompts * responses, response)], 1)


def ranked(size, responses, repeat, mode):
    prompt, response, prompts = 128, 64, 32 // responses
    model = Model(size, scalar=True)
    optimizer = Optimizer(model)
    tokens = answered_prompts(SIZES[size][3], prompts, responses, prompt, response)
    better, worse = torch.triu_indices(responses, responses, 1)

    def loss_of(tokens):
        scores = model.scalar(model(tokens)[:, -1]).view(prompts, responses).float()
        return -F.logsigmoid(scores[:, better] - scores[:, worse]).mean()

    forward = mode.forward(loss_of)

    result = torch_support.Result(f"ranked/{size}/k{responses}", "rankings/s", prompts)
    result.work = {
        "parameters": count(model),
        "prompts": prompts,
        "responses": responses,
        "prompt": prompt,
        "response": response,
    }
    return train_on(result, repeat, optimizer, lambda: forward(tokens))


# --- an update of GRPO's shape --------------------------------------------------------------------


def group(size, repeat, mode):
    prompts, prompt, responses, response = 2, 256, 8, 128
    vocab = SIZES[size][3]
    model = Model(size, context=prompt + response)
    optimizer = Optimizer(model)
    tokens = answered_prompts(vocab, prompts, responses, prompt, response)
    advantages = torch.tensor([1.0, -1.0]).repeat(prompts * responses // 2)[:, None]
    old = torch.full((prompts * responses, response), -torch.log(torch.tensor(float(vocab))).item())

    def loss_of(tokens, old, advantages):
        logits = model.logits(model(tokens)[:, prompt - 1 : -1])
        targets = tokens[:, prompt:]
        loss = F.cross_entropy(logits.reshape(-1, vocab), targets.reshape(-1), reduction="none")
        ratio = torch.exp(-loss.float().view_as(old) - old)
        clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
        return torch.max(-advantages * ratio, -advantages * clipped).mean()

    forward = mode.forward(loss_of)

    result = torch_support.Result(f"group/{size}", "s")
    result.work = {
        "parameters": count(model),
        "prompts": prompts,
        "responses": responses,
        "prompt": prompt,
        "response": response,
        "predicted": old.numel(),
    }
    return train_on(result, repeat, optimizer, lambda: forward(tokens, old, advantages))


# -------------------------------------------------------------------------------------------------


def read_lengths(path, name, steps):
    """The lengths of `steps` iterations of a case, from end_to_end's results or, without these, the
    quantiles of the geometric distribution of mean 40, cut at the limit."""
    if path:
        with open(path) as file:
            for result in json.load(file)["results"]:
                if result["name"] == name:
                    return [[int(n) for n in each] for each in result["lengths"]]
        raise SystemExit(f"{path} has no case {name}")
    quantiles = (torch.arange(PROMPTS) + 0.5) / PROMPTS
    lengths = torch.ceil(torch.log1p(-quantiles) / torch.log(torch.tensor(1 - 1 / 40)))
    return [lengths.clamp(1, NEW).int().tolist()] * steps


def run(options):
    size, repeat, results = options.size, options.repeat, []
    mode = Mode(options.autocast, options.compile)
    wanted = lambda what: options.what == what or (
        options.what == "all" and (what != "ppo" or size != "L")
    )

    def add(name, work):
        if options.only in name:
            results.append(work())
            assert results[-1].name == name

    if wanted("train"):
        add(f"train/{size}", lambda: train(size, repeat, mode))
    if wanted("generate"):
        for batch in (1, 16, 64):
            add(f"generate/{size}/b{batch}", lambda: generate(size, batch, repeat))
    if wanted("ppo"):
        for shared, geometric in ((False, False), (False, True), (True, False)):
            form = ("shared" if shared else "separate") + ("/geometric" if geometric else "/full")
            name = f"ppo/{size}/{form}"
            steps = repeat + 1
            lengths = lambda: (
                read_lengths(options.lengths, name, steps) if geometric else [[NEW] * PROMPTS] * steps
            )
            add(name, lambda: ppo(size, shared, geometric, repeat, lengths()))
    if wanted("reward"):
        add(f"reward/{size}", lambda: reward(size, repeat, mode))
    if wanted("ranked"):
        for responses in (4, 8):
            add(f"ranked/{size}/k{responses}", lambda: ranked(size, responses, repeat, mode))
    if wanted("group"):
        add(f"group/{size}", lambda: group(size, repeat, mode))
    return results


def main():
    parser = torch_support.arguments(__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="S")
    parser.add_argument("--what", default="all", choices=WHAT)
    parser.add_argument("--compile", action="store_true", help="torch.compile steps of training")
    parser.add_argument("--autocast", action="store_true", help="bf16 autocast in steps of training")
    parser.add_argument("--lengths", default="", help="results of end_to_end with PPO lengths")
    options = parser.parse_args()
    torch_support.keep_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, size {options.size}")
    results = run(options)
    torch_support.write(options.json, torch.__version__, torch.get_num_threads(), results)


if __name__ == "__main__":
    main()
