"""No file ends in a traceback, kills, hangs or takes the memory, whichever bytes of it are damaged.

One mutant again, with its traceback: python tests/fuzz/worker.py KIND NUMBER
"""

import json
import os
import re
import selectors
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
HANGS_S = 10.0
STARTS_S = 300.0  # torch is imported, kernels are compiled
RECORDINGS = ("npy", "npz", "npz_deflated", "bin", "dat", "evt2", "evt3", "aedat4", "hdf5", "text")
OTHERS = (
    *("split_file", "pseudo_split_file", "class_list", "pack", "pack_index", "pack_header", "unfinished_pack"),
    *("listing_cache", "features", "scores"),
    *("results", "starts", "simulation", "still", "predicted_csv", "predicted_jsonl"),
    *("checkpoint", "resumed_checkpoint", "reference", "safetensors", "torch_weights", "torchscript", "clip_config"),
)


class Worker:
    """A process that reads mutants, started anew when one has killed it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._starts, self._received = 0, b""

    def failures(self, kind: str, count: int) -> Iterator[tuple[int, str, Path]]:
        """Read mutants 0 to count - 1 of a kind; gives number, what went wrong and a copy of each that failed."""
        first = 0
        while first < count:
            self._start()
            place = self.folder / f"{self._starts}" / kind
            self._ask({"kind": kind, "first": first, "last": count, "folder": str(place)})
            begun, path, limit = None, None, STARTS_S
            while "ended" not in (answer := self._answer(limit)):
                limit = HANGS_S
                if "begun" in answer:
                    begun, path = answer["begun"], Path(answer["path"])
                elif "done" in answer and answer["wrong"]:
                    yield answer["done"], answer["wrong"], Path(answer["kept"])
                elif "died" in answer:
                    assert begun is not None, f"the worker ended before the first {kind} ({answer['died']})"
                    kept = Path(shutil.copy(path, self.folder / f"{kind}-{begun}{path.suffix}"))
                    yield begun, answer["died"], kept
                    break
            else:
                return
            first = begun + 1

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        if self._process is not None:
            return
        self._starts, self._received = self._starts + 1, b""
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
            cwd=self.folder,
        )
        assert "ready" in self._answer(STARTS_S), "the worker did not start"

    def _ask(self, request: dict[str, object]) -> None:
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self, seconds: float) -> dict[str, object]:
        """The next answer; {"died": why} where none comes in time or ever, the process ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._received:
                received = os.read(self._process.stdout.fileno(), 1 << 16) if selector.select(seconds) else None
                if not received:
                    died = f"hangs for {seconds:.0f} s" if received is None else f"kills it ({self._process.wait()})"
                    self.stop()
                    return {"died": died}
                self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)


@pytest.fixture(scope="session")
def worker(tmp_path_factory):
    one = Worker(tmp_path_factory.mktemp("fuzz"))
    yield one
    one.stop()


def assert_no_failures(worker: Worker, kind: str, count: int) -> None:
    """All mutants of a kind are read or refused as they should be; the message has one of each sort of failure."""
    sorts: dict[str, list[tuple[int, str, Path]]] = {}
    for number, wrong, kept in worker.failures(kind, count):
        sorts.setdefault(re.sub(r"\d+|/\S+", "#", wrong)[:60], []).append((number, wrong, kept))
    failed = sum(map(len, sorts.values()))
    told = [f"{len(some)} x e.g. mutant {some[0][0]}: {some[0][1]} [{some[0][2]}]" for some in sorts.values()]
    assert not failed, f"{failed} of {count} mutants of {kind}:\n" + "\n".join(told)


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECORDINGS)
def test_a_damaged_recording_is_read_or_told(worker, kind):
    assert_no_failures(worker, kind, 520)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_damaged_file_is_read_or_told(worker, kind):
    assert_no_failures(worker, kind, 210)


@pytest.mark.slow
def test_an_odd_value_of_any_setting_is_taken_or_told(worker):
    assert_no_failures(worker, "settings", 330)
