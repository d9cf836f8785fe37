/**
 * The page's behaviour: asks the service about each picture that is chosen or dropped, and shows its answer beside it.
 * It writes text only as text, keeps the key in memory alone and sends nothing anywhere but to its own service.
 */
import { chart } from "./chart.js";
import { aboutProbe, failure, headline, legend, meaning, meansNot } from "./words.js";

const SIDE_BY_SIDE = 2, TRIES = 5;
const byId = (id) => document.getElementById(id);
const [form, probeField, about, keyField, keyInput, filesInput, drop, results, status] = [
  "settings",
  "probe",
  "about",
  "key-field",
  "key",
  "files",
  "drop",
  "results",
  "status",
].map(byId);
/** The descriptions of the probes that were looked at, by id. */
const descriptions = new Map();
const waiting = [];
let running = 0;

/** An element with attributes (functions are listeners) and children (text is text). */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** The chart's tree as elements. */
function svg([name, attributes, ...children]) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.map((child) => typeof child === "string" ? child : svg(child)));
  return made;
}

const pause = (seconds) => new Promise((wake) => setTimeout(wake, seconds * 1000));

/** What the service answers; a refusal that may pass is asked again. @returns {status, body}, body undefined if it is no JSON */
async function ask(path, init = {}) {
  const headers = { ...init.headers, ...(keyInput.value && { authorization: `Bearer ${keyInput.value}` }) };
  for (let n = 1;; n++) {
    const answer = await fetch(path, { ...init, headers }).catch(() => undefined);
    if (n < TRIES && (answer?.status === 503 || answer?.status === 429)) {
      await pause(Math.min(20, Number(answer.headers.get("retry-after")) || 1) + Math.random());
      continue;
    }
    if (answer?.status === 401) askForKey();
    return { status: answer?.status ?? 0, body: await answer?.json().catch(() => undefined) };
  }
}

function askForKey() {
  if (keyField.hidden || keyInput.value) {
    keyField.hidden = false;
    keyInput.focus();
    say(keyInput.value ? "The service does not take this key." : "The service asks for an API key.");
  }
}

const say = (text) => status.textContent = text;

async function loadProbes() {
  const { status: code, body } = await ask("/v1/probes");
  if (code !== 200) {
    probeField.replaceChildren(element("option", { value: "" }, "none"));
    if (code !== 401) say(`${failure(body, code).title}. ${failure(body, code).detail}`);
    return;
  }
  probeField.replaceChildren(
    ...body.probes.map(({ id, title }) => element("option", { value: id }, `${id}: ${title}`)),
  );
  if (body.probes.length === 0) return say("This service holds no probe yet.");
  say("");
  await showProbe();
}

async function showProbe() {
  const probe = await descriptionOf(probeField.value);
  about.textContent = probe ? aboutProbe(probe) : "";
}

async function descriptionOf(id) {
  if (!descriptions.has(id)) {
    const { status: code, body } = await ask(`/v1/probes/${encodeURIComponent(id)}`);
    if (code === 200) descriptions.set(id, body);
  }
  return descriptions.get(id);
}

/** Puts pictures in line, each with its place in the list. */
function take(files) {
  for (const file of files) {
    const item = element(
      "li",
      { class: "result", "aria-busy": "true" },
      picture(file),
      element("div", {}, waitingText(file)),
    );
    results.append(item);
    waiting.push({ file, item });
  }
  byId("results-title").hidden = results.children.length === 0;
  while (running < SIDE_BY_SIDE && waiting.length > 0) void work();
}

const waitingText = (file) => element("h3", {}, `${file.name}: in line`);

function picture(file) {
  const address = URL.createObjectURL(file);
  const image = element("img", {
    src: address,
    alt: file.name,
    load: () => image.classList.toggle("tiny", image.naturalWidth < 200),
    error: () => image.replaceWith(element("p", { class: "quiet" }, "This browser cannot show it.")),
  });
  return element("div", { class: "picture" }, image);
}

async function work() {
  running++;
  for (let next = waiting.shift(); next; next = waiting.shift()) {
    say(`Asking about ${next.file.name}; ${waiting.length} more in line.`);
    await scoreOne(next);
  }
  running--;
}

