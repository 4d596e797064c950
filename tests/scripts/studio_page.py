#!/usr/bin/env python3
"""The page of `plumb studio` in a browser: keys, dragging, reload, two annotators, a server that is killed, hostile
text, phone width, dark, the accessibility tree, no error in the console. With PLUMB_WRITE_DOCS=1 it writes the
pictures of docs/studio/.

usage: studio_page.py PLUMB WORK_DIRECTORY          exit status 77: no Chromium, chromedriver or Selenium here
"""
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

DISTRIBUTION = "/usr/bin/python3"  # the interpreter that the distribution's Selenium is for
try:
    from selenium import webdriver
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
except ImportError:
    if os.path.exists(DISTRIBUTION) and os.path.realpath(sys.executable) != os.path.realpath(DISTRIBUTION):
        os.execv(DISTRIBUTION, [DISTRIBUTION, *sys.argv])
    print("skipped: no Selenium (python3-selenium)")
    sys.exit(77)

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    print("skipped: no Chromium (chromium, chromium-driver)")
    sys.exit(77)

PLUMB, WORK = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
PICTURES = (os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/studio")
            if os.environ.get("PLUMB_WRITE_DOCS") else os.path.join(WORK, "pictures"))
SHOWN = ("begin", "instructions", "rank", "pair", "pair-dark", "keys", "phone", "no-server", "done", "verdict", "watch",
         "chat", "chat-dark", "chat-phone", "loop-settings", "loop", "samples", "what-if")
failures = []

INSTRUCTIONS = """You are reading answers for a child of six.

Best is what such a child understands and likes to hear: short sentences, words it knows, a picture it can see.
What is wrong is worse than what is dull. An answer in another language, or one that is no answer, is unusable.

When two are as good as one another, tie them: a forced choice is noise.
"""
BEES = ("Explain how bees make honey to a 6-year-old.", [
    "Bees visit flowers and drink a sweet juice called nectar. They carry it home in a tiny honey stomach. In the hive "
    "they pass it from bee to bee, and then they fan it with their wings until it is thick and golden. That is honey!",
    "Honey is produced through the enzymatic conversion of sucrose-rich nectar by invertase, followed by the evaporation "
    "of water to a moisture content of below 18.6 percent, at which fermentation is inhibited.",
    "Imagine a bee is like a little delivery van. It drives from flower to flower and fills its tank with sugar water. "
    "Back home, it hands the sugar water to its sisters. They flap their wings to dry it, like you blow on hot soup. "
    "When it is nice and sticky, they put a lid of wax on it and keep it for winter.",
    "Bees make honey. They make it in the hive. The hive is where bees make honey. Bees are very busy and they like"],
    [True, True, True, False])
MOON = ("Explain the moon landing to a 6-year-old.", [
    "A long time ago three brave men flew to the moon in a rocket. Two of them walked on it. They jumped like bunnies, "
    "because on the moon you are very light. Then they flew home.",
    "The moon landing is when people went to the moon. It was a big event, and many people can remember it."], [True, True])
HOSTILE = ["<img src=x onerror=\"window.pwned=1\">", "<script>window.pwned=1</script>", "</div></body><h1>out</h1>",
           "{{constructor.constructor('window.pwned=1')()}} ${window.pwned=1}", "javascript:window.pwned=1",
           "\u202eright to left\u202c \u0000 \u2028 \ufeff", "<svg/onload=window.pwned=1>", "&lt;b&gt; &amp; \"'`",
           "a" * 3000, "\n\n  kept\tspace  \n"]


def check(ok, what):
    if not ok:
        failures.append(what)
    print(("ok      " if ok else "FAILED  ") + what, flush=True)


def path(name):
    return os.path.join(WORK, name)


def write_candidates():
    items = [BEES, MOON]
    items += [("Hostile: " + text, [text, HOSTILE[i - 1], "plain"], [True, False, True]) for i, text in enumerate(HOSTILE)]
    items += [(f"Question {i}", [f"one of {i}", f"two of {i}", f"three of {i}"], [True] * 3) for i in range(6)]
    with open(path("candidates.jsonl"), "w") as file:
        for i, (prompt, responses, finished) in enumerate(items):
            file.write(json.dumps({"id": f"c{i}", "prompt": prompt, "responses": responses, "finished": finished}) + "\n")
    with open(path("instructions.txt"), "w") as file:
        file.write(INSTRUCTIONS)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def serve(port, *what):
    what = what or (path("candidates.jsonl"), "--out", path("rankings.jsonl"), "--instructions", path("instructions.txt"))
    process = subprocess.Popen([PLUMB, "studio", *what, "--port", str(port)],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=WORK)
    said = ""
    for line in process.stdout:
        said += line
        if "Open http://" in line:
            return process
    raise RuntimeError(said)


def saved():
    with open(path("rankings.jsonl")) as file:
        return [json.loads(line) for line in file]


