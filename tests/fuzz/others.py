"""Files that need no torch: lists, packs, caches, tables, results and headers."""

import csv
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import mutators
import numpy as np
from kinds import Prepared
from reading import read_events

from eventclip.blocks import RowStore, row_key
from eventclip.datasets.packing import pack_folders
from eventclip.datasets.packs import HEADER as PACK_HEADER
from eventclip.datasets.packs import Listed, PackedFolders
from eventclip.datasets.recordings import list_kept, list_recordings, read_class_list
from eventclip.datasets.split_files import PSEUDO, read_split
from eventclip.errors import RecordingError
from eventclip.prediction_table import Table, prediction_columns
from eventclip.reports.collect import collect
from eventclip.reports.report import make_report
from eventclip.simulation.folder import HEADER, _check_out
from eventclip.simulation.images import read_image

CLASSES = ("ant", "bee", "cat")


def _data_set(folder: Path) -> Path:
    """Three classes of two recordings, settled long ago so that their listing is kept."""
    root = folder / "set"
    rng = np.random.default_rng(1)
    for name in CLASSES:
        (root / "training" / name).mkdir(parents=True)
        for number in range(2):
            count = 40
            columns = (
                rng.integers(0, 80, count),
                rng.integers(0, 60, count),
                np.sort(rng.random(count)),
                rng.integers(0, 2, count),
            )
            np.save(root / "training" / name / f"{number}.npy", np.stack(columns, axis=1).astype(np.float32))
    for place in (root / "training", *(root / "training" / name for name in CLASSES)):
        os.utime(place, (1e9, 1e9))
    return root


def _check_sentence(sentence: str, path: Path) -> None:
    """What holds of a sentence that is given back and not raised."""
    assert str(path) in sentence, f"names no path: {sentence}"
    assert len(sentence.splitlines()) == 1, f"several lines: {sentence!r}"
    assert sentence.isprintable(), f"characters that are not for a terminal: {sentence!r}"
    assert len(sentence) < 1000, f"goes on for {len(sentence)} characters"


def _listed(root: Path):
    return list_recordings(root, "training", suffixes=(".npy",))


def _split_file(folder: Path, *, guessed: bool) -> Prepared:
    recordings = _listed(_data_set(folder))
    pairs = [[recordings.relative(i), int(label)] for i, label in enumerate(recordings.labels)]
    if guessed:
        head = {"kind": PSEUDO, "class_folders": list(CLASSES), "checksums": {"training": recordings.checksum()}}
        samples = [{**head, "recordings": [[*pair, 0.75, number % 2 == 0] for number, pair in enumerate(pairs)]}]
    else:
        samples = [dict(pairs), {"shots": 2, "seed": 0, "recordings": pairs}]

    def read(path: Path) -> None:
        found = read_split(path).find_in(recordings)
        assert len(found.labels), "a split without recordings"
        assert 0 <= found.labels.min() <= found.labels.max() < len(CLASSES), "a label outside the classes"

    return Prepared(folder / "split.json", [json.dumps(one).encode() for one in samples], mutators.retyped, read)


def _class_list(folder: Path) -> Prepared:
    sample = b"# the classes\nn01440764 tench\nn01443537 goldfish\n\nn01616318 vulture\n"

    def read(path: Path) -> None:
        assert read_class_list(path), "no class"

    return Prepared(folder / "classes.txt", [sample], mutators.retold, read)


def _packed(folder: Path) -> tuple[Path, Path]:
    root = _data_set(folder)
    out = folder / "sound"
    one = Listed("training", (".npy",), True, _listed(root))
    pack_folders([one], out, read_events, read_as={}, progress=False)
    return root, out


def _pack(folder: Path, file: str) -> Prepared:
    """One file of a pack: a block, the index or the header."""
    root, out = _packed(folder)
    listed = _listed(root)
    sound = [read_events(listed.path(i))[0] for i in range(len(listed))]
    (changed,) = out.glob(file)

    def read(path: Path) -> None:
        packs = PackedFolders(out)
        try:
            found = packs.listing(root, "training", suffixes=(".npy",))
            for position in range(len(found)):
                name = found.relative(position)
                place = [listed.relative(i) for i in range(len(listed))].index(name)
                try:
                    events, _ = packs.read(name.encode())
                except RecordingError as error:
                    _check_sentence(str(error), out)
                else:
                    assert np.array_equal(events, sound[place]), f"other events of {name}"
        finally:
            for pack in packs.packs:
                pack.close()

    mutate = mutators.retyped if file == PACK_HEADER else mutators.damaged_headers
    return Prepared(changed, [changed.read_bytes()], mutate, read, named=str(out))


