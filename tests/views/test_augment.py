"""Random changes to events and frames."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as torchvision_functional

from eventclip.errors import UserError
from eventclip.events.array import events_from_columns, flip_time, mirror, moved, shift
from eventclip.views.augment import OPERATIONS, Augmentation, Operation, RandAugment, apply_operation, magnitude_of

HW = (36, 48)
BICUBIC = v2.InterpolationMode.BICUBIC


def made_events(count=300, seed=0):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, 10_000, count))
    return events_from_columns(
        t, rng.integers(0, HW[1], count), rng.integers(0, HW[0], count), rng.integers(0, 2, count)
    )


def made_frames(seed=0, hw=HW):
    """Two frames of different levels, mostly background, as event frames are."""
    rng = np.random.default_rng(seed)
    frames = np.full((2, *hw), 255, np.uint8)
    hit = rng.random(frames.shape) < 0.4
    frames[hit] = rng.integers(60, 230, hit.sum())
    frames[1] //= 2
    return frames


def torchvisions(name, magnitude, fill):
    """The operation as torchvision's RandAugment applies it, by its public functions."""
    f = torchvision_functional
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], "interpolation": BICUBIC}
    still["fill"] = fill
    degrees = np.degrees(np.arctan(magnitude)).item()
    return {
        "Identity": lambda image: image,
        "ShearX": lambda image: f.affine(image, **{**still, "shear": [degrees, 0.0]}, center=[0, 0]),
        "ShearY": lambda image: f.affine(image, **{**still, "shear": [0.0, degrees]}, center=[0, 0]),
        "TranslateX": lambda image: f.affine(image, **{**still, "translate": [int(magnitude), 0]}),
        "TranslateY": lambda image: f.affine(image, **{**still, "translate": [0, int(magnitude)]}),
        "Rotate": lambda image: f.rotate(image, magnitude, interpolation=BICUBIC, fill=fill),
        "Brightness": lambda image: f.adjust_brightness(image, 1.0 + magnitude),
        "Color": lambda image: f.adjust_saturation(image, 1.0 + magnitude),
        "Contrast": lambda image: f.adjust_contrast(image, 1.0 + magnitude),
        "Sharpness": lambda image: f.adjust_sharpness(image, 1.0 + magnitude),
        "Posterize": lambda image: f.posterize(image, int(magnitude)),
        "Solarize": lambda image: f.solarize(image, 255.0 * magnitude),
        "AutoContrast": f.autocontrast,
        "Equalize": f.equalize,
    }[name]


every_operation = pytest.mark.parametrize("name", sorted(OPERATIONS))
some_strengths = pytest.mark.parametrize(("strength", "sign"), [(0.0, 1), (0.31, -1), (0.31, 1), (1.0, -1), (1.0, 1)])


@every_operation
@some_strengths
@pytest.mark.parametrize("colour", [False, True])
def test_each_operation_is_torchvisions_on_pillow_images(name, strength, sign, colour):
    frames = made_frames()
    if colour:
        frames = np.stack([frames, frames[:, ::-1], 255 - frames], axis=-1)
    magnitude = magnitude_of(name, strength, HW, sign=sign)
    for fill in (0, 255):
        ours = apply_operation(frames, Operation(name, magnitude), fill=fill).astype(int)
        change = torchvisions(name, magnitude, [fill] * 3 if colour else fill)
        theirs = np.stack([np.asarray(change(Image.fromarray(frame))) for frame in frames])
        # Bicubic results are cut to whole levels, so a matrix entry's last bit can show in a single pixel.
        assert np.abs(ours - theirs).max() <= 1
        assert (ours != theirs).mean() <= 0.001


@every_operation
@some_strengths
def test_gray_is_every_channel_of_the_same_frame_in_rgb(name, strength, sign):
    frames = made_frames()
    operation = Operation(name, magnitude_of(name, strength, HW, sign=sign))
    gray = apply_operation(frames, operation)
    rgb = apply_operation(np.repeat(frames[..., None], 3, axis=-1), operation)
    np.testing.assert_array_equal(rgb, np.repeat(gray[..., None], 3, axis=-1))


@every_operation
def test_an_operation_leaves_its_argument_as_it_was(name):
    frames = made_frames()
    apply_operation(frames, Operation(name, magnitude_of(name, 0.7, HW)))
    np.testing.assert_array_equal(frames, made_frames())


def test_names_and_magnitudes_are_torchvisions_for_every_bin():
    space = v2.RandAugment._AUGMENTATION_SPACE
    assert list(OPERATIONS) == list(space)
    for name, (magnitudes, signed) in space.items():
        theirs = magnitudes(30, *HW)
        for index in range(30):
            ours = magnitude_of(name, index / 29, HW)
            assert ours == pytest.approx(0.0 if theirs is None else float(theirs[index]), abs=1e-4)
            turned = magnitude_of(name, index / 29, HW, sign=-1)
            assert turned == (-ours if signed else ours)


