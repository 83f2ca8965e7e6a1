"""Find which image each recording shows: by their names, or by an original that has the recording's events."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eventclip.datasets.pairs import write_pairs
from eventclip.errors import RecordingError, UserError, printable
from eventclip.files import ODD_NAME, held, plain_path
from eventclip.io.formats import read_events, readable_suffixes
from eventclip.parallel import cores, map_ordered
from eventclip.progress import tqdm
from eventclip.simulation.images import SUFFIXES

FEWEST_EVENTS = 100
"""With fewer, recordings of different images may be alike."""

_ADVICE = re.compile(r"(?::|,? so|,? or) (?:give|put) ")
_NAMED = 3
"""Files named for each kind of what could not be paired."""

_ALIKE = "expected names such as ant/image_0001.npy and ant/image_0001.jpg below both folders"
_COPIES = "expected recordings that were made from the originals, event by event"


def make_pairs(
    recordings: str | Path,
    out: str | Path,
    *,
    images: str | Path | None = None,
    originals: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> str:
    """Find which image each recording shows and write a map file; what ``eventclip pairs`` does.

    By name, a recording shows the image of the same path, or else of the same class folder and name, endings aside.
    By its events, it is a copy of one of ``originals``, whatever its own name, and shows the image of the original's
    name; without ``images`` that is taken to be a .jpg. The file depends on nothing but what lies in the folders.

    Args:
        recordings: folder of recordings, at any depth.
        out: the map file, a .csv; replaced once the new one is whole.
        images: folder of images.
        originals: folder of recordings with the same events, named as the images.
        workers: threads that read; None takes one per core.
        progress: show a progress bar.

    Returns:
        Lines for people: how many were paired, and what was not and why.

    Raises:
        UserError: a folder without what is looked for, nothing to pair, or ``out`` cannot be written.
    """
    target = Path(str(out)).expanduser()
    if target.suffix.lower() != ".csv" or target.is_dir():
        raise UserError(f"out={out} must be a file that ends in .csv")
    if images is None and originals is None:
        raise UserError("images= is missing, the folder of images: eventclip pairs recordings=DIR images=DIR out=FILE")
    try:
        with held(target):
            own = Files.below(recordings, readable_suffixes(), "recordings")
            shown = None if images is None else Files.below(images, SUFFIXES, "images")
            if originals is not None:
                theirs = Files.below(originals, readable_suffixes(), "originals")
                pairs, notes = _by_original(own, theirs, shown, workers or cores(), progress)
            elif shown is not None:
                pairs, notes = _settled(by_name(own.names, shown.names), own, shown, by="name", hint=_ALIKE)
            write_pairs(target, pairs)
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error.strerror or error}): give another out=") from error
    count = len(set(pairs.values()))
    told = f"{out}: {len(pairs):,} of {len(own.names):,} recordings, {count:,} images"
    return printable("\n".join([told, *notes]), lines=True)


@dataclass(frozen=True)
class Files:
    """What lies below a folder.

    Attributes:
        root: the folder.
        names: paths below it, sorted.
        what: "recordings", "images" or "originals".
    """

    root: Path
    names: list[str]
    what: str

    @classmethod
    def below(cls, folder: str | Path, suffixes: Sequence[str], what: str) -> Files:
        """List files with such endings, at any depth; hidden ones are left out.

        Raises:
            UserError: no such folder, none in it, one that no map file can name, or a link that leads out of it.
        """
        root = Path(str(folder)).expanduser()
        if not root.is_dir():
            raise UserError(f"there is no folder {root}: give {what}=, the folder of the {what}")
        found, folders, top, endings = [], [""], os.path.realpath(root), tuple(suffixes)
        while folders:
            prefix = folders.pop()
            for entry in _entries(root / prefix, what):
                name = f"{prefix}{entry.name}"
                if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(top):
                    told = f"{entry.path} leads out of {what}={folder}: remove the link, or give the folder it leads to"
                    raise UserError(printable(told))
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{name}/")
                elif entry.name.lower().endswith(endings) and entry.is_file():
                    found.append(name)
        if not found:
            raise UserError(f"{what}={folder} holds no file that ends in {', '.join(suffixes)}: give another folder")
        odd = next((name for name in found if not plain_path(name)), None)
        if odd is not None:
            raise UserError(f"{odd!a:.200} of {what}={folder} cannot be in a map file ({ODD_NAME}): rename it")
        return cls(root, sorted(found), what)


def by_name(recordings: Sequence[str], images: Sequence[str]) -> dict[str, list[str]]:
    """Find for each recording the images of its path, or else of its class folder and name, endings aside.

    Args:
        recordings: relative paths, such as "training/ant/image_0001.npy".
        images: relative paths, such as "ant/image_0001.jpg".
    """
    by_path, by_class, endings = defaultdict(list), defaultdict(list), readable_suffixes()
    for image in images:
        bare = _bare(image, SUFFIXES)
        by_path[bare].append(image)
        by_class[_in_class(bare)].append(image)
    bares = {recording: _bare(recording, endings) for recording in recordings}
    return {one: by_path.get(bare) or by_class.get(_in_class(bare), []) for one, bare in bares.items()}


class EventKey(NamedTuple):
    """What recordings of the same events have in common, whatever their format.

    Attributes:
        places: of pixels and polarities in order, whichever column and row are counted from.
        times: of the times since the first event [µs].
    """

    places: bytes
    times: bytes


def event_key(path: Path) -> EventKey | str:
    """Read a recording's key, or why it has none: it cannot be read, or has too few events."""
    try:
        try:
            events, _ = read_events(path)
        except RecordingError:  # a clock that runs backwards: sorting, which is stable, gives copies the same order
            events, _ = read_events(path, sort=True)
    except RecordingError as error:
        return _without_options(str(error))
    if len(events) < FEWEST_EVENTS:
        return f"{path} has {len(events)} events, too few to tell recordings apart"
    x, y = (events[name].astype(np.uint32) - np.uint32(events[name].min()) for name in "xy")
    places = hashlib.sha256(x << 16 | y << 1 | events["p"])
    return EventKey(places.digest(), hashlib.sha256(events["t"] - events["t"][0]).digest())


