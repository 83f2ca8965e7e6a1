"""A pack is its folder: the same listing, the same samples, after any interruption; and it says when it is not."""

import errno
import json
import pickle
import shutil
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eventclip.datasets import packing
from eventclip.datasets.datamodule import grouped
from eventclip.datasets.folder import FolderDataModule
from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.datasets.packing import pack_folders, pack_split, verify_pack
from eventclip.datasets.packs import CHUNK, COLUMNS, HEADER, Listed, Pack, PackedFolders
from eventclip.datasets.recordings import list_recordings
from eventclip.datasets.sampling import sample_few_shot
from eventclip.errors import RecordingError, UserError
from eventclip.events.array import EVENT_DTYPE, events_from_columns
from eventclip.events.frames import FrameRenderer
from eventclip.files import fingerprint
from eventclip.io.formats import read_events
from eventclip.parallel import map_ordered
from eventclip.views.augment import Augmentation

SENSOR = (60, 80)


def build(kind=NCaltech101DataModule, **options):
    given = {"sensor_hw": SENSOR, "p95_events": 600, "augmentation": None, **options}
    data = kind(renderer=FrameRenderer(200), **grouped(given))
    data.connect(image_size=32)
    return data


def pack_all(root, out, kind=NCaltech101DataModule, split="all", time_unit=None, **options):
    data = build(kind, root=root, time_unit=time_unit)
    return list(pack_split(data, split, out, **{"workers": 1, "progress": False, **options}))


def listed_in(root, folder="training"):
    return Listed(folder, (".npy",), True, list_recordings(root, folder, suffixes=(".npy",)))


def pack_listed(listed, out, read=read_events):
    return pack_folders([listed], out, read, read_as={}, progress=False)


@pytest.fixture(scope="module")
def pack(learnable_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "pack"
    pack_all(learnable_root, out)
    return out


@pytest.fixture
def copied_root(learnable_root, tmp_path):
    return shutil.copytree(learnable_root, tmp_path / "copy")


def assert_same_splits(one, other):
    for split in ("training", "validation", "test"):
        ours, theirs = one.split(split), other.split(split)
        assert ours.paths.tolist() == theirs.paths.tolist()
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert ours.class_folders == theirs.class_folders


@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_equals_the_folders(learnable_root, pack, workers):
    options = {"few_shot": lambda r: sample_few_shot(r, shots=3), "augmentation": Augmentation(max_shift=3)}
    here = build(root=learnable_root, **options)
    there = build(packed=pack, num_workers=workers, **options)
    assert_same_splits(here, there)
    assert here.training.paths.tolist() == there.training.paths.tolist()
    assert here.class_names == there.class_names
    for loader in ("train_dataloader", "test_dataloader"):
        for ours, theirs in zip(getattr(here, loader)(), getattr(there, loader)(), strict=True):
            assert ours.pop("share", None) == theirs.pop("share", None)
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)


times = st.lists(st.integers(-(2**62), 2**62) | st.integers(0, 70_000), max_size=40).map(sorted)


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_any_events_come_back_exactly(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    recordings = []
    (folder / "set/k").mkdir(parents=True)
    for number in range(data.draw(st.integers(1, 3))):
        t = data.draw(times)
        x, y = ([data.draw(st.integers(0, 32_767)) for _ in t] for _ in "xy")
        p = [data.draw(st.integers(0, 1)) for _ in t]
        recordings.append(events_from_columns(*(np.array(column, np.int64) for column in (t, x, y, p))))
        (folder / f"set/k/{number}.npy").touch()
    sensors = [(40_000, 32_768), None, (1, 1)]

    def read(path):
        return recordings[int(path.stem)], sensors[int(path.stem)]

    pack_listed(listed_in(folder, "set"), folder / "pack", read)
    pack = Pack(folder / "pack")
    for number, events in enumerate(recordings):
        found, sensor_hw = pack.read(number)
        assert found.dtype == events.dtype
        assert np.array_equal(found, events)
        assert sensor_hw == sensors[number]


def test_a_recording_of_several_chunks_comes_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "set/k").mkdir(parents=True)
    counts = [2 * CHUNK + 1, 0, CHUNK, 1]
    recordings = []
    for number, count in enumerate(counts):
        t = np.cumsum(rng.choice([0, 1, 65_534, 65_535, 65_536], count))
        recordings.append(events_from_columns(t, *rng.integers(0, 640, (2, count)), rng.integers(0, 2, count)))
        (tmp_path / f"set/k/{number}.npy").touch()
    pack_listed(listed_in(tmp_path, "set"), tmp_path / "pack", lambda path: (recordings[int(path.stem)], None))
    pack = Pack(tmp_path / "pack")
    for number, events in enumerate(recordings):
        assert np.array_equal(pack.read(number)[0], events)


