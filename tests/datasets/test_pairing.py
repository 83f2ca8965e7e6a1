"""Every recording finds its image: by name, or by events whatever its own name, and never by chance."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from eventclip.datasets.pairing import FEWEST_EVENTS, by_events, by_name, event_key, make_pairs
from eventclip.datasets.pairs import read_pairs
from eventclip.errors import UserError
from eventclip.io.formats import read_events

CLASSES = ("ant", "Bass drum")
COUNT = 4


@pytest.fixture(scope="module")
def encoders():
    """The module tests/io/encoders.py."""
    path = Path(__file__).parents[1] / "io" / "encoders.py"
    spec = importlib.util.spec_from_file_location("encoders", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def est(path, events, *, first_pixel=0, first_s=0.0):
    """Write events as the EST release has them."""
    columns = (
        events["x"] + first_pixel,
        events["y"] + first_pixel,
        events["t"] * 1e-6 + first_s,
        events["p"] * 2.0 - 1,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.stack(columns, axis=1).astype(np.float32))


@pytest.fixture
def release(tmp_path, encoders):
    """Originals, images of their names, and copies in splits under other names; gives (folder, copy -> image)."""
    rng, truth = np.random.default_rng(0), {}
    for label, name in enumerate(CLASSES):
        for number, other in enumerate(rng.permutation(COUNT)):
            events = encoders.made(200 + 10 * number, seed=COUNT * label + number, duration=300_000)
            for folder, suffix in (("originals", "bin"), ("images", "jpg")):
                path = tmp_path / folder / name / f"image_{number:04d}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoders.atis(events) if suffix == "bin" else b"")
            copy = f"{('training', 'validation', 'testing')[number % 3]}/{name}/{name}_{other}.npy"
            est(tmp_path / "copies" / copy, events)
            truth[copy] = f"{name}/image_{number:04d}.jpg"
    return tmp_path, truth


def pair(folder, *, out="pairs.csv", **given):
    folders = {key: folder / name for key, name in given.items() if key in ("images", "originals")}
    options = {key: value for key, value in given.items() if key not in folders}
    recordings = folder / options.pop("recordings", "copies")
    told = make_pairs(recordings, folder / out, **folders, progress=False, **options)
    lines = (folder / out).read_text(encoding="utf-8").splitlines()
    return dict(line.split(",") for line in lines[1:]), told


def test_a_renamed_copy_finds_the_image_of_its_original(release):
    folder, truth = release
    for images in ({}, {"images": "images"}):
        found, told = pair(folder, originals="originals", **images)
        assert found == truth
        assert told.endswith("8 of 8 recordings, 8 images")


@pytest.mark.shared
def test_a_real_recording_finds_its_real_image(shared, tmp_path):
    originals = shared / "data" / "recordings" / "n-caltech101"
    events, _ = read_events(originals / "Faces_easy" / "image_0001.bin")
    est(tmp_path / "copies" / "testing" / "Faces_easy" / "Faces_easy_7.npy", events)
    images = shared / "data" / "images" / "caltech101"
    make_pairs(tmp_path / "copies", tmp_path / "p.csv", images=images, originals=originals, progress=False)
    pairs = read_pairs(tmp_path / "p.csv", recordings=tmp_path / "copies", images=images)
    assert pairs.image(0) == images / "Faces_easy" / "image_0001.jpg"


@pytest.mark.parametrize("moved", [{"first_pixel": 1}, {"first_s": 2.5}])
def test_a_copy_may_count_pixels_and_time_from_elsewhere(release, encoders, moved):
    folder, truth = release
    copy = next(iter(truth))
    original = folder / "originals" / truth[copy].replace(".jpg", ".bin")
    number = 200 + 10 * int(original.stem[-4:])
    seed = COUNT * CLASSES.index(original.parent.name) + int(original.stem[-4:])
    est(folder / "copies" / copy, encoders.made(number, seed=seed, duration=300_000), **moved)
    found, told = pair(folder, originals="originals")
    assert found == truth
    assert "\n" not in told


@pytest.mark.parametrize("column", [0, 1, 3])
@pytest.mark.parametrize("row", [0, 77, -1])
def test_a_copy_with_one_changed_event_finds_nothing(release, column, row):
    folder, truth = release
    copy = sorted(truth)[2]
    table = np.load(folder / "copies" / copy)
    table[row, column] = (
        -table[row, column] if column == 3 else table[row, column] + (1 if table[row, column] < 9 else -1)
    )
    np.save(folder / "copies" / copy, table)
    found, told = pair(folder, originals="originals")
    assert found == {one: image for one, image in truth.items() if one != copy}
    assert f"recordings that have none of the originals, 1: {copy}" in told
    assert "originals that have none of the recordings, 1: " in told


@pytest.mark.parametrize("change", ["an event less", "an event more"])
def test_a_copy_of_other_length_finds_nothing(release, change):
    folder, truth = release
    copy = min(truth)
    table = np.load(folder / "copies" / copy)
    np.save(folder / "copies" / copy, table[:-1] if change == "an event less" else np.concatenate([table, table[-1:]]))
    assert copy not in pair(folder, originals="originals")[0]


def test_other_times_are_told_and_decide_among_several(release, encoders):
    folder, truth = release
    copy = sorted(truth)[1]
    original = folder / "originals" / truth[copy].replace(".jpg", ".bin")
    table = np.load(folder / "copies" / copy)
    table[:, 2] *= 2
    np.save(folder / "copies" / copy, table)
    found, told = pair(folder, originals="originals")
    assert found == truth
    assert f"recordings with their original's events at other times, 1: {copy}" in told
    slow = encoders.made(len(table), seed=COUNT * CLASSES.index(original.parent.name) + int(original.stem[-4:]))
    slow["t"] = np.rint(table[:, 2] * 1e6)
    for name in "xy":
        slow[name] = table[:, "xy".index(name)]
    slow["p"] = table[:, 3] > 0
    (original.parent / "image_9999.bin").write_bytes(encoders.atis(slow))
    found, told = pair(folder, originals="originals")
    assert found == truth | {copy: truth[copy].replace(original.stem, "image_9999")}
    assert "other times" not in told


def test_two_originals_that_are_alike_are_told_and_not_chosen(release):
    folder, truth = release
    copy = sorted(truth)[3]
    original = folder / "originals" / truth[copy].replace(".jpg", ".bin")
    twin = folder / "originals" / "ant" / "twin.bin"
    twin.write_bytes(original.read_bytes())
    found, told = pair(folder, originals="originals")
    assert found == {one: image for one, image in truth.items() if one != copy}
    assert "recordings left out as they have several of the originals (" in told
    assert "ant/twin.bin" in told
    assert copy in told


def test_neither_order_nor_workers_change_the_file(release, encoders):
    folder, truth = release
    pair(folder, originals="originals", workers=1)
    whole = (folder / "pairs.csv").read_bytes()
    pair(folder, originals="originals", workers=3)
    assert (folder / "pairs.csv").read_bytes() == whole
    keys = [event_key(folder / "copies" / copy) for copy in truth]
    order = np.random.default_rng(1).permutation(len(keys))
    assert by_events(keys, [keys[place] for place in order]) == [[place] for place in np.argsort(order).tolist()]


def test_a_file_that_cannot_be_compared_is_told(release, encoders):
    folder, truth = release
    copy, other = sorted(truth)[:2]
    (folder / "copies" / copy).write_bytes(b"torn")
    est(folder / "copies" / other, encoders.made(FEWEST_EVENTS - 1))
    found, told = pair(folder, originals="originals")
    assert set(found) == set(truth) - {copy, other}
    assert "files that cannot be compared, 2: " in told
    assert f"{copy} is no whole .npy file" in told
    assert f"{other} has {FEWEST_EVENTS - 1} events, too few" in told


def test_a_cause_names_no_option_that_is_not_there(tmp_path, encoders):
    events = encoders.made(200, duration=300_000)
    events["t"] = 0
    events["t"][-1] = 100_000_000
    est(tmp_path / "whole.npy", events)
    told = event_key(tmp_path / "whole.npy")
    assert "unit cannot be told" in told
    assert "=" not in told.removeprefix(str(tmp_path))
    assert event_key(tmp_path / "nowhere.npy").endswith("No such file or directory")


def test_a_clock_that_runs_backwards_is_sorted_on_both_sides(release, encoders):
    folder, truth = release
    events = encoders.made(300, seed=99, duration=300_000)
    events[[100, 200]] = events[[200, 100]]
    (folder / "originals" / "ant" / "image_0777.bin").write_bytes(encoders.atis(events))
    est(folder / "copies" / "training" / "ant" / "new.npy", events)
    found, _ = pair(folder, originals="originals")
    assert found == truth | {"training/ant/new.npy": "ant/image_0777.jpg"}


def test_an_original_without_an_image_is_told(release):
    folder, truth = release
    copy = min(truth)
    (folder / "images" / truth[copy]).unlink()
    (folder / "images" / "ant" / "more.jpg").touch()
    found, told = pair(folder, originals="originals", images="images")
    assert found == {one: image for one, image in truth.items() if one != copy}
    assert f"originals that have none of the images, 1: {truth[copy].replace('.jpg', '.bin')}" in told
    assert "images that have none of the originals, 1: ant/more.jpg" in told


def test_originals_without_any_image_are_one_sentence(release):
    folder, truth = release
    for image in truth.values():
        (folder / "images" / image).unlink()
    for name, suffix in (("originals", "bin"), ("images", "jpg")):
        (folder / name / "ant" / f"other.{suffix}").touch()
    with pytest.raises(UserError, match="none of the 8 originals of the recordings has an image with its name"):
        pair(folder, originals="originals", images="images")
    assert not (folder / "pairs.csv").exists()


@pytest.mark.parametrize(
    ("recording", "image"),
    [
        ("ant/image_0001.npy", "ant/image_0001.jpg"),
        ("training/ant/image_0001.npy", "ant/image_0001.JPG"),
        ("training/ant/a.npy", "101_ObjectCategories/ant/a.png"),
        ("extracted_train/n01440764/n01440764_123.npz", "train/n01440764/n01440764_123.JPEG"),
        ("ant/a.csv.gz", "ant/a.jpeg"),
        ("a.b.npy", "a.b.jpg"),
    ],
)
def test_a_name_finds_the_image_of_its_class_and_name(recording, image):
    assert by_name([recording], ["bee/image_0001.jpg", image, "ant/image_0002.jpg"]) == {recording: [image]}


@pytest.mark.parametrize("image", ["Ant/a.jpg", "bee/a.jpg", "ant/A.jpg", "a.jpg", "ant/a_1.jpg", "ant/a/b.jpg"])
def test_another_class_or_case_is_another_name(image):
    assert by_name(["ant/a.npy"], [image]) == {"ant/a.npy": []}


def test_the_same_path_comes_before_the_same_class():
    images = ["train/ant/a.jpg", "val/ant/a.jpg"]
    assert by_name(["val/ant/a.npy", "test/ant/a.npy"], images) == {
        "val/ant/a.npy": ["val/ant/a.jpg"],
        "test/ant/a.npy": images,
    }


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_what_has_no_image_of_its_name_is_told(tmp_path):
    touch(tmp_path / "rec", *(f"ant/{number}.npy" for number in range(9)), "ant/twice.npy", "ant/.hidden.npy")
    touch(tmp_path / "img", "ant/1.jpg", "ant/2.png", "ant/x.jpg", "ant/twice.jpg", "ant/twice.png", ".git/0.jpg")
    found, told = pair(tmp_path, recordings="rec", images="img")
    assert found == {"ant/1.npy": "ant/1.jpg", "ant/2.npy": "ant/2.png"}
    twice = "ant/twice.jpg and ant/twice.png"
    assert told.splitlines() == [
        f"{tmp_path / 'pairs.csv'}: 2 of 10 recordings, 2 images",
        "recordings that have none of the images, 7: ant/0.npy, ant/3.npy, ant/4.npy, ...",
        f"recordings left out as they have several of the images ({twice} for the first), 1: ant/twice.npy",
        "images that have none of the recordings, 1: ant/x.jpg",
    ]


@pytest.mark.parametrize(
    ("recordings", "images", "told"),
    [
        (
            ["ant/a.npy"],
            ["bee/a.jpg"],
            "none of the 1 recordings has one of the 1 images with its name (the first are ant",
        ),
        (["ant/a.npy"], ["ant/a.jpg", "ant/a.png"], r"name \(ant/a.jpg and ant/a.png for the first\)"),
        (["ant/a.doc"], ["ant/a.jpg"], "recordings=.* holds no file that ends in .npy"),
        (["ant/a.npy"], ["ant/a.npy"], "images=.* holds no file that ends in .jpg"),
        (["ant/a.npy"], [], "there is no folder .*img: give images="),
        (["ant/a\n.npy"], ["ant/a.jpg"], "cannot be in a map file"),
    ],
)
def test_folders_without_a_pair_are_one_sentence(tmp_path, recordings, images, told):
    touch(tmp_path / "rec", *recordings)
    touch(tmp_path / "img", *images)
    with pytest.raises(UserError, match=told.replace("(the", r"\(the")) as raised:
        pair(tmp_path, recordings="rec", images="img")
    assert str(raised.value).isprintable()
    assert not (tmp_path / "pairs.csv").exists()


def test_recordings_of_other_originals_are_one_sentence(release, encoders):
    folder, truth = release
    for copy in truth:
        (folder / "copies" / copy).write_bytes(b"torn")
    with pytest.raises(
        UserError, match=r"none of the 8 recordings has one of the 8 originals .*files that cannot be compared, 8: "
    ):
        pair(folder, originals="originals")


@pytest.mark.parametrize("link", ["ant", "ant/a.npy"])
def test_a_link_out_of_a_folder_is_refused(tmp_path, link):
    touch(tmp_path / "rec", "ant/a.npy", "bee/b.npy")
    touch(tmp_path / "img", "ant/a.jpg")
    (tmp_path / "rec" / link).rename(tmp_path / "elsewhere")
    (tmp_path / "rec" / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out of recordings="):
        pair(tmp_path, recordings="rec", images="img")


@pytest.mark.parametrize(
    ("out", "given", "told"),
    [
        ("pairs.json", {"images": "img"}, r"must be a file that ends in \.csv"),
        ("rec/folder.csv", {"images": "img"}, r"must be a file that ends in \.csv"),
        ("pairs.csv", {}, "images= is missing"),
        ("rec/ant/a.npy/pairs.csv", {"images": "img"}, "cannot be written"),
    ],
)
def test_a_place_that_holds_no_map_is_told(tmp_path, out, given, told):
    touch(tmp_path / "rec", "ant/a.npy", "folder.csv/b.npy")
    touch(tmp_path / "img", "ant/a.jpg")
    with pytest.raises(UserError, match=told):
        pair(tmp_path, out=out, recordings="rec", **given)
