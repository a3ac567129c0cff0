"""What mkdocs does besides: pages that live elsewhere in the repository stand on the site too."""

from __future__ import annotations

import posixpath
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
# Text, path and fragment of a link within the repository.
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)")


def target_on_site(page: str, link: str) -> str | None:
    """Where a link of a page leads on the site; None: the file is not on it."""
    source = ELSEWHERE.get(page, f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if path == "README.md":
        path = "docs/index.md"
    on_site = {source: site for site, source in ELSEWHERE.items()}
    there = on_site.get(path, path.removeprefix("docs/"))
    if path not in on_site and not path.startswith("docs/"):
        return None
    return posixpath.relpath(there, posixpath.dirname(page) or ".")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    for site, source in ELSEWHERE.items():
        files.append(File.generated(config, site, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    name = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        text, link, fragment = match.groups(default="")
        there = target_on_site(name, link)
        if there is not None:
            return f"[{text}]({there}{fragment})"
        # Files of the repository that are not on the site are named, not linked.
        return text if ".." in link else match[0]

    return LINK.sub(moved, markdown)
