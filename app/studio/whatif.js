// What if a ranking of a watched run were turned round? The server trains the round again, in a
// process of its own; this shows the ranking, how far that is, and which tokens change.

export function whatIfOf(page, root) {
  const { make, post, announce } = page;
  let runs = [], run = 0, at = null, asked = 0, timer = 0, looking = false;

  const which = make("select", { id: "what-if-run" });
  const round = make("input", { type: "number", id: "round", min: "0", step: "1", value: "0" });
  const ranking = make("input", { type: "number", id: "ranking", min: "0", step: "1", value: "0" });
  const count = make("span", { className: "soft" });
  const prompt = make("p", { className: "text said-before", dir: "auto" });
  const order = make("ol", { id: "what-if-order", className: "samples" });
  const turn = make("button", { type: "button", id: "turn", className: "main" }, "Turn it round and train again");
  const said = make("output", { id: "what-if-said", className: "soft" });
  const result = make("div", { id: "what-if-result", className: "samples" });
  const runLabel = make("label", {}, "Run ", which);
  root.replaceChildren(make("h2", { id: "what-if-title" }, "What if this ranking were turned round?"),
    make("div", { className: "line" }, runLabel, make("label", {}, "Round ", round), make("label", {}, "Ranking ", ranking), count),
    prompt, order, make("div", { className: "line" }, turn, said), result);

  async function ask(action) {
    clearTimeout(timer);
    const mine = ++asked;
    const reply = await post(action, { run, round: Number(round.value) || 0, ranking: Number(ranking.value) || 0 });
    if (mine !== asked) return;
    said.textContent = reply.status === 200 ? "" : reply.error.replace(/^\[\w+\] /, "");
    if (reply.status !== 200) return;
    at = reply;
    root.hidden = false;
    show();
  }

  // The first run that has rankings, which may come later.
  async function look() {
    if (at !== null || looking) return;
    looking = true;
    for (run = 0; run < runs.length; ++run) {
      await ask("ranking");
      if (at !== null) break;
    }
    which.value = String(run);
    looking = false;
  }

  function show() {
    const texts = at.responses.map((text, i) => [at.rank[i], text]);
    texts.sort(([a], [b]) => (a < 0 ? Infinity : a) - (b < 0 ? Infinity : b));
    round.max = String(at.rounds - 1);
    ranking.max = String(at.rankings - 1);
    count.textContent = `of ${at.rankings}`;
    prompt.textContent = at.prompt;
    order.replaceChildren(...texts.map(([rank, text]) => make("li", { className: "ranked-text" },
      make("b", {}, rank < 0 ? "unranked" : String(rank + 1)), make("span", { className: "text", dir: "auto" }, text))));
    turn.hidden = at.state === "done";
    turn.disabled = at.state === "running";
    if (at.state === "running") {
      said.textContent = at.said || "It has begun.";
      timer = setTimeout(() => ask("ranking"), 500);
    }
    if (at.state === "failed") said.textContent = at.said;
    result.replaceChildren(...(at.state === "done" ? results(at.result) : []));
    if (at.state === "done") announce("The round was trained again.");
  }

  // Text up to the first difference, and the rest marked.
  function answer(name, texts, first, side) {
    const cut = first ?? texts.length;
    const line = make("p", { className: "text", dir: "auto" }, make("b", {}, name + " "), texts.slice(0, cut).join(""));
    if (cut < texts.length) line.append(make("mark", { className: side + " shade5" }, texts.slice(cut).join("")));
    return line;
  }

  const score = (x) => x.toFixed(3);
  function results(r) {
    const changed = r.answers.filter((one) => one.first_difference !== null);
    const out = [make("p", {}, make("strong", {}, `${r.answers_changed} of ${r.answers.length} held-out answers change`),
      `, in ${r.tokens_changed} tokens` + (r.rewards_changed === undefined ? "." : `; ${r.rewards_changed} of their rewards.`) +
      (r.unchanged_is_the_run ? " Without the change the round is the run's own, bit for bit." : ""))];
    if (r.policy_before === r.policy_after)
      out.push(make("p", {}, "Nothing hangs on it: the reward model was tested on this ranking, and not fitted to it."));
    if (r.ranked_scores_before)
      out.push(make("p", {}, "Rewards of these responses: " + r.ranked_scores_before.map((x, i) =>
        `${score(x)} → ${score(r.ranked_scores_after[i])}`).join(" · ")));
    for (const one of changed)
      out.push(make("div", { className: "sample whole" }, make("p", { className: "text said-before", dir: "auto" }, one.prompt),
        answer("before", one.before, one.first_difference, "below"), answer("after", one.after, one.first_difference, "above"),
        make("p", { className: "soft" }, `The first difference is at token ${one.first_difference}.`)));
    return out;
  }

  round.onchange = () => { ranking.value = "0"; ask("ranking"); };
  ranking.onchange = () => ask("ranking");
  which.onchange = () => {
    run = Number(which.value);
    round.value = ranking.value = "0";
    ask("ranking");
  };
  turn.onclick = () => ask("turn");

  return (all) => {
    const names = all.map((one) => one.name);
    const same = names.join("\n") === runs.join("\n");
    runs = names;
    if (!same) {
      which.replaceChildren(...names.map((name, i) => make("option", { value: String(i) }, name)));
      runLabel.hidden = names.length < 2;
    }
    look();
  };
}
