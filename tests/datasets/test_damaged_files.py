"""Files that say how a data set is read: whatever is in them, it is right or it is told in a sentence."""

import contextlib
import hashlib
import io
import json
import os
import shutil

import h5py
import numpy as np
import pytest

from eventclip.blocks import read_whole
from eventclip.datasets import recordings as index
from eventclip.datasets.datamodule import grouped
from eventclip.datasets.folder import FolderDataModule
from eventclip.datasets.packing import pack_split
from eventclip.datasets.packs import HEADER as PACK_HEADER
from eventclip.datasets.packs import Pack, PackedFolders, read_block
from eventclip.datasets.recordings import list_recordings, read_class_list
from eventclip.datasets.split_files import read_split, write_split
from eventclip.errors import RecordingError, UserError
from eventclip.events.frames import FrameRenderer
from eventclip.files import fingerprint, plain_name
from eventclip.simulation.camera import EventCamera
from eventclip.simulation.folder import HEADER, Simulation, simulate_folder

CLASSES = ("ant", "bee")


def told(action):
    """What an action gives, or None where a sentence is told; anything else it raises fails the test."""
    try:
        return action()
    except UserError as error:
        if "\n" in str(error) or len(str(error)) > 2000:
            raise AssertionError("no sentence") from error
        return None


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes of three recordings each, of a hundred events, in class folders right below the root."""
    root = tmp_path_factory.mktemp("set") / "set"
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(3):
            t = np.sort(rng.integers(0, 10**5, 100))
            table = np.stack([rng.integers(0, 64, 100), rng.integers(0, 48, 100), t, rng.integers(0, 2, 100)], axis=1)
            np.savetxt(root / name / f"{number}.csv", table, "%d", delimiter=",", header="x,y,t,p", comments="")
    return root


@pytest.fixture(scope="module")
def recordings(root):
    return list_recordings(root, ".", suffixes=(".csv",))


def data_of(root, **options):
    given = {"sensor_hw": (48, 64), "p95_events": 100, "augmentation": None, "time_unit": "us", **options}
    data = FolderDataModule(root=root, renderer=FrameRenderer(50), **grouped(given))
    data.connect(image_size=32)
    return data


@pytest.fixture(scope="module")
def pack(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("pack") / "set"
    list(pack_split(data_of(root), "all", out, workers=1, progress=False))
    return out


def content_of(path):
    """All that a pack holds."""
    with contextlib.closing(Pack(path)) as opened:
        listed = opened.listing(path, ".", suffixes=(".csv",))
        events = [opened.read(opened.find(bytes(one))) for one in listed.paths]
    return listed.paths.tolist(), listed.labels.tolist(), listed.class_folders, [(e.tobytes(), hw) for e, hw in events]


@pytest.mark.parametrize("file", ["0*.h5", "index-*.h5", PACK_HEADER])
@pytest.mark.parametrize("head", [4096, None])
def test_a_damaged_pack_gives_what_was_packed_or_a_sentence(pack, damage, tmp_path, head, file):
    whole, out = content_of(pack), shutil.copytree(pack, tmp_path / "set")
    (path,) = out.glob(file)
    for number, content in enumerate(damage.mutants(path.read_bytes(), 30, seed=1, head=head)):
        path.write_bytes(content)
        assert told(lambda: content_of(out)) in (None, whole), number


def rewritten(pack, out, change):
    """A pack with another header, and the fingerprint that belongs to it."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(pack, out)
    header = json.loads((out / PACK_HEADER).read_text())
    del header["fingerprint"]
    change(header)
    (out / PACK_HEADER).write_text(json.dumps({**header, "fingerprint": fingerprint(header)}))
    return out


def forged(pack, out, name, change):
    """A pack with another block or index in it, whose name and size fit what it holds."""
    (old,) = pack.glob(name)
    image = io.BytesIO(old.read_bytes())
    with h5py.File(image, "r+") as file:
        change(file)
    new = f"{old.name.split('-')[0]}-{hashlib.sha256(image.getvalue()).hexdigest()[:16]}.h5"

    def point(header):
        header["index"] = new if name.startswith("index") else header["index"]
        header["blocks"] = [[new, len(image.getvalue())]] if not name.startswith("index") else header["blocks"]

    rewritten(pack, out, point)
    (out / new).write_bytes(image.getvalue())
    return out


