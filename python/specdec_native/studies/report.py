"""Tables, plots and text of a study, written as Markdown, CSV, PNG, SVG and one HTML file."""

from __future__ import annotations

import base64
import csv
import html
import io
import pathlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .figures import different, errors, read_gb_s
from .runner import Row
from .store import whole_file

INK = {
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "svg.hashsalt": "specdec",  # the same plot gives the same file
    "font.size": 10,
}


@dataclass(frozen=True)
class Text:
    """A paragraph, or with `heading` a section's beginning. `code` and **bold** as in Markdown."""

    text: str
    heading: str = ""


@dataclass(frozen=True)
class Table:
    """Cells as they are shown.

    Attributes:
        name: of its files.
        note: below it.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(_escape(c) for c in line) + " |" for line in lines)


@dataclass(frozen=True)
class Plot:
    """`draw` fills the figure of matplotlib it is given."""

    name: str
    title: str
    draw: Callable[[Any], None]
    caption: str = ""
    size: tuple[float, float] = (8.0, 4.5)


@dataclass(frozen=True)
class Report:
    title: str
    parts: Sequence[Text | Table | Plot]


def slug(text: str) -> str:
    """As part of a file's name."""
    return "".join(c if c.isalnum() else "-" for c in text)


def _escape(cell: str) -> str:
    return str(cell).replace("|", "\\|").replace("\n", " ")


def common_parts(rows: Sequence[Row], n_planned: int, notes: Sequence[str]) -> list[Text | Table]:
    """What every report begins with: whether it is complete, whether the tokens are right, where
    it was measured."""
    runs = {(row["block"], row["method"], row["round"]) for row in rows}
    checked = [row for row in rows if row["identical"] is not None]
    wrong = different(rows)
    parts: list[Text | Table] = []
    if len(runs) < n_planned:
        parts.append(Text(f"**Incomplete: {len(runs)} of {n_planned} runs.**"))
    if wrong:
        shown = "; ".join(wrong[:5]) + ("; ..." if len(wrong) > 5 else "")
        parts.append(Text(f"**{len(wrong)} runs emitted other tokens than plain: {shown}.**"))
    elif checked:
        parts.append(
            Text(f"Tokens: all {len(checked)} runs that must emit the baseline's tokens did.")
        )
    if not all(row["exclusive"] for row in rows):
        parts.append(
            Text("Runs shared the machine: there are no times, and no speed-ups, of those.")
        )
    failed = errors(rows)
    if failed:
        parts.append(Text("Without result: " + "; ".join(failed) + "."))
    parts += [Text(note) for note in notes]
    return parts


