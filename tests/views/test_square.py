"""Windows to keep, and CLIP's preprocessing."""

import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from eventclip.errors import UserError
from eventclip.views.square import choose_windows, clip_resize, pad_views, views_per_recording

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "preprocess.npz"
EXACT = 0 if platform.machine() in ("x86_64", "AMD64") else 1  # Pillow uses fused multiply-adds elsewhere
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = np.array([0.26862954, 0.26130258, 0.27577711])[:, None, None]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def windows(count):
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
    np.testing.assert_array_equal(choose_windows(windows(count), 4, rng), windows(count))
    np.testing.assert_array_equal(choose_windows(windows(count), 4, None), windows(count))


def test_evaluation_spreads_its_windows_evenly():
    starts = choose_windows(windows(11), 3, None)[:, 0]
    assert starts.tolist() == [10, 50, 90]
    assert choose_windows(windows(11), 1, None).tolist() == [[50, 60]]


@pytest.mark.parametrize("count", range(2, 25))
@pytest.mark.parametrize("keep", [1, 2, 10])
def test_chosen_windows_are_distinct_in_order_and_among_those_given(rng, count, keep):
    for generator in (None, rng):
        starts = choose_windows(windows(count), keep, generator)[:, 0].tolist()
        assert len(starts) == min(count, keep)
        assert starts == sorted(set(starts))
        assert set(starts) <= set(windows(count)[:, 0].tolist())


def test_training_can_choose_any_window(rng):
    seen = {int(start) for _ in range(200) for start in choose_windows(windows(11), 2, rng)[:, 0]}
    assert seen == set(range(0, 110, 10))


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
def test_crop_of_portrait_frames_goes_across_first_whatever_pillow_does(rng, hw, size):
    frames = rng.integers(0, 256, (2, *hw), dtype=np.uint8)
    across = [Image.fromarray(frame).resize((size, hw[0]), Image.Resampling.BICUBIC) for frame in frames]
    tall = [image.resize((size, int(size * hw[0] / hw[1])), Image.Resampling.BICUBIC) for image in across]
    expected = np.stack([v2.functional.pil_to_tensor(v2.CenterCrop(size)(image)).numpy() for image in tall])
    assert np.abs(clip_resize(frames, size) - expected.astype(int)).max() <= EXACT


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_gray_is_any_channel_of_the_same_frame_in_rgb(rng, fit):
    gray = rng.integers(0, 256, (2, 18, 24), dtype=np.uint8)
    views = clip_resize(gray, 14, fit=fit)
    assert views.shape == (2, 1, 14, 14)
    rgb = clip_resize(np.repeat(gray[..., None], 3, axis=-1), 14, fit=fit)
    np.testing.assert_array_equal(rgb, np.repeat(views, 3, axis=1))


@pytest.mark.parametrize("background", [0, 255])
def test_pad_shows_the_whole_frame_on_background(background):
    frame = np.full((1, 30, 120), 100, np.uint8)
    view = clip_resize(frame, 40, fit="pad", background=background)[0, 0]
    assert (view[15:25] == 100).all()
    assert (view[:15] == background).all()
    assert (view[25:] == background).all()
    assert np.array_equal(clip_resize(frame.swapaxes(1, 2), 40, fit="pad", background=background)[0, 0], view.T)


def test_stretch_shows_the_whole_frame_in_the_whole_square():
    frame = np.zeros((1, 30, 120), np.uint8)
    frame[:, :, 60:] = 200
    view = clip_resize(frame, 40, fit="stretch")[0, 0]
    assert (view[:, :18] == 0).all()
    assert (view[:, 22:] == 200).all()


def test_a_square_of_the_right_size_stays_as_it_is(rng):
    frames = rng.integers(0, 256, (2, 14, 14), dtype=np.uint8)
    for fit in ("crop", "pad", "stretch"):
        np.testing.assert_array_equal(clip_resize(frames, 14, fit=fit)[:, 0], frames)


def test_an_unknown_fit_is_refused_with_the_choices():
    with pytest.raises(UserError, match="crop, pad, stretch, got 'squash'"):
        clip_resize(np.zeros((1, 4, 4), np.uint8), 4, fit="squash")


def test_missing_views_are_zeros_and_marked(rng):
    views = rng.integers(1, 256, (2, 1, 4, 4), dtype=np.uint8)
    filled, valid = pad_views(views, 5)
    assert filled.shape == (5, 1, 4, 4)
    assert filled.dtype == np.uint8
    assert valid.tolist() == [True, True, False, False, False]
    np.testing.assert_array_equal(filled[:2], views)
    assert not filled[2:].any()


@pytest.mark.parametrize("count", [0, 3])
def test_views_that_cannot_be_padded_are_refused(count):
    with pytest.raises(ValueError, match="1 to 2 views"):
        pad_views(np.zeros((count, 1, 2, 2)), 2)
