// The page's chat with one model or two: turns, and of each token how probable it was. What models
// wrote becomes text, never HTML.

import { make, byId, post, announce, warn, show } from "./studio.js";

const sides = "AB";
const pause = 250;  // ms between two looks at a turn

// A piece of a response, of one token or of several that make one character together, has as its
// probability that of all its tokens in turn.
const chanceOf = (piece) => piece.tokens.reduce((p, token) => p * token.probability, 1);

// How surprising: the steps of the legend.
const steps = [[0.5, "50 % or more"], [0.1, "10 to 50 %"], [0.01, "1 to 10 %"], [0, "less than 1 %"]];
const stepOf = (p) => steps.findIndex(([least]) => p >= least);

function percent(p) {
  return (p < 0.001 ? Number((100 * p).toPrecision(2)) : (100 * p).toFixed(1)) + " %";
}

// What can be seen of a text where it stands alone.
const quoted = (text) => "“" + text.replaceAll("\n", "↵").replaceAll("\t", "⇥") + "”";

export function chat(opened) {
  const { models } = opened, two = models.length === 2;
  const section = byId("chat");
  const nameOf = (side) => two ? `${sides[side]}: ${models[side].name}` : models[side].name;
  let running = null;  // the word of the turn that is under way

  // --- The card that says how probable a token was -------------------------------------------------

  const card = make("div", { id: "chat-card", className: "chat-card", role: "tooltip", hidden: true });
  let shownFor = null;

  function bar(name, p, own) {
    const fill = make("i");
    fill.style.width = (100 * p).toFixed(1) + "%";
    return make("div", { className: own ? "chat-bar own" : "chat-bar" }, make("span", {}, name),
      make("span", { className: "chat-track", ariaHidden: "true" }, fill), make("b", {}, percent(p)));
  }

  function likeliest(words, likely, chosen) {
    return [make("p", { className: "soft" }, words),
      ...likely.map(([text, p]) => bar(quoted(text), p, text === chosen))];
  }

  function tokenParts(token, side, several) {
    const parts = several ? [make("h3", {}, quoted(token.text))] : [];
    const own = two ? sides[side] : "probability", other = sides[1 - side];
    const bars = [bar(own, token.probability, true)];
    if ("beside" in token) {
      bars.splice(1 - side, 0, bar(other, token.beside, false));  // A before B
      const [more, less] = [token.probability, token.beside];
      const times = Math.max(more, less) / Math.min(more, less);
      if (token.differs)
        bars.push(make("p", {}, `${more > less ? own : other} finds it ` +
          `${times < 10 ? times.toFixed(1) : times < 1e6 ? Math.round(times) : "a million and more"} ` +
          "times as probable."));
    }
    parts.push(...bars);
    const found = [likeliest(two ? `Likeliest for ${own}` : "Likeliest here", token.likely, token.text)];
    if (token.likely_beside)
      found.splice(1 - side, 0, likeliest(`Likeliest for ${other}`, token.likely_beside, token.text));
    parts.push(...found.flat());
    return parts;
  }

  function showCard(element, side, piece) {
    if (shownFor === element) return;
    hideCard();
    const first = piece.begin + 1, last = piece.begin + piece.tokens.length;
    const several = piece.tokens.length > 1;
    card.replaceChildren(make("h2", {}, `${quoted(piece.text || piece.tokens[0].text)}  ` +
      (several ? `tokens ${first} to ${last}, together ${percent(chanceOf(piece))}` : `token ${first}`)),
      ...piece.tokens.flatMap((token) => tokenParts(token, side, several)));
    card.hidden = false;
    shownFor = element;
    element.setAttribute("aria-describedby", card.id);
    const line = element.getClientRects()[0], box = section.getBoundingClientRect();
    const left = Math.min(line.left - box.left, section.clientWidth - card.offsetWidth - 8);
    const below = line.bottom + 6 + card.offsetHeight < innerHeight;
    const fits = below || line.top < card.offsetHeight + 6;
    card.style.left = Math.max(left, 8) + "px";
    card.style.top = (fits ? line.bottom + 6 : line.top - 6 - card.offsetHeight) - box.top + "px";
  }

  function hideCard() {
    shownFor?.removeAttribute("aria-describedby");
    shownFor = null;
    card.hidden = true;
  }

  // --- Responses -----------------------------------------------------------------------------------

  function pieceElement(piece, side, first) {
    const p = chanceOf(piece), blank = piece.text.trim() === "";
    const classes = ["piece", "step" + stepOf(p)];
    if (piece.text === "") classes.push("name");
    if (piece.text.startsWith("\n")) classes.push("break");
    if (piece.differs) classes.push("differs");
    if (first) classes.push("first");
    const element = make("span", { className: classes.join(" "), role: "option", tabIndex: -1 },
      piece.text || piece.tokens[0].text);
    if (blank && piece.text !== "")
      element.setAttribute("aria-label", piece.text.includes("\n") ? "line break" : "space");
    element.addEventListener("pointerenter", () => showCard(element, side, piece));
    element.addEventListener("focus", () => {
      for (const other of element.parentElement.children) other.tabIndex = -1;
      element.tabIndex = 0;
      showCard(element, side, piece);
    });
    return element;
  }

  // Arrow keys move between tokens: along the text, and to the line above and below.
  function moved(list, from, key) {
    const all = [...list.children], at = all.indexOf(from);
    if (key === "Home") return all[0];
    if (key === "End") return all.at(-1);
    if (key === "ArrowRight" || key === "ArrowLeft") return all[at + (key === "ArrowRight" ? 1 : -1)];
    const way = key === "ArrowDown" ? 1 : key === "ArrowUp" ? -1 : 0;
    if (way === 0) return null;
    const here = from.getClientRects()[0];
    const place = (one) => one.getClientRects()[0];
    const beyond = all.filter((one) => way * (place(one).top - here.top) > here.height / 2);
    const nearest = Math.min(...beyond.map((one) => way * place(one).top));
    return beyond.filter((one) => way * place(one).top < nearest + here.height / 2)
      .sort((a, b) => Math.abs(place(a).left - here.left) - Math.abs(place(b).left - here.left))[0];
  }

  function side(index) {
    const text = make("div", { className: "text chat-said", dir: "auto" });
    const title = make("h2", { className: "number" }, two ? make("span", { className: "badge" }, sides[index]) : "",
      models[index].name);
    const box = make("section", { className: "card chat-side" }, title, text);
    box.setAttribute("aria-label", nameOf(index));
    return box;
  }

  function takeResponse(box, index, said) {
    const response = said.responses[index], list = box.querySelector(".chat-said");
    list.replaceChildren(...response.pieces.map((piece) => pieceElement(piece, index,
      said.first_difference !== null && piece.begin <= said.first_difference &&
      said.first_difference < piece.begin + piece.tokens.length)));
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", `${nameOf(index)}: its tokens; arrow keys move`);
    list.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hideCard();
      const to = moved(list, document.activeElement, event.key);
      if (to) to.focus();
      if (to || event.key.startsWith("Arrow")) event.preventDefault();
    });
    list.addEventListener("focusout", hideCard);
    list.addEventListener("pointerleave", (event) => {
      if (!card.contains(event.relatedTarget)) hideCard();
    });
    if (list.firstChild) list.firstChild.tabIndex = 0;
    else list.append(make("span", { className: "soft" }, "(nothing)"));
    if (!response.finished)
      box.append(make("p", { className: "cut" },
        response.stopped ? "Stopped" : "Stopped at the length limit"));
  }

  // --- Turns ---------------------------------------------------------------------------------------

  const turns = make("ol", { id: "chat-turns", className: "chat-turns" });
  turns.setAttribute("aria-label", "Turns");

  const atEnd = () => scrollY + innerHeight > document.documentElement.scrollHeight - 120;
  const toEnd = () => scrollTo(0, document.documentElement.scrollHeight);

  function turnElement(text) {
    const boxes = models.map((_, index) => side(index));
    const item = make("li", { className: "chat-turn" },
      make("section", { className: "prompt" }, make("h2", {}, models[0].continues ? "A text begins" : "You"),
        make("div", { className: "text", dir: "auto" }, text)),
      make("div", { className: "chat-sides" }, ...boxes));
    turns.append(item);
    return { item, boxes };
  }

  function say(words) {
    status.textContent = words;
  }

  function showState(state, { item, boxes }) {
    if (state.state === "waits")
      say(state.ahead === 1 ? "Another turn comes first." : `${state.ahead} other turns come first.`);
    if (state.state === "speaks") {
      const stay = !atEnd();
      state.texts.forEach((text, index) => {
        boxes[index].querySelector(".chat-said").textContent = text;
      });
      say(two ? `${sides[state.texts[1] === "" ? 0 : 1]} speaks …` : "Speaks …");
      if (!stay) toEnd();
    }
    if (state.state !== "done") return;
    boxes.forEach((box, index) => takeResponse(box, index, state.said));
    if (state.said.difference)
      item.append(make("p", { className: "chat-difference" }, state.said.difference));
    const spoken = state.said.responses.map((response, index) =>
      (two ? sides[index] + ": " : "") + response.text);
    announce([...spoken, state.said.difference].join(" \n"));
  }

  async function begin(text) {
    const word = [...crypto.getRandomValues(new Uint32Array(4))]
      .map((x) => x.toString(16).padStart(8, "0")).join("-");
    running = word;
    showButtons();
    const settings = {};
    for (const [key, input] of Object.entries(inputs))
      if (input.value !== "") settings[key] = Number(input.value);
    let state = await post("say", { turn: word, text, settings });
    if (state.status === 200) {
      warn("");
      input.value = "";
      const shown = turnElement(text);
      toEnd();
      while (state.state === "waits" || state.state === "speaks") {
        showState(state, shown);
        await new Promise((done) => setTimeout(done, pause));
        state = await post("hear", { turn: word });
      }
      showState(state, shown);
      if (state.state !== "done")
        shown.item.append(make("p", { className: "chat-difference" },
          state.state === "stopped" ? "Stopped before it began." : state.error ?? "It was not answered."));
      toEnd();
    } else if (state.status === 401) {
      show("no-entry");
    } else {
      warn(state.error);
    }
    running = null;
    say("");
    showButtons();
    input.focus();
  }

  // --- What one says -------------------------------------------------------------------------------

  const inputs = {};
  function setting(key, words, attributes) {
    inputs[key] = make("input", { type: "number", id: "chat-" + key, value: opened.settings[key], ...attributes });
    return make("div", {}, make("label", { htmlFor: "chat-" + key }, words), inputs[key]);
  }

  const input = make("textarea", { id: "chat-text", rows: 2, maxLength: 20000, required: true });
  const send = make("button", { type: "submit", className: "main", id: "chat-send" }, "Send");
  const stop = make("button", { type: "button", className: "plain", id: "chat-stop" }, "Stop");
  const status = make("span", { className: "soft", id: "chat-status", role: "status" });
  const form = make("form", { className: "chat-form" },
    make("label", { htmlFor: "chat-text" }, models[0].continues ? "How a text begins" : "What you say"),
    make("div", { className: "chat-line" }, input, send, stop),
    make("div", { className: "chat-line" },
      make("details", { id: "chat-settings" }, make("summary", {}, "Settings"),
        make("div", { className: "chat-settings" },
          setting("temperature", "Temperature", { min: "0", max: "100", step: "any" }),
          setting("top-p", "Top-p", { min: "0", max: "1", step: "any" }),
          setting("max-new-tokens", "Longest response, tokens", { min: "1", max: String(opened.longest), step: "1" }),
          setting("seed", "Seed", { min: "0", max: String(2 ** 53), step: "1" }))), status));

  function showButtons() {
    send.hidden = running !== null;
    stop.hidden = running === null;
    if (running === null) document.body.removeAttribute("aria-busy");
    else document.body.setAttribute("aria-busy", "true");
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running === null) begin(input.value);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  stop.onclick = () => post("stop", { turn: running });
  card.addEventListener("pointerleave", hideCard);
  addEventListener("resize", hideCard);
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideCard(); });

  // --- The view ------------------------------------------------------------------------------------

  const legend = make("div", { className: "chat-legend" }, make("span", {}, "A token's probability:"),
    ...steps.map(([, words], step) => make("span", { className: "piece step" + step }, words)));
  if (opened.compared)
    legend.append(make("span", { className: "differs" }, "one model finds it twice as probable, or more"),
      make("span", { className: "first" }, "the first difference"));
  const head = make("div", { className: "chat-head" }, make("h1", { tabIndex: -1 }, two ? "Two models, side by side" : "Chat"),
    make("p", { className: "soft" }, "Each turn stands for itself. Point at a token, or move there with Tab and the " +
      "arrow keys, to see how probable it was at temperature 1, and what else might have come."));
  if (two && !opened.compared)
    head.append(make("p", {}, "These models have different tokenizers: each shows its own probabilities, " +
      "and nothing is compared."));
  section.replaceChildren(head, legend, turns, card, form);
  byId("open-help").hidden = true;
  showButtons();
  show("chat");
  input.focus();
}
