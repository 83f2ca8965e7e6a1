"""Small encoders of cameras' formats, so that tests know which events a file holds."""

import struct

import numpy as np

from eventclip.events.array import EVENT_DTYPE

RAW_HEADERS = {
    "<u4": b"% camera_integrator_name Prophesee\n% evt 2.0\n% format EVT2;height=480;width=640\n% end\n",
    "<u2": b"% evt 3.0\n% geometry 640x480\n% end\n",
}
DAT_HEADER = b"% Data file containing CD events\n% Version 2\n"


def made(count=1000, *, seed=0, sensor_hw=(180, 240), start=0, duration=500_000):
    """(count,) events in order of time on a sensor."""
    rng = np.random.default_rng(seed)
    events = np.zeros(count, EVENT_DTYPE)
    events["t"] = start + np.sort(rng.integers(0, duration, count))
    events["x"], events["y"] = rng.integers(0, sensor_hw[1], count), rng.integers(0, sensor_hw[0], count)
    events["p"] = rng.integers(0, 2, count)
    return events


def evt2(events):
    t, x, y, p = (events[name].astype(np.int64) for name in "txyp")
    new = np.append(True, t[1:] >> 6 != t[:-1] >> 6)[: len(t)]  # a time word stands before these
    places = np.arange(len(t)) + np.cumsum(new)
    words = np.zeros(len(t) + new.sum(), np.int64)
    words[places] = p << 28 | (t & 63) << 22 | x << 11 | y
    words[places[new] - 1] = 0x8 << 28 | t[new] >> 6 & 0xFFFFFFF
    return words.astype("<u4")


def evt21(events):
    """One word an event; vectors are laid by hand where a test wants them."""
    words, high = [], None
    for t, x, y, p in events.tolist():
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 60 | (high & 0xFFFFFFF) << 32)
        words.append(p << 60 | (t & 63) << 54 | (x & ~31) << 43 | y << 32 | 1 << (x & 31))
    return np.array(words, "<u8")


def evt3(events):
    words, high, low, row = [], None, None, None
    for t, x, y, p in events.tolist():
        if t >> 12 != high:
            high, low = t >> 12, None
            words.append(0x8000 | high & 0xFFF)
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(0x6000 | low)
        if y != row:
            row = y
            words.append(y)
        words.append(0x2000 | p << 11 | x)
    return np.array(words, "<u2")


def dat(events, header=DAT_HEADER, kind=(12, 8)):
    places = events["x"].astype(np.int64) | events["y"].astype(np.int64) << 14 | events["p"].astype(np.int64) << 28
    return header + bytes(kind) + np.stack([events["t"] & 0xFFFFFFFF, places], axis=1).astype("<u4").tobytes()


def raw(words, header=None):
    """A .raw of words whose type tells the encoding."""
    words = np.asarray(words)
    return (RAW_HEADERS[words.dtype.str] if header is None else header) + words.tobytes()


def atis(events):
    """A .bin whose times below 2^23 need no overflow entry."""
    t, x, y, p = (events[name].astype(np.int64) for name in "txyp")
    return np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], axis=1).astype(np.uint8).tobytes()


def lz4(content):
    """A frame of stored blocks of 64 KiB."""
    blocks = [content[i : i + (1 << 16)] for i in range(0, len(content), 1 << 16)]
    return (
        b"\x04\x22\x4d\x18\x40\x40\xc0"
        + b"".join(struct.pack("<I", 1 << 31 | len(block)) + block for block in blocks)
        + bytes(4)
    )


def zstd(content):
    """A frame of raw blocks of 64 KiB with a window of 128 KiB."""
    blocks = [content[i : i + (1 << 16)] for i in range(0, len(content), 1 << 16)]
    headers = [(len(block) << 3 | (i == len(blocks) - 1)).to_bytes(3, "little") for i, block in enumerate(blocks)]
    return b"\x28\xb5\x2f\xfd\x00\x38" + b"".join(a + b for a, b in zip(headers, blocks, strict=True))


PACK = {0: bytes, 1: lz4, 3: zstd}


def aedat4_packet(number, events, compression):
    """A packet of a stream: number, size, and a FlatBuffer of events, whose layout is that of EVENT_DTYPE."""
    plain = np.zeros(len(events), EVENT_DTYPE)
    for name in "txyp":
        plain[name] = events[name]
    table = struct.pack("<I4s3H2xiII", 16, b"EVTS", 6, 8, 4, 8, 4, len(plain)) + plain.tobytes()
    content = PACK[compression](struct.pack("<I", len(table)) + table)
    return struct.pack("<II", number, len(content)) + content


def aedat4(streams, *, compression=0, packet_events=100, sensor_hw=(180, 240), told=True, extra=""):
    """A recording of streams, {name: events}, numbered in their order; ``told``: with the place of the packets' end."""
    height, width = sensor_hw
    nodes = "".join(
        f'<node name="{number}"><attr key="originalOutputName">{name}</attr><attr key="typeIdentifier">EVTS</attr>'
        f'<node name="info"><attr key="sizeX">{width}</attr><attr key="sizeY">{height}</attr></node></node>'
        for number, name in enumerate(streams)
    )
    text = f'<dv version="2.0"><node name="outInfo">{nodes}{extra}</node></dv>'.encode()
    packets = b"".join(
        aedat4_packet(number, events[start : start + packet_events], compression)
        for number, events in enumerate(streams.values())
        for start in range(0, len(events), packet_events)
    )
    size = 40 + 4 + len(text) + 4
    end = 14 + 4 + size + len(packets) if told else -1
    header = struct.pack("<I4s5H2xiiIqI", 20, b"IOHE", 10, 20, 4, 12, 8, 12, compression, 12, end, len(text)) + text
    table = b"\x00" * 20 if told else b""
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", size) + header.ljust(size, b"\0") + packets + table
