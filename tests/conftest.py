"""Small models that several test files share."""

from __future__ import annotations

import gc
import os
import pathlib
import signal
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings

# Generated cases are the same in every run; SPECDEC_HYPOTHESIS=thorough draws many others.
settings.register_profile("usual", max_examples=40, deadline=None, derandomize=True, database=None)
# Said to be random, because where CI is set others inherit from hypothesis's own profile for it.
settings.register_profile(
    "thorough", max_examples=5000, deadline=None, derandomize=False, print_blob=True
)
settings.load_profile(os.environ.get("SPECDEC_HYPOTHESIS", "usual"))

# Small models gain nothing from a second thread, and the processes of pytest-xdist have a core
# each: threads beyond that wait for each other. What is about threads says how many it wants. Here,
# before NumPy and torch are imported; children inherit it.
for variable in ("SPECDEC_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Roles and contents as they are, and a control token at the end of each message.
TINY_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@pytest.fixture(scope="session", autouse=True)
def calibration_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """Measured costs and packed weights of small models are not worth keeping beyond a test run."""
    folder = tmp_path_factory.mktemp("calibration")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDEC_CALIBRATION", str(folder))
        patch.setenv("SPECDEC_PACKED", str(tmp_path_factory.mktemp("packed")))
        yield folder


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """The emulated device and, with ``-m cuda``, the first GPU."""
    if request.param == "cuda":
        from helpers import native

        devices, reason = native("engine").cuda_devices()
        if not devices:
            pytest.skip(f"no GPU: {reason}")
    return str(request.param)


@pytest.fixture
def kernel_device(device: str) -> Iterator[str]:
    """Where the kernels of `_testing_cuda_kernels` run."""
    from helpers import native

    kernels = native("cuda_kernels")
    kernels.set_device(device)
    kernels.set_check_blocks(device == "emulated")
    yield device
    kernels.set_check_blocks(False)
    kernels.set_device("emulated")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A random llama with a byte-level vocabulary, a chat template and a long context."""
    import tiny_models

    config = tiny_models.TinyConfig(context_length=1 << 18)
    return tiny_models.write_tiny(
        tmp_path_factory.mktemp("tiny") / "tiny.gguf",
        config,
        dtype="Q8_0",
        seed=1,
        extra={"tokenizer.chat_template": TINY_TEMPLATE},
    )


@pytest.fixture(scope="session")
def tiny_draft_path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """One layer, the vocabulary of `tiny_path`."""
    import tiny_models

    config = tiny_models.TinyConfig(n_layers=1, context_length=1 << 18)
    return tiny_models.write_tiny(tmp_path_factory.mktemp("tiny") / "draft.gguf", config, seed=2)


@pytest.fixture(scope="session")
def tiny(tiny_path: pathlib.Path) -> Iterator[Any]:
    sd = pytest.importorskip("specdec_native", reason="the package is not installed")
    with sd.Model(tiny_path) as model:
        yield model


@pytest.fixture(scope="session")
def tiny_draft(tiny_draft_path: pathlib.Path) -> Iterator[Any]:
    sd = pytest.importorskip("specdec_native", reason="the package is not installed")
    with sd.Model(tiny_draft_path) as model:
        yield model


@pytest.fixture(scope="session")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A vocabulary of bytes that puts a space before what begins a text, as Llama 2's."""
    import tiny_models

    sd = pytest.importorskip("specdec_native", reason="the package is not installed")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    words = ["▁", "▁{", "{", "a", "b", "ab", "▁ab", '"', "▁x", "x", "ä", "▁ä", "<unused>"]
    vocabulary = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens + words,
        "tokenizer.ggml.scores": [0.0] * len(tokens) + [-float(len(w)) for w in words],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 12 + [3],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_space_prefix": True,
    }
    path = tiny_models.write_tiny(
        tmp_path_factory.mktemp("spm") / "spm.gguf", tiny_models.TinyConfig(), extra=vocabulary
    )
    with sd.Model(path, n_threads=1) as model:
        yield model


def pytest_configure(config: pytest.Config) -> None:
    # A shell lets its background jobs ignore Ctrl-C, and children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # And nohup lets what it starts ignore this one.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Tests of the CPU stay there on a machine with a GPU.
    if "cuda" not in config.getoption("-m"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Modules and tests live to the end: the collector of garbage need not look at them again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = config.getoption("-m")
    for marker in ("slow", "cuda"):
        if marker in asked:
            continue
        for item in items:
            # What is slow on the emulator is not on a GPU.
            if marker == "slow" and "cuda" in asked and item.get_closest_marker("cuda"):
                continue
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"{marker}: run with -m {marker}"))
