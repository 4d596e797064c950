#!/usr/bin/env python3
"""`plumb studio RUN --loop`: a run that is driven through HTTP ends with the weights of `plumb align` on the same
answers, bit for bit; it stops and goes on at any step, and either goes on with what the other left.

usage: studio_loop.py PLUMB WORK_DIRECTORY
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import studio
from studio import Page, Server, check, failures, path

PLUMB, WORK = studio.PLUMB, studio.WORK
SETTINGS = {"rounds": "2", "rank-prompts": "6", "generate-responses": "3", "generate-max-new-tokens": "12",
            "ppo-max-new-tokens": "12", "iterations": "4", "ppo-prompts": "4", "reward-epochs": "1", "eval-prompts": "4",
            "eval-stories": "2", "judge": "person", "checkpoint-every": "1"}


def rank_of(responses):
    """What everybody here says: by length, then by text."""
    order = sorted(range(len(responses)), key=lambda i: (len(responses[i]), responses[i]))
    return [order.index(i) for i in range(len(responses))]


class Loop:
    """A page that drives a run, and who answers its questions."""

    def __init__(self, run, *more):
        self.server = Server(path(run), "--loop", *more)
        if not self.server.port:
            raise RuntimeError(self.server.said)
        self.page = Page(self.server.port)
        self.page.token = self.page.post("session", {})[1]["token"]
        self.opened = self.page.post("open", {})[1]

    def state(self):
        """What an event that comes at once says."""
        cookies = "; ".join(f"{k}={v}" for k, v in self.page.cookies.items())
        for _ in range(100):  # streams that were left count among those that may watch for half a second
            self.page.connection.close()
            self.page.connection.request("GET", "/api/watch", headers={"Cookie": cookies})
            for line in self.page.connection.getresponse():
                if line.startswith(b"data: "):
                    self.page.connection.close()
                    return json.loads(line[6:])["loop"]
            time.sleep(0.1)
        raise RuntimeError("no event came")

    def until(self, wanted, seconds=300):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            at = self.state()
            if wanted(at):
                return at
            if at["state"] == "failed":
                raise RuntimeError(at["error"])
            time.sleep(0.05)
        raise RuntimeError(f"never came: {at}")

    def begin(self, settings=None):
        return self.page.post("begin", {"settings": settings or {}})

    def answer_all(self, count=None):
        """Answers what waits, `count` of it; the state of the desk after that."""
        status, at = self.page.act("sit")
        while status == 200 and at.get("question") and count != 0:
            texts = [one["text"] for one in at["question"]["responses"]]
            status, at = self.page.act("answer", key=at["question"]["key"], rank=rank_of(texts), seconds=1)
            count = count - 1 if count else None
        return status, at

    def to_the_end(self):
        while True:
            at = self.until(lambda at: at["asks"] or at["state"] == "ended")
            if at["state"] == "ended":
                return at["results"]
            what = at["asks"]["what"]
            self.answer_all()
            if what == "rank":
                check(self.page.post("train", {})[0] == 200, "with its rankings it goes on")
            self.until(lambda at: not at["asks"])

    def end(self, how=signal.SIGTERM):
        return self.server.end(how)


def align(run, settings, typed=""):
    """The same run at the terminal."""
    flags = [word for name, value in settings.items() for word in ("--" + name, value)]
    done = subprocess.run([PLUMB, "align", "--run", path(run), "--labeller", "person", "--annotator", "ana", *flags,
                           "--json", path(run + ".json")], input=typed, capture_output=True, text=True, cwd=WORK)
    return done, json.load(open(path(run + ".json"))) if done.returncode == 0 else {}


def refusals():
    loop = Loop("refused")
    names = [one["name"] for one in loop.opened["settings"]]
    check(loop.opened["mode"] == "loop" and {"method", "rounds", "iterations"} <= set(names) and "run" not in names,
          f"a run that has not begun shows its settings: {len(names)}")
    for settings, says in (({"rounds": "0"}, "rounds"), ({"rounds": 2}, "text"), ({"ruonds": "2"}, "no setting"),
                           ({"method": "magic"}, "one of"), ({"labeller": "rule:none"}, "rule:warm"),
                           ({"judge": "person", "eval-responses": "2"}, "eval-responses 1")):
        status, said = loop.begin(settings)
        check(status == 400 and says in said["error"], f"refused in words: {settings}: {said.get('error')}")
    for action, status in (("stop", 409), ("train", 409), ("sit", 410), ("nonsense", 404)):
        check(loop.page.act(action)[0] == status, f"before it has begun, {action}: {status}")
    check(not os.path.exists(path("refused/config.json")), "and nothing was begun")
    check(loop.end()[0] == 0, "SIGTERM ends it")
    done = subprocess.run([PLUMB, "studio", path("refused"), "--loop", "--out", "x"], capture_output=True, text=True)
    check(done.returncode == 1 and "nothing else" in done.stderr, "a loop has its files in the run")


def driven():
    """From the first question to the verdict, on the page."""
    loop = Loop("driven")
    check(loop.begin({**SETTINGS, "rank-prompts": "7", "annotator": "ana"})[0] == 200, "the page begins it")
    check(loop.begin()[0] == 409, "once")
    at = loop.until(lambda at: at["asks"])
    check([step["state"] for step in at["steps"]][:3] == ["done", "now", "later"] and at["asks"]["questions"] == 7,
          "first responses are generated, then people are asked")
    status, said = loop.page.act("train")
    check(status == 400 and "at least 5" in said["error"], f"not on no rankings: {said.get('error')}")
    loop.answer_all(3)
    check(loop.page.post("stop", {})[0] == 200, "it is stopped among the questions")
    loop.until(lambda at: at["state"] == "stopped")
    check(loop.page.act("sit")[0] == 410, "and asks nobody then")
    check(loop.begin({"rounds": "3"})[0] == 409, "settings of a run that has begun stay")
    loop.begin()
    at = loop.until(lambda at: at["asks"])
    check(at["asks"]["rankings"] == 3, "the answers are still there")
    results = loop.to_the_end()
    check(0 <= results["win_rate"] <= 1 and results["judge"] == "person", f"judged on the page: {results['win_rate']}")
    check(loop.state()["steps"][-1]["state"] == "done", "every step is done")
    check(loop.end()[0] == 0, "and it ends")
    return results["policy_fingerprint"]


def at_the_terminal(wanted):
    """The same answers, by plumb align: it stops where a person is asked who says nothing."""
    settings = {**SETTINGS, "rank-prompts": "7"}
    for step in ("round-0/rankings.jsonl", "round-1/rankings.jsonl", "judgements.jsonl"):
        done, _ = align("terminal", settings)
        if step.startswith("round"):
            check(done.returncode == 1 and "holds 0 rankings" in done.stderr, f"nobody answers at {step}")
        shutil.copy(path("driven/" + step), path("terminal/" + step))
    done, results = align("terminal", settings)
    check(results.get("policy_fingerprint") == wanted, f"plumb align ends with the same weights: {wanted}")
    configs = [json.load(open(path(run + "/config.json"))) for run in ("driven", "terminal")]
    check({key for key in configs[0] if configs[0][key] != configs[1][key]} == {"run"}, "of the same settings")


def by_turns(wanted):
    """Begun on the page, killed while it trains, gone on with at the terminal, and ended on the page."""
    settings = {**SETTINGS, "rank-prompts": "7", "annotator": "ana"}
    loop = Loop("turns")
    loop.begin(settings)
    loop.until(lambda at: at["asks"])
    loop.answer_all()
    loop.page.post("train", {})
    loop.until(lambda at: at["progress"] and "4 PPO" in at["progress"]["label"] and at["progress"]["done"] > 0)
    loop.end(signal.SIGKILL)
    done, _ = align("turns", {**SETTINGS, "rank-prompts": "7"})
    check(done.returncode == 1 and "round-1" in done.stderr, "plumb align goes on to the next question")
    loop = Loop("turns")
    check(loop.opened["settings"] is None and loop.state()["begun"], "the page goes on with a run that has begun")
    loop.begin()
    loop.until(lambda at: at["asks"])
    loop.answer_all()
    loop.page.post("train", {})
    loop.until(lambda at: at["progress"] and "4 PPO" in at["progress"]["label"] and at["progress"]["done"] > 0)
    check(loop.page.post("stop", {})[0] == 200, "stopped while it trains")
    check(loop.until(lambda at: at["state"] in ("stopped", "ended"))["state"] == "stopped", "it stops after a step")
    loop.begin()
    results = loop.to_the_end()
    check(results["policy_fingerprint"] == wanted, "the same weights as if nothing had stopped it")
    loop.page.post("open", {})
    check(loop.end()[0] == 0, "and it ends")


def directly():
    """A method without a reward model, and a rule that judges."""
    loop = Loop("direct")
    loop.begin({**SETTINGS, "method": "dpo", "judge": "rule:warm", "rounds": "1"})
    names = [step["name"] for step in loop.until(lambda at: at["asks"])["steps"]]
    check(names == ["Generate", "Rank", "Train by dpo", "Judge by rule:warm"], f"its steps: {names}")
    results = loop.to_the_end()
    check(results["method"] == "dpo" and "accuracy" not in results, "rankings are learned from directly")
    loop.end()


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    began = time.monotonic()
    refusals()
    wanted = driven()
    at_the_terminal(wanted)
    by_turns(wanted)
    directly()
    print(f"{time.monotonic() - began:.0f} s, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
