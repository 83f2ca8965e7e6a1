"""Damaged recordings of cameras give events in order or one sentence, and in pieces the same as whole."""

import numpy as np
import pytest

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE
from eventclip.io.formats import ReadOptions, open_stream

MUTANTS = 60


@pytest.fixture(scope="module")
def recordings(encoders):
    """A sound recording of each format, by its suffix."""
    events = encoders.made(200)
    wide = encoders.made(200, start=2**24 - 250_000)
    return {
        "evt2.raw": encoders.raw(encoders.evt2(events)),
        "evt21.raw": encoders.raw(encoders.evt21(events), b"% evt 2.1\n% geometry 240x180\n% end\n"),
        "evt3.raw": encoders.raw(encoders.evt3(wide)),
        "old.raw": encoders.raw(encoders.evt3(wide), b"% evt 3.0\n"),
        "cd.dat": encoders.dat(events, b"% Version 2\n% Height 180\n% Width 240\n"),
        "atis.bin": encoders.atis(events),
        "none.aedat4": encoders.aedat4({"events": events}, packet_events=30),
        "lz4.aedat4": encoders.aedat4({"events": events}, packet_events=30, compression=1),
        "zstd.aedat4": encoders.aedat4({"events": events}, packet_events=30, compression=3, told=False),
    }


def mutated(content, rng):
    """Flip bits, write odd bytes, cut, repeat or leave out a part."""
    damaged = bytearray(content)
    place, length = int(rng.integers(len(damaged))), int(rng.integers(1, 200))
    match int(rng.integers(5)):
        case 0:
            for at in rng.integers(len(damaged), size=3):
                damaged[at] ^= 1 << int(rng.integers(8))
        case 1:
            damaged[place : place + 4] = rng.choice(
                [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80"]
            )
        case 2:
            del damaged[place:]
        case 3:
            damaged[place:place] = damaged[place : place + length]
        case 4:
            del damaged[place : place + length]
    return bytes(damaged)


def outcome(path, options, chunk_events):
    """Events of a file, or the sentence about it."""
    try:
        chunks = list(open_stream(path, options, chunk_events=chunk_events).chunks)
        return np.concatenate(chunks) if chunks else np.empty(0, EVENT_DTYPE)
    except RecordingError as error:
        return str(error)


HEADS = {".raw": 10, ".dat": 42, ".bin": 0, ".aedat4": 14}  # bytes of a header that are left
NAMES = [
    "evt2.raw",
    "evt21.raw",
    "evt3.raw",
    "old.raw",
    "cd.dat",
    "atis.bin",
    "none.aedat4",
    "lz4.aedat4",
    "zstd.aedat4",
]


@pytest.mark.long
@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_mutant_is_read_or_told_the_same_in_pieces(tmp_path, recordings, name, sort):
    if name.endswith("aedat4"):
        pytest.importorskip("aedat", reason="the extra `aedat` is not installed")
    path, read = tmp_path / name, 0
    for seed in range(MUTANTS // 2):
        path.write_bytes(mutated(recordings[name], np.random.default_rng([seed, sort])))
        whole, *pieces = (outcome(path, ReadOptions(sort=sort), size) for size in (1 << 19, 7, 64))
        for piece in pieces:
            assert type(piece) is type(whole), seed
            assert np.array_equal(piece, whole) if isinstance(whole, np.ndarray) else piece == whole, seed
        if isinstance(whole, str):
            assert whole.startswith(str(path))
            assert "\n" not in whole
        else:
            read += 1
            assert (np.diff(whole["t"]) >= 0).all()
    assert read < MUTANTS // 2  # some were told


@pytest.mark.parametrize("size", [1, 7, 40, 400, 4000])
@pytest.mark.parametrize("name", NAMES)
def test_rubbish_is_read_or_told_the_same_in_pieces(tmp_path, recordings, name, size):
    path = tmp_path / name
    head = HEADS[path.suffix]
    rng = np.random.default_rng(size)
    path.write_bytes(recordings[name][:head] + rng.integers(0, 256, size, np.uint8).tobytes())
    whole, piece = (outcome(path, ReadOptions(), chunk_events) for chunk_events in (1 << 19, 7))
    assert np.array_equal(whole, piece) if isinstance(whole, np.ndarray) else whole == piece
