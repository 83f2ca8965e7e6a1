"""Read what torch.save wrote, or TorchScript, without running code in it; and tell what else a file is.

OpenAI publishes its CLIP weights as TorchScript: a zip with the program (`code/`), the raw tensors (`data/`) and
`data.pkl`, the tree of modules that holds them. `torch.jit.load` compiles the program and is deprecated;
`torch.load(weights_only=True)` refuses such archives. Format: torch/csrc/jit/docs/serialization.md in PyTorch.
"""

from __future__ import annotations

import errno
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from eventclip.errors import UserError


def other_kind(path: Path) -> str | None:
    """What a path is that was taken for a file of tensors: a folder, a web page … None where it may be one."""
    if not path.is_file():
        folder = "is a folder: give the file in it"
        return folder if path.is_dir() else "is no regular file: give a file" if path.exists() else None
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        return f"cannot be read ({error.strerror}): check its permissions"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = None
    if not start:
        found = "is empty: copy or download it again"
    elif start.startswith(b"version https://git-lfs"):
        found = "is a git-lfs pointer, which stands for the file: fetch the file itself with git lfs pull"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        found = "is a web page, saved in place of the file: download it again by the link of the file itself"
    return found


def refuse_other_kinds(path: Path) -> None:
    """Refuse a path that leads to no file of tensors.

    Raises:
        UserError: what it is in place of one, and what to do.
    """
    other = other_kind(path)
    if other is not None:
        raise UserError(f"{path} {other}")


def load_tensors(path: Path, what: str, *, checked: bool = False, mapped: bool = False) -> Any:
    """Read a file that torch.save wrote; its tensors lie on the CPU.

    Args:
        path: the file.
        what: it is expected to be, for the message.
        checked: compare every byte with the checksums in the file, which torch itself does not do.
        mapped: leave the tensors in the file until they are used.

    Raises:
        UserError: it is missing, damaged, holds more than tensors and plain values, or is another kind of file.
    """
    refuse_other_kinds(path)
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        if zipped or checked:
            _check_entries(path, checked=checked)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on kinds of files that are refused here anyway
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch and zipfile raise many kinds, and a damaged pickle any
        raise unreadable(path, what, error) from error


def is_bad_tensor(value: Tensor, *, whole: bool = False) -> str | None:
    """What is wrong with a tensor of a file as a weight; None where it holds finite floating-point values of its own.

    Reads no more memory than the file had: a tensor may claim more elements than are stored.

    Args:
        value: the tensor.
        whole: take int64 and bool as well, which a fitted adapter keeps labels and switches in.
    """
    if type(value) not in (Tensor, torch.nn.Parameter) or value.layout != torch.strided or value.device.type != "cpu":
        return "is no plain tensor"
    counts = whole and value.dtype in (torch.int64, torch.bool)
    if not value.is_floating_point() and not counts:
        return f"is of {value.dtype}, expected floating point"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"claims {tuple(value.shape)} values, more than are stored"
    return None if counts or is_finite(value) else "holds values that are not finite (NaN or infinity)"


def is_finite(value: Tensor) -> bool:
    """Whether a floating-point tensor holds neither NaN nor infinity; one pass, no copy."""
    if not value.numel():
        return True
    low, high = value.detach().aminmax()  # NaN is passed on
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _check_entries(path: Path, *, checked: bool) -> None:
    """Refuse an archive whose entries would unfold to more than the file holds: torch stores them as they are."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("its entries claim more bytes than it has")
        bad = archive.testzip() if checked else None
    if bad is not None:
        raise zipfile.BadZipFile(f"the bytes of {bad.rpartition('/')[2]!r:.80} do not match their checksum")


def unreadable(path: Path, what: str, error: Exception) -> UserError:
    """Why a file cannot be read, in a sentence without torch's advice to run what is in it."""
    said = " ".join(str(error).split())
    asked = re.search(r"GLOBAL ([\w.]+)", said)
    if isinstance(error, OSError) and error.strerror and error.errno != errno.EINVAL:  # a place that is not in the file
        reason = error.strerror
    elif asked:
        reason = f"it asks for {asked[1]}, which is neither a tensor nor a plain value and is not run"
    elif isinstance(error, zipfile.BadZipFile | SafetensorError | ArchiveError):
        reason = f"it is damaged ({said[:200] or 'no whole archive'})"
    else:
        reason = f"it is damaged or of another kind ({type(error).__name__})"
    return UserError(f"{path} cannot be read as {what}: {reason}")


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
