"""Views of many recordings go through the model together, and what it makes of them comes back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from eventclip.adapters.support import SupportAdapter
from eventclip.errors import UserError, whole
from eventclip.features.encode import encode_in_batches
from eventclip.inference.result import Classification, RecordingViews
from eventclip.models.classifier import EventClassifier

T = TypeVar("T")
R = TypeVar("R")

_LONGEST_WAIT = 4  # batches: where views are rare among what waits, smaller ones cost less than rows that do not come


class ViewBatches:
    """Classify or encode views in batches of some size.

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
        self.class_names, self.batch_views = class_names, whole(batch_views, "batch_views")
        try:
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            self.classifier = classifier.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"device={device} cannot be used ({reason}): give cpu, or a GPU that is there") from error

    def classified(self, items: Iterable[tuple[T, Any]]) -> Iterator[tuple[T, Classification | None]]:
        """The classification of each (tag, views), None where it has no views; see :func:`in_batches`."""
        return in_batches(items, self.classify, self.batch_views)

    def encoded(self, items: Iterable[tuple[T, Any]]) -> Iterator[tuple[T, NDArray[np.float32] | None]]:
        """The features of each (tag, views), None where it has no views; see :func:`in_batches`."""
        return in_batches(items, self.encode, self.batch_views)

    @torch.inference_mode()
    def classify(self, batch: list[RecordingViews]) -> list[Classification]:
        """Classify recordings together: their views, filled up to equally many, go through CLIP at once."""
        if not batch:
            return []
        most = max([len(views.pixels) for views in batch])
        pixels = np.zeros((len(batch), most, *batch[0].pixels.shape[1:]), np.uint8)
        valid = np.zeros(pixels.shape[:2], np.bool_)
        for row, shown, views in zip(pixels, valid, batch, strict=True):
            row[: len(views.pixels)], shown[: len(views.pixels)] = views.pixels, True
        prediction = self.classifier(torch.from_numpy(pixels).to(self.device), torch.from_numpy(valid).to(self.device))
        probabilities = prediction.probabilities.float().cpu().numpy()
        if probabilities.shape[-1] != len(self.class_names):
            raise UserError(
                f"the classifier has {probabilities.shape[-1]} classes and {len(self.class_names)} class names were "
                f"given: give one name for each, in the classifier's order"
            )
        by_view = prediction.view_logits.float().softmax(dim=-1).cpu().numpy()
        found = []
        for overall, each, views in zip(probabilities, by_view, batch, strict=True):
            found.append(Classification(self.class_names, overall, each[: len(views.pixels)], views))
        return found

    def encode(self, batch: list[RecordingViews]) -> list[NDArray[np.float32]]:
        """Features of each recording's views, (v, D) of unit length."""
        if not batch:
            return []
        features = encode_in_batches(self.classifier.encoder, (torch.from_numpy(views.pixels) for views in batch))
        if isinstance(self.classifier.adapter, SupportAdapter):  # what it learned of the tower itself is CLIP's, too
            features = self.classifier.adapter.project(torch.from_numpy(features).to(self.device)).cpu().numpy()
        ends = np.cumsum([len(views) for views in batch])[:-1]
        return np.split(unit(features.astype(np.float32)), ends)


def in_batches(
    items: Iterable[tuple[T, Any]], work: Callable[[list[RecordingViews]], list[R]], batch_views: int
) -> Iterator[tuple[T, R | None]]:
    """Do ``work`` on the views among ``items`` (tag, views or something else) in batches, keeping the order.

    What needs no work comes at once where no view is waiting before it, and never waits behind one for more than a few
    batches' worth of its like.
    """
    waiting: list[tuple[T, Any]] = []
    views_waiting = 0

    def done() -> Iterator[tuple[T, R | None]]:
        results = iter(work([views for _, views in waiting if isinstance(views, RecordingViews)]))
        for tag, views in waiting:
            yield tag, next(results) if isinstance(views, RecordingViews) else None

    for tag, views in items:
        if not waiting and not isinstance(views, RecordingViews):
            yield tag, None
            continue
        waiting.append((tag, views))
        views_waiting += len(views) if isinstance(views, RecordingViews) else 0
        if views_waiting >= batch_views or len(waiting) >= _LONGEST_WAIT * batch_views:
            yield from done()
            waiting, views_waiting = [], 0
    yield from done()


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, D) features at unit length."""
    scaled: NDArray[np.float32] = features / np.linalg.norm(features, axis=-1, keepdims=True)
    return scaled
