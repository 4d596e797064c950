// The page of `plumb studio`. What people and models wrote becomes text (textContent), never HTML.
// Actions go to the server one at a time; what it replies is where the annotator is, and the page
// shows that. What is not saved yet, an order under way, is kept in this browser.

import { chat } from "./chat.js";
import { openLoop, takeLoop, toRun } from "./loop.js";
import { samplesOf } from "./samples.js";
import { whatIfOf } from "./whatif.js";

export const byId = (id) => document.getElementById(id);
const ordinal = (n) => n + (["st", "nd", "rd"][((n + 90) % 100 - 10) % 10 - 1] || "th");

// Makes an element. `props` sets properties, and attributes where there is no such property.
export function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function kept(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem("plumb:" + key)) ?? fallback;
  } catch {
    return fallback;
  }
}
function keep(key, value) {
  try {
    if (value === null) localStorage.removeItem("plumb:" + key);
    else localStorage.setItem("plumb:" + key, JSON.stringify(value));
  } catch { /* a browser that keeps nothing: what is saved is with the server */ }
}

let announced = "";
export function announce(text) {
  announced = text === announced ? text + "\u00a0" : text;  // the same again is said again
  byId("live").textContent = announced;
}
export function warn(text) {
  byId("alert-text").textContent = text;
  byId("alert").hidden = text === "";
}

// --- The server ----------------------------------------------------------------------------------

let token = "";
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function beginSession() {
  const session = await send("session", {});
  if (session.ok) token = (await session.json()).token;
  return session;
}

async function send(action, body) {
  return fetch("/api/" + action, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Plumb-Token": token },
    body: JSON.stringify(body),
    cache: "no-store",
    signal: AbortSignal.timeout(15000),
  });
}

// Sends until it is answered: the server may have been stopped, and be started again. Sending twice
// does no harm, since an action names the question that it is about.
export async function post(action, body) {
  for (let tries = 0; ; ++tries) {
    try {
      let reply = token === "" ? await beginSession() : null;
      if (!reply || reply.ok) reply = await send(action, body);
      if (reply.status === 403 && (await reply.clone().json()).kind === "session") {
        reply = await beginSession();
        if (reply.ok) reply = await send(action, body);
      }
      const said = await reply.json();
      if (tries > 0) warn("");
      return { status: reply.status, ...said };
    } catch {
      warn("The server does not answer. What you saved is safe; this page goes on trying.");
      await wait(Math.min(500 * 2 ** tries, 8000));
    }
  }
}

// --- Where we are --------------------------------------------------------------------------------

let name = kept("name", "");
let at = null;        // what the server said last
let asked = null;     // its question
let order = [];       // of places, best first: {place, tie}: as good as the one before
let unusable = new Set();
let balance = null;   // of two: -3 the first is much better … 0 alike … 3
let tieNext = false, markNext = false, busy = false;

const isPair = () => asked !== null && asked.responses.length === 2;
const label = (place) => isPair() ? "AB"[place] : String(place + 1);

function ranks() {
  if (isPair()) {
    if (balance === null) return [-1, -1];
    return balance === 0 ? [0, 0] : balance < 0 ? [0, 1] : [1, 0];
  }
  const out = asked.responses.map(() => -1);
  let rank = -1;
  for (const item of order) {
    if (!item.tie) ++rank;
    out[item.place] = rank;
  }
  return out;
}

// The time that the question was looked at: hidden pages do not count, and of a pause a minute.
const clock = {
  spent: 0, since: 0,
  start(spent) { this.spent = spent; this.since = performance.now(); },
  tick() {
    const now = performance.now();
    this.spent += Math.min(now - this.since, 60000) / 1000;
    this.since = now;
  },
};
for (const event of ["pointermove", "pointerdown", "keydown", "scroll"])
  addEventListener(event, () => { if (!document.hidden) clock.tick(); }, { passive: true });
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clock.tick();
  else clock.since = performance.now();
});