SLOWLY = """
import sys, time
from pathlib import Path
from eventclip.datasets import packing
from eventclip.datasets.packing import pack_folders
from eventclip.datasets.packs import Listed
from eventclip.datasets.recordings import list_recordings
from eventclip.io.formats import read_events
packing.BLOCK_RECORDINGS = 3
def slowly(path):
    time.sleep(0.005)
    return read_events(path)
listed = Listed("training", (".npy",), True, list_recordings(sys.argv[1], "training", suffixes=(".npy",)))
print("begins", flush=True)
pack_folders([listed], sys.argv[2], slowly, read_as={}, progress=False)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_after_kills_it_is_the_pack_that_an_unbroken_run_makes(learnable_root, tmp_path, monkeypatch, kills):
    out, rng = tmp_path / "out" / "pack", np.random.default_rng(0)
    for _ in range(kills):
        command = [sys.executable, "-c", SLOWLY, learnable_root, out]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.15))
            process.kill()
        if (out / HEADER).exists():
            break
        with pytest.raises(UserError, match=r"is not finished|there is no pack"):
            Pack(out)
    monkeypatch.setattr(packing, "BLOCK_RECORDINGS", 3)
    listed = listed_in(learnable_root)
    pack_listed(listed, out)
    pack_listed(listed, tmp_path / "unbroken")
    assert verify_pack([listed], out, read_events, progress=False) == 18
    assert contents(out) == contents(tmp_path / "unbroken")


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_an_interruption_keeps_the_blocks_done(learnable_root, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "BLOCK_RECORDINGS", 3)
    read = []

    def until(path, most=8):
        read.append(path)
        if len(read) == most:
            raise KeyboardInterrupt
        return read_events(path)

    listed = listed_in(learnable_root)
    with pytest.raises(KeyboardInterrupt):
        pack_listed(listed, tmp_path / "pack", until)
    made = pack_listed(listed, tmp_path / "pack")
    assert (made.new, made.recordings) == (12, 18)
    assert pack_listed(listed, tmp_path / "pack", until).new == 0
    assert len(read) == 8


def test_a_damaged_block_of_an_unfinished_pack_is_made_again(learnable_root, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(packing, "BLOCK_RECORDINGS", 3)
    listed, out = listed_in(learnable_root), tmp_path / "pack"
    pack_listed(listed, out)
    whole = contents(out)
    (out / HEADER).unlink()
    block = min(out.glob("0*.h5"))
    block.write_bytes(block.read_bytes()[:-5])
    assert pack_listed(listed, out).new == 3
    assert "1 damaged blocks of" in caplog.text
    assert verify_pack([listed], out, read_events, progress=False) == 18
    assert contents(out) == whole


def test_the_pack_does_not_depend_on_the_workers(learnable_root, pack, tmp_path):
    told = pack_all(learnable_root, tmp_path / "two", workers=2, verify=True)
    assert "36 recordings, 36 of them new" in told[0]
    assert told[1] == "verified: 36 recordings are the same in both"
    assert contents(tmp_path / "two") == contents(pack)


def test_verify_finds_a_source_that_changed(copied_root, tmp_path):
    listed = listed_in(copied_root)
    pack_listed(listed, tmp_path / "pack")
    changed = copied_root / "training/airplanes/airplanes_3.npy"
    table = np.load(changed)
    table[5, 0] += 1
    np.save(changed, table)
    with pytest.raises(UserError, match=r"1 of 18 recordings are not what .*airplanes_3\.npy: other events"):
        verify_pack([listed], tmp_path / "pack", read_events, progress=False)


def flipped(path, place, bit=4):
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*COLUMNS, "rows", "paths", "labels", "by_path"])
def test_a_flipped_bit_is_found(learnable_root, tmp_path, name):
    listed, out = listed_in(learnable_root), tmp_path / "pack"
    pack_listed(listed, out)
    (path,) = out.glob("0*.h5" if name in COLUMNS else "index-*.h5")
    with h5py.File(path) as file:
        place = file[name].id.get_chunk_info(2).byte_offset if name in COLUMNS else file[name].id.get_offset()
    flipped(path, place + 40)
    with pytest.raises(UserError, match="damaged"):
        verify_pack([listed], out, read_events, progress=False)


def test_a_flipped_bit_in_a_pause_is_told_and_moves_no_event(tmp_path):
    path = tmp_path / "set" / "training" / "ant" / "a.npy"
    path.parent.mkdir(parents=True)
    pauses = np.array([(t, 3, 4, 1) for t in (0, 1_000_000, 5_000_000)], EVENT_DTYPE)
    np.save(path, pauses)
    listed, out = listed_in(tmp_path / "set"), tmp_path / "pack"
    pack_listed(listed, out)
    np.testing.assert_array_equal(PackedFolders(out).read(b"training/ant/a.npy")[0], pauses)
    (block,) = out.glob("0*.h5")
    with h5py.File(block) as file:
        place = file["gaps"].id.get_offset()
    flipped(block, place + 8, 1)
    with pytest.raises(RecordingError, match=r"damaged where training/ant/a\.npy lies"):
        PackedFolders(out).read(b"training/ant/a.npy")


def test_damage_is_told_by_the_recordings_name_with_a_way_on(learnable_root, tmp_path):
    out = tmp_path / "pack"
    pack_all(learnable_root, out)
    (block,) = out.glob("0*.h5")
    with h5py.File(block) as file:
        place = file["x"].id.get_chunk_info(0).byte_offset
    flipped(block, place + 100, 1)
    told = rf"pack is damaged where training/Faces_easy/Faces_easy_0\.npy lies .*: remove {block.name} and pack\.json"
    with pytest.raises(RecordingError, match=told):
        Pack(out).read(0)
    block.unlink()
    with pytest.raises(UserError, match=r"damaged pack, its 0.*: remove pack\.json and run the same"):
        Pack(out)
    (out / HEADER).unlink()
    pack_all(learnable_root, out, verify=True)


def test_swapped_chunks_never_give_another_recordings_events(learnable_root, tmp_path):
    listed, out = listed_in(learnable_root), tmp_path / "pack"
    pack_listed(listed, out)
    (block,) = out.glob("0*.h5")
    with h5py.File(block, "r+") as file:  # whole in itself, every checksum of HDF5's own fits
        for name in COLUMNS:
            chunks = [file[name].id.read_direct_chunk((place * CHUNK,))[1] for place in (0, 1)]
            for place, chunk in enumerate(reversed(chunks)):
                file[name].id.write_direct_chunk((place * CHUNK,), chunk)
    with pytest.raises(UserError, match="damaged pack"):  # its size may have changed
        Pack(out).read(0)
    pack = Pack.__new__(Pack)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pack, "_check_blocks", lambda self: None)
        pack.__init__(out)
    for row in (0, 1):
        with pytest.raises(RecordingError, match=r"is damaged where .* lies .other events than were packed."):
            pack.read(row)
    assert np.array_equal(pack.read(2)[0], read_events(listed.recordings.path(2))[0])


@pytest.fixture
def root_with_damage(copied_root):
    for name in ("airplanes_1", "airplanes_4"):
        path = copied_root / f"training/airplanes/{name}.npy"
        path.write_bytes(path.read_bytes()[:300])
    return copied_root


def test_damaged_sources_are_all_named_and_the_rest_kept(root_with_damage, learnable_root, tmp_path):
    out = tmp_path / "pack"
    with pytest.raises(UserError, match=r"2 recordings cannot be packed .*airplanes_1\.npy.*airplanes_4\.npy"):
        pack_all(root_with_damage, out)
    assert not (out / HEADER).exists()
    assert len((tmp_path / "pack.damaged.txt").read_text().splitlines()) == 2
    shutil.copytree(learnable_root, root_with_damage, dirs_exist_ok=True)
    assert "36 recordings, 2 of them new" in pack_all(root_with_damage, out, verify=True)[0]
    assert not (tmp_path / "pack.damaged.txt").exists()


def test_kept_damage_gives_the_error_of_the_source(root_with_damage, tmp_path):
    out = tmp_path / "pack"
    told = pack_all(root_with_damage, out, damaged="keep", verify=True)
    assert "2 damaged" in told[0]
    data = build(packed=out)
    assert len(data.split("training")) == 18
    source = root_with_damage / "training/airplanes/airplanes_1.npy"
    with pytest.raises(RecordingError) as here:
        read_events(source)
    with pytest.raises(RecordingError) as there:
        data.files(data.root / "training/airplanes/airplanes_1.npy")
    assert str(here.value) == str(there.value)


def times_of(pack):
    return [pack.read(row)[0]["t"].tolist() for row in range(pack.count)]


def test_many_forked_processes_read_at_once(pack):
    opened = Pack(pack)
    expected = times_of(opened)
    context = get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=lambda: answers.put(times_of(opened))) for _ in range(3)]
    for child in children:
        child.start()
    assert [answers.get(timeout=60) for _ in children] == [expected] * 3
    for child in children:
        child.join()
    assert times_of(opened) == expected


def test_many_spawned_processes_read_at_once(pack):
    opened = Pack(pack)
    expected = times_of(opened)
    found = map_ordered(opened.read, range(opened.count), 3)
    assert [events["t"].tolist() for events, _ in found] == expected


def test_no_handle_is_pickled(pack):
    opened = Pack(pack)
    opened.read(0)
    assert len(pickle.dumps(opened)) < 4000


def test_splits_in_files_of_their_own_are_read_together(learnable_root, tmp_path):
    files = [tmp_path / split for split in ("training", "validation", "test")]
    for file in files:
        pack_all(learnable_root, file, split=file.name)
    assert_same_splits(build(root=learnable_root), build(packed=files))
    with pytest.raises(UserError, match=r"holds training and not testing, .*data\.packed=\[A,B\]"):
        build(packed=files[0]).split("test")
    with pytest.raises(UserError, match="several packs that hold training"):
        build(packed=[files[0], files[0]])


def test_a_pack_without_splits_holds_the_same_part_out(learnable_root, tmp_path):
    root, out = learnable_root / "training", tmp_path / "pack"
    told = pack_all(root, out, kind=FolderDataModule)
    assert told[0].startswith("packed without a validation split, as ")
    for seed in (0, 1):
        here, there = (build(FolderDataModule, seed=seed, **one) for one in ({"root": root}, {"packed": out}))
        for split in ("training", "test"):
            assert here.split(split).paths.tolist() == there.split(split).paths.tolist()


def test_chosen_classes_are_labelled_by_their_place(learnable_root, pack):
    names = ["yin_yang", "airplanes"]
    expected = list_recordings(learnable_root, "testing", class_folders=names, suffixes=(".npy",))
    found = PackedFolders(pack).listing(Path("/x"), "testing", class_folders=names, suffixes=(".npy",))
    assert found.paths.tolist() == expected.paths.tolist()
    assert found.labels.tolist() == expected.labels.tolist()
    with pytest.raises(UserError, match="has no class 'dog' in testing"):
        PackedFolders(pack).listing(Path("/x"), "testing", class_folders=["dog"], suffixes=(".npy",))


def test_a_recording_that_is_not_packed_is_named(pack):
    for name in (b"training/airplanes/none.npy", b"z" * 500, b""):
        with pytest.raises(RecordingError, match="is not in"):
            PackedFolders(pack).read(name)


def rewritten(pack, out, **changed):
    """A pack whose header says something else, with the fingerprint that belongs to it."""
    shutil.copytree(pack, out)
    told = {**json.loads((out / HEADER).read_text()), **changed}
    del told["fingerprint"]
    (out / HEADER).write_text(json.dumps({**told, "fingerprint": fingerprint(told)}))
    return out


def test_what_is_no_pack_is_refused_in_a_sentence(pack, tmp_path):
    old = tmp_path / "old.h5"
    with h5py.File(old, "w") as file:
        file["header"] = np.frombuffer(b'{"format": "eventclip pack", "version": 1}', np.uint8)
    text = tmp_path / "text"
    text.mkdir()
    (text / HEADER).write_text("nothing of the kind")
    edited = shutil.copytree(pack, tmp_path / "edited")
    (edited / HEADER).write_text((pack / HEADER).read_text().replace("airplanes", "aeroplane"))
    unfinished = shutil.copytree(pack, tmp_path / "unfinished")
    (unfinished / HEADER).unlink()
    cut = shutil.copytree(pack, tmp_path / "cut")
    (block,) = cut.glob("0*.h5")
    block.write_bytes(block.read_bytes()[:30_000])
    index = shutil.copytree(pack, tmp_path / "index")
    next(index.glob("index-*.h5")).unlink()
    for path, told in (
        (tmp_path / "none", "there is no pack .*none: check data.packed"),
        (old, r"old\.h5 is no folder, and packs are folders .*: pack the data set again"),
        (text, r"pack\.json cannot be read"),
        (rewritten(pack, tmp_path / "other", format="x"), "is no pack of eventclip"),
        (rewritten(pack, tmp_path / "newer", version=9), "is a pack of version 9"),
        (edited, r"is a damaged pack, pack\.json is not what was written"),
        (unfinished, "is no pack, or one that is not finished"),
        (cut, "is a damaged pack, its 000000-.* is not what was written: remove pack.json and run the same"),
        (index, r"is a pack whose index-.* cannot be read"),
    ):
        with pytest.raises(UserError, match=told) as refused:
            build(packed=path)
        assert "\n" not in str(refused.value)


def test_something_else_under_the_name_is_left_alone(learnable_root, pack, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"is no folder .*: a pack is one"):
        pack_all(learnable_root, mine)
    assert mine.read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"is there already with thesis\.tex in it"):
        pack_all(learnable_root, other)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]
    copy = shutil.copytree(pack, tmp_path / "copy")
    with pytest.raises(UserError, match="is there already with other recordings"):
        pack_all(learnable_root, copy, split="test")
    assert "0 of them new" in pack_all(learnable_root, copy)[0]


def test_it_goes_on_with_what_is_still_wanted_or_refuses(root_with_damage, tmp_path):
    out = tmp_path / "pack"
    with pytest.raises(UserError, match="cannot be packed"):
        pack_all(root_with_damage, out, split="training")
    with pytest.raises(UserError, match="was begun with other recordings or options: remove it to begin anew"):
        pack_all(root_with_damage, out, split="training", time_unit="us")
    for name in ("airplanes_1", "airplanes_4"):
        (root_with_damage / f"training/airplanes/{name}.npy").unlink()
    changed = root_with_damage / "training/airplanes/airplanes_3.npy"
    np.save(changed, np.load(changed)[:100])
    told = pack_all(root_with_damage, out, split="training", verify=True)
    assert "16 recordings, 1 of them new" in told[0]
    assert len(build(packed=out).files(out / "training/airplanes/airplanes_3.npy")[0]) == 100


def test_a_full_disk_is_told_and_what_is_done_is_kept(learnable_root, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "BLOCK_RECORDINGS", 3)
    listed, real = listed_in(learnable_root), Path.write_bytes
    written = []

    def filling(path, content):
        written.append(path)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", filling)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\): make room"):
            pack_listed(listed, tmp_path / "pack")
    assert pack_listed(listed, tmp_path / "pack").new == 12
    assert verify_pack([listed], tmp_path / "pack", read_events, progress=False) == 18


def test_a_missing_source_and_wrong_options_are_told(learnable_root, pack, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        pack_all(tmp_path / "nowhere", tmp_path / "pack")
    with pytest.raises(UserError, match="damaged must be error or keep and split one of"):
        pack_all(learnable_root, tmp_path / "pack", split="train")
    with pytest.raises(UserError, match="workers must be a whole number"):
        pack_all(learnable_root, tmp_path / "pack", workers=0)
    with pytest.raises(UserError, match="cannot lie within the recordings"):
        pack_all(learnable_root, learnable_root / "training" / "pack")
    with pytest.raises(UserError, match=r"data\.packed names a pack already"):
        list(pack_split(build(packed=pack), "all", tmp_path / "pack"))
    with pytest.raises(UserError, match=r"data\.root is missing"):
        build()
    with pytest.raises(UserError, match=r"data\.packed names no pack"):
        build(packed=[])
