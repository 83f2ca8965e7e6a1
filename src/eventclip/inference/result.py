"""What is known of a recording once the model has looked at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import printable
from eventclip.events.windows import Window


class Label(NamedTuple):
    """A class and how probable it is, in [0, 1].

    Example:
        >>> from eventclip import Label
        >>> Label("star", 0.75).probability
        0.75
    """

    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class RecordingViews:
    """A recording as CLIP gets it.

    Attributes:
        name: where it came from: the file's path, or "the events array".
        pixels: uint8 (v, C, S, S), one view per window of events, C = 1 for gray and 3 for RGB.
        spans: (v, 2) first and past-the-end event of each view.
        times: (v, 2) times of the first and the last event of each view [µs], in the recording's own clock.
        events: number of events of the recording.
        sensor_hw: height and width of its sensor [px].
        events_per_frame: N, events in a view where the recording has as many.
        notes: sentences on how the file was read: the unit of time told from its numbers, events left out or sorted.
    """

    name: str
    pixels: NDArray[np.uint8]
    spans: NDArray[np.int64]
    times: NDArray[np.int64]
    events: int
    sensor_hw: tuple[int, int]
    events_per_frame: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, eq=False)
class Classification:
    """Probabilities of a recording, and of each view of it.

    Example:
        >>> from eventclip import EventCLIP
        >>> result = EventCLIP.zero_shot(["star", "anchor"], clip="tiny").classify("star.npy", sensor_hw=(128, 128))
        >>> type(result).__name__, result.label
        ('Classification', 'star')
        >>> [label.name for label in result.top(2)]
        ['star', 'anchor']

    Attributes:
        class_names: the K classes, in the order in which they were given.
        probabilities: (K,) in [0, 1] and together 1: the mean over the views.
        view_probabilities: (v, K) of each view, in the company of the others where an adapter mixes them.
        views: what the model looked at.
    """

    class_names: tuple[str, ...]
    probabilities: NDArray[np.floating[Any]]
    view_probabilities: NDArray[np.floating[Any]]
    views: RecordingViews

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.top(1)[0].name

    @property
    def probability(self) -> float:
        """Probability of the most probable class."""
        return self.top(1)[0].probability

    @property
    def labels(self) -> list[Label]:
        """All classes, the most probable first."""
        return self.top(len(self.class_names))

    def top(self, count: int = 5, *, view: int | None = None) -> list[Label]:
        """The most probable classes, the most probable first.

        Args:
            count: how many, or all K where there are fewer.
            view: of this view; None is the whole recording.
        """
        probabilities = self.probabilities if view is None else self.view_probabilities[view]
        best = np.argsort(-probabilities, kind="stable")[:count]
        return [Label(self.class_names[k], float(probabilities[k])) for k in best]

    def __repr__(self) -> str:
        listed = ", ".join(f"{name} {probability:.1%}" for name, probability in self.top(3))
        return (
            f"Classification({printable(self.views.name)}: {printable(listed)}; "
            f"{len(self.views)} view{'s' if len(self.views) > 1 else ''})"
        )


@dataclass(frozen=True, eq=False)
class WindowClassification:
    """What was found in one window of a recording.

    Example:
        >>> from eventclip import EventCLIP
        >>> model = EventCLIP.zero_shot(["star", "anchor"], clip="tiny")
        >>> windows = list(model.classify_windows("star.npy", window_us=100_000, sensor_hw=(128, 128)))
        >>> type(windows[0]).__name__, windows[0].found.label
        ('WindowClassification', 'star')

    Attributes:
        window: the events and the times of it.
        found: None where there are no events, in a window of time or in many in a row.
        notes: sentences on how the file was read that are not with a window before, see :class:`RecordingViews`.
    """

    window: Window
    found: Classification | None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        window = self.window
        return f"WindowClassification({window.start_us:,} to {window.end_us:,} µs: {self.found or 'no events'})"
