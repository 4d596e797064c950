#!/usr/bin/env python3
"""Writes models/: small random models of every family, their tokenizers, and what transformers says.

Each Hugging Face folder is saved by transformers; each GGUF file is written from one with the gguf
package, its logits those of transformers with the dequantised weights. models.json holds, for each,
token ids, logits of three positions and a greedy continuation; quantized.json, for each type of
GGUF, random blocks and the gguf package's floats of them, bit for bit.
Usage: python3 make_models.py  (needs torch, transformers, tokenizers, gguf)
"""
import json
import pathlib
import shutil

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "models"
TEXT = (HERE / "../../examples/data/tinystories_heldout.txt").read_text()[:60000]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SMOLLM_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}")


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def trained(kind, size=320):
    """A byte-level BPE tokenizer of that kind, trained on a few stories."""
    t = tokenizers.Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    t.pre_tokenizer = {
        "gpt2": byte_level(True),
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
        "llama3": pre_tokenizers.Sequence([split(LLAMA3), byte_level(False)]),
        "qwen2": pre_tokenizers.Sequence([split(QWEN2), byte_level(False)]),
    }[kind]
    if kind == "qwen2":
        t.normalizer = normalizers.NFC()
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([TEXT], trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if kind == "llama3":
        t.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    return t


LLAMA = dict(vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, eos_token_id=2,
             bos_token_id=1, pad_token_id=None, initializer_range=0.3)
SCALED = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
FAMILIES = {
    "llama": ("smollm", torch.float32, lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**LLAMA, tie_word_embeddings=True, rope_theta=100000.0))),
    "llama3": ("llama3", torch.bfloat16, lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**LLAMA, tie_word_embeddings=False, attention_bias=True, mlp_bias=True,
                                 rope_parameters=SCALED))),
    "linear": ("gpt2", torch.float16, lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**LLAMA, tie_word_embeddings=True,
                                 rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)))),
    "qwen2": ("qwen2", torch.float32, lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**LLAMA, tie_word_embeddings=True))),
    "gpt2": ("gpt2", torch.float16, lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=320, n_positions=128, n_embd=32, n_layer=2, n_head=4,
                                eos_token_id=0, bos_token_id=0, initializer_range=0.3))),
}


