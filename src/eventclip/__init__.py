"""eventclip: CLIP recognises what an event camera sees."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventclip.inference.api import EventCLIP
    from eventclip.classification import Classification, Label, Views, WindowClassification
    from eventclip.io.formats import ReadOptions

__all__ = ["Classification", "EventCLIP", "Label", "ReadOptions", "Views", "WindowClassification", "__version__"]

__version__ = version("eventclip")

_PLACES = {
    "EventCLIP": "eventclip.inference.api",
    "Classification": "eventclip.classification",
    "Label": "eventclip.classification",
    "ReadOptions": "eventclip.io.formats",
    "Views": "eventclip.classification",
    "WindowClassification": "eventclip.classification",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for (PEP 562): commands must start without torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
