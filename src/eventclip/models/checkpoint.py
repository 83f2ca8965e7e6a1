"""The one door to checkpoints: read without running code, refused in a sentence where they do not fit, built again.

A checkpoint holds what learned, and metadata: plain values enough to rebuild the rest. Those of the paper's published
implementation are read here too, their names made ours. No Lightning, so that a trained classifier can be used without.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eventclip.class_names import as_clip_reads
from eventclip.errors import UserError, said
from eventclip.models.building import build_classifier
from eventclip.models.classifier import EventClassifier
from eventclip.models.factory import TINY, Clip, clip_options
from eventclip.models.prompts import Sentences, check_sentences, find_sentences
from eventclip.models.torch_files import is_bad_tensor, load_tensors
from eventclip.models.trust import refuse_foreign_code, refuse_foreign_name, refuse_what_is_not_plain

_OF_CLASSIFIER = ("clip", "tuning", "adapter", "classifier", "seed")
METADATA_FORMAT = 2
"""Layout version of a checkpoint's metadata."""

CLASSIFIER, ALIGNMENT = "classifier", "alignment"
"""What a checkpoint is of: a training, whose metadata say nothing of it, or an alignment on its way."""


def load_classifier(
    path: str | Path,
    *,
    trust: bool = False,
    clip: Clip | None = None,
    classes: Sequence[str] | None = None,
    prompts_file: str | Path | Sentences | None = None,
) -> tuple[EventClassifier, dict[str, Any]]:
    """Build a classifier as a checkpoint left it.

    Example:
        >>> from eventclip import load_classifier
        >>> classifier, metadata = load_classifier("last.ckpt")
        >>> metadata["class_names"]
        ['star', 'anchor', 'umbrella']

    Args:
        path: ``checkpoints/last.ckpt`` of a run's folder, or another that a training wrote.
        trust: run code outside eventclip that it names, such as an adapter of one's own.
        clip: where its CLIP is now, if not where it was in training: "ViT-L-14/openai", or arguments of
            :func:`.load_clip` that differ, such as ``{"aligned": FILE}``. Another CLIP is refused.
        classes: other names to choose from than those that it learned with, for adapters that know classes by their
            text alone (``open_vocabulary``).
        prompts_file: with ``classes``: sentences of them, see :func:`.find_sentences`; needed where it learned with
            such and has none of these classes.

    Returns:
        The classifier, on the CPU and in evaluation mode, and the metadata, see :func:`read_checkpoint`.

    Raises:
        UserError: no checkpoint, one that names code outside eventclip, another CLIP than it was trained on, other
            classes for an adapter that cannot have them, or whose sentences are missing, or tensors that do not fit.
    """
    path = Path(path).expanduser()
    checkpoint = read_checkpoint(path, trust=trust)
    metadata: dict[str, Any] = checkpoint["eventclip"]
    config: dict[str, Any] = metadata["config"]
    config = {**config, "clip": clip_here(config["clip"], clip)}
    names = list(metadata["class_names"])
    aligned = config["clip"].get("aligned")
    if aligned is not None and not Path(str(aligned)).expanduser().is_file():
        raise UserError(
            f"{path} was trained on a CLIP aligned by {said(aligned)}, which is not there: say where that file is now, "
            f"with clip.aligned=FILE in evaluate and pseudo_label, +clip.aligned=FILE in predict, show and export, or "
            f"clip={{'aligned': FILE}} in Python"
        )
    lacking = None
    if classes is None and prompts_file is not None:
        raise UserError("prompts_file is what the checkpoint says itself: leave it out, or give classes as well")
    if classes is not None:
        own, lacking = _sentences_of_others(config["classifier"].get("prompts_file"), classes, prompts_file)
        config["classifier"] = {**config["classifier"], "prompts_file": own}
    with rebuilding(path):
        classifier = build_classifier(
            {name: config[name] for name in _OF_CLASSIFIER}, names if classes is None else classes
        )
    if classes is not None and not getattr(classifier.adapter, "open_vocabulary", False):
        raise UserError(
            f"{path} learned with {type(classifier.adapter).__name__}, to which its own classes alone mean anything: "
            f"leave classes out, or train with adapter=prolip or gda, after which any words can be given"
        )
    if lacking is not None:
        raise UserError(
            f"{path} learned with sentences of its classes and has none of {lacking!r}: give prompts_file=FILE with "
            f"sentences of all classes that are given"
        )
    check_metadata(path, checkpoint, {"clip": classifier.encoder.describe(), "class_names": names})
    load_learned(path, checkpoint, classifier)
    return classifier.eval(), metadata


