"""Damage done to files: each mutator takes a generator of random numbers and sound bytes, and gives others.

What is done depends on the generator alone, so that a mutant is known by its kind and number.
"""

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from random import Random

Mutator = Callable[[Random, Sequence[bytes]], bytes]
"""Samples in, a mutant out."""

WIDTHS = {1: "b", 2: "h", 4: "i", 8: "q"}
MARKS = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\x89HDF", b"TREE", b"SNOD", b"HEAP", b"OHDR", b"GCOL", b"FRHP")
"""Where headers of archives and of HDF5's parts begin."""

WORDS = (
    *("", "nan", "-inf", "-1", "0", "1e400", "1e-400", "1e5", "0x10", "1_000", "1,5", "1.5", "9" * 400, "-0.0"),
    *("null", "None", "True", "false", "\x00", "\ufeff", "\u0661", "\x1b[2J", "'", '"', '""', "(", "]", "}", "%s"),
    *("../../x", "/etc/passwd", "${oc.env:HOME}", "t", "x", "p", "on", "a" * 5000, "\u2028", "é", "#", ";", "\t"),
)
VALUES: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**400, "", "x", "1"),
    *("../../x", "/etc/passwd", "${oc.env:HOME}", "\ud800", "\x00", "a\nb", "é" * 300, [], {}, [[]], {"": {}}, [None]),
    *([1, 2, 3], {"_target_": "os.system"}, ["a", 1], [1.5, "b"], "x" * 5000, ("a", "b")),
)


def flip(rng: Random, data: bytearray) -> None:
    """Flip some bits."""
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        place = somewhere(rng, data)
        data[place] ^= 1 << rng.randrange(8)


def run(rng: Random, data: bytearray) -> None:
    """Overwrite a run of bytes."""
    start, size = somewhere(rng, data), rng.choice((1, 4, 16, 64))
    filler = rng.choice((b"\x00", b"\xff", b" ", bytes([rng.randrange(256)])))
    data[start : start + size] = filler * min(size, len(data) - start)


def cut(rng: Random, data: bytearray) -> None:
    """Leave out the end."""
    del data[rng.choice((somewhere(rng, data), rng.randrange(len(data)), len(data) - 1)) :]


def leave_out(rng: Random, data: bytearray) -> None:
    """Leave out a run of bytes."""
    start = somewhere(rng, data)
    del data[start : start + rng.choice((1, 2, 5, 8, 40))]


def repeat(rng: Random, data: bytearray) -> None:
    """Repeat a run of bytes."""
    start, size = somewhere(rng, data), rng.choice((1, 2, 8, 100))
    data[start:start] = data[start : start + size] * rng.choice((1, 1, 3))


def insert(rng: Random, data: bytearray) -> None:
    """Insert random bytes."""
    start = somewhere(rng, data)
    data[start:start] = rng.randbytes(rng.choice((1, 2, 7, 8)))


def extreme(rng: Random, data: bytearray) -> None:
    """Put an integer at its extremes somewhere."""
    width = rng.choice(tuple(WIDTHS))
    value = rng.choice((0, 1, -1, 2 ** (8 * width - 1) - 1, -(2 ** (8 * width - 1)), 2 ** (4 * width), len(data)))
    value = value if -(2 ** (8 * width - 1)) <= value < 2 ** (8 * width - 1) else -1
    start = somewhere(rng, data)
    if start + width <= len(data):
        struct.pack_into(rng.choice("<>") + WIDTHS[width], data, start, value)


def at_mark(rng: Random, data: bytearray) -> None:
    """Put an extreme integer or a flipped bit into a header of an archive or of HDF5."""
    places = [found.start() for mark in MARKS for found in re.finditer(re.escape(mark), bytes(data))]
    if not places:
        return extreme(rng, data)
    place = rng.choice(places) + rng.randrange(4, 60)
    if place < len(data):
        data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, data[place] ^ 1 << rng.randrange(8)))
    return None


PLAIN = (flip, flip, run, cut, leave_out, repeat, insert, extreme, extreme)


def somewhere(rng: Random, data: bytearray) -> int:
    """A place in the bytes, half of the time near their start, where headers are."""
    if not data:
        data.append(0)
    return rng.randrange(min(len(data), 200)) if rng.random() < 0.5 else rng.randrange(len(data))


def splice(rng: Random, samples: Sequence[bytes]) -> bytes:
    """The beginning of one sample and the end of another."""
    one, other = rng.choice(samples), rng.choice(samples)
    return one[: rng.randrange(len(one) + 1)] + other[rng.randrange(len(other) + 1) :]


def damaged(
    rng: Random, samples: Sequence[bytes], *, further: Sequence[Callable[[Random, bytearray], None]] = ()
) -> bytes:
    """One to three of the plain mutators, one after the other; sometimes two samples spliced."""
    if rng.random() < 0.08:
        return splice(rng, samples)
    data = bytearray(rng.choice(samples))
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice((*PLAIN, *further))(rng, data)
    return bytes(data)


def damaged_headers(rng: Random, samples: Sequence[bytes]) -> bytes:
    """As `damaged`, with a liking for the headers of archives and of HDF5."""
    return damaged(rng, samples, further=(at_mark,) * 6)


