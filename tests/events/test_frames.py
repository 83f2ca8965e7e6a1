"""Frames are those of the paper to the last bit: golden cases, and a plain-numpy version over many made-up inputs."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventclip.errors import UserError
from eventclip.events.array import EVENT_DTYPE, events_from_columns
from eventclip.events.frames import FrameRenderer


def plain_windows(count, size):
    """Windows of N events; a remainder of more than N/2 becomes the last N events."""
    if count < size:
        return [(0, count)]
    windows = [(start, start + size) for start in range(0, count - size + 1, size)]
    if count % size > size / 2:
        windows.append((count - size, count))
    return windows


def plain_frame(events, sensor_hw, *, hot_pixel_std, count_non_zero, white_background, color):
    """Section by section what the paper does with the events of one window, in float64."""
    height, width = sensor_hw
    counts = np.zeros((2, height, width))
    np.add.at(counts, (1 - events["p"].astype(int), events["y"], events["x"]), 1)
    if hot_pixel_std > 0 and counts.any():
        cells = counts[counts > 0] if count_non_zero else counts
        kept = np.where(counts > hot_pixel_std * cells.std() + cells.mean(), 0.0, counts)
        counts = kept if kept.any() else counts
    on, off = counts / max(counts.max(), 1.0)
    if color == "gray":
        image = 127.0 * on + 127.0 * off
        share = np.clip(on + off, 0.0, 1.0)
    else:
        image = np.stack([255.0 * on, np.zeros_like(on), 255.0 * off], axis=-1)
        share = np.clip(on + off, 0.0, 1.0)[..., None]
    if white_background:
        image = image * share + 255.0 * (1.0 - share)
    return np.rint(image).astype(np.uint8)


def made_up(rng, count, sensor_hw, spread):
    height, width = sensor_hw
    x = np.clip(rng.normal(width / 2, spread * width, count), 0, width - 1).astype(int)
    y = np.clip(rng.normal(height / 2, spread * height, count), 0, height - 1).astype(int)
    hot = rng.random(count) < 0.1
    x[hot], y[hot] = width // 3, height // 3
    return events_from_columns(np.sort(rng.integers(0, 10**5, count)), x, y, rng.integers(0, 2, count))


def test_every_golden_case_is_equal_to_the_last_bit(shared):
    cases = json.loads((shared / "golden" / "frames.json").read_text())
    golden = np.load(shared / "golden" / "frames.npz")
    for name, case in cases.items():
        table = golden[f"{name}/events"]
        events = events_from_columns(np.rint(table[:, 2] * 1e6), table[:, 0], table[:, 1], table[:, 3] > 0)
        renderer = FrameRenderer(
            case["events_per_frame"],
            hot_pixel_std=case["hot_pixel_std"],
            count_non_zero=case["count_non_zero"],
            white_background=case["background_mask"],
            color=case["color"],
        )
        frames = golden[f"{name}/frames"]
        np.testing.assert_array_equal(renderer.windows(len(events)), golden[f"{name}/windows"], err_msg=name)
        expected = frames if case["color"] == "rgb" else frames[..., 0]
        np.testing.assert_array_equal(renderer(events, tuple(case["shape"])), expected, err_msg=name)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 3000),
    size=st.integers(1, 1500),
    spread=st.sampled_from([0.02, 0.2, 1.0]),
    hot_pixel_std=st.sampled_from([0.0, 1.0, 3.0, 10.0]),
    count_non_zero=st.booleans(),
    white_background=st.booleans(),
    color=st.sampled_from(["gray", "rgb"]),
)
def test_frames_equal_the_plain_numpy_version_bit_for_bit(seed, count, size, spread, **options):
    sensor_hw = (24, 31)
    options["hot_pixel_std"] = float(options["hot_pixel_std"])
    events = made_up(np.random.default_rng(seed), count, sensor_hw, spread)
    renderer = FrameRenderer(size, **options)
    windows = plain_windows(count, size)
    assert renderer.windows(count).tolist() == [list(window) for window in windows]
    plain = np.stack([plain_frame(events[start:end], sensor_hw, **options) for start, end in windows])
    np.testing.assert_array_equal(renderer(events, sensor_hw), plain)


def test_single_windows_can_be_asked_for():
    events = made_up(np.random.default_rng(0), 1000, (24, 31), 0.3)
    renderer = FrameRenderer(100)
    windows = renderer.windows(1000)
    np.testing.assert_array_equal(renderer(events, (24, 31), windows[[7, 2]]), renderer(events, (24, 31))[[7, 2]])


@pytest.mark.parametrize("white", [True, False])
def test_no_events_make_one_frame_of_background(white):
    frames = FrameRenderer(100, white_background=white)(np.zeros(0, EVENT_DTYPE), (4, 5))
    assert frames.shape == (1, 4, 5)
    assert set(frames.ravel().tolist()) == {255 if white else 0}


def test_an_event_outside_the_sensor_never_reaches_the_kernel():
    events = events_from_columns([0], [31], [0], [1])
    with pytest.raises(UserError, match="x=31"):
        FrameRenderer(100)(events, (24, 31))


@pytest.mark.parametrize(
    "options",
    [{"events_per_frame": 0}, {"events_per_frame": 5, "color": "hsv"}, {"events_per_frame": 5, "hot_pixel_std": -1.0}],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError):
        FrameRenderer(**options)