def _sentences_of_others(
    own: Sentences | None, classes: Sequence[str], given: str | Path | Sentences | None
) -> tuple[Sentences | None, str | None]:
    """Sentences of classes that a checkpoint did not learn with, and the first class of which there are none."""
    if given is not None or own is None:
        return find_sentences(given, classes, "prompts_file"), None
    known = {as_clip_reads(name): listed for name, listed in own.items()}
    lacking = next((name for name in classes if as_clip_reads(name) not in known), None)
    return (None, lacking) if lacking is not None else ({name: known[as_clip_reads(name)] for name in classes}, None)


def load_learned(path: Path, checkpoint: dict[str, Any], classifier: EventClassifier) -> None:
    """Put what a checkpoint learned into a classifier that was built as its own was.

    Args:
        path: of the checkpoint, for messages.
        checkpoint: what :func:`read_checkpoint` gave.
        classifier: built from the same configuration; its adapter, if it was fitted, tells how again.

    Raises:
        UserError: tensors, or what is said of the fit, do not fit.
    """
    with rebuilding(path):
        classifier.load_learned_state_dict(checkpoint["state_dict"])
        if hasattr(classifier.adapter, "resize_for"):  # then tensors must fit each other, too
            with torch.no_grad():
                classifier(features=torch.zeros(1, 1, classifier.encoder.width))
    fitted = checkpoint["eventclip"].get("fitted", {})
    if not isinstance(fitted, dict) or not all(isinstance(value, str | int | float) for value in fitted.values()):
        raise UserError(f"{path} is damaged: fitted in its metadata is {said(fitted)}, expected values by name")
    adapter: Any = classifier.adapter
    if hasattr(adapter, "fitted"):
        adapter.fitted = dict(fitted)


def clip_here(trained: dict[str, Any], clip: Clip | None) -> dict[str, Any]:
    """Arguments for the CLIP of a checkpoint, as they were in training, with what is said of it now laid over them."""
    here = dict(trained)
    # What travels with the package has another place on each machine.
    for key in ("config", "pretrained", "aligned"):
        *_, folder, name = ["", *str(here.get(key)).replace("\\", "/").split("/")]
        if folder == TINY.name and (TINY / name).is_file():
            here[key] = str(TINY / name)
    return here if clip is None else {**here, **clip_options(clip)}


@contextmanager
def rebuilding(path: Path) -> Iterator[None]:
    """Tell in a sentence whatever a part of ours makes of a value that it would never have stored.

    Raises:
        UserError: in place of any error.
    """
    try:
        yield
    except UserError as error:
        if str(path) in str(error):
            raise
        raise UserError(f"{path} cannot be built again from its metadata: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        raise UserError(
            f"{path} cannot be built again from its metadata ({type(error).__name__}: {reason}): give another "
            f"checkpoint"
        ) from error


