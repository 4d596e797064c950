#!/usr/bin/env python3
"""`plumb studio` through HTTP: who gets in, what is malformed, large, slow or many, two annotators at once,
a full disk, and kill -9 while answers are written. Nothing that was acknowledged is lost.

usage: studio.py PLUMB WORK_DIRECTORY [KILLS]
"""
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

PLUMB, WORK = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
KILLS = int(sys.argv[3]) if len(sys.argv) > 3 else 20
failures = []


def check(ok, what):
    if not ok:
        failures.append(what)
    print(("ok      " if ok else "FAILED  ") + what, flush=True)


def path(name):
    return os.path.join(WORK, name)


def candidates(name, count, k=3):
    with open(path(name), "w") as file:
        for i in range(count):
            file.write(json.dumps({"id": f"c{i}", "prompt": f"Prompt {i}",
                                   "responses": [f"response {j} to {i}" for j in range(k)]}) + "\n")
    return path(name)


class Server:
    def __init__(self, *arguments, before=None):
        self.process = subprocess.Popen([PLUMB, "studio", *arguments, "--port", "0"], stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, cwd=WORK, preexec_fn=before,
                                        restore_signals=before is None)
        self.said, self.port = "", 0
        for line in self.process.stdout:
            self.said += line
            if found := re.search(r"Open http://[^:/]+:(\d+)/", line):
                self.port = int(found.group(1))
                return

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1)) * 1024


class Page:
    """What the page does, as one browser: cookies, a token, one connection that is opened again when it closes."""

    def __init__(self, port, name="ana", query=""):
        self.port, self.name, self.cookies, self.token = port, name, {}, ""
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.raw("GET", "/" + query)

    def raw(self, method, target, body=None, headers=None):
        headers = dict(headers or {})
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        for again in (True, False):
            try:
                self.connection.request(method, target, body, headers)
                reply = self.connection.getresponse()
                text = reply.read()
                break
            except (http.client.HTTPException, ConnectionError):
                self.connection.close()
                if not again:
                    raise
        for cookie in reply.headers.get_all("Set-Cookie") or []:
            key, value = cookie.split(";")[0].split("=", 1)
            self.cookies[key] = value
        return reply, text

    def headers(self, **other):
        own = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{self.port}", "X-Plumb-Token": self.token}
        own.update({k.replace("_", "-"): v for k, v in other.items()})
        return {k: v for k, v in own.items() if v is not None}

    def post(self, action, body, **other):
        text = body if isinstance(body, (bytes, str)) else json.dumps(body)
        reply, said = self.raw("POST", "/api/" + action, text, self.headers(**other))
        return reply.status, json.loads(said)

    def act(self, action, **more):
        status, said = self.post(action, {"name": self.name, **more})
        if status == 403 and said.get("kind") == "session":
            self.token = self.post("session", {})[1]["token"]
            status, said = self.post(action, {"name": self.name, **more})
        return status, said


def answer(page, at, **more):
    ranks = list(range(len(at["question"]["responses"])))
    random.shuffle(ranks)
    return page.act("answer", key=at["question"]["key"], rank=ranks, seconds=1.5, **more)


def lines(name):
    with open(path(name), "rb") as file:
        return [json.loads(line) for line in file.read().split(b"\n") if line.strip()]


