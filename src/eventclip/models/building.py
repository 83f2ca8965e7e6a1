"""Sections of a configuration -> built parts; every ``instantiate`` is here, and nothing of Lightning."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from eventclip.errors import UserError
from eventclip.files import fingerprint
from eventclip.models.classifier import EventClassifier
from eventclip.models.encoder import ClipEncoder
from eventclip.models.prompts import PromptFeatures, encode_prompts, find_sentences
from eventclip.models.tuning import tune

if TYPE_CHECKING:  # Hydra is for configurations alone; who builds a classifier from words needs none
    from omegaconf import DictConfig


def build(
    node: DictConfig,
    section: str,
    expected: type[Any] = object,
    *,
    arrange: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    **given: Any,
) -> Any:
    """Instantiate one section of the configuration.

    Args:
        node: the section, with its ``_target_``.
        section: its name, for messages.
        expected: what the result must be.
        arrange: makes the target's arguments of the section's values and what is given.
        given: objects that the configuration cannot hold.

    Raises:
        UserError: a key the target does not take, a value it refuses, or a target that does not exist.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        # Not handed to instantiate, which makes plain dicts of the dataclasses among them.
        built = instantiate(node, _convert_="all", **({"_partial_": True} if given else {}))
        built = built.func(**arrange({**built.keywords, **given})) if given else built
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever a part makes of its values)
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, UserError):
            raise cause from None
        # Whatever a target raises, it is of the values that it was given: those of ours are checked beforehand.
        reason = " ".join(str(cause or error).split()) or type(cause).__name__
        target = str(node.get("_target_", "") if hasattr(node, "get") else node).rsplit(".", 1)[-1]
        raise UserError(f"{section} ({target}) cannot be built: {reason}") from cause
    if not isinstance(built, expected):
        raise UserError(f"{section} must be {_article(expected)}, got {type(built).__name__}: check {section}._target_")
    return built


def build_classifier(
    config: DictConfig | dict[str, Any], class_names: Sequence[str], *, keep: bool = False
) -> EventClassifier:
    """Build CLIP, encode the classes' prompts, let learn what shall, and put the adapter on top.

    The text tower is dropped once the prompts are encoded.

    Args:
        config: its sections clip, tuning, adapter and classifier, and the seed.
        class_names: K names.
        keep: hold on to the towers as they were loaded and to the prompts' features, so that the next classifier of
            the same CLIP and prompts begins with a copy of them.

    Raises:
        UserError: a part of the configuration is wrong, or the image tower shall learn below an adapter of its own.
    """
    from omegaconf import DictConfig, OmegaConf

    cfg = config if isinstance(config, DictConfig) else OmegaConf.create(config)
    described: Any = OmegaConf.to_object(with_sentences(cfg, class_names).classifier)
    sentences = described.get("prompts_file")
    encoder, prompts = _encoded(cfg.clip, class_names, list(cfg.classifier.prompts), sentences, keep=keep)
    make_adapter = build(cfg.adapter, "adapter")
    given: dict[str, Any] = {"text_features": prompts.mean(), "logit_scale": encoder.logit_scale}
    if _takes(make_adapter, "prompt_features"):
        given["prompt_features"] = prompts
    if _takes(make_adapter, "projection"):
        given["projection"] = encoder.take_projection()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        adapter = call_partial(make_adapter, "adapter", **given)
    _tune(encoder, adapter, cfg)
    return EventClassifier(encoder, adapter, pooling=cfg.classifier.pooling)


_Encoded = tuple[ClipEncoder, PromptFeatures]
_kept: dict[str, _Encoded] = {}  # one at most


def _encoded(
    clip: DictConfig, class_names: Sequence[str], prompts: list[str], sentences: Any, *, keep: bool
) -> _Encoded:
    """CLIP without its text tower, and what that made of the prompts."""
    key = _key_of(clip, class_names, prompts, sentences) if keep else None
    if key in _kept:
        return copy.deepcopy(_kept[key])
    encoder: ClipEncoder = build(clip, "clip", ClipEncoder)
    features = encode_prompts(encoder, class_names, prompts, sentences)
    encoder.drop_text_tower()
    if key is None:
        return encoder, features
    _kept.clear()
    _kept[key] = encoder, features
    return copy.deepcopy(_kept[key])


def _key_of(clip: DictConfig, class_names: Sequence[str], prompts: list[str], sentences: Any) -> str:
    """What the towers and the prompts' features depend on, the state of CLIP's files among it."""
    from omegaconf import OmegaConf

    settings = cast("dict[str, Any]", OmegaConf.to_container(clip, resolve=True))
    files = [Path(value) for value in settings.values() if isinstance(value, str)]
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()]
    return fingerprint([settings, list(class_names), prompts, sentences, states])


def with_sentences(cfg: DictConfig, class_names: Sequence[str]) -> DictConfig:
    """The configuration with the sentences themselves in place of the file ``classifier.prompts_file`` that holds them.

    A checkpoint that carries it needs the file no more.

    Args:
        cfg: left as it is.
        class_names: of these classes.

    Raises:
        UserError: as for :func:`.find_sentences`.
    """
    from omegaconf import OmegaConf, open_dict

    given = cfg.classifier.get("prompts_file")
    plain = OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
    sentences = find_sentences(plain, class_names, "classifier.prompts_file")
    if sentences is None:
        return cfg
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.classifier.prompts_file = sentences
    return cfg


def call_partial(make: Any, section: str, **given: Any) -> Any:
    """Call a partial of the configuration; a wrong value in it is the user's mistake."""
    try:
        return make(**given)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{section} cannot be built: {' '.join(str(error).split())}") from error


def _takes(make: Any, argument: str) -> bool:
    """Whether the class behind a partial of the configuration asks for an argument."""
    kind = getattr(make, "func", None)
    return isinstance(kind, type) and argument in inspect.signature(kind).parameters


def _tune(encoder: ClipEncoder, adapter: nn.Module, cfg: DictConfig) -> None:
    """Let parts of the image tower learn, which goes with learned text features and no other adapter."""
    parts = cfg.tuning.parts
    chosen = parts if isinstance(parts, str) else [str(part) for part in parts]
    lora = {"lora_targets": cfg.tuning.lora_targets, "lora_rank": cfg.tuning.lora_rank}
    call_partial(tune, "tuning", encoder=encoder, parts=chosen, seed=cfg.seed, **lora)
    further = {name for name, _ in adapter.named_parameters()} - {"text_features"}
    if further and any(p.requires_grad for p in encoder.parameters()):
        raise UserError(
            f"tuning={chosen} trains the image tower, dropout-free and with no adapter but the text features, and "
            f"{type(adapter).__name__} has {len(further)} tensors of its own: set adapter=text, or tuning=frozen"
        )


def _article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"