def make_metadata(
    *,
    config: dict[str, Any],
    class_names: list[str],
    clip: dict[str, Any],
    data: dict[str, Any],
    version: str,
    kind: str = CLASSIFIER,
) -> dict[str, Any]:
    """Gather the plain values that every checkpoint carries beside what learned.

    Args:
        config: the resolved configuration, plain containers.
        class_names: names of the classes in order of their labels.
        clip: the encoder's own description, with ``weights_sha256``.
        data: the data module's description, with the split checksums.
        version: of this package.
        kind: :data:`CLASSIFIER` or :data:`ALIGNMENT`.

    Returns:
        The metadata, which are found under ``"eventclip"`` in a checkpoint.
    """
    return {
        "format": METADATA_FORMAT,
        "version": version,
        "config": config,
        "class_names": class_names,
        "clip": clip,
        "data": data,
        **({} if kind == CLASSIFIER else {"kind": kind}),
    }


def read_checkpoint(
    path: Path, *, trust: bool = False, own: Mapping[str, Any] | None = None, kind: str = CLASSIFIER
) -> dict[str, Any]:
    """Read a checkpoint of ours without running any code in it: the one way all commands do.

    Args:
        path: the file.
        trust: let its metadata name code outside eventclip, which whoever builds its configuration runs then.
        own: the configuration of the run that goes on from it, see :func:`.trust.refuse_foreign_code`.
        kind: what it must be of, :data:`CLASSIFIER` or :data:`ALIGNMENT`.

    Returns:
        What it holds. Its metadata are complete, of plain values and in the words of this version; the configuration in
        them builds nothing but what ships with eventclip, unless trusted, and says nothing of where files are written.
        What learned is finite.

    Raises:
        UserError: no such file, not a checkpoint, not one of eventclip's, one of another version, or one that asks for
            foreign code.
    """
    if trust is not True and trust is not False:
        raise UserError(f"trust must be true or false, got {trust!r}")
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}: give the path of a .ckpt file that eventclip.train wrote")
    try:
        checkpoint = load_tensors(path, "a checkpoint", checked=True)
    except UserError as error:
        raise UserError(f"{error}; expected a .ckpt file that eventclip.train wrote") from error
    if not isinstance(checkpoint, dict) or "eventclip" not in checkpoint:
        raise UserError(
            f"{path} was not written by eventclip.train: it lacks the metadata that tell its CLIP and classes"
        )
    metadata = checkpoint["eventclip"]
    fitted = isinstance(metadata, dict) and "fitted" in metadata
    _check_state(path, checkpoint.get("state_dict"), fitted=fitted)
    _check_format(path, metadata)
    refuse_what_is_not_plain(path, metadata)
    if metadata["format"] == 1:
        metadata = checkpoint["eventclip"] = _in_todays_words(metadata)
    if metadata.get("kind", CLASSIFIER) != kind:
        remedy = (
            "its result is what clip.aligned takes, the file of its out="
            if kind == CLASSIFIER
            else "an alignment goes on from its own"
        )
        theirs = _OF[ALIGNMENT if kind == CLASSIFIER else CLASSIFIER]
        raise UserError(f"{path} is a checkpoint of {theirs}, not of {_OF[kind]}: {remedy}")
    _check_values(path, metadata, kind)
    config = metadata["config"]
    if not trust:
        refuse_foreign_code(path, config, own=own)
        refuse_foreign_name(path, config["name"])
        config["clip"]["cache_dir"] = None  # where downloads are written is for this machine to say
    pretrained, activation = config["clip"].get("pretrained"), metadata["clip"].get("quick_gelu")
    if config["clip"].get("quick_gelu") is None and isinstance(pretrained, str) and {"/", "."} & set(pretrained):
        config["clip"]["quick_gelu"] = activation  # what learned on a file's weights learned with this one
    return checkpoint


