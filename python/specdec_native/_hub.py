"""Files of the Hugging Face Hub, by HTTP alone: checked, resumed, and there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from ._version import __version__
from .errors import DownloadError

_BLOCK = 1 << 20
_SECONDS = 30.0  # without a byte
_TRIES = 4
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 10


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **named: Any) -> None:
        return None  # a key for the hub is nothing for others


_opener = urllib.request.build_opener(_Stay)


@dataclass(frozen=True)
class _Source:
    """Where a file is, and what the hub says of it; sha256 "" and size -1: nothing."""

    url: str
    headers: dict[str, str]
    sha256: str
    size: int


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _token() -> str:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if given := os.environ.get(name, "").strip():
            return given
    with contextlib.suppress(OSError, RuntimeError, UnicodeDecodeError):
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        home = pathlib.Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser()
        path = os.environ.get("HF_TOKEN_PATH") or home / "token"
        return pathlib.Path(path).read_text(encoding="utf-8").strip()
    return ""


def _headers() -> dict[str, str]:
    headers = {"User-Agent": f"specdec-native/{__version__}", "Accept-Encoding": "identity"}
    if (token := _token()) and token.isprintable() and token.isascii():
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _open(url: str, headers: dict[str, str]) -> Any:
    """An answer, also one that sends elsewhere.

    Raises:
        DownloadError: neither; says why.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url} is no address of http; HF_ENDPOINT names the hub")
    try:
        return _opener.open(urllib.request.Request(url, headers=headers), timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code in (*_REDIRECTS, 416):
            return error
        raise _refused(url, error) from None
    except urllib.error.URLError as error:
        raise _unreachable(url, error.reason) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(url, error) from None


def _unreachable(url: str, reason: object) -> DownloadError:
    host = urllib.parse.urlsplit(url).netloc
    text = str(reason) or type(reason).__name__
    return DownloadError(
        f"{host} cannot be reached: {text[:300]}; check the connection, or give the path of a "
        "file that was fetched elsewhere"
    )


def _refused(url: str, error: urllib.error.HTTPError) -> DownloadError:
    said = error.headers.get("X-Error-Message") or error.reason
    told = f"{url}: {error.code} {str(said)[:300]}"
    error.close()
    if error.code in (401, 403):
        told += (
            "; there is no such repository, or it is private, or its terms are to be accepted on "
            "its page: HF_TOKEN is the key of an account that may read it"
        )
    return DownloadError(told)


def list_files(repo: str) -> list[str]:
    """Names of a repository's files."""
    with _open(f"{_endpoint()}/api/models/{repo}", _headers()) as answer:
        try:
            found = json.load(answer)
            return [str(entry["rfilename"]) for entry in found["siblings"]]
        except (ValueError, KeyError, TypeError):
            raise DownloadError(f"{_endpoint()} does not answer as the hub does") from None


def _locate(repo: str, file: str) -> _Source:
    """As far as the hub itself tells; other hosts are asked for the data alone."""
    url = f"{_endpoint()}/{repo}/resolve/main/{urllib.parse.quote(file)}"
    headers = _headers()
    sha256, size = "", -1
    for _ in range(_MOST_REDIRECTS):
        with _open(url, headers) as answer:
            told = answer.headers
            etag = (told.get("X-Linked-Etag") or "").strip('W/"').lower()
            sha256 = sha256 or (etag if _SHA256.fullmatch(etag) else "")
            length = told.get("X-Linked-Size") or ""
            size = int(length) if size < 0 and length.isdigit() else size
            if answer.status not in _REDIRECTS:
                break
            there, allowed = _redirected(url, headers, told.get("Location") or "")
        is_elsewhere = len(allowed) < len(headers) or _host(there) != _host(url)
        url, headers = there, allowed
        if is_elsewhere:
            break
    return _Source(url, headers, sha256, size)


def _host(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


def _redirected(url: str, headers: dict[str, str], location: str) -> tuple[str, dict[str, str]]:
    """Where to, and what may be said there: the key is for its own host alone."""
    there = urllib.parse.urljoin(url, location)
    if _host(there) == _host(url):
        return there, headers
    return there, {name: value for name, value in headers.items() if name != "Authorization"}


def _open_at_last(url: str, headers: dict[str, str]) -> Any:
    for _ in range(_MOST_REDIRECTS):
        answer = _open(url, headers)
        if answer.status not in _REDIRECTS:
            return answer
        answer.close()
        url, headers = _redirected(url, headers, answer.headers.get("Location") or "")
    raise DownloadError(f"{url}: one address sends to the next without end")


def fetch(repo: str, file: str, target: pathlib.Path, *, show_progress: bool = False) -> None:
    """Makes `target` of a file of the hub; what an earlier attempt has of it is gone on from.

    Raises:
        DownloadError: not reachable, not found, refused, damaged, or no room for it.
        OSError: `target` cannot be written.
    """
    source = _locate(repo, file)
    target.parent.mkdir(parents=True, exist_ok=True)
    tag = source.sha256[:12] or "new"
    partial = target.with_name(f".{target.name}.{tag}.partial")
    with _locked(partial, target) as out:
        if out is None:
            return  # somebody else has fetched it meanwhile
        if not source.sha256:
            out.truncate(0)  # nothing would tell that both parts are of one file
        for attempt in range(_TRIES):
            try:
                _receive(source, out, file, show_progress)
                break
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                if attempt == _TRIES - 1 or not source.sha256:
                    raise _unreachable(source.url, error) from None
        _check(source, out, file, partial)
        partial.replace(target)
    for left in target.parent.glob(f".{target.name}.*.partial"):
        left.unlink(missing_ok=True)  # of versions before


@contextlib.contextmanager
def _locked(partial: pathlib.Path, target: pathlib.Path) -> Iterator[IO[bytes] | None]:
    """The file to write to, of which nobody else has it open so; None if `target` came to be."""
    while True:
        with partial.open("a+b") as out:
            with contextlib.suppress(OSError):  # file systems without locks
                fcntl.flock(out, fcntl.LOCK_EX)
            try:
                is_it = os.path.samestat(os.fstat(out.fileno()), partial.stat())
            except FileNotFoundError:
                is_it = False
            if not is_it:
                if target.exists():
                    yield None
                    return
                continue
            yield out
            return


def _receive(source: _Source, out: IO[bytes], file: str, show_progress: bool) -> None:
    """Appends what is missing."""
    have = out.seek(0, os.SEEK_END)
    if have > source.size >= 0:
        have = out.truncate(0)
    if have == source.size:
        return
    _check_room(source.size - have, out)
    headers = {**source.headers, "Range": f"bytes={have}-"} if have else source.headers
    with _open_at_last(source.url, headers) as answer:
        begins = (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-")
        if have and not (answer.status == 206 and begins):
            if answer.status != 200:
                out.truncate(0)
                raise http.client.HTTPException(f"answered {answer.status} to a range")
            out.truncate(0)
            have = 0
        length = answer.headers.get("Content-Length") or ""
        size = have + int(length) if source.size < 0 and length.isdigit() else source.size
        while block := answer.read(_BLOCK):
            out.write(block)
            have += len(block)
            if have > size >= 0:
                raise http.client.HTTPException("it goes on behind its end")
            if show_progress and size > 0:
                print(f"\r{file}: {100 * have // size} %", end="", file=sys.stderr)
    if show_progress:
        print(file=sys.stderr)
    out.flush()
    if 0 <= size != have:
        raise http.client.HTTPException(f"it ended after {have} of {size} bytes")


def _check_room(n_bytes: int, out: IO[bytes]) -> None:
    free = shutil.disk_usage(out.fileno()).free
    if n_bytes > free:
        raise DownloadError(
            f"{n_bytes / 1e9:.2f} GB are to be fetched, and {free / 1e9:.2f} GB are free at "
            f"{pathlib.Path(str(out.name)).parent}; SPECDEC_MODELS names another folder"
        )


def _check(source: _Source, out: IO[bytes], file: str, partial: pathlib.Path) -> None:
    out.seek(0)
    digest = hashlib.sha256()
    begin = out.read(4)
    digest.update(begin)
    while block := out.read(_BLOCK):
        digest.update(block)
    problem = ""
    if source.sha256 and digest.hexdigest() != source.sha256:
        problem = f"the SHA-256 is {digest.hexdigest()}, expected {source.sha256}"
    elif begin != b"GGUF":
        problem = f"it is no GGUF file: it begins with {begin!r}"
    if problem:
        partial.unlink(missing_ok=True)
        raise DownloadError(f"{file}: {problem}; it was not kept")
    os.fsync(out.fileno())
