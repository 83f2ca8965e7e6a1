"""eventclip: CLIP recognises what an event camera sees."""

from importlib.metadata import version

__version__ = version("eventclip")
