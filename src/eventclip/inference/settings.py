"""Settings of ``predict`` and ``show``: told where they do not go together, before torch is there; then built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventclip.class_names import check_class_names
from eventclip.errors import UserError
from eventclip.events.windows import SlidingWindow
from eventclip.inference.listing import find_recordings
from eventclip.io.formats import ReadOptions, check_options

if TYPE_CHECKING:
    from eventclip.inference.api import EventCLIP
    from eventclip.inference.reading import RecordingReader

READING = ("file_format", "time_unit", "columns", "stream", "sort", "drop_outside")
"""The settings that say how files are read, where they leave it open."""


def read_options(settings: dict[str, Any]) -> ReadOptions:
    """How ``conf/classify.yaml`` says that files are read."""
    return ReadOptions(**{name: settings[name] for name in READING})


def check_choices(settings: dict[str, Any]) -> None:
    """Refuse settings of which some would not be looked at.

    Args:
        settings: of ``conf/classify.yaml``, plain values.

    Raises:
        UserError: neither checkpoint nor classes, settings that do not go with them, classes that no prompt can tell
            apart, a checkpoint that is not there, or a way to read files that there is not.
    """
    check_options(read_options(settings))
    checkpoint, classes = settings["checkpoint"], settings["classes"]
    if checkpoint is None and classes is None:
        raise UserError("give either classes=[mug,scissors], the words to choose from, or checkpoint=FILE")
    if classes is not None:
        check_class_names(classes, "classes")
    if checkpoint is None:
        for key in ("other_sensors", "trust"):
            if settings[key]:
                raise UserError(f"{key}=true is for checkpoints: with classes there is nothing it could mean")
        return
    own = [
        f"{section}.{key}"
        for section in ("frames", "views")
        for key, value in settings[section].items()
        if value is not None
    ]
    theirs = ["prompts", *(["prompts_file"] if classes is None else [])]  # other words have other sentences
    own += [key for key in theirs if settings.get(key) is not None]
    if own:
        raise UserError(f"{own[0]} is what the checkpoint says itself: leave it out, or give classes without it")
    if not Path(checkpoint).expanduser().is_file():
        raise UserError(
            f"there is no checkpoint {checkpoint}: give the path of a .ckpt file that eventclip.train wrote"
        )


def check_table(settings: dict[str, Any]) -> None:
    """Refuse a table or pictures that cannot be written as asked for.

    Args:
        settings: of ``conf/predict.yaml``, plain values.

    Raises:
        UserError: another suffix than a table's, a timeline without windows, or windows that cannot slide.
    """
    out = settings["out"]
    if out is not None and Path(out).suffix.lower() not in (".csv", ".jsonl"):
        raise UserError(f"out={out} must end in .csv or .jsonl")
    window = {name: settings[f"window_{name}"] for name in ("events", "us")}
    steps = {name: settings[name] for name in ("step_events", "step_us")}
    if any(value is not None for value in (*window.values(), *steps.values())):
        SlidingWindow(**window, **steps)
    elif settings["timeline"] is not None:
        raise UserError("timeline= shows windows: give window_us=100_000, window_events=20_000 or the like as well")


def check_recordings(paths: Sequence[Path]) -> None:
    """Refuse to begin where not one of the recordings is there.

    Raises:
        UserError: names the first.
    """
    if paths and not any(path.exists() for path in paths):
        more = f" (nor any of {len(paths) - 1} more)" if len(paths) > 1 else ""
        raise UserError(f"there is no recording {paths[0]}{more}: give files, folders or globs that are there")


def check_prediction(settings: dict[str, Any]) -> None:
    """Refuse what ``predict`` could not do, as far as it can be known before anything is loaded.

    Args:
        settings: of ``conf/predict.yaml``, plain values.

    Raises:
        UserError: no recordings, settings that do not go together, or a table that cannot be written.
    """
    found = find_recordings(settings["recordings"], out=settings["out"])
    check_choices(settings)
    check_table(settings)
    check_recordings(found.paths)


def check_showing(settings: dict[str, Any]) -> None:
    """Refuse what ``show`` could not do, as far as it can be known before anything is loaded.

    Args:
        settings: of ``conf/show.yaml``, plain values.

    Raises:
        UserError: no recording, settings that do not go together, or a picture that cannot be written.
    """
    from eventclip.plots.views import check_picture

    check_picture(Path(settings["out"]), top=settings["top"], gif_ms=settings["gif_ms"])
    if settings["checkpoint"] is not None or settings["classes"] is not None:
        check_choices(settings)
    check_recordings([Path(settings["recording"]).expanduser()])


def build_model(settings: dict[str, Any]) -> EventCLIP:
    """Build the model that ``conf/classify.yaml`` describes, once resolved to plain values.

    Raises:
        UserError: neither checkpoint nor classes, settings that do not go with them, or a wrong value.
    """
    from eventclip.inference.api import EventCLIP

    check_choices(settings)
    checkpoint, classes = settings["checkpoint"], settings["classes"]
    common = {"device": settings["device"], "batch_views": settings["batch_views"], "reading": read_options(settings)}
    if settings.get("clip") is not None:
        common["clip"] = settings["clip"]
    if settings.get("prompts_file") is not None:
        common["prompts_file"] = settings["prompts_file"]
    if checkpoint is None:
        return EventCLIP.zero_shot(classes, prompts=settings["prompts"], **_given(settings), **common)
    return EventCLIP.from_checkpoint(
        checkpoint, classes=classes, other_sensors=settings["other_sensors"], trust=settings["trust"], **common
    )


def build_reader(settings: dict[str, Any]) -> RecordingReader:
    """Views without a model: as zero-shot would get them, for images of ``image_size``."""
    from eventclip.inference.reading import RecordingReader, SensorViews

    views = SensorViews(image_size=settings["image_size"], **_given(settings))
    return RecordingReader(views, reading=read_options(settings))


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value for section in ("frames", "views") for key, value in settings[section].items() if value is not None
    }