const draftKey = () => "draft:" + asked.key;
function keepDraft() {
  if (asked)
    keep(draftKey(), { order, unusable: [...unusable], balance, comment: byId("comment").value,
                       spent: clock.spent });
}

// An answer that was withdrawn is what the page begins with.
function takeAnswer(answer) {
  const groups = new Map();
  answer.rank.forEach((rank, place) => {
    if (rank >= 0) groups.set(rank, [...(groups.get(rank) ?? []), place]);
  });
  order = [...groups.keys()].sort((a, b) => a - b).flatMap((rank) =>
    groups.get(rank).map((place, i) => ({ place, tie: i > 0 })));
  unusable = new Set(answer.unusable);
  const [a, b] = answer.rank;
  balance = a < 0 || b < 0 ? null : a === b ? 0 : (a < b ? -1 : 1) * (answer.strength || 1);
  byId("comment").value = answer.comment;
  clock.start(answer.seconds);
}

function takeQuestion(question, withdrawn) {
  asked = question;
  order = [];
  unusable = new Set();
  balance = null;
  tieNext = markNext = false;
  byId("comment").value = "";
  clock.start(0);
  if (!asked) return;
  const draft = kept(draftKey(), null);
  if (withdrawn) {
    takeAnswer(withdrawn);
  } else if (draft) {
    const fits = (place) => Number.isInteger(place) && place >= 0 && place < asked.responses.length;
    order = draft.order.filter((item) => fits(item.place));
    unusable = new Set(draft.unusable.filter(fits));
    balance = draft.balance;
    byId("comment").value = draft.comment;
    clock.start(draft.spent);
  }
}

// Shows what the server said: the place of the annotator, and the question if it is another one.
function arrive(state, saying) {
  const before = asked?.key, done = at?.done;
  at = state;
  if (state.question?.key !== before || state.withdrawn || state.done !== done)
    takeQuestion(state.question, state.withdrawn);
  showBar();
  show(asked ? "ask" : "done");
  if (asked) showQuestion(saying);
  else showDone(saying);
}

async function act(action, extra = {}) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  byId("saved").textContent = action === "answer" ? "Saving …" : "";
  const key = asked?.key ?? "";
  if (action === "answer")  // to know it again, if it is sent twice
    extra.once = crypto.getRandomValues(new Uint32Array(3)).join("-");
  const said = await post(action, { name, key, ...extra });
  busy = false;
  document.body.removeAttribute("aria-busy");
  byId("saved").textContent = "";
  if (said.status === 401) return show("no-entry");
  if (said.status === 410) return toRun();
  if (said.status === 409) {
    const ours = action === "answer" && said.last === extra.once;
    if (ours) keep("draft:" + key, null);
    warn(ours ? "" : "That question waits no more: it was answered elsewhere, perhaps in another window.");
    return arrive(said, ours ? "Saved." : "");
  }
  if (said.status !== 200) {
    if (at === null) askName();
    warn((action === "answer" ? "Not saved: " : "") + said.error);
    return;
  }
  warn("");
  if (action === "answer") {
    keep("draft:" + key, null);
    byId("saved").textContent = "Saved";
  }
  if (action === "sit") keep("name", name);
  arrive(said, { answer: "Saved.", skip: "Skipped.", undo: "Back: the answer is withdrawn." }[action]);
}

function save() {
  clock.tick();
  const rank = ranks(), marked = [...unusable];
  if (rank.filter((r) => r >= 0).length < 2 && marked.length === 0)
    return announce(isPair() ? "Say which is better, or that they are alike."
                             : "Put two responses in order, or more.");
  act("answer", {
    rank, unusable: marked, comment: byId("comment").value.trim(), seconds: clock.spent,
    strength: isPair() && rank[0] >= 0 ? Math.abs(balance ?? 0) : 0,
  });
}

// --- What the annotator does ---------------------------------------------------------------------