def files_and_guards(server):
    page = Page(server.port)
    reply, html = page.raw("GET", "/")
    policy = reply.headers["Content-Security-Policy"]
    check(reply.status == 200 and b"<title>Plumb studio" in html, "the page is served")
    check("default-src 'none'" in policy and "unsafe" not in policy and "script-src 'self'" in policy,
          "its policy allows its own files alone")
    check(reply.headers["X-Content-Type-Options"] == "nosniff", "types are not guessed")
    total = 0
    for name in re.findall(r'(?:src|href)="/([\w.]+)"', html.decode()):
        reply, content = page.raw("GET", "/" + name)
        total += len(content)
        again, nothing = page.raw("GET", "/" + name, headers={"If-None-Match": reply.headers["ETag"]})
        check(reply.status == 200 and again.status == 304 and nothing == b"", f"{name} is served, and not again")
        check(not re.search(rb"https?://(?!www\.w3\.org/)", content), f"{name} names no other server")
    script = page.raw("GET", "/chat.js")[1]  # the page asks for it where there is a model to talk to
    total += len(script)
    check(0 < len(html) + total <= 150000, f"the page has {len(html) + total} bytes, of 150000")
    for name in ("studio.js", "samples.js", "whatif.js", "loop.js", "chat.js"):
        check(not re.search(rb"innerHTML|outerHTML|insertAdjacent|document\.write", page.raw("GET", "/" + name)[1]),
              f"no text becomes HTML in {name}")
    for target in ("/../CMakeLists.txt", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "//etc/passwd",
                   "/candidates.jsonl", "/rankings.jsonl", "/api/sit", "/" + "a" * 4000, "/index.html/..", "/\\..\\"):
        check(page.raw("GET", target)[0].status == 404, f"there is no {target[:40]}")
    check(page.raw("DELETE", "/studio.js")[0].status == 404, "nothing can be deleted")

    check(page.post("sit", {"name": "ana"})[0] == 403, "no session, no action")
    page.token = page.post("session", {})[1]["token"]
    check(page.post("sit", {"name": "ana"})[0] == 200, "with a session and its token there is")
    for what, other in {"no Origin": {"Origin": None}, "another Origin": {"Origin": "http://evil.example"},
                        "Origin null": {"Origin": "null"}, "no token": {"X_Plumb_Token": None},
                        "another token": {"X_Plumb_Token": "0" * 32}, "a rebound Host": {"Host": "evil.example"},
                        "a rebound Host and Origin": {"Host": "evil.example", "Origin": "http://evil.example"}}.items():
        check(page.post("sit", {"name": "ana"}, **other)[0] == 403, f"refused: {what}")
    check(page.post("sit", {"name": "ana"}, Content_Type="text/plain")[0] == 415, "refused: what a form can send")
    check(page.raw("GET", "/", headers={"Host": "evil.example"})[0].status == 403, "the page itself, for a rebound Host")
    cookie = page.raw("POST", "/api/session", "{}", {**page.headers(), "Cookie": ""})[0].headers["Set-Cookie"] or ""
    stranger = Page(server.port)
    stranger.token = page.token
    check(stranger.post("sit", {"name": "ana"})[0] == 403, "refused: a token without its cookie")
    cookie = stranger.raw("POST", "/api/session", "{}", stranger.headers())[0].headers["Set-Cookie"]
    check("HttpOnly" in cookie and "SameSite=Strict" in cookie, "the cookie is the server's alone")


def wrong_bodies(server):
    page = Page(server.port)
    status, at = page.act("sit")
    check(page.post("answer", "x" * 70000)[0] == 413, "a body that is too large is refused")
    rng = random.Random(1)
    good = json.dumps({"name": "ana", "key": at["question"]["key"], "rank": [0, 1, 2], "unusable": [], "comment": "c"})
    seen = set()
    for _ in range(300):
        text = bytearray(good.encode())
        for _ in range(rng.randint(1, 6)):
            where = rng.randrange(len(text))
            text[where:where + rng.randint(0, 3)] = bytes(rng.choice(b'{}[]",:\\0159-e\xff\x00\xed') for _ in range(rng.randint(0, 3)))
        seen.add(page.post("skip" if rng.random() < 0.1 else "answer", bytes(text))[0])
        seen.add(page.post("undo", {"name": "ana", "key": ""})[0])
    check(seen <= {200, 400, 409}, f"damaged bodies are refused in good order: {sorted(seen)}")
    deep = page.post("sit", "[" * 60000)
    check(deep[0] == 400, "deep JSON is refused")


