#!/usr/bin/env python3
"""Runs the built program as a user would: every command, wrong input, and a run that is killed.

usage: program.py PLUMB WORK_DIRECTORY [commands|data|errors|settings|files|judges|rankings|resume|device]
"""
import gzip
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import xml.dom.minidom

PLUMB, WORK, PART = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3]
MODEL = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../examples/data/stories260K.bin"))
SMALL = ["--rank-prompts", "20", "--generate-max-new-tokens", "24", "--ppo-max-new-tokens", "24",
         "--iterations", "3", "--ppo-prompts", "8", "--minibatches", "2", "--ppo-epochs", "2",
         "--checkpoint-every", "1", "--eval-prompts", "8", "--eval-stories", "5"]
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
    one = json.loads(first.splitlines()[0])
    check(one["name"] == "stories260K-" + one["model"][:6] and info.get("fingerprint") == one["model"],
          "generate: whose the responses are, as a name and a fingerprint")
    run("generate", "--limit", "1", "--max-new-tokens", "4", "--name", "mine", "--out", "named.jsonl")
    check(json.loads(read("named.jsonl"))["name"] == "mine", "generate: by the name that was said")
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
    small = ["--iterations", "2", "--ppo-prompts", "3", "--ppo-responses", "3", "--ppo-max-new-tokens", "16",
             "--checkpoint-every", "1"]
    grouped = succeeds("grpo", "grpo", "--method", "gspo", "--reward", "rule:warm", "--run", "grpo", *small, "--tensorboard", "events",
                       expect=["group/agreeing", "group/kept", "val/ratio_first_minibatch", "method"])
    check(grouped.get("method") == "gspo" and grouped.get("val/ratio_first_minibatch") == 1,
          "grpo: by the method that was named, on what it sampled")
    events = open(os.path.join(WORK, "events", os.listdir(os.path.join(WORK, "events"))[0]), "rb").read()
    check(b"brain.Event:2" in events and events.count(b"objective/scores") == 2, "grpo: TensorBoard's events, a row an iteration")
    kept = json.load(open(os.path.join(WORK, "grpo/config.json")))
    check("tensorboard" not in kept, "grpo: where events go is no setting of the run")
    check(kept.get("ratio") == "sequence-mean" and "value-clip" not in kept,
          "grpo: the run keeps what the method makes of the settings, and none of a critic")
    before = open(os.path.join(WORK, "grpo/policy.safetensors"), "rb").read()
    run("grpo", "--method", "gspo", "--reward", "rule:warm", "--run", "halves", *small, "--iterations", "1",
        "--no-linear-lr")
    run("grpo", "--method", "gspo", "--reward", "rule:warm", "--run", "halves", *small, "--no-linear-lr")
    run("grpo", "--method", "gspo", "--reward", "rule:warm", "--run", "whole", *small, "--no-linear-lr")
    halves = [open(os.path.join(WORK, name, "policy.safetensors"), "rb").read() for name in ("halves", "whole")]
    check(halves[0] == halves[1] and len(before) == len(halves[0]), "grpo: goes on where it stopped, bit for bit")
    fails("grpo of one", "grpo", "--ppo-responses", "1", "--run", "one", *small[:4], says=["needs at least 2"])
    fails("grpo by ppo", "grpo", "--method", "ppo", "--run", "one", says=["plumb ppo"])
    for method in ("dpo", "pl", "kto", "simpo"):
        learned = succeeds("dpo", "dpo", "rule.jsonl", "--method", method, "--out", "dpo.safetensors", "--test",
                           "rule.jsonl", "--epochs", "4", expect=["train", "test", "seconds"])
        check(learned.get("test", {}).get("accuracy", 0) > 0.6, f"dpo by {method}: knows the rankings it was shown")
    code, out, err = run("chat", "--model", "dpo.safetensors", "--prompt", "Once", "--max-new-tokens", "4")
    check(code == 0 and out.startswith("Once"), "dpo: a model like any other")
    atlas = succeeds("atlas", "atlas", "--quick", "--out", ".", expect=["rests", "gradients", "goodhart", "seconds"])
    methods = open(os.path.join(WORK, "methods.md")).read()
    for method in ("ppo", "grpo", "dr-grpo", "rloo", "reinforce++", "dapo", "gspo", "cispo", "dpo", "robust", "ipo",
                   "hinge", "simpo", "orpo", "pl", "kto"):
        check(f"| {method} |" in methods and method in atlas.get("rests", {}), f"atlas: a row for {method}")
    for figure in re.findall(r"\((methods/[\w-]+\.svg)\)", methods):
        xml.dom.minidom.parse(os.path.join(WORK, figure))
    check(methods.count(".svg)") == 6, "atlas: six figures, and each of them is XML")
    best = succeeds("best-of-n", "best-of-n", "candidates.jsonl", "--judge", "rule:warm", "--out", "best.jsonl",
                    expect=["curve"])
    curve = [point["score"] for point in best.get("curve", [])]
    check(curve == sorted(curve) and len(curve) >= 2, "best-of-n: more draws, no lower score")
    check(len(open(os.path.join(WORK, "best.jsonl")).readlines()) == 12, "best-of-n: one for each prompt")
    succeeds("rejection sampling", "sft", "best.jsonl", "--out", "rft.safetensors")
    succeeds("eval", "eval", "--after", "ppo/policy.safetensors", "--limit", "6", "--max-new-tokens", "16",
             expect=["win_rate", "kl", "perplexity_before", "perplexity_after"])
    with open(os.path.join(WORK, "sft.jsonl"), "w") as file:
        for i in range(8):
            file.write(json.dumps({"prompt": "Once upon a time", "completion": f" there were {i} cats."}) + "\n")
    succeeds("sft", "sft", "sft.jsonl", "--out", "sft.safetensors", "--epochs", "2", expect=["seconds"])
    code, out, err = run("chat", "--prompt", "Once upon a time", "--temperature", "0", "--max-new-tokens", "8")
    check(code == 0 and out.startswith("Once upon a time, there was"), "chat: continues a text")
    code, out, err = run("chat", "--prompt", "Once\x1b]0;x\x07 upon\u202e \u009b2J", "--max-new-tokens", "4")
    check(code == 0 and out.startswith("Once?]0;x? upon? ?2J"), f"chat: texts cannot command the terminal: {out!r}")
    side_by_side()
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
    learns_directly()
    best_within_budget()
    stories = os.path.join(os.path.dirname(MODEL), "tinystories_heldout.txt")
    trained = succeeds("tokenizer", "tokenizer", "train", stories, "--vocab", "500", "--words", "llama3", "--special",
                       "<|end|>", "--out", "vocabulary", expect=["tokens", "merges", "seconds"])
    check(trained.get("tokens") == 500, "tokenizer: 500 tokens were asked for")
    made = json.load(open(os.path.join(WORK, "vocabulary/tokenizer.json")))
    check(made["added_tokens"][0]["content"] == "<|end|>", "tokenizer: the special token is the first")
    fails("tokenizer", "tokenizer", "guess", stories, "--out", "vocabulary", says=["train"])
    fails("tokenizer", "tokenizer", "train", stories, "--vocab", "0", "--out", "vocabulary", says=["--vocab"])
    with open(os.path.join(WORK, "settings.json"), "w") as file:
        json.dump({"max-new-tokens": 8, "responses": 2}, file)
    results = succeeds("config", "generate", "--config", "settings.json", "--responses", "3", "--limit", "2",
                       "--out", "c.jsonl")
    check(results.get("responses") == 6, "config: a flag wins over the file")


def side_by_side():
    """chat --beside and --probabilities: two models, and how probable their tokens were."""
    with open(os.path.join(WORK, "cats.jsonl"), "w") as file:
        for i in range(8):
            file.write(json.dumps({"prompt": "Once upon a time", "completion": f" there were {i} cats and a dog."}) + "\n")
    succeeds("sft", "sft", "cats.jsonl", "--out", "cats.safetensors", "--epochs", "4", "--lr", "0.003")
    asked = ["chat", "--prompt", "Once upon a time", "--max-new-tokens", "12"]
    numbers = succeeds("chat beside itself", *asked, "--beside", MODEL, expect=["exchanges", "turns", "tokens"])
    turn = numbers["exchanges"][0]
    own, other = turn["responses"]
    check(turn["compared"] and turn["first_difference"] is None and own["text"] == other["text"] and numbers["tokens"] == 24
          and turn["prompt"] == "Once upon a time", "chat beside itself: says the same")
    tokens = [token for piece in own["pieces"] for token in piece["tokens"]]
    check(len(tokens) == 12 and all(not t["differs"] and t["probability"] == t["beside"] for t in tokens),
          "and finds every token as probable")
    check("".join(piece["text"] for piece in own["pieces"]) == own["text"], "pieces make the text")
    check(all(len(t["likely"]) == 3 and t["likely"][0][1] >= t["likely"][1][1] >= t["likely"][2][1] > 0 for t in tokens),
          "of each token the likeliest are there, in order")
    code, alone, err = run(*asked)
    code, out, err = run(*asked, "--probabilities")
    check(code == 0 and out.startswith(alone), "chat --probabilities: shows the response first, as ever")
    rows = [line for line in out[len(alone):].splitlines() if re.match(r" +[0-9]+  ", line)]
    check(len(rows) == 12 and all(re.search(r"[0-9] %", row) for row in rows), f"and then a row for each token: {out!r}")
    numbers = succeeds("chat beside another", *asked, "--beside", "cats.safetensors", "--probabilities")
    turn = numbers["exchanges"][0]
    a, b = ([t["id"] for piece in r["pieces"] for t in piece["tokens"]] for r in turn["responses"])
    first = turn["first_difference"]
    check(a[:first] == b[:first] and a[first:first + 1] != b[first:first + 1], f"chat beside another: they differ from token {first} on")
    _, out, _ = run(*asked, "--beside", "cats.safetensors", "--probabilities")
    check(f"differ from token {first + 1} on" in out and "A: " in out and "B: cats.safetensors" in out, f"and it says so: {out!r}")
    differ = sum(t["differs"] for r in turn["responses"] for piece in r["pieces"] for t in piece["tokens"])
    check(differ > 0 and sum(bool(re.search(r"% \*", line)) for line in out.splitlines()) == differ,
          f"{differ} tokens that one model finds twice as probable are marked")
    check(max(len(line) for line in out.splitlines() if not line.startswith(("A: ", "B: "))) <= 80,
          "nothing but the models' names is wider than 80 columns")
    _, out, _ = run("chat", "--prompt", "Once\x1b]0;x\x07", "--beside", MODEL, "--probabilities", "--max-new-tokens", "4")
    check("\x1b" not in out and "\x07" not in out, "nor commands the terminal")
    _, out, _ = run("chat", "--beside", "cats.safetensors", "--max-new-tokens", "4", stdin="Once\nOne day\n\n")
    check(out.count("A: ") == 2 and out.count("B: ") == 2, "chat --beside: every line is a turn")
    fails("chat --beside with several responses", *asked, "--beside", MODEL, "--responses", "2", says=["one response"])
    fails("chat --beside nothing", *asked, "--beside", "nowhere.bin", says=["nowhere.bin"])


