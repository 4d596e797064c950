// The view of a run that is driven from the page (app/loop.hpp): its settings before it begins, its
// steps, how far the one under way is, and the way to the questions that wait for people.

import { byId, make, post, show, warn, announce, sit } from "./studio.js";

let fields = [];    // {name, input, value}: settings as they were, and where they are changed
let state = "", asked = null, here = true;

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export function openLoop(opened) {
  byId("loop-title").textContent = opened.run;
  byId("to-run").onclick = toRun;
  byId("loop-stop").onclick = () => ask("stop");
  byId("loop-train").onclick = () => ask("train");
  byId("loop-rank").onclick = toQuestions;
  byId("loop-form").addEventListener("submit", (event) => { event.preventDefault(); begin(); });
  showForm(opened.settings ?? []);
  toRun();
}

export function toRun() {
  here = true;
  show("loop");
  byId("to-run").hidden = true;
  byId("saved").textContent = "";
  byId("loop-title").focus();
}

function toQuestions() {
  here = false;
  byId("to-run").hidden = false;
  sit();
}

async function ask(action, body = {}) {
  const said = await post(action, body);
  warn(said.status === 200 ? "" : said.error);
  return said.status === 200;
}

async function begin() {
  const settings = {};
  for (const { name, input, value } of fields)
    if (input.value !== value) settings[name] = input.value;
  byId("loop-begin").disabled = true;
  await ask("begin", { settings });
  byId("loop-begin").disabled = false;
}

// --- Settings ------------------------------------------------------------------------------------

function field(one) {
  const id = "set-" + one.name;
  const input = one.choices
    ? make("select", { id }, ...one.choices.map((choice) => make("option", {}, choice)))
    : make("input", { id, autocomplete: "off" });
  input.value = one.value;
  input.setAttribute("aria-describedby", id + "-help");
  fields.push({ name: one.name, input, value: input.value });
  const about = [one.help, one.unit].filter(Boolean).join(", ") + (one.range && ` (${one.range})`);
  return make("div", { className: "setting" }, make("label", { htmlFor: id }, one.name), input,
    make("p", { className: "hint", id: id + "-help" }, about));
}

function showForm(settings) {
  fields = [];
  const groups = new Map();
  for (const one of settings) groups.set(one.group, [...(groups.get(one.group) ?? []), one]);
  const parts = [...groups].map(([group, some]) => {
    const grid = make("div", { className: "settings" }, ...some.map(field));
    return group === "" ? grid : make("details", {}, make("summary", {}, group), grid);
  });
  byId("loop-settings").replaceChildren(...parts);
  byId("loop-form").hidden = settings.length === 0;
}

// --- What is under way ---------------------------------------------------------------------------

const words = {
  waits: "Nothing is under way.", runs: "Under way.",
  stops: "Stopping: the step under way ends, and what it has is kept.",
  stopped: "Stopped. It goes on from here, on this page or by plumb align.",
  failed: "It failed.", ended: "The run has ended.",
};

export function takeLoop(loop) {
  const under = loop.state === "runs" || loop.state === "stops";
  if (loop.begun || under) byId("loop-form").hidden = true;
  byId("loop-say").textContent = loop.error ? `${words[loop.state]} ${sentence(loop.error)}`
    : loop.state === "waits" && loop.begun ? "This run was stopped, and goes on from there." : words[loop.state];
  if (loop.state !== state && state !== "") announce(byId("loop-say").textContent);
  state = loop.state;

  byId("loop-begin").hidden = under || state === "ended";
  byId("loop-begin").textContent = loop.begun ? "Go on" : "Begin";
  byId("loop-stop").hidden = !under;
  byId("loop-stop").disabled = state === "stops";
  showAsks(loop.asks);
  showSteps(loop);
  showProgress(loop.progress);
  showResults(loop.results);
}

function showAsks(asks) {
  const ranks = asks?.what === "rank";
  byId("loop-rank").hidden = byId("loop-asks").hidden = asks === null;
  byId("loop-train").hidden = !ranks;
  if (asks) {
    byId("loop-rank").textContent = ranks ? "Rank" : "Judge";
    byId("loop-asks").textContent = ranks
      ? `${asks.rankings} rankings of ${asks.questions} prompts. ` +
        (asks.rankings < asks.fewest ? `Training needs ${asks.fewest} at least.`
                                     : "Train when there are enough.")
      : "Which of two answers is better? Nobody is told whose they are.";
    byId("loop-train").disabled = asks.rankings < asks.fewest;
  }
  if (asks && !asked) announce(byId("loop-asks").textContent);
  if (!asks && asked && !here) toRun();
  asked = asks;
}

function showSteps(loop) {
  byId("loop-steps").replaceChildren(...loop.steps.map((step) => {
    const round = loop.rounds > 1 && step.round < loop.rounds ? `Round ${step.round + 1}: ` : "";
    const item = make("li", { className: step.state }, round + step.name);
    item.append(make("span", { className: "unseen" },
      { done: ", done", now: ", under way", later: "" }[step.state]));
    if (step.state === "now") item.setAttribute("aria-current", "step");
    return item;
  }));
}

function showProgress(progress) {
  byId("loop-progress").hidden = progress === null;
  if (progress === null) return;
  byId("loop-bar").max = Math.max(progress.total, 1);
  byId("loop-bar").value = progress.done;
  byId("loop-far").textContent =
    `${progress.label}: ${progress.done} of ${progress.total} ${progress.unit}s` +
    (progress.extra ? ` · ${progress.extra}` : "");
}

const figures = [
  ["win_rate", "of the held-out answers are better than before", (x) => (100 * x).toFixed(1) + " %"],
  ["win_rate_low", "at least, by the 95 % interval", (x) => (100 * x).toFixed(1) + " %"],
  ["kl", "nats from the first policy, a response", (x) => x.toFixed(2)],
  ["reward_accuracy", "of held-out pairs are ordered rightly by the reward model",
    (x) => (100 * x).toFixed(1) + " %"],
];

function showResults(results) {
  byId("loop-results").hidden = !results;
  if (!results) return;
  byId("loop-results").replaceChildren(...figures
    .filter(([key]) => typeof results[key] === "number")
    .map(([key, text, shown]) => make("div", {}, make("dt", {}, shown(results[key])),
      make("dd", {}, text))));
}
