"""Models: loaded once, shared by decoders and threads."""

from __future__ import annotations

import functools
import logging
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, NoReturn

from . import _core
from ._chat import arguments_json, messages_json, tools_json
from ._checks import check_all, check_whole
from ._option_table import CHECKS
from .errors import ClosedError, InvalidArgumentError
from .results import FileInfo, ModelInfo, PairReport, TensorEntry

StrPath = str | os.PathLike[str]
Message = Mapping[str, Any]
KvType = Literal["f32", "f16", "q8_0"]
Requantize = Literal["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]

logger = logging.getLogger("specdec_native")
logger.addHandler(logging.NullHandler())


def flush_log() -> None:
    """Hands the native code's messages to `logging`."""
    for level, text in _core.take_log():
        logger.log(level, "%s", text)


def on_main_thread() -> bool:
    """Signal handlers run on this thread only."""
    return threading.current_thread() is threading.main_thread()


def to_bytes(text: str) -> bytes:
    """UTF-8; a lone surrogate becomes bytes that are not UTF-8, which tokenizers accept."""
    return text.encode("utf-8", "surrogatepass")


def path_bytes(name: str, path: object) -> bytes:
    """A file's name as the native code takes it."""
    try:
        found = os.fsencode(path)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidArgumentError(
            f"{name} must be a str or os.PathLike, not {type(path).__name__}"
        ) from None
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{name} has a character that no file's name has: {error.reason} at {error.start}"
        ) from None
    if not found:
        raise InvalidArgumentError(f"{name} is empty; expected the name of a file")
    if b"\0" in found:  # where the system would take it to end
        raise InvalidArgumentError(
            f"{name} has a NUL character at {found.index(0)}; expected the name of a file"
        )
    return found


def refuse_copy(what: str) -> NoReturn:
    raise TypeError(
        f"a {what} cannot be pickled or copied: open the model in each process, or share it "
        "between threads"
    )


