#!/usr/bin/env python3
"""Writes adapters/: LoRA adapters of PEFT beside the models of models/, and what the two say together.

adapters.json holds, for each, token ids and the logits of the last position.
Usage: python3 make_adapters.py  (needs torch, transformers, peft)
"""
import json
import pathlib
import shutil

import peft
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "adapters"
CASES = {
    "llama": dict(r=3, lora_alpha=7, target_modules=["q_proj", "k_proj", "o_proj", "down_proj"],
                  layers_to_transform=[1]),
    "qwen2": dict(r=2, lora_alpha=4, target_modules="all-linear", use_rslora=True),
    "gpt2": dict(r=2, lora_alpha=5, target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True),
}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    said = {}
    for name, settings in CASES.items():
        torch.manual_seed(len(name))
        base = transformers.AutoModelForCausalLM.from_pretrained(HERE / "models" / name, dtype=torch.float32)
        model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
        with torch.no_grad():
            for key, value in model.named_parameters():
                if "lora_" in key:
                    value.normal_(0, 0.2)
        model.save_pretrained(OUT / name)
        config = json.loads((OUT / name / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = f"../../models/{name}"
        (OUT / name / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        (OUT / name / "README.md").unlink(missing_ok=True)
        ids = [5, 90, 17, 260, 33, 34, 8, 300, 2, 41]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        said[name] = {"ids": ids, "logits": [float(f"{x:.8g}") for x in logits]}
    (HERE / "adapters.json").write_text(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
