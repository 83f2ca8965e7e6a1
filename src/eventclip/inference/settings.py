"""From the settings of ``predict`` and ``show`` to a model, or to the eyes of one."""

from __future__ import annotations

from typing import Any

from eventclip.errors import UserError
from eventclip.inference.api import EventCLIP
from eventclip.inference.looking import Looking, SensorRenderer


def build_model(settings: dict[str, Any]) -> EventCLIP:
    """Build the model that ``conf/classify.yaml`` describes, once resolved to plain values.

    Raises:
        UserError: neither or both of checkpoint and classes, settings that do not go with them, or a wrong value.
    """
    checkpoint, classes = settings["checkpoint"], settings["classes"]
    if (checkpoint is None) == (classes is None):
        raise UserError("give either classes=[mug,scissors], the words to choose from, or checkpoint=FILE")
    frames, views = _given(settings, "frames"), _given(settings, "views")
    prompts, clip = settings["prompts"], settings.get("clip")
    common = {"device": settings["device"], "batch_views": settings["batch_views"]}
    if clip is not None:
        common["clip"] = clip
    if classes is not None:
        for key in ("other_sensors", "trust"):
            if settings[key]:
                raise UserError(f"{key}=true is for checkpoints: with classes there is nothing it could mean")
        return EventCLIP.zero_shot(
            classes, prompts=prompts, time_unit=settings["time_unit"], **frames, **views, **common
        )
    own = [f"frames.{key}" for key in frames] + [f"views.{key}" for key in views]
    own += [key for key in ("prompts", "time_unit") if settings[key] is not None]
    if own:
        raise UserError(f"{own[0]} is what the checkpoint says itself: leave it out, or give classes in its place")
    return EventCLIP.from_checkpoint(
        checkpoint, other_sensors=settings["other_sensors"], trust=settings["trust"], **common
    )


def build_looking(settings: dict[str, Any]) -> Looking:
    """Views without a model: as zero-shot would get them, for images of ``image_size``."""
    return Looking(
        image_size=settings["image_size"],
        renderer_for=SensorRenderer(**_given(settings, "frames")),
        time_unit=settings["time_unit"],
        **_given(settings, "views"),
    )


def _given(settings: dict[str, Any], section: str) -> dict[str, Any]:
    return {key: value for key, value in settings[section].items() if value is not None}
