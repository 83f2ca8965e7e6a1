"""Make packs: killable at any moment, resumed by the recordings that are there, never half a pack under its name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

import eventclip
from eventclip.blocks import KEY, SUFFIX, Blocks, Keys, row_key, written
from eventclip.datasets.packs import (
    CHUNK,
    HEADER,
    INDEX,
    ROW,
    Listed,
    Pack,
    PackBlock,
    PackedFolder,
    PackHeader,
    create_columns,
    encode,
    read_block,
)
from eventclip.datasets.recordings import SPLITS
from eventclip.errors import RecordingError, UserError, printable
from eventclip.events.array import Events
from eventclip.files import fingerprint, held, write_json
from eventclip.parallel import cores, map_ordered
from eventclip.progress import tqdm

if TYPE_CHECKING:  # worker processes import this module and shall not wait for torch
    from eventclip.datasets.splits import RecordingSplits

log = logging.getLogger(__name__)

Read = Callable[[Path], tuple[Events, tuple[int, int] | None]]
"""Path -> events, and the sensor's (height, width) where the file knows it."""

BLOCK_RECORDINGS, BLOCK_BYTES = 512, 128 << 20
"""A block ends after so many recordings, or bytes of their files: what a kill may cost each worker, some seconds."""

_NAMED = 3  # damaged recordings told in a sentence; a file lists all


@dataclass(frozen=True)
class Packed:
    """What lies in a pack now: its folders, how much, how many recordings this call packed, and bytes of all files."""

    folders: tuple[str, ...]
    recordings: int
    new: int
    damaged: int
    """Recordings that give an error in place of events."""
    events: int
    size: int

    def summary(self) -> str:
        """One line for people."""
        damaged = f", {self.damaged} damaged" if self.damaged else ""
        per_event = f", {self.size / self.events:.2f} bytes an event" if self.events else ""
        return (
            f"{', '.join(self.folders)}: {self.recordings:,} recordings, {self.new:,} of them new{damaged}; "
            f"{self.events:,} events in {self.size / 1e6:,.1f} MB{per_event}"
        )