def _unfinished_pack(folder: Path) -> Prepared:
    """A block that an interrupted pack leaves, and the command given again."""
    root, out = _packed(folder)
    one = Listed("training", (".npy",), True, _listed(root))
    (block,) = out.glob("0*.h5")
    sample = block.read_bytes()

    def read(path: Path) -> None:
        (out / PACK_HEADER).unlink(missing_ok=True)
        for other in out.glob("*.h5"):
            if other != path:
                other.unlink()
        pack_folders([one], out, read_events, read_as={}, progress=False)
        packs = PackedFolders(out)
        for position in range(len(one.recordings)):
            events, _ = packs.read(one.recordings.relative(position).encode())
            assert np.array_equal(events, read_events(one.recordings.path(position))[0]), "other events"
        for pack in packs.packs:
            pack.close()

    return Prepared(block, [sample], mutators.damaged_headers, read, named=str(folder))


def _listing_cache(folder: Path) -> Prepared:
    root, cache = _data_set(folder), folder / "cache"
    given = {"suffixes": (".npy",), "cache": cache}
    sound = list_kept(root, "training", **given)
    (kept,) = (cache / "index").glob("*.npz")

    def read(path: Path) -> None:
        whole = _is_whole_archive(path)  # who changes it and its checksums can list what he likes
        found = list_kept(root, "training", **given)
        assert found.paths.dtype.kind == "S", f"paths of {found.paths.dtype}"
        assert found.labels.dtype == np.int64, f"labels of {found.labels.dtype}"
        assert len(found.paths) == len(found.labels), "paths and labels differ in number"
        if not whole:
            assert found.paths.tolist() == sound.paths.tolist(), "other paths"
            assert found.labels.tolist() == sound.labels.tolist(), "other labels"
            assert found.checksum() == sound.checksum(), "another checksum"

    mutate = partial(mutators.rezipped, inner=mutators.npy_retold, compression=0)
    return Prepared(kept, [kept.read_bytes()], mutate, read, always_read=True)


def _is_whole_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # noqa: BLE001  (zipfile raises many kinds)
        return False


def _features(folder: Path) -> Prepared:
    """A block under its own name, and one whose name was made to fit what it holds."""
    store = RowStore(folder / "sound")
    rng = np.random.default_rng(0)
    keys = np.array([row_key(str(i).encode()) for i in range(6)])
    features = [rng.random((1 + i % 3, 8)).astype(np.float32) for i in range(6)]
    store.write(keys, features)
    (block,) = (folder / "sound").glob("*.h5")
    place = folder / "features"
    place.mkdir()

    def read(path: Path) -> None:
        content = path.read_bytes()
        for old in place.glob("*.h5"):
            old.unlink()
        fits = sum(content) % 3 == 0
        name = f"000000-{hashlib.sha256(content).hexdigest()[:16]}.h5" if fits else block.name
        shutil.copyfile(path, place / name)
        found = RowStore(place)
        missing = found.missing(keys)
        assert not len(missing) or len(missing) == 6 or fits, "some rows only"
        if not len(missing) and not fits:
            rows = found.rows(keys)
            assert all(np.array_equal(rows[i], features[i]) for i in range(6)), "other features"

    return Prepared(folder / "mutant.h5", [block.read_bytes()], mutators.damaged_headers, read, named=str(place))


