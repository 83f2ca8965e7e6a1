"""A folder of unlabelled images: what is found in it, what is held out, and which part of each is seen."""

import os

import numpy as np
import pytest
from PIL import Image

from eventclip.datasets.images import Crops, HeldOut, Images, find_images, put_beside, read_picture, readable
from eventclip.errors import UserError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_of(images, root):
    return [images.path(place).relative_to(root).as_posix() for place in range(len(images))]


def made(*folders):
    """Images in folders, by a letter each."""
    paths = [os.fsencode(f"/r/{folder}/{place}.png") for place, folder in enumerate(folders)]
    return Images(np.array(paths), np.array([os.fsencode(folder) for folder in folders]))


def test_images_of_any_depth_are_found_in_order(tmp_path):
    names = ("z.PNG", "a/b/c/1.jpg", "a/0.jpeg", "a/x.txt", ".hidden/1.png", "a/.1.png", "b c/é.png", "a.png/no.md")
    touch(tmp_path, *names)
    (tmp_path / "b c" / "link").symlink_to(tmp_path / "a")
    found = find_images(tmp_path)
    assert names_of(found, tmp_path) == ["a/0.jpeg", "a/b/c/1.jpg", "b c/é.png", "z.PNG"]
    assert [os.fsdecode(folder) for folder in found.folders] == ["a", "a", "b c", ""]
    assert names_of(find_images(tmp_path, leave_out=["a"]), tmp_path) == ["b c/é.png", "z.PNG"]


def test_the_same_images_elsewhere_have_one_checksum(tmp_path):
    for root in ("one", "two"):
        touch(tmp_path / root, "a/1.png", "2.png")
    one, two = (find_images(tmp_path / root).checksum(tmp_path / root) for root in ("one", "two"))
    assert one == two
    touch(tmp_path / "two", "3.png")
    assert find_images(tmp_path / "two").checksum(tmp_path / "two") != one


def test_a_name_that_is_no_text_is_an_image_all_the_same(tmp_path):
    odd = os.fsdecode(b"\xff.png")
    touch(tmp_path, odd)
    assert find_images(tmp_path).path(0).name == odd


@pytest.mark.parametrize(
    ("root", "leave_out", "told"),
    [
        ("nowhere", (), "there is no folder .*nowhere: images= is a folder with images"),
        ("a/1.png", (), "there is no folder .*1.png"),
        ("empty", (), r"there is no image in .*empty: expected files that end in \.jpg, \.jpeg, \.png"),
        (".", ("a", "empty"), "there is no image in"),
        (".", ("b",), "has no folder 'b' to leave out"),
        (".", "a", r"leave_out must be a list of folders, got 'a': write \[a\]"),
    ],
)
def test_a_folder_without_images_is_told(tmp_path, root, leave_out, told):
    touch(tmp_path, "a/1.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=told) as refused:
        find_images(tmp_path / root, leave_out=leave_out)
    assert "\n" not in str(refused.value)


def test_images_that_cannot_be_used_are_left_out_by_name(shapes_root, tmp_path):
    good = find_images(shapes_root).path(0)
    (tmp_path / "a.png").write_bytes(good.read_bytes())
    (tmp_path / "b.png").write_bytes(good.read_bytes()[:60])
    (tmp_path / "c.jpg").write_bytes(b"no image")
    Image.new("RGB", (40, 30), (10, 20, 30)).save(tmp_path / "d.png")
    Image.new("L", (4, 30)).save(tmp_path / "e.png")
    kept, causes = readable(find_images(tmp_path), workers=2, progress=False)
    assert names_of(kept, tmp_path) == ["a.png"]
    told = ("b.png cannot be read as an image", "c.jpg cannot be read as an image", "d.png is of a single gray")
    told = (*told, "e.png is 4x30 px")
    for cause, words in zip(causes, told, strict=True):
        assert f"{tmp_path}/{words}" in cause
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"none of 4 images can be used: .*b\.png cannot be read"):
        readable(find_images(tmp_path), workers=1, progress=False)


def test_a_picture_of_one_colour_is_refused(tmp_path):
    Image.new("L", (40, 30), 128).save(tmp_path / "gray.png")
    with pytest.raises(UserError, match=r"gray\.png is of a single gray or colour, which gives no events: take it out"):
        read_picture(tmp_path / "gray.png")


