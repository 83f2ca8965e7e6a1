"""From the settings of ``predict`` and ``show`` to a model, or to the eyes of one."""

from __future__ import annotations

from typing import Any

from eventclip.inference.api import EventCLIP
from eventclip.inference.choices import check_choices, read_options
from eventclip.inference.reading import Looking, SensorRenderer


def build_model(settings: dict[str, Any]) -> EventCLIP:
    """Build the model that ``conf/classify.yaml`` describes, once resolved to plain values.

    Raises:
        UserError: neither or both of checkpoint and classes, settings that do not go with them, or a wrong value.
    """
    check_choices(settings)
    checkpoint, classes = settings["checkpoint"], settings["classes"]
    frames, views = _given(settings, "frames"), _given(settings, "views")
    prompts, clip = settings["prompts"], settings.get("clip")
    common = {"device": settings["device"], "batch_views": settings["batch_views"], "reading": read_options(settings)}
    if clip is not None:
        common["clip"] = clip
    if classes is not None:
        return EventCLIP.zero_shot(classes, prompts=prompts, **frames, **views, **common)
    return EventCLIP.from_checkpoint(
        checkpoint, other_sensors=settings["other_sensors"], trust=settings["trust"], **common
    )


def build_looking(settings: dict[str, Any]) -> Looking:
    """Views without a model: as zero-shot would get them, for images of ``image_size``."""
    return Looking(
        image_size=settings["image_size"],
        renderer_for=SensorRenderer(**_given(settings, "frames")),
        reading=read_options(settings),
        **_given(settings, "views"),
    )


def _given(settings: dict[str, Any], section: str) -> dict[str, Any]:
    return {key: value for key, value in settings[section].items() if value is not None}
