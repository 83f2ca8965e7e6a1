"""N-Cars: both formats it comes in, its names, its one view."""

import numpy as np
import pytest

from eventclip.datasets.datamodule import grouped
from eventclip.datasets.ncars import NCarsDataModule
from eventclip.datasets.sampling import read_split, sample_few_shot
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer


def build(root, **options):
    renderer = FrameRenderer(30_000, count_non_zero=True, white_background=False)
    given = {"sensor_hw": (100, 120), "p95_events": 12_500, "augmentation": None, **options}
    data = NCarsDataModule(root=root, renderer=renderer, **grouped(given))
    data.connect(image_size=32)
    return data


def write_dat(path):
    """One Prophesee recording whose header tells the whole sensor of the camera, as N-Cars' originals do."""
    t, x, y, p = np.array([5, 9]), np.array([0, 119]), np.array([0, 99]), np.array([1, 0])
    path.parent.mkdir(parents=True, exist_ok=True)
    words = np.stack([t, x | (y << 14) | (p << 28)], axis=1).astype("<u4")
    path.write_bytes(b"% Data file\n% Height 240\n% Width 304\n" + bytes([0, 8]) + words.tobytes())


def test_names_counts_and_views(ncars_root):
    data = build(ncars_root)
    assert data.class_names == ["background", "car"]
    assert [len(data.split(split)) for split in ("training", "test")] == [16, 8]
    assert (data.training_views, data.evaluation_views) == (1, 1)


def test_the_originals_are_read_on_the_crops_sensor(tmp_path):
    for split in ("train", "test"):
        for name in ("background", "cars"):
            write_dat(tmp_path / split / name / "obj_000001_td.dat")
    data = build(tmp_path)
    events, sensor = data.files(data.split("test").path(0))
    assert (len(events), sensor) == (2, (100, 120))
    assert next(iter(data.test_dataloader()))["views"].shape == (2, 1, 1, 32, 32)


@pytest.mark.shared
def test_the_shared_originals_are_read(shared):
    data = build(shared / "data" / "recordings", splits={"test": "n-cars"})
    recordings = data.split("test")
    assert recordings.class_counts().tolist() == [2, 2]
    for position in range(4):
        events, _ = data.files(recordings.path(position))
        assert 0 < events["t"][-1] - events["t"][0] <= 100_000


@pytest.mark.parametrize("shots", [1, 3, 8])
def test_a_batch_is_no_larger_than_the_draw_as_the_paper_has_it(ncars_root, shots):
    data = build(ncars_root, few_shot=lambda recordings: sample_few_shot(recordings, shots=shots), batch_size=10)
    sizes = [len(batch["label"]) for batch in data.train_dataloader()]
    assert sizes[0] == min(10, 2 * shots)
    assert sum(sizes) == 2 * shots
    assert data.steps_per_epoch == len(sizes)


def test_there_are_no_variants(ncars_root):
    with pytest.raises(UserError, match=r"data\.variant must be null here, got 'mode_1'"):
        build(ncars_root, variant="mode_1")


def test_the_official_splits_find_their_recordings(golden_folder, tmp_path):
    files = sorted((golden_folder / "official_splits").glob("ncars-*.json"))
    assert len(files) == 4
    listed = {name for file in files for name, _ in read_split(file).pairs}
    for name in [*listed, "test/background/a.dat.npy", "test/cars/a.dat.npy"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for file in files:
        data = build(
            tmp_path, few_shot=lambda recordings, file=file: sample_few_shot(recordings, shots=5, split_file=file)
        )
        drawn = [(data.training.relative(i), int(label)) for i, label in enumerate(data.training.labels)]
        assert drawn == read_split(file).pairs
