"""Pack the splits of a data module, and compare a pack with what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eventclip.datasets.pack_format import Listed
from eventclip.datasets.packed import Pack
from eventclip.datasets.packing import Read, pack_folders, paths_of
from eventclip.datasets.recordings import SPLITS
from eventclip.errors import RecordingError, UserError
from eventclip.events.array import Events
from eventclip.files import printable
from eventclip.parallel import cores, in_order
from eventclip.progress import tqdm

if TYPE_CHECKING:  # worker processes import this module and shall not wait for torch
    from eventclip.datasets.datamodule import EventDataModule


def pack_split(
    data: EventDataModule,
    split: str,
    out: str | Path,
    *,
    damaged: str = "error",
    verify: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[str]:
    """Pack the folders of a data module's splits; what ``python -m eventclip.pack`` does.

    Args:
        data: lists the folders and knows how to read the files.
        split: "training", "validation", "test", or "all" of them; a data set without validation is packed without.
        out: the file.
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
    listed = list(data.listed_folders.values())
    read = data.files.read
    if workers is None:
        workers = cores()
    keep = damaged == "keep"
    packed = pack_folders(
        listed, out, read, read_as=data.files.describe(), keep_damaged=keep, workers=workers, progress=progress
    )
    yield printable(f"{out}: {packed.summary()}")
    if data.files.reading.sort or data.files.reading.drop_outside:
        yield "events were sorted or left out as asked: python -m eventclip.data_check with the same data= counts them"
    if verify:
        count = verify_pack(listed, out, read, workers=workers, progress=progress)
        yield f"verified: {count:,} recordings are the same in both"
    yield from data.first_notes(listed[0].recordings)


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
    told = in_order(partial(_difference, pack, read), enumerate(paths_of(listed)), workers)
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
