// The samples of an iteration of a watched run, each token coloured by a number of the trainer's
// own: where the penalty falls, and the advantage. Every text becomes textContent. Numbers are said
// where one points and where the focus is; arrow keys go from token to token.

const quantities = [
  ["kl", "KL to the first policy, nats", (e) => e.kl_exact ?? e.log_ratio],
  ["advantage", "Advantage", (e) => e.advantages],
  ["reward", "Reward", (e) => e.rewards],
  ["log-prob", "Log-probability, nats", (e) => e.logprobs],
  ["value", "Value", (e) => e.values],
];
const steps = 9;  // shades to a side

const number = (x) => x === null || x === undefined ? "–"
  : (x < 0 ? "\u2212" : "") + (Math.abs(x) >= 1000 ? Math.abs(x).toFixed(0) : Math.abs(x) >= 1e-3 || x === 0
    ? String(Number(Math.abs(x).toPrecision(3))) : Math.abs(x).toExponential(1));

// The largest number that has a shade of its own: 19 of 20 are not beyond it.
function reach(values) {
  const sizes = values.filter(Number.isFinite).map(Math.abs).sort((a, b) => a - b);
  return sizes[Math.min(sizes.length - 1, Math.floor(0.95 * sizes.length))] || sizes.at(-1) || 1;
}
function shade(x, most) {
  if (!Number.isFinite(x) || x === 0) return "";
  return (x < 0 ? "below" : "above") + " shade" + Math.min(steps, Math.max(1, Math.ceil(steps * Math.abs(x) / most)));
}