def test_all_frames_of_a_recording_change_alike():
    augment, frame = RandAugment(), made_frames()[:1]
    for seed in range(40):
        twice = augment(np.repeat(frame, 2, axis=0), np.random.default_rng(seed))
        np.testing.assert_array_equal(twice[0], twice[1])
        np.testing.assert_array_equal(twice[:1], augment(frame, np.random.default_rng(seed)))


def test_the_draw_depends_on_the_generator_alone():
    state, torch_state = np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002
    augment, frames = RandAugment(), made_frames()
    first = augment(frames, np.random.default_rng(5))
    augment(frames, np.random.default_rng(6))
    np.testing.assert_array_equal(augment(frames, np.random.default_rng(5)), first)
    np.testing.assert_equal(np.random.get_state(legacy=False), state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_one_magnitude_bin_is_drawn_for_all_operations():
    augment = RandAugment(operations=6)
    for seed in range(50):
        drawn = dict(augment.draw(np.random.default_rng(seed), HW))
        strengths = [abs(drawn[name]) / magnitude_of(name, 1.0, HW) for name in ("ShearX", "Rotate") if name in drawn]
        assert np.ptp(strengths or [0.0]) < 1e-9


def test_every_operation_bin_and_sign_is_drawn():
    rng, augment = np.random.default_rng(0), RandAugment(operations=2)
    drawn = [operation for _ in range(3000) for operation in augment.draw(rng, HW)]
    assert {operation.name for operation in drawn} == set(OPERATIONS)
    shears = {round(operation.magnitude / 0.3 * 29) for operation in drawn if operation.name == "ShearX"}
    assert shears == set(range(-29, 30))


@pytest.mark.parametrize("shape", [(1, 180, 240), (2, 36, 48), (2, 36, 48, 3)])
def test_shape_and_dtype_stay(shape):
    frames = np.full(shape, 255, np.uint8)
    for seed in range(30):
        changed = RandAugment()(frames, np.random.default_rng(seed))
        assert changed.shape == shape
        assert changed.dtype == np.uint8


def test_what_comes_in_from_outside_is_the_fill():
    frames = np.full((1, *HW), 100, np.uint8)
    for fill in (0, 255):
        moved = apply_operation(frames, Operation("TranslateX", -5.9), fill=fill)[0]
        assert (moved[:, -5:] == fill).all()
        assert (moved[:, :-5] == 100).all()


@pytest.mark.parametrize("options", [{"operations": -1}, {"magnitude_bins": 1}, {"fill": 256}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        RandAugment(**options)


OPTIONS = {"max_shift": 6, "flip_time": True}


def augmented(events, seed, **options):
    return moved(events, HW, Augmentation(**options).move(np.random.default_rng(seed)))


def test_event_augmentation_is_flip_then_shift_then_mirror():
    events, seen = made_events(), set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        backwards, mirrored = rng.random(2) < 0.5
        dx, dy = rng.integers(-6, 6, size=2, endpoint=True).tolist()
        expected = shift(flip_time(events) if backwards else events, dx, dy, HW)
        expected = mirror(expected, HW[1]) if mirrored else expected
        np.testing.assert_array_equal(augmented(events, seed, **OPTIONS), expected)
        seen.add((bool(backwards), bool(mirrored)))
    assert len(seen) == 4


def test_augmented_events_stay_on_the_sensor_and_none_is_made_up():
    events = made_events()
    for seed in range(40):
        changed = augmented(events, seed, **OPTIONS)
        assert len(changed) <= len(events)
        assert (changed["x"] >= 0).all()
        assert (changed["x"] < HW[1]).all()
        assert (changed["y"] >= 0).all()
        assert (changed["y"] < HW[0]).all()
        assert (np.diff(changed["t"]) >= 0).all()
    np.testing.assert_array_equal(events, made_events())


def test_switching_one_choice_off_leaves_the_others_as_they_were():
    events = made_events()
    for seed in range(20):
        both = augmented(events, seed, **OPTIONS)
        unmirrored = augmented(events, seed, **OPTIONS, mirror=False)
        assert np.array_equal(both, unmirrored) or np.array_equal(both, mirror(unmirrored, HW[1]))


def test_nothing_switched_on_changes_nothing():
    same = augmented(made_events(), 0, max_shift=0, flip_time=False, mirror=False)
    np.testing.assert_array_equal(same, made_events())


def test_shifts_reach_both_ends_and_are_uniform():
    one = events_from_columns([0], [24], [18], [1])
    shifted = [augmented(one, seed, max_shift=2, mirror=False) for seed in range(1000)]
    for axis, middle in (("x", 24), ("y", 18)):
        counts = np.bincount([int(events[axis][0]) - middle + 2 for events in shifted], minlength=5)
        assert len(counts) == 5
        assert counts.min() > 140


def test_a_recording_without_events_stays_one():
    assert len(augmented(made_events(0), 0, **OPTIONS)) == 0