class Model:
    """A GGUF model, ready to run.

    Immutable: any number of decoders and threads may share it. It cannot be used in a process made
    by ``fork`` after it was loaded, and cannot be pickled: open it in each process. Closing it, or
    leaving its ``with`` block, only ends the use of this object. Decoders that were made before,
    for which it is the target or drafts, go on, and so do their forks; its memory is released with
    the last of them.

    Args:
        path: a GGUF file, or a name: a model that comes with the package ("pycode", "manuals"), one
            that `specdec-native pull` knows ("smollm2"), or "hf:ORG/REPO/FILE.gguf". A file that is
            there wins over a name. What is named and not here yet is fetched, which is said to
            `logging`; not while SPECDEC_OFFLINE or HF_HUB_OFFLINE is set.
        device: "cpu"; "cuda": as `n_gpu_layers` says, an error without a usable GPU; "auto": the
            same, but quietly on the CPU where there is no GPU, unless layers are asked for by
            number. `info.cpu_reason` says why.
        n_threads: 1 to 256; threads; fewer of them work while other processes want the cores and
            that is faster; None: one per core this process may use.
        n_gpu_layers: 0 to 100000; the last so many layers, and with them the output head, run on
            the GPU; "auto": as many as fit. Load a draft model first: it gets its place first.
        vram_budget: 1 or more; GPU memory that the models of this process may take together:
            weights, caches, work space. Bytes or a text such as "4GiB"; None: what is free.
        n_ctx: 2 or more; positions of the context of its decoders, unless they are given their own.
            On a GPU their cache is reserved now and cannot grow: a longer context is an error
            there; None: the model's own, at most 4096.
        kv_type: elements of the key-value cache, "f32", "f16" or "q8_0".
        repack: "auto" repacks the weights in memory as the kernels want them; "keep" also writes
            them to a file as large as the model, which later loads map instead: a fast start, and
            processes share the memory; "off" leaves them as they are and packs them in every pass:
            slower, in little memory. All give the same results.
        check_tensors: read all weights now and refuse NaN and infinity.
        requantize: rewrite matrices in this coarser format, "q4_0", "q4_1", "q5_0", "q5_1" or
            "q8_0", where that makes them smaller. The model gets faster and less exact: meant for
            draft models, whose mistakes cost time but never change the text; None: as they are.
        on_progress: called with 0..1 while loading; an exception it raises ends the load.

    Raises:
        ModelFileNotFoundError, ModelFileError: the file cannot be read, or no model has that name.
        DownloadError: what was named could not be fetched.
        ModelFormatError: the file is damaged or hostile.
        UnsupportedModelError: this version does not run such a model.
        ResourceLimitError: not enough memory.
    """

    def __init__(
        self,
        path: StrPath,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        n_threads: int | None = None,
        n_gpu_layers: int | Literal["auto"] = "auto",
        vram_budget: int | str | None = None,
        n_ctx: int | None = None,
        kv_type: KvType = "f16",
        repack: Literal["auto", "keep", "off"] = "auto",
        check_tensors: bool = False,
        requantize: Requantize | None = None,
        on_progress: Callable[[float], object] | None = None,
    ) -> None:
        self._handle: _core.Model | None = None
        given = {
            "device": device,
            "n_threads": n_threads,
            "n_ctx": n_ctx,
            "kv_type": kv_type,
            "repack": repack,
            "check_tensors": check_tensors,
            "requantize": requantize,
            "on_progress": on_progress,
        }
        checked = check_all(CHECKS["Model"], given)
        if n_gpu_layers != "auto":
            n_gpu_layers = CHECKS["Model"]["n_gpu_layers"]("n_gpu_layers", n_gpu_layers)
        if isinstance(vram_budget, str):
            if not vram_budget.strip():
                raise InvalidArgumentError("vram_budget is an empty text; expected one like '4GiB'")
        else:
            vram_budget = CHECKS["Model"]["vram_budget"]("vram_budget", vram_budget)
        file: object = path
        self._draft: pathlib.Path | None = None
        if isinstance(path, str) and (path.startswith("hf:") or not path.endswith(".gguf")):
            # It needs StrPath, and much that who opens a file should not have to import.
            from ._names import find_draft, find_file

            file, self._draft = find_file(path, notify=logger.info), find_draft(path)
        self._loaded_with: dict[str, Any] = {"device": device, "n_threads": n_threads}
        self._handle = _core.Model(
            path_bytes("path", file),
            device=checked["device"],
            n_threads=checked["n_threads"] or 0,
            kv_type=checked["kv_type"],
            repack=checked["repack"],
            check_tensors=checked["check_tensors"],
            requantize=checked["requantize"] or "",
            n_gpu_layers=-1 if n_gpu_layers == "auto" else n_gpu_layers,
            vram_budget="" if vram_budget is None else str(vram_budget),
            n_ctx=checked["n_ctx"] or 0,
            on_progress=checked["on_progress"],
            poll_signals=on_main_thread(),
        )
        flush_log()
        for warning in self.info.warnings:
            logger.warning("%s: %s", os.fsdecode(path), warning)

    def open_draft(self) -> Model | None:
        """The draft that suits a model opened by name, on its device, with as many threads.

        ``target = Model("smollm2")``, ``Decoder(target, draft=target.open_draft())``. None: none
        is known, as for every model opened as a file.
        """
        self._native  # noqa: B018  # ClosedError
        return None if self._draft is None else Model(self._draft, **self._loaded_with)

    @property
    def _native(self) -> _core.Model:
        if self._handle is None:
            raise ClosedError("the model is closed")
        return self._handle

    @functools.cached_property
    def info(self) -> ModelInfo:
        """What the model is, and how it was loaded."""
        values = self._native.info()
        values["tensor_types"] = tuple((str(name), int(n)) for name, n in values["tensor_types"])
        values["placement"] = tuple(values["placement"])
        values["warnings"] = tuple(values["warnings"])
        return ModelInfo(**values)

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """All keys of the file; arrays of more than 1024 items are replaced by a description."""
        return self._native.metadata(max_array=1024)

    @property
    def chat_template(self) -> str | None:
        """The file's own template (jinja2), if it has one."""
        return self._native.chat_template() or None

    @property
    def chat_templates(self) -> dict[str, str]:
        """The file's templates by name; the default one is called ""."""
        return dict(self._native.chat_templates())

    def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text.
            add_special: add the tokens that the file wants around a prompt, such as BOS.
            parse_special: recognise control tokens that the text spells out.
        """
        if not isinstance(text, str):
            raise InvalidArgumentError(f"text must be a str, not {type(text).__name__}")
        try:
            return self._native.tokenize(
                to_bytes(text),
                add_special=add_special,
                parse_special=parse_special,
                poll_signals=on_main_thread(),
            )
        finally:
            flush_log()

    def detokenize(
        self,
        token_ids: Sequence[int],
        *,
        render_special: bool = False,
        strip_space_prefix: bool = True,
    ) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD.

        Args:
            token_ids: ids of this vocabulary.
            render_special: spell control tokens out instead of leaving them out.
            strip_space_prefix: drop the space that a SentencePiece vocabulary puts before a prompt;
                not wanted for tokens that continue a text.
        """
        ids = check_token_ids("token_ids", token_ids, self.info.vocab_size)
        return self._native.detokenize(
            ids, render_special=render_special, strip_space_prefix=strip_space_prefix
        )

    def token_text(self, token_id: int) -> str:
        """A token as the vocabulary spells it."""
        token_id = check_whole("token_id", token_id, 0, self.info.vocab_size - 1)
        return self._native.token_text(token_id)

    def hidden_states(
        self, token_ids: Sequence[int], layers: Sequence[int], *, n_ctx: int | None = None
    ) -> memoryview:
        """What enters layers of the model at each token of a text, for tools that train on it.

        The text is read from its beginning by the model as it is loaded, quantised weights and
        cache included: the numbers are those that generating sees, with the same bits. It takes as
        long as reading a prompt, and n_tokens x n_layers x n_embd x 4 bytes.

        Args:
            token_ids: ids of this vocabulary, one or more; no BOS is added.
            layers: ascending and distinct, from 0 to `info.n_layers`: layer l stands for the
                residual stream that enters it (0: the embedded tokens, as the model scales them),
                `info.n_layers` for what leaves the last one, before the final norm.
            n_ctx: positions of the context that the text stands in, as that of the `Decoder` or of
                `generate_many` whose bits are wanted. Models with longrope (Phi-3) rotate by other
                numbers where it is beyond their original context, however short the text is; no
                others depend on it. None: what these take by default, or the text's length where
                that is more.

        Returns:
            float32 numbers of shape [n_tokens, n_layers, n_embd] in C order, without a unit;
            ``numpy.asarray(states)`` and ``torch.frombuffer(states, dtype=torch.float32)`` take
            them without a copy.

        Raises:
            InvalidArgumentError: an id or a layer is out of range, or there is none, or the text
                is longer than `n_ctx`.
            UnsupportedModelError: the model is a head that drafts.
            ResourceLimitError: not enough memory for the result; with layers on a GPU also for what
                comes from there, or the text is longer than the `n_ctx` of the load.
        """
        ids = check_token_ids("token_ids", token_ids, self.info.vocab_size)
        wanted = check_layers("layers", layers, self.info.n_layers)
        context = 0 if n_ctx is None else check_whole("n_ctx", n_ctx, 1, 2**31 - 1)
        states = self._native.hidden_states(
            ids, wanted, n_ctx=context, poll_signals=on_main_thread()
        )
        return memoryview(states)  # type: ignore[arg-type]

    @property
    def bos_token_id(self) -> int | None:
        return self._native.bos_id

    @property
    def eos_token_id(self) -> int | None:
        return self._native.eos_id

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        template_args: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt that `Decoder.chat` makes of the messages, as text.

        The same native code renders for the command line, with the results of transformers.

        Args:
            messages: dicts with "role" and "content".
            add_generation_prompt: end where the assistant's answer begins.
            tools: function descriptions. A file with a template called "tool_use" has it used.
            template: the name of one of `chat_templates`, a format (chatml, llama2, llama3, zephyr,
                raw) or a jinja2 template; None: the file's own.
            template_args: further variables of the template.

        Raises:
            TemplateError: no template, or it is wrong, refuses the messages or exceeds its limits.
        """
        return self._chat_prompt(messages, add_generation_prompt, tools, template, template_args)[0]

    def _chat_prompt(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None,
        template: str | None,
        template_args: Mapping[str, Any] | None,
    ) -> tuple[str, list[int]]:
        """Text and token ids."""
        if template is not None and not (isinstance(template, str) and template):
            raise InvalidArgumentError(
                f"template must be a str that is not empty, not {template!r}"
            )
        try:
            return self._native.chat_prompt(
                messages_json(messages),
                tools=tools_json(tools),
                chat_template=to_bytes(template or ""),
                arguments=arguments_json(template_args),
                add_generation_prompt=bool(add_generation_prompt),
                poll_signals=on_main_thread(),
            )
        finally:
            flush_log()

    def _keep(self) -> Model:
        """The same model for somebody who goes on when this object is closed."""
        self._native  # noqa: B018  # ClosedError now, not later
        kept = Model.__new__(Model)
        kept.__dict__.update(self.__dict__)
        return kept

    def close(self) -> None:
        """Ends the use of this object, not of decoders made from it; may be called again."""
        self._handle = None

    @property
    def closed(self) -> bool:
        return self._handle is None

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        refuse_copy("Model")

    def __copy__(self) -> NoReturn:
        refuse_copy("Model")

    def __deepcopy__(self, memo: object) -> NoReturn:
        refuse_copy("Model")

    def __repr__(self) -> str:
        if self._handle is None:
            return "<specdec_native.Model, closed>"
        info = self.info
        name = info.name or info.path
        return f"<specdec_native.Model {name!r}: {info.architecture}, {info.quantisation}>"


def check_model(name: str, model: object) -> None:
    if not isinstance(model, Model):
        raise InvalidArgumentError(f"{name} must be a Model, not {type(model).__name__}")


def check_token_ids(name: str, token_ids: Iterable[object], vocab_size: int) -> list[int]:
    """A list of ids; raises InvalidArgumentError naming the first one outside the vocabulary."""
    if isinstance(token_ids, (str, bytes)):
        raise InvalidArgumentError(f"{name} must be a sequence of token ids, not text")
    if not isinstance(token_ids, Iterable):
        raise InvalidArgumentError(
            f"{name} must be a sequence of token ids, not {type(token_ids).__name__}"
        )
    ids = []
    for i, token in enumerate(token_ids):
        try:
            value = int(token.__index__())  # type: ignore[attr-defined]  # NumPy integers too
        except AttributeError:
            value = -1
        if isinstance(token, bool) or not 0 <= value < vocab_size:
            raise InvalidArgumentError(
                f"{name}[{i}] is {token!r}: token ids are whole numbers from 0 to {vocab_size - 1}"
            )
        ids.append(value)
    return ids


def check_layers(name: str, layers: Iterable[object], n_layers: int) -> list[int]:
    """A list of layers, n_layers standing for what leaves the last; raises InvalidArgumentError."""
    if isinstance(layers, (str, bytes)) or not isinstance(layers, Iterable):
        raise InvalidArgumentError(
            f"{name} must be a sequence of layers, not {type(layers).__name__}"
        )
    return [check_whole(f"{name}[{i}]", layer, 0, n_layers) for i, layer in enumerate(layers)]


def inspect(path: StrPath, *, max_array: int = 1024) -> FileInfo:
    """Metadata and tensor list of a GGUF file. No weights are read.

    Args:
        path: a GGUF file, of any architecture.
        max_array: longer arrays are replaced by a description.

    Raises:
        ModelFormatError, ModelFileError, UnsupportedModelError: it cannot be read as GGUF.
    """
    max_array = check_whole("max_array", max_array, 0, 2**40)
    found = _core.inspect(path_bytes("path", path), max_array=max_array)
    metadata: dict[str, Any] = found["metadata"]
    return FileInfo(
        path=os.fspath(path),
        version=found["version"],
        size_bytes=found["size_bytes"],
        architecture=str(metadata.get("general.architecture", "")),
        metadata=metadata,
        tensors=tuple(TensorEntry(*entry) for entry in found["tensors"]),
        warnings=tuple(found["warnings"]),
        supported=not found["problem"],
        problem=found["problem"],
        n_parts=found["n_parts"],
    )


def check_pair(target: Model, draft: Model) -> PairReport:
    """Whether `draft` may draft for `target`, and whether that is likely to pay."""
    check_model("target", target)
    check_model("draft", draft)
    values = _core.check_pair(target._native, draft._native)
    if values["first_difference"] < 0:
        values["first_difference"] = None
    values["warnings"] = tuple(values["warnings"])
    return PairReport(**values)


def info() -> dict[str, Any]:
    """Version, compiler, CPU path, threads, what is supported: what a bug report needs."""
    return _core.build_info()
