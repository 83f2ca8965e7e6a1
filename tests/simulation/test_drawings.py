from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from eventclip.errors import UserError
from eventclip.simulation.drawings import (
    CLASSES,
    FONT,
    MARGIN,
    Hand,
    fill,
    has_glyph,
    hatch,
    outline,
    project,
    resample,
    stroke,
    wobble,
)

SQUARE = np.array([[8.0, 8.0], [24.0, 8.0], [24.0, 24.0], [8.0, 24.0]])
HOLE = np.array([[12.0, 12.0], [12.0, 20.0], [20.0, 20.0], [20.0, 12.0]])  # runs the other way round


def test_an_outline_is_centred_with_its_longer_side_one():
    points = np.concatenate(outline(0x2602, "DejaVuSans"))
    low, high = points.min(axis=0), points.max(axis=0)
    np.testing.assert_allclose(low, -high, atol=1e-12)
    assert (high - low).max() == pytest.approx(1.0)


def test_an_umbrella_is_the_right_way_up():
    canopy = fill(tuple(c * 50 + 32 for c in outline(0x2602, "DejaVuSans")), 64)
    assert canopy[:32].sum() > 2 * canopy[32:].sum()


def test_outlines_are_the_same_from_any_number_of_threads():
    codes = [*range(0x2600, 0x2640)]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda code: outline(code, "DejaVuSans-Oblique"), codes))
    outline.cache_clear()
    for code, found in zip(codes, threaded, strict=True):
        for expected, contour in zip(outline(code, "DejaVuSans-Oblique"), found, strict=True):
            np.testing.assert_array_equal(contour, expected)


def test_a_font_is_asked_what_it_draws():
    assert has_glyph(0x2708, "DejaVuSans")
    assert not has_glyph(0x26BD, "DejaVuSans")  # soccer ball


@pytest.mark.parametrize(
    ("code", "font", "message"),
    [
        (0x26BD, "DejaVuSans", r"no glyph for code point U\+26BD"),
        (0x2708, "Comic", "no font 'Comic'"),
        (0x20, "DejaVuSans", "blank"),
    ],
)
def test_what_cannot_be_drawn_is_named(code, font, message):
    with pytest.raises(UserError, match=message):
        outline(code, font)


def test_resampling_keeps_corners_and_leaves_no_wide_gap():
    dense = resample(SQUARE, 1.5)
    assert {tuple(p) for p in SQUARE} <= {tuple(p) for p in dense}
    steps = np.hypot(*(np.roll(dense, -1, axis=0) - dense).T)
    assert steps.max() <= 1.5
    assert steps.sum() == pytest.approx(64.0)


def test_a_fill_covers_its_area_and_leaves_the_hole_out():
    ink = fill((SQUARE, HOLE), 32)
    # The polygon's rim counts as inside: half a sub-cell on every side.
    assert ink.sum() == pytest.approx(16**2 - 8**2, rel=0.04)
    assert ink[10, 10] == 1.0
    assert ink[16, 16] == ink[2, 2] == 0.0


def test_contours_that_run_the_same_way_are_one_filled_area():
    assert fill((SQUARE, HOLE[::-1]), 32)[16, 16] == 1.0


def test_a_stroke_is_as_wide_as_its_pen_and_closed_only_if_asked():
    ink = stroke((SQUARE,), 32, width=2.0)
    assert ink[:, 16].sum() == pytest.approx(4.0, abs=0.5)  # two lines of 2 px
    assert stroke((SQUARE,), 32, width=2.0, closed=False)[16, 8] == 0.0 < ink[16, 8]


def test_dashes_ink_their_share_of_the_line():
    line = (resample(SQUARE, 0.25),)
    whole, dashed = stroke(line, 32, width=1.0), stroke(line, 32, width=1.0, dash=(4.0, 4.0))
    assert 0.4 < dashed.sum() / whole.sum() < 0.6
    assert (dashed <= whole + 0.5).all()


def test_a_hatch_inks_its_share_and_is_straight_without_bend():
    lines = hatch(64, angle=0.0, spacing=8.0, width=2.0)
    assert lines.mean() == pytest.approx(2 / 8, abs=0.03)
    np.testing.assert_array_equal(lines, np.repeat(lines[:, :1], 64, axis=1))


def test_wobble_moves_points_by_its_amplitude():
    contours = outline(0x2708, "DejaVuSans")
    bent, again = (wobble(contours, np.random.default_rng(3), amplitude=0.01) for _ in range(2))
    moves = np.concatenate(bent) - np.concatenate(contours)
    assert moves.std() == pytest.approx(0.01, rel=0.5)
    for one, other in zip(bent, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_homography_keeps_straight_lines_straight():
    matrix = np.array([[20.0, 3.0, 30.0], [-2.0, 18.0, 30.0], [0.2, -0.1, 1.0]])
    x = np.linspace(-0.5, 0.5, 9)
    (line,) = project((np.column_stack([x, 0.3 * x + 0.1]),), matrix)
    first, last = line[0], line[-1]
    away = (line - first) @ np.array([-(last - first)[1], (last - first)[0]])
    np.testing.assert_allclose(away, 0.0, atol=1e-9)


def test_the_font_draws_every_class_and_no_code_point_shows_two():
    codes = [code for codes in CLASSES.values() for code in codes]
    assert len(CLASSES) == 40
    assert len(set(codes)) == len(codes)
    assert all(has_glyph(code, FONT) for code in codes)
    assert list(CLASSES) == sorted(CLASSES)  # the order that class folders have


@pytest.mark.parametrize("side", [64, 128])
def test_a_sketch_is_light_with_a_margin_around_it(side):
    picture = Hand().sketch("anchor", side, np.random.default_rng(0))
    assert picture.shape == (side + 2 * MARGIN,) * 2
    assert picture.dtype == np.float32
    assert 0.0 <= picture.min() < picture.max() <= 1.0


def test_a_sketch_depends_on_its_generator_alone():
    def sketch(seed):
        return Hand().sketch("comet", 64, np.random.default_rng(seed))

    np.testing.assert_array_equal(sketch(1), sketch(1))
    assert np.abs(sketch(1) - sketch(2)).max() > 0.05


def test_the_symbol_lies_in_the_field_of_view():
    plain = Hand(scribbles=(0, 0), stains=0.0)
    for seed, name in enumerate(CLASSES):
        picture = plain.sketch(name, 64, np.random.default_rng(seed))
        paper = np.median(picture)
        inked = np.abs(picture - paper) > 0.05
        inside = inked[MARGIN:-MARGIN, MARGIN:-MARGIN].sum()
        assert inside >= 0.85 * inked.sum() > 0, name


def test_an_unknown_class_is_named_with_the_known_ones():
    with pytest.raises(UserError, match=r"no symbol called 'unicorn'.*airplane"):
        Hand().sketch("unicorn", 64, np.random.default_rng(0))
