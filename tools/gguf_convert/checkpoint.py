"""A checkpoint folder: which files hold its tensors, and all tensors by name."""

from __future__ import annotations

import pathlib

from .errors import ConvertError, short
from .safe_json import read_object
from .safetensors_file import SafetensorsFile
from .tensors import Source
from .torch_file import TorchFile

# In the order in which transformers looks for them.
LAYOUTS = (
    ("model.safetensors", SafetensorsFile),
    ("model.safetensors.index.json", SafetensorsFile),
    ("pytorch_model.bin", TorchFile),
    ("pytorch_model.bin.index.json", TorchFile),
)


class Checkpoint:
    """Opens every shard and checks the index against them; close() when done."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.files: list[SafetensorsFile | TorchFile] = []
        self.tensors: dict[str, Source] = {}
        if not folder.is_dir():
            raise ConvertError(f"{folder}: no such folder")
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for file in self.files:
            file.close()

    def _open(self) -> None:
        for name, kind in LAYOUTS:
            path = self.folder / name
            if not path.is_file():
                continue
            if name.endswith(".index.json"):
                self._open_shards(path, kind)
            else:
                self._add(kind(path))
            return
        if (self.folder / "adapter_config.json").is_file():
            raise ConvertError(
                f"{self.folder}: an adapter (peft), not a checkpoint: merge it into its base model "
                "and save that, with merge_and_unload() and save_pretrained()"
            )
        there = sorted(p.name for p in self.folder.iterdir())[:12]
        raise ConvertError(
            f"{self.folder}: no weights: expected one of {', '.join(n for n, _ in LAYOUTS)}; "
            f"found {short(', '.join(there) or 'an empty folder', 300)}"
        )

    def _add(self, file: SafetensorsFile | TorchFile) -> None:
        self.files.append(file)
        for name, tensor in file.tensors.items():
            if name in self.tensors:
                raise ConvertError(f"{file.path}: tensor '{short(name)}' is in two files")
            self.tensors[name] = tensor

    def _open_shards(self, index: pathlib.Path, kind: type[SafetensorsFile | TorchFile]) -> None:
        weight_map = read_object(index, 64 << 20).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ConvertError(f"{index}: 'weight_map' should map tensor names to files")
        shards: dict[str, list[str]] = {}
        for tensor, file_name in weight_map.items():
            if not isinstance(file_name, str) or pathlib.PurePath(file_name).name != file_name:
                raise ConvertError(
                    f"{index}: tensor '{short(tensor)}' should name a file of the same folder, "
                    f"found '{short(file_name)}'"
                )
            shards.setdefault(file_name, []).append(tensor)
        missing = [name for name in sorted(shards) if not (self.folder / name).is_file()]
        if missing:
            raise ConvertError(
                f"{self.folder}: {len(missing)} of {len(shards)} shards that {index.name} names "
                f"are missing: {short(', '.join(missing), 300)}; download them again"
            )
        for file_name in sorted(shards):
            file = kind(self.folder / file_name)
            self._add(file)
            for tensor in shards[file_name]:
                if tensor not in file.tensors:
                    raise ConvertError(
                        f"{file.path}: tensor '{short(tensor)}' is missing, {index.name} "
                        "says it is here"
                    )
            if isinstance(file, TorchFile):
                file.close()  # only one shard is mapped at a time
