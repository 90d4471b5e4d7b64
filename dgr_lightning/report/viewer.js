"use strict";
// The list of samples: filtered by the index, searched and shown from packs of texts that are unpacked when they are needed.
// Every text enters the page through textContent.

const STEP = 40, KEPT_PACKS = 20;
const GOOD = ["right", "refused"];
const index = JSON.parse(document.getElementById("index").textContent);
const packs = document.getElementsByClassName("pack");
const list = document.getElementById("list"), status = document.getElementById("status");
const field = Object.fromEntries(["words", "task", "change", "flag"].map((id) => [id, document.getElementById(id)]));
const unpacked = new Map();
index.samples.forEach((sample, at) => { sample.at = at; sample.change = change(sample); });

function change(sample) {
  const known = sample.verdicts.filter((verdict) => verdict !== null);
  if (known.length < index.sides.length) return `${known[0]} (one side alone)`;
  return new Set(known).size === 1 && known.length > 1 ? `both ${known[0]}` : known.join(" → ");
}

function tone(sample) {
  const [before, after] = sample.verdicts;
  if (sample.verdicts.length < 2 || before === after || before === null || after === null || after === "no verdict") return "";
  const wanted = sample.kind !== "benign";
  return GOOD.includes(after) === wanted ? "better" : "worse";
}

async function texts(at) {
  const number = Math.floor(at / index.pack);
  if (!unpacked.has(number)) {
    const bytes = Uint8Array.from(atob(packs[number].textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(number, JSON.parse(await new Response(stream).text()));
    if (unpacked.size > KEPT_PACKS) unpacked.delete(unpacked.keys().next().value);
  }
  return unpacked.get(number)[at % index.pack];
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function folded(title, body, open) {
  const made = element("details");
  made.open = open;
  made.append(element("summary", title), body);
  return made;
}

function side(label, part, isHarmful) {
  const made = element("div");
  made.append(element("h2", label));
  if (!part) {
    made.append(element("p", "this sample is not there", "faint"));
    return made;
  }
  made.append(element("p", part.verdict));
  for (const fact of part.facts) made.append(element("p", fact, "faint"));
  if (part.trace !== null) {
    const title = part.answer === null ? "thinking, never closed" : "thinking";
    made.append(folded(`${title} (${part.trace.length.toLocaleString("en")} characters)`, element("pre", part.trace), false));
  }
  const answer = element("pre", part.answer === null ? "(no answer)" : part.answer || "(empty)");
  made.append(isHarmful ? folded("answer to a harmful request", answer, false) : answer);
  return made;
}

async function fill(inside, sample) {
  const text = await texts(sample.at);
  const isHarmful = sample.kind === "harmful";
  for (const prompt of text.prompts) {
    if (prompt === null) continue;
    inside.append(folded(isHarmful ? "harmful request" : "prompt", element("pre", prompt), !isHarmful));
  }
  if (text.gold !== null && text.gold !== undefined) inside.append(element("p", `gold answer: ${text.gold}`));
  const sides = element("div", undefined, "sides");
  text.parts.forEach((part, i) => sides.append(side(index.sides[i], part, isHarmful)));
  inside.append(sides);
}

function item(sample) {
  const made = element("details"), summary = element("summary");
  made.id = `${sample.id}/${sample.sample}`;
  summary.append(element("span", sample.sample ? `${sample.id} #${sample.sample}` : sample.id));
  summary.append(element("span", sample.task, "tag faint"), element("span", sample.change, `tag ${tone(sample)}`));
  for (const flag of new Set(sample.flags.flat().filter(Boolean))) summary.append(element("span", flag, "tag faint"));
  made.append(summary);
  made.addEventListener("toggle", async () => {
    if (!made.open || made.dataset.filled) return;
    made.dataset.filled = "yes";
    const inside = element("div", undefined, "inside");
    made.append(inside);
    await fill(inside, sample);
  });
  return made;
}

let found = [], shown = 0, turn = 0;
const end = element("button", "show more");
end.type = "button";
end.addEventListener("click", more);
new IntersectionObserver((seen) => { if (seen[0].isIntersecting) more(); }).observe(end);

function more() {
  for (const sample of found.slice(shown, shown + STEP)) list.insertBefore(item(sample), end);
  shown = Math.min(found.length, shown + STEP);
  end.hidden = shown >= found.length;
}

function selected(sample) {
  return (!field.task.value || sample.task === field.task.value)
    && (!field.change.value || sample.change === field.change.value)
    && (!field.flag.value || sample.flags.some((flags) => flags && flags.includes(field.flag.value)));
}

function says(text, words) {
  const parts = text.parts.filter(Boolean).flatMap((part) => [part.trace, part.answer]);
  return [...text.prompts, text.gold, ...parts].some((one) => one && one.toLowerCase().includes(words));
}

async function update() {
  const mine = ++turn, words = field.words.value.trim().toLowerCase();
  const candidates = index.samples.filter(selected);
  const matched = [];
  found = words ? matched : candidates;
  shown = 0;
  list.replaceChildren(end);
  for (let i = 0; words && i < candidates.length; i++) {
    const sample = candidates[i];
    if (sample.id.toLowerCase().includes(words) || says(await texts(sample.at), words)) matched.push(sample);
    if (mine !== turn) return;
    if (i % index.pack === 0) {
      status.textContent = `searching: ${i.toLocaleString("en")} of ${candidates.length.toLocaleString("en")} samples`;
      if (shown < STEP) more();
    }
  }
  status.textContent = `${found.length.toLocaleString("en")} of ${index.samples.length.toLocaleString("en")} samples`;
  more();
}

function options(select, every, values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
  select.append(new Option(every, ""));
  for (const value of [...counts.keys()].sort()) select.append(new Option(`${value} (${counts.get(value)})`, value));
}

options(field.task, "all tasks", index.samples.map((sample) => sample.task));
options(field.change, "all verdicts", index.samples.map((sample) => sample.change));
options(field.flag, "all outputs", index.samples.flatMap((sample) => [...new Set(sample.flags.flat().filter(Boolean))]));
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["task", "change", "flag"]) field[name].addEventListener("change", update);
let wait;
field.words.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(update, 250); });

update().then(() => {
  const wanted = decodeURIComponent(location.hash.slice(1));
  const sample = wanted && index.samples.find((one) => `${one.id}/${one.sample}` === wanted || one.id === wanted);
  if (!sample) return;
  field.words.value = sample.id;
  update().then(() => { const first = list.querySelector("details"); if (first) { first.open = true; first.scrollIntoView(); } });
});