function changed(text) {
  keepDraft();
  showAnswer();
  if (text) announce(text);
}

const rankOf = (place) => ranks()[place];
function said(place) {
  const tied = ranks().filter((r) => r === rankOf(place)).length > 1;
  return `Response ${label(place)}: ${ordinal(rankOf(place) + 1)}${tied ? ", tied" : ""}.`;
}

function takeOut(place) {
  const i = order.findIndex((item) => item.place === place);
  if (i < 0) return false;
  const [gone] = order.splice(i, 1);
  if (!gone.tie && order[i]?.tie) order[i].tie = false;  // the next one leads the group
  return true;
}

function putIn(place, index, tie = false) {
  unusable.delete(place);
  order.splice(index, 0, { place, tie: tie && index > 0 });
}

function pick(place) {
  if (isPair()) return weigh(place === 0 ? -1 : 1);
  if (takeOut(place)) return changed(`Response ${label(place)} is out of the order.`);
  putIn(place, order.length, tieNext);
  tieNext = false;
  changed(said(place));
}

// Of two: the first choice is slight, and the same again makes it more.
function weigh(way) {
  unusable.clear();
  balance = balance !== null && Math.sign(balance) === way ? Math.max(-3, Math.min(3, balance + way))
                                                           : way;
  changed(choices.find(([value]) => value === balance)[1]);
}

function mark(place) {
  if (unusable.delete(place)) return changed(`Response ${label(place)} is of use.`);
  if (isPair()) balance = null;
  takeOut(place);
  unusable.add(place);
  changed(`Response ${label(place)} is marked as unusable.`);
}

function tie() {
  if (isPair()) {
    balance = 0;
    unusable.clear();
    return changed("They are alike.");
  }
  if (order.length === 0) return announce("First name the best one.");
  tieNext = !tieNext;
  changed(tieNext ? "The next one ties with the last." : "No tie.");
}

function allBad() {
  asked.responses.forEach((_, place) => unusable.add(place));
  order = [];
  balance = null;
  act("answer", {
    rank: asked.responses.map(() => -1), unusable: [...unusable], strength: 0,
    comment: byId("comment").value.trim(), seconds: (clock.tick(), clock.spent),
  });
}

function moveRow(place, by) {
  const from = order.findIndex((item) => item.place === place);
  const to = Math.max(0, Math.min(order.length - 1, from + by));
  if (to === from) return;
  takeOut(place);
  putIn(place, to, order[to]?.tie);  // between two that tie it is one of them
  changed(said(place));
}

function tieRow(index) {
  order[index].tie = !order[index].tie;
  changed(said(order[index].place));
}

// --- What is shown -------------------------------------------------------------------------------

const choices = [[-3, "A is much better"], [-2, "A is clearly better"], [-1, "A is slightly better"],
                 [0, "They are alike"],
                 [1, "B is slightly better"], [2, "B is clearly better"], [3, "B is much better"]];

export function show(view) {
  for (const id of ["sit", "ask", "done", "loop", "watch", "chat", "no-entry"])
    byId(id).hidden = id !== view && !(id === "watch" && view === "loop");
  byId("progress-box").hidden = byId("leave").hidden = view !== "ask" && view !== "done";
}

function duration(seconds) {
  if (seconds < 90) return Math.round(seconds) + " s";
  return seconds < 5400 ? Math.round(seconds / 60) + " min" : (seconds / 3600).toFixed(1) + " h";
}

function showBar() {
  byId("progress").max = Math.max(at.done + at.left, 1);
  byId("progress").value = at.done;
  byId("pace").textContent = `${at.done} of ${at.done + at.left}` +
    (at.seconds_each > 0 && at.left > 0 && !at.verdict
      ? ` · ${duration(at.seconds_each)} each · about ${duration(at.seconds_left)} left` : "");
  byId("leave").textContent = at.annotator;
  byId("leave").setAttribute("aria-label", `${at.annotator}: another name`);
  byId("open-instructions").hidden = at.instructions === "";
  byId("instructions-text").textContent = at.instructions;
}

