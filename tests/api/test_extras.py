"""Without the packages of an extra, what needs them says which extra it is."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PACKAGE = pathlib.Path(sd.__file__).parent
ROOT = pathlib.Path(__file__).parents[2]
# Reached only through what looks for the packages first.
INNER = re.compile(r"specdec_native\.(server|studies|ray_app)\.")
SAYS = re.compile(r"pip install 'specdec-native\[([a-z,]+)\]'")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs Python as it is behind `pip install specdec-native`: nothing else is installed."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "specdec_native").symlink_to(PACKAGE)

    def run(code, *arguments, timeout=120):
        start = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        command = [sys.executable, "-I", "-S", "-c", start + code, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, cwd=folder
        )

    return run


IMPORT_ALL = """
import importlib, json, pkgutil, specdec_native
found = {}
def walk(package):
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if info.name.rpartition(".")[2].startswith(("_testing", "__main__")):
            continue
        try:
            module = importlib.import_module(info.name)
            found[info.name] = None
        except ImportError as error:
            found[info.name] = str(error)
        if info.ispkg and found[info.name] is None:
            walk(module)
walk(specdec_native)
print(json.dumps(found))
"""


def test_each_module_can_be_imported_or_says_what_it_needs(bare):
    done = bare(IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > 60
    extras = {name: SAYS.search(error)[1] for name, error in found.items()
              if error is not None and SAYS.search(error)}  # fmt: skip
    assert extras == {
        "specdec_native.llm_plugin": "llm",
        "specdec_native.ray_app": "ray,server",
        "specdec_native.server.app": "server",
    }
    silent = [name for name, error in found.items() if error is not None and name not in extras]
    assert all(INNER.match(name) for name in silent), silent
    assert all("No module named" in found[name] for name in silent)


COMMANDS = [
    ("server", ["serve", "pycode"]),
    ("ray", ["batch", "pycode", "IN", "OUT", "--ray", "local"]),
    ("grammar", ["batch", "pycode", "SCHEMAS", "OUT"]),
    *(
        ("studies", ["study", name, "--out", "OUT"] + ["IN"] * (name == "mine"))
        for name in ("mine", "edits", "sweep")
    ),
]


@pytest.mark.parametrize("extra,arguments", COMMANDS)
def test_each_command_says_which_extra_it_needs(bare, tmp_path, extra, arguments):
    plain, schemas = tmp_path / "in.jsonl", tmp_path / "schemas.jsonl"
    plain.write_text(json.dumps({"prompt": "def add", "max_tokens": 1}) + "\n")
    schemas.write_text(json.dumps({"prompt": "x", "max_tokens": 1, "schema": {}}) + "\n")
    output = tmp_path / "out.jsonl"
    names = {"IN": plain, "OUT": output, "SCHEMAS": schemas}
    code = "from specdec_native.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    done = bare(code, *(names.get(word, word) for word in arguments))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert SAYS.search(last)[1] == extra
    assert not output.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["batch", "pycode", "IN", "OUT", "-q"],
        ["models"],
        ["info"],
        ["demo", "--offline", "-n", "4"],
        ["serve", "--help"],
        ["study", "--help"],
    ],
)
def test_the_others_work_without(bare, tmp_path, arguments):
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"prompt": "def add", "max_tokens": 1}) + "\n")
    names = {"IN": source, "OUT": tmp_path / "out.jsonl"}
    code = "from specdec_native.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    done = bare(code, *(names.get(word, word) for word in arguments))
    assert done.returncode == 0, done.stderr


CALLS = """
import specdec_native as sd
pair = sd.embedded("pycode")
model = sd.Model(pair.target)
def needs(call):
    try:
        call()
    except sd.MissingExtraError as error:
        assert isinstance(error, (ValueError, ImportError)) and "[grammar]" in str(error), error
    else:
        raise AssertionError("it did not say so")
needs(sd.Grammar.json)
needs(lambda: sd.Grammar.regex("a+"))
needs(lambda: sd.Grammar.json_schema({}))
with sd.Decoder(model) as decoder:
    needs(lambda: decoder.generate("x", schema={}, max_tokens=1))
    assert decoder.generate("def add(", max_tokens=2).text
with sd.Engine(model) as engine:
    needs(lambda: engine.submit("x", schema={}, max_tokens=1))
    assert engine.submit("def add(", max_tokens=2).result().text
"""


def test_calls_in_python_say_it_too(bare):
    done = bare(CALLS)
    assert done.returncode == 0, done.stderr


REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
from specdec_native.cli import main
sys.exit(main(["serve", "pycode"]))
"""


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "pydantic", "prometheus_client"])
def test_a_server_misses_each_of_its_packages(name):
    pytest.importorskip(name)
    command = [sys.executable, "-c", REFUSE.format(name=name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert f"No module named '{name}'" in done.stderr
    assert SAYS.search(done.stderr)[1] == "server"


def test_extras_that_are_named_exist():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[project")[0]
    known = set(re.findall(r"^(\w+) = ", section, re.M))
    named = set()
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        for found in re.findall(r"specdec-native\[([a-z,]+)\]", path.read_text(encoding="utf-8")):
            named |= set(found.split(","))
    assert named <= known
    assert len(named) > 4
