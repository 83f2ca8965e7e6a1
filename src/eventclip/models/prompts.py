"""Class names -> prompts -> text features."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from eventclip.class_names import as_clip_reads
from eventclip.errors import UserError
from eventclip.models.encoder import ClipEncoder


def fill_prompts(template: str, class_names: Sequence[str]) -> list[str]:
    """Say each class's name in a template.

    Args:
        template: a sentence with ``{}`` where the name goes ("a point cloud image of a {}").
        class_names: K names.

    Raises:
        UserError: the template does not have exactly one ``{}``.
    """
    if template.count("{}") != 1:
        raise UserError(f"prompt {template!r} must hold {{}} once, where the class name goes")
    return [template.replace("{}", name) for name in class_names]


def encode_classes(encoder: ClipEncoder, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Text features of classes: the mean over templates of unit features, brought to unit length.

    Args:
        encoder: CLIP, with its text tower.
        class_names: K different names.
        templates: one prompt, or an ensemble of them.

    Returns:
        (K, D), unit length.

    Raises:
        UserError: no template or no class, a template without ``{}``, or two names that CLIP reads alike.
    """
    if not templates or not class_names:
        raise UserError("at least one prompt (classifier.prompts) and one class name are needed")
    read = [as_clip_reads(name) for name in class_names]
    twice = next((name for name, same in zip(class_names, read, strict=True) if read.count(same) > 1), None)
    if twice is not None:
        raise UserError(f"two classes are called {twice!r}: prompts cannot tell them apart; give data.class_names")
    features = [encoder.encode_text(fill_prompts(template, class_names)) for template in templates]
    if len(features) == 1:
        return features[0]
    total = features[0]
    for more in features[1:]:
        total = total + more
    return F.normalize(total, dim=-1)
