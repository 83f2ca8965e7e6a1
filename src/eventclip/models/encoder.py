"""CLIP's two towers: event frames and prompts in, features out. Nothing else here knows what is inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eventclip.errors import UserError
from eventclip.models.activation import needs_quick_gelu
from eventclip.models.factory import (
    PRECISIONS,
    Tokenizer,
    build_clip,
    build_tokenizer,
    find_architecture,
    lower_precision,
)
from eventclip.models.layout import arrange, mistakes_of_compiling
from eventclip.models.weights import (
    download_weights,
    fill,
    find_weight_file,
    read_weight_file,
    weights_sha256,
)

_PROMPTS_AT_ONCE = 256


class ClipEncoder(nn.Module):
    """A frozen CLIP over open_clip: views -> (…, D) raw image features, prompts -> (K, D) unit text features.

    Nothing learns until `tuning.tune` says so, and no layer is ever in training mode: batch norms keep the
    statistics that CLIP was trained with, and there is no dropout (EventCLIP fine-tunes without).

    Args:
        arch: open_clip name ("ViT-B-32"; OpenAI's spelling "ViT-B/32" as well).
        pretrained: a tag of `arch` ("openai", downloaded once), a local file, or null for untrained weights.
            A file holds a state dict in OpenAI's or open_clip's layout (.pt, .pth, .bin, .safetensors), or is
            a TorchScript archive as OpenAI publishes. Reading it never runs code.
        config: JSON file of an own architecture, in place of `arch`.
        quick_gelu: whether activations are QuickGELU. Null takes what the weights need: what is known of
            the tag, what a file tells (see :func:`.activation.needs_quick_gelu`), or what the architecture says.
        mean: per-channel pixel mean, values in [0, 1]. Null takes what is known of the weights, or OpenAI's.
        std: per-channel pixel standard deviation, alike.
        cache_dir: where downloaded weights lie; null is open_clip's own place.
        precision: "fp32", or "fp16" / "bf16" to store the weights in half precision (frozen towers only).
        init_seed: draws untrained weights; no global generator is touched.
        compiled: whether torch.compile makes kernels for the image tower when it first sees views.

    Attributes:
        image_size: side S of the square images that the image tower takes [px].
        width: feature width D.
        logit_scale: factor from cosine similarity to logits, exp of the weights' own parameter.
        weights_sha256: checksum of the loaded weights, whatever file they came from.

    Raises:
        UserError: an unknown architecture or tag, a missing, unreadable or misfitting file, one with weights that
            are not finite or that does not tell its activation, no network, or an unknown precision.
    """

    pixel_scale: Tensor
    pixel_bias: Tensor

    def __init__(
        self,
        arch: str | None = "ViT-B-32",
        pretrained: str | None = None,
        *,
        config: str | Path | None = None,
        quick_gelu: bool | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        cache_dir: str | Path | None = None,
        precision: str = "fp32",
        init_seed: int = 0,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        _check_choices(precision, {"quick_gelu": quick_gelu, "compiled": compiled})
        cache = None if cache_dir is None else str(cache_dir)
        architecture = find_architecture(arch, config)
        published = {}
        if architecture.builtin and pretrained is not None:
            published = open_clip.get_pretrained_cfg(architecture.name, pretrained)
        source, tensors = None, {}
        if published:
            source = download_weights(architecture.name, str(pretrained), cache)
        elif pretrained is not None:
            source = find_weight_file(architecture.name, pretrained)
            tensors = read_weight_file(source)
        if quick_gelu is None:
            told = published.get("quick_gelu", False) if published else architecture.options.get("quick_gelu")
            quick_gelu = bool(told) if source is None or published else needs_quick_gelu(source, architecture, tensors)
        model = build_clip(architecture, quick_gelu=quick_gelu, precision=precision, seed=init_seed)
        if source is not None:
            fill(model, source, tensors, arch=architecture.name)
        self.weights_sha256 = weights_sha256(model)
        self.logit_scale = float(model.get_parameter("logit_scale").detach().exp())
        lower_precision(model, architecture, precision)

        self.precision, self.compiled = precision, compiled
        self.width = int(architecture.options["embed_dim"])
        self.image_size = _square_side(model.get_submodule("visual"), architecture.name)
        self._described: dict[str, Any] = {
            "arch": architecture.name,
            "pretrained": pretrained,
            "config": None if config is None else str(config),
            "quick_gelu": quick_gelu,
            "init_seed": init_seed,
            "compiled": compiled,
        }
        self._options = architecture.options
        self.visual = model.get_submodule("visual")
        self._layout = arrange(self.visual, compiled=compiled)
        # What remains of the model is its text side; `encode_text` needs nothing of the image tower.
        del model.visual
        self.text_tower: nn.Module | None = model
        self._tokenizer: Tokenizer | None = build_tokenizer(architecture, cache)

        stated = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        stated |= {key: published[key] for key in stated if key in published} | architecture.preprocess
        mean = tuple(stated["mean"] if mean is None else mean)
        std = tuple(stated["std"] if std is None else std)
        if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise UserError(f"clip.mean={mean} and clip.std={std} need three values each, std above 0")
        self._described |= {"mean": list(mean), "std": list(std)}
        self.register_buffer("pixel_scale", 1 / (255 * torch.tensor(std)).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_bias", -(torch.tensor(mean) / torch.tensor(std)).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> ClipEncoder:
        """Stay in evaluation mode, whatever is asked: see the class."""
        return super().train(mode=False)

    def encode_views(self, views: Tensor) -> Tensor:
        """Encode event frames.

        Args:
            views: uint8 (..., C, S, S), C = 1 for gray or 3.

        Returns:
            (..., D) raw image features, float32.

        Raises:
            ValueError: views of another type or size.
        """
        side = self.image_size
        if (
            views.dtype != torch.uint8
            or views.ndim < 3
            or views.shape[-2:] != (side, side)
            or views.shape[-3] not in {1, 3}
        ):
            raise ValueError(
                f"views are {views.dtype} {tuple(views.shape)}, expected uint8 (..., 1 or 3, {side}, {side})"
            )
        # (pixel / 255 - mean) / std as one operation on the device; a gray channel broadcasts to three.
        scale = self.pixel_scale
        return self.encode_pixels(torch.addcmul(self.pixel_bias, views.to(scale.dtype), scale))

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Encode images that already have CLIP's mean and std: float (..., 3, S, S) -> raw features (..., D)."""
        images = pixels.reshape(math.prod(pixels.shape[:-3]), *pixels.shape[-3:])
        if not len(images):  # open_clip's towers cannot take an empty batch
            return pixels.new_zeros(*pixels.shape[:-3], self.width, dtype=torch.float32)
        images = images.to(PRECISIONS[self.precision], memory_format=self._layout)
        with mistakes_of_compiling() if self.compiled else nullcontext():
            features: Tensor | tuple[Tensor, ...] = self.visual(images)
        if isinstance(features, tuple):  # CoCa's towers give the tokens too
            features = features[0]
        return features.float().reshape(*pixels.shape[:-3], self.width)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts: K sentences -> (K, D), unit length, float32.

        Raises:
            UserError: the text tower was dropped.
        """
        if self.text_tower is None or self._tokenizer is None:
            raise UserError("the text tower was dropped after the prompts were encoded: build the encoder again")
        encode = cast("Callable[[Tensor], Tensor]", self.text_tower.encode_text)
        device = self.pixel_scale.device
        parts = []
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            tokens = self._tokenizer(list(prompts[start : start + _PROMPTS_AT_ONCE])).to(device)
            parts.append(F.normalize(encode(tokens).float(), dim=-1))
        return torch.cat(parts)

    def drop_text_tower(self) -> None:
        """Free the text tower; nothing can be encoded as text afterwards."""
        self.text_tower, self._tokenizer = None, None

    def describe_image_tower(self) -> dict[str, Any]:
        """Plain values that decide the features of given views: weights as they are now, not where they came from."""
        # Compiled kernels sum in another order: the last bits differ, and a bank's rows shall be of one kind. Told only
        # where it is so, which leaves every other tower its bank.
        kernels = {"compiled": True} if self.compiled else {}
        return kernels | {
            "vision": self._options["vision_cfg"],
            "width": self.width,
            **{key: self._described[key] for key in ("quick_gelu", "mean", "std")},
            "precision": self.precision,
            "weights_sha256": weights_sha256(self.visual),
        }

    def describe(self) -> dict[str, Any]:
        """Plain values that tell which CLIP this is and build it again."""
        return {
            **self._described,
            "precision": self.precision,
            "image_size": self.image_size,
            "width": self.width,
            "logit_scale": self.logit_scale,
            "weights_sha256": self.weights_sha256,
        }


def _square_side(visual: nn.Module, arch: str) -> int:
    size = cast("int | tuple[int, int]", visual.image_size)
    sides = {size} if isinstance(size, int) else {int(side) for side in size}
    if len(sides) != 1:
        raise UserError(f"clip.arch={arch} takes images of {size} pixels: expected a tower with square images")
    return sides.pop()


def _check_choices(precision: str, switches: dict[str, bool | None]) -> None:
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise UserError(f"clip.precision={precision} is unknown: expected one of {', '.join(PRECISIONS)}")
    for name, switch in switches.items():
        if not isinstance(switch, bool | None):
            raise UserError(f"clip.{name}={switch!r} must be true or false")