def learns_directly():
    """align by a preference method: rounds without a reward model."""
    rounds = ["--rounds", "2", "--labeller", "rule:warm", *SMALL]
    learned = succeeds("align by dpo", "align", "--run", "online", "--method", "dpo", *rounds,
                       expect=["win_rate", "kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen",
                               "loss", "judge/total"])
    check(learned.get("method") == "dpo" and learned.get("rewards/accuracies", 0) > 0.6,
          "align by dpo: says its method, and its policy knows the last round's rankings")
    check(not [key for key in learned if key.startswith(("reward_", "ratio"))], "align by dpo: no reward model, no ratio")
    for name in ("candidates.jsonl", "rankings.jsonl", "policy.safetensors"):
        check(os.path.exists(os.path.join(WORK, "online/round-1", name)), f"align by dpo: a round leaves {name}")
    check(not os.path.exists(os.path.join(WORK, "online/round-1/reward.safetensors")), "and no reward model")
    check(len(read("online/metrics.csv").splitlines()) == 3, "align by dpo: a row of metrics a round")
    page = read("online/report.html")
    check("from rankings directly, by dpo" in page and "Reward model" not in page and "own scores" in page,
          "align by dpo: the report says so, and has nothing of a reward model")
    first = [json.loads(line)["model"] for line in read("online/round-1/candidates.jsonl").splitlines()]
    check(first[0] != json.loads(read("online/round-0/candidates.jsonl").splitlines()[0])["model"],
          "align by dpo: the second round's responses are the trained policy's")
    for method in ("kto", "pl", "simpo"):
        more = succeeds(f"align by {method}", "align", "--run", method, "--method", method, *SMALL)
        check(more.get("method") == method, f"align by {method}: says so")
    demo = succeeds("demo by dpo", "demo", "--run", "demo", "--method", "dpo", *SMALL, "--rounds", "1", "--dpo-beta", "0.2")
    check(demo.get("method") == "dpo", "demo by dpo: says so")


def best_within_budget():
    """The best policy whose KL is within a budget, beside the last one."""
    words = ["--reward", "rule:warm", "--iterations", "6", "--ppo-prompts", "8", "--ppo-max-new-tokens", "24",
             "--checkpoint-every", "2", "--ppo-lr", "1e-3", "--no-linear-lr"]
    trained = succeeds("grpo in a wide budget", "grpo", "--run", "wide", *words, "--kl-budget", "1000",
                       expect=["best_iteration", "best_score", "best_kl"])
    names, *rows = [line.split(",") for line in read("wide/metrics.csv").splitlines()]
    scores = [float(row[names.index("objective/scores")]) for row in rows]
    best = scores.index(max(scores))
    check(trained.get("best_iteration") == best and trained.get("best_score") == scores[best],
          f"the best is the highest of the scores: {best} of {scores}")
    kept = {}
    for name in ("policy", "policy-best"):
        kept[name] = succeeds(f"info of {name}", "info", "--model", f"wide/{name}.safetensors")["fingerprint"]
    check(kept["policy"] != kept["policy-best"], "it is not the last policy")
    if best > 0:  # the policy before an iteration's update is what a run of so many iterations ends with
        shorter = succeeds("grpo of so many", "grpo", "--run", "shorter", *words[:2], "--iterations", str(best), *words[4:])
        check(shorter["policy_fingerprint"] == kept["policy-best"], "but the one that those scores are of")
    start = succeeds("info of the start", "info")["fingerprint"]
    tight = succeeds("ppo in a tight budget", "ppo", "--run", "tight", *words, "--kl-budget", "1e-6")  # with a critic
    first = succeeds("info of the best", "info", "--model", "tight/policy-best.safetensors")["fingerprint"]
    check(tight.get("best_iteration") == 0 and first == start, "in a tight budget the best is the model that it began with")
    code, out, _ = run("ppo", "--run", "tight", *words, "--kl-budget", "1e-6")
    check(code == 0 and "that before iteration 0's update" in out and "tight/policy-best.safetensors" in out, "and that is said")
    check("best_iteration" not in succeeds("grpo without a budget", "grpo", "--run", "without", *words) and
          not os.path.exists(os.path.join(WORK, "without/policy-best.safetensors")), "without a budget none is kept")
    check(read_bytes("without/policy.safetensors") == read_bytes("wide/policy.safetensors"), "which changes nothing else")
    far = run("ppo", "--model", "wide/policy.safetensors", "--reference", MODEL, "--run", "far", *words, "--kl-budget", "1e-6",
              "--json", "far.json")
    check(far[0] == 0 and json.loads(read("far.json"))["best_iteration"] is None and "no iteration's policy was" in far[1] and
          not os.path.exists(os.path.join(WORK, "far/policy-best.safetensors")), "where none is within the budget, none is kept")
    fails("a budget of a KL that is not computed", "ppo", "--run", "x", "--kl-budget", "5", "--kl-every", "0",
          says=["kl-budget", "kl-every 0", "HINT"])
    fails("a budget of a method without iterations", "align", "--run", "x", "--method", "dpo", "--kl-budget", "5",
          says=["kl-budget", "dpo-beta", "HINT"])


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
    fails("a filtered rollout", "ppo", "--ppo-top-k", "5", "--run", "filtered", says=["top-k", "allow_off_policy"])
    fails("a reward model that is none", "ppo", "--reward",
          os.path.join(os.path.dirname(__file__), "../../examples/data/stories260K.bin"), "--run", "x",
          says=["reward"])
    fails("a wrong method", "align", "--method", "dppo", "--run", "x",
          says=["'dppo'", "ppo, grpo, dr-grpo, rloo,", "cispo, dpo, robust, ipo, hinge, simpo, orpo, pl, kto"])
    fails("PPO's beta beside dpo", "align", "--method", "dpo", "--beta", "0.2", "--run", "x", says=["beta is PPO's", "--dpo-beta"])
    fails("a preference method for ppo", "ppo", "--method", "dpo", "--run", "x", says=["'dpo'", "gspo, cispo;"])
    fails("a preference method for grpo", "grpo", "--method", "dpo", "--run", "x", says=["'dpo'", "gspo, cispo;"])
    run("align", "--run", "other", *SMALL)
    fails("another run's directory", "align", "--run", "other", *SMALL, "--beta", "0.3", says=["'beta'", "HINT"])

SMALL_PPO = ["--ppo-prompts", "2", "--ppo-responses", "1", "--ppo-max-new-tokens", "8", "--minibatches", "1",
             "--ppo-epochs", "1"]


def write(name, *records):
    """A JSON Lines file in the work directory."""
    with open(os.path.join(WORK, name), "w") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")
    return name


def read(name):
    with open(os.path.join(WORK, name)) as file:
        return file.read()


def read_bytes(name):
    with open(os.path.join(WORK, name), "rb") as file:
        return file.read()


def write_bytes(name, content):
    with open(os.path.join(WORK, name), "wb") as file:
        file.write(content)


def some_inputs():
    write("p.jsonl", {"id": "one", "prompt": "One day"}, {"id": "two", "prompt": "Lily"})
    write("s.jsonl", {"prompt": "Once upon a time", "completion": " there was a cat."})
    write("r.jsonl", *({"id": str(i), "prompt": f"Once {i}", "responses": [" a cat", " a big dog ran"],
                        "ranking": [[0], [1]]} for i in range(20)))


