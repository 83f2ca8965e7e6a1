"""Samples whose features come from a bank in place of views."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from eventclip.datasets.dataset import Sample
from eventclip.datasets.recordings import Recordings
from eventclip.features.blocks import Rows


class BankedDataset(Dataset[Sample]):
    """Samples of a set of recordings with the features of their views, read from a bank.

    Asked for by ``(epoch, position)``, as a :class:`RecordingDataset` is. A sample is {"features": float32 (v, D),
    "label": int, "index": int}.

    Args:
        recordings: in order.
        rows: features of every recording, pass after pass.
        passes: K; epoch e reads pass e modulo K.
    """

    def __init__(self, recordings: Recordings, rows: Rows, *, passes: int = 1) -> None:
        self.recordings, self.rows = recordings, rows
        self.passes = passes

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, position = key
        stored = self.rows[epoch % self.passes * len(self) + position]
        return {
            "features": torch.from_numpy(stored.astype(np.float32)),
            "label": int(self.recordings.labels[position]),
            "index": position,
        }
