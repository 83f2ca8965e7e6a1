"""Class names, and sentences written for them -> prompts -> text features."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from eventclip.class_names import as_clip_reads
from eventclip.errors import UserError, reason, said
from eventclip.files import parse_json, read_text

if TYPE_CHECKING:
    from eventclip.models.encoder import ClipEncoder

log = logging.getLogger(__name__)

Sentences = Mapping[str, Sequence[str]]
"""Whole sentences by the name of the class that they are about."""

_LARGEST_FILE = 64 * 2**20
_SUFFIXES = (".json", ".yaml", ".yml")


@dataclass(frozen=True)
class PromptFeatures:
    """Text features of each class's prompts, one by one; classes may have different numbers of them.

    Example:
        >>> import torch
        >>> from eventclip.models.prompts import PromptFeatures
        >>> prompts = PromptFeatures(torch.eye(4).reshape(2, 2, 4), torch.tensor([[True, True], [True, False]]))
        >>> prompts.mean()
        tensor([[0.7071, 0.7071, 0.0000, 0.0000],
                [0.0000, 0.0000, 1.0000, 0.0000]])

    Attributes:
        features: (K, M, D) unit length; what invalid ones hold does not matter.
        valid: (K, M) bool, at least one of each class.
    """

    features: Tensor
    valid: Tensor

    def mean(self) -> Tensor:
        """The classes' text features: the mean of their prompts', brought to unit length (K, D)."""
        kept = self.features.masked_fill(~self.valid.unsqueeze(-1), 0.0)
        total = kept[:, 0]
        for more in kept.unbind(1)[1:]:
            total = total + more
        alone = self.valid.sum(dim=1, keepdim=True) == 1
        return torch.where(alone, total, F.normalize(total, dim=-1))

    def to(self, device: torch.device) -> PromptFeatures:
        """The same on a device."""
        return PromptFeatures(self.features.to(device), self.valid.to(device))

    def of_classes(self, classes: Tensor) -> PromptFeatures:
        """Those of some classes, in the order given."""
        return PromptFeatures(self.features[classes], self.valid[classes])


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


def encode_prompts(
    encoder: ClipEncoder, class_names: Sequence[str], templates: Sequence[str], sentences: Sentences | None = None
) -> PromptFeatures:
    """Text features of each class's prompts: the templates with its name filled in, then its own sentences.

    Args:
        encoder: CLIP, with its text tower.
        class_names: K different names.
        templates: prompts for every class; may be empty where there are sentences.
        sentences: of every class, by its name as CLIP reads it, see :func:`sentences_of`.

    Returns:
        Features (K, M, D) of up to M prompts a class.

    Raises:
        UserError: no prompt or no class, a template without ``{}``, two names that CLIP reads alike, or a class
            without sentences.
    """
    if not (templates or sentences) or not class_names:
        raise UserError("at least one prompt (classifier.prompts) and one class name are needed")
    read = [as_clip_reads(name) for name in class_names]
    twice = next((name for name, same in zip(class_names, read, strict=True) if read.count(same) > 1), None)
    if twice is not None:
        raise UserError(f"two classes are called {twice!r}: prompts cannot tell them apart; give data.class_names")
    columns = [encoder.encode_text(fill_prompts(template, class_names)) for template in templates]
    if not sentences:
        features = torch.stack(columns, dim=1)
        return PromptFeatures(features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device))
    own = list(sentences_of(class_names, sentences).values())
    encoded = encoder.encode_text([sentence for listed in own for sentence in listed])
    counts = torch.tensor([len(listed) for listed in own], device=encoded.device)
    written = torch.arange(int(counts.max()), device=encoded.device) < counts.unsqueeze(1)
    padded = encoded.new_zeros(*written.shape, encoded.shape[1])
    padded[written] = encoded
    if not columns:
        return PromptFeatures(padded, written)
    filled = torch.stack(columns, dim=1)
    valid = torch.cat([written.new_ones(filled.shape[:2]), written], dim=1)
    return PromptFeatures(torch.cat([filled, padded], dim=1), valid)


def encode_classes(
    encoder: ClipEncoder, class_names: Sequence[str], templates: Sequence[str], sentences: Sentences | None = None
) -> Tensor:
    """Text features of classes: the mean over prompts of unit features, brought to unit length.

    Args:
        encoder: CLIP, with its text tower.
        class_names: K different names.
        templates: one prompt, or an ensemble of them.
        sentences: further prompts of each class, as for :func:`encode_prompts`.

    Returns:
        (K, D), unit length.

    Raises:
        UserError: as for :func:`encode_prompts`.
    """
    return encode_prompts(encoder, class_names, templates, sentences).mean()


def find_sentences(given: Any, class_names: Sequence[str], key: str) -> dict[str, list[str]] | None:
    """The sentences of these classes, out of a file or of what a file held.

    Args:
        given: path of a file, see :func:`read_prompts_file`; a mapping as in one; or None.
        class_names: K names.
        key: the setting that it was given as, for messages.

    Returns:
        Sentences by class name, in the order of the classes; None where nothing was given.

    Raises:
        UserError: a file of no use, or a class that has no sentences.
    """
    if given is None:
        return None
    if isinstance(given, str | Path):
        read = read_prompts_file(given)
        wanted = {as_clip_reads(name) for name in class_names}
        if unknown := [name for name in read if as_clip_reads(name) not in wanted]:
            told = f"{len(unknown)} other classes, such as {said(unknown[0])}"
            log.warning("%s of %s has sentences of %s: left out", key, given, told)
        return sentences_of(class_names, read, f"{key}={given}")
    return sentences_of(class_names, check_sentences(given, key), key)


def read_prompts_file(path: str | Path) -> dict[str, list[str]]:
    """Read whole sentences about classes, such as descriptions, from JSON or YAML: class name -> list of sentences.

    Everything in YAML is taken as the text it is, so that a class may be called 0, no or null; it has no aliases.

    Raises:
        UserError: no such file, of another kind or damaged, or not sentences by class.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UserError(
            f"prompts_file={path} must end in {', '.join(_SUFFIXES)}: give JSON or YAML, class -> sentences"
        )
    try:
        text = read_text(path, largest=_LARGEST_FILE)
        content = parse_json(text) if suffix == ".json" else _parse_yaml(text)
    except (OSError, ValueError) as error:
        raise UserError(
            f"prompts_file={path} cannot be read ({reason(error)}): give JSON or YAML, class name -> list of sentences"
        ) from error
    return check_sentences(content, f"prompts_file={path}")


