"""Texts with a permissive licence, as a list of documents: Python sources or HTML manuals."""

from __future__ import annotations

import hashlib
import html.parser
import pathlib
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass

from training_safety import ToolError


@dataclass(frozen=True)
class Document:
    name: str
    text: str


# Where one document in this many is kept away from training, chosen by its name alone.
HELD_OUT = 40

# Debian 12 packages whose text is under a permissive licence (see the model cards).
DOC_PACKAGES = (
    "python3.11-doc",
    "postgresql-doc-15",
    "sqlite3-doc",
    "python-django-doc",
    "apache2-doc",
)

# Tables, generated files, tests and lists of changes teach a small model nothing.
_NOT_CODE = re.compile(
    r"(^|/)(tests?|idle_test|site-packages|pydoc_data|__pycache__|turtledemo)/"
    r"|(^|/)encodings/(cp|iso|koi|mac|aliases|hp|tis|kz|ptcp|palm)|_sysconfigdata"
)
_NOT_PROSE = re.compile(
    r"manual/(da|de|es|fr|ja|ko|pt-br|ru|tr|zh-cn)/|crossref|capi3ref|requirements\.html"
    r"|(^|/)(_sources|_static|_modules|releaselog|distutils)/|genindex|modindex|search|changelog"
    r"|keyword|doclist|toc\.|sitemap|news\.html|(^|/)session/|bookindex|release-|copyright|license"
    r"|quickreference|contents\.html|hlr\d|matrix|syntax/|mostbookmarks|(^|/)changes"
)


def python_sources(folder: pathlib.Path | None = None) -> list[Document]:
    """The modules of the standard library of this Python, without tests and tables."""
    root = folder or pathlib.Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if _NOT_CODE.search(name):
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        if len(text) >= 500 and "\ufffd" not in text:
            found.append(Document(name, text.replace("\r\n", "\n").expandtabs(8)))
    return found


def manuals(folder: pathlib.Path) -> list[Document]:
    """The text of the English HTML pages under a folder."""
    found, seen = [], set()
    for path in sorted(folder.rglob("*.html*")):
        name = path.relative_to(folder).as_posix()
        if not path.name.endswith((".html", ".html.en")) or path.is_symlink():
            continue
        if path.name.endswith(".html") and path.with_name(path.name + ".en").exists():
            continue  # only points to its translations
        if _NOT_PROSE.search(name):
            continue
        text = html_text(path.read_bytes().decode("utf-8", "replace"))
        digest = hashlib.sha256(text.encode()).digest()
        if len(text) >= 500 and digest not in seen:
            seen.add(digest)
            found.append(Document(name, text))
    return found


def fetch_debian(folder: pathlib.Path, packages: tuple[str, ...] = DOC_PACKAGES) -> list[str]:
    """Downloads and unpacks Debian packages; returns the file names, which hold the versions."""
    folder.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", *packages], folder)
    files = sorted(folder.glob("*.deb"))
    for file in files:
        target = folder / "x" / file.name.split("_")[0]
        _run(["dpkg-deb", "-x", file.name, str(target.absolute())], folder)
        shutil.rmtree(target / "usr" / "share" / "locale", ignore_errors=True)
    return [file.name for file in files]


def _run(command: list[str], folder: pathlib.Path) -> None:
    try:
        code = subprocess.run(command, cwd=folder).returncode
        problem = f"exit code {code}"
    except OSError as error:
        code, problem = 1, f"{error.strerror}"
    if code != 0:
        raise ToolError(
            f"{' '.join(command[:2])} failed ({problem}): the manuals are those of Debian 12 with "
            "network; elsewhere give a folder of .html files with --texts"
        )


def split(documents: list[Document]) -> tuple[list[Document], list[Document]]:
    """(training, held out)"""
    parts: tuple[list[Document], list[Document]] = ([], [])
    for document in documents:
        digest = hashlib.sha256(document.name.encode()).digest()
        parts[int.from_bytes(digest[:4], "big") % HELD_OUT == 0].append(document)
    return parts


_PLAIN = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "--"}
    | {"\u00a0": " ", "\u00b6": "", "\u2026": "...", "\u2022": "*", "\u00ad": "", "\u200b": ""}
)
_SKIP_TAGS = {"script", "style", "head", "nav", "footer", "svg", "form", "button"}
_SKIP_CLASS = re.compile(
    r"sphinxsidebar|related|navheader|navfooter|headerlink|footer|breadcrumb|toolbar|nosearch"
    r"|toctree|quickview|preamble|langavail|toplang|bottomlang|path\b|menu|fancy_toc|mobileonly"
    r"|clearer|skip\b|comments|yui3-g\b-nav|seealso-nav|linenos|TOC\b|\btoc\b|searchmenu"
)
_BLOCKS = {"p", "div", "dl", "dt", "dd", "ul", "ol", "table", "tr", "section", "blockquote"}
_BLOCKS |= {"h1", "h2", "h3", "h4", "h5", "h6", "li", "pre", "br", "article", "main", "hr"}
_VOID = {"br", "hr", "img", "input", "meta", "link", "area", "base", "col", "embed", "wbr"}


class _TextOf(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.out: list[str] = []
        self._open: list[tuple[str, bool]] = []
        self._skipping = 0
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID:
            if tag == "br":
                self._add("\n")
            return
        label = " ".join(v or "" for k, v in attrs if k in ("class", "id", "role"))
        skip = tag in _SKIP_TAGS or bool(label and tag != "body" and _SKIP_CLASS.search(label))
        self._open.append((tag, skip))
        self._skipping += skip
        if tag in _BLOCKS:
            self._add("\n" if tag in ("li", "tr", "dt", "dd") else "\n\n")
        if tag == "li":
            self._add("* ")
        elif tag in ("td", "th"):
            self._add("  ")
        self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if not any(tag == name for name, _ in self._open):
            return
        while self._open:
            name, skip = self._open.pop()
            self._skipping -= skip
            self._pre -= name == "pre"
            if name == tag:
                break
        if tag in _BLOCKS:
            self._add("\n" if tag in ("li", "tr", "dt", "dd") else "\n\n")

    def handle_data(self, data: str) -> None:
        self._add(data if self._pre else re.sub(r"\s+", " ", data))

    def _add(self, text: str) -> None:
        if not self._skipping:
            self.out.append(text)


def html_text(source: str) -> str:
    """Paragraphs, list items and code of a page, without its navigation."""
    parser = _TextOf()
    parser.feed(source)
    parser.close()
    text = "".join(parser.out).translate(_PLAIN)
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n (?=\S)", "\n", text)
    text = re.sub(r"(?m)^\*\n+", "* ", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