def pack_split(
    data: RecordingSplits,
    split: str,
    out: str | Path,
    *,
    damaged: str = "error",
    verify: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[str]:
    """Pack the folders of a data module's splits; what ``eventclip pack`` does.

    Args:
        data: lists the folders and knows how to read the files.
        split: "training", "validation", "test", or "all" of them; a data set without validation is packed without.
        out: the folder.
        damaged: "error" or "keep", see ``keep_damaged`` of :func:`pack_folders`.
        verify: read everything once more and compare.
        workers: processes that read and compress; None takes one per core.
        progress: show a progress bar.

    Yields:
        Lines for people.

    Raises:
        UserError: as :func:`pack_folders` and :func:`verify_pack`, a data set that is packed, or a wrong option.
    """
    if damaged not in ("error", "keep") or split not in (*SPLITS, "all"):
        raise UserError(
            f"damaged must be error or keep and split one of {', '.join(SPLITS)} or all, got damaged={damaged!r} and "
            f"split={split!r}"
        )
    if data.packed is not None:
        raise UserError("data.packed names a pack already: leave it out, and give the folder to pack by data.root")
    for name in ("training", "test") if split == "all" else (split,):
        data.split(name)
    if split == "all" and "validation" in data.own_splits:
        try:
            data.split("validation")
        except UserError as error:
            yield printable(f"packed without a validation split, as {error}")
    listed, read = list(data.listed_folders.values()), data.files.read
    workers = cores() if workers is None else workers
    keep, read_as = damaged == "keep", data.files.describe()
    packed = pack_folders(listed, out, read, read_as=read_as, keep_damaged=keep, workers=workers, progress=progress)
    yield printable(f"{out}: {packed.summary()}")
    if data.files.reading.sort or data.files.reading.drop_outside:
        yield "events were sorted or left out as asked: python -m eventclip.data_check with the same data= counts them"
    if verify:
        count = verify_pack(listed, out, read, workers=workers, progress=progress)
        yield f"verified: {count:,} recordings are the same in both"
    yield from data.first_notes(listed[0].recordings)


def pack_folders(
    listed: Sequence[Listed],
    out: str | Path,
    read: Read,
    *,
    read_as: dict[str, Any],
    keep_damaged: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> Packed:
    """Pack folders of recordings.

    Args:
        listed: the folders.
        out: the folder of the pack, which is none before its header is written, last of all.
        read: path -> events and sensor; sent to the worker processes.
        read_as: options that ``read`` stands for, for the header.
        keep_damaged: keep the error of a recording that cannot be read in its place, to be raised when it is read
            from the pack; otherwise the pack is not finished before all can be read.
        workers: processes that read and compress; they decide nothing of what is written.
        progress: show a progress bar.

    Raises:
        UserError: something else under that name, other recordings than it was begun with, a folder that cannot be
            written to, a disk that is full, another process at the same work, recordings that cannot be read, or a
            name that no pack takes.
    """
    out = Path(str(out)).expanduser().absolute()
    folders = tuple(one.packed() for one in listed)
    try:  # what no reader of packs would take
        for one, folder in zip(listed, folders, strict=True):
            folder.check()
            folder.check_paths(one.recordings.paths, one.recordings.labels)
    except ValueError as error:
        raise UserError(f"what is to be packed would be {error}: rename it, and pack then") from None
    for one in listed:
        if out.resolve().is_relative_to((one.recordings.root / one.folder).resolve()):
            raise UserError(f"the pack cannot lie within the recordings, got out={out}: give another out=")
    _check_own(out)
    try:
        with held(out / HEADER):
            new = 0
            if (out / HEADER).exists():
                _check_same(out, folders, read_as)
            else:
                new = _fill(listed, out, read, read_as, keep_damaged=keep_damaged, workers=workers, progress=progress)
            damage_list(out).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror or error}): make room or give another out=; the work done so "
            f"far is kept in it"
        ) from error
    rows = Pack(out).rows
    sound = rows["block"] >= 0
    size = sum(path.stat().st_size for path in out.iterdir())
    names = tuple(one.folder for one in listed)
    return Packed(names, len(rows), new, int((~sound).sum()), int(rows["count"][sound].sum()), size)


def damage_list(out: Path) -> Path:
    """Where a pack that could not be finished lists the recordings that cannot be read."""
    return out.with_name(f"{out.name}.damaged.txt")


def _check_own(out: Path) -> None:
    """Refuse to write among other things."""
    try:
        other = [path.name for path in out.iterdir() if not path.name.startswith(".")] if out.exists() else []
    except OSError as error:
        raise UserError(f"out={out} is no folder ({error.strerror}): a pack is one, give another out=") from None
    other = [name for name in sorted(other) if name != HEADER and not name.endswith(SUFFIX)]
    if other:
        raise UserError(f"out={out} is there already with {other[0]} in it: give a folder of its own to the pack")


def _check_same(out: Path, folders: tuple[PackedFolder, ...], read_as: dict[str, Any]) -> None:
    """Refuse a finished pack that is not this very one."""
    try:
        other = Pack(out).header
    except UserError as error:
        raise UserError(f"out={out} is there already, and {error}") from None
    if (other.folders, other.read_as) != (folders, read_as):
        raise UserError(f"out={out} is there already with other recordings in it: remove it or give another out=")


def _paths_of(listed: Sequence[Listed]) -> Iterator[Path]:
    """All recordings, folder after folder."""
    return (one.recordings.path(position) for one in listed for position in range(len(one.recordings)))


