"""The configuration: where it lies, what it may hold, and the sentences in which mistakes in it end."""

from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "conf"
_CHECKOUT = Path(__file__).parents[3] / "conf"

CONFIG_DIR = str(_INSTALLED if _INSTALLED.is_dir() else _CHECKOUT)
"""Absolute folder of the configuration: inside an installed wheel, or beside ``src/`` in a checkout."""
