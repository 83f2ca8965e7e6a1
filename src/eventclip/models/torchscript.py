"""Read the tensors of a TorchScript archive without running it.

OpenAI publishes its CLIP weights as TorchScript: a zip with the program (`code/`), the raw tensors (`data/`) and
`data.pkl`, the tree of modules that holds them. `torch.jit.load` compiles the program and is deprecated;
`torch.load(weights_only=True)` refuses such archives. Format: torch/csrc/jit/docs/serialization.md in PyTorch.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


class ArchiveError(pickle.UnpicklingError):
    """An archive that holds something else than modules and tensors."""


class _Module:
    """Stands for any module of the archive; unpickling fills its attributes in."""


class _ArchiveUnpickler(pickle.Unpickler):
    """Knows modules, tensors and their storages, and nothing that could do harm."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}data.pkl"))
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name.split(".", maxsplit=1)[0] == "__torch__":
            return _Module
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module_name == "torch" and global_name in _DTYPES:
            return _DTYPES[global_name]
        raise ArchiveError(f"the archive asks for {module_name}.{global_name}, which is no tensor")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _device, _count = pid
        if kind != "storage":
            raise ArchiveError(f"the archive refers to a {kind}, expected a storage")
        if key not in self._storages:
            raw = bytearray(self._archive.read(f"{self._root}data/{key}"))
            self._storages[key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        return self._storages[key]


def is_torchscript(path: Path) -> bool:
    """Whether the file is a zip archive with TorchScript's own entries."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def activation(path: Path) -> bool | None:
    """Whether the archive's program, read as text, uses QuickGELU (x·sigmoid(1.702·x)); None where it has neither."""
    with zipfile.ZipFile(path) as archive:
        programs = [entry for entry in archive.infolist() if "/code/" in entry.filename and entry.file_size < 2**24]
        texts = [archive.read(entry) for entry in programs if entry.filename.endswith(".py")][:1000]
    if any(b"torch.gelu(" in text for text in texts):
        return False
    return True if any(b"torch.sigmoid(" in text for text in texts) else None


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Collect all tensors of the archive's module tree under their dotted names.

    Raises:
        ArchiveError: the archive holds something else than modules, tensors and plain values.
        KeyError, zipfile.BadZipFile: an entry is missing or damaged, or unfolds to more than the file holds.
    """
    with zipfile.ZipFile(path) as archive:
        data = [entry for entry in archive.infolist() if "/code/" not in entry.filename]
        if sum(entry.file_size for entry in data) > path.stat().st_size:
            raise zipfile.BadZipFile("its entries claim more bytes than it has")
        root = min(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        module = _ArchiveUnpickler(archive, root).load()
    return dict(_tensors(module, ""))


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")


def _rebuild_tensor(
    storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_autograd: object
) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)
