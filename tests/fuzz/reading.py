"""How a recording is opened: the one place that knows."""

from eventclip.io.formats import open_stream, read_events

PIECE = 64


def open_in_pieces(path):
    """A stream of chunks of 64 events, and its sensor_hw."""
    return open_stream(path, chunk_events=PIECE)


__all__ = ["open_in_pieces", "read_events"]
