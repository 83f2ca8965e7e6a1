"""What a teacher guesses of every recording: kept on disk shard by shard, so that nothing is guessed twice."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Fabric

from eventclip.datasets.datamodule import EventDataModule
from eventclip.datasets.pseudo_labels import Guesses, guess_dtype, summarise
from eventclip.datasets.recordings import Recordings
from eventclip.datasets.tta import Shards, versions_loader
from eventclip.errors import UserError
from eventclip.files import printable, read_regular, whole_file, write_json
from eventclip.models.classifier import EventClassifier
from eventclip.progress import tqdm

log = logging.getLogger(__name__)

_DIGEST = 32  # bytes of a SHA-256
_HEAD_BYTES = 4096  # more than a .npy file's head and the digest take


class GuessStore:
    """Guesses of one teacher on one list of recordings, in a folder of their own.

    The folder's name is a checksum of everything that decides the guesses, so a changed teacher, data set or
    rendering begins a new one, and another threshold finds the old one complete. A shard is a .npy file with the
    SHA-256 of its bytes behind them; one that does not bear it out is guessed again.

    Args:
        folder: where such folders lie.
        decides: plain values that decide the guesses.
        shards: how the recordings are cut.
        versions: R, number of versions of each recording.
    """

    def __init__(self, folder: Path, decides: dict[str, Any], *, shards: Shards, versions: int) -> None:
        decides = {**decides, "recordings": shards.size, "shard_size": shards.shard_size}
        stamp = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = folder / stamp
        self.decides, self.shards = decides, shards
        self.dtype = guess_dtype(versions)

    def missing(self, wanted: Iterable[int]) -> list[int]:
        """Those of the wanted shards that are not there yet, or not as they were written."""
        missing = [shard for shard in wanted if self._read(shard) is None]
        damaged = [shard for shard in missing if self._path(shard).exists()]
        if damaged:
            log.warning("%d damaged files in %s are guessed again", len(damaged), printable(str(self.folder)))
        return missing

    def write(self, shard: int, guesses: Guesses) -> None:
        """Keep a shard, whole or not at all."""
        if guesses.dtype != self.dtype or len(guesses) != len(self.shards.positions(shard)):
            raise ValueError(f"shard {shard} needs {len(self.shards.positions(shard))} guesses, got {len(guesses)}")
        if not (self.folder / "head.json").is_file():
            write_json(self.folder / "head.json", self.decides)
        content = io.BytesIO()
        np.save(content, guesses, allow_pickle=False)
        with whole_file(self._path(shard)) as part:
            part.write_bytes(content.getvalue() + hashlib.sha256(content.getvalue()).digest())

    def read(self) -> Guesses:
        """All guesses in order of the recordings: (n,), 40 bytes a recording with four versions.

        Raises:
            UserError: a shard is gone or damaged.
        """
        guesses = np.zeros(self.shards.size, self.dtype)
        for shard in range(len(self.shards)):
            own, found = self.shards.positions(shard), self._read(shard)
            if found is None:
                raise UserError(
                    f"{self._path(shard)} is gone or damaged: run the same command again, which guesses it anew"
                )
            guesses[own.start : own.stop] = found
        return guesses

    def _read(self, shard: int) -> Guesses | None:
        """The guesses of a shard; None where the file is not what was written."""
        count = len(self.shards.positions(shard))
        try:
            content = read_regular(self._path(shard), largest=_HEAD_BYTES + count * self.dtype.itemsize)
            if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
                return None
            guesses: Guesses = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception:  # noqa: BLE001  (whatever the parsers make of it: it is guessed again)
            return None
        return guesses if guesses.shape == (count,) and guesses.dtype == self.dtype else None

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.npy"


def guess_all(
    fabric: Fabric,
    classifier: EventClassifier,
    datamodule: EventDataModule,
    recordings: Recordings,
    store: GuessStore,
    *,
    versions: tuple[str, ...],
    progress: bool = True,
) -> None:
    """Guess what the store does not hold yet; every process takes its share, and all wait for the last.

    Args:
        fabric: launched; tells the device, the precision and which process this is.
        classifier: the teacher.
        datamodule: how recordings are read and viewed.
        recordings: all that are to be guessed.
        store: where the guesses go; killed at any moment, the next call goes on after the last whole shard.
        versions: of each recording, see :data:`eventclip.views.transform.VERSIONS`.
        progress: show a bar on the first process.
    """
    own = store.shards.of_rank(fabric.global_rank, fabric.world_size)
    wanted = store.missing(own)
    total = sum(len(store.shards.positions(shard)) for shard in own)
    left = sum(len(store.shards.positions(shard)) for shard in wanted)
    fabric.to_device(classifier)
    classifier.eval()
    pending = iter(wanted)
    shard, parts, held = next(pending, -1), [], 0
    bar = tqdm(
        desc="guessing", total=total, initial=total - left, unit="rec", disable=not progress or fabric.global_rank > 0
    )
    with bar:
        for batch in versions_loader(datamodule, recordings, versions, store.shards, wanted) if wanted else ():
            guesses = _guess(fabric, classifier, batch)
            parts.append(guesses)
            held += len(guesses)
            bar.update(len(guesses))
            if held == len(store.shards.positions(shard)):
                store.write(shard, np.concatenate(parts))
                shard, parts, held = next(pending, -1), [], 0
    fabric.barrier()


@torch.inference_mode()
def _guess(fabric: Fabric, classifier: EventClassifier, batch: dict[str, torch.Tensor]) -> Guesses:
    """Guess a batch: views uint8 (B, R, V, C, S, S) or features (B, R, V, D), and valid (B, R, V) -> (B,) guesses."""
    valid = fabric.to_device(batch["valid"])
    seen = {name: fabric.to_device(batch[name]).flatten(0, 1) for name in ("views", "features") if name in batch}
    with fabric.autocast():
        prediction = classifier(valid.flatten(0, 1), **seen)
    probabilities = prediction.probabilities.float().unflatten(0, valid.shape[:2])
    return summarise(probabilities.cpu().numpy())