def where_measured(rows: Sequence[Row]) -> Table:
    columns = ["version", "commit", "cpu", "cores", "n_threads", "isa", "device", "memory_gib"]
    found = list(dict.fromkeys(tuple(str(row.get(c, "")) for c in columns) for row in rows))
    days = sorted({row["started"][:10] for row in rows})
    cells = [[*machine, ", ".join(days)] for machine in found]
    note = ""
    if rates := sorted(read_gb_s(rows)):
        middle = rates[len(rates) // 2]
        note = (
            f"Plain decoding read weights at {rates[0]:.1f} to {rates[-1]:.1f} GB/s, the middle "
            f"run at {middle:.1f}: what memory and neighbours gave in the minutes of this study."
        )
    return Table("machine", "Where it was measured", [*columns, "days"], cells, note)


# ---------------------------------------------------------------- files


def write(folder: pathlib.Path, report: Report, rows: Sequence[Row]) -> None:
    """report.md, report.html, rows.csv, rows.jsonl, tables/ and plots/."""
    write_rows(folder, rows)
    markdown = [f"# {report.title}"]
    body = []
    for part in report.parts:
        if isinstance(part, Text):
            markdown += [f"## {part.heading}"] if part.heading else []
            markdown += [part.text] if part.text else []
            body.append(_html_text(part))
        elif isinstance(part, Table):
            _write_table(folder / "tables", part)
            markdown += [f"### {part.title}", part.markdown(), *([part.note] if part.note else [])]
            body.append(_html_table(part))
        else:
            svg = draw(folder / "plots", part)
            markdown += [f"![{part.title}](plots/{part.name}.svg)"]
            markdown += [part.caption] if part.caption else []
            body.append(_html_plot(part, svg))
    with whole_file(folder / "report.md") as file:
        file.write("\n\n".join(markdown) + "\n")
    with whole_file(folder / "report.html") as file:
        file.write(PAGE.format(title=html.escape(report.title), body="\n".join(body)))


def write_rows(folder: pathlib.Path, rows: Sequence[Row]) -> None:
    """One tidy row per run and turn; texts and tokens only in the JSON lines."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    for name in frame.columns[frame.dtypes == "float64"]:
        kinds = {type(row.get(name)) for row in rows}
        if kinds == {int, type(None)}:  # a count that not every row has stays a whole number
            frame[name] = frame[name].astype("Int64")
    with whole_file(folder / "rows.jsonl") as file:
        file.write(frame.to_json(orient="records", lines=True, force_ascii=False))
    with whole_file(folder / "rows.csv") as file:
        short = frame.drop(columns=["token_ids", "text", "reference"], errors="ignore")
        file.write(short.to_csv(index=False))


def _write_table(folder: pathlib.Path, table: Table) -> None:
    with whole_file(folder / f"{table.name}.md") as file:
        file.write(f"{table.title}\n\n{table.markdown()}\n")
        file.write(f"\n{table.note}\n" if table.note else "")
    with whole_file(folder / f"{table.name}.csv") as file:
        csv.writer(file, lineterminator="\n").writerows([table.header, *table.rows])


def draw(folder: pathlib.Path, plot: Plot) -> str:
    """Writes NAME.png and NAME.svg; returns the latter."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(INK):
        figure = Figure(figsize=plot.size, layout="constrained")
        FigureCanvasAgg(figure)
        plot.draw(figure)
        figure.savefig(folder / f"{plot.name}.png", dpi=120, metadata={"Software": None})
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    with whole_file(folder / f"{plot.name}.svg") as file:
        file.write(text.getvalue())
    return text.getvalue()


# ---------------------------------------------------------------- plots that several studies draw


def speedup_bars(
    figure: Any, groups: Sequence[tuple[str, Any]], label: str = "times plain"
) -> None:
    """One bar per group's mean over prompts, a line from the slowest prompt to the fastest."""
    axes = figure.subplots()
    shown = [(name, f) for name, f in groups if f["speedup"] is not None]
    axes.barh([name for name, _ in shown], [f["speedup"] for _, f in shown], color="#4477aa")
    for at, (_, f) in enumerate(shown):
        axes.plot([f["speedup_min"], f["speedup_max"]], [at, at], color="#222222", linewidth=1.2)
    axes.axvline(1.0, color="#aa3333", linestyle="--", linewidth=1.2)
    axes.set_xlabel(label)
    axes.invert_yaxis()


# ---------------------------------------------------------------- HTML

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1b1b; background: #fff; }}
h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.25rem; margin-top: 2.2rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: .6rem 0 1rem; font-size: 13px; }}
caption {{ text-align: left; font-weight: 600; padding: .3rem 0; }}
th, td {{ padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right;
  white-space: nowrap; }}
th.text, td.text {{ text-align: left; white-space: normal; min-width: 20rem; vertical-align: top; }}
th:first-child, td:first-child {{ text-align: left; }} th {{ background: #f4f4f4; }}
figure {{ margin: 1.2rem 0; }} figure img {{ max-width: 100%; height: auto; background: #fff; }}
figcaption, .note {{ color: #555; font-size: 13px; }}
code {{ background: #f4f4f4; padding: 0 .2rem; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def _inline(text: str) -> str:
    escaped = html.escape(text)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)


def _html_text(part: Text) -> str:
    heading = f"<h2>{html.escape(part.heading)}</h2>" if part.heading else ""
    return heading + (f"<p>{_inline(part.text)}</p>" if part.text else "")


def _html_table(table: Table) -> str:
    """Columns of sentences are broken into lines, figures are not."""
    prose = {i for row in table.rows for i, cell in enumerate(row) if len(str(cell)) > 60}

    def line(tag: str, row: Sequence[str]) -> str:
        cells = (
            f"<{tag}{' class=text' if i in prose else ''}>{_inline(str(cell))}</{tag}>"
            for i, cell in enumerate(row)
        )
        return f"<tr>{''.join(cells)}</tr>"

    rows = "\n".join(line("td", row) for row in table.rows)
    note = f'<p class="note">{_inline(table.note)}</p>' if table.note else ""
    return (
        f'<div class="wide"><table><caption>{_inline(table.title)}</caption>'
        f"<thead>{line('th', table.header)}</thead><tbody>{rows}</tbody></table></div>{note}"
    )


def _html_plot(plot: Plot, svg: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    caption = f"<figcaption>{_inline(plot.caption)}</figcaption>" if plot.caption else ""
    title = html.escape(plot.title)
    return f'<figure><img alt="{title}" src="data:image/svg+xml;base64,{data}">{caption}</figure>'