function showQuestion(saying = "") {
  const number = `Question ${asked.number} of ${at.done + at.left}`;
  byId("number").textContent = number;
  byId("prompt").textContent = asked.prompt;
  byId("responses").replaceChildren(...asked.responses.map(card));
  byId("order").hidden = isPair();
  byId("scale").hidden = !isPair();
  byId("scale-choices").replaceChildren(...(isPair() ? choices.map(choice) : []));
  byId("undo").disabled = !at.can_undo;
  showAnswer();
  scrollTo(0, 0);
  byId("number").focus({ preventScroll: true });
  announce(`${saying} ${number}.`.trim());
}

function card(response, place) {
  const text = make("div", { className: "text", dir: "auto", id: "text-" + place });
  text.textContent = response.text === "" ? "(empty)" : response.text;
  const title = make("h2", { className: "number", id: "title-" + place },
    isPair() ? label(place) : `Response ${label(place)}`);
  if (isPair()) title.append(make("kbd", { ariaHidden: "true" }, String(place + 1)));
  const head = make("div", { className: "head" }, title,
    make("span", { className: "place", id: "place-" + place, hidden: true }));
  if (!isPair()) head.append(grip(place));
  const foot = make("div", { className: "foot" },
    make("button", { type: "button", className: "pick", id: "pick-" + place,
                     onclick: () => pick(place) }),
    make("button", { type: "button", className: "mark", id: "mark-" + place,
                     onclick: () => mark(place) }, "Unusable"));
  foot.lastChild.setAttribute("aria-label", `Response ${label(place)} is unusable`);
  const item = make("li", { className: "card", id: "card-" + place }, head, text);
  item.setAttribute("aria-labelledby", title.id);
  if (!response.finished)
    item.append(make("p", { className: "cut" }, "Stopped at the length limit"));
  item.append(foot);
  return item;
}

function choice([value, words]) {
  const radio = make("input", { type: "radio", name: "balance", value: String(value),
                                onchange: () => {
                                  balance = value;
                                  unusable.clear();
                                  changed();
                                } });
  return make("label", {}, radio, words);
}

function grip(place) {
  const handle = make("span", { className: "grip", title: "Drag", ariaHidden: "true" });
  handle.addEventListener("pointerdown", (event) => drag(event, place));
  return handle;
}

function row(item, index) {
  const { place } = item, rank = rankOf(place), name = `response ${label(place)}`;
  const text = make("span", { className: "text" }, make("b", {}, label(place)),
    asked.responses[place].text.slice(0, 120));
  const button = (className, sign, words, onclick) => {
    const made = make("button", { type: "button", className, onclick }, sign);
    made.setAttribute("aria-label", words);
    made.title = words;
    return made;
  };
  const tools = make("span", { className: "row-tools" });
  if (index > 0) {
    const tied = button("tie", "=", `Tie ${name} with the one above`, () => tieRow(index));
    tied.setAttribute("aria-pressed", String(item.tie));
    tools.append(tied, button("up", "↑", `Move ${name} up`, () => moveRow(place, -1)));
  }
  if (index < order.length - 1)
    tools.append(button("down", "↓", `Move ${name} down`, () => moveRow(place, 1)));
  tools.append(button("drop", "×", `Take ${name} out`, () => pick(place)));
  const out = make("li", { className: item.tie ? "row tied" : "row" },
    grip(place), make("b", {}, item.tie ? "=" : ordinal(rank + 1)), text, tools);
  out.dataset.place = place;
  return out;
}

