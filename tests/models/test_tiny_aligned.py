"""The alignment that travels with the package: small, of the tiny CLIP, and as its record says."""

import hashlib
import json

import pytest
import torch

from eventclip.models.alignment import read_alignment
from eventclip.models.factory import TINY, clip_options, load_clip

ALIGNED = TINY / "aligned.safetensors"


def test_both_files_together_have_at_most_ten_megabytes():
    assert ALIGNED.stat().st_size + (TINY / "tiny.safetensors").stat().st_size <= 10_000_000


def test_the_record_is_of_this_file():
    record = json.loads((TINY / "aligned.json").read_text(encoding="utf-8"))
    alignment = read_alignment(ALIGNED)
    assert record["sha256"] == hashlib.sha256(ALIGNED.read_bytes()).hexdigest()
    assert record["held_out"] == {"before": alignment.made["before"], "after": alignment.made["chosen"]}
    assert record["held_out"]["after"]["recall"] > record["held_out"]["before"]["recall"]


def test_nothing_in_the_file_tells_where_it_was_made():
    text = ALIGNED.read_bytes()[: 1 << 20].decode("utf-8", errors="ignore")
    assert not [place for place in ("/tmp/", "/home/", "/root/", "/work/") if place in text]


@pytest.mark.long
def test_it_is_laid_over_the_tiny_clip():
    frozen, aligned = load_clip("tiny"), load_clip(**clip_options("tiny"), aligned=ALIGNED)
    views = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(frozen.encode_views(views), aligned.encode_views(views), atol=1e-3)
