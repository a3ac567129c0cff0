// Live figures while an answer arrives, and the server's own at its end.

const $ = (id) => document.getElementById(id);
const shown = (value, digits) => (value == null ? "–" : value.toFixed(digits));

export class Meters {
  constructor() {
    this.started = performance.now();
    this.first = 0;
    this.count = 0;
    this.passes = 0;
  }

  add(told) {
    const now = performance.now();
    if (told.token_ids.length === 0) return;
    if (!this.first) this.first = now;
    this.count += told.token_ids.length;
    this.passes += 1;
    const seconds = (now - this.first) / 1000;
    $("m-speed").textContent = seconds > 0.2 ? shown(this.count / seconds, 1) : "–";
    $("m-per-pass").textContent = shown(this.count / this.passes, 2);
    $("m-first").textContent = shown(this.first - this.started, 0);
  }

  end(told) {
    $("m-speed").textContent = shown(told.tokens_per_second, 1);
    $("m-per-pass").textContent = shown(told.tokens_per_pass, 2);
    const rate = told.acceptance_rate;
    $("m-accepted").textContent = rate == null ? "–" : `${(100 * rate).toFixed(0)} %`;
    $("m-first").textContent = shown(told.time_to_first_token_ms, 0);
    const box = $("m-positions");
    box.replaceChildren();
    const rates = told.drafted_per_position.map((n, i) => (n ? told.accepted_per_position[i] / n : 0));
    for (const share of rates.slice(0, 16)) {
      const bar = document.createElement("i");
      bar.style.height = `${Math.round(100 * share)}%`;
      box.append(bar);
    }
    const words = rates.map((share, i) => `${i + 1}: ${Math.round(100 * share)} %`);
    box.setAttribute("aria-label", `Acceptance by position: ${words.join(", ") || "nothing drafted"}`);
  }
}
