"""How a recording is opened: the one place that knows."""

try:
    from eventclip.io.formats import open_stream, read_events
except ImportError:
    from eventclip.events.readers import read_events
    from eventclip.events.streams import read_chunks as open_stream

PIECE = 64


def open_in_pieces(path):
    """A stream of chunks of 64 events, and its sensor_hw."""
    return open_stream(path, chunk_events=PIECE)


__all__ = ["open_in_pieces", "read_events"]
