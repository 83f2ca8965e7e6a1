"""A folder of images becomes a data set: split as said, whole files only, the same however it is made."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eventclip.errors import UserError
from eventclip.files import held
from eventclip.simulation.camera import EventCamera
from eventclip.simulation.folder import Simulation, simulate_folder
from eventclip.simulation.images import read_image

SMALL = {"sensor_hw": [30, 40], "amplitude_px": 4, "saccade_us": 20_000}
CAMERA = EventCamera(threshold_on=0.3, threshold_off=0.3, hot_pixel_fraction=0.01)
SIMULATION = Simulation(camera=CAMERA, **SMALL)


def draw(path, seed=0, size=(48, 36)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 6, size[0] // 6, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path)


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    for label, name in enumerate(("Faces", "yin_yang")):
        for number in range(5):
            draw(root / name / f"image_{number:04d}.{('jpg', 'png', 'JPEG')[number % 3]}", 10 * label + number)
    draw(root / ".hidden" / "image.png")
    (root / "README.txt").write_text("not an image")
    (root / "Faces" / "._image_0009.jpg").write_text("not one either")
    (root / "Faces" / "notes.txt").write_text("nor this")
    return root


def simulate(images, out, simulation=SIMULATION, **options):
    return simulate_folder(images, out, simulation, progress=False, **options)


def contents(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_images_become_recordings_as_est_released_them(images, tmp_path):
    made = simulate(images, tmp_path / "out")
    paths = sorted((tmp_path / "out").rglob("*.npy"))
    assert {path.parents[1].name for path in paths} == {"training", "validation", "testing"}
    assert sorted(path.stem for path in paths if path.parent.name == "Faces") == [f"image_{i:04d}" for i in range(5)]
    assert made.recordings == {"training": 6, "validation": 2, "testing": 2}
    assert (made.classes, made.new) == (2, 10)
    assert sorted(made.events) == sorted(len(np.load(path)) for path in paths)
    x, y, t, p = np.load(paths[0]).T
    assert np.load(paths[0]).dtype == np.float32
    assert set(p) == {-1.0, 1.0}
    assert (np.diff(t) >= 0).all()
    assert 0 <= t[0] < t[-1] <= 0.06
    # 48x36 px are shown on 40x30; what the saccades leave is 4x3 px smaller
    assert (x.min(), x.max(), y.min(), y.max()) == (0, 36, 0, 25)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "training",
        "validation",
        "testing",
        "simulation.json",
    }


def test_workers_and_the_images_place_change_nothing(images, tmp_path):
    simulate(images, tmp_path / "one")
    simulate(images.rename(tmp_path / "moved"), tmp_path / "three", workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_another_seed_gives_another_split_and_other_recordings(images, tmp_path):
    simulate(images, tmp_path / "one")
    simulate(images, tmp_path / "two", Simulation(camera=CAMERA, seed=1, **SMALL))
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() != two.keys()
    assert not set(one.values()) & set(two.values())


def test_an_interrupted_run_leaves_what_is_finished_alone(images, tmp_path):
    out = tmp_path / "out"
    simulate(images, out)
    whole = contents(out)
    finished, lost = sorted(out.rglob("*.npy"))[:2]
    stamp = finished.stat().st_mtime_ns
    lost.with_name(f".{lost.name}.part").write_bytes(b"half")  # as a killed process leaves it
    lost.unlink()
    assert simulate(images, out).new == 1
    assert contents(out) == whole
    assert finished.stat().st_mtime_ns == stamp


def test_a_failing_run_leaves_only_whole_recordings(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    save, calls = np.save, []

    def full_disk(file, table):
        calls.append(file)
        if len(calls) == 4:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        save(file, table)

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full_disk)
        with pytest.raises(UserError, match=f"{out}.*No space left"):
            simulate(images, out)
    left = contents(out)
    assert 4 <= len(left) < 11  # the header and what was finished
    assert all(name.endswith((".npy", ".json")) for name in left)
    simulate(images, out)
    simulate(images, tmp_path / "straight")
    assert contents(out) == contents(tmp_path / "straight")
    assert left.items() <= contents(out).items()


@pytest.mark.parametrize("change", ["settings", "images"])
def test_a_folder_made_in_another_way_is_refused_and_kept(images, tmp_path, change):
    out = tmp_path / "out"
    simulate(images, out)
    before = contents(out)
    simulation, told = SIMULATION, "images.count was 10 and is now 11"
    if change == "settings":
        simulation, told = Simulation(camera=EventCamera(), **SMALL), "camera.threshold_on was 0.3 and is now 0.2"
    else:
        draw(images / "Faces" / "image_0005.jpg")
    with pytest.raises(UserError, match=told):
        simulate(images, out, simulation)
    assert contents(out) == before


def test_a_folder_with_other_content_is_refused_and_kept(images, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds something else"):
        simulate(images, out)
    assert list(contents(out)) == ["thesis.tex"]
    with pytest.raises(UserError, match="is a file"):
        simulate(images, out / "thesis.tex")
    (out / "thesis.tex").rename(out / "simulation.json")
    with pytest.raises(UserError, match="cannot be read"):
        simulate(images, out)


def test_a_folder_that_is_being_simulated_into_is_refused(images, tmp_path):
    with held(tmp_path / "out" / "simulation.json"), pytest.raises(UserError, match="another process"):
        simulate(images, tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_told(images, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        simulate(images, tmp_path / "file" / "out")


def break_images(kind, images):
    if kind == "truncated":
        whole = (images / "Faces" / "image_0000.jpg").read_bytes()
        (images / "Faces" / "image_0000.jpg").write_bytes(whole[: len(whole) // 2])
    elif kind == "no image":
        (images / "yin_yang" / "image_0003.jpg").write_text("hello")
    elif kind == "tiny":
        draw(images / "Faces" / "image_0007.png", size=(30, 12))
    elif kind == "empty class":
        (images / "bonsai").mkdir()
    elif kind == "same name":
        draw(images / "Faces" / "image_0000.png")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("truncated", r"image_0000\.jpg cannot be read as an image"),
        ("no image", r"image_0003\.jpg cannot be read as an image"),
        ("tiny", r"image_0007\.png is 30x12 px, expected at least 16"),
        ("empty class", "class 'bonsai'.*has no image"),
        ("same name", "more than one image called 'image_0000'"),
    ],
)
def test_bad_images_are_told_before_anything_is_written(images, tmp_path, kind, told):
    break_images(kind, images)
    with pytest.raises(UserError, match=told):
        simulate(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_without_images_are_told(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        simulate(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "flat").mkdir()
    draw(tmp_path / "flat" / "image.png")
    with pytest.raises(UserError, match=r"no class folder.*flat/<class>/\*\.\{jpg,jpeg,png\}"):
        simulate(tmp_path / "flat", tmp_path / "out")


def test_recordings_are_kept_out_of_the_images(images):
    with pytest.raises(UserError, match="cannot lie within"):
        simulate(images, images / "simulated")


def test_classes_can_be_left_out(images, tmp_path):
    assert simulate(images, tmp_path / "out", leave_out=["Faces"]).classes == 1
    assert not list((tmp_path / "out").rglob("Faces"))
    with pytest.raises(UserError, match="no class folder 'faces'"):
        simulate(images, tmp_path / "other", leave_out=["faces"])
    with pytest.raises(UserError, match=r"\[Faces\]"):
        simulate(images, tmp_path / "other", leave_out="Faces")


@given(st.integers(1, 60), st.integers(1, 10), st.integers(0, 10), st.integers(0, 10))
def test_every_split_gets_its_share_and_none_is_forgotten(count, training, validation, testing):
    total = training + validation + testing
    split = {"training": training / total, "validation": validation / total, "testing": testing / total}
    dealt = Simulation(camera=CAMERA, split=split).split_of("bonsai", count)
    got = Counter(dealt)
    assert len(dealt) == count
    assert got["training"] >= 1
    for name, share in split.items():
        assert abs(got[name] - share * count) < 2
        assert got[name] > 0 or share == 0 or count < 3
        assert got[name] == 0 or share > 0


def test_a_class_is_split_alike_whatever_the_others_are():
    assert SIMULATION.split_of("ant", 30) == SIMULATION.split_of("ant", 30)
    assert SIMULATION.split_of("ant", 30) != SIMULATION.split_of("bass", 30)
    assert Counter(SIMULATION.split_of("ant", 30)) == {"training": 18, "validation": 6, "testing": 6}


@pytest.mark.parametrize("fit", ["inside", "cover"])
@pytest.mark.parametrize("size", [(100, 20), (20, 100), (300, 200), (16, 700)])
def test_any_shape_of_picture_fits_the_sensor(fit, size):
    pixels = np.random.default_rng(0).integers(0, 256, size[::-1], np.uint8)
    events = Simulation(camera=CAMERA, fit=fit, **SMALL).simulate(Image.fromarray(pixels), np.random.default_rng(0))
    assert events["x"].max() < 40
    assert events["y"].max() < 30
    if fit == "cover":
        assert (events["x"].max(), events["y"].max()) == (39, 29)


def test_images_of_every_kind_are_read_as_the_eye_sees_them(tmp_path):
    gray = np.tile(np.linspace(0, 255, 20).astype(np.uint8), (18, 1))
    kinds = {
        "gray.png": Image.fromarray(gray),
        "sixteen.png": Image.fromarray(gray.astype(np.uint16) * 257),
        "palette.png": Image.fromarray(gray).convert("RGB").quantize(256),
        "rgb.png": Image.fromarray(gray).convert("RGB"),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
        np.testing.assert_allclose(np.asarray(read_image(tmp_path / name)), gray, atol=2, err_msg=name)
    clear = Image.fromarray(np.zeros((18, 20, 4), np.uint8))
    clear.save(tmp_path / "clear.png")
    assert (np.asarray(read_image(tmp_path / "clear.png")) == 255).all()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(gray).save(tmp_path / "turned.jpg", exif=turned)
    assert read_image(tmp_path / "turned.jpg").size == (18, 20)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("fit", "stretch"),
        ("sensor_hw", [180]),
        ("sensor_hw", 180),
        ("amplitude_px", 46),
        ("saccade_us", 0),
        ("seed", "zero"),
        ("split", {"training": 0.5, "validation": 0.2, "testing": 0.2}),
        ("split", {"training": 0, "validation": 0.5, "testing": 0.5}),
        ("split", {"train": 0.6, "validation": 0.2, "testing": 0.2}),
        ("split", 0.6),
    ],
)
def test_impossible_settings_are_refused_by_name(option, value):
    with pytest.raises(UserError, match=option):
        Simulation(camera=CAMERA, **{option: value})


def test_workers_must_be_a_positive_number(images, tmp_path):
    for workers in (0, "two"):
        with pytest.raises(UserError, match="workers"):
            simulate(images, tmp_path / "out", workers=workers)


def test_the_header_says_how_the_recordings_were_made(images, tmp_path):
    simulate(images, tmp_path / "out")
    header = json.loads((tmp_path / "out" / "simulation.json").read_text())
    assert header["camera"]["threshold_on"] == 0.3
    assert header["sensor_hw"] == [30, 40]
    assert header["images"]["count"] == 10


@pytest.mark.shared
def test_a_simulated_face_looks_like_the_recorded_one(shared):
    """The image behind the one original recording: as many events, in the same places."""
    image = shared / "data" / "images" / "caltech101" / "Faces_easy" / "image_0001.jpg"
    raw = np.fromfile(shared / "data/recordings/n-caltech101/Faces_easy/image_0001.bin", np.uint8).reshape(-1, 5)
    camera = EventCamera(threshold_on=0.4, threshold_off=0.4, threshold_spread=0.05)
    events = Simulation(camera=camera).simulate(read_image(image), np.random.default_rng(0))
    ours, theirs = np.zeros((173, 151)), np.zeros((173, 151))
    np.add.at(ours, (events["y"], events["x"]), 1)
    np.add.at(theirs, (raw[:, 1], raw[:, 0]), 1)
    assert ours.sum() == pytest.approx(theirs.sum(), rel=0.1)
    blocks = [np.minimum(one[:172, :150], 20).reshape(43, 4, 25, 6).sum(axis=(1, 3)) for one in (ours, theirs)]
    assert np.corrcoef(blocks[0].ravel(), blocks[1].ravel())[0, 1] > 0.9