def test_images_are_held_out_by_share_and_most_and_none_twice():
    images = made(*"abcd" * 25)
    for given, count in (({}, 10), ({"share": 0.3}, 30), ({"share": 0.3, "most": 7}, 7), ({"share": 0.001}, 2)):
        learned, out = HeldOut(**given)(images, seed=0)
        assert (len(learned), len(out)) == (100 - count, count)
        both = learned.paths.tolist() + out.paths.tolist()
        assert sorted(both) == sorted(images.paths.tolist())
        order = {path: place for place, path in enumerate(images.paths.tolist())}
        for part in (learned, out):
            places = [order[path] for path in part.paths.tolist()]
            assert places == sorted(places)
    first, again, other = (HeldOut()(images, seed)[1].paths.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_held_out_folders_are_never_learned_from():
    images = made(*"abcd" * 10)
    learned, out = HeldOut(folders=["b", "d"])(images, seed=0)
    assert set(out.folders) == {b"b", b"d"}
    assert set(learned.folders) == {b"a", b"c"}
    learned, out = HeldOut(folders=["b", "d"], most=5)(images, seed=0)
    assert len(out) == 5
    assert set(learned.folders) == {b"a", b"c"}  # not those of b and d that are beyond the most
    learned, out = HeldOut(folders=3)(images, seed=0)
    assert len(set(out.folders)) == 3
    assert not set(out.folders) & set(learned.folders)
    assert len({tuple(np.unique(HeldOut(folders=1)(images, seed)[1].folders)) for seed in range(20)}) == 4


@pytest.mark.parametrize(
    ("given", "folders", "told"),
    [
        ({"share": 0}, "ab", r"heldout.share must lie between 0 and 1 .* got 0 and 500"),
        ({"share": 1.0}, "ab", "heldout.share must lie between 0 and 1"),
        ({"most": 1}, "ab", "heldout.most be 2 or more"),
        ({"folders": 4}, "abcd", "heldout.folders=4 must be 1 to 3 of 4 folders"),
        ({"folders": 0}, "abcd", "heldout.folders=0 must be 1 to 3"),
        ({"folders": 1}, "aaaa", "needs images in two folders or more and there are 1: give heldout.folders=null"),
        ({"folders": ["x"]}, "abcd", "heldout.folders names 'x', and the images have no such folder"),
        ({"folders": []}, "abcd", "0 are held out: .* give more images or another heldout.folders"),
        ({"folders": ["a", "b"]}, "abab", "0 images are left to learn from and 4 are held out"),
        ({}, "ab", "0 images are left to learn from and 2 are held out: .* another heldout.share"),
    ],
)
def test_a_share_that_leaves_nothing_is_refused(given, folders, told):
    with pytest.raises(UserError, match=told):
        HeldOut(**given)(made(*folders), seed=0)


def test_a_part_is_as_large_as_asked_and_inside():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8))
    crops = Crops(area=0.25, whole=0.5)
    sizes = [crops(picture, np.random.default_rng(seed)).size for seed in range(200)]
    whole = sum(size == (160, 120) for size in sizes)
    assert 70 <= whole <= 130
    for width, height in sizes:
        if (width, height) != (160, 120):
            assert 0.24 <= width * height / (160 * 120) <= 1.01
            assert 0.74 <= width / height <= 1.36
    one, again = (crops(picture, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, again)


def test_a_picture_too_small_to_cut_is_shown_whole():
    picture = Image.new("L", (16, 17))
    assert Crops(area=0.01, whole=0.0)(picture, np.random.default_rng(0)).size == (16, 17)
    assert Crops(area=1.0, whole=0.0)(Image.new("L", (90, 80)), np.random.default_rng(0)).size == (90, 80)


def test_another_image_covers_one_side_and_no_more():
    white, black = Image.new("RGB", (100, 80), "white"), Image.new("RGB", (30, 200))
    sides = set()
    for seed in range(40):
        covered = np.asarray(put_beside(white, black, np.random.default_rng(seed)))[..., 0] == 0
        rows, columns = covered.all(axis=1), covered.all(axis=0)
        assert 0.33 <= covered.mean() <= 0.66
        assert covered.mean() in (rows.mean(), columns.mean())  # one band, all across
        sides |= {(bool(covered[0, 0]), bool(covered[0, -1]), bool(covered[-1, 0]))}
    assert len(sides) == 4
    assert np.asarray(white).min() == 255


@pytest.mark.parametrize("given", [{"area": 0}, {"area": 1.1}, {"whole": -0.1}, {"whole": 2}, {"beside": 1.5}])
def test_a_share_of_an_area_outside_its_range_is_refused(given):
    with pytest.raises(UserError, match=r"above 0 and up to 1, crops\.whole and crops\.beside from 0 to 1, got"):
        Crops(**given)