def settings():
    """What a flag or a settings file may say, in every command."""
    some_inputs()
    generate = ["generate", "--prompts", "p.jsonl", "--max-new-tokens", "4", "--out", "g.jsonl", "--force"]
    ppo = ["ppo", "--prompts", "p.jsonl", "--run", "none", *SMALL_PPO]
    for command, name, bad, says in (
            (["sft", "s.jsonl", "--out", "m"], "lr", ("nan", "inf", "-1", "x", "1e999", ""), "lr"),
            (["sft", "s.jsonl", "--out", "m"], "epochs", ("-3", "1.5", "1e3", "+1", " 1", "99999999999999999999"), "epochs"),
            (["sft", "s.jsonl", "--out", "m"], "batch", ("0", "-1"), "at least 1"),
            (generate, "seed", ("-1", "0.5", "18446744073709551616"), "seed"),
            (generate, "temperature", ("-1", "nan", "1e-40"), "temperature"),
            (generate, "top-p", ("0", "1.5", "nan"), "top-p"),
            (generate, "limit", ("-1",), "limit"),
            (generate, "responses", ("0",), "at least 1"),
            (generate, "stop", ("",), "stop"),
            (["reward", "r.jsonl"], "folds", ("1", "-2", "101"), "folds"),
            (["reward", "r.jsonl"], "loss", ("BT",), "bt, pl"),
            (ppo, "clip", ("-1",), "clip"),
            (ppo, "ppo-lr", ("nan", "-1"), "ppo-lr"),
            (ppo, "gamma", ("1.01",), "from 0 to 1"),
            (ppo, "micro-tokens", ("-1",), "micro-tokens"),
            (ppo, "iterations", ("-1",), "iterations"),
            (["align", "--run", "none"], "rounds", ("0",), "rounds"),
            (["align", "--run", "none"], "reward-epochs", ("-1",), "reward-epochs"),
            (["align", "--run", "none"], "dpo-beta", ("0", "-1"), "above 0"),
            (["eval"], "limit", ("0", "-1"), "limit"),
            (["chat", "--prompt", "a"], "slots", ("0",), "slots")):
        for value in bad:
            fails(f"{command[0]} --{name} {value!r}", *command, f"--{name}={value}", says=[says])
    check(not os.path.exists(os.path.join(WORK, "none")), "nothing was begun")
    # The same by a settings file, which is read wherever it stands; its errors name it.
    for content, says in (
            ('{"max-new-tokens": 3.5}', "whole number"), ('{"max-new-tokens": -3}', "at least 1"),
            ('{"seed": -1}', "without sign"), ('{"seed": 1e3}', "whole number"), ('{"temperature": "hot"}', "number"),
            ('{"temperature": 1e999}', "c.json"), ('{"temperatur": 1}', "did you mean 'temperature'"),
            ('{"top-k": 1, "top-k": 2}', "twice"), ('{"stop": "x"}', "list of texts"), ("[1]", "object"),
            ("{", "c.json"), ("[" * 100000, "c.json"), ("", "c.json")):
        with open(os.path.join(WORK, "c.json"), "w") as file:
            file.write(content)
        fails(f"a settings file {content[:30]!r}", *generate, "--config", "c.json", says=[says, "c.json"])
    with open(os.path.join(WORK, "c.json"), "w") as file:
        file.write('{"linear-lr": 1}')
    fails("a settings file with 1 for yes", "align", "--run", "none", "--config", "c.json",
          says=["true or false", "c.json"])
    with open(os.path.join(WORK, "c.json"), "w") as file:
        json.dump({"max-new-tokens": 3, "responses": 1, "temperature": 0.05}, file)
    for before, after in ((["--device", "cpu"], ["--config", "c.json"]), (["--device=cpu"], ["--config=c.json"]),
                          ([], ["--config", "c.json"])):
        run(*before, "generate", *after, "--prompts", "p.jsonl", "--limit", "1", "--out", "g.jsonl", "--force")
        first = json.loads(read("g.jsonl").splitlines()[0])
        check(first["sampling"]["max_new_tokens"] == 3 and len(first["responses"]) == 1,
              f"--config counts after {before}")
    check('"temperature":0.05,' in read("g.jsonl"), "numbers come out as they were given")
    check(first["id"] == "one" and len(first["tokens"]) == 1, "candidates keep their prompts' ids, and their tokens")
    for words, says in ((["generate", "--outt", "x"], ["unknown flag --outt", "--out"]),
                        (["generat"], ["unknown command generat", "generate"]),
                        (["ppo", "--run", "x", "--betta", "1"], ["unknown flag --betta", "--beta"]),
                        (["reward", "r.jsonl", "--epoch", "1"], ["unknown flag --epoch", "--epochs"])):
        fails(" ".join(words), *words, says=says)
    # --help: what matters most comes first, the rest under headings; ranges and defaults are said.
    code, out, _ = run("ppo", "--help")
    options = out[out.index("Options:"):].split("\n\n")[0]
    check(code == 0 and 8 <= options.count("\n  --") <= 20, "ppo --help: few flags stand first")
    for heading in ("Losses:", "Optimizer:", "Rewards and advantages:", "Divergence from the reference:"):
        check(heading in out, f"ppo --help has the heading {heading}")
    check("(from 0 to 1)" in out and "k1, k2, k3" in out and "0.0005" in out, "ppo --help says ranges, choices, defaults")
    for command in ("demo", "generate", "rank", "sft", "reward", "score", "ppo", "grpo", "dpo", "best-of-n", "align", "eval",
                    "chat", "info", "next", "ratings"):
        code, out, _ = run(command, "--help")
        check(code == 0 and "--json" in out, f"{command} --help")


