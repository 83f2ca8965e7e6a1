"""eventclip: CLIP recognises what an event camera sees."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventclip.inference.api import EventCLIP
    from eventclip.inference.result import Classification, Label, Views, WindowClassification
    from eventclip.io.formats import ReadOptions

__all__ = ["Classification", "EventCLIP", "Label", "ReadOptions", "Views", "WindowClassification", "__version__"]

__version__ = version("eventclip")

_PLACES = {
    "EventCLIP": "eventclip.inference.api",
    "Classification": "eventclip.inference.result",
    "Label": "eventclip.inference.result",
    "ReadOptions": "eventclip.io.formats",
    "Views": "eventclip.inference.result",
    "WindowClassification": "eventclip.inference.result",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for (PEP 562): commands must start without torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
