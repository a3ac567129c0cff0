"""Licences of the texts: which files of Python's standard library have terms of their own.

Most of it is under the Python Software Foundation License 2. What follows is what the files say
themselves, of Python 3.11; `unlisted` finds notices that the list does not name yet.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

from training.corpus import Document


@dataclass(frozen=True)
class Notice:
    licence: str
    holder: str
    files: tuple[str, ...]  # patterns

    def holds(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.files)


NOTICES = (
    Notice(
        "CNRI Python 1.6 license",
        "Secret Labs AB, in cooperation with CNRI",
        ("re/*", "sre_*.py"),
    ),
    Notice("CNRI, no warranty", "CNRI", ("codecs.py", "encodings/*")),
    Notice("Apache-2.0", "Disney Enterprises, Inc.", ("profile.py", "pstats.py")),
    Notice(
        "PSF license for Python 2.2 (chosen; else GPL-2)",
        "Bastian Kleineidam",
        ("urllib/robotparser.py",),
    ),
    Notice("BSD-3-Clause", "Gregory P. Ward", ("optparse.py",)),
    Notice("MIT", "Lars Gustaebel", ("tarfile.py",)),
    Notice("MIT", "Taneli Hukkinen", ("tomllib/*",)),
    Notice("MIT (also Apache-2.0)", "Ian Bicking and contributors", ("wsgiref/validate.py",)),
    Notice("zlib", "Gerhard Haering", ("sqlite3/*",)),
    Notice("zlib", "Gregor Lingl", ("turtle.py",)),
    Notice(
        "HPND (permission notice)",
        "Sam Rushing",
        ("asynchat.py", "asyncore.py"),
    ),
    Notice("HPND (permission notice)", "Timothy O'Malley", ("http/cookies.py",)),
    Notice("HPND (permission notice)", "Vinay Sajip", ("logging/*",)),
    Notice("HPND (permission notice)", "Marc-Andre Lemburg, eGenix.com", ("platform.py",)),
    Notice("HPND (permission notice)", "Lance Ellinghouse", ("uu.py", "encodings/uu_codec.py")),
    Notice(
        "HPND (permission notice)",
        "Secret Labs AB, Fredrik Lundh",
        ("xml/etree/*", "xmlrpc/*"),
    ),
    Notice(
        "Python 2.2 license and HPND (permission notice)",
        "Autonomous Zones Industries, Mojam Media, Bioreason, Automatrix, Stichting Mathematisch "
        "Centrum",
        ("trace.py",),
    ),
    Notice("Python's own terms, with its notice", "Steve Purcell", ("unittest/__init__.py",)),
    Notice("public domain", "Tim Peters", ("doctest.py", "tabnanny.py")),
    Notice("public domain", "Ka-Ping Yee", ("inspect.py",)),
    Notice("public domain", "Geert Jansen", ("socket.py",)),  # socketpair()
    Notice("Python's own terms", "Fredrik Lundh", ("tkinter/simpledialog.py",)),
    Notice("Python's own terms", "Luke Kenneth Casson Leighton", ("socketserver.py",)),
    Notice("Python's own terms", "Armin Ronacher", ("ast.py",)),
)

PSF = "the Python Software Foundation License 2"
_NOTICE = re.compile(
    r"copyright[^\n]{0,3} (\(c\) *)?(\d{4}|by |CNRI|Disney)|\(c\) *(copyright|\d{4})|SPDX-"
    r"|permission (to use|is granted|is hereby)|all rights reserved|public domain|licen[cs]ed under"
    r"|two licenses|GPL",
    re.IGNORECASE,
)
_OF_PYTHON = re.compile(
    r"licensed to (the )?psf under a contributor agreement|python software foundation"
    r"|licen[cs]e: ps\w*",
    re.IGNORECASE,
)
# Programs and tables that speak of licences without having one.
_NO_NOTICE = ("_sitebuiltins.py", "site.py", "idlelib/*", "distutils/*", "html/entities.py")
_HEAD = 120  # lines in which a file says whose it is


def unlisted(documents: Iterable[Document]) -> list[str]:
    """Files that hold a notice which is neither Python's own nor in NOTICES."""
    found = []
    for document in documents:
        head = "\n".join(document.text.split("\n")[:_HEAD])
        if not _NOTICE.search(head) or _OF_PYTHON.search(head):
            continue
        if any(fnmatch.fnmatchcase(document.name, pattern) for pattern in _NO_NOTICE):
            continue
        if not any(notice.holds(document.name) for notice in NOTICES):
            found.append(document.name)
    return found


def table() -> list[str]:
    """For a card."""
    rows = [
        f"| {', '.join(f'`{pattern}`' for pattern in notice.files)} | {notice.holder} | "
        f"{notice.licence} |"
        for notice in NOTICES
    ]
    return ["| files | holder | terms |", "|---|---|---|", *rows]