function showOrder() {
  const active = document.activeElement, inRow = active?.closest?.(".row");
  const focused = inRow && { place: inRow.dataset.place, name: active.className };
  byId("ranked").replaceChildren(...order.map(row));
  const left = asked.responses.length - order.length - unusable.size;
  byId("order-hint").textContent = order.length === 0
    ? "Choose the best response, then the next best. Or drag them here."
    : tieNext ? "The next one you choose ties with the last."
    : left > 0 ? `${left} not in the order: compared with nothing.` : "";
  if (!focused) return;
  const again = byId("ranked").querySelector(`[data-place="${focused.place}"]`);
  (again?.querySelector("." + focused.name) ?? again?.querySelector("button") ??
   byId("number")).focus();
}

function showAnswer() {
  const rank = ranks();
  asked.responses.forEach((_, place) => {
    const inside = rank[place] >= 0, bad = unusable.has(place);
    const chosen = isPair() ? balance !== null && balance !== 0 && (balance < 0) === (place === 0)
                            : inside;
    byId("card-" + place).className = "card" + (chosen ? " in" : "") + (bad ? " out" : "");
    const badge = byId("place-" + place);
    badge.hidden = !chosen && !bad;
    badge.textContent = bad ? "unusable" : isPair() ? "better" : ordinal(rank[place] + 1);
    const button = byId("pick-" + place);
    button.setAttribute("aria-pressed", String(chosen));
    button.textContent = isPair() ? `${label(place)} is better`
      : inside ? "In your order" : order.length === 0 ? "Best" : tieNext ? "Ties" : "Next best";
    button.setAttribute("aria-label", isPair() ? button.textContent
      : `Response ${label(place)}: ${inside ? "in your order" : button.textContent.toLowerCase()}`);
    byId("mark-" + place).setAttribute("aria-pressed", String(bad));
  });
  if (isPair())
    for (const radio of byId("scale-choices").querySelectorAll("input"))
      radio.checked = balance !== null && Number(radio.value) === balance;
  else showOrder();
  showSaid(rank);
}

function showSaid(rank) {
  let text = isPair() ? choices.find(([value]) => value === balance)?.[1] ?? ""
    : order.map((item, i) => (i === 0 ? "" : item.tie ? " = " : " > ") + label(item.place)).join("") +
      (tieNext ? " =" : "");
  if (unusable.size > 0)
    text += (text && "   ") + "unusable: " + [...unusable].sort().map(label).join(", ");
  byId("said").textContent = text;
  byId("said").dataset.empty = isPair() ? "Which is better?" : "Best first";
  byId("save").disabled = rank.filter((r) => r >= 0).length < 2 && unusable.size === 0;
}

function showDone(saying = "") {
  const later = at.skipped > 0 && !at.verdict;
  byId("done-title").textContent = at.verdict
    ? at.verdict.decided ? "It is decided" : "All pairs are judged"
    : later ? "All but the skipped ones" : "All done";
  byId("done-text").textContent =
    `${at.done} answers by ${at.annotator}, every one saved.` +
    (later ? ` ${at.skipped} skipped.`
           : at.left > 0 && !at.verdict ? " Others have the rest in hand." : " Thank you.");
  byId("ask-skipped").hidden = !later;
  byId("ask-skipped").textContent = `Ask the ${at.skipped} skipped`;
  byId("done-undo").hidden = !at.can_undo;
  byId("look-again").hidden = Boolean(at.verdict);
  byId("verdict").hidden = !at.verdict;
  byId("verdict").replaceChildren(...(at.verdict ? verdict(at.verdict) : []));
  byId("done-title").focus();
  announce(`${saying} ${byId("done-title").textContent}.`.trim());
}

const share = (x) => (100 * x).toFixed(1) + " %";

