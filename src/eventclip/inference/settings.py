"""From the settings of ``predict`` and ``show`` to a model, or to the eyes of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventclip.errors import UserError
from eventclip.io.formats import ReadOptions, check_options

if TYPE_CHECKING:  # whoever only looks at the settings waits for no torch
    from eventclip.inference.api import EventCLIP
    from eventclip.inference.looking import Looking

_READING = ("file_format", "time_unit", "columns", "stream", "sort", "drop_outside")


def read_options(settings: dict[str, Any]) -> ReadOptions:
    """How ``conf/classify.yaml`` says that recordings are read.

    Raises:
        UserError: an option that no format has.
    """
    options = ReadOptions(**{key: settings[key] for key in _READING})
    check_options(options)
    return options


def check_settings(settings: dict[str, Any]) -> None:
    """Tell before anything is loaded whether ``conf/classify.yaml`` says who classifies, and how files are read.

    Raises:
        UserError: neither or both of checkpoint and classes, settings that do not go with them, or a wrong one.
    """
    read_options(settings)
    checkpoint, classes = settings["checkpoint"], settings["classes"]
    if (checkpoint is None) == (classes is None):
        raise UserError("give either classes=[mug,scissors], the words to choose from, or checkpoint=FILE")
    if classes is not None:
        for key in ("other_sensors", "trust"):
            if settings[key]:
                raise UserError(f"{key}=true is for checkpoints: with classes there is nothing it could mean")
        return
    own = [f"{section}.{key}" for section in ("frames", "views") for key in _given(settings, section)]
    own += ["prompts"] if settings["prompts"] is not None else []
    if own:
        raise UserError(f"{own[0]} is what the checkpoint says itself: leave it out, or give classes in its place")


def build_model(settings: dict[str, Any]) -> EventCLIP:
    """Build the model that ``conf/classify.yaml`` describes, once resolved to plain values.

    Raises:
        UserError: neither or both of checkpoint and classes, settings that do not go with them, or a wrong value.
    """
    from eventclip.inference.api import EventCLIP

    check_settings(settings)
    classes, prompts, clip = settings["classes"], settings["prompts"], settings.get("clip")
    common = {"device": settings["device"], "batch_views": settings["batch_views"], "reading": read_options(settings)}
    if clip is not None:
        common["clip"] = clip
    if classes is not None:
        frames, views = _given(settings, "frames"), _given(settings, "views")
        return EventCLIP.zero_shot(classes, prompts=prompts, **frames, **views, **common)
    return EventCLIP.from_checkpoint(
        str(settings["checkpoint"]), other_sensors=settings["other_sensors"], trust=settings["trust"], **common
    )


def build_looking(settings: dict[str, Any]) -> Looking:
    """Views without a model: as zero-shot would get them, for images of ``image_size``."""
    from eventclip.inference.looking import Looking, SensorRenderer

    return Looking(
        image_size=settings["image_size"],
        renderer_for=SensorRenderer(**_given(settings, "frames")),
        reading=read_options(settings),
        **_given(settings, "views"),
    )


def _given(settings: dict[str, Any], section: str) -> dict[str, Any]:
    return {key: value for key, value in settings[section].items() if value is not None}
