#!/usr/bin/env python3
"""Runs the built program as a user would: every command, wrong input, and a run that is killed.

usage: program.py PLUMB WORK_DIRECTORY [commands|errors|resume|device]
"""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

PLUMB, WORK, PART = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3]
SMALL = ["--rank-prompts", "20", "--generate-max-new-tokens", "24", "--ppo-max-new-tokens", "24",
         "--iterations", "3", "--ppo-prompts", "8", "--minibatches", "2", "--ppo-epochs", "2",
         "--checkpoint-every", "1", "--eval-prompts", "8"]
failures = []


def check(ok, what):
    print(("ok      " if ok else "FAILED  ") + what, flush=True)
    if not ok:
        failures.append(what)


def run(*arguments, stdin="", **environment):
    done = subprocess.run([PLUMB, *arguments], input=stdin, capture_output=True, text=True, cwd=WORK,
                          env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


def succeeds(name, *arguments, stdin="", expect=()):
    """Runs a command with --json and returns its numbers."""
    code, out, err = run(*arguments, "--json", "out.json", stdin=stdin)
    check(code == 0, f"{name}: ends with 0" + ("" if code == 0 else f", not {code}: {err[-500:]}"))
    results = json.load(open(os.path.join(WORK, "out.json"))) if code == 0 else {}
    for key in expect:
        check(key in results, f"{name}: --json has {key}")
    return results


def fails(name, *arguments, says):
    code, out, err = run(*arguments)
    check(code != 0, f"{name}: is refused")
    for text in says:
        check(text in err + out, f"{name}: says {text!r}" + ("" if text in err + out else f": {err}{out}"))


def first_token_ms():
    """From the start of `plumb chat` to its first token: the median of nine."""
    prompt, seconds = "Once upon a time", []
    for _ in range(9):
        start = time.monotonic()
        with subprocess.Popen([PLUMB, "chat", "--prompt", prompt, "--max-new-tokens", "4"],
                              stdout=subprocess.PIPE, cwd=WORK) as process:
            shown = b""
            while len(shown) <= len(prompt) and (more := os.read(process.stdout.fileno(), 4096)):
                shown += more
            seconds.append(time.monotonic() - start)
            process.stdout.read()
    return 1e3 * sorted(seconds)[len(seconds) // 2]


def commands():
    info = succeeds("info", "info", expect=["parameters", "fingerprint", "isa"])
    check(info.get("parameters") == 260032, "info: counts 260032 weights")
    succeeds("generate", "generate", "--limit", "12", "--responses", "3", "--max-new-tokens", "24",
             "--out", "candidates.jsonl", expect=["responses", "seconds"])
    first = open(os.path.join(WORK, "candidates.jsonl")).read()
    run("generate", "--limit", "12", "--responses", "3", "--max-new-tokens", "24", "--slots", "5",
        "--out", "again.jsonl")
    check(first == open(os.path.join(WORK, "again.jsonl")).read(),
          "generate: the same bytes with other slots")
    succeeds("rank by rule", "rank", "candidates.jsonl", "--out", "rule.jsonl", "--labeller", "rule:warm")
    check(all(json.loads(line)["labeller"] == "rule:warm" for line in open(os.path.join(WORK, "rule.jsonl"))),
          "rank by rule: every record says so")
    succeeds("rank by person", "rank", "candidates.jsonl", "--out", "mine.jsonl", "--annotator", "ann",
             stdin="3 1 2\n1=2\nnonsense\n2 3\nq\n")
    check(len(open(os.path.join(WORK, "mine.jsonl")).readlines()) == 3, "rank by person: three answers kept")
    code, out, err = run("rank", "candidates.jsonl", "--out", "mine.jsonl", "--agreement", "--others", "rule.jsonl")
    check(code == 0 and "tau" in (out + err).lower(), "rank: reports agreement")
    numbers = succeeds("rank agreement", "rank", "candidates.jsonl", "--out", "mine.jsonl", "--agreement", "--others",
                       "rule.jsonl", expect=["agreement", "position_bias"])
    check(numbers.get("agreement", [{}])[0].get("prompts") == 3, "rank: agreement as numbers, over three prompts")
    succeeds("reward", "reward", "rule.jsonl", "--folds", "2", "--epochs", "1", "--out", "reward.safetensors",
             expect=["reward_accuracy", "reward_accuracy_length_baseline", "reward_accuracy_shuffled_labels",
                     "reward_ece"])
    succeeds("ppo", "ppo", "--reward", "reward.safetensors", "--run", "ppo", "--iterations", "2",
             "--ppo-prompts", "4", "--ppo-max-new-tokens", "16", "--separate-value",
             expect=["objective/kl_exact", "val/ratio_first_minibatch"])
    succeeds("eval", "eval", "--after", "ppo/policy.safetensors", "--prompts", "6", "--max-new-tokens", "16",
             expect=["win_rate", "kl", "perplexity_before", "perplexity_after"])
    with open(os.path.join(WORK, "sft.jsonl"), "w") as file:
        for i in range(8):
            file.write(json.dumps({"prompt": "Once upon a time", "completion": f" there were {i} cats."}) + "\n")
    succeeds("sft", "sft", "sft.jsonl", "--out", "sft.safetensors", "--epochs", "2", expect=["seconds"])
    code, out, err = run("chat", "--prompt", "Once upon a time", "--temperature", "0", "--max-new-tokens", "8")
    check(code == 0 and out.startswith("Once upon a time, there was"), "chat: continues a text")
    code, out, err = run("chat", "--prompt", "Once upon a time", "--bf16", "--temperature", "0", "--max-new-tokens", "8")
    check(code == 0 and out.startswith("Once upon a time, there was"), "chat --bf16: continues a text")
    code, out, err = run("chat", "--prompt", "Once\x1b]0;x\x07 upon\u202e \u009b2J", "--max-new-tokens", "4")
    check(code == 0 and out.startswith("Once?]0;x? upon? ?2J"), f"chat: texts cannot command the terminal: {out!r}")
    ms = first_token_ms()
    check(ms < 200, f"chat: the first token {ms:.0f} ms after the start, limit 200 (loaded machines)")
    succeeds("align", "align", "--run", "align", "--rounds", "2", "--sft", "sft.jsonl", *SMALL,
             expect=["win_rate", "reward_accuracy", "kl", "perplexity_after", "ratio_first_minibatch"])
    page = open(os.path.join(WORK, "align/report.html")).read()
    check("not by people" in page and "<svg" in page, "align: the report says who ranked, and has charts")
    for text in ("trained towards the rule `warm`", "True score, by the rule itself", "round 2</text>",
                 "equal length and ending", "After training, responses are"):
        check(text in page, f"align: the report has {text!r}")
    check(not re.search("align(ed|ment)", page), "align: what a rule trained is not called aligned")
    header = open(os.path.join(WORK, "align/metrics.csv")).readline()
    check("judge/total" in header and "judge/friendly" in header, "align: the rule's true score in the metrics")
    check(not re.search(r'(src|href)="?http', page), "align: the report loads nothing from elsewhere")
    with open(os.path.join(WORK, "settings.json"), "w") as file:
        json.dump({"max-new-tokens": 8, "responses": 2}, file)
    results = succeeds("config", "generate", "--config", "settings.json", "--responses", "3", "--limit", "2",
                       "--out", "c.jsonl")
    check(results.get("responses") == 6, "config: a flag wins over the file")


def errors():
    with open(os.path.join(WORK, "bad.jsonl"), "w") as file:
        file.write('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chosen"\n')
    with open(os.path.join(WORK, "ghost.jsonl"), "w") as file:
        file.write('{"prompt": "a", "responses": ["x", "y"], "ranking": [[2], [0]]}\n')
    with open(os.path.join(WORK, "settings.json"), "w") as file:
        file.write('{"learning-rate": 1}')
    model = open(os.path.join(os.path.dirname(__file__), "../../examples/data/stories260K.bin"), "rb").read()
    with open(os.path.join(WORK, "cut.bin"), "wb") as file:
        file.write(model[:1000000])
    with open(os.path.join(WORK, "long.txt"), "w") as file:
        file.write("once " * 600 + "\n")
    fails("no command", says=["subcommand"])
    fails("a wrong flag", "demo", "--fast", says=["--fast"])
    fails("a wrong choice", "ppo", "--kl", "k9", "--run", "x", says=["'k9'", "k1, k2, k3"])
    fails("a malformed line", "reward", "bad.jsonl", says=["bad.jsonl:2"])
    fails("a ranking of a response that is not there", "reward", "ghost.jsonl", says=["ghost.jsonl:1"])
    fails("a missing file", "reward", "nowhere.jsonl", says=["nowhere.jsonl"])
    fails("an unknown setting", "ppo", "--config", "settings.json", says=["learning-rate", "HINT"])
    for name in ("\x1b[2Jx.bin", "\u009b2Jx.bin", "\u202ex.bin", "\x7fx.bin"):
        code, out, err = run("info", "--model", name)
        check(code != 0 and "x.bin" in err and name[0] not in err, f"a file named {name!r} cannot command the terminal")
        code, out, err = run("info", name)  # refused by the parser of flags
        check(code != 0 and name[0] not in out + err, f"nor as an argument: {name!r}")
    fails("a truncated model", "info", "--model", "cut.bin", says=["cut.bin"])
    fails("a wrong tokenizer", "info", "--tokenizer", "bytes", says=["256", "512", "HINT"])
    fails("a prompt beyond the context", "generate", "--prompts", "long.txt", "--out", "x.jsonl",
          says=["context", "HINT"])
    fails("a filtered rollout", "ppo", "--ppo-top-k", "5", "--run", "filtered", says=["top-k", "allow_filters"])
    fails("a reward model that is none", "ppo", "--reward",
          os.path.join(os.path.dirname(__file__), "../../examples/data/stories260K.bin"), "--run", "x",
          says=["reward"])
    run("align", "--run", "other", *SMALL)
    fails("another run's directory", "align", "--run", "other", *SMALL, "--beta", "0.3", says=["'beta'", "HINT"])


def device():
    """A whole round on the emulated GPU ends with the very model file that the CPU writes."""
    few = ["--rounds", "1", "--rank-prompts", "6", "--generate-max-new-tokens", "16",
           "--ppo-max-new-tokens", "16", "--reward-epochs", "1", "--iterations", "2", "--ppo-prompts", "4",
           "--eval-prompts", "4", "--eval-stories", "1"]
    shared = {key: None for key in ("policy_fingerprint", "kl", "win_rate", "perplexity_after")}
    files = {}
    for name in ("cpu", "emulated"):
        results = succeeds(f"demo --device {name}", "demo", "--device", name, "--run", name, *few)
        for key in shared:
            if name == "cpu":
                shared[key] = results.get(key)
            else:
                check(results.get(key) == shared[key], f"emulated {key} is the CPU's, {shared[key]}")
        with open(os.path.join(WORK, name, "round-0/policy.safetensors"), "rb") as model:
            files[name] = model.read()
    check(files["cpu"] == files["emulated"], "the two policies are the same file, byte for byte")
    fails("an unknown device", "info", "--device", "tpu", says=["'tpu' is not one of: cpu, cuda, emulated"])
    if not os.path.exists(os.path.join(os.path.dirname(PLUMB), "plumb-cuda")):
        fails("a device that was not built", "info", "--device", "cuda", says=["./plumb build --cuda"])


def resume():
    code, _, err = run("align", "--run", "whole", "--rounds", "2", *SMALL, "--json", "whole.json")
    check(code == 0, "a run that nothing stops ends with 0")
    for isa in ("avx2", "avx512"):
        if isa not in open("/proc/cpuinfo").read():
            print(f"skipped {isa}: this processor lacks it")
            continue
        run("align", "--run", isa, "--rounds", "2", *SMALL, "--json", isa + ".json", PLUMB_ISA=isa,
            PLUMB_NUM_THREADS="1")
        a, b = (json.load(open(os.path.join(WORK, name + ".json")))["policy_fingerprint"]
                for name in ("whole", isa))
        check(a == b, f"{isa} on one thread: the same weights, bit for bit")
    generator = random.Random(7)
    kills = 0
    for attempt in range(200):
        process = subprocess.Popen([PLUMB, "align", "--run", "killed", "--rounds", "2", *SMALL, "--json",
                                    "killed.json"], cwd=WORK, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            # Later attempts live longer, so that the run gets on; the signal alternates.
            process.wait(timeout=generator.uniform(0.05, 0.4) * (1 + attempt / 4))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL if attempt % 3 else signal.SIGINT)
            process.wait()
            kills += 1
            continue
        if process.returncode == 0:
            break
    check(process.returncode == 0, f"a run that was stopped {kills} times ends with 0")
    check(kills >= 3, f"it was stopped at least 3 times ({kills})")
    whole, killed = (json.load(open(os.path.join(WORK, name + ".json"))) for name in ("whole", "killed"))
    check(whole["policy_fingerprint"] == killed["policy_fingerprint"],
          f"both end with the same weights, bit for bit ({whole['policy_fingerprint']})")
    for name in ("metrics.csv", "metrics.jsonl", "round-1/candidates.jsonl", "samples-after.jsonl"):
        a, b = (open(os.path.join(WORK, run_, name), "rb").read() for run_ in ("whole", "killed"))
        check(a == b, f"{name} is the same, byte for byte")


shutil.rmtree(WORK, ignore_errors=True)
os.makedirs(WORK)
start = time.time()
{"commands": commands, "errors": errors, "resume": resume, "device": device}[PART]()
print(f"{PART}: {len(failures)} failures in {time.time() - start:.0f} s")
sys.exit(1 if failures else 0)
