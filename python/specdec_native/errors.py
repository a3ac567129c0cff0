"""Every error the package raises. Each also derives from the builtin it resembles."""

from __future__ import annotations

import errno

from .results import GenerationResult


class SpecdecError(Exception):
    """Root of all errors of this package.

    Attributes:
        code: stable short name of the kind, such as ``"model_format"``.
        reason: stable short name of the cause, such as ``"count_exceeds_file"``; may be empty.
        path, key, tensor: the file, metadata key and tensor concerned; ``None`` when unknown.
        offset: byte offset in the file; ``None`` when unknown.
    """

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        path: str | None = None,
        key: str | None = None,
        tensor: str | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.path = path
        self.key = key
        self.tensor = tensor
        self.offset = offset

    def __str__(self) -> str:
        # OSError has its own rules for printing its arguments; all of ours print the message.
        return str(self.args[0]) if self.args else ""


class InvalidArgumentError(SpecdecError, ValueError):
    """An option or argument that the API forbids; names it and its range."""

    code = "invalid_argument"


class MissingExtraError(InvalidArgumentError, ImportError):
    """A part of this package was used whose packages are not installed; names the extra."""

    code = "missing_extra"


class ModelFormatError(SpecdecError, ValueError):
    """A model file contradicts its own format: damaged, cut off or hostile."""

    code = "model_format"


class UnsupportedModelError(SpecdecError, NotImplementedError):
    """A valid model, or pair of models, that this version does not run."""

    code = "unsupported"


class ResourceLimitError(SpecdecError, MemoryError):
    """Memory or another resource ran out."""

    code = "resource"


class ContextFullError(SpecdecError, ValueError):
    """The prompt and one more token do not fit into the context."""

    code = "context_full"


class ModelFileError(SpecdecError, OSError):
    """The operating system refused to open, read or write a file.

    Attributes:
        errno, filename: as of any OSError; ``None`` when unknown.
    """

    code = "io"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        path: str | None = None,
        key: str | None = None,
        tensor: str | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message, reason=reason, path=path, key=key, tensor=tensor, offset=offset)
        self.filename = path
        self.errno = _ERRNO.get(reason)
        if self.errno is None and isinstance(self, FileNotFoundError):
            self.errno = errno.ENOENT


_ERRNO = {
    "not_found": errno.ENOENT,
    "permission_denied": errno.EACCES,
    "is_directory": errno.EISDIR,
    "disk_full": errno.ENOSPC,
    "too_many_files": errno.EMFILE,
    "io": errno.EIO,
}


class ModelFileNotFoundError(ModelFileError, FileNotFoundError):
    """The model file does not exist."""


class SessionBusyError(SpecdecError, RuntimeError):
    """A decoder was used by two threads at once, or while it streams."""

    code = "busy"


class QueueFullError(SpecdecError, RuntimeError):
    """An engine has as many requests at work and waiting as it may; try again later."""

    code = "queue_full"


class ClosedError(SpecdecError, RuntimeError):
    """A model, decoder or engine was used after ``close()``."""

    code = "closed"


class ForkError(SpecdecError, RuntimeError):
    """A model was used in a forked child process; open it there, or use the "spawn" method."""

    code = "fork"


class NumericalError(SpecdecError, ArithmeticError):
    """The target model computed logits that are not finite."""

    code = "numerical"


class DeviceError(SpecdecError, RuntimeError):
    """A call to an accelerator failed."""

    code = "device"


class TemplateError(SpecdecError, ValueError):
    """A chat template is missing, too large, wrong, or exceeded its limits."""

    code = "template"


class DownloadError(SpecdecError, RuntimeError):
    """A model could not be fetched."""

    code = "download"


class InternalError(SpecdecError, RuntimeError):
    """A broken invariant of this package: a bug, please report it."""

    code = "internal"


class OutputMismatchError(SpecdecError, AssertionError):
    """`verify_output` found tokens that plain decoding does not give: a bug, please report it.

    Attributes:
        result: what was generated; `result.check` holds the comparison.
    """

    code = "output_mismatch"

    result: GenerationResult | None = None
