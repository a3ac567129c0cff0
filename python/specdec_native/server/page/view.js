// Puts messages on the page. Text of people and models is text, never HTML.

const make = (name, className, text) => {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};

export function message(role, text) {
  const article = make("article", role);
  article.append(make("h2", "", role === "user" ? "You" : "Model"));
  const body = make("div", "text", text);
  article.append(body);
  return { article, body };
}

/** Room for two answers beside each other. */
export function columns(titles) {
  const article = make("article", "assistant");
  const grid = make("div", "columns");
  const bodies = titles.map((title) => {
    const side = make("section");
    side.append(make("h2", "", title));
    const body = make("div", "text");
    const note = make("p", "quiet");
    side.append(body, note);
    grid.append(side);
    return { body, note };
  });
  const verdict = make("p", "proof");
  verdict.setAttribute("role", "status");
  article.append(grid, verdict);
  return { article, bodies, verdict };
}

export function tools(article, actions) {
  const bar = make("div", "tools");
  for (const [label, action] of actions) {
    const button = make("button", "", label);
    button.type = "button";
    button.addEventListener("click", action);
    bar.append(button);
  }
  article.append(bar);
  return bar;
}

// Drafters by what they go by: a model (its first layers, too), or text that was there before.
const MODELS = ["model", "layerskip"];
const kind = (source) => (!source ? "target" : MODELS.includes(source) ? "drafted" : "looked-up");

/** The tokens of one chunk, coloured by who guessed them. */
export function tokens(body, event, pass) {
  const told = event.specdec;
  const positions = event.choices[0].logprobs?.content;
  told.pieces.forEach((piece, i) => {
    const source = told.from_draft[i] ? told.sources[i] : "";
    const span = make("span", `token ${kind(source)}`, piece);
    const lines = [`${source ? `guessed by ${source}` : "target"}, pass ${pass}`];
    const position = positions?.[i];
    if (position) {
      lines.push(`log-probability ${position.logprob.toFixed(3)}`);
      for (const top of position.top_logprobs) {
        lines.push(`${JSON.stringify(top.token)} ${top.logprob.toFixed(3)}`);
      }
      span.tabIndex = 0;
    }
    span.dataset.tip = lines.join("\n");
    body.append(span);
  });
}

/** Shows what a token carries, for the mouse and the keyboard. */
export function tips(root) {
  const tip = make("div");
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  const show = (event) => {
    const text = event.target.dataset?.tip;
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const box = event.target.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - tip.offsetWidth - 4))}px`;
    const below = box.bottom + 6;
    const top = below + tip.offsetHeight > innerHeight ? box.top - tip.offsetHeight - 6 : below;
    tip.style.top = `${Math.max(4, top)}px`;
  };
  const hide = () => { tip.hidden = true; };
  root.addEventListener("mouseover", show);
  root.addEventListener("focusin", show);
  root.addEventListener("mouseleave", hide);
  root.addEventListener("focusout", hide);
  root.addEventListener("scroll", hide);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}

export { make };
