"""Cameras, motions and scenes drawn at random: what is drawn lies in its range, and comes from the generator alone."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from eventclip.errors import RecordingError, UserError
from eventclip.simulation import ranges
from eventclip.simulation.camera import EventCamera, intensity_from_gray
from eventclip.simulation.ranges import MOTIONS, SimulationRanges

QUIET = {"shot_noise_hz": (1e-9, 1e-9), "leak_hz": (0, 0), "hot_pixel_fraction": (0, 0)}


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (6, 8), np.uint8)
    return Image.fromarray(np.kron(blocks, np.ones((10, 10), np.uint8)))


@pytest.fixture
def cameras(monkeypatch):
    """Every camera and its path, as they are built."""
    seen = []
    simulate = EventCamera.simulate

    def note(self, image, path, sensor_hw, rng):
        seen.append((self, image, path, sensor_hw))
        return simulate(self, image, path, sensor_hw, rng)

    monkeypatch.setattr(EventCamera, "simulate", note)
    return seen


def test_one_seed_gives_one_recording_and_another_another(picture):
    drawn = SimulationRanges(sensors=[(40, 50), (60, 60)])
    first, again, other = (drawn.simulate(picture, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first[1] == again[1]
    np.testing.assert_array_equal(first[0], again[0])
    assert len(first[0]) != len(other[0]) or (first[0] != other[0]).any()


def test_events_lie_on_their_sensor_in_order_from_time_zero(picture):
    drawn = SimulationRanges(sensors=[(40, 50), (16, 16), (60, 60)])
    sensors = set()
    for seed in range(30):
        events, (height, width) = drawn.simulate(picture, np.random.default_rng(seed))
        sensors.add((height, width))
        assert events["t"][0] == 0
        assert (np.diff(events["t"]) >= 0).all()
        assert 0 <= events["x"].min() <= events["x"].max() < width
        assert 0 <= events["y"].min() <= events["y"].max() < height
        assert len(events) >= 20
    assert sensors == {(40, 50), (16, 16), (60, 60)}


def test_what_is_drawn_lies_in_its_range_and_fills_it(picture, cameras):
    drawn = SimulationRanges(sensors=[(40, 50)], window=(1.0, 1.0))
    for seed in range(60):
        drawn.simulate(picture, np.random.default_rng(seed))
    for name, value in {
        "threshold": [camera.threshold_on for camera, *_ in cameras],
        "balance": [camera.threshold_off / camera.threshold_on for camera, *_ in cameras],
        "spread": [camera.threshold_spread / camera.threshold_on for camera, *_ in cameras],
        "refractory_us": [camera.refractory_us for camera, *_ in cameras],
        "shot_noise_hz": [camera.shot_noise_hz for camera, *_ in cameras],
        "leak_hz": [camera.leak_hz for camera, *_ in cameras],
        "hot_pixel_fraction": [camera.hot_pixel_fraction for camera, *_ in cameras],
        "log_eps": [camera.log_eps for camera, *_ in cameras],
    }.items():
        low, high = getattr(drawn, name)
        assert low - 1 <= min(value) if name == "refractory_us" else low * 0.999 <= min(value), name
        assert max(value) <= high * 1.001, name
        assert max(value) - min(value) > 0.6 * (high - low), name


@pytest.mark.parametrize("motion", MOTIONS)
def test_travel_and_speed_are_those_asked_for(picture, cameras, motion):
    side = 64
    drawn = SimulationRanges(sensors=[(side, 80)], motions=[motion], travel=(0.5, 0.5), speed=(2.0, 2.0))
    for seed in range(8):
        drawn.simulate(picture, np.random.default_rng(seed))
    for camera, _, path, _ in cameras:
        travel = 0.5 * side**0.5
        seconds = path[-1, 0] * 1e-6
        assert seconds == pytest.approx(travel / (2.0 * side))
        reach = np.linalg.norm(np.ptp(path[:, 1:], axis=0))
        assert 0.2 * travel < reach < 1.5 * travel
        np.testing.assert_allclose(path[:, 1:].mean(0), 0, atol=travel)
        steps = np.ceil(path[-1, 0] / camera.step_us)
        assert np.abs(np.diff(path[:, 1:], axis=0)).sum() / steps <= 0.5 + 1e-9 or steps == 2
    if motion == "line":
        ways = np.diff(cameras[0][2][:, 1:], axis=0)
        np.testing.assert_allclose(ways, ways[:1].repeat(len(ways), 0), atol=1e-9)


def test_a_plain_scene_is_the_picture_scaled_to_the_sensor(picture, cameras):
    plain = {"size": (1, 1), "turn_degrees": (0, 0), "contrast": (1, 1), "gamma": (1, 1), "inverted": 0.0}
    SimulationRanges(sensors=[(30, 40)], **plain).simulate(picture, np.random.default_rng(0))
    _, image, _, window = cameras[-1]
    small = np.asarray(picture.resize((40, 30), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(image, intensity_from_gray(small))
    assert window == (28, 38)


def test_contrast_gamma_and_inversion_are_of_the_gray_values(picture, cameras):
    plain = {"sensors": [(60, 80)], "size": (1, 1), "turn_degrees": (0, 0)}
    changed = SimulationRanges(**plain, contrast=(0.6, 0.6), gamma=(1.3, 1.3), inverted=1.0)
    changed.simulate(picture, np.random.default_rng(0))
    gray = 1 - ((np.asarray(picture) / 255 - 0.5) * 0.6 + 0.5)
    expected = intensity_from_gray(np.rint(255 * gray**1.3).astype(np.uint8))
    assert np.abs(cameras[-1][1] - expected).max() < 0.02
    assert (cameras[-1][1] != expected).mean() < 0.01  # float32


def test_a_turned_picture_shows_nothing_from_beyond_its_edges():
    white = Image.fromarray(np.full((50, 70), 255, np.uint8))
    for degrees in (-180, -33, 7, 45, 90):
        turned = np.asarray(ranges._turned(white, degrees))
        assert turned.shape == (50, 70)
        assert turned[2:-2, 2:-2].min() == 255


def test_a_window_is_a_share_of_the_events(picture, cameras):
    whole = SimulationRanges(sensors=[(40, 50)], window=(1.0, 1.0))
    half = dataclasses.replace(whole, window=(0.5, 0.5))
    for seed in range(5):
        every, _ = whole.simulate(picture, np.random.default_rng(seed))
        some, _ = half.simulate(picture, np.random.default_rng(seed))
        assert len(some) == -(-len(every) // 2)
        start = next(i for i in range(len(every) - len(some) + 1) if (every["x"][i : i + len(some)] == some["x"]).all())
        run = every[start : start + len(some)]
        np.testing.assert_array_equal(run["t"] - run["t"][0], some["t"])


def test_a_picture_that_gives_no_events_is_told():
    gray = Image.new("L", (40, 30), 128)
    with pytest.raises(RecordingError, match="gives no events, such as one of a single gray: take it out"):
        SimulationRanges(sensors=[(20, 20)], **QUIET).simulate(gray, np.random.default_rng(0))


def test_a_long_thin_picture_can_be_simulated():
    stripes = Image.fromarray(np.tile(np.uint8([0, 255]).repeat(8), (16, 60)))
    events, sensor = SimulationRanges(sensors=[(34, 34)]).simulate(stripes, np.random.default_rng(0))
    assert sensor == (34, 34)
    assert len(events)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"threshold": (0.0, 0.5)}, "simulation.threshold must be a lowest and a highest value from 0.01 to 10"),
        ({"threshold": (0.5, 0.2)}, "simulation.threshold must be a lowest and a highest value"),
        ({"leak_hz": (-1, 0)}, "simulation.leak_hz must be a lowest and a highest value from 0"),
        ({"speed": 3}, r"simulation.speed must be a lowest and a highest value above 0 to 1000, got 3"),
        ({"size": (0.5, 1.5)}, "simulation.size must be"),
        ({"window": (0.1, float("nan"))}, "simulation.window must be"),
        ({"contrast": (True, True)}, "simulation.contrast must be"),
        ({"inverted": 1.5}, "simulation.inverted must be a probability from 0 to 1, got 1.5"),
        ({"motions": []}, r"simulation.motions must name some of saccade, line, shake, got \[\]"),
        ({"motions": ["walk"]}, "simulation.motions must name some of"),
        ({"sensors": []}, "simulation.sensors must list heights and widths"),
        ({"sensors": [(8, 8)]}, r"of 16 to 4096 px, .* got \(8, 8\)"),
        ({"sensors": [180, 240]}, "simulation.sensors must list heights and widths"),
        ({"sensors": [(180, 240, 2)]}, "simulation.sensors must list heights and widths"),
    ],
)
def test_a_range_that_is_none_is_refused(given, told):
    with pytest.raises(UserError, match=told) as refused:
        SimulationRanges(**given)
    assert "\n" not in str(refused.value)


def test_every_range_of_the_class_is_checked():
    named = {field.name for field in dataclasses.fields(SimulationRanges)}
    assert set(ranges._ALLOWED) == named - {"sensors", "motions", "inverted"}
