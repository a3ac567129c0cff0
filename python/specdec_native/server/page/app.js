// A conversation: what was said, what runs, and what the buttons do.

import * as api from "./api.js";
import { Meters } from "./meters.js";
import * as settings from "./settings.js";
import * as view from "./view.js";

const $ = (id) => document.getElementById(id);
let talk = [];
let running = null; // AbortController

function status(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", bad);
}

function busy(now) {
  $("send").hidden = now;
  $("stop").hidden = !now;
  $("talk").setAttribute("aria-busy", String(now));
}

function scroll(force = false) {
  const box = $("talk");
  if (force || box.scrollHeight - box.scrollTop - box.clientHeight < 120) {
    box.scrollTop = box.scrollHeight;
  }
}

/** Once a frame, however many tokens came: measuring the page for each would take all its time. */
let follows = false;
function follow() {
  if (follows) return;
  follows = true;
  requestAnimationFrame(() => {
    follows = false;
    scroll();
  });
}

function draw() {
  $("talk").replaceChildren();
  talk.forEach((entry, i) => {
    const { article } = view.message(entry.role, entry.content);
    $("talk").append(article);
    offer(article, entry, i);
  });
  scroll(true);
}

function offer(article, entry, i) {
  const copy = ["Copy", () => navigator.clipboard?.writeText(entry.content)];
  if (entry.role === "user") {
    view.tools(article, [["Edit", () => edit(i)]]);
  } else {
    view.tools(article, [copy, ["Regenerate", () => regenerate(i)]]);
  }
}

function edit(i) {
  if (running) return;
  $("question").value = talk[i].content;
  talk = talk.slice(0, i);
  settings.saveTalk(talk);
  draw();
  $("question").focus();
}

function regenerate(i) {
  if (running) return;
  talk = talk.slice(0, i);
  draw();
  answer();
}

/** Reads one answer into `body`; gives its ids and what the server says of it. */
async function read(body, fields, meters) {
  const ids = [];
  let text = "";
  let end = null;
  let pass = 0;
  try {
    for await (const event of api.chat(fields, { key: settings.key(), signal: running.signal })) {
      const choice = event.choices[0];
      if (!choice) continue;
      if (Array.isArray(event.specdec)) {
        [end] = event.specdec;
      } else if (event.specdec) {
        if (event.specdec.token_ids.length) pass += 1;
        ids.push(...event.specdec.token_ids);
        view.tokens(body, event, pass);
        meters?.add(event.specdec);
        follow();
      }
      text += choice.delta?.content ?? "";
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
  if (end) meters?.end(end);
  return { ids, text, end };
}

async function answer() {
  running = new AbortController();
  busy(true);
  status("");
  try {
    if ($("compare").getAttribute("aria-pressed") === "true") await both();
    else await one();
  } catch (error) {
    status(error.message, true);
    if (error.status === 401) open(true);
  } finally {
    running = null;
    busy(false);
    settings.saveTalk(talk);
    scroll();
  }
}

async function one() {
  const { article, body } = view.message("assistant", "");
  $("talk").append(article);
  scroll(true);
  const { text, end } = await read(body, settings.request(talk), new Meters());
  said(article, text);
  status(end ? end.summary : "stopped");
}

function said(article, text) {
  const entry = { role: "assistant", content: text };
  talk.push(entry);
  offer(article, entry, talk.length - 1);
}

/** One after the other, so that neither takes the other's time. */
async function both() {
  const { article, bodies, verdict } = view.columns(["Plain", "Speculative"]);
  $("talk").append(article);
  scroll(true);
  const fields = settings.request(talk);
  fields.seed ??= Math.floor(Math.random() * 2 ** 31);
  const results = [];
  for (const [i, speculation] of [[0, false], [1, true]]) {
    const result = await read(bodies[i].body, { ...fields, speculation }, new Meters());
    bodies[i].note.textContent = result.end?.summary ?? "stopped";
    results.push(result);
    if (!result.end) {
      said(article, result.text);
      status("stopped");
      return;
    }
  }
  const [plain, fast] = results;
  const same = plain.ids.length === fast.ids.length && plain.ids.every((id, i) => id === fast.ids[i]);
  const ratio = fast.end.tokens_per_second / plain.end.tokens_per_second;
  verdict.textContent = same
    ? `Identical: the same ${fast.ids.length} tokens, ${ratio.toFixed(2)} times as fast.`
    : "Different tokens: please report this.";
  verdict.classList.toggle("error", !same);
  said(article, fast.text);
}

function send(event) {
  event?.preventDefault();
  const text = $("question").value.trim();
  if (!text || running) return;
  $("question").value = "";
  const entry = { role: "user", content: text };
  talk.push(entry);
  const { article } = view.message("user", text);
  $("talk").append(article);
  offer(article, entry, talk.length - 1);
  settings.saveTalk(talk);
  answer();
}

function open(now) {
  $("settings").hidden = !now;
  $("open-settings").setAttribute("aria-expanded", String(now));
}

async function connect() {
  try {
    const [model] = await api.models(settings.key());
    const meta = model.meta;
    $("model").textContent = `${model.id}: ${meta.architecture}, ${meta.quantisation}, `
      + `${(meta.n_params / 1e6).toFixed(0)} M parameters, context ${meta.n_ctx}`;
    if (!meta.has_chat_template) status("This model has no chat template: answers may be odd.");
    else status("");
  } catch (error) {
    $("model").textContent = "not connected";
    status(error.message, true);
    if (error.status === 401) open(true);
  }
}

settings.start();
view.tips($("talk"));
talk = settings.loadTalk();
draw();
connect();
$("ask").addEventListener("submit", send);
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
$("stop").addEventListener("click", () => running?.abort());
$("new").addEventListener("click", () => {
  running?.abort();
  talk = [];
  settings.saveTalk(talk);
  draw();
  status("");
  $("question").focus();
});
$("compare").addEventListener("click", () => {
  const now = $("compare").getAttribute("aria-pressed") !== "true";
  $("compare").setAttribute("aria-pressed", String(now));
});
$("open-settings").addEventListener("click", () => open($("settings").hidden));
$("key").addEventListener("change", connect);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
  if (event.altKey && event.key.toLowerCase() === "n") $("new").click();
});