def files():
    """Outputs and inputs are looked at before work begins, and nothing that is there is lost."""
    some_inputs()
    generate = ["generate", "--prompts", "p.jsonl", "--limit", "1", "--max-new-tokens", "3", "--responses", "2"]
    check(run(*generate, "--out", "g.jsonl")[0] == 0, "generate writes a new file")
    before = read("g.jsonl")
    fails("generate over a file", *generate, "--seed", "7", "--out", "g.jsonl", says=["g.jsonl exists", "--force"])
    check(read("g.jsonl") == before, "it is as it was")
    check(run(*generate, "--seed", "7", "--out", "g.jsonl", "--force")[0] == 0 and read("g.jsonl") != before,
          "--force replaces it")
    code, out, _ = run(*generate, "--out", "-")
    check(code == 0 and json.loads(out)["id"] == "one", "--out - is standard output, and nothing else is on it")
    code, out, _ = run("info", "--json", "-")
    check(code == 0 and json.loads(out[out.index("{"):])["vocab"] == 512, "--json - too")
    for name, *words in (("generate", "generate", "--responses", "64", "--out", "nowhere/x.jsonl"),
                         ("sft", "sft", "s.jsonl", "--epochs", "100000", "--out", "nowhere/x"),
                         ("reward", "reward", "r.jsonl", "--epochs", "100000", "--out", "nowhere/x"),
                         ("score", "score", "g.jsonl", "--out", "nowhere/x"),
                         ("reward --json", "reward", "r.jsonl", "--epochs", "100000", "--json", "nowhere/x")):
        start = time.monotonic()
        fails(f"{name} to a folder that is not there", *words, says=["nowhere"])
        check(time.monotonic() - start < 3, "at once")
    for name, *words in (("generate", "generate", "--prompts", "p.jsonl", "--out", "p.jsonl", "--force"),
                         ("sft", "sft", "s.jsonl", "--out", "s.jsonl"), ("reward", "reward", "r.jsonl", "--out", "r.jsonl"),
                         ("score", "score", "g.jsonl", "--out", "./g.jsonl"),
                         ("sft --json", "sft", "s.jsonl", "--out", "m.safetensors", "--json", "s.jsonl")):
        fails(f"{name}: an output that is an input", *words, says=["also the input"])
    # A result that is known is written also when a later part fails.
    code, _, _ = run("sft", "s.jsonl", "--out", "m.safetensors", "--lr", "1e38", "--json", "late.json")
    check(code != 0 and not os.path.exists(os.path.join(WORK, "m.safetensors")), "a diverged model is not saved")
    def little_room():  # a file may have 100,000 bytes: less than a reward model
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
    done = subprocess.run([PLUMB, "reward", "r.jsonl", "--folds", "2", "--out", "w.safetensors", "--json", "late.json"],
                          cwd=WORK, capture_output=True, text=True, preexec_fn=little_room)
    check(done.returncode == 1 and "w.safetensors" in done.stderr, "a reward model that finds no room fails")
    check(not os.path.exists(os.path.join(WORK, "w.safetensors")), "and leaves no half of itself")
    late = json.loads(read("late.json"))
    check("reward_accuracy" in late and "error" in late, "and what was known by then is in --json, with the error")
    # Two processes, one run; other contents under the same name; more iterations.
    ppo = ["ppo", "--prompts", "p.jsonl", "--run", "run", "--ppo-prompts", "8", "--iterations", "4000"]
    first = subprocess.Popen([PLUMB, *ppo], cwd=WORK,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not os.path.exists(os.path.join(WORK, "run/metrics.csv")) and time.monotonic() < deadline:
        time.sleep(0.02)
    fails("a second process in one run", *ppo, says=["another process uses this run"])
    first.send_signal(signal.SIGINT)
    first.wait()
    ppo = ["ppo", "--prompts", "p.jsonl", "--run", "grow", *SMALL_PPO]
    check(run(*ppo, "--iterations", "2", "--checkpoint-every", "1")[0] == 0, "ppo: two iterations")
    check(os.path.exists(os.path.join(WORK, "grow/policy.safetensors.previous")), "two checkpoints are kept")
    check(run(*ppo, "--iterations", "3", "--checkpoint-every", "1")[0] == 0 and
          len(read("grow/metrics.csv").splitlines()) == 4, "the same run goes on to a third")
    fails("the run with fewer iterations", *ppo, "--iterations", "2", "--checkpoint-every", "1", says=["'iterations'"])
    write("p.jsonl", {"id": "one", "prompt": "One night"}, {"id": "two", "prompt": "Lily"})
    fails("the run with other prompts in the same file", *ppo, "--iterations", "3", "--checkpoint-every", "1",
          says=["inputs 'prompts'"])
    os.remove(os.path.join(WORK, "grow/metrics.csv"))
    some_inputs()
    code, _, err = run(*ppo, "--iterations", "4", "--checkpoint-every", "1")
    check(code == 0, f"a run whose metrics are gone goes on {err[-200:]}")
    with open(os.path.join(WORK, "grow/policy.safetensors"), "r+b") as file:
        file.truncate(1000)
    fails("a checkpoint cut short", *ppo, "--iterations", "5", "--checkpoint-every", "1",
          says=["grow/policy.safetensors.previous"])
    # Another reference than the model that PPO begins with.
    check(run("ppo", "--model", "grow/policy.safetensors.previous", "--reference", MODEL, "--prompts", "p.jsonl",
              "--run", "more", *SMALL_PPO, "--iterations", "1", "--json", "more.json")[0] == 0, "ppo from a policy, near a reference")
    check(json.loads(read("more.json"))["objective/kl_exact"] > 0, "its KL begins above 0")
    # Names and texts that are not UTF-8: they work, or are refused before work.
    raw = os.path.join(os.fsencode(WORK), b"caf\xe9.jsonl")
    done = subprocess.run([os.fsencode(PLUMB), *map(os.fsencode, generate), b"--out", raw], cwd=WORK, capture_output=True)
    check(done.returncode == 0 and os.path.exists(raw), "a path that is not UTF-8 is written")
    done.stdout.decode(), done.stderr.decode()
    for flag, value in ((b"--stop", b"\xe9"), (b"--annotator", b"\xe9")):
        command = [b"generate", b"--prompts", b"p.jsonl", b"--out", b"y.jsonl"] if flag == b"--stop" else \
                  [b"rank", b"g.jsonl", b"--out", b"y.jsonl"]
        done = subprocess.run([os.fsencode(PLUMB), *command, flag, value], cwd=WORK, capture_output=True, stdin=subprocess.DEVNULL)
        check(done.returncode == 1 and b"UTF-8" in done.stderr, f"{flag.decode()} that is not UTF-8 is refused")
    # Standard output that is full; two responses when two are asked for.
    for words in (["info"], ["chat", "--prompt", "Once", "--max-new-tokens", "2"], ["info", "--help"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([PLUMB, *words], cwd=WORK, stdout=full, stderr=subprocess.PIPE, text=True)
        check(done.returncode != 0 and "standard output" in done.stderr, f"{words[0]} to a full standard output fails")
    code, out, _ = run("chat", "--prompt", "Once", "--responses", "2", "--max-new-tokens", "3")
    check(code == 0 and "[1] Once" in out and "[2] Once" in out, "chat --responses 2 prints two")
    code, out, _ = run("rank", "g.jsonl", "--out", "mine.jsonl", "--annotator", "ann", stdin="1 2\n")
    run("rank", "g.jsonl", "--out", "rule.jsonl", "--labeller", "rule:warm")
    run("rank", "g.jsonl", "--out", "mine.jsonl", "--agreement", "--others", "rule.jsonl", "--json", "agree.json")
    check(json.loads(read("agree.json"))["annotators"] == 2, "rank --agreement --json writes the agreement")


def judges():
    """eval by each judge, reward --test, score: and one model's perplexity."""
    some_inputs()
    run("sft", "s.jsonl", "--epochs", "20", "--lr", "1e-3", "--out", "after.safetensors")
    small = ["--after", "after.safetensors", "--limit", "4", "--max-new-tokens", "8"]
    by_rule = succeeds("eval by a rule", "eval", *small, expect=["win_rate", "win_rate_low", "kl", "judge"])
    check(by_rule.get("judge") == "rule:warm", "eval says who judged")
    program = os.path.join(WORK, "longer.py")
    with open(program, "w") as file:
        file.write("import json, sys\nfor line in sys.stdin:\n"
                   "    print([len(r) for r in json.loads(line)['responses']], flush=True)\n")
    by_command = succeeds("eval by a program", "eval", *small, "--judge", f"command:{sys.executable} {program}")
    check(by_command.get("judged") == 4 and "score_difference" in by_command, "it scored four pairs")
    fails("a judge that fails", "eval", *small, "--judge", "command:false", says=["false"])
    fails("a judge that is none", "eval", *small, "--judge", "rule:cold", says=["rule:warm"])
    succeeds("reward", "reward", "r.jsonl", "--folds", "0", "--out", "reward.safetensors")
    by_model = succeeds("eval by a reward model", "eval", *small, "--judge", "reward.safetensors")
    check(by_model.get("judge") == "reward.safetensors", "a reward model judged")
    answers = succeeds("eval by a person", "eval", *small, "--judge", "person", "--annotator", "ann", stdin="1 2\n" * 4)
    check(answers.get("judged", 0) >= 1 and os.path.exists(os.path.join(WORK, "eval-judgements.jsonl")),
          "a person judged, and the answers are kept")
    again = succeeds("eval by the same person", "eval", *small, "--judge", "person", "--annotator", "ann")
    check(again.get("win_rate") == answers.get("win_rate"), "who is not asked again")
    greedy = succeeds("eval at temperature 0", "eval", *small, "--temperature", "0")
    check(greedy.get("kl_temperature") == 1 and greedy.get("kl", -1) > 0, "reports the KL at temperature 1")
    _, out, _ = run("eval", *small, "--top-k", "5")
    check("at temperature 1 without the filter" in out, "beside filtered samples the KL says of what it is")
    alone = succeeds("eval of one model", "eval")
    check(abs(alone.get("perplexity", 0) - by_rule["perplexity_before"]) < 1e-9, "one model's perplexity")
    # A reward model on rankings that it has not seen, and by itself.
    write("t.jsonl", *({"id": str(i), "prompt": f"Then {i}", "responses": [" a cat", " a big dog ran"],
                        "ranking": [[0], [1]]} for i in range(12)))
    keys = ("reward_accuracy", "reward_nll", "reward_brier", "reward_ece", "reward_accuracy_length_baseline",
            "reward_accuracy_words_baseline", "reward_accuracy_training", "sequences_cut")
    both = succeeds("reward --test", "reward", "r.jsonl", "--folds", "0", "--test", "t.jsonl")["test"]
    check(all(key in both for key in keys), "reward --test reports " + ", ".join(keys))
    check(both["reward_accuracy"] > 0.9 and both["reward_accuracy_words_baseline"] > 0.9 and both["held_out_pairs"] == 12,
          "an easy lesson is learned")
    saved = succeeds("reward --test of a saved model", "reward", "--model", "reward.safetensors", "--test", "t.jsonl")["test"]
    check(abs(saved["reward_accuracy"] - both["reward_accuracy"]) < 1e-9, "a saved reward model gives the same")
    fails("reward --test of a policy", "reward", "--test", "t.jsonl", says=["holds a policy"])
    crossed = succeeds("reward --no-control", "reward", "r.jsonl", "--folds", "2", "--no-control")
    check(crossed["reward_accuracy_shuffled_labels"] is None, "the control can be left out")
    scored = succeeds("score", "score", "t.jsonl", "--judge", "reward.safetensors", "--out", "scored.jsonl",
                      expect=["mean_score", "length_correlation"])
    lines = [json.loads(line) for line in read("scored.jsonl").splitlines()]
    check(all(line["ranking"] == [[0], [1]] for line in lines), "score keeps what else a line says")
    check(len(lines) == 12 and all(len(line["scores"]) == 2 for line in lines) and scored["responses"] == 24,
          "score adds two scores to each of twelve lines")
    check(all(line["scores"][0] > line["scores"][1] for line in lines), "and they are the model's")
    linear_heads(small)
    # A chat form is saved with the model, and stands around its prompts from then on.
    succeeds("sft with a chat form", "sft", "s.jsonl", "--before-prompt", "Q: ", "--after-prompt", " A:", "--epochs", "0",
             "--out", "chat.safetensors")
    _, plain, _ = run("generate", "--prompts", "p.jsonl", "--limit", "1", "--max-new-tokens", "12", "--out", "-")
    _, framed, _ = run("generate", "--model", "chat.safetensors", "--prompts", "p.jsonl", "--limit", "1",
                       "--max-new-tokens", "12", "--out", "-")
    check(json.loads(plain)["responses"] != json.loads(framed)["responses"], "the chat form reaches generation")


def linear_heads(small):
    """A linear head on a frozen trunk, wherever a reward model goes; and heads that are of no use."""
    lines = [{"id": str(i), "prompt": f"Then {i}", "responses": [" a cat", " a big dog ran", " it was fun"],
              "ranking": [[0], [1, 2]]} for i in range(12)]
    write("k.jsonl", *lines)
    made = succeeds("reward --head linear", "reward", "k.jsonl", "--head", "linear", "--out", "head.safetensors",
                    "--test", "t.jsonl", expect=["reward_accuracy_without_length", "reward_fit"])
    check(made["reward_accuracy"] > 0.9 and "layer" in made["reward_fit"], "an easy lesson is learned by a head")
    check(os.path.getsize(os.path.join(WORK, "head.safetensors")) < 4096, "its file is small")
    kept = read_bytes("head.safetensors.features")
    code, out, err = run("reward", "k.jsonl", "--head", "linear", "--out", "head.safetensors", "--no-control")
    check(code == 0 and "features of" not in err, "features that are kept are not computed again")
    check(read_bytes("head.safetensors.features") == kept, "nor their file written")
    write_bytes("head.safetensors.features", kept[:-1] + b"x")
    code, out, err = run("reward", "k.jsonl", "--head", "linear", "--out", "head.safetensors", "--no-control")
    check(code == 0 and "corrupt" in err and "computed again" in err, "damaged ones are, and that is said")
    check(read_bytes("head.safetensors.features") == kept, "and come out the same")
    info = succeeds("info of a head", "info", "--model", "head.safetensors", expect=["layer", "pool", "trunk_fingerprint"])
    check(info["trunk"].endswith("stories260K.bin"), "info says which model a head reads")
    alone = succeeds("reward --test of a head", "reward", "--model", "head.safetensors", "--test", "t.jsonl")["test"]
    check(abs(alone["reward_accuracy"] - made["test"]["reward_accuracy"]) < 1e-9, "a saved head gives the same")
    scored = succeeds("score by a head", "score", "t.jsonl", "--judge", "head.safetensors", "--out", "headed.jsonl")
    check(scored["responses"] == 24, "a head scores")
    succeeds("eval by a head", "eval", *small, "--judge", "head.safetensors", expect=["win_rate", "score_difference"])
    succeeds("ppo by a head", "ppo", "--reward", "head.safetensors", "--run", "by-head", "--iterations", "1", *SMALL_PPO,
             "--separate-value", expect=["objective/scores"])
    succeeds("align by heads", "align", "--run", "heads", *SMALL, "--rounds", "2", "--reward-head", "linear",
             expect=["win_rate", "reward_accuracy"])
    check(os.path.exists(os.path.join(WORK, "heads/features.safetensors")), "the rounds of align share their features")
    ensemble = ["reward", "k.jsonl", "--head", "linear", "--heads", "4", "--pessimism", "0.5", "--no-control"]
    several = succeeds("reward --heads", *ensemble, "--out", "several.safetensors", "--test", "t.jsonl",
                       expect=["reward_disagreement", "reward_heads_agree", "reward_accuracy_heads_agree"])
    check(several["reward_disagreement"] > 0 and several["test"]["reward_disagreement"] > 0, "heads of other draws disagree")
    check("reward_disagreement" not in made and "4 heads" in several["reward_fit"], "one head does not")
    again = succeeds("reward --test of heads", "reward", "--model", "several.safetensors", "--test", "t.jsonl")["test"]
    check(abs(again["reward_disagreement"] - several["test"]["reward_disagreement"]) < 1e-9, "saved heads give the same")
    info = succeeds("info of heads", "info", "--model", "several.safetensors", expect=["layer", "heads"])
    check(info["heads"] == 4 and info["pessimism"] == 0.5, "info says how many, and their pessimism")
    succeeds("score by heads", "score", "t.jsonl", "--judge", "several.safetensors", "--out", "several.jsonl",
             expect=["mean_disagreement"])
    first = json.loads(read_bytes("several.jsonl").splitlines()[0])
    check(len(first["disagreement"]) == len(first["scores"]) and "disagreement" not in json.loads(
        read_bytes("headed.jsonl").splitlines()[0]), "score writes their disagreement, and none of one head")
    succeeds("ppo by heads", "ppo", "--reward", "several.safetensors", "--run", "by-heads", "--iterations", "1", *SMALL_PPO,
             "--separate-value", expect=["objective/scores"])
    fails("heads of a trunk that learns", "reward", "k.jsonl", "--head", "full", "--heads", "4", says=["heads", "HINT"])
    fails("pessimism of one head", "reward", "k.jsonl", "--head", "linear", "--pessimism", "1", says=["pessimism", "HINT"])
    # What a ranking weighs, and margins by the data.
    write("m.jsonl", *({"prompt": f"Then {i}", "chosen": " a cat", "rejected": " a big dog ran", "margin": 1 + i % 3}
                       for i in range(12)))
    for head in ("linear", "full"):
        succeeds(f"reward --margin-by data, {head}", "reward", "m.jsonl", "--head", head, "--folds", "2", "--no-control",
                 "--margin-by", "data", "--weight", "comparison", "--epochs", "1", expect=["reward_accuracy"])
        fails(f"margins that no data say, {head}", "reward", "k.jsonl", "--head", head, "--margin-by", "data", "--folds", "2",
              says=["margin-by", "HINT"])
    fails("a layer that is not there", "reward", "k.jsonl", "--head", "linear", "--layer", "6", says=["layer", "at most 5"])
    fails("a head as a model", "generate", "--model", "head.safetensors", "--out", "x.jsonl", says=["head.safetensors"])
    run("convert", "--out", "trunk.safetensors")
    run("reward", "k.jsonl", "--model", "trunk.safetensors", "--head", "linear", "--folds", "0", "--out", "moved.safetensors")
    shutil.copy(os.path.join(WORK, "after.safetensors"), os.path.join(WORK, "trunk.safetensors"))
    fails("a head whose trunk has changed", "score", "t.jsonl", "--judge", "moved.safetensors", "--out", "x.jsonl",
          says=["trunk.safetensors", "another", "HINT"])
    os.remove(os.path.join(WORK, "trunk.safetensors"))
    fails("a head whose trunk is gone", "score", "t.jsonl", "--judge", "moved.safetensors", "--out", "x.jsonl",
          says=["trunk.safetensors", "not there", "HINT"])


def rankings():
    """What rankings are worth: agreement, ratings of systems, and what to ask next."""
    # Three systems on 40 prompts; of four votes `new` wins three against `mid`, of five `mid` four against `old`.
    votes = []
    for i in range(40):
        for better, worse, every in (("new", "mid", 4), ("mid", "old", 5), ("new", "old", 7)):
            turned = i % every == 0
            votes.append({"id": f"{i} {better} {worse}", "prompt": f"prompt {i}", "responses": [f"{better} {i}", f"{worse} {i}"],
                          "ranking": [[1], [0]] if turned else [[0, 1]] if i % 10 == 1 else [[0], [1]],
                          "systems": [better, worse], "annotator": ("ann", "bob", "cem")[i % 3], "seconds": 5 + i})
    write("votes.jsonl", *votes, {"prompt": "x", "responses": ["a", "b"], "ranking": [[0], [1]]})
    for method in ("bt", "davidson", "pl"):
        rated = succeeds(f"ratings by {method}", "ratings", "votes.jsonl", "--method", method, "--bootstrap", "200",
                         expect=["systems", "fragility", "votes", "prompts", "draws"])
        systems = rated.get("systems", [])
        check([s["system"] for s in systems] == ["new", "mid", "old"], f"ratings by {method}: the best first")
        check(abs(sum(s["rating"] for s in systems)) < 1e-9, f"ratings by {method}: of sum 0")
        check(all(s["low"] < s["rating"] < s["high"] and s["drawn_low"] < s["rating"] < s["drawn_high"] for s in systems),
              f"ratings by {method}: within their intervals")
        fragile = rated.get("fragility", {})
        check(fragile.get("first") == "new" and fragile.get("rival") == "mid" and 0 < fragile.get("withdrawn", 0) < 60
              and len(fragile.get("ids", [])) == fragile.get("withdrawn"), f"ratings by {method}: how few votes it hangs on")
        check(rated.get("prompts") == (37 if method == "pl" else 40) and rated.get("without_systems") == 1 and ("ties" in rated) == (method == "davidson"),
              f"ratings by {method}: of so many prompts")
    beside = succeeds("ratings beside one", "ratings", "votes.jsonl", "--reference", "old", "--bootstrap", "0")
    check(beside["systems"][-1] == {**beside["systems"][-1], "system": "old", "rating": 0, "low": 0, "high": 0} and
          "drawn_low" not in beside["systems"][0], "ratings: the reference has 0, and without draws nothing is drawn")
    code, out, err = run("ratings", "votes.jsonl")
    for text in ("3 systems by Bradley and Terry's model", "1 rankings left out", "beside the mean of all", "1. new  ", "first in ",
                 "mid would come before new"):
        check(text in out, f"ratings: prints {text!r}")
    succeeds("ratings as a page", "ratings", "votes.jsonl", "--report", "ratings.html")
    page = read("ratings.html")
    check(all(text in page for text in ("<!doctype html>", "Votes that the first place hangs on", ">new</th>", "Comes first")) and
          "http" not in page, "ratings: a page that needs nothing else")
    fails("a page over its input", "ratings", "votes.jsonl", "--report", "votes.jsonl", says=["votes.jsonl"])
    fails("ratings beside a stranger", "ratings", "votes.jsonl", "--reference", "newer", says=["newer", "mid, new, old"])
    fails("a method that is none", "ratings", "votes.jsonl", "--method", "elo", says=["'elo'", "bt, davidson, pl"])
    write("sure.jsonl", *(v for v in votes if v["ranking"] == [[0], [1]]))
    fails("a system that is never beaten", "ratings", "sure.jsonl", says=["preferred to mid, new, so", "HINT: --penalty"])
    code, out, err = run("ratings", "sure.jsonl", "--penalty", "0.1")
    check(code == 0 and "held together by a penalty of 0.1" in out, "a penalty gives it a rating, and that is said")
    some_inputs()
    fails("rankings of nobody's responses", "ratings", "r.jsonl", says=["whose", "HINT"])
    told = succeeds("agreement", "rank", "--agreement", "--out", "votes.jsonl",
                    expect=["krippendorff_alpha", "self_agreement", "right_by_dawid_skene", "habits", "position_bias"])
    check([h["annotator"] for h in told["habits"]] == ["(unnamed)", "ann", "bob", "cem"] and
          told["habits"][1]["time"]["median_seconds"] > 5, "agreement: what each leans on, and their time")
    code, out, err = run("rank", "--agreement", "--out", "votes.jsonl", "--report", "agreement.html")
    check(code == 0 and "report: agreement.html" in out and "Do they agree?" in read("agreement.html"), "agreement: as a page")
    fails("a page of nothing", "rank", "r.jsonl", "--out", "x.jsonl", "--report", "x.html", says=["--agreement", "HINT"])
    what_to_ask_next()


def what_to_ask_next():
    """Sets out of several systems' files, drawn with a probability that stays with them as far as the test."""
    for system in ("a", "b"):
        write(f"{system}.jsonl", *({"id": str(i), "prompt": f"Once {i}", "responses": [f" {system} cat {i}", f" a {system} dog ran"],
                                    "model": system} for i in range(30)))
    chosen = succeeds("next at random", "next", "a.jsonl", "b.jsonl", "--count", "12", "--out", "ask.jsonl", expect=["sets", "chosen"])
    lines = [json.loads(line) for line in read("ask.jsonl").splitlines()]
    check(chosen == {"sets": 30, "chosen": 12} and len({line["id"] for line in lines}) == 12, "next: as many as were asked for")
    check(all(line["systems"] == ["a", "a", "b", "b"] and abs(line["probability"] - 0.4) < 1e-6 for line in lines),
          "next: responses of all files together, whose they are, and the chance that they had")
    run("rank", "ask.jsonl", "--out", "asked.jsonl", "--labeller", "rule:warm")
    ranked = [json.loads(line) for line in read("asked.jsonl").splitlines()]
    check(len(ranked) == 12 and all(r["systems"] == ["a", "a", "b", "b"] and r["probability"] == l["probability"]
                                    for r, l in zip(ranked, lines)), "rank: both go into the ranking")
    code, out, err = run("ratings", "asked.jsonl", "--penalty", "0.1")
    check(code == 0 and "12 of them by a rule" in out, "and systems are rated by it")
    write("k.jsonl", *({"id": str(i), "prompt": f"Then {i}", "responses": [" a cat", " a big dog ran", " it was fun"],
                        "ranking": [[i % 2], [1 - i % 2, 2]]} for i in range(12)))
    run("reward", "k.jsonl", "--head", "linear", "--heads", "4", "--folds", "0", "--out", "several.safetensors")
    run("reward", "k.jsonl", "--head", "linear", "--folds", "0", "--out", "one.safetensors")
    sure = succeeds("next by heads", "next", "a.jsonl", "b.jsonl", "--judge", "several.safetensors", "--ranked", "asked.jsonl",
                    "--count", "6", "--out", "unsure.jsonl", expect=["information", "information_of_all"])
    unsure = [json.loads(line) for line in read("unsure.jsonl").splitlines()]
    check(sure["sets"] == 18 and not {u["id"] for u in unsure} & {r["id"] for r in ranked}, "next: not what is ranked")
    check(sure["information"] > sure["information_of_all"] > 0, "next: answers that tell more than others")
    check(len({u["probability"] for u in unsure}) > 1 and all(0.2 * 6 / 18 < u["probability"] + 1e-6 <= 1 + 1e-6 for u in unsure),
          "next: each has its own chance, none less than the random share")
    fails("next by one head", "next", "a.jsonl", "--judge", "one.safetensors", "--out", "x.jsonl", says=["one head", "HINT"])
    fails("nothing left to ask", "next", "ask.jsonl", "--ranked", "asked.jsonl", "--out", "x.jsonl", says=["nothing left", "HINT"])
    fails("two files of one name", "next", "a.jsonl", "./a.jsonl", "--out", "x.jsonl", says=["two files", "HINT"])
    fails("next onto its input", "next", "a.jsonl", "b.jsonl", "--out", "b.jsonl", says=["also the input"])
    fails("no share at random", "next", "a.jsonl", "--random-share", "0", "--out", "x.jsonl", says=["random-share"])
    # An accuracy on what was chosen, for all of which it was chosen.
    write("drawn.jsonl", *({"prompt": f"Then {i}", "responses": [" a cat", " a big dog ran"], "ranking": [[i % 3 // 2], [1 - i % 3 // 2]],
                            "probability": (1, 0.25, 0.5)[i % 3]} for i in range(12)))
    run("reward", "r.jsonl", "--head", "linear", "--folds", "0", "--out", "cat.safetensors")  # the cat is always better
    tested = succeeds("reward --test by probability", "reward", "--model", "cat.safetensors", "--test", "drawn.jsonl")["test"]
    check(abs(tested["reward_accuracy"] - 2 / 3) < 1e-9 and abs(tested["reward_accuracy_of_all"] - 5 / 7) < 1e-9,
          f"each by one over its probability: {tested}")
    plain = succeeds("reward --test without", "reward", "--model", "cat.safetensors", "--test", "k.jsonl")["test"]
    check("reward_accuracy_of_all" not in plain, "where it is not known nothing is said of all")


def people_elsewhere():
    """Rankings from Argilla and Label Studio, and rankings in the forms of others."""
    ranked = [{"value": "reply-2", "rank": 1}, {"value": "reply-1", "rank": 2}]
    with open(os.path.join(WORK, "argilla.json"), "w") as file:
        json.dump([{"fields": {"prompt": f"Say {i}", "reply-1": f"No {i}", "reply-2": f"Yes {i}"}, "external_id": f"a{i}",
                    "responses": [{"user_id": "u1", "status": "submitted", "values": {"order": {"value": ranked}}},
                                  {"user_id": "u2", "status": "discarded", "values": {}}]} for i in range(3)], file)
    items = [{"id": "x", "body": "A"}, {"id": "y", "body": "B"}, {"id": "z", "body": "C"}]
    with open(os.path.join(WORK, "studio.json"), "w") as file:
        json.dump([{"id": 1, "data": {"prompt": "Which?", "items": items}, "annotations": [
            {"completed_by": who, "was_cancelled": False, "result": [{"type": "ranker", "value": {"ranker": {"rank": order}}}]}
            for who, order in ((1, ["z", "x", "y"]), (2, ["z", "y", "x"]))]}], file)
    results = succeeds("data of Argilla and Label Studio", "data", "argilla.json", "studio.json", "--no-tokens")
    said = [f["said"] for f in results["files"]]
    check("3 Argilla's records" in said[0] and "rank nothing: 3" in said[0] and "1 Label Studio's tasks" in said[1], f"data: names them: {said}")
    check([f["pairs"] for f in results["files"]] == [3, 6], "data: one ranking a person")
    both = ("data", "argilla.json", "studio.json", "--export")
    wrote = succeeds("export of rankings", *both, "rankings", "--out", "own.jsonl")
    own = [json.loads(line) for line in read("own.jsonl").splitlines()]
    check(wrote["written"] == 5 and [r["annotator"] for r in own] == ["u1"] * 3 + ["1", "2"], "export: whose each ranking is")
    for form in ("trl", "hh-rlhf"):
        wrote = succeeds(f"export as {form}", *both, form, "--out", f"{form}.jsonl", expect=["ties", "unranked", "identical", "unsaid"])
        back = succeeds(f"{form} read again", "data", f"{form}.jsonl", "--no-tokens")["files"][0]
        check(wrote["written"] == back["pairs"] == back["records"] == 9, f"export as {form}: the same pairs: {wrote} {back}")
    code, out, err = run(*both, "trl", "--out", "-")
    check(code == 0 and len(out.splitlines()) == 9 and "9 pairs of 5 rankings" in err, "export: to standard output")
    fails("an export without a place", "data", "own.jsonl", "--export", "trl", says=["--out"])
    fails("an export onto its input", "data", "own.jsonl", "--export", "trl", "--out", "own.jsonl", says=["own.jsonl"])
    fails("an export of no form", "data", "own.jsonl", "--export", "csv", "--out", "x.jsonl", says=["rankings, trl, hh-rlhf"])
    write("tied.jsonl", {"prompt": "p", "responses": ["a", "b"], "ranking": [[0, 1]]})
    fails("an export of nothing", "data", "tied.jsonl", "--export", "trl", "--out", "x.jsonl", says=["nothing can be written", "1 ties"])


def data():
    """Every command takes every form, in every shape of file; `plumb data` says what a file holds."""
    user, answer = {"role": "user", "content": "Tell me more"}, {"role": "assistant", "content": "Once upon a time"}
    turns = [{"role": "user", "content": "Tell me a story"}, answer, user]
    pairs = [{"prompt": turns[:1 + i % 3 // 2 * 2], "chosen": [{"role": "assistant", "content": f"There was a cat {i}."}],
              "rejected": [{"role": "assistant", "content": f"No {i}"}]} for i in range(20)]
    pairs[3]["rejected"] = pairs[3]["chosen"]
    write("train.jsonl", *pairs, pairs[0])
    with gzip.open(os.path.join(WORK, "train.jsonl.gz"), "wt") as file:
        file.write(read("train.jsonl"))
    with open(os.path.join(WORK, "test.json"), "w") as file:
        json.dump([pairs[5], {"prompt": "Zed", "chosen": " the zebra.", "rejected": " the cat."},
                   {"prompt": "Zed", "completions": [{"response": "a", "overall_score": 3}, {"response": "b", "overall_score": 3}]}],
                  file, indent=1)
    results = succeeds("data", "data", "train.jsonl.gz", "test.json", expect=["files", "leaks", "seconds"])
    train, test = results["files"]
    check([train[k] for k in ("records", "responses", "pairs", "identical", "duplicates")] == [21, 42, 20, 1, 1],
          f"data: counts records, pairs, identical pairs and duplicates: {train}")
    check(train["said"] == "gzip, JSON Lines: 21 pairs (prompt, chosen, rejected)", f"data: says the form: {train['said']}")
    check([test[k] for k in ("records", "pairs", "ties")] == [3, 2, 1] and "a JSON list" in test["said"],
          f"data: forms in a list: {test}")
    check(train["prompts_cut"] == 0 and 0 < train["fill"] <= 1 and train["tokens_longest"] > 20, "data: lengths, fill")
    check(results["leaks"] == [{"file": "test.json", "of": "train.jsonl.gz", "groups": 1, "records": 1}],
          f"data: finds the leak: {results['leaks']}")
    people_elsewhere()
    code, out, err = run("data", "train.jsonl.gz", "test.json")
    for text in ("pairs that decide", "identical responses", "duplicates", "sample, line", "a leak, if one is to test",
                 "batches,", "cut to the context", "Human: Tell me a story"):
        check(text in out, f"data: prints {text!r}")
    code, out, err = run("data", "train.jsonl", "--no-tokens", "--samples", "0")
    check(code == 0 and "tokens" not in out and "sample" not in out, "data: --no-tokens, --samples 0")

    with gzip.open(os.path.join(WORK, "big.jsonl.gz"), "wb", compresslevel=1) as file:
        block = "".join(json.dumps({"prompt": f"Story {i}", "chosen": "a" * 700, "rejected": "b" * 300}) + "\n"
                        for i in range(1000)).encode()
        for _ in range(100):
            file.write(block)
    began = time.time()
    with subprocess.Popen([PLUMB, "data", "big.jsonl.gz", "--no-tokens", "--samples", "0"], cwd=WORK,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status
    check(status == 0 and used.ru_maxrss < 60 * 1024,
          f"data: {100 * len(block) / 1e6:.0f} MB in {used.ru_maxrss // 1024} MB of memory, {time.time() - began:.1f} s")

    write("chat.jsonl", *({"messages": [*turns, {"role": "assistant", "content": f"A cat {i}."}]} for i in range(4)))
    with open(os.path.join(WORK, "p.csv"), "w", newline="") as file:
        file.write('id,prompt\r\n1,"One day, ""Zed"""\r\n2,Lily\r\n')
    _, _, err = run("sft", "chat.jsonl", "--epochs", "1", "--out", "m.safetensors")
    check("4 dialogues (messages)" in err, f"sft: says the form: {err}")
    _, _, err = run("sft", "chat.jsonl", "--epochs", "1", "--micro-tokens", "200", "--out", "m.safetensors")
    check("forward passes of at most 200 tokens" in err and "% full" in err, f"sft: says how full the passes are: {err}")
    succeeds("sft on pairs", "sft", "train.jsonl.gz", "--epochs", "1", "--out", "m.safetensors")
    succeeds("reward on messages", "reward", "train.jsonl.gz", "--folds", "0", "--epochs", "1", "--test", "test.json")
    for name in ("p.csv", "train.jsonl.gz", "chat.jsonl"):
        succeeds(f"generate from {name}", "generate", "--prompts", name, "--limit", "2", "--responses", "2",
                 "--max-new-tokens", "4", "--out", "c.jsonl", "--force")
    first = json.loads(read("c.jsonl").splitlines()[0])
    check(first["prompt"] == turns or "Human: Tell me a story" in first["prompt"], "generate keeps the dialogue")
    succeeds("rank dialogues", "rank", "c.jsonl", "--out", "ranked.jsonl", "--labeller", "rule:warm")
    succeeds("rank pairs again", "rank", "test.json", "--out", "again.jsonl", "--labeller", "rule:warm")
    succeeds("score pairs", "score", "test.json", "--out", "scored.jsonl")
    check(len(json.loads(read("scored.jsonl").splitlines()[1])["scores"]) == 2, "score: two scores")
    succeeds("eval on dialogues", "eval", "--after", "m.safetensors", "--prompts", "chat.jsonl", "--max-new-tokens", "4")
    succeeds("ppo on dialogues", "ppo", "--prompts", "train.jsonl.gz", "--run", "ppo", *SMALL_PPO)
    write("scores.jsonl", *({"instruction": f"One day {i}", "completions": [{"response": "a", "overall_score": i}]}
                            for i in range(12)))
    succeeds("align on any data", "align", "--run", "align", "--sft", "chat.jsonl", "--prompts", "scores.jsonl",
             "--held-out-prompts", "p.csv", *SMALL)

    with open(os.path.join(WORK, "cut.gz"), "wb") as file:
        file.write(gzip.compress(read("train.jsonl").encode())[:-9])
    with open(os.path.join(WORK, "x.parquet"), "wb") as file:
        file.write(b"PAR1\x15\x04\x15")
    fails("a gzip file that is cut short", "reward", "cut.gz", says=["cut.gz, byte", "is cut short", "HINT"])
    fails("Parquet", "data", "x.parquet", says=["x.parquet is Parquet", "to_json"])
    fails("adding to a compressed file", "rank", "c.jsonl", "--out", "train.jsonl.gz", "--labeller", "rule:warm",
          says=["plain text only", "gunzip"])
    write("bad.jsonl", pairs[0], {"prompt": "p"}, pairs[1])
    fails("a record of another form", "reward", "bad.jsonl", says=["bad.jsonl:2: expected a ranking"])
    results = succeeds("data --skip-bad-lines", "data", "bad.jsonl")
    check(results["files"][0]["records"] == 3, "data: a prompt alone is a record, too")


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
    fails("an unknown precision", "info", "--precision", "half", says=["'half' is not one of: float, bf16"])
    bf16 = succeeds("demo --precision bf16", "demo", "--precision", "bf16", "--run", "bf16", *few)
    check(bf16["ratio_first_minibatch"] == 1, "in bf16 the first ratio is exactly 1")
    emulated = succeeds("demo --device emulated --precision bf16", "demo", "--device", "emulated",
                        "--precision", "bf16", "--run", "emulated-bf16", *few)
    policies = [open(os.path.join(WORK, run, "round-0", "policy.safetensors"), "rb").read()
                for run in ("bf16", "emulated-bf16", "cpu")]
    check(policies[0] == policies[1], "in bf16 the emulated CUDA kernels write the CPU's file")
    check(policies[0] != policies[2], "which is not the one that float gives")
    code, out, err = run("chat", "--prompt", "Once upon a time", "--precision=bf16", "--temperature", "0",
                         "--max-new-tokens", "8")
    check(code == 0 and out.startswith("Once upon a time, there was"), "chat in bf16: continues a text")
    if not os.path.exists(os.path.join(os.path.dirname(PLUMB), "plumb-cuda")):
        fails("a device that was not built", "info", "--device", "cuda", says=["./plumb build --cuda"])


def resume():
    stopped_and_resumed("", *SMALL, "--kl-budget", "5")
    for number in (0, 1):
        name = f"round-{number}/policy-best.safetensors"
        check(read_bytes("whole/" + name) == read_bytes("killed/" + name), f"{name} is the same, byte for byte")
        check(read("whole/round-%d/episodes.jsonl" % number) == read("killed/round-%d/episodes.jsonl" % number) != "",
              f"round {number}'s episodes are the same, byte for byte")
    check("best policy within 5 nats" in read("whole/report.html"), "and the report says which it is")
    looked_at("whole", *SMALL, "--kl-budget", "5")
    turned_round("whole")
    stopped_and_resumed("-lora", *SMALL, "--lora-rank", "4", "--lora-layers", "2")
    # Learning directly takes no checkpoints: enough updates that some are cut off between.
    direct = [*SMALL, "--method", "dpo", "--dpo-batch", "2", "--dpo-epochs", "12"]
    stopped_and_resumed("-dpo", *direct)
    stopped_and_resumed("-dpo-lora", *direct, "--lora-rank", "4", "--lora-layers", "2")
    whole = read_bytes("killed-dpo/round-1/policy.safetensors")
    os.remove(os.path.join(WORK, "killed-dpo/round-1/policy.safetensors"))
    check(run("align", "--run", "killed-dpo", "--rounds", "2", *direct)[0] == 0 and
          read_bytes("killed-dpo/round-1/policy.safetensors") == whole, "a policy that is taken away is learned again")


def looked_at(name, *settings):
    """The episodes that a run keeps: what `plumb watch` says of them, and that they change nothing."""
    run("align", "--run", "unseen", "--rounds", "2", *settings, "--episodes-kept", "0", "--json", "unseen.json")
    same = [json.load(open(os.path.join(WORK, one + ".json")))["policy_fingerprint"] for one in (name, "unseen")]
    check(same[0] == same[1] and read("unseen/metrics.csv") == read(name + "/metrics.csv") and
          not os.path.exists(os.path.join(WORK, "unseen/round-0/episodes.jsonl")),
          "without the record of episodes the run is the same, bit for bit")
    lines = [json.loads(line) for number in (0, 1) for line in read(f"{name}/round-{number}/episodes.jsonl").splitlines()]
    check([line["step"] for line in lines] == list(range(6)) and all(len(line["episodes"]) == 8 for line in lines),
          "episodes of every iteration, so many of each")
    shown = succeeds("watch", "watch", name, "--iteration", "4", expect=["values", "alarms"])
    check(shown["step"] == 4 and shown["episodes"] == lines[4]["episodes"], "watch: the iteration that was asked for, as it is kept")
    check(succeeds("watch the newest", "watch", name)["step"] == 5, "watch: else the newest")
    rows = [json.loads(line) for line in read(name + "/metrics.jsonl").splitlines()]
    check(shown["values"]["objective/scores"] == rows[4]["objective/scores"], "watch: with its metrics")
    # All of an iteration's responses: what their tokens get is what the metrics say they get.
    run("ppo", "--run", "seen", "--iterations", "2", "--ppo-prompts", "4", "--ppo-responses", "2",
        "--ppo-max-new-tokens", "16", "--minibatches", "1", "--ppo-epochs", "1", "--checkpoint-every", "1")
    rows = [json.loads(line) for line in read("seen/metrics.jsonl").splitlines()]
    for row, line in zip(rows, map(json.loads, read("seen/episodes.jsonl").splitlines())):
        n = len(line["episodes"])
        reward = sum(sum(e["rewards"]) for e in line["episodes"]) / n
        kl = sum(sum(e["kl_exact"]) for e in line["episodes"]) / n
        check(n == 8 and abs(reward - row["objective/rlhf_reward"]) < 1e-4 and abs(kl - row["objective/kl_exact"]) < 1e-4,
              f"the tokens' rewards add up: {reward} and {row['objective/rlhf_reward']}")
    e = json.loads(read("seen/episodes.jsonl").splitlines()[1])["episodes"][3]
    code, out, err = run("watch", "seen", "--iteration", "1", "--sample", "3")
    table = [line for line in out.splitlines() if re.match(r" +\d+  ", line)]
    check(code == 0 and len(table) == len(e["tokens"]) and "response 3 of 8" in out and "response 2" not in out and
          f"{e['advantages'][0]:.4f}" in table[0] and json.dumps(e["text"][0], ensure_ascii=False) in table[0],
          f"watch: a line a token, with its numbers: {table[:1]}")
    fails("watch an iteration that is none", "watch", name, "--iteration", "6", says=["iteration 6", "HINT"])
    fails("watch a sample that is none", "watch", name, "--sample", "8", says=["--sample 8", "0 to 7"])
    fails("watch a run that keeps none", "watch", "unseen", says=["unseen", "--episodes-kept"])
    fails("watch nothing", "watch", "nowhere", says=["nowhere", "HINT"])
    with open(os.path.join(WORK, "seen/episodes.jsonl"), "a") as file:
        file.write("no line of a run\n")
    fails("go on with a file of something else", "ppo", "--run", "seen", "--iterations", "3", "--ppo-prompts", "4", "--ppo-responses", "2",
          "--ppo-max-new-tokens", "16", "--minibatches", "1", "--ppo-epochs", "1", "--checkpoint-every", "1",
          says=["episodes.jsonl", "without a step", "HINT"])


def turned_round(name):
    """whatif: a round again from its manifest, bitwise; then with one ranking turned round."""
    def everything():
        found = {}
        for folder, _, files in os.walk(os.path.join(WORK, name)):
            for file in files:
                found[os.path.join(folder, file)] = (open(os.path.join(folder, file), "rb").read(), os.stat(os.path.join(folder, file)).st_mtime_ns)
        return found
    before = everything()
    lines = [json.loads(line) for line in read(name + "/round-1/rankings.jsonl").splitlines()]
    which = next(i for i, line in enumerate(lines) if len(line["ranking"]) > 1)
    told = succeeds("whatif", "whatif", name, "--round", "1", "--ranking", str(which), "--check",
                    expect=["policy_before", "rewards_changed", "tokens_changed", "ranked_scores_before"])
    place = f"{name}-whatif-1-{which}"
    check(told["unchanged_is_the_run"] is True, "whatif: without the change the round is the run's own, bit for bit")
    check(told["policy_before"] == json.load(open(os.path.join(WORK, name + ".json")))["policy_fingerprint"],
          "whatif: what it compares with is the run's policy")
    if told["policy_after"] == told["policy_before"]:
        check(False, "whatif: this ranking is one that the reward model is fitted to")
    rank = told["rank_before"]
    check(all(rank[i] == place for place, group in enumerate(lines[which]["ranking"]) for i in group) and
          told["rank_after"] == [max(rank) - r if r >= 0 else r for r in rank],
          f"whatif: the order turned round: {rank}, {told['rank_after']}")
    again = [json.loads(line) for line in read(place + "/turned/round-1/rankings.jsonl").splitlines()]
    check(again[which] == {**lines[which], "ranking": lines[which]["ranking"][::-1]}, "whatif: the last is first")
    check([a == b for a, b in zip(lines, again)] == [i != which for i in range(len(lines))], "whatif: that ranking alone is another")
    changed = [a for a in told["answers"] if a["first_difference"] is not None]
    check(len(told["answers"]) == 8 and len(changed) == told["answers_changed"], f"whatif: {len(changed)} answers of 8 change")
    check(all(a["before"][:a["first_difference"]] == a["after"][:a["first_difference"]] for a in changed) and
          all(a["before"] == a["after"] for a in told["answers"] if a["first_difference"] is None),
          "whatif: up to the first difference they are the same")
    own = [json.loads(line)["responses"][0] for line in read(name + "/samples-after.jsonl").splitlines()]
    check(["".join(a["before"]) for a in told["answers"]] == own, "whatif: the answers before are those of the run's own evaluation")
    check(told["rewards_changed"] == 8 and told["ranked_scores_before"] != told["ranked_scores_after"], "whatif: rewards change")
    check(json.load(open(os.path.join(WORK, place, "whatif.json"))) == told, "whatif: what it found lies in its directory")
    check(everything() == before, "whatif: of the run nothing is written")
    fails("whatif into a directory that is there", "whatif", name, "--round", "1", "--ranking", str(which), says=["is there already", "HINT"])
    fails("whatif of a round that is none", "whatif", name, "--round", "2", "--ranking", "0", says=["round 2", "has not ended", "HINT"])
    fails("whatif of a ranking that is none", "whatif", name, "--ranking", "99", says=["has 20 rankings", "99"])
    fails("whatif of no run of align", "whatif", "seen", says=["not of plumb align"])
    shutil.copytree(os.path.join(WORK, name), os.path.join(WORK, "edited"))
    config = json.loads(read("edited/config.json"))
    config["inputs"]["prompts"] = "0123456789abcdef"
    write("edited/config.json", config)
    fails("whatif of a run whose prompts are others now", "whatif", "edited", "--ranking", str(which), says=["'prompts'", "0123456789abcdef"])
    check(not os.path.exists(os.path.join(WORK, f"edited-whatif-0-{which}")), "and nothing is left of that")
    text = read("edited/round-0/rankings.jsonl").splitlines()
    tied = json.loads(text[0])
    tied["ranking"] = [sum(tied["ranking"], [])]
    write("edited/round-0/rankings.jsonl", tied, *map(json.loads, text[1:]))
    fails("whatif of a ranking without an order", "whatif", "edited", "--ranking", "0", says=["prefers nothing", "HINT"])


def stopped_and_resumed(name, *settings):
    whole_run, killed_run = "whole" + name, "killed" + name
    began = time.time()
    code, _, err = run("align", "--run", whole_run, "--rounds", "2", *settings, "--json", whole_run + ".json")
    whole_time = time.time() - began
    check(code == 0, "a run that nothing stops ends with 0")
    for isa in ("avx2", "avx512"):
        if isa not in open("/proc/cpuinfo").read():
            print(f"skipped {isa}: this processor lacks it")
            continue
        run("align", "--run", isa + name, "--rounds", "2", *settings, "--json", isa + name + ".json", PLUMB_ISA=isa,
            PLUMB_NUM_THREADS="1")
        a, b = (json.load(open(os.path.join(WORK, one + ".json")))["policy_fingerprint"]
                for one in (whole_run, isa + name))
        check(a == b, f"{isa} on one thread: the same weights, bit for bit")
    generator = random.Random(7)
    kills = 0
    for attempt in range(200):
        process = subprocess.Popen([PLUMB, "align", "--run", killed_run, "--rounds", "2", *settings,
                                    "--json", killed_run + ".json"], cwd=WORK, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            # Parts of a whole run's time, so that the first three cannot do all of it; later ones
            # live longer, so that the run gets on; the signal alternates.
            process.wait(timeout=generator.uniform(0.05, 0.3) * whole_time * (1 + attempt / 8))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL if attempt % 3 else signal.SIGINT)
            process.wait()
            kills += 1
            continue
        if process.returncode == 0:
            break
    check(process.returncode == 0, f"a run that was stopped {kills} times ends with 0")
    check(kills >= 3, f"it was stopped at least 3 times ({kills})")
    whole, killed = (json.load(open(os.path.join(WORK, one + ".json"))) for one in (whole_run, killed_run))
    check(whole["policy_fingerprint"] == killed["policy_fingerprint"],
          f"both end with the same weights, bit for bit ({whole['policy_fingerprint']})")
    for file in ("metrics.csv", "metrics.jsonl", "round-1/candidates.jsonl", "samples-after.jsonl"):
        a, b = (open(os.path.join(WORK, one, file), "rb").read() for one in (whole_run, killed_run))
        check(a == b, f"{file} is the same, byte for byte")


shutil.rmtree(WORK, ignore_errors=True)
os.makedirs(WORK)
start = time.time()
{"commands": commands, "data": data, "errors": errors, "settings": settings, "files": files, "judges": judges,
 "rankings": rankings, "resume": resume, "device": device}[PART]()
print(f"{PART}: {len(failures)} failures in {time.time() - start:.0f} s")
sys.exit(1 if failures else 0)
