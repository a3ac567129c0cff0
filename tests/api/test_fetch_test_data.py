"""tools/fetch_test_data.py: only the pinned archive, only its data, nothing of it run."""

from __future__ import annotations

import io
import pathlib
import sys
import tarfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import fetch_test_data as tool  # noqa: E402

VOCABULARIES = tool.Data("vocabs", tool.DATA["vocabularies"].pattern, 2)
TEMPLATES = tool.Data("templates", tool.DATA["templates"].pattern, 1)
GOOD = {
    "p-1/v/ggml-vocab-a.gguf": b"GGUF",
    "p-1/v/ggml-vocab-a.gguf.inp": b"text",
    "p-1/v/templates/x.jinja": b"{{ x }}",
    "p-1/setup.py": b"1/0",
}


def archive(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_only_the_named_files_are_unpacked(tmp_path: pathlib.Path) -> None:
    data = archive(GOOD)
    assert not tool.is_complete(VOCABULARIES, tmp_path)
    assert tool.unpack(data, VOCABULARIES, tmp_path) == 2
    assert tool.unpack(data, TEMPLATES, tmp_path) == 1
    assert tool.is_complete(VOCABULARIES, tmp_path)
    assert files(tmp_path) == {
        "vocabs/ggml-vocab-a.gguf": b"GGUF",
        "vocabs/ggml-vocab-a.gguf.inp": b"text",
        "templates/x.jinja": b"{{ x }}",
    }


def test_no_path_leads_out_of_the_folder(tmp_path: pathlib.Path) -> None:
    inside = tmp_path / "in"
    members = {
        "../ggml-vocab-a": b"1",
        "/ggml-vocab-b": b"2",
        "p/ggml-vocab-../../c": b"3",
        "p/ggml-vocab-..\\d": b"4",
    }
    data = archive(members, {"p/ggml-vocab-link": "/etc/passwd"})
    assert tool.unpack(data, VOCABULARIES, inside) == 2
    assert files(tmp_path) == {"in/vocabs/ggml-vocab-a": b"1", "in/vocabs/ggml-vocab-b": b"2"}


def test_an_archive_with_too_few_files_is_refused(tmp_path: pathlib.Path) -> None:
    del (members := dict(GOOD))["p-1/v/ggml-vocab-a.gguf"]
    with pytest.raises(tool.FetchError, match="1 files of vocabs, expected 2"):
        tool.unpack(archive(members), VOCABULARIES, tmp_path)


JSON = '{"files": [{"url": "a/p-1.tar.gz#x"}, {"url": "https://h/f/p-2.tar.gz?y#sha256=1"}]}'
HTML = '<a href="a/p-1.tar.gz">1</a><a class=x href="https://h/f/p-2.tar.gz?y#sha256=1">2</a>'


@pytest.mark.parametrize(
    "page, kind", [(JSON, "application/vnd.pypi.simple.v1+json"), (HTML, "text/html")]
)
def test_both_kinds_of_an_index_are_read(page: str, kind: str) -> None:
    at = "https://i/simple/p/"
    assert tool.link_to("p-1.tar.gz", page, kind, at).startswith("https://i/simple/p/a/p-1.tar.gz")
    assert tool.link_to("p-2.tar.gz", page, kind, at) == "https://h/f/p-2.tar.gz?y#sha256=1"
    assert tool.link_to("p-3.tar.gz", page, kind, at) is None


class Answer(io.BytesIO):
    headers = {"Content-Type": "text/html"}  # noqa: RUF012
    url = "https://i/simple/p/"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Pages of an index by their addresses; any other address fails."""
    pages: dict[str, bytes] = {}

    def answer(request: object, **_: object) -> Answer:
        address = getattr(request, "full_url", request)
        if address not in pages:
            raise OSError(f"refused {address}")
        return Answer(pages[str(address)])

    monkeypatch.setattr(tool.urllib.request, "urlopen", answer)
    monkeypatch.setattr(tool, "_pip_settings", lambda: {"index-url": "https://i/simple"})
    return pages


def test_another_archive_than_the_pinned_one_is_refused(index: dict[str, bytes]) -> None:
    data = archive(GOOD)
    right = tool.hashlib.sha256(data).hexdigest()
    index["https://i/simple/p/"] = b'<a href="p-1.tar.gz">'
    index["https://i/simple/p/p-1.tar.gz"] = data
    assert tool.download("p", "p-1.tar.gz", right) == data
    index["https://i/simple/p/p-1.tar.gz"] = data + b"x"
    with pytest.raises(tool.FetchError, match=f"SHA-256 is .* expected {right}"):
        tool.download("p", "p-1.tar.gz", right)
    index["https://i/simple/p/"] = b'<a href="file:///etc/p-1.tar.gz">'
    with pytest.raises(tool.FetchError, match="no https address"):
        tool.download("p", "p-1.tar.gz", right)


def test_without_a_connection_it_says_so(
    index: dict[str, bytes], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["templates", "--folder", str(tmp_path)]) == 1
    assert "refused https://i/simple/" in capsys.readouterr().err
    assert files(tmp_path) == {}


def test_what_is_there_is_not_fetched_again(
    index: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(tool.DATA, "templates", TEMPLATES)
    tool.unpack(archive(GOOD), TEMPLATES, tmp_path)
    assert tool.main(["templates", "--folder", str(tmp_path)]) == 0
    assert "already" in capsys.readouterr().out


def test_continuous_integration_runs_no_script_from_outside() -> None:
    for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines():
        runs = ("python", "bash", "sh ", "source", "exec", "for ")
        assert not (line.strip().startswith(runs) and "../" in line and ".py" in line), line
