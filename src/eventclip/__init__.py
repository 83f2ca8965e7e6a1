"""eventclip: CLIP recognises what an event camera sees."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventclip.adapters.best import BestAdapter
    from eventclip.adapters.gaussian import GDAAdapter, PrototypeAdapter
    from eventclip.adapters.kernel import ProKeRAdapter, TipAdapter, TipAdapterF
    from eventclip.adapters.paper import IdentityAdapter, JointAdapter, TextAdapter, VisualAdapter
    from eventclip.adapters.probe import LinearProbeAdapter, LPPlusPlusAdapter, RandomProbeAdapter
    from eventclip.adapters.projection import ProLIPAdapter
    from eventclip.adapters.residual import CLIPAdapter, TaskResAdapter
    from eventclip.datasets.dataset import RecordingDataset
    from eventclip.datasets.folder import FolderDataModule
    from eventclip.datasets.ncaltech101 import NCaltech101DataModule
    from eventclip.datasets.ncars import NCarsDataModule
    from eventclip.datasets.nimagenet import NImageNetDataModule
    from eventclip.datasets.recordings import Recordings
    from eventclip.events.array import EVENT_DTYPE
    from eventclip.events.frames import FrameRenderer
    from eventclip.inference.api import EventCLIP
    from eventclip.inference.result import Classification, Label, WindowClassification
    from eventclip.io.formats import ReadOptions, open_stream, read_events, register_format
    from eventclip.io.writing import write_events
    from eventclip.models.checkpoint import load_classifier
    from eventclip.models.classifier import EventClassifier
    from eventclip.models.encoder import ClipEncoder
    from eventclip.models.factory import load_clip
    from eventclip.training.module import LitEventClassifier
    from eventclip.views.augment import Augmentation
    from eventclip.views.transform import Views, ViewTransform

    __version__: str

__all__ = [  # noqa: RUF022  (in the order of use, as the documentation has them)
    "read_events",
    "open_stream",
    "write_events",
    "register_format",
    "ReadOptions",
    "EVENT_DTYPE",
    "FrameRenderer",
    "ViewTransform",
    "Views",
    "Augmentation",
    "Recordings",
    "RecordingDataset",
    "NCaltech101DataModule",
    "NCarsDataModule",
    "NImageNetDataModule",
    "FolderDataModule",
    "load_clip",
    "ClipEncoder",
    "IdentityAdapter",
    "TextAdapter",
    "VisualAdapter",
    "JointAdapter",
    "BestAdapter",
    "PrototypeAdapter",
    "GDAAdapter",
    "LinearProbeAdapter",
    "RandomProbeAdapter",
    "LPPlusPlusAdapter",
    "ProKeRAdapter",
    "ProLIPAdapter",
    "TipAdapter",
    "TipAdapterF",
    "TaskResAdapter",
    "CLIPAdapter",
    "EventClassifier",
    "LitEventClassifier",
    "load_classifier",
    "EventCLIP",
    "Classification",
    "WindowClassification",
    "Label",
    "__version__",
]

_MODULES = {
    "eventclip.io.formats": ("read_events", "open_stream", "register_format", "ReadOptions"),
    "eventclip.io.writing": ("write_events",),
    "eventclip.events.array": ("EVENT_DTYPE",),
    "eventclip.events.frames": ("FrameRenderer",),
    "eventclip.views.transform": ("ViewTransform", "Views"),
    "eventclip.views.augment": ("Augmentation",),
    "eventclip.datasets.recordings": ("Recordings",),
    "eventclip.datasets.dataset": ("RecordingDataset",),
    "eventclip.datasets.ncaltech101": ("NCaltech101DataModule",),
    "eventclip.datasets.ncars": ("NCarsDataModule",),
    "eventclip.datasets.nimagenet": ("NImageNetDataModule",),
    "eventclip.datasets.folder": ("FolderDataModule",),
    "eventclip.models.factory": ("load_clip",),
    "eventclip.models.encoder": ("ClipEncoder",),
    "eventclip.adapters.paper": ("IdentityAdapter", "TextAdapter", "VisualAdapter", "JointAdapter"),
    "eventclip.adapters.best": ("BestAdapter",),
    "eventclip.adapters.gaussian": ("PrototypeAdapter", "GDAAdapter"),
    "eventclip.adapters.probe": ("LinearProbeAdapter", "RandomProbeAdapter", "LPPlusPlusAdapter"),
    "eventclip.adapters.kernel": ("ProKeRAdapter", "TipAdapter", "TipAdapterF"),
    "eventclip.adapters.projection": ("ProLIPAdapter",),
    "eventclip.adapters.residual": ("TaskResAdapter", "CLIPAdapter"),
    "eventclip.models.classifier": ("EventClassifier",),
    "eventclip.training.module": ("LitEventClassifier",),
    "eventclip.models.checkpoint": ("load_classifier",),
    "eventclip.inference.api": ("EventCLIP",),
    "eventclip.inference.result": ("Classification", "WindowClassification", "Label"),
}
"""Where each public name is; to be imported when it is asked for, since commands must start without torch."""

_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        found: object = version("eventclip")
    elif name in _PLACES:
        found = getattr(importlib.import_module(_PLACES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
