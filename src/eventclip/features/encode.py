"""A stream of views -> their features, in batches of one size so that a feature depends on its view alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eventclip.errors import UserError
from eventclip.models.encoder import ClipEncoder

DTYPES = {"fp16": np.float16, "fp32": np.float32}
AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
"""Precisions of Lightning's Trainer under which the tower runs in lower precision than its weights have."""

_AT_ONCE = 64
_AT_ONCE_ON_CPU = 32  # whose activations fit the blocks that the allocator keeps
# Matrix kernels change with the shape: below 16 views or so a view's features differ in their last bits from those of
# the same view in a larger batch. Measured on CPU with ViT-B/32, RN50 and the tiny CLIP: from 16 on they are the same
# to the last bit, whatever else is in the batch and wherever the view stands.
_FEWEST = 32


def encode_in_batches(
    encoder: ClipEncoder, pieces: Iterable[Tensor], *, dtype: str = "fp32", precision: str = "32-true"
) -> NDArray[np.floating[Any]]:
    """Encode views with nothing to learn.

    Args:
        encoder: CLIP, on whatever device.
        pieces: uint8 (n, C, S, S), any number of views each, taken one after the other.
        dtype: "fp16" or "fp32", of the result.
        precision: the Trainer's; see :data:`AUTOCAST`.

    Returns:
        (sum of n, D) raw image features.

    Raises:
        UserError: features that are not finite in ``dtype``.
    """
    device = encoder.pixel_scale.device
    # As the loader pinned them: put together first, they would be pageable again, and the copy could overlap nothing.
    there = (piece.to(device, non_blocking=True) for piece in pieces)
    at_once = _AT_ONCE_ON_CPU if device.type == "cpu" else _AT_ONCE
    batches = [_encode(encoder, views, dtype, AUTOCAST.get(precision)) for views in _batches(there, at_once)]
    return np.concatenate(batches) if batches else np.zeros((0, encoder.width), DTYPES[dtype])


def _batches(pieces: Iterable[Tensor], at_once: int) -> Iterator[Tensor]:
    """The same views in batches of one size, the last one smaller."""
    waiting: list[Tensor] = []
    for piece in pieces:
        waiting.append(piece)
        while sum(map(len, waiting)) >= at_once:
            together = torch.cat(waiting)
            yield together[:at_once]
            waiting = [together[at_once:]]
    if sum(map(len, waiting)):
        yield torch.cat(waiting)


def _encode(encoder: ClipEncoder, views: Tensor, dtype: str, autocast: torch.dtype | None) -> NDArray[np.floating[Any]]:
    filled = torch.cat([views, views.new_zeros(max(_FEWEST - len(views), 0), *views.shape[1:])])
    with torch.inference_mode(), torch.autocast(views.device.type, autocast) if autocast else nullcontext():
        exact = encoder.encode_views(filled)[: len(views)].cpu().numpy()
    with np.errstate(over="ignore"):
        features: NDArray[np.floating[Any]] = exact.astype(DTYPES[dtype])
    if not np.isfinite(features).all():
        raise UserError(
            f"the image tower's features do not fit {dtype} (largest {np.abs(exact).max():.3g}): set "
            f"features.dtype=fp32, or check clip.pretrained if it is that already"
        )
    return features