def _fill(
    listed: Sequence[Listed],
    out: Path,
    read: Read,
    read_as: dict[str, Any],
    *,
    keep_damaged: bool,
    workers: int,
    progress: bool,
) -> int:
    """Pack what is missing, then index and header; gives the number of recordings looked at."""
    blocks = Blocks(out, read_block, name="the pack", remedy="let this user read it, or give another out=")
    blocks.tidy()
    if blocks.damaged:
        log.warning("%d damaged blocks of %s are packed again", len(blocks.damaged), printable(str(out)))
        blocks.remove(damaged_only=True)
    keys, parts = _parts_of(listed, read_as)
    wanted = np.zeros(len(keys), np.bool_)
    wanted[blocks.missing(keys)] = True
    if len(blocks) and wanted.all():
        raise UserError(
            f"{out} was begun with other recordings or options: remove it to begin anew, or give another out="
        )
    new, told = int(wanted.sum()), dict[int, str]()
    paths = _paths_of(listed)
    each = ((n, [(i, keys[i], next(paths)) for i in part]) for n, part in enumerate(parts))
    tasks = ((n, [one for one in part if wanted[one[0]]]) for n, part in each)
    made = map_ordered(partial(_pack_part, read, out), (task for task in tasks if task[1]), workers)
    with tqdm(total=len(keys), desc="packing", initial=len(keys) - new, unit="rec", disable=not progress) as bar:
        for count, block, sentences in made:
            blocks.add(block)
            told.update(sentences)
            bar.update(count)
    if told and not keep_damaged:
        raise UserError(_told(list(told.values()), out))
    for old in out.glob(f"index-*{SUFFIX}"):
        old.unlink()
    index = written(out, "index", partial(_write_index, listed, blocks, keys, told))
    sizes = tuple((block.path.name, block.path.stat().st_size) for block in blocks.blocks)
    folders = tuple(one.packed() for one in listed)
    write_json(out / HEADER, PackHeader(folders, read_as, eventclip.__version__, index.name, sizes).as_json())
    return new


def _parts_of(listed: Sequence[Listed], read_as: dict[str, Any]) -> tuple[Keys, list[range]]:
    """(n,) keys of all recordings, which change with the file and how it is read, and the places that share a block."""
    paths, stamp = [path for one in listed for path in one.recordings.paths.tolist()], fingerprint(read_as).encode()
    keys, parts, start, total = np.zeros(len(paths), KEY), [], 0, 0
    for place, (path, file) in enumerate(zip(paths, _paths_of(listed), strict=True)):
        try:
            size, changed = (status := file.stat()).st_size, status.st_mtime_ns
        except OSError:  # which is told where it is read
            size = changed = 0
        keys[place] = row_key(b"%b/%d-%d/%b" % (stamp, size, changed, path))
        total += size
        if total >= BLOCK_BYTES or place + 1 - start == BLOCK_RECORDINGS or place + 1 == len(paths):
            parts.append(range(start, place + 1))
            start, total = place + 1, 0
    return keys, parts