// What was hidden until now: which is which, and how often each was better.
function verdict(v) {
  const bar = make("div", { className: "interval", ariaHidden: "true" }, make("i"), make("b"), make("s"));
  bar.children[0].style.left = share(v.low).replace(" ", "");
  bar.children[0].style.width = share(v.high - v.low).replace(" ", "");
  bar.children[1].style.left = share(v.wins / Math.max(v.wins + v.losses, 1)).replace(" ", "");
  const differ = v.wins + v.losses;
  return [
    make("p", { className: "big" }, share(v.rate)),
    make("p", {}, "of the pairs are won by ", make("strong", {}, v.after), " against ",
      make("strong", {}, v.before), ", ties counting half: ",
      `${v.wins} won, ${v.ties} alike, ${v.losses} lost.`),
    bar,
    make("p", { className: "soft" }, differ === 0 ? "No pair made a difference."
      : `Of the ${differ} pairs with a difference it wins between ${share(v.low)} and ${share(v.high)}` +
        " (95 %, whenever one looks). " +
        (v.decided ? "One half is not in there: no more pairs are needed."
                   : "One half is in there: nobody has shown which is better.")),
  ];
}

// --- Dragging, by mouse, pen or finger -----------------------------------------------------------

function drag(down, place) {
  if (down.button !== 0) return;
  down.preventDefault();
  const ghost = make("div", { className: "ghost" },
    `${label(place)}  ${asked.responses[place].text.slice(0, 40)}`);
  const list = byId("ranked"), handle = down.target;
  document.body.append(ghost);
  document.body.classList.add("dragging");
  handle.setPointerCapture(down.pointerId);
  let target = null;  // an index in the order, or none

  const others = () => [...list.querySelectorAll(".row")]
    .filter((one) => Number(one.dataset.place) !== place);
  const look = (event) => {
    const left = Math.min(event.clientX + 12, innerWidth - ghost.offsetWidth - 8);
    ghost.style.transform = `translate(${left}px, ${event.clientY + 8}px)`;
    const box = byId("order").getBoundingClientRect();
    const over = event.clientX > box.left - 24 && event.clientX < box.right + 24 &&
      event.clientY > box.top - 24 && event.clientY < box.bottom + 24;
    const rows = others();
    for (const one of rows) one.classList.remove("before");
    list.classList.toggle("over", over);
    list.classList.remove("after");
    target = null;
    if (!over) return;
    const next = rows.findIndex((one) => {
      const r = one.getBoundingClientRect();
      return event.clientY < r.top + r.height / 2;
    });
    target = next < 0 ? rows.length : next;
    if (next >= 0) rows[next].classList.add("before");
    else if (rows.length > 0) list.classList.add("after");
  };
  const end = (drop) => {
    handle.removeEventListener("pointermove", look);
    handle.removeEventListener("pointerup", up);
    handle.removeEventListener("pointercancel", cancel);
    removeEventListener("keydown", escape, true);
    ghost.remove();
    document.body.classList.remove("dragging");
    list.classList.remove("over", "after");
    const was = order.some((item) => item.place === place);
    if (drop && target !== null) {
      takeOut(place);
      putIn(place, target, order[target]?.tie);
      changed(said(place));
    } else if (drop && was && handle.closest(".row")) {
      takeOut(place);
      changed(`Response ${label(place)} is out of the order.`);
    } else {
      showAnswer();
    }
  };
  const up = (event) => { look(event); end(true); };
  const cancel = () => end(false);
  const escape = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    end(false);
  };
  handle.addEventListener("pointermove", look);
  handle.addEventListener("pointerup", up);
  handle.addEventListener("pointercancel", cancel);
  addEventListener("keydown", escape, true);
  look(down);
}

// --- Keys ----------------------------------------------------------------------------------------

const singleKeys = () => byId("single-keys").checked;

function questionKey(event) {
  const digit = /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : -1;
  if (digit >= 0 && digit < asked.responses.length) {
    if (markNext) mark(digit);
    else pick(digit);
    markNext = false;
    return true;
  }
  markNext = false;
  switch (event.key) {
    case "=": tie(); return true;
    case "ArrowLeft": if (isPair()) pick(0); return isPair();
    case "ArrowRight": if (isPair()) pick(1); return isPair();
    case "Backspace": if (order.length > 0) pick(order.at(-1).place); return true;
    case "x": markNext = true; announce("Which response is of no use?"); return true;
    case "b": allBad(); return true;
    case "s": act("skip"); return true;
    case "c": byId("comment").focus(); return true;
  }
  return false;
}

