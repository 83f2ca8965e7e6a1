import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import eventclip
from eventclip.datasets.symbols import simulate_symbol
from eventclip.events.frames import FrameRenderer
from eventclip.models.factory import load_clip
from eventclip.rng import generator
from eventclip.simulation.drawings import CLASSES, FONT, fill, outline
from eventclip.views.resize import clip_resize

FILES = Path(eventclip.__file__).parent / "assets" / "tiny_clip"
RECORD = json.loads((FILES / "record.json").read_text())
PROMPT = "a sketch image of a {}"


@pytest.fixture(scope="module")
def tiny():
    return load_clip(None, str(FILES / "tiny.safetensors"), config=FILES / "tiny.json")


def accuracy(tiny, views, labels):
    with torch.no_grad():
        text = tiny.encode_text([PROMPT.format(name) for name in CLASSES])
        predicted = (tiny.encode_views(views) @ text.T).argmax(dim=1)
    return (predicted.numpy() == labels).mean()


def test_the_weights_are_small_and_those_of_the_record():
    weights = (FILES / "tiny.safetensors").read_bytes()
    assert len(weights) <= 10_000_000
    assert hashlib.sha256(weights).hexdigest() == RECORD["sha256"]


def test_the_record_says_how_the_weights_were_made():
    assert {"recipe", "data", "seconds", "held_out_accuracy", "versions", "logit_scale"} <= RECORD.keys()
    assert RECORD["recipe"].keys() >= {"steps", "seed"}
    assert RECORD["seconds"] < 45 * 60
    assert RECORD["held_out_accuracy"]["printed, seen fonts, new warps"] > 0.9


def test_the_data_sets_font_was_not_trained_on():
    assert FONT not in RECORD["data"]["fonts"]
    assert PROMPT in RECORD["data"]["prompts"]
    assert not any("event" in prompt or "point cloud" in prompt for prompt in RECORD["data"]["prompts"])


def test_it_loads_like_any_other_model(tiny):
    assert (tiny.image_size, tiny.width) == (64, 128)
    assert tiny.logit_scale == pytest.approx(RECORD["logit_scale"], rel=1e-2)


def test_it_names_printed_symbols(tiny):
    sheets = [fill(tuple(c * 45 + 32 for c in outline(codes[0], "DejaVuSans")), 64) for codes in CLASSES.values()]
    views = torch.from_numpy((255 * (1 - np.stack(sheets))).astype(np.uint8))[:, None]
    assert accuracy(tiny, views, np.arange(len(CLASSES))) > 0.9


@pytest.mark.long
def test_it_names_filmed_sketches_but_leaves_room_to_adapt(tiny):
    render, views, labels = FrameRenderer(12_000), [], []
    for label, name in enumerate(CLASSES):
        for index in range(4):
            events = simulate_symbol(name, (128, 128), generator(0, f"symbols testing {name}", index=index))
            views.append(clip_resize(render(events, (128, 128))[:1], 64))
            labels.append(label)
    assert 0.35 < accuracy(tiny, torch.from_numpy(np.concatenate(views)), np.asarray(labels)) < 0.75
