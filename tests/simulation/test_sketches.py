import numpy as np
import pytest

from eventclip.errors import UserError
from eventclip.simulation.glyphs import has_glyph
from eventclip.simulation.sketches import CLASSES, FONT, MARGIN, Hand


def test_the_font_draws_every_class_and_no_code_point_shows_two():
    codes = [code for codes in CLASSES.values() for code in codes]
    assert len(CLASSES) == 40
    assert len(set(codes)) == len(codes)
    assert all(has_glyph(code, FONT) for code in codes)
    assert list(CLASSES) == sorted(CLASSES)  # the order that class folders have


@pytest.mark.parametrize("side", [64, 128])
def test_a_sketch_is_light_with_a_margin_around_the_field_of_view(side):
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
    still = Hand(scribbles=(0, 0), stains=0.0)
    for seed, name in enumerate(CLASSES):
        picture = still.sketch(name, 64, np.random.default_rng(seed))
        paper = np.median(picture)
        inked = np.abs(picture - paper) > 0.05
        inside = inked[MARGIN:-MARGIN, MARGIN:-MARGIN].sum()
        assert inside >= 0.85 * inked.sum() > 0, name


def test_an_unknown_class_is_named_with_the_known_ones():
    with pytest.raises(UserError, match=r"no symbol called 'unicorn'.*airplane"):
        Hand().sketch("unicorn", 64, np.random.default_rng(0))