addEventListener("keydown", (event) => {
  const target = event.target;
  if (document.querySelector("dialog[open]") || busy || event.isComposing) return;
  if (target === byId("comment")) {
    if (event.key === "Escape") byId("number").focus({ preventScroll: true });
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (target.matches("input:not([type=radio]), textarea")) return;
  if (event.key === "Enter") {
    if (asked && !target.closest("button, a")) {
      event.preventDefault();
      save();
    }
    return;
  }
  if (!singleKeys() || !at) return;
  if (target.matches("input[type=radio]") && event.key.startsWith("Arrow")) return;
  let used = true;
  if (event.key === "u" && at.can_undo) act("undo");
  else if (event.key === "i" && at.instructions !== "") byId("instructions").showModal();
  else if (event.key === "?") byId("help").showModal();
  else used = asked !== null && questionKey(event);
  if (used) event.preventDefault();
});

// --- Runs that are watched -----------------------------------------------------------------------

const curves = [
  ["Reward", ["objective/scores"]],
  ["True score, by the rule itself", ["judge/total"]],
  ["KL to the first policy, nats", ["objective/kl_exact", "objective/kl"]],
  ["Entropy, nats a token", ["policy/entropy_avg"]],
  ["Clip fraction", ["policy/clipfrac_avg"]],
  ["Response length, tokens", ["response/length"]],
  ["Pairs ordered rightly, share", ["rewards/accuracies"]],
  ["Loss", ["loss"]],
  ["Explained variance", ["val/explained_variance"]],
  ["Tokens a second", ["time/tokens_per_second"]],
];
let runs = [];  // {name, rows, alarms}
let showSamples = null, showWhatIf = null;
const figures = {};  // a figure, of each curve's title

const short = (x) => Math.abs(x) >= 1000 || x === 0 ? x.toFixed(0) : x.toPrecision(3);

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function watchRuns() {
  showSamples ??= samplesOf({ make, post }, byId("samples"));
  showWhatIf ??= whatIfOf({ make, post, announce }, byId("what-if"));
  const source = new EventSource("/api/watch");
  source.onmessage = (event) => {
    warn("");
    const { loop, runs: said } = JSON.parse(event.data);
    if (loop) takeLoop(loop);
    if (!said) return;
    runs = said.map((run, i) => ({ ...run, rows: [...(runs[i]?.rows ?? []).slice(0, run.from), ...run.rows] }));
    showRuns();
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) {
      warn("The server does not answer; this page goes on trying.");
      setTimeout(async () => { await post("open", {}); watchRuns(); }, 1000);
    }
  };
}

// The points of a curve: of the first of its names that a run has.
function pointsOf(run, names) {
  const name = names.find((one) => run.rows.some((row) => one in row.values));
  return run.rows.filter((row) => name in row.values).map((row) => [row.step, row.values[name]]);
}

function showRuns() {
  byId("runs").replaceChildren(...runs.map((run, i) => {
    const item = make("li", { className: "run" + (i % 6) }, make("span", { className: "swatch" }),
      make("strong", {}, run.name));
    item.append(make("span", { className: "soft" }, run.error ? run.error
      : run.rows.length === 0 ? "no row yet" : `step ${run.rows.at(-1).step}`));
    return item;
  }));
  const alarms = runs.flatMap((run) => run.alarms.map((text) => `${run.name}: ${text}`));
  const list = byId("alarms");
  if (list.children.length > alarms.length) list.replaceChildren();
  for (const text of alarms.slice(list.children.length)) list.append(make("li", {}, text));
  for (const [title, names] of curves) {
    const lines = runs.map((run) => pointsOf(run, names));
    if (!lines.some((points) => points.length > 0)) continue;
    if (!figures[title]) byId("charts").append(figures[title] = make("figure"));
    figures[title].replaceChildren(...curve(title, lines));
  }
  byId("watch-empty").hidden = byId("charts").children.length > 0;
  showSamples(runs);
  showWhatIf(runs);
}