def _without_options(sentence: str) -> str:
    """A reader's sentence up to its advice where that names options, of which this command has none."""
    told, *advice = _ADVICE.split(sentence, maxsplit=1)
    return f"{told}{')' * (told.count('(') - told.count(')'))}" if "=" in "".join(advice) else sentence


def by_events(recordings: Sequence[EventKey | str], originals: Sequence[EventKey | str]) -> list[list[int]]:
    """Find for each recording the originals with its events, as places in ``originals``.

    Times decide only among several: a release may have rounded them.
    """
    same = defaultdict(list)
    for place, key in enumerate(originals):
        if not isinstance(key, str):
            same[key.places].append(place)
    found = []
    for key in recordings:
        fits = [] if isinstance(key, str) else same.get(key.places, [])
        found.append([place for place in fits if originals[place] == key] or fits)
    return found


def _by_original(
    own: Files, theirs: Files, images: Files | None, workers: int, progress: bool
) -> tuple[dict[str, str], list[str]]:
    """Recording -> the image of the original with its events, and notes."""
    paths = [files.root / name for files in (own, theirs) for name in files.names]
    read = map_ordered(event_key, paths, workers, threads=True)
    keys = list(tqdm(read, "reading events", len(paths), unit="rec", disable=not progress))
    own_keys, their_keys = keys[: len(own.names)], keys[len(own.names) :]
    notes = _note([key for key in keys if isinstance(key, str)], "files that cannot be compared")
    fits = zip(own.names, by_events(own_keys, their_keys), strict=True)
    candidates = {name: [theirs.names[place] for place in places] for name, places in fits}
    hint = f"{_COPIES} ({notes[0]})" if notes else _COPIES
    originals, further = _settled(candidates, own, theirs, by="events", hint=hint)
    key_of, own_key = dict(zip(theirs.names, their_keys, strict=True)), dict(zip(own.names, own_keys, strict=True))
    later = [one for one, original in originals.items() if own_key[one] != key_of[original]]
    notes += [*further, *_note(later, "recordings with their original's events at other times")]
    if images is None:
        endings = readable_suffixes()
        image_of = {name: f"{_bare(name, endings)}.jpg" for name in theirs.names}
    else:
        image_of, further = _settled(by_name(theirs.names, images.names), theirs, images, by="name", hint=_ALIKE)
        notes += further
    pairs = {one: image_of[original] for one, original in originals.items() if original in image_of}
    if not pairs:
        raise UserError(
            f"none of the {len(originals):,} originals of the recordings has an image with its name: {_ALIKE}"
        )
    return pairs, notes


def _settled(
    candidates: Mapping[str, Sequence[str]], own: Files, offered: Files, *, by: str, hint: str
) -> tuple[dict[str, str], list[str]]:
    """Those with one candidate, with it; and a note on each kind of those left over, on either side.

    Raises:
        UserError: none has one.
    """
    single = {one: fits[0] for one, fits in candidates.items() if len(fits) == 1}
    several = [one for one, fits in candidates.items() if len(fits) > 1]
    alike = f" ({' and '.join(candidates[several[0]][:2])} for the first)" if several else ""
    if not single:
        firsts = alike or f" (the first are {own.names[0]} and {offered.names[0]})"
        told = f"none of the {len(own.names):,} {own.what} has one of the {len(offered.names):,} {offered.what}"
        raise UserError(printable(f"{told} with its {by}{firsts}: {hint}"))
    taken = {one for fits in candidates.values() for one in fits}
    lone = [one for one, fits in candidates.items() if not fits]
    notes = [
        *_note(lone, f"{own.what} that have none of the {offered.what}"),
        *_note(several, f"{own.what} left out as they have several of the {offered.what}{alike}"),
        *_note([one for one in offered.names if one not in taken], f"{offered.what} that have none of the {own.what}"),
    ]
    return single, notes


def _note(names: Sequence[str], what: str) -> list[str]:
    """A line on some of a kind, with the first of them; nothing where there is none."""
    more = ", ..." if len(names) > _NAMED else ""
    return [f"{what}, {len(names):,}: {', '.join(names[:_NAMED])}{more}"] if names else []


def _entries(folder: Path, what: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        told = f"{folder} cannot be read ({error.strerror}): see that you may read it, or give another {what}="
        raise UserError(printable(told)) from None


def _bare(path: str, suffixes: Sequence[str]) -> str:
    """A path without the ending that tells its format."""
    lower = path.lower()
    return path[: len(path) - max((len(one) for one in suffixes if lower.endswith(one)), default=0)]


def _in_class(bare: str) -> str:
    """Class folder and name of a path without ending."""
    return "/".join(bare.split("/")[-2:])