_TARGETS_OF_1: Mapping[str, str] = {
    "eventclip.models.encoder.ClipEncoder": "eventclip.models.factory.load_clip",
    "eventclip.models.adapters.IdentityAdapter": "eventclip.adapters.paper.IdentityAdapter",
    "eventclip.models.adapters.TextAdapter": "eventclip.adapters.paper.TextAdapter",
    "eventclip.models.adapters.VisualAdapter": "eventclip.adapters.paper.VisualAdapter",
    "eventclip.models.adapters.JointAdapter": "eventclip.adapters.paper.JointAdapter",
    "eventclip.data.folder.FolderDataModule": "eventclip.datasets.folder.FolderDataModule",
    "eventclip.data.ncaltech101.NCaltech101DataModule": "eventclip.datasets.ncaltech101.NCaltech101DataModule",
    "eventclip.data.ncars.NCarsDataModule": "eventclip.datasets.ncars.NCarsDataModule",
    "eventclip.data.nimagenet.NImageNetDataModule": "eventclip.datasets.nimagenet.NImageNetDataModule",
    "eventclip.data.symbols.SymbolsDataModule": "eventclip.datasets.symbols.SymbolsDataModule",
    "eventclip.data.view_maker.Augmentation": "eventclip.views.augment.Augmentation",
    "eventclip.data.fewshot.draw_few_shot": "eventclip.datasets.sampling.sample_few_shot",
    "eventclip.training.features.FeatureBank": "eventclip.features.cache.FeatureCache",
    "lightning.pytorch.callbacks.TQDMProgressBar": "eventclip.training.progress.progress",
    "eventclip.training.diagnostics.Diagnostics": "eventclip.training.callbacks.Diagnostics",
    "eventclip.training.predictions.PredictionTable": "eventclip.training.callbacks.PredictionTable",
}
"""Names of code in checkpoints of version 0.1 (format 1) -> what they are called now; other names stay, to be looked at
as all are. That the gate lets each through is for the tests to say."""

_KEYS_OF_1: Mapping[str, Mapping[str, str]] = {
    "data": {"percentile_events": "p95_events", "holdout": "split_fraction"},
    "views": {"fit": "resize_mode"},
    "fewshot": {"draw": "sampling"},
    "features": {"passes": "copies"},
}
"""Section of the configuration -> its keys in version 0.1 -> what they are called now."""


