"""Camera formats read in pieces; each function gives the pieces, the sensor and the number of events if known.

The errors raised here are what follows the path in a sentence; :func:`eventclip.events.streams.read_chunks` adds it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from expelliarmus import Wizard
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.events.array import Events
from eventclip.events.cameras import aedat4_packets, check_atis, decode_atis
from eventclip.events.columns import check_recording
from eventclip.events.prophesee import RawLayout, check_dat_clock, dat_layout, digestible, raw_layout, whole_events

Opened = tuple[Iterator[Events], tuple[int, int] | None, int | None]


def stream_atis(path: Path, chunk_events: int) -> Opened:
    """Read the 40-bit events of ATIS in pieces; some entries may be no events, so their number is not known."""
    check_atis(path.stat().st_size)

    def pieces() -> Iterator[Events]:
        overflows = 0
        for raw in _read_pieces(path, np.dtype(np.uint8), 0, 5 * chunk_events):
            events, overflows = decode_atis(raw, overflows)
            yield check_recording(events)

    return pieces(), None, None


def stream_dat(path: Path, chunk_events: int) -> Opened:
    """Read Prophesee's ``.dat`` in pieces."""
    start, sensor_hw = dat_layout(path)
    count = whole_events(path, start, 8)

    def pieces() -> Iterator[Events]:
        last = 0
        for events in _decoded("dat", path, chunk_events, count):
            if events["t"][0] - last > 1 << 31 and last:
                raise RecordingError("runs backwards in time at row 0: expected order of time")
            check_dat_clock(events)
            yield check_recording(events)
            last = int(events["t"][-1])

    return pieces(), sensor_hw, count


def stream_raw(path: Path, chunk_events: int) -> Opened:
    """Read Prophesee's ``.raw`` in pieces, after a first pass over its words that counts them."""
    layout = raw_layout(path)
    tally, before, percent = np.zeros(16, np.int64), 0, False
    for words in _read_pieces(path, layout.word, layout.start, chunk_events):
        layout.tally(words, before, tally)
        percent |= before == 0 and digestible(words[:1], layout.shift, triggers=False) is not None
        before += len(words)
    count = layout.events(tally)
    triggers = layout.stumbles_over_triggers(tally)

    def pieces() -> Iterator[Events]:
        if not percent and not triggers:
            for events in _decoded(layout.encoding, path, chunk_events, count):
                yield check_recording(events)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "copy.raw")
            _write_digestible(path, layout, copy, chunk_events, triggers=triggers)
            for events in _decoded(layout.encoding, copy, chunk_events, count):
                yield check_recording(events)

    return pieces(), layout.sensor_hw, count


def stream_aedat4(path: Path, chunk_events: int) -> Opened:
    """Read iniVation's ``.aedat4`` in pieces of whole packets."""
    packets, sensor_hw = aedat4_packets(path)

    def pieces() -> Iterator[Events]:
        waiting: list[Events] = []
        for packet in packets:
            waiting.append(packet)
            if sum(map(len, waiting)) >= chunk_events:
                yield check_recording(np.concatenate(waiting))
                waiting = []
        if waiting:
            yield check_recording(np.concatenate(waiting))

    return pieces(), sensor_hw, None


def _read_pieces(path: Path, kind: np.dtype[Any], start: int, count: int) -> Iterator[NDArray[Any]]:
    with path.open("rb") as file:
        file.seek(start)
        while len(read := np.fromfile(file, kind, count)):
            yield read


def _write_digestible(path: Path, layout: RawLayout, copy: Path, size: int, *, triggers: bool) -> None:
    """Copy words, with fillers where expelliarmus would stumble, as `digestible` does to all of them at once."""
    with copy.open("wb") as file:
        file.write(b"% end\n")
        for words in _read_pieces(path, layout.word, layout.start, size):
            changed = digestible(words, layout.shift, triggers=triggers)
            (words if changed is None else changed).tofile(file)


def _decoded(encoding: str, path: Path, chunk_events: int, count: int) -> Iterator[Events]:
    """Decode in pieces with expelliarmus, which insists on its suffix, and make sure that no event gets lost."""
    suffix = ".dat" if encoding == "dat" else ".raw"
    with tempfile.TemporaryDirectory() as folder:
        if path.suffix != suffix and count:
            path = Path(shutil.copyfile(path, Path(folder, "copy" + suffix)))
        decoded = 0
        try:
            if count:
                for events in Wizard(encoding, path, chunk_size=chunk_events).read_chunk():
                    decoded += len(events)
                    yield events
        except (RuntimeError, TypeError) as error:
            raise RecordingError(f"cannot be decoded by expelliarmus as {encoding} ({error})") from error
    if decoded != count:
        raise RecordingError(
            f"has {count} events of which expelliarmus decoded {decoded}: expected a whole {encoding} file"
        )