def _pack_part(
    read: Read, out: Path, task: tuple[int, list[tuple[int, bytes, Path]]]
) -> tuple[int, PackBlock | None, dict[int, str]]:
    """What a worker does: read some recordings and write their block; gives how many, and why some cannot be read."""
    number, wanted = task
    told: dict[int, str] = {}
    keys, rows, columns, gaps = [], [], [], [np.zeros((0, 2), np.int64)]
    start = gap = 0
    for place, key, path in wanted:
        try:
            events, sensor_hw = read(path)
        except RecordingError as error:
            told[place] = str(error)
            continue
        except MemoryError:
            told[place] = f"{path} does not fit into memory: split it, or pack it where there is more"
            continue
        own, its_gaps, checksum = encode(events)
        began = int(events["t"][0]) if len(events) else 0
        rows.append((start, len(events), began, gap, len(its_gaps), checksum, *(sensor_hw or (0, 0))))
        keys.append(key)
        columns.append(own)
        gaps.append(its_gaps)
        start, gap = start + -(-len(events) // CHUNK) * CHUNK, gap + len(its_gaps)

    if not rows:
        return len(wanted), None, told
    block = PackBlock(out, np.array(keys, KEY), np.array(rows, ROW))

    def fill(file: h5py.File) -> None:
        file["keys"], file["rows"], file["gaps"] = block.keys, block.rows, np.concatenate(gaps)
        create_columns(file, start)
        for row, own in zip(rows, columns, strict=True):
            for name, column in own.items():
                file[name][row[0] : row[0] + len(column)] = column

    return len(wanted), block._replace(path=written(out, f"{number:06d}", fill)), told


def _write_index(
    listed: Sequence[Listed], blocks: Blocks[PackBlock], keys: Keys, told: dict[int, str], file: h5py.File
) -> None:
    """Put all that is known of all recordings into the index."""
    rows = np.zeros(len(keys), INDEX)
    rows["block"], place = blocks.find(keys)
    sound = rows["block"] >= 0
    if sound.any():
        before = np.cumsum([0, *(len(block.keys) for block in blocks.blocks)])
        every = np.concatenate([block.rows for block in blocks.blocks])
        for name in ROW.names or ():
            rows[name][sound] = every[name][before[rows["block"][sound]] + place[sound]]
    text = b""
    for number, sentence in told.items():
        own = sentence.encode("utf-8", "surrogateescape")
        rows["start"][number], rows["count"][number] = len(text), len(own)
        text += own
    paths = np.concatenate([one.recordings.paths for one in listed])
    file["paths"], file["rows"] = paths, rows
    file["by_path"] = np.argsort(paths, kind="stable").astype("<i8")
    file["labels"] = np.concatenate([one.recordings.labels for one in listed]).astype("<i8")
    file["damage"] = np.frombuffer(text, np.uint8)


def _told(sentences: list[str], out: Path) -> str:
    """The sentence for recordings that cannot be read; all of them go into a file."""
    damage_list(out).write_text("\n".join(sentences) + "\n", encoding="utf-8", errors="surrogateescape")
    more = f"; and {len(sentences) - _NAMED} more" if len(sentences) > _NAMED else ""
    return (
        f"{len(sentences)} recordings cannot be packed ({'; '.join(sentences[:_NAMED])}{more}; all in "
        f"{damage_list(out)}): put sound files in their place and run this again, which does not repeat the others, or "
        f"keep their errors in the pack with damaged=keep"
    )


def verify_pack(
    listed: Sequence[Listed], out: str | Path, read: Read, *, workers: int = 1, progress: bool = True
) -> int:
    """Read everything again, from the pack and from its sources.

    Returns:
        The number of recordings compared.

    Raises:
        UserError: they differ, with the number of differences and the first of them.
    """
    out = Path(out).expanduser().absolute()
    pack = Pack(out)
    for one in listed:
        pack.listing(one.recordings.root, one.folder, suffixes=one.suffixes, class_folders=one.recordings.class_folders)
    told = map_ordered(partial(_difference, pack, read), enumerate(_paths_of(listed)), workers)
    bar = tqdm(told, "verifying", pack.count, unit="rec", disable=not progress)
    different = [sentence for sentence in bar if sentence]
    if different:
        raise UserError(
            f"{len(different)} of {pack.count} recordings are not what {out} holds ({different[0]}): remove it and "
            f"pack again"
        )
    return pack.count


def _difference(pack: Pack, read: Read, task: tuple[int, Path]) -> str | None:
    """What a worker verifies: one recording, here and there."""
    row, path = task
    source, packed = _content(partial(read, path)), _content(partial(pack.read, row))
    if source == packed:
        return None
    told = next((one for one in (packed, source) if isinstance(one, str)), "other events")
    return f"{path}: {told}"


def _content(read: Callable[[], tuple[Events, tuple[int, int] | None]]) -> tuple[object, ...] | str:
    """A recording as something to compare."""
    try:
        events, sensor_hw = read()
    except RecordingError as error:
        return str(error)
    return sensor_hw, *(events[name].tobytes() for name in "txyp")
