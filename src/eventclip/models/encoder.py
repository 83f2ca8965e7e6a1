"""CLIP's two towers: event frames and prompts in, features out. Nothing else here knows what is inside."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor, nn

from eventclip.errors import UserError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Tokenizer = Callable[[Sequence[str]], Tensor]
"""Prompts -> (K, length) token numbers."""

_PROMPTS_AT_ONCE = 256


@dataclass(frozen=True)
class Preprocess:
    """What an image tower takes.

    Attributes:
        image_size: side S of its square images [px].
        mean: of each channel, values in [0, 1].
        std: standard deviation of each channel, alike.

    Raises:
        UserError: a mean or deviation that is none.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        mean, std = self.mean, self.std
        if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise UserError(f"clip.mean={mean} and clip.std={std} need three values each, std above 0")


class ClipEncoder(nn.Module):
    """A frozen CLIP: views -> (…, D) raw image features, prompts -> (K, D) unit text features.

    Nothing learns until `tuning.tune` says so, and no layer is ever in training mode: batch norms keep the
    statistics that CLIP was trained with, and there is no dropout (EventCLIP fine-tunes without).

    Example:
        >>> import torch
        >>> from eventclip import load_clip
        >>> encoder = load_clip("tiny")
        >>> type(encoder).__name__
        'ClipEncoder'
        >>> encoder.encode_views(torch.zeros(2, 1, encoder.image_size, encoder.image_size, dtype=torch.uint8)).shape
        torch.Size([2, 128])
        >>> encoder.encode_text(["a sketch image of a star"]).shape
        torch.Size([1, 128])

    Args:
        visual: image tower, (B, 3, S, S) -> (B, D), its weights stored in `precision`.
        text: module with ``encode_text``, tokens -> (K, D), and the parameter ``logit_scale``, a logarithm.
        tokenizer: prompts -> tokens.
        preprocess: what images the tower takes.
        origin: plain values that tell where it comes from and build it again; see :meth:`describe`.
        precision: "fp32", "fp16" or "bf16", of the weights.
        compiled: whether torch.compile makes kernels for the image tower when it first sees views.

    Attributes:
        image_size: side S of the square images that the image tower takes [px].
        width: feature width D.
        logit_scale: factor from cosine similarity to logits.
        weights_sha256: checksum of the weights, whatever file they came from.

    Raises:
        UserError: an unknown precision.
    """

    pixel_scale: Tensor
    pixel_bias: Tensor

    def __init__(
        self,
        visual: nn.Module,
        text: nn.Module,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        *,
        origin: Mapping[str, Any] | None = None,
        precision: str = "fp32",
        compiled: bool = False,
    ) -> None:
        super().__init__()
        check_precision(precision)
        self.visual, self.preprocess, self.precision, self.compiled = visual, preprocess, precision, compiled
        self.text_tower: nn.Module | None = text
        self._tokenizer: Tokenizer | None = tokenizer
        self._origin = dict(origin or {})
        # Told beforehand where the weights were stored in half precision since.
        scale, checksum = self._origin.get("logit_scale"), self._origin.get("weights_sha256")
        self.logit_scale = float(text.get_parameter("logit_scale").detach().exp()) if scale is None else float(scale)
        self.weights_sha256 = weights_sha256(self) if checksum is None else str(checksum)
        self._layout = _arrange(visual, compiled=compiled)
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        self.register_buffer("pixel_scale", 1 / (255 * std).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_bias", -(mean / std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()
        self.width = int(self._origin.get("width") or self._measured_width())

    @property
    def image_size(self) -> int:
        """Side S of the square images that the image tower takes [px]."""
        return self.preprocess.image_size

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Prompts -> token numbers; None once the text tower was dropped."""
        return self._tokenizer

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
                f"views are {views.dtype} {tuple(views.shape)}, expected uint8 (..., 1 or 3, {side}, {side}): "
                f"give image_size={side} to ViewTransform, or to the data module's connect()"
            )
        # (pixel / 255 - mean) / std as one operation on the device; a gray channel broadcasts to three.
        scale = self.pixel_scale
        return self.encode_pixels(torch.addcmul(self.pixel_bias, views.to(scale.dtype), scale))

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Encode images that already have CLIP's mean and std: float (..., 3, S, S) -> raw features (..., D)."""
        images = pixels.reshape(math.prod(pixels.shape[:-3]), *pixels.shape[-3:])
        if not len(images):  # open_clip's towers cannot take an empty batch
            return pixels.new_zeros(*pixels.shape[:-3], self.width, dtype=torch.float32)
        features = self._encode(images)
        return features.float().reshape(*pixels.shape[:-3], self.width)

    def _encode(self, images: Tensor) -> Tensor:
        images = images.to(PRECISIONS[self.precision], memory_format=self._layout)
        with _mistakes_of_compiling() if self.compiled else nullcontext():
            features: Tensor | tuple[Tensor, ...] = self.visual(images)
        return features[0] if isinstance(features, tuple) else features  # CoCa's towers give the tokens too

    @torch.no_grad()
    def _measured_width(self) -> int:
        side = self.image_size
        return int(self._encode(torch.zeros(1, 3, side, side, device=self.pixel_scale.device)).shape[-1])

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

    def take_projection(self) -> tuple[Tensor, Tensor]:
        """Cut the image tower's last linear map off: features are from then on what it took, (…, H).

        Returns:
            Weight (H, D) and bias (D,), float32, with which they become the features they were before, h W + b.

        Raises:
            UserError: the tower has no such map, or none any more.
        """
        place = _projection_of(self.visual)
        if place is None:
            raise UserError(
                f"the image tower of {self.describe()['arch']} has no last projection of its own that could learn: "
                f"give adapter=best, which needs none"
            )
        holder, name = place
        last = getattr(holder, name)
        if isinstance(last, nn.Parameter):  # ViT
            weight, bias = last, last.new_zeros(last.shape[1])
            setattr(holder, name, None)
        else:
            weight, bias = last.weight.T, last.weight.new_zeros(len(last.weight)) if last.bias is None else last.bias
            # A ResNet's attention takes the map for its own, so that one has to be there.
            setattr(holder, name, _same(last) if isinstance(holder, AttentionPool2d) else nn.Identity())
        self.width = len(weight)
        return weight.detach().float().contiguous(), bias.detach().float()

    def give_projection(self, weight: Tensor, bias: Tensor) -> None:
        """Let a tower whose last linear map was cut off end in another: W (H, D) and b (D,)."""
        visual, like = self.visual, next(self.visual.parameters())
        if hasattr(visual, "proj"):
            visual.proj = nn.Parameter(weight.to(like), requires_grad=False)
        else:
            last = nn.Linear(weight.shape[0], weight.shape[1], bias=bool(bias.any()))
            last.load_state_dict({"weight": weight.T, **({"bias": bias} if bias.any() else {})})
            last = last.requires_grad_(requires_grad=False).to(like)
            if hasattr(visual, "attnpool"):
                visual.attnpool.c_proj = last  # type: ignore[union-attr]
            else:
                visual.head.proj = last  # type: ignore[union-attr]
        self.width = weight.shape[1]

    def describe_image_tower(self) -> dict[str, Any]:
        """Plain values that decide the features of given views: weights as they are now, not where they came from."""
        # Compiled kernels sum in another order: the last bits differ, and the rows of a cache shall be of one kind.
        # Told only where it is so, which leaves every other tower its cache.
        kernels = {"compiled": True} if self.compiled else {}
        return kernels | {
            "vision": self._origin.get("vision", type(self.visual).__qualname__),
            "width": self.width,
            "quick_gelu": self._origin.get("quick_gelu"),
            **_listed(self.preprocess),
            "precision": self.precision,
            "weights_sha256": weights_sha256(self.visual),
        }

    def describe(self) -> dict[str, Any]:
        """Plain values that tell which CLIP this is and, with what :func:`.load_clip` adds, build it again."""
        unnamed = {"arch": type(self.visual).__qualname__, "pretrained": None}
        return {
            **unnamed,
            **{key: value for key, value in self._origin.items() if key != "vision"},
            "compiled": self.compiled,
            **_listed(self.preprocess),
            "precision": self.precision,
            "image_size": self.image_size,
            "width": self.width,
            "logit_scale": self.logit_scale,
            "weights_sha256": self.weights_sha256,
        }


def weights_sha256(model: nn.Module) -> str:
    """Checksum the values of all floating-point tensors, as float32 in the order of their names.

    The same weights give the same sum whichever file, layout or precision they were stored in.
    """
    digest = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()


def check_precision(precision: str) -> None:
    """Refuse a precision that there is not.

    Raises:
        UserError: lists those there are.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise UserError(f"clip.precision={precision} is unknown: expected one of {', '.join(PRECISIONS)}")


def _listed(preprocess: Preprocess) -> dict[str, list[float]]:
    return {key: list(value) for key, value in asdict(preprocess).items() if key != "image_size"}


def _projection_of(visual: nn.Module) -> tuple[nn.Module, str] | None:
    """Where a tower has its last linear map; None where it has none."""
    pool, head = getattr(visual, "attnpool", None), getattr(visual, "head", None)
    if isinstance(getattr(visual, "proj", None), nn.Parameter):  # ViT
        return visual, "proj"
    if isinstance(pool, AttentionPool2d):  # ResNet
        return pool, "c_proj"
    if isinstance(head, nn.Sequential) and isinstance(getattr(head, "proj", None), nn.Linear):  # timm's
        return head, "proj"
    return None


def _same(linear: nn.Linear) -> nn.Linear:
    """A map that leaves what another takes as it is."""
    same = nn.Linear(linear.in_features, linear.in_features)
    nn.init.eye_(same.weight)
    nn.init.zeros_(same.bias)
    return same.requires_grad_(requires_grad=False).to(linear.weight)


def _arrange(visual: nn.Module, *, compiled: bool) -> torch.memory_format:
    """Lay out a tower's weights in place, names and values as they are, and say how its images shall lie."""
    # Convolutions want the channels of a pixel side by side: on a CPU with AVX2, RN50 takes 0.74 of its time so, and
    # EfficientNet-Lite0 0.57. A transformer with its single one gains nothing.
    convolutions = sum(isinstance(module, nn.Conv2d) for module in visual.modules())
    layout = torch.channels_last if convolutions > 1 else torch.contiguous_format
    visual.to(memory_format=layout)
    if compiled:
        # In place, so that checkpoints and LoRA find the names they know. The first batch compiles for its own size,
        # the next size for any but a view alone.
        visual.compile()
    return layout


@contextmanager
def _mistakes_of_compiling() -> Iterator[None]:
    """Tell in a sentence where a tower cannot be compiled, most often for want of a C++ compiler.

    Raises:
        UserError: in place of torch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        from torch._dynamo.exc import TorchDynamoException  # takes seconds, and whoever compiled has it already

        if not isinstance(error, TorchDynamoException):
            raise
        cause = getattr(error, "inner_exception", error)
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise UserError(f"torch.compile fails on the image tower ({reason}): set clip.compiled=false") from error
