"""Seeded damage to files of bytes: what disks, transfers and editors do to them."""

from collections.abc import Iterator

import numpy as np


def mutants(content: bytes, count: int, *, seed: int = 0, head: int | None = None) -> Iterator[bytes]:
    """Damage a file in ``count`` ways: cut, bits flipped, a stretch zeroed, doubled, taken out or made random.

    Args:
        content: the sound file.
        count: number of mutants.
        seed: of the damage.
        head: damage only so many bytes at the beginning; None takes all.
    """
    rng = np.random.default_rng(seed)
    end = len(content) if head is None else min(head, len(content))
    for number in range(count):
        place = int(rng.integers(0, max(end, 1)))
        length = int(rng.integers(1, 17))
        before, part, after = content[:place], content[place : place + length], content[place + length :]
        kind = number % 6
        if kind == 0:
            yield before
        elif kind == 1:
            yield before + bytes(byte ^ (1 << int(rng.integers(8))) for byte in part[:1]) + content[place + 1 :]
        elif kind == 2:
            yield before + bytes(len(part)) + after
        elif kind == 3:
            yield before + part + part + after
        elif kind == 4:
            yield before + after
        else:
            yield before + rng.bytes(len(part)) + after


ODD_JSON = (
    b"",
    b"\xff\xfe{}",
    b"\xef\xbb\xbf[]",
    b"null",
    b"true",
    b"NaN",
    b"1e999",
    b"[]",
    b"{}",
    b'"text"',
    b"[[[]]]",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" + b"0" * 5000,
    b'{"\\ud800": 1}',
    b'{"a": 1, "a": 2}',
    b"\x00" * 64,
)
"""JSON, or nearly, that is none of our files."""


def with_values(said: dict, odd: tuple = (None, True, 1.5, -1, 10**30, "x", [], {}, [[]], float("nan"), "\ud800")):
    """The same JSON object with each value, down to three levels, replaced by each of some odd ones, or left out."""
    for path in _places(said, 3):
        yield _changed(said, path, None, remove=True)
        for value in odd:
            yield _changed(said, path, value)


def _places(said, depth, path=()):
    for key in said if isinstance(said, dict) else range(min(len(said), 2)) if isinstance(said, list) else ():
        yield (*path, key)
        if depth > 1:
            yield from _places(said[key], depth - 1, (*path, key))


def _changed(said, path, value, *, remove=False):
    key, *rest = path
    copied = dict(said) if isinstance(said, dict) else list(said)
    if rest:
        copied[key] = _changed(copied[key], rest, value, remove=remove)
    elif remove:
        del copied[key]
    else:
        copied[key] = value
    return copied
