"""Classify event recordings of one's own, with one's own words or with what a checkpoint has learned."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeGuard, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray

from eventclip.adapters.paper import IdentityAdapter
from eventclip.class_names import check_class_names
from eventclip.errors import RecordingError, UserError
from eventclip.events.array import check_sensor
from eventclip.events.frames import FrameRenderer, views_per_recording
from eventclip.events.windows import SlidingWindow, Window
from eventclip.inference.batching import ViewBatches, unit
from eventclip.inference.reading import Recording, RecordingReader, SensorViews
from eventclip.inference.result import Classification, RecordingViews, WindowClassification
from eventclip.io.formats import ReadOptions, check_options
from eventclip.models.building import build
from eventclip.models.checkpoint import load_classifier, rebuilding
from eventclip.models.classifier import EventClassifier
from eventclip.models.encoder import ClipEncoder
from eventclip.models.factory import Clip, clip_options, load_clip
from eventclip.models.prompts import Sentences, encode_classes, find_sentences
from eventclip.parallel import map_ordered
from eventclip.progress import tqdm
from eventclip.views.transform import ViewTransform

PAPER_PROMPT, TINY_PROMPT = "a point cloud image of a {}", "a sketch image of a {}"

_READERS, _AHEAD = 2, 8  # threads that read and render, and recordings that may wait for the model


class EventCLIP:
    """A classifier of event recordings; :meth:`zero_shot` and :meth:`from_checkpoint` build it too.

    Example:
        >>> from eventclip import EventCLIP
        >>> model = EventCLIP.zero_shot(["star", "anchor"], clip="tiny")
        >>> result = model.classify("star.npy", sensor_hw=(128, 128))
        >>> result.label, result.probability > 0.5
        ('star', True)
        >>> model.features(["star.npy"], sensor_hw=(128, 128)).shape
        (1, 128)

    Args:
        classifier: encoder, adapter and pooling.
        class_names: K different names, in the order of the classifier's classes.
        views: how recordings become views: a :class:`.ViewTransform` for all; a function from a sensor's (height,
            width) [px] to one; or a reader that knows what was trained on as well. None chooses the events of a view by
            the sensor's size, see :class:`.SensorViews`.
        device: "cpu", "cuda", "cuda:1" …; None takes a GPU where there is one.
        batch_views: views that go through CLIP at once, about; only speed and memory depend on it.

    Raises:
        UserError: a device that is not there, a number below 1, or views that CLIP does not take.
    """

    def __init__(
        self,
        classifier: EventClassifier,
        class_names: Sequence[str],
        *,
        views: ViewTransform | Callable[[tuple[int, int]], ViewTransform] | RecordingReader | None = None,
        device: str | torch.device | None = None,
        batch_views: int = 64,
    ) -> None:
        self.class_names = tuple(check_class_names(class_names, "classes"))
        self._batches = ViewBatches(classifier, self.class_names, device=device, batch_views=batch_views)
        if views is None:
            views = SensorViews(image_size=classifier.encoder.image_size)
        elif isinstance(views, ViewTransform):
            if views.image_size != classifier.encoder.image_size or views.augmentation is not None:
                raise UserError(
                    f"views= must be without augmentation and of the {classifier.encoder.image_size} pixels that CLIP "
                    f"takes: give ViewTransform(renderer, image_size={classifier.encoder.image_size})"
                )
            views = partial(_always, views)
        self.reader = views if isinstance(views, RecordingReader) else RecordingReader(views)

    @property
    def encoder(self) -> ClipEncoder:
        """The CLIP that looks at the views."""
        return self._batches.classifier.encoder

    @classmethod
    def zero_shot(
        cls,
        classes: Sequence[str],
        *,
        clip: Clip = "ViT-L-14/openai",
        prompts: Sequence[str] | str | None = None,
        prompts_file: str | Path | Sentences | None = None,
        events_per_frame: int | None = None,
        max_views: int = 10,
        resize_mode: str = "crop",
        color: str = "gray",
        white_background: bool = True,
        hot_pixel_std: float = 10.0,
        time_unit: str | None = None,
        reading: ReadOptions | None = None,
        device: str | torch.device | None = None,
        batch_views: int = 64,
    ) -> EventCLIP:
        """CLIP as it is: no labelled recording needed.

        Args:
            classes: K different names to choose from, as one would say them; one of them will be the most probable,
                whether or not any is there, so name what else may be in view.
            clip: "ViT-L-14/openai" or any architecture and weights that open_clip knows (downloaded once), "tiny" for
                the small one that travels with the package and knows its own symbols alone, or arguments of
                `load_clip`, such as ``{"arch": "ViT-B-32", "pretrained": "/data/ViT-B-32.pt"}``.
            prompts: a sentence with ``{}`` where a class's name goes, or several that are averaged; None is the
                paper's "a point cloud image of a {}" (for "tiny" the "a sketch image of a {}" it was trained on).
            prompts_file: further prompts of each class, whole sentences: a JSON or YAML file of lists by class name, or
                such a mapping.
            events_per_frame: N, events in each view; None chooses by the sensor's size, see
                :func:`eventclip.events.frames.events_per_frame_for`.
            max_views: most views of a recording, evenly spread over it.
            resize_mode: "crop" (the middle square, as the paper), "pad" (all of a wide sensor) or "stretch".
            color: "gray" as the paper, or "rgb".
            white_background: False is black, as on N-Cars.
            hot_pixel_std: counts that far above the mean are hot pixels and left out; 0 keeps all.
            time_unit: unit of time in tables (.npy, .npz, HDF5, text), "s", "ms", "us" or "ns"; None tells it by the
                numbers, and says so in the notes of the result.
            reading: how to read files that leave it open: the order of their columns, which of several cameras, and so
                on; each method can be given another one.
            device: where to compute; None takes a GPU where there is one.
            batch_views: views that go through CLIP at once, about.

        Raises:
            UserError: a wrong option, class list or CLIP, told in a sentence.
        """
        views = SensorViews(
            image_size=1,
            events_per_frame=events_per_frame,
            max_views=max_views,
            resize_mode=resize_mode,
            color=color,
            white_background=white_background,
            hot_pixel_std=hot_pixel_std,
        )
        reading = reading or ReadOptions()
        if time_unit is not None:
            reading = replace(reading, time_unit=time_unit)
        check_options(reading)
        names = check_class_names(classes, "classes")
        sentences = find_sentences(prompts_file, names, "prompts_file")
        classifier = _zero_shot_classifier(names, clip, prompts, sentences)  # after wrong options were told
        views = replace(views, image_size=classifier.encoder.image_size)
        reader = RecordingReader(views, reading=reading)
        return cls(classifier, names, views=reader, device=device, batch_views=batch_views)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        classes: Sequence[str] | None = None,
        prompts_file: str | Path | Sentences | None = None,
        clip: Clip | None = None,
        other_sensors: bool = False,
        trust: bool = False,
        reading: ReadOptions | None = None,
        device: str | torch.device | None = None,
        batch_views: int = 64,
    ) -> EventCLIP:
        """What ``python -m eventclip.train`` has trained; classifies exactly as its test did.

        Args:
            path: the checkpoint, ``checkpoints/last.ckpt`` of a run's folder.
            classes: other names to choose from than those that it learned with, as for :meth:`zero_shot`, where it
                learned with an adapter that leaves the text as it is (prolip, visual, clip_adapter, identity).
            prompts_file: with ``classes``, sentences of them, as for :meth:`zero_shot`.
            clip: where its CLIP is now, as for :meth:`zero_shot`, if not where it was in training; another CLIP is
                refused.
            other_sensors: classify recordings of sensors it was not trained on, too.
            trust: run code outside this package that the checkpoint names, such as an adapter of one's own.
            reading: as for :meth:`zero_shot`; where it leaves the unit of time open, the one of the training holds.
            device: where to compute; None takes a GPU where there is one.
            batch_views: views that go through CLIP at once, about.

        Raises:
            UserError: no checkpoint of ours, or one that does not fit; told in a sentence.
        """
        path = Path(path).expanduser()
        names = None if classes is None else check_class_names(classes, "classes")
        classifier, metadata = load_classifier(path, trust=trust, clip=clip, classes=names, prompts_file=prompts_file)
        with rebuilding(path):
            reader = _trained_reader(path, metadata["config"], classifier.encoder.image_size, other_sensors, reading)
        names = metadata["class_names"] if names is None else names
        return cls(classifier, names, views=reader, device=device, batch_views=batch_views)

    def views(
        self, recording: Recording, *, sensor_hw: Sequence[int] | None = None, reading: ReadOptions | None = None
    ) -> RecordingViews:
        """What CLIP gets of a recording; arguments and errors as for :meth:`classify`."""
        return self.reader.views(recording, sensor_hw, reading)

    @overload
    def classify(  # type: ignore[overload-overlap]  # a path is a sequence of letters, too
        self, recordings: Recording, *, sensor_hw: Sequence[int] | None = None, reading: ReadOptions | None = None
    ) -> Classification: ...

    @overload
    def classify(
        self,
        recordings: Sequence[Recording],
        *,
        sensor_hw: Sequence[int] | None = None,
        reading: ReadOptions | None = None,
    ) -> list[Classification]: ...

    def classify(
        self,
        recordings: Recording | Sequence[Recording],
        *,
        sensor_hw: Sequence[int] | None = None,
        reading: ReadOptions | None = None,
    ) -> Classification | list[Classification]:
        """Classify one recording, or a list of them in batches.

        Args:
            recordings: a path, an array of events (structured with fields t [µs], x, y, p, or (N, 4) numbers x, y, t,
                p as in the EST releases), or a list of either.
            sensor_hw: height and width of the sensor [px] of all of them; needed where a file does not tell (.npy,
                .npz, .bin, text, arrays), unless a checkpoint does; it wins over what a file tells.
            reading: how to read them, where not as the model was told.

        Returns:
            One result for one recording; for a list, a list in its order.

        Raises:
            RecordingError: of the first recording that cannot be classified; :meth:`classify_each` goes on.
            UserError: a sensor_hw that is none.
        """
        if _is_one(recordings):
            return self._batches.classify([self.reader.views(recordings, sensor_hw, reading)])[0]
        results = []
        several = cast("Sequence[Recording]", recordings)
        for result in self.classify_each(several, sensor_hw=sensor_hw, reading=reading):
            if isinstance(result, RecordingError):
                raise result
            results.append(result)
        return results

    def classify_each(
        self,
        recordings: Iterable[Recording],
        *,
        sensor_hw: Sequence[int] | None = None,
        reading: ReadOptions | None = None,
    ) -> Iterator[Classification | RecordingError]:
        """Classify recordings as they come, in batches, reading ahead.

        Args:
            recordings: as for :meth:`classify`; read as they are needed.
            sensor_hw: as for :meth:`classify`.
            reading: as for :meth:`classify`.

        Returns:
            For each recording in order its classification, or the error that tells why it has none.
        """
        for looked, found in self._batches.classified(self._looked_at(recordings, sensor_hw, reading)):
            if found is not None:
                yield found
            elif isinstance(looked, RecordingError):
                yield looked

    @overload
    def features(
        self,
        recordings: Recording | Iterable[Recording],
        *,
        per_view: Literal[False] = False,
        sensor_hw: Sequence[int] | None = None,
        reading: ReadOptions | None = None,
    ) -> NDArray[np.float32]: ...

    @overload
    def features(
        self,
        recordings: Recording | Iterable[Recording],
        *,
        per_view: Literal[True],
        sensor_hw: Sequence[int] | None = None,
        reading: ReadOptions | None = None,
    ) -> list[NDArray[np.float32]]: ...

    def features(
        self,
        recordings: Recording | Iterable[Recording],
        *,
        per_view: bool = False,
        sensor_hw: Sequence[int] | None = None,
        reading: ReadOptions | None = None,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """CLIP's image features of recordings, for retrieval, clustering or a head of one's own.

        Args:
            recordings: n of them, as for :meth:`classify`; one alone is n = 1.
            per_view: give the features of every view.
            sensor_hw: as for :meth:`classify`.
            reading: as for :meth:`classify`.

        Returns:
            (n, D) float32: of each recording the mean over its views of unit features, brought to unit length. With
            ``per_view`` a list of (v, D), unit length, v as many as the recording has views.

        Raises:
            RecordingError: of the first recording that cannot be read.
        """
        several = [recordings] if _is_one(recordings) else cast("Iterable[Recording]", recordings)
        found: list[NDArray[np.float32]] = []
        for looked, features in self._batches.encoded(self._looked_at(several, sensor_hw, reading)):
            if isinstance(looked, RecordingError):
                raise looked
            if features is not None:
                found.append(features)
        if per_view:
            return found
        means = np.stack([each.mean(axis=0) for each in found]) if found else np.zeros((0, self.encoder.width))
        return unit(means.astype(np.float32))

    def classify_windows(
        self,
        recording: Recording,
        *,
        window_events: int | None = None,
        window_us: int | None = None,
        step_events: int | None = None,
        step_us: int | None = None,
        sensor_hw: Sequence[int] | None = None,
        reading: ReadOptions | None = None,
        progress: bool = False,
    ) -> Iterator[WindowClassification]:
        """Slide a window over a recording of any length; each window is classified as a recording by itself.

        The recording is read in pieces (an ``.npz`` is read whole), so memory does not grow with its length.

        Args:
            recording: as for :meth:`classify`.
            window_events: events in a window; or
            window_us: time of a window [µs].
            step_events: events from one window to the next; None is the window, without overlap.
            step_us: the same for windows of time [µs].
            sensor_hw: as for :meth:`classify`.
            reading: as for :meth:`classify`.
            progress: show a bar on stderr.

        Returns:
            Windows in order of time. All windows of time in a row without an event are one, which is not classified.

        Raises:
            RecordingError: as for :meth:`classify`; a flaw is raised where it is reached.
            UserError: a window that is none, see :class:`eventclip.events.windows.SlidingWindow`.
        """
        slide = SlidingWindow(events=window_events, us=window_us, step_events=step_events, step_us=step_us)
        name, hw, stream = self.reader.stream(recording, sensor_hw, reading)

        def look(
            sliding: tuple[Window, tuple[str, ...]],
        ) -> tuple[tuple[Window, tuple[str, ...]], RecordingViews | None]:
            window, _ = sliding
            return sliding, self.reader.views_of(window.events, hw, name=name) if len(window.events) else None

        def noted(windows: Iterable[Window]) -> Iterator[tuple[Window, tuple[str, ...]]]:
            """Each window with what is newly known of the file; the last one waits for the end of it."""
            said, before = 0, None
            for window in itertools.chain(windows, [None]):
                if before is not None:
                    yield before, tuple(stream.notes[said:])
                    said = len(stream.notes)
                before = window

        def classified() -> Iterator[WindowClassification]:
            with tqdm(
                total=stream.total, unit="ev", unit_scale=True, desc=Path(name).name, disable=not progress
            ) as bar:
                chunks = (bar.update(len(chunk)) or chunk for chunk in stream.chunks)
                empty = True
                looked = map_ordered(look, noted(slide(chunks)), _READERS, threads=True, ahead=_AHEAD)
                for (window, notes), found in self._batches.classified(looked):
                    empty = False
                    yield WindowClassification(window, found, notes)
                if empty:
                    raise RecordingError(f"{name} holds no events: remove it or record it again")

        return classified()

    def _looked_at(
        self, recordings: Iterable[Recording], sensor_hw: Sequence[int] | None, reading: ReadOptions | None
    ) -> Iterator[tuple[RecordingViews | RecordingError, RecordingViews | RecordingError]]:
        """The views of each recording, or why there are none, twice: as what comes back, and as what is worked on."""

        def look(recording: Recording) -> RecordingViews | RecordingError:
            try:
                return self.reader.views(recording, sensor_hw, reading)
            except RecordingError as error:
                return error

        return ((one, one) for one in map_ordered(look, recordings, _READERS, threads=True, ahead=_AHEAD))


def _is_one(recordings: Recording | Iterable[Recording]) -> TypeGuard[Recording]:
    """Whether this is one recording, not several; what is none of either is one that cannot be read."""
    return isinstance(recordings, str | bytes | os.PathLike | np.ndarray | torch.Tensor) or not isinstance(
        recordings, Iterable
    )


def _zero_shot_classifier(
    names: list[str], clip: Clip, prompts: Sequence[str] | str | None, sentences: Sentences | None
) -> EventClassifier:
    """CLIP as it is, told the classes."""
    options = clip_options(clip)
    try:
        encoder = load_clip(**options)
    except TypeError as error:
        raise UserError(f"clip cannot be built: {error}") from error
    if prompts is None:
        tiny = options.get("config") == clip_options("tiny")["config"]
        prompts = TINY_PROMPT if tiny else PAPER_PROMPT
    templates = [prompts] if isinstance(prompts, str) else list(prompts)
    text_features = encode_classes(encoder, names, templates, sentences)
    encoder.drop_text_tower()
    return EventClassifier(encoder, IdentityAdapter(text_features, encoder.logit_scale))


def _trained_reader(
    path: Path, config: dict[str, Any], image_size: int, other_sensors: bool, reading: ReadOptions | None
) -> RecordingReader:
    """The views that a training was tested with."""
    from omegaconf import OmegaConf

    renderer: FrameRenderer = build(OmegaConf.create(config["frames"]), "frames", FrameRenderer)
    data, views = config["data"], config["views"]
    transform = ViewTransform(
        renderer,
        image_size=image_size,
        max_views=views_per_recording(data["p95_events"], renderer.events_per_frame, views["evaluation_views"]),
        resize_mode=views["resize_mode"],
    )
    trained = data.get("sensor_hw")
    check_sensor(trained)
    return RecordingReader(
        partial(_always, transform),
        reading=reading,
        trained_hw=None if trained is None else (int(trained[0]), int(trained[1])),
        other_sensors=other_sensors,
        trained_unit=data.get("time_unit"),
        checkpoint=path,
    )


def _always(transform: ViewTransform, sensor_hw: tuple[int, int]) -> ViewTransform:  # noqa: ARG001  (any is served)
    return transform
