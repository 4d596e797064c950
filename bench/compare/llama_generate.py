"""Generation by llama.cpp, by its Python binding: the same work as `end_to_end --what generate`. The model has
the same architecture (GPT-2, tied head, 32-bit floats), shape and random weights, written as a GGUF file.
Its cache of keys and values stays in 16 bits, its default, with which it is faster.

    llama_generate.py [--size S|M|L] [--threads N] [--repeat N] [--only TEXT] [--json FILE]
"""

import os
import tempfile

import gguf
import llama_cpp
import numpy as np

import torch_support

SIZES = {  # layers, channels, heads, vocab, context: as in torch_end_to_end.py
    "S": (4, 256, 8, 512, 256),
    "M": (6, 384, 6, 4096, 256),
    "L": (12, 768, 12, 50257, 1024),
}
PROMPT, NEW = 32, 128


def write_model(path, size):
    """Writes the model; returns how many weights it has."""
    layers, c, heads, vocab, context = SIZES[size]
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(context)
    writer.add_embedding_length(c)
    writer.add_feed_forward_length(4 * c)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("none")
    generator, weights = np.random.default_rng(1), 0

    def add(name, *shape):
        nonlocal weights
        weights += int(np.prod(shape))
        if len(shape) > 1:
            values = 0.02 * generator.standard_normal(shape, dtype=np.float32)
        else:
            values = np.full(shape, float("norm.weight" in name), dtype=np.float32)
        writer.add_tensor(name, values)

    add("token_embd.weight", vocab, c)
    add("position_embd.weight", context, c)
    for i in range(layers):
        for name, rows, columns in (
            ("attn_qkv", 3 * c, c),
            ("attn_output", c, c),
            ("ffn_up", 4 * c, c),
            ("ffn_down", c, 4 * c),
        ):
            add(f"blk.{i}.{name}.weight", rows, columns)
            add(f"blk.{i}.{name}.bias", rows)
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{i}.{name}.weight", c)
            add(f"blk.{i}.{name}.bias", c)
    add("output_norm.weight", c)
    add("output_norm.bias", c)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


class Generator:
    """One context for `sequences` sequences, with the library's own sampler at temperature 1."""

    def __init__(self, model, sequences, threads):
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = sequences * (PROMPT + NEW)
        parameters.n_batch = max(512, sequences * PROMPT)
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(model, parameters)
        assert self.context, "llama.cpp made no context"
        self.sequences = sequences
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self.batch = llama_cpp.llama_batch_init(sequences * PROMPT, 0, 1)
        self.samplers = [llama_cpp.llama_sampler_init_dist(i) for i in range(sequences)]

    def decode(self, tokens, first):
        """Reads tokens (sequences, T) at positions first, …; draws the next of each sequence."""
        batch, n = self.batch, 0
        for sequence, row in enumerate(tokens):
            for t, token in enumerate(row):
                batch.token[n] = token
                batch.pos[n] = first + t
                batch.n_seq_id[n] = 1
                batch.seq_id[n][0] = sequence
                batch.logits[n] = t + 1 == len(row)
                n += 1
        batch.n_tokens = n
        assert llama_cpp.llama_decode(self.context, batch) == 0, "llama.cpp did not decode"
        length = len(tokens[0])
        return [
            [llama_cpp.llama_sampler_sample(sampler, self.context, (i + 1) * length - 1)]
            for i, sampler in enumerate(self.samplers)
        ]

    def generate(self, prompts):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        drawn, new = self.decode(prompts, 0), 1
        while new < NEW:
            drawn = self.decode(drawn, PROMPT + new - 1)
            new += 1

    def close(self):
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)


def main():
    parser = torch_support.arguments(__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="S")
    parser.add_argument("--what", default="generate", choices=("generate",))
    options = parser.parse_args()
    threads = options.threads or os.cpu_count()
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "model.gguf")
        weights = write_model(path, options.size)
        parameters = llama_cpp.llama_model_default_params()
        model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
    assert model, "llama.cpp did not load the model"
    print(f"llama-cpp-python {llama_cpp.__version__}, {threads} threads, size {options.size}")
    results = []
    for sequences in (1, 16, 64):
        name = f"generate/{options.size}/b{sequences}"
        if options.only not in name:
            continue
        generator = Generator(model, sequences, threads)
        prompts = np.random.default_rng(1).integers(0, generator.vocab, (sequences, PROMPT)).tolist()
        result = torch_support.Result(name, "tokens/s", sequences * NEW)
        result.work = {
            "parameters": weights,
            "sequences": sequences,
            "prompt": PROMPT,
            "new_tokens": NEW,
        }
        results.append(result.measure(1, options.repeat, lambda: generator.generate(prompts)))
        generator.close()
    version = f"llama-cpp-python {llama_cpp.__version__}"
    torch_support.write(options.json, version, threads, results, engine="llama")


if __name__ == "__main__":
    main()