function curve(title, lines) {
  const all = lines.flat(), xs = all.map(([x]) => x), ys = all.map(([, y]) => y);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const px = (x) => 52 + 360 * (x1 > x0 ? (x - x0) / (x1 - x0) : 0.5);
  const py = (y) => 152 - 136 * (y1 > y0 ? (y - y0) / (y1 - y0) : 0.5);
  const now = make("span", {}, lines.map((points) => points.length ? short(points.at(-1)[1]) : "–").join(" · "));
  const plot = svg("svg", { class: "plot", viewBox: "0 0 424 176", role: "img", "aria-label":
    `${title}: ` + lines.map((points, i) => points.length
      ? `${runs[i].name} from ${short(points[0][1])} to ${short(points.at(-1)[1])}` : "").join("; ") });
  for (const [y, at] of y1 > y0 ? [[y0, 152], [y1, 16]] : [[y0, 84]])
    plot.append(svg("line", { x1: 52, x2: 412, y1: at, y2: at }),
      svg("text", { x: 46, y: at + 4, "text-anchor": "end" }, short(y)));
  plot.append(svg("text", { x: 52, y: 171 }, String(x0)),
    svg("text", { x: 412, y: 171, "text-anchor": "end" }, String(x1)));
  lines.forEach((points, i) => {
    if (points.length === 0) return;
    const path = points.map(([x, y], k) => `${k ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`);
    const [x, y] = points.at(-1);
    plot.append(svg("g", { class: "run" + (i % 6) }, svg("path", { d: path.join("") }),
      svg("circle", { cx: px(x), cy: py(y), r: 4 })));
  });
  const last = now.textContent;
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const x = x0 + (x1 - x0) * ((event.clientX - box.left) / box.width * 424 - 52) / 360;
    const near = (points) => points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a);
    const found = lines.map((points) => points.length ? near(points) : null);
    now.textContent = `step ${found.find((one) => one)[0]}: ` +
      found.map((one) => one ? short(one[1]) : "–").join(" · ");
  });
  plot.addEventListener("pointerleave", () => { now.textContent = last; });
  return [make("figcaption", {}, title, now), plot];
}

// --- Beginning -----------------------------------------------------------------------------------

export function sit() {
  if (name === "") askName();
  else act("sit");
}

function askName() {
  at = null;
  takeQuestion(null);
  show("sit");
  byId("open-instructions").hidden = true;
  byId("sit-name").value = name;
  byId("sit-name").focus();
}

byId("sit-form").addEventListener("submit", (event) => {
  event.preventDefault();
  name = byId("sit-name").value.trim();
  if (name !== "") act("sit");
});
byId("save").onclick = save;
byId("skip").onclick = () => act("skip");
byId("undo").onclick = byId("done-undo").onclick = () => act("undo");
byId("all-bad").onclick = allBad;
byId("ask-skipped").onclick = () => act("skipped");
byId("look-again").onclick = () => act("sit");
byId("leave").onclick = askName;
byId("open-help").onclick = () => byId("help").showModal();
byId("open-instructions").onclick = () => byId("instructions").showModal();
byId("alert-close").onclick = () => warn("");
byId("comment").addEventListener("input", keepDraft);
byId("single-keys").checked = kept("single-keys", true);
byId("single-keys").onchange = () => keep("single-keys", singleKeys());

// The token has done its work: it stays in a cookie that no script reads.
if (location.search !== "") history.replaceState(null, "", "/");
const opened = await post("open", {});
if (opened.status === 401) show("no-entry");
else if (opened.mode === "watch") {
  show("watch");
  watchRuns();
} else if (opened.mode === "loop") {
  openLoop(opened);
  watchRuns();
} else if (opened.mode === "chat") chat(opened);
else sit();
