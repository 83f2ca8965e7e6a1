"""Memory that a CLIP's tensors give back is used again, without the kernel's clearing it anew."""

import os
import subprocess
import sys

import pytest

from eventclip.models import factory

FAULTS = """
import ctypes, resource, sys
import torch
from eventclip.models.factory import keep_freed_memory
told = keep_freed_memory() if sys.argv[1] == "kept" else None
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(12 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(told, faults())
"""


def told(word, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in factory._USERS_OWN}
    command = [sys.executable, "-c", FAULTS, word]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    first, faults = done.stdout.split()
    return first, int(faults)


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_a_block_given_back_is_the_next_one():
    _, as_it_is = told("as it is", MALLOC_MMAP_THRESHOLD_="131072")
    kept, faults = told("kept")
    assert kept == "True"
    assert as_it_is > 500  # ten blocks of 48 MB, in pages of 4 kB or of 2 MB
    assert faults < as_it_is / 10


@pytest.mark.long
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_set_stays(name):
    own = {"MALLOC_TRIM_THRESHOLD_": "131072", "GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}
    assert told("kept", **{name: own[name]})[0] == "False"


def test_another_c_library_is_let_be(monkeypatch):
    monkeypatch.setattr(factory.ctypes, "CDLL", lambda _: object())
    assert factory.keep_freed_memory.__wrapped__() is False


def test_where_there_is_no_c_library_nothing_happens(monkeypatch):
    def none(_):
        raise TypeError("CDLL(None) on Windows")

    monkeypatch.setattr(factory.ctypes, "CDLL", none)
    assert factory.keep_freed_memory.__wrapped__() is False