@pytest.mark.parametrize(
    "name", ["../../escape", "/etc", "..", ".", "", "a/b", "a\\b", "a\nb", "a\0", "\x1b[2J", "\ud800", 7, None, []]
)
def test_a_packs_odd_class_and_folder_names_are_refused(pack, tmp_path, name):
    def rename_class(header):
        header["folders"][0]["class_folders"][0] = name

    def rename_folder(header):
        header["folders"][0]["folder"] = name

    for number, change in enumerate((rename_class, rename_folder)):
        if change is rename_folder and name in (".", "a/b"):
            continue  # which a folder may be called
        path = rewritten(pack, tmp_path / f"changed{number}", change)
        with pytest.raises(UserError, match=r"changed\d is a "):
            Pack(path).listing(path, ".", suffixes=(".csv",))


def test_a_packs_class_cannot_be_renamed_in_silence(pack, tmp_path):
    def rename(header):
        header["folders"][0]["class_folders"][0] = "ape"

    path = rewritten(pack, tmp_path / "changed", rename)
    with pytest.raises(UserError, match=r"holds 'ant/0\.csv' as a recording of class 'ape', which is refused"):
        Pack(path).listing(path, ".", suffixes=(".csv",))


@pytest.mark.parametrize(
    "name", [b"../ant/0.csv", b"/etc/0.csv", b"ant/../0.csv", b"ant//0.csv", b"ant/..", b"ant/a\n.csv", b"ant/a\\b.csv"]
)
def test_odd_paths_are_refused_though_their_checksum_fits(pack, tmp_path, recordings, name):
    def change(file):
        del file["paths"]
        file["paths"] = np.array([name, *recordings.paths[1:].tolist()])

    path = forged(pack, tmp_path / "changed", "index-*.h5", change)
    with pytest.raises(UserError, match=r"which is refused"):
        Pack(path).listing(path, ".", suffixes=(".csv",))


def test_every_header_with_an_odd_value_is_told_or_harmless(pack, damage, tmp_path):
    whole = content_of(pack)
    header = json.loads((pack / PACK_HEADER).read_text())
    path = tmp_path / "changed"
    for changed in damage.with_values(header):
        rewritten(pack, path, lambda header, to=changed: (header.clear(), header.update(to)))
        found = told(lambda: content_of(path))
        assert found in (None, whole)


def test_a_pack_takes_no_more_memory_than_it_holds(pack, tmp_path):
    def grown(name, shape):
        def change(file):
            dtype = file[name].dtype
            del file[name]
            file.create_dataset(name, shape, dtype, chunks=(32_768,) if name == "t" else None)

        return change

    for name in ("rows", "paths", "labels", "damage"):
        with pytest.raises(UserError, match=r"damaged pack, its index-.* is not what was written"):
            Pack(forged(pack, tmp_path / name, "index-*.h5", grown(name, (1 << 40,))))
    for block in forged(pack, tmp_path / "gaps", "0*.h5", grown("gaps", (1 << 40, 2))).glob("0*.h5"):
        found = read_whole(block, lambda file, block=block: read_block(file, block))
        assert (found is None) == (block.name not in {path.name for path in pack.iterdir()})
    for name, shape in (("t", (1 << 38,)), ("p", (1 << 40,))):
        opened = Pack(forged(pack, tmp_path / name, "0*.h5", grown(name, shape)))
        with pytest.raises(RecordingError, match=rf"its {name} cannot be what was written"):
            opened.read(0)


@pytest.mark.parametrize(("file", "name"), [("index-*.h5", "labels"), ("0*.h5", "x")])
def test_a_pack_takes_nothing_out_of_other_files(pack, tmp_path, file, name):
    (sound,) = pack.glob(file)

    def change(block):
        del block[name]
        block[name] = h5py.ExternalLink(str(sound), name)

    path = forged(pack, tmp_path / "linked", file, change)
    with pytest.raises((UserError, RecordingError), match=r"is not what was written|its x cannot be what was written"):
        Pack(path).read(0)


def test_a_forged_row_gives_no_other_recordings_events(pack, tmp_path):
    whole = content_of(pack)[3]
    for field, value in (("start", 32_768), ("block", 1 << 40), ("block", -5), ("count", 1 << 60), ("gap", -1)):

        def change(file, field=field, value=value):
            rows = file["rows"][()]
            rows[field][1] = value
            file["rows"][...] = rows

        opened = Pack(forged(pack, tmp_path / f"{field}{value}", "index-*.h5", change))
        if field == "start":
            assert value == opened.rows["start"][1]  # which it was
            continue
        with pytest.raises(RecordingError):
            opened.read(1)
        assert opened.read(2)[0].tobytes() == whole[2][0]


