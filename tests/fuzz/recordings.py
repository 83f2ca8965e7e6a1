"""Recordings: read whole and in pieces, as the package's own functions do, and what must hold of the two."""

import zipfile
from functools import partial
from pathlib import Path
from random import Random

import corpus
import hdf5_oddities
import mutators
import numpy as np
from kinds import Prepared
from reading import open_in_pieces, read_events

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE


def _whole_and_in_pieces(path: Path) -> object:
    """Read twice; AssertionError where what was read is impossible, or the two differ."""
    told, whole, pieces = [], None, []
    try:
        whole, sensor_hw = read_events(path)
    except RecordingError as error:
        told.append(error)
    else:
        _check(whole, sensor_hw)
    try:
        stream = open_in_pieces(path)
        for chunk in stream.chunks:
            assert chunk.dtype == EVENT_DTYPE, f"a piece is of {chunk.dtype}"
            assert len(chunk), "a piece is empty"
            pieces.append(chunk.copy())
    except RecordingError as error:
        told.append(error)
    else:
        if whole is not None:
            joined = np.concatenate(pieces) if pieces else np.empty(0, EVENT_DTYPE)
            assert np.array_equal(joined, whole), f"whole {len(whole)} events, in pieces {len(joined)} or others"
            assert stream.sensor_hw == sensor_hw, f"whole {sensor_hw}, in pieces {stream.sensor_hw}"
    if len(told) == 1:
        raise AssertionError(f"{'in pieces' if whole is not None else 'whole'} only: {told[0]}")
    if told:
        assert str(told[0]) == str(told[1]), f"whole: {told[0]} -- in pieces: {told[1]}"
        raise told[0]
    return len(whole)


def _check(events: np.ndarray, sensor_hw: object) -> None:
    """What holds of all events that are given out."""
    assert events.dtype == EVENT_DTYPE, f"events of {events.dtype}"
    assert events.ndim == 1, f"events of shape {events.shape}"
    if len(events):
        assert (events["t"][1:] >= events["t"][:-1]).all(), "time runs backwards"
        assert events["x"].min() >= 0, "x is negative"
        assert events["y"].min() >= 0, "y is negative"
        assert events["p"].max() <= 1, "p is above 1"
    if sensor_hw is None:
        return
    assert isinstance(sensor_hw, tuple), f"the sensor is {sensor_hw!r}"
    height, width = sensor_hw
    assert type(height) is type(width) is int, f"the sensor is {sensor_hw!r}"
    assert height > 0 < width, f"the sensor is {sensor_hw!r}"
    if len(events):
        assert events["x"].max() < width, "x is outside the sensor"
        assert events["y"].max() < height, "y is outside the sensor"


def _hdf5(rng: Random, samples: list[bytes]) -> bytes:
    return hdf5_oddities.odd_hdf5(rng) if rng.random() < 0.5 else mutators.damaged_headers(rng, samples)


def _headed(rng: Random, samples: list[bytes]) -> bytes:
    """Prophesee's: the text of the header retold, or the words damaged."""
    if rng.random() < 0.6:
        return mutators.damaged(rng, samples)
    sample = rng.choice(samples)
    lines = sample.split(b"\n")
    count = next(i for i, line in enumerate(lines) if not line.startswith(b"%"))
    header = mutators.retold(rng, [b"\n".join(lines[:count]) + b"\n"])
    return header + b"\n".join(lines[count:])


def _zip(compression: int):
    return partial(mutators.rezipped, inner=mutators.npy_retold, compression=compression)


_KINDS = {
    "npy": ("npy", corpus.npy, mutators.npy_retold),
    "npz": ("npz", partial(corpus.npz, zipfile.ZIP_STORED), _zip(zipfile.ZIP_STORED)),
    "npz_deflated": ("npz", partial(corpus.npz, zipfile.ZIP_DEFLATED), _zip(zipfile.ZIP_DEFLATED)),
    "bin": ("bin", corpus.atis, mutators.damaged),
    "dat": ("dat", corpus.dat, _headed),
    "evt2": ("raw", corpus.evt2, _headed),
    "evt3": ("raw", corpus.evt3, _headed),
    "aedat4": ("aedat4", corpus.aedat4, mutators.damaged),
    "hdf5": ("h5", corpus.hdf5, _hdf5),
    "text": ("csv", corpus.text, mutators.retold),
}


def _prepare(folder: Path, suffix: str, samples, mutate) -> Prepared:
    return Prepared(folder / f"mutant.{suffix}", samples(), mutate, _whole_and_in_pieces)


PREPARE = {
    name: partial(_prepare, suffix=suffix, samples=samples, mutate=mutate)
    for name, (suffix, samples, mutate) in _KINDS.items()
}
