"""What a checkpoint may ask for: the parts that ship with eventclip, each in its own place, and nothing else.

The configuration in a checkpoint's metadata is data that a stranger may have written, and building it calls what it
names. So everything in it is looked at before anything is built, as plain text and without importing a thing: Hydra's
own checks differ from version to version and know no allow-list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eventclip.errors import UserError, said

SHIPPED: Mapping[str, Mapping[str, bool]] = {
    "clip": {"eventclip.models.factory.load_clip": False},
    "frames": {"eventclip.events.frames.FrameRenderer": False},
    "data": {
        "eventclip.datasets.folder.FolderDataModule": False,
        "eventclip.datasets.ncaltech101.NCaltech101DataModule": False,
        "eventclip.datasets.ncars.NCarsDataModule": False,
        "eventclip.datasets.nimagenet.NImageNetDataModule": False,
        "eventclip.datasets.symbols.SymbolsDataModule": False,
    },
    "data.augmentation": {"eventclip.views.augment.Augmentation": False},
    "fewshot": {"eventclip.datasets.sampling.sample_few_shot": True},
    "adapter": {
        "eventclip.adapters.paper.IdentityAdapter": True,
        "eventclip.adapters.paper.TextAdapter": True,
        "eventclip.adapters.paper.VisualAdapter": True,
        "eventclip.adapters.paper.JointAdapter": True,
        "eventclip.adapters.best.BestAdapter": True,
        "eventclip.adapters.gaussian.PrototypeAdapter": True,
        "eventclip.adapters.gaussian.GDAAdapter": True,
        "eventclip.adapters.kernel.ProKeRAdapter": True,
        "eventclip.adapters.kernel.TipAdapter": True,
        "eventclip.adapters.kernel.TipAdapterF": True,
        "eventclip.adapters.probe.LinearProbeAdapter": True,
        "eventclip.adapters.probe.RandomProbeAdapter": True,
        "eventclip.adapters.probe.LPPlusPlusAdapter": True,
        "eventclip.adapters.projection.ProLIPAdapter": True,
        "eventclip.adapters.residual.TaskResAdapter": True,
        "eventclip.adapters.residual.CLIPAdapter": True,
    },
    "features": {"eventclip.features.cache.FeatureCache": True},
    "optim": {"eventclip.training.optim.AdamWarmupCosine": False},
    "trainer": {"lightning.Trainer": False},
    "logger.*": {
        "lightning.pytorch.loggers.TensorBoardLogger": False,
        "lightning.pytorch.loggers.CSVLogger": False,
    },
    "callbacks.*": {
        "eventclip.training.progress.progress": False,
        "lightning.pytorch.callbacks.LearningRateMonitor": False,
        "lightning.pytorch.callbacks.ModelCheckpoint": False,
        "eventclip.training.checkpoints.LastCheckpoint": False,
        "eventclip.training.requeue.Requeue": False,
        "eventclip.training.callbacks.PredictionPictures": True,
        "eventclip.training.callbacks.Diagnostics": True,
        "eventclip.training.callbacks.PredictionTable": True,
    },
}
"""Place in the configuration -> exact target -> whether it is a partial; all that ``conf/`` names, and no more."""

_MANY = ("logger", "callbacks")  # sections of named parts
_HYDRA = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")
_PLAIN = (dict, list, tuple, str, int, float, bool, type(None))
# Levels and values: honest metadata have 6 and, with all of ImageNet's names, 3,000.
_DEEPEST, _MOST = 32, 200_000

Call = tuple[str, str, bool]
"""A place, a target, and whether it is a partial."""


def refuse_what_is_not_plain(path: Path, metadata: Mapping[Any, Any]) -> None:
    """Refuse metadata that hold anything but finished plain values, whoever made them.

    Raises:
        UserError: an interpolation (metadata are stored resolved), an object, or more than any of ours would hold.
    """
    for place, value in _values(path, metadata):
        if type(value) not in _PLAIN:
            raise UserError(f"{path} holds a {type(value).__name__} at {place}, where metadata have plain values only")
        if isinstance(value, dict):
            for key in value:
                if type(key) not in (str, int, float, bool):
                    raise UserError(f"{path} has a {type(key).__name__} for a key at {place}: its metadata are damaged")
                _refuse_interpolation(path, f"a key of {place}", key)
        _refuse_interpolation(path, place, value)


def _refuse_interpolation(path: Path, place: str, value: Any) -> None:
    if isinstance(value, str) and "${" in value:
        raise UserError(
            f"{path} holds the interpolation {said(value)} at {place}, and eventclip writes finished values only: "
            f"somebody has changed it, so train again or give another checkpoint"
        )


def refuse_foreign_code(path: Path, config: Mapping[str, Any], *, own: Mapping[str, Any] | None = None) -> None:
    """Refuse a configuration in metadata that names code which does not ship with eventclip, wherever it stands.

    Args:
        path: of the checkpoint, for the message.
        config: the whole configuration in its metadata, plain values.
        own: the configuration of the run that goes on from the checkpoint, of which nothing is built then: what that
            run names itself may stand in the metadata too, as may its callbacks and loggers of earlier turns.

    Raises:
        UserError: names the code, its place, and how to trust it.
    """
    known = set() if own is None else set(_calls(path, own))
    for call in _calls(path, config):
        place, target, partial = call
        shipped = SHIPPED.get(place, {})
        passing = own is not None and place in ("logger.*", "callbacks.*") and target.startswith("eventclip.")
        if target not in shipped and call not in known and not passing:
            raise UserError(
                f"{path} asks for {said(target)}, which is no part of eventclip that belongs at {place} and could do "
                f"anything: {_REMEDY}"
            )
        if target in shipped and shipped[target] is not partial and call not in known:
            raise UserError(f"{path} gives {place} a _partial_ that does not go with {said(target)}: {_REMEDY}")
    for place, value in _values(path, config):
        for key in value if isinstance(value, dict) else ():
            names = place == "data.class_names" and key not in _HYDRA
            if isinstance(key, str) and key.startswith("_") and key not in ("_target_", "_partial_") and not names:
                raise UserError(
                    f"{path} gives {place or 'its metadata'} a {said(key)}, which could run code: {_REMEDY}"
                )
    for section, value in config.items():
        if isinstance(value, dict) and "defaults" in value:
            raise UserError(f"{path} names further configuration in {said(section)}.defaults: {_REMEDY}")


_REMEDY = "give trust=true (trust=True in Python) if you know who made the checkpoint"


def refuse_foreign_name(path: Path, name: str) -> None:
    """Refuse a name that would lead the folder of a run elsewhere than to its place.

    Raises:
        UserError: tells what a name may be.
    """
    parts = ("/", "\\", "..")
    if not name.strip() or name == "." or not name.isprintable() or any(part in name for part in parts):
        wrong = True
    else:
        wrong = len(name.encode()) > 255  # the most that a file system takes
    if wrong:
        raise UserError(
            f"{path} is of a run named {said(name)}, which would decide where results are written: expected letters, "
            f"digits and signs in a row, without slashes and '..', so {_REMEDY}"
        )


def _calls(path: Path, config: Mapping[str, Any]) -> Iterator[Call]:
    """All places where a configuration names code; those of named parts under one place."""
    for place, value in _values(path, config):
        if isinstance(value, dict) and ("_target_" in value or "_partial_" in value):
            section, _, name = place.partition(".")
            many = section in _MANY and name and "." not in name and "[" not in name
            target, partial = value.get("_target_", ""), value.get("_partial_", False)
            told = target if isinstance(target, str) else repr(target)
            if not isinstance(partial, bool):
                raise UserError(f"{path} gives {place or 'its metadata'} a _partial_ of {said(partial)}: {_REMEDY}")
            yield (f"{section}.*" if many else place or "its metadata"), told, partial


def _values(path: Path, root: Any) -> Iterator[tuple[str, Any]]:
    """Every value in nested containers with its dotted place, the root first.

    Raises:
        UserError: more levels or values than any metadata have, as where a container holds itself.
    """
    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    seen = 0
    while waiting:
        place, value, level = waiting.pop()
        seen += 1
        if level > _DEEPEST or seen > _MOST:
            raise UserError(f"{path} has metadata without end: it is damaged, so give another checkpoint")
        yield place, value
        dot = f"{place}." if place else ""
        if isinstance(value, Mapping):
            waiting += [(f"{dot}{said(key)}", item, level + 1) for key, item in value.items()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(f"{place}[{number}]", item, level + 1) for number, item in enumerate(value)]