def _results(folder: Path) -> Prepared:
    said = {
        "name": "fewshot",
        "metrics": {"test/top1_probabilities": 0.5, "test/loss": 1.25},
        "seed": 0,
        "settings": {"fewshot.shots": 5, "optim.lr": 0.1, "seed": 0},
        "data": {"checksums": {"test": "a" * 64}, "root": "/data", "recordings": {"test": 4}},
        "class_names": ["ant", "bee"],
        "clip": {"weights_sha256": "b" * 64, "arch": "x", "pretrained": None},
        "selection": {"split": "validation", "tested": "best"},
        "versions": {"eventclip": "0.1.0"},
    }
    for place in ("one", "two"):
        (folder / "runs" / place).mkdir(parents=True)
        (folder / "runs" / place / "results.json").write_text(json.dumps(said))

    def read(path: Path) -> None:
        for sentence in collect([folder / "runs"]).damaged:
            _check_sentence(sentence, path)
        report = make_report([folder / "runs"], mix=False)
        assert "| top-1 |" in report.markdown, "the sound run is not in the table"

    path = folder / "runs" / "two" / "results.json"
    return Prepared(path, [json.dumps(said).encode()], mutators.retyped, read, named=str(folder))


def _simulation(folder: Path) -> Prepared:
    header = {"seed": 0, "split": {"training": 0.6}, "camera": {"threshold_on": 0.4}, "classes": {"ant": 3}}
    out = folder / "out"
    out.mkdir()
    return Prepared(
        out / HEADER, [json.dumps(header).encode()], mutators.retyped, lambda _: _check_out(out, header), named=str(out)
    )


def _still(folder: Path) -> Prepared:
    import io

    from PIL import Image

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    samples = []
    for kind in ("PNG", "JPEG"):
        file = io.BytesIO()
        picture.save(file, kind)
        samples.append(file.getvalue())
    return Prepared(folder / "ant" / "still.png", samples, mutators.damaged, read_image)


def _predicted(folder: Path, suffix: str) -> Prepared:
    """The part that an interrupted ``predict`` leaves, and the table taken up again."""
    out = folder / f"p{suffix}"
    part = folder / f"{out.name}.stamp.part"
    names = [f"/data/{i}.npy" for i in range(5)]
    rows = [
        {
            "recording": name,
            "events": 5,
            "sensor_hw": [60, 80],
            "start_us": 0,
            "end_us": 9,
            "labels": [{"label": "ant", "probability": 0.5}, {"label": "bee", "probability": 0.25}],
            "views": [{}],
            "error": None if number else "/data/0.npy is an empty file: expected a recording",
        }
        for number, name in enumerate(names)
    ]
    sound = Table(out, top=2, windows=False, stamp="sound")
    with sound.writing():
        sound.add(rows)
    sample = out.read_bytes()

    def read(path: Path) -> None:
        table = Table(out, top=2, windows=False, stamp="stamp")
        try:
            with table.writing():
                table.add([row for row in rows if row["recording"] not in table.done])
            lines = out.read_text(encoding="utf-8", errors="surrogateescape").removesuffix("\n").split("\n")
            if suffix == ".csv":
                assert lines[0] == ",".join(prediction_columns(2, windows=False)), "another header"
                found = [row["recording"] for row in csv.DictReader(lines)]
            else:
                found = [json.loads(line)["recording"] for line in lines]
            assert set(names) <= set(found), f"without {sorted(set(names) - set(found))}"
        finally:
            out.unlink(missing_ok=True)

    mutate = mutators.retold if suffix == ".csv" else _json_lines
    return Prepared(part, [sample], mutate, read, named=str(folder))


def _json_lines(rng: Random, samples: list[bytes]) -> bytes:
    if rng.random() < 0.4:
        return mutators.retold(rng, samples)
    lines = rng.choice(samples).split(b"\n")
    place = rng.randrange(len(lines) - 1)
    lines[place] = mutators.retyped(rng, [lines[place]])
    return b"\n".join(lines)


PREPARE: dict[str, Callable[[Path], Prepared]] = {
    "split_file": partial(_split_file, guessed=False),
    "pseudo_split_file": partial(_split_file, guessed=True),
    "class_list": _class_list,
    "pack": partial(_pack, file="0*.h5"),
    "pack_index": partial(_pack, file="index-*.h5"),
    "pack_header": partial(_pack, file=PACK_HEADER),
    "unfinished_pack": _unfinished_pack,
    "listing_cache": _listing_cache,
    "features": _features,
    "results": _results,
    "simulation": _simulation,
    "still": _still,
    "predicted_csv": partial(_predicted, suffix=".csv"),
    "predicted_jsonl": partial(_predicted, suffix=".jsonl"),
}
