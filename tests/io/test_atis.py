"""ATIS recordings: five bytes an event, and entries that are none but move the clock on."""

import numpy as np
import pytest

from eventclip.errors import RecordingError
from eventclip.io.formats import open_stream, read_events


def entry(t, x, y, p):
    return bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255])


def test_five_bytes_are_an_event(tmp_path, encoders):
    (tmp_path / "a.bin").write_bytes(encoders.atis(encoders.made()))
    events, sensor = read_events(tmp_path / "a.bin")
    np.testing.assert_array_equal(events, encoders.made())
    assert sensor is None


@pytest.mark.parametrize("chunk_events", [1, 2, 100])
def test_an_overflow_entry_moves_the_clock_on_and_is_no_event(tmp_path, chunk_events):
    entries = [(5, 1, 2, 1), (0, 0, 240, 0), (0, 0, 240, 0), (7, 3, 4, 0), (0, 0, 240, 0), (9, 5, 6, 1)]
    (tmp_path / "a.bin").write_bytes(b"".join(entry(*one) for one in entries))
    chunks = list(open_stream(tmp_path / "a.bin", chunk_events=chunk_events).chunks)
    assert all(len(chunk) for chunk in chunks)
    events = np.concatenate(chunks)
    assert events.tolist() == [(5, 1, 2, 1), (7 + 2 * 8192, 3, 4, 0), (9 + 3 * 8192, 5, 6, 1)]


def test_a_file_cut_in_an_event_is_told(tmp_path):
    (tmp_path / "a.bin").write_bytes(entry(5, 1, 2, 1) * 3 + b"\1\2")
    with pytest.raises(RecordingError, match="in the middle of an event at byte 15: expected 5 bytes"):
        read_events(tmp_path / "a.bin")
