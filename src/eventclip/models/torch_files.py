"""Read what torch.save wrote without running code in it, and tell what else a file is."""

from __future__ import annotations

import errno
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from eventclip.errors import UserError
from eventclip.models.torchscript import ArchiveError


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


def load_tensors(path: Path, what: str, *, checked: bool = False) -> Any:
    """Read a file that torch.save wrote; its tensors lie on the CPU.

    Args:
        path: the file.
        what: it is expected to be, for the message.
        checked: compare every byte with the checksums in the file, which torch itself does not do.

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
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and zipfile raise many kinds, and a damaged pickle any
        raise unreadable(path, what, error) from error


def is_bad_tensor(value: Tensor) -> str | None:
    """What is wrong with a tensor of a file as a weight; None where it holds finite floating-point values of its own.

    Reads no more memory than the file had: a tensor may claim more elements than are stored.
    """
    if type(value) not in (Tensor, torch.nn.Parameter) or value.layout != torch.strided or value.device.type != "cpu":
        return "is no plain tensor"
    if not value.is_floating_point():
        return f"is of {value.dtype}, expected floating point"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"claims {tuple(value.shape)} values, more than are stored"
    return None if is_finite(value) else "holds values that are not finite (NaN or infinity)"


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