class Browser:
    def __init__(self, url):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     "--force-color-profile=srgb", "--no-first-run", "--disable-extensions"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service(DRIVER), options=options)
        self.url = url
        self.size(1280, 800)

    def size(self, width, height, mobile=False, dark=False, still=False):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                    {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile})
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": mobile})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}]})

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def js(self, script, *arguments):
        return self.driver.execute_script("return " + script, *arguments)

    def text(self, selector):
        return self.js("document.querySelector(arguments[0]).textContent", selector)

    def until(self, what, script, *arguments, seconds=15):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.js(script, *arguments):
                return True
            time.sleep(0.03)
        check(False, what + " in time: " + str(self.js("document.body.innerText"))[:400])
        return False

    def press(self, *keys):
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def sit(self, name):
        self.driver.get(self.url)
        self.until("the page", "!document.querySelector('#sit').hidden || !document.querySelector('#ask').hidden || "
                               "!document.querySelector('#done').hidden")
        if self.js("!document.querySelector('#sit').hidden"):
            self.one("#sit-name").send_keys(name + Keys.ENTER)
        self.shown("")

    def shown(self, prompt):
        self.until(f"the question {prompt!r}", "!document.querySelector('#ask').hidden && !document.body.ariaBusy && "
                   "document.querySelector('#prompt').textContent.startsWith(arguments[0])", prompt)

    def console(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def picture(self, name, bound=150_000):
        folder = PICTURES if name in SHOWN else path("pictures")
        os.makedirs(folder, exist_ok=True)
        time.sleep(0.4)
        file = os.path.join(folder, name + ".png")
        self.driver.save_screenshot(file)
        check(os.path.getsize(file) < bound, f"picture {name}: {os.path.getsize(file)} bytes")

    def said(self):
        return self.text("#said")


def by_place(record):
    """The ranks in the order in which the responses were shown."""
    ranks = [-1] * len(record["responses"])
    for rank, group in enumerate(record["ranking"]):
        for response in group:
            ranks[response] = rank
    return [ranks[i] for i in record["shown"]]


def keys_and_dragging(page):
    page.driver.get(page.url)
    page.until("the first view", "!document.querySelector('#sit').hidden")
    page.picture("begin")
    page.sit("Ana")
    page.shown(BEES[0])
    check(page.js("document.activeElement.id") == "number", "the question has the focus")
    page.press("i")
    check(page.text("#instructions-text").startswith("You are reading") and page.js("document.querySelector('#instructions').open"),
          "the instructions are one key away")
    page.picture("instructions")
    page.press(Keys.ESCAPE)
    page.press("3", "1", "=", "2")
    check(page.said() == "3 > 1 = 2", f"keys put responses in order: {page.said()}")
    check("tied" in page.text("#live"), "and a screen reader hears it")
    page.press("2", Keys.BACKSPACE)
    check(page.said() == "3", f"the same key and Backspace take them out: {page.said()}")
    page.press("1", "x", "4")
    check(page.said() == "3 > 1   unusable: 4", f"x and a number mark: {page.said()}")
    page.press("x", "4", "2")
    grip = page.one("#card-3 .grip")
    first = page.one("#ranked .row")
    ActionChains(page.driver).click_and_hold(grip).move_by_offset(20, 5).move_to_element_with_offset(first, 0, -15).perform()
    check(page.js("document.querySelector('.ghost') !== null"), "a card can be dragged")
    page.picture("rank-dragging")
    ActionChains(page.driver).release().perform()
    check(page.said() == "4 > 3 > 1 > 2", f"and dropped at its place: {page.said()}")
    last = page.one("#ranked .row:last-child .grip")
    ActionChains(page.driver).click_and_hold(last).move_by_offset(0, -30).move_to_element_with_offset(
        page.one("#ranked .row"), 0, -15).release().perform()
    check(page.said() == "2 > 4 > 3 > 1", f"rows can be dragged: {page.said()}")
    ActionChains(page.driver).click_and_hold(page.one("#ranked .row .grip")).move_to_element(page.one("#prompt")).perform()
    page.press(Keys.ESCAPE)
    ActionChains(page.driver).release().perform()
    check(page.said() == "2 > 4 > 3 > 1", "Escape lets go of what is dragged")
    ActionChains(page.driver).drag_and_drop(page.one("#ranked .row .grip"), page.one("#prompt")).perform()
    check(page.said() == "4 > 3 > 1", f"what is dragged out is out: {page.said()}")
    page.one("#ranked .row:nth-child(2) .up").click()
    check(page.said() == "3 > 4 > 1", f"buttons move rows: {page.said()}")
    check(page.js("document.activeElement.closest('.row').dataset.place") == "2", "and keep the focus")
    page.one("#ranked .row:nth-child(3) .tie").click()
    check(page.said() == "3 > 4 = 1", f"and tie them: {page.said()}")
    page.one("#comment").send_keys("3 stops in the middle")
    page.driver.refresh()
    page.shown(BEES[0])
    check(page.said() == "3 > 4 = 1" and page.js("document.querySelector('#comment').value") == "3 stops in the middle",
          "after a reload it is all there")
    page.press(Keys.BACKSPACE, Keys.BACKSPACE, Keys.BACKSPACE, "1", "2", "4", "x", "3")
    page.picture("rank")
    page.size(360, 740, mobile=True)
    page.picture("phone")
    page.size(1280, 800)
    page.press(Keys.ENTER)
    page.shown(MOON[0])
    record = saved()[-1]
    check(by_place(record) == [0, 1, -1, 2] and record["unusable"] == [record["shown"][2]] and record["seconds"] > 0
          and record["comment"] == "3 stops in the middle" and record["annotator"] == "Ana", f"saved as it was shown: {by_place(record)}")
    check(page.text("#saved") == "Saved" and page.text("#live").startswith("Saved."), "and said to be saved")
    page.press("u")
    page.shown(BEES[0])
    check(len(saved()) == 0 and page.said() == "1 > 2 > 4   unusable: 3", f"undo gives the answer back: {page.said()}")
    page.press(Keys.ENTER)
    page.shown(MOON[0])


def pairs(page):
    page.press("2", "2")
    check(page.said() == "B is clearly better", f"of two: {page.said()}")
    page.press("=")
    check(page.said() == "They are alike", page.said())
    page.press(Keys.ARROW_LEFT)
    check(page.js("document.querySelector('#scale-choices :checked').value") == "-1", "arrows choose, too")
    page.picture("pair")
    page.size(1280, 800, dark=True)
    page.press("2")
    check(page.js("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)", "dark by the system's choice")
    page.picture("pair-dark")
    page.size(1280, 800)
    page.press(Keys.ENTER)
    page.shown("Hostile")
    check(saved()[-1]["strength"] == 1 and by_place(saved()[-1]) == [1, 0], "how much better is saved")


def hostile(page):
    for i, text in enumerate(HOSTILE):
        page.shown("Hostile")
        expected = ["Hostile: " + text, *sorted([text, HOSTILE[i - 1], "plain"])]
        shown = page.js("[document.querySelector('#prompt').textContent, "
                        "...[...document.querySelectorAll('.card .text')].map((t) => t.textContent).sort()]")
        elements = page.js("document.querySelectorAll('main img, main script, main svg, main h1:not([id]):not(.middle h1)').length")
        check(elements == 0 and shown[0] == expected[0] and sorted(shown[1:]) == sorted(expected[1:]),
              f"hostile text {i} is text")
        check(page.js("document.documentElement.scrollWidth <= innerWidth"), f"hostile text {i} stays in its place")
        page.press("s" if i % 2 else "b")
    page.shown("Question 0")
    check(page.js("window.pwned === undefined"), "no text ran")
    check(all(r["unusable"] == [0, 1, 2] and r["ranking"] == [] for r in saved()[2:]), "all bad is saved as that")


def accessibility(page):
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    known = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored") and "role" in n]
    roles = {role for role, _ in known}
    unnamed = [role for role, name in known if role in ("button", "textbox", "progressbar", "list", "radio", "checkbox",
                                                        "toolbar", "complementary", "region", "heading") and not name.strip()]
    check({"main", "banner", "list", "listitem", "button", "progressbar", "heading", "toolbar", "status"} <= roles,
          f"the accessibility tree has its landmarks: {sorted(roles)}")
    check(not [u for u in unnamed if u not in ("complementary", "list")], f"everything that can be used has a name: {unnamed}")
    check(any(role == "button" and name == "Response 1: best" for role, name in known), "a button says what it does to what")
    page.js("document.querySelector('#number').focus()")
    order = []
    for _ in range(9):
        page.press(Keys.TAB)
        order.append(page.js("document.activeElement.id"))
    check(order == ["pick-0", "mark-0", "pick-1", "mark-1", "pick-2", "mark-2", "comment", "undo", "skip"],
          f"the focus goes through the page in order: {order}")
    page.js("document.querySelector('#pick-1').focus()")
    page.press(Keys.ENTER, Keys.TAB, Keys.TAB, Keys.SPACE)
    check(page.said() == "2 > 3", f"with Tab, Enter and Space alone: {page.said()}")
    page.size(1280, 800, still=True)
    check(page.js("getComputedStyle(document.querySelector('.card')).transitionProperty") in ("none", "all")
          and page.js("getComputedStyle(document.querySelector('.card')).transitionDuration") == "0s", "nothing moves for who wants it still")
    page.size(1280, 800)
    page.js("document.querySelector('#number').focus()")
    page.press("?")
    page.picture("keys")
    page.js("document.querySelector('#single-keys').click()")
    page.press(Keys.ESCAPE)
    page.press("1")
    check(page.said() == "2 > 3", "single keys can be turned off")
    page.js("(document.querySelector('#open-help').click(), document.querySelector('#single-keys').click())")
    page.press(Keys.ESCAPE)


def phone(page):
    page.size(360, 740, mobile=True)
    page.driver.refresh()
    page.shown("Question 0")
    page.one("#pick-0").click()
    small = page.js("""[...document.querySelectorAll('button, input, textarea, .grip')].filter((e) => e.offsetParent !== null)
        .map((e) => [e.id || e.className, e.getBoundingClientRect()]).filter(([, r]) => r.height < 44 || r.width < 28)
        .map(([name, r]) => name + ' ' + r.width + 'x' + r.height)""")
    check(not small, f"at phone width targets have 44 pixels: {small}")
    check(page.js("document.documentElement.scrollWidth") <= 360, "and nothing is wider than the phone")
    page.js("window.scrollTo(0, document.body.scrollHeight)")
    page.picture("phone-order")
    page.size(1280, 800)


def two_and_a_crash(page, server, port):
    other = Browser(page.url)
    try:
        other.sit("Bob")
        other.shown(BEES[0])
        other.press("1", "2", "3", "4", Keys.ENTER)
        other.shown(MOON[0])
        check(saved()[-1]["annotator"] == "Bob" and page.text("#leave") == "Ana", "two annotators, each with their own")
        other.one("#leave").click()
        other.one("#sit-name").clear()
        other.one("#sit-name").send_keys("Ana" + Keys.ENTER)
        other.shown("Question 0")
        check(True, "another browser goes on under the same name")
        page.js("document.querySelector('#number').focus()")
        page.press(Keys.BACKSPACE, Keys.BACKSPACE, Keys.BACKSPACE, "2", "3", Keys.ENTER)
        page.shown("Question 1")
        other.press("1", "2", Keys.ENTER)
        other.shown("Question 1")
        check("waits no more" in other.text("#alert-text"), "what was answered elsewhere is said, and not saved twice")
        check(sum(r["id"] == "c12" and r["annotator"] == "Ana" for r in saved()) == 1, "once it is there")
    finally:
        other.driver.quit()
    errors = page.console()
    check(errors == [], f"no error or warning in the console: {errors}")
    before = len(saved())
    server.send_signal(signal.SIGKILL)
    server.communicate()
    page.press("3", "1", Keys.ENTER)
    page.until("the page says that the server is gone", "document.querySelector('#alert-text').textContent.includes('does not answer')")
    page.picture("no-server")
    server = serve(port)
    page.shown("Hostile")  # what was skipped is asked again in a later sitting
    check(len(saved()) == before + 1 and page.js("document.querySelector('#alert').hidden"),
          "the answer is saved as soon as the server is back")
    page.driver.get_log("browser")
    return server


def the_end(page):
    for _ in range(4):
        page.press("s")
        page.until("the next one", "!document.body.ariaBusy && document.querySelector('#saved').textContent === ''")
        time.sleep(0.1)
    page.press("1", "2", "3", Keys.ENTER)
    for i in range(2, 6):
        page.shown(f"Question {i}")
        page.press("1", "2", "3", Keys.ENTER)
    page.until("the last view", "!document.querySelector('#done').hidden")
    check("4 skipped" in page.text("#done-text"), page.text("#done-text"))
    page.picture("done")
    page.press("u")
    page.shown("Question 5")
    page.press(Keys.ENTER)
    page.until("the last view", "!document.querySelector('#done').hidden")
    page.one("#ask-skipped").click()
    page.shown("Hostile")
    errors = page.console()
    check(errors == [], f"no error or warning in the console at the end: {errors}")


def blind(page, server):
    """Two models: nothing is told until it is decided."""
    for name, word in (("a", "old"), ("b", "new")):
        with open(path(name + ".jsonl"), "w") as file:
            for i in range(30):
                file.write(json.dumps({"id": f"q{i}", "prompt": f"Pair {i}", "responses": [f"{word} answer {i}"]}) + "\n")
    server.send_signal(signal.SIGTERM)
    server.communicate()
    port = free_port()
    judge = serve(port, "--before", "a.jsonl", "--after", "b.jsonl", "--out", path("answers.jsonl"))
    page.url = f"http://127.0.0.1:{port}/"
    page.sit("Ana")
    places = set()
    for i in range(30):
        page.until("a pair or the end", "!document.body.ariaBusy && (!document.querySelector('#done').hidden || "
                   "document.querySelector('#prompt').textContent === arguments[0])", f"Pair {i}")
        if page.js("!document.querySelector('#done').hidden"):
            break
        better = "1" if page.text("#text-0").startswith("new") else "2"
        places.add(better)
        page.press(*("=" if i in (2, 6) else ("2" if better == "1" else "1") if i == 4 else better), Keys.ENTER)
    check(len(places) == 2, "which is which is not in the order")
    check(page.text("#done-title") == "It is decided" and "b.jsonl" in page.text("#verdict"), page.text("#verdict"))
    page.picture("verdict")
    page.driver.refresh()
    page.until("the verdict", "!document.querySelector('#done').hidden")
    check(page.js("document.querySelector('#done-undo').hidden"), "and then nothing is changed")
    return judge


def metrics(run, first, last, level):
    os.makedirs(path(run), exist_ok=True)
    with open(path(run + "/metrics.csv"), "a") as file:
        if first == 0:
            file.write("step,objective/scores,judge/total,objective/kl_exact,policy/entropy_avg,policy/clipfrac_avg,"
                       "response/length\n")
        for i in range(first, last):
            wave = random.Random(100 * level + i).uniform(-0.5, 0.5)
            file.write(f"{i},{level + 1.4 * (1 - 0.93 ** i) + 0.15 * wave},{1.2 + 0.5 * (1 - 0.9 ** i) + 0.1 * wave},"
                       f"{0.22 * i + 0.3 * wave * (i > 0)},{1.9 - 0.012 * i + 0.05 * wave},{0.11 + 0.05 * wave},"
                       f"{42 - 0.5 * i if level else 44 + 1.6 * i}\n")


def watch(page, server):
    """Two runs over one another, while they go on."""
    server.send_signal(signal.SIGTERM)
    server.communicate()
    metrics("grpo-run", 0, 20, 0)
    metrics("ppo-run", 0, 30, 1)
    port = free_port()
    watcher = serve(port, "--watch", "grpo-run", "ppo-run")
    page.driver.get(f"http://127.0.0.1:{port}/")
    page.until("two runs", "document.querySelector('#runs').textContent.includes('step 19') && "
                           "document.querySelectorAll('.plot').length === 6")
    page.until("no samples", "document.querySelector('#samples-empty').textContent.includes('keeps no episodes')")
    metrics("grpo-run", 20, 34, 0)
    page.until("new rows", "document.querySelector('#runs').textContent.includes('step 33')")
    check(page.js("document.querySelectorAll('.plot path').length") == 12, "two runs are drawn over one another")
    check("grpo-run" in page.text("#alarms") and "tokens" in page.text("#alarms"), f"an alarm is said: {page.text('#alarms')}")
    ActionChains(page.driver).move_to_element(page.one(".plot")).perform()
    check(page.text("figcaption span").startswith("step 1"), f"values are shown where one points: {page.text('figcaption span')}")
    page.size(360, 740, mobile=True)
    check(page.js("document.documentElement.scrollWidth") <= 360, "on a telephone, too")
    page.size(1280, 800)
    watcher.send_signal(signal.SIGKILL)
    watcher.communicate()
    time.sleep(0.3)
    page.driver.get_log("browser")
    watcher = serve(port, "--watch", "grpo-run", "ppo-run")
    metrics("grpo-run", 34, 35, 0)
    page.until("a new row, after the server was away", "document.querySelector('#runs').textContent.includes('step 34')")
    return watcher


def others_talk(port, count):
    """So many long turns, of someone else."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{port}"}

    def post(action, body):
        connection.request("POST", "/api/" + action, json.dumps(body), headers)
        reply = connection.getresponse()
        return reply, json.loads(reply.read())

    reply, said = post("session", {})
    headers.update({"Cookie": reply.headers["Set-Cookie"].split(";")[0], "X-Plumb-Token": said["token"]})
    for i in range(count):
        post("say", {"turn": f"{i}-0123456789abcdef", "text": "Once", "settings": {"max-new-tokens": 1024}})
    connection.close()


def chat(page, server):
    """Two models side by side: a turn, and how probable each token was, by pointer and by keys."""
    server.send_signal(signal.SIGTERM)
    server.communicate()
    shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples/data/stories260K.bin"), path("stories260K.bin"))
    with open(path("owls.jsonl"), "w") as file:
        for i, what in enumerate(("tree", "barn", "wood", "tower") * 4):
            file.write(json.dumps({"prompt": "Once upon a time", "completion": f", there was a little owl who lived in a {what}. "
                                   "The owl wanted to play, but she was too shy to ask."}) + "\n")
    subprocess.run([PLUMB, "sft", "owls.jsonl", "--epochs", "4", "--lr", "0.002", "--out", "owls.safetensors"], cwd=WORK,
                   check=True, capture_output=True)
    port = free_port()
    talker = serve(port, "--chat", "stories260K.bin", "--chat", "owls.safetensors", "--max-new-tokens", "60", "--temperature",
                   "0.7", "--seed", "3", "--tokenizer", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples/data/tok512.bin"))
    page.size(1280, 800, still=True)
    page.driver.get(f"http://127.0.0.1:{port}/")
    page.driver.get_log("browser")  # of the page before, whose server has gone
    page.until("the chat", "!document.querySelector('#chat').hidden")
    check(page.js("document.activeElement.id") == "chat-text", "one can begin to write at once")
    check(page.js("document.querySelector('#chat-temperature').value") == "0.7" and
          page.js("document.querySelector('#chat-seed').value") == "3", "the settings are the program's")
    page.press("Once upon a time", Keys.ENTER)
    ended = ("document.querySelectorAll('.chat-turn').length === arguments[0] && "
             "document.querySelectorAll('.chat-turn:last-child [role=listbox]').length === 2 && !document.querySelector('#chat-send').hidden")
    page.until("the end of a turn", ended, 1)
    texts = page.js("[...document.querySelectorAll('.chat-said')].map((one) => one.textContent)")
    check(len(texts) == 2 and all(len(text) > 40 for text in texts) and texts[0] != texts[1], f"both models speak: {texts}")
    spoken = page.text("#live")
    check(spoken.startswith("A: ") and "B: " in spoken and "differ from token" in spoken, "a screen reader hears both, and where they differ")
    first = page.js("[...document.querySelectorAll('.chat-said .first')].map((one) => one.textContent)")
    words = page.text(".chat-difference")
    check(len(first) == 2 and first[0] != first[1] and f'A says "{first[0]}", B says "{first[1]}"' in words,
          f"the first difference is named and shown: {first} {words}")
    marked = page.js("[...document.querySelectorAll('.chat-said .differs')].map((one) => getComputedStyle(one).textDecorationLine)")
    plain = page.js("getComputedStyle(document.querySelector('.chat-said .piece:not(.differs)')).textDecorationLine")
    check(len(marked) > 2 and set(marked) == {"underline"} and plain == "none", f"tokens that the models see differently are underlined: {len(marked)}")
    surprising = page.js("[...document.querySelectorAll('.chat-said .step3, .chat-said .step2, .chat-said .step1')].length")
    check(surprising > 3, f"surprising tokens are shaded: {surprising}")
    # The number, by pointer.
    ActionChains(page.driver).move_to_element(page.one(".chat-side:first-child .first")).perform()
    card = page.text("#chat-card")
    check(not page.js("document.querySelector('#chat-card').hidden") and card.count(" %") >= 8 and "Likeliest for A" in card
          and "times as probable" in card, f"the card has the numbers of both: {card}")
    box = page.js("document.querySelector('#chat-card').getBoundingClientRect().toJSON()")
    check(box["left"] >= 0 and box["right"] <= 1280 and box["top"] >= 0, f"and is on the page: {box}")
    page.picture("chat")
    page.press(Keys.ESCAPE)
    check(page.js("document.querySelector('#chat-card').hidden"), "Escape hides it")
    # And by keys: Tab to a response, arrows along its tokens.
    page.js("document.querySelector('.chat-side:first-child .chat-said .piece').focus()")
    one = page.text("#chat-card h2")
    check("token 1" in one and page.js("document.activeElement.getAttribute('aria-describedby')") == "chat-card",
          f"focus shows it, too: {one}")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    check("token 3" in page.text("#chat-card h2"), "arrow keys move along")
    page.press(Keys.ARROW_DOWN)
    lower = page.js("[...document.activeElement.parentElement.children].indexOf(document.activeElement)")
    page.press(Keys.ARROW_UP)
    check(lower > 4 and page.js("[...document.activeElement.parentElement.children].indexOf(document.activeElement)") == 2,
          f"and to the line below, and back: {lower}")
    page.press(Keys.END, Keys.HOME)
    check("token 1" in page.text("#chat-card h2"), "Home and End are the first and the last")
    check(page.js("document.querySelectorAll('.chat-side:first-child [tabindex=\"0\"]').length") == 1, "Tab stops once in a response")
    page.press(Keys.TAB)
    check(page.js("document.querySelectorAll('.chat-side')[1].contains(document.activeElement)"), "and then at the other one")
    page.size(1280, 800, dark=True, still=True)
    page.picture("chat-dark")
    page.size(360, 740, mobile=True, still=True)
    check(page.js("document.documentElement.scrollWidth") <= 360, "nothing is wider than a phone")
    tops = page.js("[...document.querySelectorAll('.chat-side')].map((one) => one.getBoundingClientRect().top)")
    check(tops[1] > tops[0] + 50, "there the models are one above the other")
    page.js("document.querySelector('.chat-side:first-child .chat-said .first').focus()")
    box = page.js("document.querySelector('#chat-card').getBoundingClientRect().toJSON()")
    check(box["left"] >= 0 and box["right"] <= 360, f"and the card fits: {box['left']} to {box['right']}")
    page.picture("chat-phone")
    page.size(1280, 800)
    # Settings of one's own, the same seed again, a stop, words that are none.
    page.js("document.querySelector('#chat-settings').open = true")
    page.one("#chat-max-new-tokens").clear()
    page.one("#chat-max-new-tokens").send_keys("7")
    page.one("#chat-text").send_keys("Once upon a time" + Keys.ENTER)
    page.until("the end of a turn", ended, 2)
    counts = page.js("[...document.querySelectorAll('.chat-turn:last-child .chat-said')].map((one) => one.children.length)")
    check(counts == [7, 7] and "length limit" in page.text(".chat-turn:last-child .cut"), f"what is set is what is done: {counts}")
    again = page.js("[...document.querySelectorAll('.chat-turn:last-child .chat-said')].map((one) => one.textContent)")
    check(all(old.startswith(new) for old, new in zip(texts, again)), "the same seed says the same")
    page.one("#chat-text").send_keys(HOSTILE[0] + Keys.ENTER)
    page.until("the end of a turn", ended, 3)
    check(page.text(".chat-turn:last-child .prompt .text") == HOSTILE[0], "what one says is text")
    check(page.js("window.pwned === undefined && document.querySelectorAll('#chat img').length === 0"), "nothing of it ran")
    check(page.js("document.activeElement.id") == "chat-text", "and one can go on")
    page.one("#chat-text").send_keys("a" * 3000 + Keys.ENTER)
    page.until("a turn that fails", "document.querySelectorAll('.chat-turn').length === 4 && !document.querySelector('#chat-send').hidden")
    check("exceeds the context" in page.text(".chat-turn:last-child .chat-difference"), "what the model cannot read is said in words")
    check(page.js("document.documentElement.scrollWidth <= innerWidth"), "and stays in its place")
    # Others came first.
    page.one("#chat-text").send_keys("Once")
    others_talk(port, 8)
    page.press(Keys.ENTER)
    page.until("how many come first", "document.querySelector('#chat-status').textContent.includes('first')")
    page.one("#chat-stop").click()
    page.until("a turn that was stopped", "document.querySelectorAll('.chat-turn').length === 5 && !document.querySelector('#chat-send').hidden")
    check("Stopped before it began" in page.text(".chat-turn:last-child .chat-difference"), "a turn that waits can be stopped")
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    known = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored") and "role" in n]
    unnamed = [role for role, name in known if role in ("button", "textbox", "spinbutton", "listbox", "option", "heading", "region")
               and not name.strip()]
    check({"listbox", "option", "textbox", "spinbutton", "button", "status"} <= {role for role, _ in known} and not unnamed,
          f"everything of it has a role and a name: {unnamed}")
    errors = page.console()
    check(errors == [], f"no error or warning in the console of the chat: {errors}")
    # One model alone.
    talker.send_signal(signal.SIGTERM)
    talker.communicate()
    port = free_port()
    talker = serve(port, "--chat", "owls.safetensors", "--max-new-tokens", "20")
    page.driver.get(f"http://127.0.0.1:{port}/")
    page.driver.get_log("browser")
    page.until("the chat", "!document.querySelector('#chat').hidden")
    page.press("Once upon a time", Keys.ENTER)
    page.until("the end of a turn", "document.querySelectorAll('.chat-said[role=listbox]').length === 1")
    page.js("document.querySelector('.chat-said .piece').focus()")
    card = page.text("#chat-card")
    check("probability" in card and "Likeliest here" in card and card.count(" %") == 4, f"one model has its own numbers: {card}")
    check(page.js("document.querySelectorAll('#chat .differs, #chat .first, .chat-difference').length") == 0, "and nothing to differ from")
    errors = page.console()
    check(errors == [], f"no error or warning in the console: {errors}")
    return talker


def loop(page, server):
    """A run from its settings to the verdict: begun, ranked, trained, stopped and judged on the page alone."""
    server.send_signal(signal.SIGTERM)
    server.communicate()
    port = free_port()
    driver = serve(port, "moon-run", "--loop")
    page.driver.get_log("browser")
    page.driver.get(f"http://127.0.0.1:{port}/")
    page.until("the settings", "!document.querySelector('#loop-form').hidden")
    settings = {"rounds": "2", "rank-prompts": "6", "eval-prompts": "8", "eval-stories": "2", "judge": "person",
                "generate-max-new-tokens": "40", "ppo-max-new-tokens": "40", "iterations": "20", "ppo-prompts": "16",
                "reward-epochs": "2", "generate-responses": "3"}
    page.picture("loop-settings")
    for name, value in settings.items():
        field = page.one("#set-" + name)
        page.js("(arguments[0].closest('details') ?? {}).open = true", field)
        field.clear()
        field.send_keys(value)
    page.one("#set-rounds").clear()
    page.one("#set-rounds").send_keys("none")
    page.one("#loop-begin").click()
    page.until("what does not fit is said", "document.querySelector('#alert-text').textContent.includes('rounds must be')")
    page.one("#set-rounds").clear()
    page.one("#set-rounds").send_keys("2" + Keys.ENTER)
    for turn in range(2):
        page.until("people are asked", "!document.querySelector('#loop-rank').hidden", seconds=60)
        check(page.js("document.querySelector('#loop-train').disabled"), "no training without rankings")
        check(page.text(".steps .now").startswith(f"Round {turn + 1}: Rank"), page.text(".steps .now"))
        page.one("#loop-rank").click()
        if turn == 0:
            page.until("a name or a question", "!document.querySelector('#sit').hidden || !document.querySelector('#ask').hidden")
            if page.js("!document.querySelector('#sit').hidden"):
                page.one("#sit-name").send_keys("Ana" + Keys.ENTER)
        for i in range(6):
            page.until("question", f"!document.querySelector('#ask').hidden && !document.body.ariaBusy && "
                       f"document.querySelector('#number').textContent.startsWith('Question {i + 1} ')")
            page.press("1", "2", "3", Keys.ENTER)
        page.until("the end", "!document.querySelector('#done').hidden")
        page.one("#to-run").click()
        page.until("enough", "!document.querySelector('#loop-train').disabled")
        page.one("#loop-train").click()
        page.until("training", "document.querySelector('#loop-far').textContent.includes('4 PPO: ')", seconds=60)
        if turn == 0:
            page.one("#loop-stop").click()
            page.until("it stops", "document.querySelector('#loop-say').textContent.startsWith('Stopped')", seconds=60)
            check(page.text("#loop-begin") == "Go on" and page.js("document.querySelector('#loop-form').hidden"),
                  "stopped while it trains, and it can go on")
            page.driver.refresh()
            page.until("after a reload", "!document.querySelector('#loop-begin').hidden")
            page.one("#loop-begin").click()
        else:
            page.until("some rows", "document.querySelectorAll('.plot').length >= 5")
            page.picture("loop")
    page.until("the judge is asked", "document.querySelector('#loop-rank').textContent === 'Judge' && "
               "!document.querySelector('#loop-rank').hidden", seconds=60)
    page.one("#loop-rank").click()
    for i in range(8):
        page.until("a pair or the run", "!document.body.ariaBusy && (!document.querySelector('#loop').hidden || "
                   f"document.querySelector('#number').textContent.startsWith('Question {i + 1} '))")
        if page.js("!document.querySelector('#loop').hidden"):
            break
        page.press("1", Keys.ENTER)
    page.until("results", "!document.querySelector('#loop-results').hidden", seconds=60)
    check("of the held-out answers" in page.text("#loop-results"), f"how it ended: {page.text('#loop-results')}")
    check(page.js("document.querySelectorAll('.steps .done').length") == 9, "every step is done")
    page.size(360, 740, mobile=True)
    check(page.js("document.documentElement.scrollWidth") <= 360, "on a telephone, too")
    page.picture("loop-phone")
    page.size(1280, 800)
    # A refusal is ordinary: of settings, of a desk that has closed, of a run without rankings yet.
    errors = [line for line in page.console() if not re.search("/api/(begin|ranking|[a-z]+ .* 410)", line)]
    check(errors == [], f"no error in the console: {errors}")
    return driver
def trained(run, command, iterations, *more):
    """A real run, of a few seconds."""
    return subprocess.Popen([PLUMB, command, "--run", run, "--iterations", str(iterations), "--ppo-prompts", "8",
                             "--ppo-max-new-tokens", "40", "--checkpoint-every", "50", "--ppo-lr", "1e-4", *more],
                            cwd=WORK, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kept(run):
    with open(path(run + "/episodes.jsonl")) as file:
        return [json.loads(line) for line in file]


def shown_numbers(said):
    return {name: float(value.replace("\u2212", "-")) for name, value in re.findall(r"(exact KL|reward|advantage|value) (\u2212?[\d.e-]+)", said)}


def spoilt(run):
    """A real run's episodes, the longest of its last samples made hostile."""
    lines = kept(run)
    bad = max(lines[-1]["episodes"][1:], key=lambda e: len(e["text"]))
    bad["prompt"] = HOSTILE[1]
    for t, text in enumerate(HOSTILE):
        bad["text"][t % len(bad["text"])] += text
    with open(path(run + "/episodes.jsonl"), "w") as file:
        file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    return lines


def tokens(page, lines):
    """A finished run: its last samples, token by token."""
    last, before = lines[-1], lines[-2]
    page.until("samples", "document.querySelectorAll('.sample').length === 8")
    check(page.text("#iteration-said") == f"{last['step']} of {last['step']}", "the newest iteration is shown")
    check(page.js("document.querySelectorAll('.plot').length") >= 8 and "Tokens a second" in page.text("#charts") and
          "Explained variance" in page.text("#charts") and "Entropy" in page.text("#charts") and "True score" in page.text("#charts"),
          "its curves are there, the true rule's beside the reward's")
    for i, e in enumerate(last["episodes"]):
        texts = page.js("[...document.querySelectorAll('.sample')[arguments[0]].querySelectorAll('.token')].map((t) => t.textContent)", i)
        if texts != [text or "\u00b7" for text in e["text"]]:
            check(False, f"sample {i} has its text: {texts}, not {e['text']}")
    check(page.js("document.querySelectorAll('main img, main script, main .token svg, main .token h1').length") == 0 and
          page.js("window.pwned === undefined"), "hostile text in a sample is text")
    check(page.js("document.documentElement.scrollWidth <= innerWidth"), "and stays in its place")
    token = "document.querySelectorAll('.sample')[0].querySelectorAll('.token')"
    readout = "document.querySelector('.sample .readout').textContent"
    e = last["episodes"][0]
    spot = page.js(token + "[3]")
    page.js("arguments[0].scrollIntoView({block: 'center'})", spot)
    ActionChains(page.driver).move_to_element(spot).perform()
    said = page.js(readout)
    numbers = shown_numbers(said)
    check(said.startswith("3: " + json.dumps(e["text"][3], ensure_ascii=False)) and all(
        abs(numbers[name] - e[key][3]) <= 0.006 * abs(e[key][3]) for name, key in
        (("exact KL", "kl_exact"), ("reward", "rewards"), ("advantage", "advantages"), ("value", "values"))),
        f"where one points the trainer's numbers are said: {said}")
    ActionChains(page.driver).move_to_element(page.one("#samples-title")).perform()
    check(not page.js(readout).startswith("3:"), "and no longer when one leaves")
    page.js(token + "[0].focus()")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    said = page.js(readout)
    check(said.startswith("2: ") and page.js("document.activeElement.ariaLabel") == said, f"arrow keys go from token to token: {said}")
    page.press(Keys.END)
    check(page.js("document.activeElement.dataset.t") == str(len(e["tokens"]) - 1), "End goes to the last one")
    page.press(Keys.TAB)
    check(page.js("document.activeElement.closest('.sample') === document.querySelectorAll('.sample')[1]"), "and Tab to the next sample")
    for colour, key in (("advantage", "advantages"), ("reward", "rewards"), ("kl", "kl_exact")):
        page.js("(document.querySelector('#colour').value = arguments[0], document.querySelector('#colour').dispatchEvent(new Event('change')))", colour)
        for i, one in enumerate(last["episodes"]):
            sides = page.js("[...document.querySelectorAll('.sample')[arguments[0]].querySelectorAll('.token')].map((t) => "
                            "t.classList.contains('below') ? -1 : t.classList.contains('above') ? 1 : 0)", i)
            if sides != [(x > 0) - (x < 0) for x in one[key]]:
                check(False, f"sample {i} by {colour}: {sides}")
        colours = page.js("[...new Set([...document.querySelectorAll('.sample .token')].map((t) => getComputedStyle(t).backgroundColor))].length")
        legend = [float(x.replace("\u2212", "-")) for x in re.findall(r"[\u2264\u2265] (\u2212?[\d.e-]+)", page.text("#legend"))]
        sizes = sorted(abs(x) for one in last["episodes"] for x in one[key])
        check(colours > 3 and legend[0] == -legend[1] and abs(legend[1] - sizes[int(0.95 * len(sizes))]) <= 0.006 * legend[1],
              f"by {colour}: {colours} shades, and a legend with its ends: {legend}")
    facts = page.text(".facts")
    check("Score" in facts and "True rule" in facts and "Tokens" + str(len(e["tokens"])) in facts, f"scores beside it: {facts}")
    page.js("(document.querySelector('#colour').value = 'advantage', document.querySelector('#colour').dispatchEvent(new Event('change')))")
    page.one("#step-back").click()
    page.until("the iteration before", "document.querySelector('#iteration-said').textContent.startsWith(arguments[0] + ' of') && "
               "document.querySelector('.sample .token').ariaLabel.includes(arguments[1])", str(before["step"]), before["episodes"][0]["text"][0].strip())
    page.js("document.querySelector('#iteration').focus()")
    page.press(Keys.ARROW_LEFT)
    page.until("the slider by key", "document.querySelector('#iteration-said').textContent.startsWith(arguments[0] + ' of')", str(before["step"] - 1))
    page.press(Keys.HOME)
    page.until("the first iteration, of the first round", "document.querySelector('#iteration-said').textContent.startsWith('0 of') && "
               "document.querySelectorAll('.sample').length === 8")
    check(page.js("document.querySelector('#step-back').disabled"), "further back there is nothing")


def pictures_of_samples(page):
    page.js("document.querySelector('#step-on').click()")
    page.size(1280, 860)
    page.until("samples of that iteration", "document.querySelector('#iteration-said').textContent.startsWith('1 of') && document.querySelectorAll('.sample').length === 8")
    page.js("(document.querySelectorAll('.sample')[1].querySelectorAll('.token')[4].focus({focusVisible: true}), "
            "document.querySelector('#samples').scrollIntoView(true), window.scrollBy(0, -70))")
    page.picture("samples")
    page.size(360, 740, mobile=True)
    check(page.js("document.documentElement.scrollWidth") <= 360, "samples fit a telephone")
    page.picture("samples-phone")
    page.size(1280, 800, dark=True)
    page.picture("samples-dark")
    page.size(1280, 800)
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    known = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored") and "role" in n]
    unnamed = [role for role, name in known if role in ("button", "slider", "combobox", "listbox", "option", "spinbutton", "region") and not name.strip()]
    check(unnamed == [] and {"slider", "listbox", "option"} <= {role for role, _ in known}, f"all of it has names: {unnamed}")


def what_if(page):
    """Rankings turned round, from the page: one that the reward model was fitted to, and perhaps others before."""
    with open(path("aligned/round-0/rankings.jsonl")) as file:
        rankings = [json.loads(line) for line in file]
    for which in [i for i, one in enumerate(rankings) if i > 0 and len(one["ranking"]) > 1][:6]:
        page.js("(document.querySelector('#ranking').value = arguments[0], document.querySelector('#ranking').dispatchEvent(new Event('change')))", str(which))
        page.until("its prompt", "document.querySelector('#what-if .said-before').textContent === arguments[0]", rankings[which]["prompt"])
        order = page.js("[...document.querySelectorAll('#what-if-order .text')].map((t) => t.textContent)")
        best = [rankings[which]["responses"][i] for i in rankings[which]["ranking"][0]]
        check(order[0] in best, "the ranking is shown, its best first")
        page.one("#turn").click()
        page.until("progress", "document.querySelector('#turn').disabled && document.querySelector('#what-if-said').textContent !== ''")
        page.until("the result", "document.querySelector('#what-if-result').textContent.includes('held-out answers change')", seconds=120)
        told = json.load(open(path(f"aligned-whatif-0-{which}/whatif.json")))
        if told["policy_before"] != told["policy_after"]:
            break
        check("Nothing hangs on it" in page.text("#what-if-result"), "of a ranking that was only tested on it is said")
    said = page.text("#what-if-result")
    check(told["answers_changed"] > 0 and f"{told['answers_changed']} of {len(told['answers'])}" in said and
          page.js("document.querySelectorAll('#what-if-result mark').length") > 0, f"what changed is marked: {said[:80]}")
    page.js("(document.querySelector('#what-if').scrollIntoView(true), window.scrollBy(0, -70))")
    page.picture("what-if")


def live(page):
    """A run under way is followed, until one steps back."""
    process = trained("live", "ppo", 60, "--episodes-kept", "2")
    page.js("(document.querySelector('#sample-run').value = '1', document.querySelector('#sample-run').dispatchEvent(new Event('change')))")
    step = "Number(document.querySelector('#iteration-said').textContent.split(' ')[0])"
    page.until("its samples", "document.querySelectorAll('.sample').length === 2 && " + step + " >= 2", seconds=60)
    page.js("document.querySelector('#step-back').click()")
    stayed = page.js(step)
    last = "Number(document.querySelector('#iteration-said').textContent.split(' ')[2])"
    page.until("more iterations", f"{last} >= {stayed} + 4", seconds=60)
    check(page.js(step) == stayed, "who stepped back stays there while the run goes on")
    page.js("document.querySelector('#newest').click()")
    page.until("the newest again", f"{step} > {stayed} + 3 && {step} === {last}")
    process.kill()
    process.wait()
    page.js("window.scrollTo(0, 0)")
    page.picture("watch")


def samples(page, server):
    server.send_signal(signal.SIGTERM)
    server.communicate()
    small = ("--rounds", "2", "--rank-prompts", "20", "--generate-max-new-tokens", "40", "--eval-prompts", "8", "--eval-stories", "4")
    process = trained("aligned", "align", 20 if os.environ.get("PLUMB_WRITE_DOCS") else 5, *small)
    os.makedirs(path("live"))
    check(process.wait() == 0, "a run of align")
    lines = spoilt("aligned/round-1")
    port = free_port()
    page.driver.get_log("browser")
    watcher = serve(port, "--watch", "aligned", "live")
    page.driver.get(f"http://127.0.0.1:{port}/")
    tokens(page, lines)
    pictures_of_samples(page)
    live(page)
    what_if(page)
    errors = [error for error in page.console() if "/api/" not in error]  # what there is none of is a 404
    check(errors == [], f"no error or warning in the console of a page of samples: {errors}")
    return watcher


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    write_candidates()
    began, port = time.monotonic(), free_port()
    server = serve(port)
    page = Browser(f"http://127.0.0.1:{port}/")
    try:
        keys_and_dragging(page)
        pairs(page)
        hostile(page)
        accessibility(page)
        phone(page)
        server = two_and_a_crash(page, server, port)
        the_end(page)
        server = blind(page, server)
        server = watch(page, server)
        server = loop(page, server)
        server = chat(page, server)
        server = samples(page, server)
    finally:
        page.driver.quit()
        server.send_signal(signal.SIGTERM)
        server.communicate()
    print(f"{time.monotonic() - began:.0f} s, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
