"""Build classifiers to look at recordings with: zero-shot from class names, or as a checkpoint left it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eventclip.adapters.paper import IdentityAdapter
from eventclip.class_names import check_class_names
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer
from eventclip.inference.looking import Looking
from eventclip.models.checkpoint import check_card, read_checkpoint
from eventclip.models.classifier import EventClassifier
from eventclip.models.encoder import ClipEncoder
from eventclip.models.prompts import encode_classes
from eventclip.views.square import views_per_recording

Clip = str | Mapping[str, Any]
"""Which CLIP: "tiny", an architecture of open_clip and a tag of its weights ("ViT-L-14/openai"), or arguments of
:class:`eventclip.models.encoder.ClipEncoder` for weights or an architecture of one's own."""

PAPER_PROMPT, TINY_PROMPT = "a point cloud image of a {}", "a sketch image of a {}"
_TINY = Path(__file__).parents[1] / "assets" / "tiny_clip"


def clip_options(clip: Clip) -> dict[str, Any]:
    """Arguments of `ClipEncoder` for a CLIP named in short."""
    if not isinstance(clip, str):
        return {key: value for key, value in clip.items() if key != "_target_"}
    if clip == "tiny":
        return {"arch": None, "config": str(_TINY / "tiny.json"), "pretrained": str(_TINY / "tiny.safetensors")}
    arch, _, tag = clip.rpartition("/")  # OpenAI's spelling of an architecture has a slash as well
    if not arch or not tag:
        raise UserError(
            f"clip={clip!r} names no CLIP: expected 'tiny', or an architecture and its weights such as "
            f"'ViT-L-14/openai'; weights in a file are given as {{'arch': ..., 'pretrained': FILE}}"
        )
    return {"arch": arch, "config": None, "pretrained": tag}


def zero_shot_classifier(
    classes: Sequence[str], clip: Clip, prompts: Sequence[str] | str | None, *, pooling: str = "mean"
) -> EventClassifier:
    """CLIP as it is, told the classes.

    Raises:
        UserError: no class, an empty or a repeated one, a prompt without ``{}``, or a CLIP that cannot be built.
    """
    names = check_class_names(classes, "classes")
    options = clip_options(clip)
    try:
        encoder = ClipEncoder(**options)
    except TypeError as error:
        raise UserError(f"clip cannot be built: {error}") from error
    if prompts is None:
        tiny = options.get("config") == clip_options("tiny")["config"]
        prompts = TINY_PROMPT if tiny else PAPER_PROMPT
    text_features = encode_classes(encoder, names, [prompts] if isinstance(prompts, str) else list(prompts))
    encoder.drop_text_tower()
    return EventClassifier(encoder, IdentityAdapter(text_features, encoder.logit_scale), pooling=pooling)


def trained_classifier(
    path: Path, clip: Clip | None, *, trust: bool, other_sensors: bool
) -> tuple[EventClassifier, list[str], Looking]:
    """A classifier as a checkpoint left it, its classes, and the views it was tested with.

    Raises:
        UserError: no checkpoint, one that names code outside eventclip, another CLIP than it was trained on, or
            tensors that do not fit.
    """
    checkpoint = read_checkpoint(path, trust=trust)
    card = checkpoint["eventclip"]
    config: dict[str, Any] = card["config"]
    if clip is None and str(config["clip"].get("config")).endswith("tiny_clip/tiny.json"):
        clip = "tiny"  # it travels with the package, whose place is another one on each machine
    if clip is not None:
        config = {**config, "clip": {**config["clip"], **clip_options(clip)}}
    try:
        return _built(path, checkpoint, config, other_sensors=other_sensors)
    except UserError as error:
        if str(path) in str(error):
            raise
        raise UserError(f"{path} cannot be built again from its card: {error}") from error
    except Exception as error:  # whatever a part of ours makes of a value that it would never have stored
        reason = " ".join(str(error).split()) or "no reason given"
        raise UserError(
            f"{path} cannot be built again from its card ({type(error).__name__}: {reason}): give another checkpoint"
        ) from error


def _built(
    path: Path, checkpoint: dict[str, Any], config: dict[str, Any], *, other_sensors: bool
) -> tuple[EventClassifier, list[str], Looking]:
    from omegaconf import OmegaConf

    from eventclip.training.building import build, build_classifier  # Hydra, which nothing else here needs

    names = list(checkpoint["eventclip"]["class_names"])
    cfg = OmegaConf.create({key: config[key] for key in ("clip", "tuning", "frames", "adapter", "classifier", "seed")})
    classifier = build_classifier(cfg, names)
    check_card(path, checkpoint, {"clip": classifier.encoder.describe(), "class_names": names})
    classifier.load_learned_state_dict(checkpoint["state_dict"])
    renderer: FrameRenderer = build(cfg.frames, "frames", FrameRenderer)
    trained = config["data"].get("sensor_hw")
    looking = Looking(
        image_size=classifier.encoder.image_size,
        renderer_for=lambda _: renderer,
        max_views=views_per_recording(
            config["data"]["percentile_events"], renderer.events_per_frame, config["views"]["evaluation_views"]
        ),
        fit=config["views"]["fit"],
        trained_hw=None if trained is None else (int(trained[0]), int(trained[1])),
        other_sensors=other_sensors,
        trained_unit=config["data"].get("time_unit"),
    )
    return classifier, names, looking
