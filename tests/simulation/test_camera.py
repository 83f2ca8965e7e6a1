"""The event camera keeps the laws of its model; what it draws at random has the rates asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventclip.errors import UserError
from eventclip.events.array import EVENT_DTYPE, check_events
from eventclip.simulation.camera import EventCamera, intensity_from_gray, saccades

SENSOR = (13, 21)
STANDING = np.array([[0.0, 0.0, 0.0], [1e6, 0.0, 0.0]])


def picture(seed, shape=(24, 30), lowest=0.0):
    return np.random.default_rng(seed).uniform(lowest, 1, shape)


def seen(image, place, sensor_hw, log_eps):
    """Log intensity at one displacement, straight from the definition: bilinear, edges replicated."""
    log_image = np.log(image + log_eps)
    axes = []
    for size, sensor, shift in zip(image.shape, sensor_hw, place[::-1], strict=True):
        at = np.clip(np.arange(sensor) + (size - sensor) / 2 + shift, 0, size - 1)
        low = np.minimum(np.floor(at).astype(int), size - 2)
        weights = np.zeros((sensor, size))
        weights[np.arange(sensor), low] = 1 - (at - low)
        weights[np.arange(sensor), low + 1] = at - low
        axes.append(weights)
    return axes[0] @ log_image @ axes[1].T


def counts(events, sensor_hw):
    total = np.zeros((2, *sensor_hw))
    np.add.at(total, (events["p"], events["y"], events["x"]), 1)
    return total


def intervals(events, width):
    order = np.lexsort((events["t"], events["y"].astype(int) * width + events["x"]))
    pixel = (events["y"].astype(int) * width + events["x"])[order]
    return np.diff(events["t"][order])[np.diff(pixel) == 0]


random_paths = st.lists(st.tuples(st.integers(500, 30_000), st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=6)


@settings(max_examples=40, deadline=None)
@given(random_paths, st.integers(0, 99), st.floats(0.05, 0.6), st.floats(0.05, 0.6), st.floats(0, 0.1))
def test_events_times_thresholds_are_the_change_of_light(knots, seed, on, off, spread):
    path = np.array(knots)
    path[:, 0] = np.cumsum(path[:, 0])
    camera = EventCamera(
        threshold_on=on,
        threshold_off=off,
        threshold_spread=spread,
        refractory_us=0,
        shot_noise_hz=0,
        leak_hz=0,
        hot_pixel_fraction=0,
    )
    image = picture(seed)
    events = camera.simulate(image, path, SENSOR, np.random.default_rng(seed))
    each_on, each_off = camera.thresholds(SENSOR, np.random.default_rng(seed))
    off_count, on_count = counts(events, SENSOR)
    rebuilt = on_count * each_on - off_count * each_off
    change = seen(image, path[-1, 1:], SENSOR, 0.03) - seen(image, path[0, 1:], SENSOR, 0.03)
    # Within one threshold, but for float32: below the change by at most ON, above it by at most OFF.
    assert (change - rebuilt <= each_on + 1e-3).all()
    assert (rebuilt - change <= each_off + 1e-3).all()


def test_an_event_is_stamped_with_the_moment_of_its_crossing():
    ramp = np.exp(np.linspace(-2, 0, 201))[None].repeat(3, axis=0)  # log intensity rises 0.01 per px
    path = np.array([[0.0, 0.0, 0.0], [100_000.0, 100.0, 0.0]])
    events = EventCamera.ideal(0.25, log_eps=1e-6, step_us=7000).simulate(ramp, path, (1, 1), np.random.default_rng(0))
    np.testing.assert_allclose(events["t"], [25_000, 50_000, 75_000], atol=30)
    assert (events["p"] == 1).all()


@pytest.mark.parametrize("start", [0.0, -5_000.5, 7e12])
def test_events_are_in_order_on_the_sensor_and_on_the_path(start):
    path = saccades(5) + np.array([start, 0, 0])
    events = EventCamera(shot_noise_hz=50).simulate(picture(1), path, SENSOR, np.random.default_rng(0))
    check_events(events, SENSOR)
    assert events.dtype == EVENT_DTYPE
    assert len(events) > 1000
    assert (np.diff(events["t"]) >= 0).all()
    assert events["t"][0] >= start - 1
    assert events["t"][-1] <= path[-1, 0] + 1
    assert set(events["p"]) == {0, 1}


def test_a_generator_decides_the_recording():
    recordings = [
        EventCamera().simulate(picture(1), saccades(5), SENSOR, np.random.default_rng(seed)) for seed in (3, 3, 4)
    ]
    assert recordings[0].tobytes() == recordings[1].tobytes()
    assert recordings[0].tobytes() != recordings[2].tobytes()


def test_a_still_picture_without_noise_makes_no_events():
    assert len(EventCamera.ideal().simulate(picture(1), STANDING, SENSOR, np.random.default_rng(0))) == 0


def test_more_light_changes_next_to_nothing():
    camera = EventCamera.ideal(log_eps=1e-6)
    image = picture(1, lowest=0.1)
    bright = camera.simulate(image, saccades(5), SENSOR, np.random.default_rng(0))
    dim = camera.simulate(image / 10, saccades(5), SENSOR, np.random.default_rng(0))
    assert np.abs(counts(bright, SENSOR) - counts(dim, SENSOR)).sum() <= 0.01 * len(bright)


def test_uint8_and_float_pictures_are_the_same_light():
    image = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    recordings = [
        EventCamera().simulate(one, saccades(5), SENSOR, np.random.default_rng(0)) for one in (image, image / 255)
    ]
    assert np.abs(counts(recordings[0], SENSOR) - counts(recordings[1], SENSOR)).sum() <= 0.01 * len(recordings[0])


def test_going_the_way_back_swaps_on_and_off():
    there = np.array([[0.0, -4.0, -2.0], [50_000.0, 4.0, 3.0]])
    back = np.column_stack([there[:, 0], there[::-1, 1:]])
    camera = EventCamera.ideal(0.02)
    off, on = counts(camera.simulate(picture(1), there, SENSOR, np.random.default_rng(0)), SENSOR)
    back_off, back_on = counts(camera.simulate(picture(1), back, SENSOR, np.random.default_rng(0)), SENSOR)
    # Each turn of a pixel's log intensity may cost or gain one event.
    assert np.abs(on - back_off).sum() < 0.1 * on.sum()
    assert np.abs(off - back_on).sum() < 0.1 * off.sum()


def test_a_pixel_that_stands_beyond_the_edge_sees_the_edge():
    image = picture(1)
    away = np.array([[0.0, 100.0, 0.0], [50_000.0, 1000.0, 0.0]])
    assert len(EventCamera.ideal().simulate(image, away, SENSOR, np.random.default_rng(0))) == 0
    padded = np.pad(image, 40, mode="edge")
    path = np.array([[0.0, -20.0, 15.0], [50_000.0, 25.0, -18.0]])
    recordings = [EventCamera.ideal().simulate(one, path, SENSOR, np.random.default_rng(0)) for one in (image, padded)]
    assert recordings[0].tobytes() == recordings[1].tobytes()
    assert len(recordings[0]) > 100


@pytest.mark.parametrize("refractory_us", [1, 700, 20_000])
def test_no_two_events_of_a_pixel_are_closer_than_the_dead_time(refractory_us):
    camera = EventCamera(refractory_us=refractory_us, shot_noise_hz=100, hot_pixel_fraction=0.1, hot_pixel_hz=2000)
    events = camera.simulate(picture(1), saccades(8), SENSOR, np.random.default_rng(0))
    gaps = intervals(events, SENSOR[1])
    assert len(gaps) > 1000
    assert gaps.min() >= refractory_us


def test_dead_time_costs_events():
    path, image = saccades(8), picture(1)
    recordings = [
        EventCamera(refractory_us=us, shot_noise_hz=0).simulate(image, path, SENSOR, np.random.default_rng(0))
        for us in (0, 1000, 5000)
    ]
    assert len(recordings[0]) > len(recordings[1]) > len(recordings[2]) > 100


def silent(**noise):
    quiet = {"refractory_us": 0, "shot_noise_hz": 0, "leak_hz": 0, "hot_pixel_fraction": 0}
    camera = EventCamera(**quiet | noise)
    return camera.simulate(np.full((64, 64), 0.5), STANDING, (64, 64), np.random.default_rng(0))  # one second


def test_shot_noise_has_the_rate_asked_for_in_both_polarities():
    events = silent(shot_noise_hz=5)
    assert len(events) == pytest.approx(5 * 64 * 64, rel=0.03)  # four standard deviations
    assert events["p"].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("leak_hz", [0.3, 4.0])
def test_leak_is_a_regular_drift_towards_on(leak_hz):
    events = silent(leak_hz=leak_hz, threshold_spread=0.01)
    assert (events["p"] == 1).all()
    assert len(events) == pytest.approx(leak_hz * 64 * 64, rel=0.05)
    if leak_hz > 1:
        np.testing.assert_allclose(intervals(events, 64), 1e6 / leak_hz, rtol=0.3)  # the spread of the thresholds


def test_hot_pixels_are_as_many_and_as_hot_as_asked_for():
    events = silent(hot_pixel_fraction=0.05, hot_pixel_hz=300)
    fired = (counts(events, (64, 64)).sum(axis=0) > 0).sum()
    assert fired == pytest.approx(0.05 * 64 * 64, rel=0.25)
    assert len(events) == pytest.approx(0.05 * 300 * 64 * 64, rel=0.35)


def test_threshold_spread_is_the_pixels_standard_deviation():
    on, off = EventCamera(threshold_on=0.3, threshold_off=0.5, threshold_spread=0.05).thresholds(
        (100, 100), np.random.default_rng(0)
    )
    for drawn, mean in ((on, 0.3), (off, 0.5)):
        assert drawn.mean() == pytest.approx(mean, abs=0.002)
        assert drawn.std() == pytest.approx(0.05, rel=0.05)
    lowest, _ = EventCamera(threshold_spread=5.0).thresholds((100, 100), np.random.default_rng(0))
    assert lowest.min() == pytest.approx(0.05)


def test_three_saccades_make_a_closed_triangle():
    path = saccades(8.0, 50_000)
    np.testing.assert_allclose(path[0, 1:], path[-1, 1:], atol=1e-12)
    np.testing.assert_allclose(np.ptp(path, axis=0), [150_000, 6.0, 8.0])
    corners = path[[0, 50, 100], 1:]
    np.testing.assert_allclose(corners, [[3, 4], [0, -4], [-3, 4]], atol=1e-12)
    speed = np.hypot(*np.diff(path[:, 1:], axis=0).T)
    assert speed[[0, 49, 50, 99, 100, 149]].max() < 0.02 * speed.max()  # stands still at each corner


def test_gray_values_become_light_as_a_screen_makes_it():
    light = intensity_from_gray(np.array([0, 10, 128, 255], np.uint8))
    np.testing.assert_allclose(light, [0, 0.003035, 0.215861, 1], atol=1e-5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("threshold_on", 0),
        ("threshold_off", -0.2),
        ("threshold_spread", -1),
        ("refractory_us", 1.5),
        ("shot_noise_hz", float("nan")),
        ("leak_hz", -1),
        ("hot_pixel_fraction", 1.1),
        ("hot_pixel_hz", float("inf")),
        ("log_eps", 0),
        ("step_us", "fast"),
    ],
)
def test_an_impossible_camera_is_refused_by_name(option, value):
    with pytest.raises(UserError, match=option):
        EventCamera(**{option: value})


@pytest.mark.parametrize(
    ("image", "path", "sensor_hw", "told"),
    [
        (np.zeros((4, 4, 3)), STANDING, SENSOR, r"\(4, 4, 3\)"),
        (np.zeros((0, 4)), STANDING, SENSOR, r"\(0, 4\)"),
        (np.zeros((4, 4), np.int32), STANDING, SENSOR, "int32"),
        (np.full((4, 4), 128.0), STANDING, SENSOR, "from 128 to 128"),
        (np.full((4, 4), np.nan), STANDING, SENSOR, "nan"),
        (np.zeros((4, 4)), STANDING[:1], SENSOR, r"\(1, 3\)"),
        (np.zeros((4, 4)), STANDING[::-1], SENSOR, "rising times"),
        (np.zeros((4, 4)), STANDING + np.inf, SENSOR, "finite"),
        (np.zeros((4, 4)), STANDING, (0, 4), r"\(0, 4\)"),
    ],
)
def test_what_cannot_be_simulated_is_refused(image, path, sensor_hw, told):
    with pytest.raises(UserError, match=told):
        EventCamera().simulate(image, path, sensor_hw, np.random.default_rng(0))


def test_saccades_that_go_nowhere_are_refused():
    for wrong in ({"amplitude_px": -1}, {"amplitude_px": 1, "duration_us": 0}):
        with pytest.raises(UserError):
            saccades(**wrong)
