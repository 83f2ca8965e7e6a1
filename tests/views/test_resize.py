"""The resampling kernels give Pillow's bytes."""

import platform

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eventclip.views import resize as resample
from eventclip.views.affine import affine_bicubic
from eventclip.views.resize import frame_planes, resize_bicubic


def assert_pillows_bytes(ours, pillows):
    if platform.machine() in ("x86_64", "AMD64"):
        np.testing.assert_array_equal(ours, pillows)
    else:  # Pillow's C code is compiled with fused multiply-adds there
        difference = np.abs(ours.astype(int) - pillows)
        assert difference.max(initial=0) <= 1
        assert (difference > 0).mean() <= 0.01


def made_planes(seed, shape):
    """Black, white and noise: overshoot and clamping in every neighbourhood."""
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 255, *rng.integers(0, 256, 4)], np.uint8), size=shape)


side = st.integers(1, 70)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 99), side, side, st.integers(1, 160), st.integers(1, 160), st.data())
def test_resize_and_crop_is_pillows(seed, height, width, target_height, target_width, data):
    planes = made_planes(seed, (2, height, width))
    top = data.draw(st.integers(0, target_height - 1))
    left = data.draw(st.integers(0, target_width - 1))
    size = data.draw(st.integers(1, target_height - top)), data.draw(st.integers(1, target_width - left))
    ours = resize_bicubic(planes, (target_height, target_width), top=top, left=left, size=size)
    box = left, top, left + size[1], top + size[0]
    # In two calls, because Pillow chooses the order of the passes by itself from version 13 on.
    across = [Image.fromarray(plane).resize((target_width, height), Image.Resampling.BICUBIC) for plane in planes]
    both = [image.resize((target_width, target_height), Image.Resampling.BICUBIC).crop(box) for image in across]
    assert_pillows_bytes(ours, np.stack([np.asarray(image) for image in both]))


@pytest.mark.parametrize(
    ("height", "width", "target", "enlarged"),
    [(100, 120, (224, 268), True), (180, 240, (224, 298), True), (480, 640, (224, 298), False)],
)
def test_frames_of_the_small_sensors_are_enlarged_four_rows_at_a_time(height, width, target, enlarged):
    planes = made_planes(0, (1, height, width))
    ours = resize_bicubic(planes, target, top=0, left=37, size=(224, 224))
    across = Image.fromarray(planes[0]).resize((target[1], height), Image.Resampling.BICUBIC)
    pillows = across.resize((target[1], target[0]), Image.Resampling.BICUBIC).crop((37, 0, 261, 224))
    assert_pillows_bytes(ours[0], np.asarray(pillows))
    for taps in (resample._taps(height, target[0], 0, 224), resample._taps(width, target[1], 37, 224)):
        assert (taps.most <= 4) == enlarged


@pytest.mark.parametrize("seed", range(5))
def test_both_ways_to_weigh_rows_give_the_same(seed):
    planes = made_planes(seed, (2, 20 + seed, 33))
    taps = resample._taps(20 + seed, 60, 7, 45)
    one, other = np.zeros((2, 45, 33), np.uint8), np.ones((2, 45, 33), np.uint8)
    resample._weigh_rows(planes, taps.first, taps.used, taps.weights, one)
    resample._weigh_four_rows(planes, taps.first, taps.weights, other)
    np.testing.assert_array_equal(one, other)


number = st.floats(-2, 2)
offset = st.floats(-40, 40)
matrices = st.one_of(
    st.tuples(number, number, offset, number, number, offset),
    st.builds(lambda slope: (1.0, slope, 0.0, 0.0, 1.0, 0.0), number),
    st.builds(lambda slope: (1.0, 0.0, 0.0, slope, 1.0, 0.0), number),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 99), side, side, matrices, st.sampled_from([0, 255]))
def test_affine_transform_is_pillows(seed, height, width, matrix, fill):
    planes = made_planes(seed, (2, height, width))
    pillows = [
        np.asarray(
            Image.fromarray(plane).transform(
                (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill
            )
        )
        for plane in planes
    ]
    assert_pillows_bytes(affine_bicubic(planes, matrix, fill), np.stack(pillows))


def test_colours_are_planes_of_their_own():
    frames = made_planes(0, (2, 5, 6, 3))
    planes, channels = frame_planes(frames)
    assert channels == 3
    np.testing.assert_array_equal(planes.reshape(2, 3, 5, 6).transpose(0, 2, 3, 1), frames)


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5, 2), (0, 4, 5), (1, 0, 5)])
def test_what_is_no_stack_of_frames_is_refused(shape):
    with pytest.raises(ValueError, match="frames must be uint8"):
        frame_planes(np.zeros(shape, np.uint8))
