"""Model cards: what a file of models/ is, from what it was made, and how good it is."""

from __future__ import annotations

from typing import Any

from training import licences, recipes

LICENCES = {
    "python": f"{licences.PSF}; some files have terms of their own, see below",
    "manuals": "Python: PSF License 2; PostgreSQL: PostgreSQL License; SQLite: public domain; "
    "Django: BSD-3-Clause; Apache HTTP Server: Apache-2.0",
}
SOURCES = {
    "python": "The modules of Python's standard library, without tests and tables",
    "manuals": "The English text of the HTML manuals in these Debian packages",
}


def card(recipe: recipes.Recipe, which: str, facts: dict[str, Any]) -> str:
    own, measured = facts[which], facts["measured"]
    target_file, draft_file = (f"{name}.q8_0.gguf" for name in recipe.files)
    file = target_file if which == "target" else draft_file
    shape: recipes.Shape = getattr(recipe, which)
    lines = [
        f"# {file}",
        "",
        f"{'LLaMA' if recipe.architecture == 'llama' else 'GPT-NeoX (as Pythia)'} model of "
        f"{own['parameters'] / 1e6:.2f} M parameters that {recipe.writes.split(';')[0]}. It is "
        + (
            f"the target of `{draft_file}`."
            if which == "target"
            else f"the draft of `{target_file}`."
        )
        + " Made for demonstrations and tests: what it writes looks right and means nothing.",
        "",
        "| | |",
        "|---|---|",
        f"| file | {own['file_bytes'] / 1e6:.2f} MB, GGUF, Q8_0 |",
        f"| parameters | {own['parameters']} |",
        f"| shape | layers: {shape.layers}, width {shape.hidden}, {shape.heads} heads "
        f"({shape.kv_heads} for keys and values), inner width {shape.inner} |",
        f"| context | {recipes.CONTEXT} tokens |",
        f"| vocabulary | {recipe.vocab} byte-level BPE tokens, its own; the same in both files |",
        "| licence of the weights | Apache-2.0 |",
        f"| data | {SOURCES[recipe.corpus]}: {', '.join(facts['origin'])}; "
        f"{facts['train_bytes'] / 1e6:.1f} MB |",
        f"| licence of the data | {LICENCES[recipe.corpus]} |",
        f"| training | {own['tokens'] / 1e6:.2f} M tokens in {own['step']} steps, "
        f"{own['seconds'] / 60:.0f} minutes |",
    ]
    if which == "draft":
        lines.append(
            "| taught by | the target: divergence from its distribution, on the data and on "
            f"{facts['written_tokens']} tokens that it wrote |"
        )
    lines += [
        f"| held-out loss | {own['loss']:.3f} per token, {own['bits_per_byte']:.3f} bits per byte "
        f"(before quantisation; {facts['held_out_bytes'] / 1e6:.2f} MB of documents that were not "
        "trained on) |",
        f"| draft and target agree | on {100 * facts['agreement']:.1f} % of the held-out tokens |",
        f"| acceptance of the draft | {', '.join(map(_acceptance, measured['runs']))} |",
        "",
        f"Acceptance and speed, of {measured['tokens']} tokens after each of "
        f"{measured['prompts']} held-out pieces of text, on {facts['machine']}. All three ways of "
        "decoding gave the same tokens. Greedy text repeats itself, which is easy to guess.",
        "",
        "| temperature | decoding | acceptance | tokens per verification | tokens/s | of plain |",
        "|---|---|---|---|---|---|",
    ]
    for run in measured["runs"]:
        for name, title in (("plain", "plain"), ("draft", "the draft alone"), ("auto", "`auto`")):
            lines.append(f"| {run['temperature']:g} | {title} | {_speed(run['methods'][name])} |")
    lines += [
        "",
        *make_again(
            recipe, facts["target"]["step"], facts["draft"]["step"], facts["written_tokens"]
        ),
        "",
    ]
    if recipe.corpus == "python":
        lines += [*own_terms(), ""]
    if which == "target":
        lines += ["## Samples", "", "A held-out piece of text:", "", "```"]
        lines += [*measured["prompt"].rstrip("\n").split("\n"), "```", ""]
        for run in measured["runs"]:
            lines += [f"Continued at temperature {run['temperature']:g}:", "", "```"]
            lines += [*run["sample"].rstrip().split("\n"), "```", ""]
    return "\n".join(lines)


def own_terms() -> list[str]:
    return [
        "## Files with terms of their own",
        "",
        "Of Python's standard library, as the files themselves say. All others, and what was "
        f"contributed to Python of these, are under {licences.PSF}.",
        "",
        *licences.table(),
    ]


def make_again(recipe: recipes.Recipe, target: int, draft: int, written: int) -> list[str]:
    """The commands for as many steps and tokens; without them where they are the defaults."""
    command = f"python tools/train_models.py {recipe.name} --work /tmp/{recipe.name}"
    defaults = (recipe.target_steps, recipe.draft_steps, recipe.written)
    commands = [f"{command} all"]
    if (target, draft, written) != defaults:
        commands = [
            f"{command} --steps {target} corpus vocabulary target",
            f"{command} --steps {draft} --written {written} texts draft export report card",
        ]
    return [
        "## Make it again",
        "",
        "```sh",
        'pip install ".[train]"',
        *commands,
        "```",
        "",
        f"This trains the target for {target} steps and the draft for {draft}, on its texts and on "
        f"{written} tokens that the target writes, and leaves files and cards in "
        f"`/tmp/{recipe.name}/models`. `--minutes` ends a training earlier. Other versions of the "
        "texts and of PyTorch, and other processors, give other weights of the same kind.",
    ]


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.0f} %"


def _acceptance(run: dict[str, Any]) -> str:
    rate = run["methods"]["draft"]["acceptance"]
    return f"{_percent(rate)} at temperature {run['temperature']:g}"


def _speed(method: dict[str, Any]) -> str:
    per_round = method["tokens_per_round"]
    cells = [_percent(method["acceptance"]), "" if per_round is None else f"{per_round:.2f}"]
    cells += [f"{method['tokens_per_second']:.0f}", f"{method['speed_up']:.2f}"]
    return " | ".join(cells)
