"""A folder of images nobody has labelled: what is in it, which of it is held out, and which part of each is seen."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from eventclip.errors import UserError
from eventclip.parallel import map_ordered
from eventclip.progress import tqdm
from eventclip.rng import generator
from eventclip.simulation.images import SUFFIXES, read_image

Paths = NDArray[np.bytes_]


@dataclass(frozen=True)
class Images:
    """Images below one or several folders.

    Attributes:
        paths: (n,) absolute, as bytes.
        folders: (n,) the first folder below the root on the way to each; empty where it lies in the root itself.
    """

    paths: Paths
    folders: Paths

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, position: int) -> Path:
        """Where an image is."""
        return Path(os.fsdecode(bytes(self.paths[position])))

    def checksum(self, root: Path) -> str:
        """SHA-256 of their paths below a folder, in order."""
        top = os.fsencode(root.absolute()) + b"/"
        return hashlib.sha256(b"\n".join(path.removeprefix(top) for path in self.paths.tolist())).hexdigest()

    def subset(self, positions: NDArray[np.int64]) -> Images:
        """Some of them."""
        return Images(self.paths[positions], self.folders[positions])


def find_images(root: str | Path, *, leave_out: Collection[str] = ()) -> Images:
    """Find all images in a folder and in those below it, without opening a file.

    Hidden files and folders are ignored, and so are links to folders.

    Args:
        root: a folder, flat or nested.
        leave_out: names of folders directly in it that are not wanted.

    Returns:
        The images in the order of their paths.

    Raises:
        UserError: no such folder, no image in it, or ``leave_out`` names no folder there.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: images= is a folder with images, in folders of any depth")
    if isinstance(leave_out, str):
        raise UserError(f"leave_out must be a list of folders, got {leave_out!r}: write [{leave_out}]")
    top = os.fsencode(root.absolute())
    unknown = sorted(name for name in set(leave_out) if not (root / name).is_dir())
    if unknown:
        raise UserError(f"{root} has no folder {unknown[0]!r} to leave out")
    skipped = {os.fsencode(name) for name in leave_out}
    found = sorted(path for path in _walk(top) if path[len(top) + 1 :].partition(b"/")[0] not in skipped)
    if not found:
        endings = ", ".join(SUFFIXES)
        raise UserError(f"there is no image in {root}: expected files that end in {endings}, in folders of any depth")
    parts = [path[len(top) + 1 :].rpartition(b"/")[0].partition(b"/")[0] for path in found]
    return Images(np.array(found), np.array(parts))


def _walk(top: bytes) -> Iterator[bytes]:
    endings = tuple(os.fsencode(suffix) for suffix in SUFFIXES)
    for folder, below, files in os.walk(top):
        below[:] = [name for name in below if not name.startswith(b".")]
        yield from (folder + b"/" + name for name in files if name.lower().endswith(endings) and name[:1] != b".")


def readable(images: Images, *, workers: int, progress: bool) -> tuple[Images, list[str]]:
    """Read every image once and leave out those that cannot be used, see :func:`read_picture`.

    Args:
        images: to be read.
        workers: threads.
        progress: whether to show a progress bar.

    Returns:
        Those that can be read, and one sentence for each that cannot.

    Raises:
        UserError: none can be read.
    """

    def complaint(position: int) -> str | None:
        try:
            read_picture(images.path(position))
        except UserError as error:
            return str(error)
        return None

    told = map_ordered(complaint, range(len(images)), workers, threads=True)
    causes = list(tqdm(told, "checking images", len(images), unit="img", disable=not progress))
    good = np.flatnonzero([cause is None for cause in causes])
    bad = [cause for cause in causes if cause is not None]
    if not len(good):
        raise UserError(f"none of {len(images)} images can be used: {bad[0]}")
    return images.subset(good), bad


def read_picture(path: Path) -> Image.Image:
    """Read an image that an event camera can see something in, in RGB.

    Raises:
        UserError: it cannot be read, or is of one gray or colour, which gives no events.
    """
    picture = read_image(path, "RGB")
    # A few pixels that differ tell at once; all are looked at only where these do not.
    if _is_plain(picture.resize((8, 8), Image.Resampling.NEAREST)) and _is_plain(picture):
        raise UserError(f"{path} is of a single gray or colour, which gives no events: take it out")
    return picture


