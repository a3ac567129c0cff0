"""What mkdocs does besides: pages that live elsewhere in the repository stand on the site too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    **{f"models/{path.name}": f"models/{path.name}" for path in (ROOT / "models").glob("*.md")},
}
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def target_on_site(page: str, link: str) -> str | None:
    """A link of a page, both by their places in the repository, as the site has it."""
    folder = Path("docs") / Path(page).parent
    if page in ELSEWHERE:
        folder = Path(ELSEWHERE[page]).parent
    path = Path(*_normalised(folder / link))
    for site, source in ELSEWHERE.items():
        if path.as_posix() == source:
            path = Path("docs") / site
    if path.as_posix() == "README.md":
        path = Path("docs/index.md")
    if not path.as_posix().startswith("docs/"):
        return None
    there = path.relative_to("docs")
    return "../" * len(Path(page).parent.parts) + there.as_posix()


def _normalised(path: Path) -> list[str]:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return parts


def on_files(files: Files, config: Any, **_: Any) -> Files:
    for site, source in ELSEWHERE.items():
        files.append(File.generated(config, site, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    name = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        there = target_on_site(name, match[1])
        return match[0] if there is None else f"]({there}"

    # Files of the repository that are not on the site are named, not linked.
    markdown = LINK.sub(moved, markdown)
    return re.sub(
        r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)\)",
        lambda m: m[1] if target_on_site(name, m[2]) is None and ".." in m[2] else m[0],
        markdown,
    )
