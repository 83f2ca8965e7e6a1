"""A process that reads mutants one after the other and says of each how it went; it may well die of one.

Asked by a line of JSON on stdin for mutants of one kind; answers a line of JSON before and after each on stdout.
"""

import json
import os
import re
import resource
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from random import Random

from kinds import Prepared, prepare

from eventclip.errors import UserError

MEMORY_BYTES = 1 << 30
"""What reading a small file may add to the memory of the process."""

_LIMIT_BYTES = 3 * MEMORY_BYTES  # of address space, so that a mutant cannot take the machine's memory
_LIBRARY_TALK = re.compile(
    r"Traceback|File \"|site-packages|\.pyx?\b|\.rs\b|weights_only|usecols|max_header_size|allow_pickle|"
    r"Please verify|object at 0x|<class |torch\.load|np\.load|panic"
)
_MEMORY_TALK = re.compile(r"allocate|MemoryError|out of memory|bad_alloc|not enough memory", re.IGNORECASE)


_WARNINGS: list[str] = []
_NEVER_SHOWN = (
    *("DeprecationWarning", "PendingDeprecationWarning", "ResourceWarning"),
    "UserWarning: Validating sparse tensor invariants",  # torch's, once a process
)


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, kind, *_: _WARNINGS.append(f"{kind.__name__}: {message}")

    def answer(**told: object) -> None:
        print(json.dumps(told), file=answers, flush=True)

    answer(ready=True)
    ready: dict[str, Prepared] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        name, folder = asked["kind"], Path(asked["folder"])
        _limit(resource.RLIM_INFINITY)
        if name not in ready:
            ready[name] = prepare(name, folder)
            for place, sample in enumerate(ready[name].samples, start=1):
                if wrong := _refused(ready[name], sample):
                    answer(done=-place, wrong=wrong, kept="")
        usual = _status("VmHWM", reset=True)
        _limit(_status("VmSize") + _LIMIT_BYTES)
        for number in range(asked["first"], asked["last"]):
            prepared = ready[name]
            content = mutant(name, number, prepared)
            _put(prepared, content)
            answer(begun=number, path=str(prepared.path))
            wrong, kept = judge(prepared), ""
            taken = _status("VmHWM") - usual
            if taken > MEMORY_BYTES and len(content) < 1 << 20 and not prepared.may_ask_for_memory:
                wrong = wrong or f"takes {taken >> 20} MiB for {len(content)} bytes"
            if taken > MEMORY_BYTES >> 3:
                _status("VmHWM", reset=True)
            if wrong:
                wrong = f"{prepared.of(content)}{wrong}"
                kept = folder / f"failed-{number}{prepared.path.suffix}"
                kept.write_bytes(content)
            answer(done=number, wrong=wrong, kept=str(kept))
        answer(ended=True)


def mutant(name: str, number: int, prepared: Prepared) -> bytes:
    """The mutant of that number of a kind."""
    return prepared.mutate(Random(f"{name}/{number}"), prepared.samples)


def _put(prepared: Prepared, content: bytes) -> None:
    """Write a mutant as another file: HDF5 takes one that is written over for the one it may still hold open."""
    prepared.path.parent.mkdir(parents=True, exist_ok=True)
    prepared.path.unlink(missing_ok=True)
    prepared.path.write_bytes(content)


def _read(prepared: Prepared, content: bytes) -> object:
    _put(prepared, content)
    return prepared.read(prepared.path)


def _refused(prepared: Prepared, sample: bytes) -> str | None:
    """Why a sound sample, the first thing that is read of a kind, cannot be read; None if it can."""
    try:
        _read(prepared, sample)
    except Exception as error:  # noqa: BLE001  (told like any other)
        return f"{prepared.of(sample)}sound sample refused: {error!r}"[:600]
    return None


def again(name: str, number: int) -> None:
    """Read one mutant once more, for its traceback."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(name, Path(folder))
        content = mutant(name, number, prepared)
        print(f"{len(content)} bytes, judged: ", end="", flush=True)
        _put(prepared, content)
        print(judge(prepared))
        print("read:", _read(prepared, content))


def judge(prepared: Prepared) -> str | None:
    """Read what lies at the path; None where it was read or refused as it should be, else what went wrong."""
    _WARNINGS.clear()
    try:
        prepared.read(prepared.path)
    except UserError as error:
        if wrong := unfit(str(error), prepared):
            return wrong
    except AssertionError as error:
        return f"promise broken: {error}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  (whatever comes out is what is looked for)
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "eventclip" in frame.filename] or frames
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        return f"escaped: {type(error).__name__} at {place}: {' '.join(str(error).split())[:200]}"
    shown = [told for told in _WARNINGS if not told.startswith(_NEVER_SHOWN)]
    return f"warned: {' '.join(shown[0].split())[:200]}" if shown else None


def unfit(sentence: str, prepared: Prepared) -> str | None:
    """What is wrong with a sentence that refuses a file, None if nothing."""
    if prepared.always_read:
        return f"refused, though it is only a cache: {sentence[:300]}"
    if len(sentence.splitlines()) != 1:
        return f"several lines: {sentence[:300]!r}"
    if (prepared.named or str(prepared.path)) not in sentence:
        return f"names no path: {sentence[:300]}"
    if not sentence.isprintable():
        return f"has characters that are not for a terminal: {sentence[:300]!r}"
    if len(sentence) > 1000:
        return f"goes on for {len(sentence)} characters: {sentence[:300]}"
    if found := _LIBRARY_TALK.search(sentence.replace(str(prepared.path), "")):
        return f"repeats a library's words ({found[0]}): {sentence[:300]}"
    if _MEMORY_TALK.search(sentence) and not prepared.may_ask_for_memory:
        return f"ran out of memory: {sentence[:300]}"
    return None


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _status(name: str, *, reset: bool = False) -> int:
    """A line of /proc/self/status [bytes]; ``reset`` lets the peak begin anew at what is used now."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else again(sys.argv[1], int(sys.argv[2]))
