"""Images on disk, class by class: what exists, whether it can be read, and its gray values."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from eventclip.errors import UserError
from eventclip.files import open_regular

SUFFIXES = (".jpg", ".jpeg", ".png")
SMALLEST_SIDE = 16  # less shows nothing that could be recognised [px]


def list_images(root: Path, *, leave_out: Collection[str] = ()) -> dict[str, list[Path]]:
    """List ``root/<class>/*.{jpg,jpeg,png}`` without opening a file.

    Args:
        root: folder of class folders.
        leave_out: class folders that are not wanted.

    Returns:
        Class folder name -> its images, both sorted by name. Hidden files and folders and files with other endings
        are ignored.

    Raises:
        UserError: no such folder, no class folder in it, a class without an image, two images of a class that
            differ in nothing but their ending, or ``leave_out`` names no class there.
    """
    layout = f"{root}/<class>/*.{{{','.join(suffix[1:] for suffix in SUFFIXES)}}}"
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: the images are expected as {layout}")
    if isinstance(leave_out, str):
        raise UserError(f"leave_out must be a list of class folders, got {leave_out!r}: write [{leave_out}]")
    folders = {entry.name: entry for entry in sorted(root.iterdir()) if entry.is_dir() and _seen(entry)}
    unknown = sorted(set(leave_out) - set(folders))
    if unknown:
        raise UserError(f"{root} has no class folder {unknown[0]!r} to leave out")
    images = {name: _images_of(folder) for name, folder in folders.items() if name not in leave_out}
    if not images:
        raise UserError(f"{root} has no class folder: the images are expected as {layout}")
    empty = [name for name, found in images.items() if not found]
    if empty:
        more = f" (and {len(empty) - 1} more classes)" if len(empty) > 1 else ""
        raise UserError(f"class {empty[0]!r}{more} of {root} has no image: the images are expected as {layout}")
    for name, found in images.items():
        stems = [path.stem for path in found]
        twice = next((stem for stem in stems if stems.count(stem) > 1), None)
        if twice is not None:
            raise UserError(f"class {name!r} of {root} has more than one image called {twice!r}: rename all but one")
    return images


def read_image(path: Path, mode: str = "L") -> Image.Image:
    """Read an image as the eye sees it: upright, transparent parts white.

    Args:
        path: an image of any kind that Pillow reads.
        mode: "L", gray, or "RGB".

    Returns:
        Image of that mode.

    Raises:
        UserError: the file cannot be read as an image, or a side is shorter than 16 px.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_regular(path) as file, Image.open(file) as opened:
                opened.load()
                ImageOps.exif_transpose(opened, in_place=True)
                image: Image.Image = opened
    except Exception as error:  # whatever Pillow's readers make of damaged bytes
        told = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as an image ({told}): repair it or take it out") from error
    if min(image.size) < SMALLEST_SIDE:
        width, height = image.size
        raise UserError(f"{path} is {width}x{height} px, expected at least {SMALLEST_SIDE} on either side: take it out")
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would cut them off at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _seen(entry: Path) -> bool:
    return not entry.name.startswith(".")


def _images_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and _seen(path))