def check_sentences(content: Any, where: str) -> dict[str, list[str]]:
    """Sentences by class name as plain values, spaces at their ends cut off.

    Args:
        content: what was given for them, of any kind.
        where: it was given, for messages.

    Raises:
        UserError: no mapping of names to lists of texts, an empty one, two names that CLIP reads alike, or a sentence
            with ``{}`` or ``${`` in it.
    """
    if not isinstance(content, Mapping) or not content:
        held = "nothing" if not content else f"a {type(content).__name__}"
        raise UserError(f"{where} holds {held}, expected class name -> list of sentences, such as mug: [a cup for tea]")
    checked: dict[str, list[str]] = {}
    read: dict[str, str] = {}
    for name, listed in content.items():
        called = str(name).strip() if isinstance(name, str | int) and not isinstance(name, bool) else ""
        if not called:
            raise UserError(f"{where} has {said(name)} for a class name, expected a text: name a class there")
        other = read.setdefault(as_clip_reads(called), called)
        if called in checked or other != called:
            raise UserError(f"{where} has sentences of {said(other)} twice: put them into one list")
        if isinstance(listed, str | Mapping) or not isinstance(listed, Sequence) or not listed:
            raise UserError(f"{where} gives class {said(called)} {said(listed)}: expected a list of sentences")
        for sentence in listed:
            if not isinstance(sentence, str) or not sentence.strip():
                raise UserError(
                    f"{where} gives class {said(called)} {said(sentence)}, which is no sentence: leave it out"
                )
            told = f"{where} gives class {said(called)} {said(sentence)}"
            odd = next((mark for mark in ("{}", "${") if mark in sentence), None)
            if odd is not None:
                raise UserError(
                    f"{told}, and {odd} means nothing in a whole sentence: write the name itself, or give templates "
                    f"with classifier.prompts"
                )
        checked[called] = [sentence.strip() for sentence in listed]
    return checked


def sentences_of(class_names: Sequence[str], sentences: Sentences, where: str = "prompts_file") -> dict[str, list[str]]:
    """The sentences of some classes, in their order; a name is found as CLIP reads it, whatever its capitals.

    Args:
        class_names: K names.
        sentences: of these classes and perhaps others, which are left out.
        where: they were given, for messages.

    Raises:
        UserError: a class without sentences.
    """
    by_name = {as_clip_reads(name): listed for name, listed in sentences.items()}
    wanted = {as_clip_reads(name): name for name in class_names}
    missing = [name for read, name in wanted.items() if read not in by_name]
    if missing:
        more = f" and {len(missing) - 1} more classes" if len(missing) > 1 else ""
        unused = {read: name for name in sentences if (read := as_clip_reads(name)) not in wanted}
        close = [said(unused[read]) for read in difflib.get_close_matches(as_clip_reads(missing[0]), unused)]
        hint = f"its {' or '.join(close)} is close: call it as the class is" if close else "add a list of them"
        raise UserError(f"{where} has no sentences of class {missing[0]!r}{more}: {hint}")
    return {name: list(by_name[read]) for read, name in wanted.items()}


class _PlainLoader(yaml.BaseLoader):  # type: ignore[misc]
    """YAML whose every scalar is the text that it is; nothing in it builds, repeats or refers to anything."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse an alias: a few of them can make a file of any size."""
        if self.check_event(yaml.AliasEvent):
            raise ValueError(f"line {self.peek_event().start_mark.line + 1} has an alias, *name")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse a name that is there twice, of which only the last would count."""
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if any(not isinstance(name, str) for name in names):
            raise ValueError("it has a name that is no text")
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise ValueError(f"the name {said(twice)} is there twice")
        return super().construct_mapping(node, deep=deep)


def _parse_yaml(text: str) -> Any:
    """Read YAML as text.

    Raises:
        ValueError: it is no YAML, nested without end, has aliases, or a name twice.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506  (it makes nothing but texts, lists and mappings)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError:
        raise ValueError("its lists are nested too deeply") from None