def test_a_header_that_names_files_elsewhere_is_refused(pack, tmp_path):
    for number, name in enumerate(("../index-0123456789abcdef.h5", "/etc/passwd", "000000-0123456789abcdef.h5", 7)):
        path = rewritten(pack, tmp_path / f"index{number}", lambda header, name=name: header.update(index=name))
        with pytest.raises(UserError, match="its header says nothing sound of index or blocks"):
            Pack(path)
    for number, name in enumerate(("../000000-0123456789abcdef.h5", "/dev/zero", None)):
        path = rewritten(pack, tmp_path / f"block{number}", lambda header, name=name: header.update(blocks=[[name, 1]]))
        with pytest.raises(UserError, match="its header says nothing sound of index or blocks"):
            Pack(path)


def test_what_cannot_be_packed_is_told_before_it_is(tmp_path):
    for name in ("a\nb.csv", "a\\b.csv"):
        root = tmp_path / str(len(name)) / name
        for kind in CLASSES:
            (root / kind).mkdir(parents=True)
            (root / kind / name).write_text("x,y,t,p\n1,1,1,1\n")
            (root / kind / "z.csv").write_text("x,y,t,p\n1,1,1,1\n")
        with pytest.raises(UserError, match=r"which is refused .*: rename it"):
            list(pack_split(data_of(root), "all", tmp_path / "out", workers=1, progress=False))
    assert not (tmp_path / "out").exists()


def test_a_damaged_unfinished_pack_ends_as_the_sound_one(pack, root, damage, tmp_path):
    whole = content_of(pack)[3]
    out = shutil.copytree(pack, tmp_path / "set")
    (block,) = out.glob("0*.h5")
    for content in damage.mutants(block.read_bytes(), 10, seed=2, head=2048):
        (out / PACK_HEADER).unlink()
        block.write_bytes(content)
        list(pack_split(data_of(root), "all", out, workers=1, progress=False))
        assert content_of(out)[3] == whole
        for other in out.glob("0*.h5"):
            other.unlink() if other != block else None


def test_packs_are_named_by_a_number_or_a_list(pack, tmp_path, monkeypatch):
    shutil.copytree(pack, tmp_path / "5")
    monkeypatch.chdir(tmp_path)
    assert PackedFolders(5).folders == PackedFolders(["5"]).folders == (".",)
    for wrong, told in ((os.devnull, "is no folder, and packs are folders"), (tmp_path, "is no pack, or one that is")):
        with pytest.raises(UserError, match=told):
            PackedFolders(wrong)


def test_a_damaged_split_file_gives_true_labels_or_a_sentence(recordings, damage, tmp_path):
    path = tmp_path / "split.json"
    published = {recordings.relative(i): int(label) for i, label in enumerate(recordings.labels)}
    for content in (*damage.mutants(json.dumps(published).encode(), 60), *damage.ODD_JSON):
        path.write_bytes(content)
        found = told(lambda: read_split(path).find_in(recordings))
        assert found is None or all(published[found.relative(i)] == label for i, label in enumerate(found.labels))


def test_every_odd_value_in_guessed_labels_is_told_or_harmless(recordings, damage, tmp_path):
    path = tmp_path / "split.json"
    head = {"kind": "pseudo", "class_folders": list(CLASSES), "checksums": {"training": recordings.checksum()}}
    guessed = recordings.relabelled([0, 0, 1, 1, 1, 0], [True] * 5 + [False]).subset(range(5))
    write_split(path, guessed, head=head, probabilities=[0.5] * 5)
    sound = json.loads(path.read_text())
    files = [json.dumps(changed).encode() for changed in damage.with_values(sound)]
    for content in (*files, *damage.mutants(path.read_bytes(), 60)):
        path.write_bytes(content)
        found = told(lambda: read_split(path).find_in(recordings))
        assert found is None or set(found.labels.tolist()) <= {0, 1}


@pytest.mark.parametrize("name", ["../ant/0.csv", "/ant/0.csv", "ant/../0.csv", "", "ant//0.csv", "ant\\0.csv", "a\n"])
def test_a_path_out_of_the_data_set_is_refused_in_split_files(tmp_path, name):
    path = tmp_path / "split.json"
    for content in ({name: 0}, {"recordings": [["ant/0.csv", 0], [name, 0]]}):
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match="no path below the data set's folder"):
            read_split(path)


