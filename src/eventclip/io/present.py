# ruff: noqa: ARG001, D103
"""The formats as they were read before this room; goes as the formats move in."""

from __future__ import annotations

from pathlib import Path

from eventclip.events import camera_streams, table_streams
from eventclip.events.tables import read_numpy
from eventclip.io.formats import Opened, ReadOptions, pieces_of


def open_npy(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    return Opened(*table_streams.stream_npy(path, chunk_events, time_unit=options.time_unit, columns=options.columns))


def open_npz(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    events, _ = read_numpy(path, time_unit=options.time_unit, columns=options.columns)
    return Opened(pieces_of(events, chunk_events), None, len(events))


def open_hdf5(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    return Opened(*table_streams.stream_hdf5(path, chunk_events, time_unit=options.time_unit, columns=options.columns))


def open_csv(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    return Opened(*table_streams.stream_text(path, chunk_events, time_unit=options.time_unit, columns=options.columns))


def open_bin(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    return Opened(*camera_streams.stream_atis(path, chunk_events))


def open_dat(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    return Opened(*camera_streams.stream_dat(path, chunk_events))


def open_raw(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    return Opened(*camera_streams.stream_raw(path, chunk_events))


def open_aedat4(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    return Opened(*camera_streams.stream_aedat4(path, chunk_events))