def _in_todays_words(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata of version 0.1 with the targets and keys of this one."""

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            named = {key: renamed(item) for key, item in value.items()}
            if isinstance(target := named.get("_target_"), str):
                named["_target_"] = _TARGETS_OF_1.get(target, target)
            return named
        return [renamed(item) for item in value] if isinstance(value, list) else value

    config = renamed(metadata.get("config"))
    for section, keys in _KEYS_OF_1.items():
        held = config.get(section) if isinstance(config, dict) else None
        if isinstance(held, dict):
            config[section] = {keys.get(key, key): value for key, value in held.items()}
    return {**metadata, "format": METADATA_FORMAT, "config": config}


def _check_state(path: Path, state: Any, *, fitted: bool) -> None:
    """Refuse learned tensors that are none, or hold no numbers; what was ``fitted`` has whole numbers among them."""
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{path} is damaged: it lacks state_dict, the tensors that learned, by name")
    for name, value in state.items():
        flaw = is_bad_tensor(value, whole=fitted) if isinstance(value, torch.Tensor) else "is no tensor"
        if flaw is not None:
            raise UserError(f"{path} is of no use: {said(name)} {flaw}; give an earlier checkpoint, or train again")


def _check_format(path: Path, metadata: Any) -> None:
    if not isinstance(metadata, dict):
        raise UserError(f"{path} is damaged: its metadata are a {type(metadata).__name__}, expected a mapping")
    if not metadata:
        raise UserError(
            f"{path} does not tell its CLIP and classes, as LitEventClassifier was given no metadata: build the "
            f"classifier as it was, then classifier.load_learned_state_dict(torch.load(FILE)['state_dict'])"
        )
    if type(metadata.get("format")) is not int or metadata["format"] not in (1, METADATA_FORMAT):
        raise UserError(
            f"{path} has metadata of format {said(metadata.get('format'))}, written by eventclip "
            f"{said(metadata.get('version'))}, and this version reads formats 1 and {METADATA_FORMAT}: use the version "
            f"that wrote it"
        )


_NUMBER = (int, float)
_NEEDED: Mapping[str, type | tuple[type, ...]] = {
    "class_names": (list, tuple),
    "clip.weights_sha256": str,
    "data.checksums": dict,
    "config.name": str,
    "config.seed": int,
    "config.clip": dict,
    "config.adapter": dict,
    "config.fewshot": dict,
    "config.optim": dict,
    "config.tuning.parts": (str, list, tuple),
    "config.tuning.lora_targets": str,
    "config.tuning.lora_rank": int,
    "config.tuning.clip_factor": _NUMBER,
    "config.frames.events_per_frame": _NUMBER,
    "config.views.evaluation_views": int,
    "config.views.resize_mode": str,
    "config.data.p95_events": _NUMBER,
    "config.classifier.prompts": (list, tuple),
    "config.classifier.pooling": str,
    "config.selection": dict,
}
"""Values of the metadata that are read somewhere, and their kinds; the parts that are built check their own."""


_NEEDED_TO_ALIGN: Mapping[str, type | tuple[type, ...]] = {
    **{place: kind for place, kind in _NEEDED.items() if place.partition(".")[0] != "config"},
    **{f"config.{key}": dict for key in ("clip", "tuning", "optim", "loss", "simulation", "heldout")},
    "config.name": str,
    "config.seed": int,
    "config.images": str,
}
"""The same for an alignment."""

_OF = {CLASSIFIER: "a training", ALIGNMENT: "an alignment"}


def _check_values(path: Path, metadata: dict[str, Any], kind: str) -> None:
    """Refuse metadata that lack a value, or have one of another kind."""
    for place, expected in (_NEEDED if kind == CLASSIFIER else _NEEDED_TO_ALIGN).items():
        value: Any = metadata
        for key in place.split("."):
            value = value.get(key, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is _ABSENT:
            raise UserError(f"{path} is damaged: its metadata lack {place}")
        if not isinstance(value, expected) or isinstance(value, bool):
            raise UserError(f"{path} is damaged: {place} in its metadata is {said(value)}, a {type(value).__name__}")
    seed = metadata["config"]["seed"]
    if not 0 <= seed < 2**32:
        raise UserError(f"{path} is damaged: config.seed in its metadata is {said(seed)}, expected 0 to {2**32 - 1}")
    if kind == CLASSIFIER:
        _check_texts(path, metadata)


def _check_texts(path: Path, metadata: dict[str, Any]) -> None:
    """Refuse class names and prompts that are none."""
    names, prompts = metadata["class_names"], metadata["config"]["classifier"]["prompts"]
    sentences = metadata["config"]["classifier"].get("prompts_file")
    if sentences is not None:  # in a checkpoint these are what the file held
        check_sentences(sentences, f"{path} is damaged: config.classifier.prompts_file in its metadata")
    for place, texts in (("class_names", names), ("config.classifier.prompts", prompts)):
        wrong = [text for text in texts if not isinstance(text, str) or not text.strip()]
        if wrong or not (texts or (texts is prompts and sentences)):
            held = said(wrong[0]) if wrong else "nothing"
            raise UserError(f"{path} is damaged: {place} in its metadata holds {held}, expected one text or more")


_ABSENT = object()


def check_metadata(path: Path, checkpoint: dict[str, Any], ours: dict[str, Any]) -> None:
    """Refuse a checkpoint that learned on top of another CLIP, or other classes, or was aligned on other images.

    Args:
        path: of the checkpoint, for the message.
        checkpoint: what it holds.
        ours: "clip", as the encoder describes it, "class_names" and, of an alignment, "data".

    Raises:
        UserError: names what differs.
    """
    theirs = checkpoint["eventclip"]
    if theirs["clip"]["weights_sha256"] != ours["clip"]["weights_sha256"]:
        raise UserError(
            f"{path} was trained on CLIP {_clip(theirs)} and this run has {_clip(ours)}: give the same CLIP"
            f"{_of_alignment(theirs, ours)}"
        )
    if theirs.get("kind") == ALIGNMENT and theirs["data"].get("checksums") != ours["data"]["checksums"]:
        raise UserError(
            f"{path} learned from other images than this run has: give the images, leave_out and heldout that it began "
            f"with, or resume=null for a fresh start"
        )
    if list(theirs["class_names"]) != list(ours["class_names"]):
        pairs = zip(theirs["class_names"], ours["class_names"], strict=False)
        first = next((f"{a!r} and {b!r}" for a, b in pairs if a != b), "the number of classes")
        raise UserError(
            f"{path} was trained on {len(theirs['class_names'])} classes and this run has {len(ours['class_names'])}, "
            f"which differ first in {first}: give the data set it was trained on"
        )


def _clip(metadata: dict[str, Any]) -> str:
    clip = metadata["clip"]
    aligned = f" aligned by {said(clip['aligned'])}" if clip.get("aligned") is not None else ""
    return f"{clip['arch']}/{clip['pretrained']}{aligned} (sha256 {clip['weights_sha256'][:12]})"


def _of_alignment(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """What to do where one CLIP is aligned and the other is not, or by another file."""
    then, now = (metadata["clip"].get("aligned_sha256") for metadata in (theirs, ours))
    if then == now:
        return ""
    return " without clip.aligned" if then is None else ", with that file by clip.aligned=FILE"


_IGNORED = "adapter.dummy"  # holds nothing; it keeps the reference's identity adapter from having no parameters
_RENAMED = [
    (r"text_feats", r"adapter.text_features"),
    (r"adapter\.(in|out)_proj\.(weight|bias)", r"adapter.\1_projection.\2"),
    (r"adapter\.transformer_encoder\.(.+)", r"adapter.transformer.\1"),
    (
        r"model\.visual\.(.+)\.in_proj_weight\.lora_(down|up)_([qkv])",
        r"encoder.visual.\1.parametrizations.in_proj_weight.0.\2.\3",
    ),
    (
        r"model\.visual\.(.+)\.out_proj\.lora_(down|up)\.weight",
        r"encoder.visual.\1.out_proj.parametrizations.weight.0.\2.o",
    ),
    (r"model\.visual\.((?!.*lora_).+)", r"encoder.visual.\1"),
]


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of the reference for `EventClassifier.load_learned_state_dict`.

    The classifier has to be built alike: text adapter for `text-identity`, visual for `trans`, joint for `text-trans`.
    Heads and residual are not stored there; take them from the paper's settings (the defaults of `VisualAdapter`).

    Raises:
        UserError: a name that the reference does not use.
    """
    renamed = {}
    for name, tensor in state.items():
        if name == _IGNORED:
            continue
        for pattern, ours in _RENAMED:
            if match := re.fullmatch(pattern, name):
                renamed[match.expand(ours)] = tensor
                break
        else:
            raise UserError(f"{name} is no learned tensor of the reference implementation: give one of its checkpoints")
    return renamed


def load_reference_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a `.pth` of the reference, without running code -> its `state_dict` under our names.

    Raises:
        UserError: no such file, one that cannot be read, or not such a checkpoint.
    """
    path = Path(path).expanduser()
    content = load_tensors(path, "a checkpoint of the reference")
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise UserError(f"{path} is no checkpoint of the reference: expected tensors by name under 'state_dict'")
    try:
        renamed = from_reference(state)
    except UserError as error:
        raise UserError(f"{path} is no checkpoint of the reference: {error}") from error
    for name, value in renamed.items():
        flaw = is_bad_tensor(value)
        if flaw is not None:
            raise UserError(f"{path} is of no use: what becomes {name} {flaw}; give another checkpoint")
    return renamed