def rude_connections(server):
    """Connections that say nothing, or slowly, or without end; and one that asks for something meanwhile."""
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
    began = time.monotonic()
    check(Page(server.port, "cleo").act("sit")[0] == 200 and time.monotonic() - began < 15,
          f"among 40 silent connections a page is served, in {time.monotonic() - began:.1f} s")
    for one in silent:
        one.close()
    for text in (b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(200), b"POST /api/sit HTTP/1.1\r\n"
                 b"Content-Length: -5\r\n\r\n", b"POST /api/sit HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 3000 + b"\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as one:
            one.sendall(text)
            one.shutdown(socket.SHUT_WR)
            try:
                one.recv(100)
            except OSError:
                pass
    endless = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    sent = 0
    try:
        while sent < 400_000_000:
            sent += endless.send(b"a" * 65536)
    except OSError:
        pass
    endless.close()
    check(sent < 400_000_000 and server.memory() < 300e6,
          f"a line without an end is cut, after {sent / 1e6:.0f} MB; {server.memory() / 1e6:.0f} MB of memory")
    check(Page(server.port, "cleo").act("sit")[0] == 200, "and a page is served after all that")


class Slow(threading.Thread):
    """Sends a byte now and then, each in time for a limit on single reads."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.seconds = port, 0.0
        self.start()

    def run(self):
        began = time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", self.port)) as one:
                one.sendall(b"GET / HTTP/1.1\r\nX: ")
                one.settimeout(0.01)
                while time.monotonic() - began < 35:
                    one.send(b"y")
                    try:
                        if one.recv(1) == b"":
                            break
                    except TimeoutError:
                        pass
                    time.sleep(0.5)
        except OSError:
            pass
        self.seconds = time.monotonic() - began


def two_at_once():
    count = 500
    server = Server(candidates("many.jsonl", count), "--out", path("both.jsonl"))
    times, wrong = [], []

    def work(name):
        page = Page(server.port, name)
        status, at = page.act("sit")
        for i in range(count):
            began = time.monotonic()
            status, at = answer(page, at, comment=f"{name} {i}")
            times.append(time.monotonic() - began)
            if status != 200:
                wrong.append((name, i, status, at))
                return
        if at["question"] is not None or at["left"] != 0:
            wrong.append((name, "end", at))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("ana", "bob")]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    server.end()
    saved = lines("both.jsonl")
    times.sort()
    check(not wrong, f"two annotators, {count} items each, at once {wrong[:2]}")
    check(len(saved) == 2 * count and len({(r["annotator"], r["id"]) for r in saved}) == 2 * count,
          "every answer is there, once")
    print(f"        {seconds:.1f} s; an answer: median {1e3 * times[len(times) // 2]:.1f} ms, "
          f"99 % within {1e3 * times[len(times) * 99 // 100]:.1f} ms")


def killed(tries):
    source, acknowledged, rng = candidates("kill.jsonl", 4000), [], random.Random(7)
    for number in range(tries):
        server = Server(source, "--out", path("killed.jsonl"))

        def work(name):
            try:
                page = Page(server.port, name)
                at = page.act("sit")[1]
                for i in range(1000):
                    comment = f"{name} {number} {i}"
                    status, at = answer(page, at, comment=comment)
                    if status != 200:
                        return
                    acknowledged.append(comment)
            except (OSError, http.client.HTTPException, ValueError):
                pass

        threads = [threading.Thread(target=work, args=(name,)) for name in ("ana", "bob")]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.02, 0.25))
        server.end(signal.SIGKILL)
        for thread in threads:
            thread.join()
    server = Server(source, "--out", path("killed.jsonl"))
    page = Page(server.port)
    done = page.act("sit")[1]["done"]
    server.end()
    saved = lines("killed.jsonl")
    lost = set(acknowledged) - {r["comment"] for r in saved}
    check(len(acknowledged) > tries and not lost,
          f"kill -9, {tries} tries: of {len(acknowledged)} answers acknowledged {len(lost)} are lost")
    check(len({(r["annotator"], r["id"]) for r in saved}) == len(saved), "and none is there twice")
    check(done == sum(r["annotator"] == "ana" for r in saved), "the next sitting counts them")


def full_disk():
    source = candidates("few.jsonl", 5)

    def little_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    server = Server(source, "--out", path("full.jsonl"), before=little_room)
    page = Page(server.port)
    status, at = page.act("sit")
    statuses = []
    while len(statuses) < 5 and (not statuses or statuses[-1] == 200):
        status, said = answer(page, at)
        statuses.append(status)
        at = said if status == 200 else at
    check(statuses[-1] == 507 and len(statuses) > 1 and said["kind"] == "unsaved" and "full.jsonl" in said["error"],
          f"a full disk is told: {said.get('error')}")
    saved = lines("full.jsonl")
    check(len(saved) == len(statuses) - 1, "and what was saved before stays, whole")
    server.end()
    server = Server(source, "--out", path("full.jsonl"))
    page = Page(server.port)
    status, now = page.act("sit")
    check(status == 200 and now["question"] == at["question"] and answer(page, now)[0] == 200, f"with room again the same question goes on {now if status != 200 else ''}")
    os.remove(path("full.jsonl"))
    status, said = answer(page, page.act("sit")[1])
    check(status == 507 and len(lines("full.jsonl.saved-1")) == 1,
          "a file that was deleted is told, and what it lost is saved beside it")
    server.end()


def refused(*arguments, says):
    done = subprocess.run([PLUMB, "studio", *arguments], capture_output=True, text=True, cwd=WORK, timeout=60)
    check(done.returncode != 0 and says in done.stderr, f"refused: {' '.join(arguments[-2:])}: {says}"
          + ("" if says in done.stderr else f", not {done.stderr}"))


def addresses():
    source = candidates("tokens.jsonl", 3)
    refused(source, "--out", path("t.jsonl"), "--host", "0.0.0.0", says="--token WORD")
    refused(source, "--out", path("t.jsonl"), "--token", "short", says="8 to 128 letters")
    refused(source, "--out", "/proc/nothing.jsonl", says="nothing.jsonl")
    refused(path("."), "--out", path("t.jsonl"), says="round-0/candidates.jsonl")
    server = Server(source, "--out", path("t.jsonl"), "--token", "open-sesame")
    check("?token=open-sesame" in server.said, "the address that is printed has the token")
    check(Page(server.port).act("sit")[0] == 401, "without it nobody gets in")
    check(Page(server.port, query="?token=open-sesamE").act("sit")[0] == 401, "nor with another")
    check(Page(server.port, query="?token=open-sesame").act("sit")[0] == 200, "with it one does")
    refused(source, "--out", path("t.jsonl"), "--port", "0", says="another program adds to")
    refused(source, "--out", path("u.jsonl"), "--port", str(server.port), says="another program may have that port")
    code, out = server.end(signal.SIGINT)
    check(code == 0 and "0 rankings" in out, "Ctrl-C ends it, and says what there is")


def a_run():
    os.makedirs(path("run/round-1"))
    os.makedirs(path("run/round-0"))
    shutil.copy(candidates("tokens.jsonl", 3), path("run/round-0/candidates.jsonl"))
    shutil.copy(candidates("tokens.jsonl", 4), path("run/round-1/candidates.jsonl"))
    server = Server(path("run"))
    page = Page(server.port)
    answer(page, page.act("sit")[1])
    server.end()
    check(len(lines("run/round-1/rankings.jsonl")) == 1, "of a run, the newest round is ranked, in its own file")


def rows(name, first, last):
    os.makedirs(path(name), exist_ok=True)
    new = not os.path.exists(path(name + "/metrics.csv"))
    with open(path(name + "/metrics.csv"), "a") as file:
        if new:
            file.write("step,objective/scores,response/length,policy/entropy_avg\n")
        for i in range(first, last):
            file.write(f"{i},{i / 10},{20 if i < 5 else 90},{2.0 - i / 10}\n")


def events(page, last=""):
    """The stream of events, each as its id and data."""
    page.connection.close()
    headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in page.cookies.items())}
    page.connection.request("GET", "/api/watch", headers={**headers, **({"Last-Event-ID": last} if last else {})})
    reply = page.connection.getresponse()
    if reply.status != 200:
        reply.read()
        return
    name = ""
    for line in reply:
        text = line.decode().rstrip("\n")
        if text.startswith("id: "):
            name = text[4:]
        if text.startswith("data: "):
            yield name, json.loads(text[6:])["runs"]


class Watcher(threading.Thread):
    """A page that watches until its stream ends."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.seconds, self.whole = port, 0.0, False
        self.start()

    def run(self):
        began, page = time.monotonic(), Page(self.port)
        page.token = page.post("session", {})[1]["token"]
        try:
            reply, text = page.raw("GET", "/api/watch")
            self.whole = reply.status == 200 and b"data: " in text and text.endswith(b"\n\n")
        except (OSError, http.client.HTTPException):
            pass
        self.seconds = time.monotonic() - began


def episodes(page):
    """The samples of an iteration; a run is named by its place, and by nothing else."""
    sample = {"prompt": "p", "text": [" a", "</script>"], "tokens": [5, 6]}
    with open(path("run-a/episodes.jsonl"), "w") as file:
        file.write(json.dumps({"step": 0, "episodes": [sample]}, separators=(",", ":")) + "\n")
    status, said = page.post("episodes", {"run": 0, "iteration": 0})
    check(status == 200 and said["episodes"] == [sample] and said["values"]["objective/scores"] == 0, "the episodes of an iteration")
    check(page.post("episodes", {"run": 0, "iteration": None})[1]["step"] == 0, "and of the newest")
    for body, expected in (({"run": 2, "iteration": 0}, 404), ({"run": 0, "iteration": 7}, 404), ({"run": 1, "iteration": 0}, 404),
                           ({"run": 0, "iteration": 2 ** 64 - 1}, 404), ({"run": "run-a", "iteration": 0}, 400),
                           ({"run": "/etc", "iteration": 0}, 400), ({"run": -1, "iteration": 0}, 400),
                           ({"run": 0.5, "iteration": 0}, 400), ({"run": 0, "iteration": "0"}, 400), ({"run": 0}, 400),
                           ({"iteration": 0}, 400), ([0, 0], 400), ("not json", 400), (b"\xff\xfe", 400)):
        status, said = page.post("episodes", body)
        check(status == expected and "error" in said, f"episodes of {body}: {status}, {said.get('kind')}")
    check(page.post("ranking", {"run": 0, "round": 0, "ranking": 0})[0] == 404, "a run without rankings has none")
    check(page.post("turn", {"run": 0, "round": "/../..", "ranking": 0})[0] == 400, "and a round is a number")
    check(page.post("episodes", {"run": 0, "iteration": 0}, X_Plumb_Token="none")[0] == 403, "without its token a page gets nothing")


def watched():
    rows("run-a", 0, 3)
    os.makedirs(path("run-b"))
    server = Server("--watch", path("run-a"), path("run-b"))
    check(list(events(Page(server.port))) == [], "no session, nothing to watch")
    page = Page(server.port)
    page.token = page.post("session", {})[1]["token"]
    check(page.post("open", {}) == (200, {"mode": "watch"}), "the page is told that there are runs")
    stream = events(page)
    name, runs = next(stream)
    check(name == "3,0" and [row["step"] for row in runs[0]["rows"]] == [0, 1, 2] and runs[1]["rows"] == [],
          "what is there comes at once")
    check(runs[0]["rows"][2]["values"]["objective/scores"] == 0.2, "with its values")
    rows("run-a", 3, 7)
    rows("run-b", 0, 1)
    name, runs = next(stream)
    while name != "7,1":  # two files, perhaps two looks
        name, runs = next(stream)
    check(len(runs[0]["rows"]) in (0, 4) and any("tokens" in text for text in runs[0]["alarms"]),
          f"then what is new, and what is alarming: {runs[0]['alarms']}")
    again = next(events(page, "5,1"))
    check(again[1][0]["from"] == 5 and len(again[1][0]["rows"]) == 2 and again[1][1]["rows"] == [],
          "who was cut off gets what they lack")
    os.remove(path("run-a/metrics.csv"))
    rows("run-a", 0, 2)
    again = next(events(page, "7,1"))
    check(again[0] == "2,1" and again[1][0]["from"] == 0 and len(again[1][0]["rows"]) == 2, "a run that went back, anew")
    page.connection.close()
    episodes(page)
    check(server.end()[0] == 0, "and it ends while pages watch")
    refused("--watch", path("nowhere"), says="no directory of a run")


def chatted():
    """Models to talk to: two people at once, bodies that are none, and the end while a model speaks."""
    model = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../examples/data/stories260K.bin"))
    server = Server("--chat", model, model, "--max-new-tokens", "40", "--temperature", "0.5", "--seed", "7")
    check("Two models, side by side" in server.said, "it says what is there")
    ana, bob = Page(server.port), Page(server.port, "bob")
    check(ana.post("open", {})[0] == 403, "no session, no chat")
    for page in (ana, bob):
        page.token = page.post("session", {})[1]["token"]
    status, opened = ana.post("open", {})
    check(status == 200 and opened["mode"] == "chat" and opened["compared"] and len(opened["models"]) == 2
          and opened["settings"] == {"temperature": 0.5, "top-p": 1.0, "max-new-tokens": 40, "seed": 7},
          f"the page is told of the models, and of the program's settings: {opened}")

    def word():
        return "".join(random.choices("0123456789abcdef", k=32))

    def ended(page, turn):
        began = time.monotonic()
        while time.monotonic() - began < 60:
            status, state = page.post("hear", {"turn": turn})
            if status != 200 or state["state"] not in ("waits", "speaks"):
                return state
            time.sleep(0.02)
        return {"state": "never"}

    one, other = word(), word()
    status, state = ana.post("say", {"turn": one, "text": "Once upon a time"})
    check(status == 200 and state["state"] in ("waits", "speaks", "done"), f"a turn begins: {state}")
    bob.post("say", {"turn": other, "text": "One day", "settings": {"temperature": 0, "max-new-tokens": 5}})
    said, short = ended(ana, one), ended(bob, other)
    tokens = [t for r in said["said"]["responses"] for p in r["pieces"] for t in p["tokens"]]
    check(said["state"] == "done" and 2 <= len(tokens) <= 80 and all(0 < t["probability"] <= 1 for t in tokens)
          and all(t["probability"] == t["beside"] for t in tokens), "and ends with each token's probability")
    check([len([t for p in r["pieces"] for t in p["tokens"]]) for r in short["said"]["responses"]] == [5, 5],
          "the other one, with settings of its own, too")
    again = bob.post("say", {"turn": one, "text": "x"})
    check(again[1]["said"] == said["said"], "said twice, once")
    check(bob.post("hear", {"turn": word()})[0] == 404 and bob.post("stop", {"turn": word()})[0] == 404,
          "a turn whose word one does not know is nobody's")
    check(ana.post("say", "x" * 70000)[0] == 413 and ana.post("say", "[" * 60000)[0] == 400
          and ana.post("say", {"turn": word(), "text": "a" * 20001})[0] == 400, "what is too large is refused")
    rng, seen = random.Random(2), set()
    good = json.dumps({"turn": word(), "text": "Once", "settings": {"temperature": 1, "max-new-tokens": 1, "seed": 3}})
    for _ in range(200):
        text = bytearray(good.encode())
        for _ in range(rng.randint(1, 6)):
            where = rng.randrange(len(text))
            text[where:where + rng.randint(0, 3)] = bytes(rng.choice(b'{}[]",:\\0159-e\xff\x00\xed') for _ in range(rng.randint(0, 3)))
        seen.add(ana.post("say", bytes(text))[0])
    check(seen <= {200, 400, 503}, f"damaged bodies are refused in good order: {sorted(seen)}")
    long = word()
    ana.post("say", {"turn": long, "text": "Once", "settings": {"max-new-tokens": 1024}})
    code, out = server.end()
    check(code == 0, f"and it ends while a model speaks: {code}")
    refused("--chat", model, "--chat", model, "--chat", model, says="one model or two")
    refused(candidates("few.jsonl", 2), "--chat", model, says="two pages")
    refused("--chat", path("nowhere.bin"), says="nowhere.bin")
    refused("--chat", model, "--temperature", "-1", says="temperature")


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    began = time.monotonic()
    server = Server(candidates("candidates.jsonl", 6), "--out", path("rankings.jsonl"))
    slow = [Slow(server.port) for _ in range(3)]
    rows("run-c", 0, 2)
    beside = Server("--watch", path("run-c"))
    watcher = Watcher(beside.port)
    files_and_guards(server)
    wrong_bodies(server)
    rude_connections(server)
    addresses()
    a_run()
    watched()
    chatted()
    full_disk()
    two_at_once()
    killed(KILLS)
    for one in slow:
        one.join()
    check(max(one.seconds for one in slow) < 30,
          f"a connection that sends a byte now and then is closed, after {max(one.seconds for one in slow):.0f} s")
    watcher.join()
    check(watcher.whole and 10 < watcher.seconds < 20, f"a stream ends in good order, after {watcher.seconds:.0f} s")
    check(server.end()[0] == 0 and beside.end()[0] == 0, "SIGTERM ends them")
    print(f"{time.monotonic() - began:.0f} s, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