async function scoreOne({ file, item }) {
  const id = probeField.value, fpr = form.elements.fpr.value, probe = await descriptionOf(id);
  const path = `/v1/probes/${encodeURIComponent(id)}/score?fpr=${fpr}`;
  const init = { method: "POST", body: file, headers: { "content-type": file.type || "image/png" } };
  const { status: code, body } = probe && id ? await ask(path, init) : { status: keyField.hidden ? 0 : 401 };
  const ok = code === 200;
  item.lastElementChild.replaceWith(
    ok ? answer(body, probe, file) : refusal(failure(body, code), { file, item, code }),
  );
  item.className = `result ${ok ? body.decision.answer : "failed"}`;
  item.removeAttribute("aria-busy");
  say(`${file.name}: ${ok ? headline(body).slice(2) : failure(body, code).title}.`);
}

function answer(score, probe, file) {
  const json = new Blob([JSON.stringify(score, null, 2)], { type: "application/json" });
  const drawing = element("div", { class: "chart" });
  const draw = () =>
    drawing.replaceChildren(
      svg(chart(score.layers, score.primary.feature, Math.max(260, drawing.clientWidth))),
    );
  let width = 0;
  new ResizeObserver(() => {
    if (drawing.clientWidth !== width) draw();
    width = drawing.clientWidth;
  }).observe(drawing);
  return element(
    "div",
    {},
    element("h3", {}, file.name),
    element("p", { class: "answer" }, headline(score)),
    element("p", {}, meaning(score, probe)),
    drawing,
    element("p", { class: "quiet" }, legend(score)),
    element("h4", {}, "What it does not mean"),
    element("ul", { class: "means-not" }, ...meansNot(score, probe).map((line) => element("li", {}, line))),
    element("details", {}, element("summary", {}, "Every layer in numbers"), table(score)),
    element(
      "p",
      {},
      element("a", { href: URL.createObjectURL(json), download: `${file.name}.json` }, "This answer as JSON"),
    ),
  );
}

function table({ layers, primary }) {
  const shown = (value, digits = 2) => value === null ? "none" : value.toFixed(digits);
  const rows = layers.map((layer) => {
    const { feature, score, threshold, z, probability, interval, flagged, beyond } = layer;
    const cells = [
      shown(score),
      shown(threshold),
      shown(z),
      shown(probability, 3) + (interval ? ` [${shown(interval.low)}, ${shown(interval.high)}]` : ""),
      beyond ? "beyond what it knows" : flagged === null ? "no threshold" : flagged ? "flagged" : "no",
    ];
    const name = feature === primary.feature ? `${feature} (decides)` : feature;
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      ...cells.map((cell) => element("td", {}, cell)),
    );
  });
  const heads = ["Layer", "Score", "Threshold", "z", "Probability", "Flagged"];
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  return element(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Every layer in numbers" },
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)),
  );
}

/** The same bytes would be refused again. */
const HOPELESS = [413, 415, 422];

function refusal({ title, detail, type, request }, { file, item, code }) {
  const again = () => {
    item.lastElementChild.replaceWith(element("div", {}, waitingText(file)));
    item.className = "result";
    waiting.push({ file, item });
    if (running < SIDE_BY_SIDE) void work();
  };
  return element(
    "div",
    {},
    element("h3", {}, file.name),
    element("p", { class: "answer" }, title),
    element("p", {}, detail),
    ...(type ? [element("p", { class: "quiet" }, element("code", {}, type), `, request ${request}`)] : []),
    ...(HOPELESS.includes(code) ? [] : [element("button", { type: "button", click: again }, "Try again")]),
  );
}

probeField.addEventListener("change", showProbe);
filesInput.addEventListener("change", () => {
  take([...filesInput.files]);
  filesInput.value = ""; // so that the same file can be chosen again
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  descriptions.clear();
  void loadProbes();
});
for (const name of ["dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault(); // else the browser leaves the page for the picture
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") take([...event.dataTransfer.files]);
  });
}
await loadProbes();