@pytest.mark.parametrize("content", ['{"a/b.npy": 1' + "0" * 400 + "}", '{"a/b.npy": 0, "a/b.npy": 1}', "[" * 2000])
def test_json_that_no_program_should_take_is_no_split(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(UserError, match=r"split\.json is not JSON \(.*\): expected JSON"):
        read_split(tmp_path / "split.json")


def test_a_pipe_is_no_split_file_and_no_class_list(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (read_split, read_class_list):
        with pytest.raises(UserError, match="it is a pipe and no file"):
            read(tmp_path / "pipe")


def test_a_damaged_class_list_gives_plain_names_or_a_sentence(damage, tmp_path):
    path = tmp_path / "classes.txt"
    sound = b"# classes\nn01440764 tench\nn01443537 goldfish\nn01484850 shark\n"
    odd = (b"../a", b"/etc", b"..", b"a/b", b"a\\b", b"\x1b[2J", b"a\x00b", b"a\na", b"\xff", b"#\n")
    for content in (*damage.mutants(sound, 60), *odd, *damage.ODD_JSON):
        path.write_bytes(content)
        names = told(lambda: read_class_list(path))
        assert names is None or (all(map(plain_name, names)) and len(set(names)) == len(names) > 0)
    for content in odd:
        path.write_bytes(content)
        assert told(lambda: read_class_list(path)) is None


def test_a_damaged_kept_listing_is_listed_anew(root, damage, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "SETTLED_S", -1)

    def names():
        listed = index.list_kept(root, ".", suffixes=(".csv",), cache=tmp_path)
        return listed.paths.tolist(), listed.labels.tolist(), listed.class_folders, listed.checksum()

    sound = names()
    (kept,) = (tmp_path / "index").iterdir()
    for number, content in enumerate(damage.mutants(kept.read_bytes(), 120)):
        kept.write_bytes(content)
        assert names() == sound, number
    kept.unlink()
    os.mkfifo(kept)
    assert names() == sound


def test_a_kept_listing_that_unpacks_to_more_is_not_read(root, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "SETTLED_S", -1)
    sound = index.list_kept(root, ".", suffixes=(".csv",), cache=tmp_path)
    (kept,) = (tmp_path / "index").iterdir()
    members = dict(np.load(kept))
    np.savez_compressed(kept, **{**members, "paths": np.repeat(members["paths"], 1000)})
    found = index.list_kept(root, ".", suffixes=(".csv",), cache=tmp_path)
    assert found.paths.tolist() == sound.paths.tolist()


@pytest.fixture
def simulated(tmp_path):
    """Images, a folder that was simulated from them, and how."""
    from PIL import Image

    for name in CLASSES:
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            noise = np.random.default_rng(number).integers(0, 255, (24, 24), np.uint8)
            Image.fromarray(noise).resize((48, 48)).save(tmp_path / "images" / name / f"{number}.png")
    simulation = Simulation(camera=EventCamera(), sensor_hw=(32, 32), amplitude_px=2.0, saccade_us=2000)
    simulate_folder(tmp_path / "images", tmp_path / "out", simulation, progress=False)
    return tmp_path / "images", tmp_path / "out", simulation


def test_a_damaged_simulation_record_is_the_same_or_told(simulated, damage):
    images, out, simulation = simulated
    record = out / HEADER
    sound = json.loads(record.read_bytes())
    files = [json.dumps(changed).encode() for changed in damage.with_values(sound)]
    for content in (*files, *damage.mutants(record.read_bytes(), 60), *damage.ODD_JSON):
        record.write_bytes(content)
        made = told(lambda: simulate_folder(images, out, simulation, progress=False))
        assert made is None or json.loads(record.read_bytes()) == sound


def test_a_recording_that_is_not_whole_is_told_first(simulated):
    images, out, simulation = simulated
    recording = next(out.glob("training/*/*.npy"))
    whole = recording.read_bytes()
    for content in (b"", whole[:-1], whole[:60], whole + b"\0", b"rubbish" * 30):
        recording.write_bytes(content)
        with pytest.raises(UserError, match=r"\.npy is there already and no whole recording: remove it and run this"):
            simulate_folder(images, out, simulation, progress=False)
    recording.unlink()  # as the sentence says
    assert simulate_folder(images, out, simulation, progress=False).new == 1
    assert recording.read_bytes() == whole


def test_recordings_are_not_written_through_a_link(simulated, tmp_path):
    images, out, simulation = simulated
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(out / "training" / "ant")
    (out / "training" / "ant").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"training/ant is a link"):
        simulate_folder(images, out, simulation, progress=False)
    assert not any(elsewhere.iterdir())


def test_a_pipe_among_the_images_is_told(simulated):
    images, out, simulation = simulated
    os.mkfifo(images / "ant" / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png cannot be read as an image \(it is a pipe and no file\)"):
        simulate_folder(images, out.with_name("new"), simulation, progress=False)
