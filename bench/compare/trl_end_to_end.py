"""Steps of training by TRL's own trainers, on the work of bench/end_to_end.cpp: supervised fine-tuning and a
reward model on pairs, without gradient checkpointing, a step from its first forward to its last update.

    trl_end_to_end.py [--size S|M|L] [--what train|reward] [--autocast]
"""

import logging
import tempfile
import time
import warnings

import datasets
import tokenizers
import torch
import transformers
import trl

import torch_support
from torch_end_to_end import SIZES


def model_of(size, kind):
    layers, c, heads, vocab, context, _ = SIZES[size]
    config = transformers.GPT2Config(
        vocab_size=vocab,
        n_positions=context,
        n_embd=c,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        num_labels=1,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = kind(config)
    if hasattr(model, "score"):
        model.score = torch.nn.Linear(c, 1)  # with a bias, as ours
    return model


def tokenizer_of(size):
    """Of as many tokens as the model has; the data is tokens already."""
    vocab = {str(i): i for i in range(SIZES[size][3])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="0"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="0", eos_token="0", bos_token="0", unk_token="0"
    )


class Clock(transformers.TrainerCallback):
    """Seconds of each step, and of the processor in it."""

    def __init__(self):
        self.steps = []

    def on_step_begin(self, *_, **__):
        self.begin = time.perf_counter(), time.process_time()

    def on_step_end(self, *_, **__):
        seconds = time.perf_counter() - self.begin[0]
        self.steps.append((seconds, (time.process_time() - self.begin[1]) / seconds))


def settings(kind, sequences, repeat, autocast, directory, **more):
    return kind(
        output_dir=directory,
        per_device_train_batch_size=sequences,
        max_steps=2 + repeat,
        learning_rate=3e-4,
        weight_decay=0.01,
        max_grad_norm=1.0,
        bf16=autocast,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **more,
    )


def measured(result, trainer, amount, repeat):
    clock = Clock()
    trainer.add_callback(clock)
    torch_support.reset_resident_peak()
    trainer.train()
    for seconds, busy in clock.steps[-repeat:]:
        result.samples.append(amount / seconds)
        result.busy.append(busy)
    result.resident = torch_support.resident_peak()
    result.show()
    return result


def random_rows(vocab, rows, length):
    return torch.randint(1, vocab, (rows, length)).tolist()


def train(size, repeat, autocast, directory):
    vocab, batch, length = SIZES[size][3], SIZES[size][5], 256
    model = model_of(size, transformers.GPT2LMHeadModel)
    rows = random_rows(vocab, batch * (2 + repeat), length)
    trainer = trl.SFTTrainer(
        model=model,
        args=settings(trl.SFTConfig, batch, repeat, autocast, directory, max_length=length),
        train_dataset=datasets.Dataset.from_dict({"input_ids": rows}),
        processing_class=tokenizer_of(size),
    )
    result = torch_support.Result(f"train/{size}", "tokens/s", batch * length)
    result.work = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "sequences": batch,
        "length": length,
        "predicted": batch * length,
    }
    return measured(result, trainer, batch * length, repeat)


def reward(size, repeat, autocast, directory):
    vocab, pairs, length = SIZES[size][3], 16, 128
    model = model_of(size, transformers.GPT2ForSequenceClassification)
    rows = {name: random_rows(vocab, pairs * (2 + repeat), length) for name in ("chosen_ids", "rejected_ids")}
    trainer = trl.RewardTrainer(
        model=model,
        args=settings(trl.RewardConfig, pairs, repeat, autocast, directory, max_length=length),
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=tokenizer_of(size),
    )
    result = torch_support.Result(f"reward/{size}", "pairs/s", pairs)
    result.work = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "pairs": pairs,
        "length": length,
    }
    return measured(result, trainer, pairs, repeat)


def main():
    parser = torch_support.arguments(__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="S")
    parser.add_argument("--what", default="train", choices=("train", "reward"))
    parser.add_argument("--autocast", action="store_true", help="bf16 autocast")
    options = parser.parse_args()
    torch_support.keep_memory()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    work = {"train": train, "reward": reward}[options.what]
    with tempfile.TemporaryDirectory() as directory:
        result = work(options.size, options.repeat, options.autocast, directory)
    torch_support.write(options.json, trl.__version__, torch.get_num_threads(), [result], "trl")


if __name__ == "__main__":
    main()