def statement(model, ids):
    """What the model says after these ids."""
    model = model.to(torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double().numpy()
        greedy = list(ids)
        for _ in range(24):
            greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
    at = [0, len(ids) // 2, len(ids) - 1]
    return {"ids": ids, "at": at, "logits": [[float(f"{x:.8g}") for x in logits[i]] for i in at],
            "greedy": greedy[len(ids):]}


def set_random(model):
    """Biases and norms, too, which fresh models have at 0 and 1."""
    for name, weight in model.named_parameters():
        if name.endswith("bias") or "norm" in name or "ln_" in name:
            with torch.no_grad():
                weight.add_(torch.randn_like(weight) * 0.1)


def turned(weight, heads):
    """Rows of q or k as ggml's llama has them: rotary pairs side by side."""
    w = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return w.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, architecture, model, tokenizer, pre, types):
    """Writes the model with these types in turn; returns it with the weights as they come back."""
    c = model.config
    w = gguf.GGUFWriter(path, architecture)
    gpt2 = architecture == "gpt2"
    w.add_context_length(c.n_positions if gpt2 else c.max_position_embeddings)
    w.add_embedding_length(c.n_embd if gpt2 else c.hidden_size)
    w.add_block_count(c.n_layer if gpt2 else c.num_hidden_layers)
    w.add_feed_forward_length(4 * c.n_embd if gpt2 else c.intermediate_size)
    w.add_head_count(c.n_head if gpt2 else c.num_attention_heads)
    if gpt2:
        w.add_layer_norm_eps(c.layer_norm_epsilon)
    else:
        w.add_head_count_kv(c.num_key_value_heads)
        w.add_layer_norm_rms_eps(c.rms_norm_eps)
        w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    vocab = tokenizer.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types([3 if t in SPECIAL else 1 for t in tokens])
    w.add_token_merges([" ".join(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]])
    w.add_eos_token_id(2)
    w.add_add_bos_token(False)
    if architecture == "llama":
        w.add_chat_template(SMOLLM_TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], 2)
    state, number = model.state_dict(), 0
    for name, weight in list(state.items()):
        if name == "lm_head.weight" and (gpt2 or c.tie_word_embeddings):
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        data = weight.detach().to(torch.float32).numpy()
        conv = gpt2 and data.ndim == 2 and ".h." in name
        if conv:
            data = data.T
        heads = {"q_proj": LLAMA["num_attention_heads"], "k_proj": LLAMA["num_key_value_heads"]}
        turn = next((n for part, n in heads.items() if part in name), 0) if architecture == "llama" else 0
        if turn:
            data = turned(data, turn)
        data = np.ascontiguousarray(data)
        kind = types[number % len(types)] if data.ndim == 2 else gguf.GGMLQuantizationType.F32
        number += data.ndim == 2
        packed = gguf.quants.quantize(data, kind)
        w.add_tensor(theirs, packed, raw_dtype=kind)
        back = gguf.quants.dequantize(packed, kind)
        if turn:  # the turn's own inverse
            back = back.reshape(turn, back.shape[0] // turn // 2, 2, -1).swapaxes(1, 2).reshape(back.shape)
        state[name] = torch.tensor(back.T.copy() if conv else back)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    model.load_state_dict(state)
    model.tie_weights()
    return model


def quantized():
    """Random blocks of every type, with scales that are numbers."""
    rng, out = np.random.default_rng(3), {}
    kind = gguf.GGMLQuantizationType
    for q in (kind.F16, kind.BF16, kind.Q8_0, kind.Q4_0, kind.Q4_1, kind.Q5_0, kind.Q5_1, kind.Q4_K, kind.Q5_K,
              kind.Q6_K):
        numbers, size = gguf.GGML_QUANT_SIZES[q]
        blocks = rng.integers(0, 256, (max(1, 256 // numbers), size), dtype=np.uint8)
        halves = {kind.F16: [0], kind.BF16: [0], kind.Q4_1: [0, 2], kind.Q5_1: [0, 2], kind.Q4_K: [0, 2],
                  kind.Q5_K: [0, 2], kind.Q6_K: [208]}.get(q, [0])
        for at in halves:
            half = rng.normal(0, 0.1, len(blocks)).astype(np.float16)
            blocks[:, at:at + 2] = half.view(np.uint8).reshape(-1, 2)
        floats = gguf.quants.dequantize(blocks.reshape(1, -1), q).astype(np.float32).reshape(-1)
        out[q.name] = {"bytes": blocks.tobytes().hex(), "floats": floats.view(np.uint32).tolist()}
    return out


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    all_of = {}
    kind = gguf.GGMLQuantizationType
    for name, (pre, dtype, make) in FAMILIES.items():
        torch.manual_seed(len(all_of))
        tokenizer, model = trained(pre), make()
        set_random(model)
        model = model.to(dtype)
        folder = OUT / name
        model.save_pretrained(folder, max_shard_size="40KB" if name == "llama3" else "50GB")
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        (folder / "generation_config.json").unlink(missing_ok=True)
        said = {"eos_token": SPECIAL[0 if name == "gpt2" else 2]}
        if name == "llama":
            said["chat_template"] = SMOLLM_TEMPLATE
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
        ids = tokenizer.encode("Lily had 12 red balls. She didn't want to share.").ids
        again = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        all_of[name] = statement(again, ids)
        if name in ("llama", "qwen2", "gpt2"):
            types = {"llama": [kind.Q8_0, kind.Q4_1, kind.Q5_0], "qwen2": [kind.F16, kind.Q4_0, kind.Q5_1],
                     "gpt2": [kind.F32, kind.BF16, kind.Q8_0]}[name]
            path = OUT / f"{name}.gguf"
            pre_name = {"gpt2": "gpt-2"}.get(pre, pre)
            all_of[path.name] = statement(write_gguf(path, name, again, tokenizer, pre_name, types), ids)
    (HERE / "models.json").write_text(json.dumps(all_of, separators=(",", ":")))
    (HERE / "quantized.json").write_text(json.dumps(quantized(), separators=(",", ":")))


if __name__ == "__main__":
    main()
