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

    Asked for by ``(epoch, position)``, as a :class:`RecordingDataset` is. A sample is {"features": float32 (V, D),
    zero where there is no view, "valid": bool (V,), "label": int, "index": int}.

    Args:
        recordings: in order.
        rows: features of every recording, pass after pass.
        max_views: V.
        passes: K; epoch e reads pass e modulo K.
    """

    def __init__(self, recordings: Recordings, rows: Rows, *, max_views: int, passes: int = 1) -> None:
        self.recordings, self.rows = recordings, rows
        self.max_views, self.passes = max_views, passes

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, position = key
        stored = self.rows[epoch % self.passes * len(self) + position]
        features = torch.zeros(self.max_views, stored.shape[1])
        features[: len(stored)] = torch.from_numpy(stored.astype(np.float32))
        return {
            "features": features,
            "valid": torch.arange(self.max_views) < len(stored),
            "label": int(self.recordings.labels[position]),
            "index": position,
        }