// `page` lends make, post and announce.
export function samplesOf(page, root) {
  const { make, post } = page;
  let runs = [], run = 0, step = null, newest = true, colour = "kl", shown = null, asking = false;

  const which = make("select", { id: "sample-run" });
  const back = make("button", { type: "button", id: "step-back", className: "plain", ariaLabel: "One iteration back" }, "‹");
  const on = make("button", { type: "button", id: "step-on", className: "plain", ariaLabel: "One iteration on" }, "›");
  const slider = make("input", { type: "range", id: "iteration", min: "0", step: "1" });
  const place = make("output", { id: "iteration-said", htmlFor: "iteration" });
  const follow = make("button", { type: "button", id: "newest", className: "plain", ariaPressed: "true" }, "Newest");
  const by = make("select", { id: "colour" });
  const legend = make("p", { id: "legend", className: "legend" });
  const none = make("p", { id: "samples-empty", className: "soft" });
  const list = make("ol", { id: "sample-list", className: "samples" });
  const runLabel = make("label", {}, "Run ", which);
  root.replaceChildren(make("h2", { id: "samples-title" }, "Samples, token by token"),
    make("div", { className: "line" }, runLabel,
      make("div", { className: "steps" }, make("label", { htmlFor: "iteration" }, "Iteration"), back, slider, on, place, follow),
      make("label", {}, "Colour ", by)),
    legend, none, list);

  const rowsOf = () => runs[run]?.rows ?? [];
  function place_of(at) {
    const found = rowsOf().findIndex((row) => row.step === at);
    return found < 0 ? rowsOf().length - 1 : found;
  }

  function showPlace() {
    const rows = rowsOf(), at = place_of(step);
    slider.max = String(Math.max(rows.length - 1, 0));
    slider.value = String(Math.max(at, 0));
    slider.disabled = rows.length < 2;
    back.disabled = at <= 0;
    on.disabled = at >= rows.length - 1;
    place.textContent = rows.length ? `${step} of ${rows.at(-1).step}` : "–";
    slider.setAttribute("aria-valuetext", place.textContent);
    follow.ariaPressed = String(newest);
  }

  async function go(to) {
    step = to;
    showPlace();
    if (asking) return;  // the last one said is asked for then
    asking = true;
    let asked;
    do {
      asked = [run, step];
      const said = await post("episodes", { run: asked[0], iteration: asked[1] });
      shown = said.status === 200 ? said : null;
      none.textContent = said.status === 200 ? "" : said.error.replace(/^\[\w+\] /, "");
    } while (asked[0] !== run || asked[1] !== step);
    asking = false;
    for (const e of shown?.episodes ?? [])
      e.log_ratio = e.logprobs.map((x, t) => x - e.ref_logprobs[t]);
    show();
  }

  function stepBy(count) {
    const rows = rowsOf(), at = Math.min(Math.max(place_of(step) + count, 0), rows.length - 1);
    newest = false;
    if (rows[at]) go(rows[at].step);
  }

  const valuesOf = (e) => quantities.find(([name]) => name === colour)[2](e) ?? [];

  function show() {
    const all = shown?.episodes ?? [];
    const there = quantities.filter(([, , get]) => all.some((e) => get(e)));
    if (!there.some(([name]) => name === colour) && there.length) colour = there[0][0];
    by.replaceChildren(...there.map(([name, title]) => make("option", { value: name, selected: name === colour }, title)));
    const most = reach(all.flatMap(valuesOf));
    showLegend(most, all.length > 0);
    list.replaceChildren(...all.map((e, i) => sample(e, i, most)));
    none.hidden = all.length > 0;
    if (!shown && none.textContent === "") none.textContent = "No iteration is kept yet.";
  }

  function showLegend(most, any) {
    legend.hidden = !any;
    const swatches = [];
    for (let i = -steps; i <= steps; ++i)
      swatches.push(make("i", { className: "token " + shade(i * most / steps, most) }));
    legend.replaceChildren(make("span", {}, "≤ " + number(-most)), make("span", { className: "strip", ariaHidden: "true" }, ...swatches),
      make("span", {}, "≥ " + number(most)), make("span", { className: "soft" }, "no colour: 0"));
  }

  const divergence = (e) => e.kl_exact ? "exact KL" : "log-ratio";

  // The numbers of a token, in words.
  function said(e, t) {
    const text = t < e.text.length ? JSON.stringify(e.text[t]) : "after the end";
    const parts = quantities.filter(([, , get]) => get(e)?.[t] !== undefined)
      .map(([name, , get]) => `${name === "kl" ? divergence(e) : name} ${number(get(e)[t])}`);
    if (e.kl_exact && t < e.text.length) parts.push(`log-ratio ${number(e.log_ratio[t])}`);
    return `${t}: ${text} · ${parts.join(" · ")}`;
  }

  function sample(e, index, most) {
    const values = valuesOf(e), count = Math.max(e.tokens.length, e.rewards.length);
    const readout = make("output", { className: "readout" });
    const text = make("div", { className: "text tokens", role: "listbox", ariaLabel: `Tokens of sample ${index + 1}`, dir: "auto" });
    const tokens = [];
    for (let t = 0; t < count; ++t) {
      const piece = e.text[t] ?? "", mark = piece !== "" ? "" : t < e.text.length ? "·" : "∎";
      const token = make("span", { className: `token ${shade(values[t], most)}`, role: "option", tabIndex: t === 0 ? 0 : -1,
        ariaLabel: said(e, t), ariaSelected: "false" }, piece || make("span", { className: "soft", ariaHidden: "true" }, mark));
      if (piece.includes("\n")) token.classList.add("newline");
      token.dataset.t = t;
      tokens.push(token);
    }
    text.append(...tokens);
    const tell = (token) => { if (token) readout.textContent = said(e, Number(token.dataset.t)); };
    const leave = () => {
      const focused = tokens.find((one) => one === document.activeElement);
      if (focused) tell(focused);
      else readout.textContent = "Point at a token, or use the arrow keys.";
    };
    leave();
    text.addEventListener("pointerover", (event) => tell(event.target.closest(".token")));
    text.addEventListener("pointerleave", leave);
    text.addEventListener("focusin", (event) => {
      const token = event.target.closest(".token");
      if (!token) return;
      for (const one of tokens) {
        one.tabIndex = one === token ? 0 : -1;
        one.ariaSelected = String(one === token);
      }
      tell(token);
    });
    text.addEventListener("focusout", leave);
    text.addEventListener("keydown", (event) => {
      const at = tokens.indexOf(event.target.closest(".token"));
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 10, ArrowUp: at - 10, Home: 0, End: tokens.length - 1 }[event.key];
      if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      tokens[Math.min(Math.max(to, 0), tokens.length - 1)].focus();
    });
    const fact = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
    const facts = make("dl", { className: "facts" }, fact("Score", number(e.raw_score)));
    if (e.score !== e.raw_score) facts.append(fact("as trained on", number(e.score)));
    if (e.judge !== undefined) facts.append(fact("True rule", number(e.judge)));
    const sum = (values) => values.reduce((a, b) => a + b, 0);
    facts.append(fact("Its " + divergence(e), number(sum(e.kl_exact ?? e.log_ratio))),
      fact("Its rewards", number(sum(e.rewards))), fact("Tokens", String(e.tokens.length)), fact("", e.finished ? "ended" : "cut"));
    return make("li", { className: "sample" }, make("p", { className: "text said-before", dir: "auto" }, e.prompt), text, readout, facts);
  }

  which.onchange = () => {
    run = Number(which.value);
    newest = true;
    follower();
  };
  by.onchange = () => { colour = by.value; show(); };
  back.onclick = () => stepBy(-1);
  on.onclick = () => stepBy(1);
  slider.oninput = () => {
    newest = false;
    const row = rowsOf()[Number(slider.value)];
    if (row) go(row.step);
  };
  follow.onclick = () => {
    newest = true;
    follower();
  };

  // Goes to the newest iteration, unless the user stepped back.
  function follower() {
    const last = rowsOf().at(-1)?.step ?? null;
    if (newest && last !== step) go(last);
    else if (newest && last === null) show();
    else showPlace();
  }

  return (all) => {
    const names = all.map((one) => one.name);
    if (names.join("\n") !== runs.map((one) => one.name).join("\n")) {
      which.replaceChildren(...names.map((name, i) => make("option", { value: String(i) }, name)));
      runLabel.hidden = names.length < 2;
    }
    runs = all;
    follower();
  };
}