def retold(rng: Random, samples: Sequence[bytes]) -> bytes:
    """Text with odd words, lines moved, left out or doubled, in other codings; now and then damaged as bytes."""
    if rng.random() < 0.15:
        return damaged(rng, samples)
    text = rng.choice(samples).decode("utf-8", "surrogateescape")
    for _ in range(rng.choice((1, 1, 2))):
        text = rng.choice((_odd_word, _odd_word, _odd_word, _odd_lines, _odd_marks))(rng, text)
    coding = rng.choice(("utf-8",) * 12 + ("utf-16", "utf-8-sig", "latin-1", "utf-32"))
    return text.encode(coding, "surrogateescape" if coding == "utf-8" else "replace")


def _odd_word(rng: Random, text: str) -> str:
    words = list(re.finditer(r"[^\s,;:{}\[\]()\"'=]+", text))
    if not words:
        return rng.choice(WORDS)
    word = rng.choice(words[:12] if rng.random() < 0.4 else words)
    return text[: word.start()] + rng.choice(WORDS) + text[word.end() :]


def _odd_lines(rng: Random, text: str) -> str:
    lines = text.split("\n")
    place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[place]
        case 1:
            lines[place], lines[other] = lines[other], lines[place]
        case 2:
            lines.insert(other, lines[place])
        case _:
            lines.insert(place, rng.choice(("", "#", "% end", '"a,b', ",,,,", "t x y p", "240 180")))
    return "\n".join(lines)


def _odd_marks(rng: Random, text: str) -> str:
    mark, other = (
        rng.choice((",", " ", ";", "\t", "\n", '"', ".")),
        rng.choice((",", ", ", "\t", ";", "\r\n", "\r", '"', "")),
    )
    return text.replace(mark, other) if rng.random() < 0.5 else text.replace(mark, other, 1)


def retyped(rng: Random, samples: Sequence[bytes]) -> bytes:
    """JSON with values of other kinds, keys left out or renamed, deep nesting; now and then damaged as text."""
    if rng.random() < 0.2:
        return retold(rng, samples)
    if rng.random() < 0.06:
        depth = rng.choice((50, 2000, 100_000))
        return rng.choice((b"[" * depth, b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth))
    content = json.loads(rng.choice(samples))
    for _ in range(rng.choice((1, 1, 2))):
        content = odd_value(rng, content)
    return json.dumps(content).encode("utf-8", "surrogatepass")


def odd_value(rng: Random, content: object) -> object:
    """The same tree with one value replaced, left out, or under another name."""
    places = list(_places(content))
    if not places or rng.random() < 0.02:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(("", "x", "../x", f"{key} "))] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder.append(holder[key])
        case _:
            holder[key] = rng.choice(VALUES)
    return content


def _places(content: object):
    """Every (holder, key) of a tree of dicts and lists, the shallow ones first."""
    waiting = [content]
    while waiting:
        holder = waiting.pop(0)
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in list(keys)[:40]:
            yield holder, key
            waiting.append(holder[key])


def rezipped(rng: Random, samples: Sequence[bytes], *, inner: Mutator, compression: int) -> bytes:
    """An archive whose members are damaged but whose checksums are right; now and then damaged as bytes."""
    if rng.random() < 0.5:
        return damaged_headers(rng, samples)
    sample = rng.choice(samples)
    with zipfile.ZipFile(io.BytesIO(sample)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(sorted(members))
    match rng.randrange(6):
        case 0:
            members[rng.choice(("", "x.npy", "../../x.npy", "/x.npy", "events/t.npy", "é.npy"))] = members.pop(chosen)
        case 1:
            members[rng.choice(("y.npy", "README", "event_data", "t.npy", "events/"))] = members[chosen]
        case _:
            members[chosen] = inner(rng, [members[chosen]])
    kind = rng.choice((compression,) * 4 + (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name or "nameless"), content, kind)
    return packed.getvalue()


NPY_WORDS = (
    *("<f2", "<f4", ">f8", "<i8", "<u8", ">i2", "|b1", "|i1", "<c16", "<U3", "|S4", "|O", "<M8[us]", "<m8[ns]", "|V8"),
    *("True", "None", "(5,)", "()", "(0,)", "(0, 4)", "(-1, 4)", "(4, 5)", "(5, 4, 1)", "(18446744073709551616,)"),
    *(
        "(1000000000000, 4)",
        "(1.5, 4)",
        "('a', 4)",
        "[('t', '<i8'), ('t', '<i8')]",
        "[('t', '<i8', (2,))]",
        "__import__",
    ),
    *("(True, 4)", "1e3", "{}", "descr", "shape", "\n  x", "#", "(" * 200, "'", "é"),
)


def npy_retold(rng: Random, samples: Sequence[bytes]) -> bytes:
    """A .npy whose header says something else, its length made right again; now and then damaged as bytes."""
    sample = rng.choice(samples)
    if rng.random() < 0.4 or sample[:6] != b"\x93NUMPY":
        return damaged(rng, samples)
    (length,) = struct.unpack_from("<H", sample, 8)
    header, rest = sample[10 : 10 + length].decode("latin-1"), sample[10 + length :]
    words = list(re.finditer(r"\[[^\]]*\]|\([^)]*\)|'[^']*'|\w+", header))
    word = rng.choice(words)
    text = header[: word.start()] + rng.choice(NPY_WORDS) + header[word.end() :]
    if rng.random() < 0.5:  # quoted where a type stands
        text = re.sub(r"'descr': ([<>|][^,]*)", r"'descr': '\1'", text)
    told = text.rstrip().encode("latin-1", "replace")
    told += b" " * (-(10 + len(told) + 1) % 64) + b"\n"
    return (
        sample[:6]
        + rng.choice((b"\x01\x00",) * 6 + (b"\x02\x00", b"\x03\x00", b"\x09\x00"))
        + struct.pack("<H", len(told))
        + told
        + rest
    )
