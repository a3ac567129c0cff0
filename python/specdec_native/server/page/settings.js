// What the person chose, kept in this browser.

const FIELDS = ["system", "temperature", "top_p", "top_k", "min_p", "seed", "max_tokens"];
const $ = (id) => document.getElementById(id);

function load(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(`specdec.${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function save(name, value) {
  try {
    localStorage.setItem(`specdec.${name}`, JSON.stringify(value));
  } catch { /* private windows keep nothing */ }
}

// Of this tab: two tabs are two conversations, and a reload is the same one.
export function loadTalk() {
  try {
    return JSON.parse(sessionStorage.getItem("specdec.talk")) ?? [];
  } catch {
    return [];
  }
}

export function saveTalk(talk) {
  try {
    sessionStorage.setItem("specdec.talk", JSON.stringify(talk));
  } catch { /* full, or forbidden: a reload starts anew */ }
}

export function start() {
  const stored = load("settings", {});
  for (const name of FIELDS) {
    if (stored[name] !== undefined) $(name).value = stored[name];
    $(name).addEventListener("change", keep);
  }
  $("logprobs").checked = stored.logprobs ?? false;
  $("logprobs").addEventListener("change", keep);
  theme(load("theme", "auto"));
  $("theme").addEventListener("click", () => {
    const order = ["auto", "light", "dark"];
    const now = document.documentElement.dataset.theme;
    theme(order[(order.indexOf(now) + 1) % order.length]);
  });
}

function keep() {
  const values = Object.fromEntries(FIELDS.map((name) => [name, $(name).value]));
  save("settings", { ...values, logprobs: $("logprobs").checked });
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = `Theme: ${name}`;
  save("theme", name);
}

const number = (id) => ($(id).value === "" ? undefined : Number($(id).value));
export const key = () => $("key").value.trim();

/** The fields of a request; undefined ones stay out of the JSON. */
export function request(talk) {
  const system = $("system").value.trim();
  const logprobs = $("logprobs").checked;
  return {
    messages: [...(system ? [{ role: "system", content: system }] : []), ...talk],
    temperature: number("temperature"),
    top_p: number("top_p"),
    top_k: number("top_k"),
    min_p: number("min_p"),
    seed: number("seed"),
    max_completion_tokens: number("max_tokens"),
    logprobs: logprobs || undefined,
    top_logprobs: logprobs ? 5 : undefined,
    reasoning_format: "none", // every token is shown
    stream: true,
    stream_options: { include_usage: true, include_speculation: true },
  };
}
