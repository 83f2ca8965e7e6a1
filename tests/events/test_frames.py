"""Frames are those of the paper to the last bit: golden cases, and a plain-numpy version over many made-up inputs."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventclip.errors import UserError
from eventclip.events import frames as frames_module
from eventclip.events.array import EVENT_DTYPE, events_from_columns
from eventclip.events.frames import FrameRenderer, choose_windows, views_per_recording

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


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


def assert_golden(name, case, events, windows, frames):
    renderer = FrameRenderer(
        case["events_per_frame"],
        hot_pixel_std=case["hot_pixel_std"],
        count_non_zero=case["count_non_zero"],
        white_background=case["background_mask"],
        color=case["color"],
    )
    np.testing.assert_array_equal(renderer.windows(len(events)), windows, err_msg=name)
    expected = frames if case["color"] == "rgb" else frames[..., 0]
    np.testing.assert_array_equal(renderer(events, tuple(case["shape"])), expected, err_msg=name)


def test_golden_cases_are_equal_to_the_last_bit():
    golden = np.load(GOLDEN / "frames.npz")
    cases = json.loads(str(golden["options"]))
    assert len(cases) == 15
    for name, case in cases.items():
        x, y, on = (golden[f"{name}/{column}"] for column in ("x", "y", "on"))
        events = events_from_columns(np.arange(len(x)), x, y, on)
        assert_golden(name, case, events, golden[f"{name}/windows"], golden[f"{name}/frames"])


@pytest.mark.long
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


@pytest.mark.parametrize("deviations", [1, 2, 3, 10])
@pytest.mark.parametrize("count_non_zero", [True, False])
def test_a_count_on_the_threshold_is_decided_as_by_numpy(deviations, count_non_zero):
    """One count above k² equal ones is mean + k·std to the last digit, so that only rounding decides."""
    rng = np.random.default_rng(deviations)
    cells = deviations**2 + 1
    height, width = (13, 17) if count_non_zero else (1, cells) if cells % 2 else (1, cells // 2)
    for others, outlier in rng.integers(1, 60, (60, 2)):
        place = rng.choice(2 * height * width, cells, replace=False)
        counts = np.zeros(2 * height * width, int)
        counts[place] = others
        counts[place[0]] = others + outlier
        cell = np.repeat(np.arange(len(counts)), counts)
        polarity, y, x = np.unravel_index(cell, (2, height, width))
        events = events_from_columns(np.arange(len(cell)), x, y, 1 - polarity)
        options = {"hot_pixel_std": float(deviations), "count_non_zero": count_non_zero}
        options |= {"white_background": False, "color": "gray"}
        plain = plain_frame(events, (height, width), **options)
        np.testing.assert_array_equal(FrameRenderer(len(events), **options)(events, (height, width))[0], plain)


def test_where_every_count_would_be_hot_none_is_removed():
    events = events_from_columns(range(3), [1, 2, 2], [0, 0, 0], [1, 0, 0])
    kept = FrameRenderer(10)(events, (100, 100))
    np.testing.assert_array_equal(kept, FrameRenderer(10, hot_pixel_std=0.0)(events, (100, 100)))
    assert kept[0, 0, 2] < kept[0, 0, 1] < 255


@pytest.mark.parametrize(("count", "windows"), [(0, 1), (9, 1), (10, 1), (15, 1), (16, 2), (20, 2), (25, 2), (26, 3)])
def test_a_remainder_becomes_a_window_only_above_one_half(count, windows):
    cut = FrameRenderer(10).windows(count)
    assert cut.shape == (windows, 2)
    assert cut[0, 0] == 0
    assert (np.diff(cut) == min(count, 10)).all()


def test_threads_do_not_disturb_each_other_and_the_gil_is_free():
    recordings = [made_up(np.random.default_rng(seed), 4000, (24, 31), 0.3) for seed in range(8)]
    renderer = pickle.loads(pickle.dumps(FrameRenderer(300)))
    alone = [renderer(events, (24, 31)) for events in recordings]
    with ThreadPoolExecutor(4) as pool:
        for ours, theirs in zip(alone, pool.map(lambda events: renderer(events, (24, 31)), recordings), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    kernels = [value for value in vars(frames_module).values() if hasattr(value, "targetoptions")]
    assert kernels
    assert all(kernel.targetoptions["nogil"] and not kernel.targetoptions["fastmath"] for kernel in kernels)


def test_events_are_only_looked_at_wherever_they_lie():
    events = made_up(np.random.default_rng(0), 1000, (24, 31), 0.3)
    expected = FrameRenderer(100)(events, (24, 31))
    spread = np.zeros(2000, EVENT_DTYPE)
    spread[::2] = events
    events.setflags(write=False)
    np.testing.assert_array_equal(FrameRenderer(100)(events, (24, 31)), expected)
    np.testing.assert_array_equal(FrameRenderer(100)(spread[::2], (24, 31)), expected)


@pytest.mark.parametrize("windows", [[[0, 11]], [[-1, 5]], [[5, 4]], [0, 5], [[0.0, 5.0]]])
def test_windows_outside_the_recording_are_refused(windows):
    events = made_up(np.random.default_rng(0), 10, (24, 31), 0.3)
    with pytest.raises(UserError, match="indow"):
        FrameRenderer(100)(events, (24, 31), np.array(windows))


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


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def spaced(count):
    starts = np.arange(count, dtype=np.int64) * 10
    return np.stack([starts, starts + 10], axis=1)


@pytest.mark.parametrize(
    ("percentile", "size", "limit", "views"),
    [
        (225_000, 20_000, 10, 10),
        (225_000, 20_000, 2, 2),
        (225_000, 20_000, 20, 11),
        (12_500, 30_000, 10, 1),
        (135_000, 70_000, 10, 2),
        (135_000, 70_000, 1, 1),
    ],
)
def test_views_follow_from_the_data_sets_event_count(percentile, size, limit, views):
    assert views_per_recording(percentile, size, limit) == views


def test_a_limit_of_no_views_is_refused():
    with pytest.raises(UserError, match="1 or more"):
        views_per_recording(100, 10, 0)


@pytest.mark.parametrize("count", [1, 4])
def test_windows_that_fit_are_all_kept(rng, count):
    np.testing.assert_array_equal(choose_windows(spaced(count), 4, rng), spaced(count))
    np.testing.assert_array_equal(choose_windows(spaced(count), 4, None), spaced(count))


def test_evaluation_spreads_its_windows_evenly():
    starts = choose_windows(spaced(11), 3, None)[:, 0]
    assert starts.tolist() == [10, 50, 90]
    assert choose_windows(spaced(11), 1, None).tolist() == [[50, 60]]


@pytest.mark.parametrize("count", range(2, 25))
@pytest.mark.parametrize("keep", [1, 2, 10])
def test_chosen_windows_are_distinct_and_in_order(rng, count, keep):
    for generator in (None, rng):
        starts = choose_windows(spaced(count), keep, generator)[:, 0].tolist()
        assert len(starts) == min(count, keep)
        assert starts == sorted(set(starts))
        assert set(starts) <= set(spaced(count)[:, 0].tolist())


def test_training_can_choose_any_window(rng):
    seen = {int(start) for _ in range(200) for start in choose_windows(spaced(11), 2, rng)[:, 0]}
    assert seen == set(range(0, 110, 10))


def test_a_renderer_that_knows_its_sensor_is_a_step_of_a_chain():
    events = made_up(np.random.default_rng(0), 500, (20, 30), 5)
    alone = FrameRenderer(100)
    renderer = FrameRenderer(100, sensor_hw=(20, 30))
    np.testing.assert_array_equal(renderer(events), alone(events, (20, 30)))
    with pytest.raises(UserError, match="sensor's size is not known"):
        alone(events)


def test_events_of_tonic_are_rendered_as_ours():
    events = made_up(np.random.default_rng(0), 500, (20, 30), 5)
    for polarity in ("?", "i8", "i1"):
        theirs = np.zeros(500, [("x", "i8"), ("y", "i8"), ("t", "i8"), ("p", polarity)])
        for name in "xyt":
            theirs[name] = events[name]
        theirs["p"] = events["p"] if polarity != "i1" else 2 * events["p"].astype(int) - 1
        renderer = FrameRenderer(100, sensor_hw=(20, 30))
        np.testing.assert_array_equal(renderer(theirs), renderer(events))


def test_a_renderer_cannot_change():
    with pytest.raises(AttributeError):
        FrameRenderer(100).events_per_frame = 5
    assert FrameRenderer(100) == FrameRenderer(100, hot_pixel_std=10) != FrameRenderer(100, color="rgb")
