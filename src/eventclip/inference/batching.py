"""Views of many recordings go through the classifier together, and come back in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from eventclip.errors import UserError
from eventclip.classification import Classification, Views
from eventclip.models.classifier import EventClassifier

T = TypeVar("T")

_LONGEST_WAIT = 4  # batches: where views are rare among what waits, smaller ones cost less than rows that do not come


class BatchClassifier:
    """Classify views in batches of some size.

    Args:
        classifier: encoder, adapter and pooling.
        class_names: K names.
        device: where to compute; None takes a GPU where there is one.
        batch_views: views that go through CLIP at once, about.

    Raises:
        UserError: a device that is not there, or a number below 1.
    """

    def __init__(
        self,
        classifier: EventClassifier,
        class_names: tuple[str, ...],
        *,
        device: str | torch.device | None = None,
        batch_views: int = 64,
    ) -> None:
        if batch_views < 1:
            raise UserError(f"batch_views must be 1 or more, got {batch_views}")
        self.class_names, self.batch_views = class_names, batch_views
        try:
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            self.classifier = classifier.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"device={device} cannot be used ({reason}): give cpu, or a GPU that is there") from error

    def batched(self, items: Iterable[tuple[T, Any]]) -> Iterator[tuple[T, Classification | None]]:
        """Classify the views among ``items`` (tag, views or something else) in batches, keeping the order.

        What needs no view comes at once where no view is waiting before it, and never waits behind one for more than a
        few batches' worth of its like.
        """
        waiting: list[tuple[T, Any]] = []
        views_waiting = 0
        for tag, views in items:
            if not waiting and not isinstance(views, Views):
                yield tag, None
                continue
            waiting.append((tag, views))
            views_waiting += len(views) if isinstance(views, Views) else 0
            if views_waiting >= self.batch_views or len(waiting) >= _LONGEST_WAIT * self.batch_views:
                yield from self._flush(waiting)
                waiting, views_waiting = [], 0
        yield from self._flush(waiting)

    def _flush(self, waiting: list[tuple[T, Any]]) -> Iterator[tuple[T, Classification | None]]:
        found = iter(self([views for _, views in waiting if isinstance(views, Views)]))
        for tag, views in waiting:
            yield tag, next(found) if isinstance(views, Views) else None

    @torch.inference_mode()
    def __call__(self, batch: list[Views]) -> list[Classification]:
        """Classify recordings together: their views, filled up to equally many, go through CLIP at once."""
        if not batch:
            return []
        valid = np.arange(max(map(len, batch))) < np.array([len(views) for views in batch])[:, None]
        frames: NDArray[np.uint8] = batch[0].frames[None]
        if len(batch) > 1:
            frames = np.zeros((*valid.shape, *batch[0].frames.shape[1:]), np.uint8)
            for row, views in zip(frames, batch, strict=True):
                row[: len(views)] = views.frames
        prediction = self.classifier(
            torch.from_numpy(valid).to(self.device), views=torch.from_numpy(frames).to(self.device)
        )
        probabilities = prediction.probabilities.float().cpu().numpy()
        by_view = prediction.view_logits.float().softmax(dim=-1).cpu().numpy()
        return [
            Classification(self.class_names, overall, each[: len(views)], views)
            for overall, each, views in zip(probabilities, by_view, batch, strict=True)
        ]