def _is_plain(picture: Image.Image) -> bool:
    return all(low == high for low, high in cast("tuple[tuple[int, int], ...]", picture.getextrema()))


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Which images are never learned from, to tell by them how far alignment has come.

    Attributes:
        share: of the images.
        most: of them at most so many.
        folders: whole folders in their place, such as classes that shall be new: names, or how many are drawn.

    Raises:
        UserError: a share outside its range.
    """

    share: float = 0.1
    most: int = 500
    folders: int | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.most < 2:
            raise UserError(
                f"heldout.share must lie between 0 and 1 and heldout.most be 2 or more, got {self.share} and "
                f"{self.most}"
            )

    def __call__(self, images: Images, seed: int) -> tuple[Images, Images]:
        """Part images.

        Args:
            images: all.
            seed: of the draw.

        Returns:
            Those to learn from and those held out, each in the order given.

        Raises:
            UserError: a folder that there is not, or nothing left on either side.
        """
        rng = generator(seed, "held-out images")
        if self.folders is None:
            count = min(max(round(self.share * len(images)), 2), self.most)
            out = np.zeros(len(images), np.bool_)
            out[rng.permutation(len(images))[:count]] = True
            learned = ~out
        else:
            out = np.isin(images.folders, self._folders(images, rng))
            places = np.flatnonzero(out)
            out[rng.permutation(places)[self.most :]] = False
            learned = ~np.isin(images.folders, np.unique(images.folders[places]))
        return self._checked(images.subset(np.flatnonzero(learned)), images.subset(np.flatnonzero(out)))

    def _folders(self, images: Images, rng: np.random.Generator) -> Paths:
        there = np.unique(images.folders[images.folders != b""])
        if len(there) < 2:
            raise UserError(
                f"heldout.folders={self.folders} needs images in two folders or more and there are {len(there)}: give "
                f"heldout.folders=null, which holds out single images"
            )
        if isinstance(self.folders, int):
            if not 0 < self.folders < len(there):
                raise UserError(f"heldout.folders={self.folders} must be 1 to {len(there) - 1} of {len(there)} folders")
            return there[np.sort(rng.permutation(len(there))[: self.folders])]
        names = np.array([os.fsencode(name) for name in self.folders or ()], np.bytes_)
        unknown = sorted(set(names.tolist()) - set(there.tolist()))
        if unknown:
            raise UserError(f"heldout.folders names {os.fsdecode(unknown[0])!r}, and the images have no such folder")
        return names

    def _checked(self, learned: Images, out: Images) -> tuple[Images, Images]:
        if len(learned) < 2 or len(out) < 2:
            option = "heldout.share" if self.folders is None else "heldout.folders"
            raise UserError(
                f"{len(learned)} images are left to learn from and {len(out)} are held out: expected 2 or more of "
                f"either, so give more images or another {option}"
            )
        return learned, out


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Parts of an image, so that few images show many things.

    Attributes:
        area: smallest share of the image's area; 1 takes all of it always.
        whole: probability that all of it is taken.
        beside: probability that part of another image covers some third to two thirds of it from one side, see
            :func:`put_beside`: a scene that no image shows, for which the tower that teaches has a feature too.

    Raises:
        UserError: a value outside its range.
    """

    area: float = 0.25
    whole: float = 0.3
    beside: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.area <= 1 or not 0 <= self.whole <= 1 or not 0 <= self.beside <= 1:
            raise UserError(
                f"crops.area must lie above 0 and up to 1, crops.whole and crops.beside from 0 to 1, got {self.area}, "
                f"{self.whole} and {self.beside}"
            )

    def __call__(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Cut a part out, its sides at most 4 to 3 or 3 to 4 from square; all of it where none was found that fits."""
        width, height = picture.size
        if self.area == 1 or rng.random() < self.whole:
            return picture
        for _ in range(10):
            area = width * height * rng.uniform(self.area, 1)
            ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 16 <= across <= width and 16 <= down <= height:
                x, y = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
                return picture.crop((x, y, x + across, y + down))
        return picture


def put_beside(picture: Image.Image, other: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cover 35 to 65 % of a picture, from the left, right, top or bottom, with the middle of another one."""
    share, upright = rng.uniform(0.35, 0.65), rng.random() < 0.5
    width, height = picture.size
    size = (max(int(width * share), 8), height) if upright else (width, max(int(height * share), 8))
    at_end = rng.random() < 0.5
    together = picture.copy()
    together.paste(ImageOps.fit(other, size), (width - size[0], height - size[1]) if at_end else (0, 0))
    return together
