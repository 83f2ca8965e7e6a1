"""Recordings of sketched symbols, and the CLIP that travels with the package."""

import numpy as np
import pytest

from eventclip.datasets.symbols import simulate_symbol

SENSOR = (128, 128)
NAMES = ("star", "anchor", "umbrella")


@pytest.fixture(scope="session")
def films():
    """Events of one star, one anchor and one umbrella on 128x128 pixels."""
    return {name: simulate_symbol(name, SENSOR, np.random.default_rng(7)) for name in NAMES}


@pytest.fixture(scope="session")
def folder(films, tmp_path_factory):
    """The same as files, one folder deep."""
    root = tmp_path_factory.mktemp("films")
    for name, events in films.items():
        (root / "deep").mkdir(exist_ok=True)
        np.save(root / "deep" / f"{name}.npy", events)
    return root


@pytest.fixture(scope="session")
def model():
    from eventclip import EventCLIP

    return EventCLIP.zero_shot(classes=list(NAMES), clip="tiny", device="cpu")
