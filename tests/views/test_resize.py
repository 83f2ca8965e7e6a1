"""CLIP's preprocessing, and resampling kernels that give Pillow's bytes."""

import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from eventclip.errors import UserError
from eventclip.views import resize as resample
from eventclip.views.resize import clip_resize, frame_planes, resize_bicubic

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "preprocess.npz"
EXACT = 0 if platform.machine() in ("x86_64", "AMD64") else 1  # Pillow uses fused multiply-adds elsewhere
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = np.array([0.26862954, 0.26130258, 0.27577711])[:, None, None]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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
def test_small_sensors_are_enlarged_four_rows_at_a_time(height, width, target, enlarged):
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


def test_colours_are_planes_of_their_own():
    frames = made_planes(0, (2, 5, 6, 3))
    planes, channels = frame_planes(frames)
    assert channels == 3
    np.testing.assert_array_equal(planes.reshape(2, 3, 5, 6).transpose(0, 2, 3, 1), frames)


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5, 2), (0, 4, 5), (1, 0, 5)])
def test_what_is_no_stack_of_frames_is_refused(shape):
    with pytest.raises(ValueError, match="frames must be uint8"):
        frame_planes(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("case", ["ncaltech_default", "ncars_default", "nimagenet_default", "rgb_mask"])
def test_clip_pixels_are_the_golden_ones(case):
    with np.load(GOLDEN) as golden:
        frame, expected = golden[f"{case}/frame"], golden[f"{case}/pixels"].astype(float)
    views = clip_resize(frame[None], 224)
    assert views.shape == (1, len(expected), 224, 224)
    pixels = (views[0] / 255 - MEAN[: len(expected)]) / STD[: len(expected)]
    difference = np.abs(pixels - expected)
    assert difference.mean() <= 0.01
    assert difference.max() <= 0.12


@pytest.mark.parametrize("hw", [(18, 24), (48, 64), (31, 31), (9, 40), (23, 37), (224, 225)])
@pytest.mark.parametrize("size", [14, 31, 33])
def test_crop_is_clips_own_preprocessing_on_pillow_images(rng, hw, size):
    frames = rng.integers(0, 256, (2, *hw, 3), dtype=np.uint8)
    clip = v2.Compose([v2.Resize(size, v2.InterpolationMode.BICUBIC), v2.CenterCrop(size), v2.PILToTensor()])
    expected = torch.stack([clip(Image.fromarray(frame)) for frame in frames]).numpy().astype(int)
    assert np.abs(clip_resize(frames, size) - expected).max() <= EXACT


@pytest.mark.parametrize("hw", [(24, 18), (110, 30), (37, 23), (85, 25)])
@pytest.mark.parametrize("size", [14, 19, 20, 33])
def test_crop_of_portrait_frames_goes_across_first(rng, hw, size):
    frames = rng.integers(0, 256, (2, *hw), dtype=np.uint8)
    across = [Image.fromarray(frame).resize((size, hw[0]), Image.Resampling.BICUBIC) for frame in frames]
    tall = [image.resize((size, int(size * hw[0] / hw[1])), Image.Resampling.BICUBIC) for image in across]
    expected = np.stack([v2.functional.pil_to_tensor(v2.CenterCrop(size)(image)).numpy() for image in tall])
    assert np.abs(clip_resize(frames, size) - expected.astype(int)).max() <= EXACT


@pytest.mark.parametrize("mode", ["crop", "pad", "stretch"])
def test_gray_is_any_channel_of_the_same_frame_in_rgb(rng, mode):
    gray = rng.integers(0, 256, (2, 18, 24), dtype=np.uint8)
    views = clip_resize(gray, 14, mode=mode)
    assert views.shape == (2, 1, 14, 14)
    rgb = clip_resize(np.repeat(gray[..., None], 3, axis=-1), 14, mode=mode)
    np.testing.assert_array_equal(rgb, np.repeat(views, 3, axis=1))


@pytest.mark.parametrize("background", [0, 255])
def test_pad_shows_the_whole_frame_on_background(background):
    frame = np.full((1, 30, 120), 100, np.uint8)
    view = clip_resize(frame, 40, mode="pad", background=background)[0, 0]
    assert (view[15:25] == 100).all()
    assert (view[:15] == background).all()
    assert (view[25:] == background).all()
    assert np.array_equal(clip_resize(frame.swapaxes(1, 2), 40, mode="pad", background=background)[0, 0], view.T)


def test_stretch_shows_the_whole_frame_in_the_whole_square():
    frame = np.zeros((1, 30, 120), np.uint8)
    frame[:, :, 60:] = 200
    view = clip_resize(frame, 40, mode="stretch")[0, 0]
    assert (view[:, :18] == 0).all()
    assert (view[:, 22:] == 200).all()


def test_a_square_of_the_right_size_stays_as_it_is(rng):
    frames = rng.integers(0, 256, (2, 14, 14), dtype=np.uint8)
    for mode in ("crop", "pad", "stretch"):
        np.testing.assert_array_equal(clip_resize(frames, 14, mode=mode)[:, 0], frames)


def test_an_unknown_mode_is_refused_with_the_choices():
    with pytest.raises(UserError, match="crop, pad, stretch, got 'squash'"):
        clip_resize(np.zeros((1, 4, 4), np.uint8), 4, mode="squash")
