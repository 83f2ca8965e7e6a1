"""What tests of formats share: encoders of cameras' formats."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def encoders():
    """The module encoders.py beside this file."""
    spec = importlib.util.spec_from_file_location("encoders", Path(__file__).with_name("encoders.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
