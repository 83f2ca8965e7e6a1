"""An alignment from images to the file that CLIP takes: it learns, writes what learned, and tells how it went."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.modules.batchnorm import _BatchNorm

from eventclip import load_clip
from eventclip.datasets.images import find_images
from eventclip.datasets.pairs import write_pairs
from eventclip.errors import UserError
from eventclip.files import held
from eventclip.models.alignment import read_alignment
from eventclip.models.checkpoint import ALIGNMENT, read_checkpoint
from eventclip.models.encoder import ClipEncoder
from eventclip.training import align as aligning

RESNET = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}
EFFICIENTNET = {
    "embed_dim": 32,
    "vision_cfg": {
        "timm_model_name": "efficientnet_lite0",
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 32,
    },
    "text_cfg": RESNET["text_cfg"],
}


@pytest.fixture
def resnet(tmp_path):
    """Override that takes an untrained tower with batch norms in place of the transformer."""
    path = tmp_path / "small_resnet.json"
    path.write_text(json.dumps(RESNET))
    return f"clip.config={path}"


@pytest.fixture
def towers(monkeypatch):
    """The data modules and towers of the alignments that ran."""
    seen = []
    write = aligning._write

    def note(cfg, out, parts, further):
        seen.append(parts)
        write(cfg, out, parts, further)

    monkeypatch.setattr(aligning, "_write", note)
    return seen


def results(out):
    return json.loads((out.parent / f"{out.name}.run" / "results.json").read_text())


def losses(out):
    text = (out.parent / f"{out.name}.run" / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    place = text[0].split(",").index("fit/loss_epoch")
    return [float(line.split(",")[place]) for line in text[1:] if line.split(",")[place]]


def views():
    return torch.randint(0, 256, (3, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def loaded(out, config):
    """CLIP with the alignment."""
    return load_clip(None, None, config=config, aligned=out)


def test_it_learns_and_what_it_wrote_is_the_tower(run_alignment, towers, tiny_clip_json):
    out = run_alignment("trainer.max_epochs=8", "callbacks.best=null")
    told = results(out)
    course = losses(out)
    assert len(course) == 8
    assert course[-1] < course[0] - 0.05
    assert [entry["epoch"] for entry in told["history"]] == list(range(9))
    assert told["history"][0] == told["before"]
    assert told["epoch"] == 8
    assert told["history"][-1]["cosine"] > told["history"][0]["cosine"]
    assert told["metrics"] == pytest.approx({name: told["history"][-1][name] for name in ("recall", "cosine")})
    aligned = loaded(out, tiny_clip_json)
    (parts,) = towers
    with torch.no_grad():
        assert torch.equal(aligned.encode_views(views()), parts.lit.encoder.encode_views(views()))
    assert not torch.equal(
        aligned.encode_views(views()), load_clip(None, None, config=tiny_clip_json).encode_views(views())
    )
    pictures = out.parent / f"{out.name}.run" / "pictures"
    for name in ("progress.png", "nearest.png"):
        with Image.open(pictures / name) as picture:
            assert min(picture.size) > 100
    assert not list(out.parent.glob(".*.lock"))


def test_the_file_tells_how_it_was_made_and_names_no_place(run_alignment, shapes_root, tmp_path):
    out = run_alignment("seed=7", "dtype=fp16", "loss.scale=17")
    made = read_alignment(out).made
    told = results(out)
    assert made["images"] == {"learned": 17, "held_out": 4}
    assert (made["seed"], made["epochs"], made["pairs"]) == (7, 3, 0)
    assert made["before"] == told["before"]
    assert made["chosen"] == {"epoch": told["epoch"], **told["metrics"]}
    assert made["settings"]["loss.scale"] == 17
    for place in (shapes_root, tmp_path):
        assert str(place).encode() not in out.read_bytes()
    assert all(value.dtype == torch.float16 for value in load_file(out).values())
    assert told["data"]["checksums"].keys() == {"training", "held_out"}


def test_the_same_settings_give_the_same_bytes(run_alignment):
    one, two, other = run_alignment(), run_alignment("num_workers=2", name="two"), run_alignment("seed=1", name="other")
    states = [read_alignment(out).state for out in (one, two, other)]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])
    assert any(not torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_views_seen_in_pieces_teach_the_same(run_alignment, monkeypatch):
    sizes = []
    encode = ClipEncoder.encode_views

    def watched(self, pixels):
        if torch.is_grad_enabled():
            sizes.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(ClipEncoder, "encode_views", watched)
    courses = {}
    for at_once in (3, 1000):
        sizes.clear()
        courses[at_once] = losses(run_alignment(f"views_at_once={at_once}", name=f"of_{at_once}"))
        assert (max(sizes) <= 3) == (at_once == 3)
    assert courses[3] == pytest.approx(courses[1000], rel=1e-5)


def test_the_best_epoch_is_taken_by_recall(run_alignment, towers, monkeypatch):
    recalls = iter([0.25, 0.5, 0.9, 0.7, 0.9])
    monkeypatch.setattr("eventclip.training.alignment_module.recall_at_1", lambda *_: next(recalls))
    out = run_alignment()
    told = results(out)
    assert [entry["recall"] for entry in told["history"]] == [0.25, 0.5, 0.9, 0.7]
    assert told["epoch"] == 2
    best = read_checkpoint(out.parent / f"{out.name}.run" / "checkpoints" / "best.ckpt", trust=True, kind=ALIGNMENT)
    for name, value in read_alignment(out).state.items():
        assert torch.equal(value, best["state_dict"][name])


def test_keeping_images_keeps_them(run_alignment, tiny_clip_json, shapes_root):
    from eventclip.datasets.image_views import ImageDataset

    frozen = load_clip(None, None, config=tiny_clip_json)
    dataset = ImageDataset(find_images(shapes_root), image_size=32)
    images = torch.cat([dataset[0, place]["views"] for place in range(len(dataset))])
    before = frozen.encode_views(images)
    drift = {}
    for weight in (0, 20):
        out = run_alignment(
            f"loss.keep_images={weight}",
            "trainer.max_epochs=6",
            "keep_share=1.0",
            "callbacks.best=null",
            name=f"k{weight}",
        )
        after = loaded(out, tiny_clip_json).encode_views(images)
        drift[weight] = float((1 - torch.cosine_similarity(before, after)).mean())
    assert drift[20] < 0.5 * drift[0]


def test_statistics_of_events_are_taken_and_stored(run_alignment, resnet, tmp_path, towers):
    out = run_alignment(resnet, "statistics=events", "tuning=frozen")
    state = read_alignment(out).state
    frozen = load_clip(None, None, config=tmp_path / "small_resnet.json")
    norms = {name: part for name, part in frozen.visual.named_modules() if isinstance(part, _BatchNorm)}
    assert set(state) == {f"{name}.{kind}" for name in norms for kind in ("running_mean", "running_var")}
    seen = torch.cat(list(towers[0].datamodule.views_once()))
    first = next(iter(norms))
    with torch.no_grad():
        pixels = torch.addcmul(frozen.pixel_bias, seen.float(), frozen.pixel_scale)
        before = frozen.visual.conv1(pixels)
    torch.testing.assert_close(state[f"{first}.running_mean"], before.mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    assert results(out)["epoch"] == 0
    learned = read_alignment(run_alignment(resnet, "statistics=events", "tuning=batchnorm", name="learned")).state
    assert learned.keys() > state.keys()
    assert all(torch.equal(learned[name], value) for name, value in state.items())


@pytest.mark.parametrize("tuning", ["lora", "layernorm", "bias", "projection"])
def test_what_is_asked_for_learns_and_nothing_else(run_alignment, towers, tiny_clip_json, tuning):
    out = run_alignment(f"tuning={tuning}", "tuning.lora_rank=2")
    names = set(read_alignment(out).state)
    marks = {"lora": "parametrizations", "layernorm": "ln_", "bias": "bias", "projection": "proj"}
    assert names
    assert all(marks[tuning] in name for name in names)
    with torch.no_grad():
        found = loaded(out, tiny_clip_json).encode_views(views())
        torch.testing.assert_close(found, towers[0].lit.encoder.encode_views(views()), atol=1e-5, rtol=1e-5)


def test_batch_norms_learn(run_alignment, resnet, towers, tmp_path):
    out = run_alignment(resnet, "tuning=batchnorm")
    assert all("bn" in name or "downsample" in name for name in read_alignment(out).state)
    with torch.no_grad():
        found = loaded(out, tmp_path / "small_resnet.json").encode_views(views())
        assert torch.equal(found, towers[0].lit.encoder.encode_views(views()))


@pytest.mark.parametrize("distance", ["smooth_l1", "standardized"])
def test_every_distance_can_be_learned_by(run_alignment, distance):
    out = run_alignment(f"loss.distance={distance}", "loss.contrast=0", "trainer.max_epochs=6")
    course = losses(out)
    assert course[-1] < course[0]


def test_recordings_of_a_real_camera_are_learned_from(run_alignment, shapes_root, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "rec").mkdir()
    for number in range(3):
        columns = rng.integers(0, 32, 900), rng.integers(0, 24, 900), np.arange(900) / 1e4, rng.integers(0, 2, 900)
        np.save(tmp_path / "rec" / f"{number}.npy", np.stack(columns, axis=1).astype(np.float32))
    named = find_images(shapes_root)
    write_pairs(
        tmp_path / "pairs.csv",
        {f"{number}.npy": named.path(number).relative_to(shapes_root).as_posix() for number in range(3)},
    )
    given = (
        f"pairs.map={tmp_path / 'pairs.csv'}",
        f"pairs.recordings={tmp_path / 'rec'}",
        f"pairs.images={shapes_root}",
    )
    out = run_alignment(*given, "pairs.sensor_hw=[24,32]", "frames.events_per_frame=400", "num_workers=1")
    assert read_alignment(out).made["pairs"] == 3
    assert results(out)["settings"]["pairs.map"] == "pairs.csv"
    assert str(tmp_path).encode() not in out.read_bytes()


def test_held_out_folders_tell_accuracy_on_classes_never_seen(run_alignment, towers):
    out = run_alignment("heldout.folders=[ant,bee]", "heldout_accuracy=true", "prompts=['a {}']")
    history = results(out)["history"]
    assert all(0 <= entry["zero_shot"] <= 1 for entry in history)
    assert set(towers[0].datamodule.learned.folders) == {b"cow"}
    assert set(towers[0].datamodule.held_out.folders) == {b"ant", b"bee"}
    assert towers[0].lit.class_features.shape == (2, 32)
    assert towers[0].lit.labels.bincount().tolist() == [7, 7]


def test_what_cannot_be_read_is_left_out_where_asked(run_alignment, shapes_root, tmp_path, caplog):
    root = tmp_path / "some"
    root.mkdir()
    for number in range(8):
        (root / f"{number}.png").write_bytes(find_images(shapes_root).path(number).read_bytes())
    (root / "bad.png").write_bytes(b"no image")
    Image.new("L", (40, 30), 90).save(root / "gray.png")
    out = run_alignment(f"images={root}", "on_bad_image=skip", "trainer.max_epochs=1")
    assert results(out)["data"]["skipped"]["count"] == 2
    assert read_alignment(out).made["images"] == {"learned": 6, "held_out": 2}
    assert "on_bad_image=skip leaves out 2 images" in caplog.text
    assert re.search(r"left out: .*bad\.png cannot be read as an image", caplog.text)
    (root / "gray.png").unlink()
    with pytest.raises(UserError, match=r"bad\.png cannot be read as an image"):
        run_alignment(f"images={root}", name="again")
    (root / "bad.png").unlink()
    Image.new("L", (40, 30), 90).save(root / "gray.png")
    with pytest.raises(UserError, match=r"gray\.png is of a single gray or colour"):
        run_alignment(f"images={root}", name="gray")


def test_a_finished_file_is_not_written_over(run_alignment):
    out = run_alignment("trainer.max_epochs=1")
    with pytest.raises(UserError, match=r"aligned\.safetensors is there already: remove it to align anew, or give"):
        run_alignment("trainer.max_epochs=1")
    content = out.read_bytes()
    out.unlink()
    run_alignment("trainer.max_epochs=1")
    assert out.read_bytes() == content  # goes on from the end of training
    assert results(out)["resumed"]


def test_a_second_process_is_told_while_the_first_writes(run_alignment, tmp_path, monkeypatch):
    monkeypatch.setattr(aligning, "_ORPHANS_S", 0.0)
    told = r"another process is writing .*aligned\.safetensors: wait for it, or give"
    with held(tmp_path / "aligned.safetensors"), pytest.raises(UserError, match=told):
        run_alignment()


REFUSED = [
    (("tuning=frozen",), "tuning=frozen leaves nothing to learn: give tuning=full, layernorm"),
    (("statistics=events",), "statistics=events: the image tower of .* has no batch norm: give statistics=images"),
    (
        ("clip.precision=fp16",),
        "tuning=full with clip.precision=fp16 would lose small steps .* set clip.precision=fp32",
    ),
    (("tuning=batchnorm",), "tuning=batchnorm: the image tower of .* has none; it has bias"),
    (("tuning=lora", "tuning.lora_rank=1000"), "tuning.lora_rank=1000 does not suit matrices"),
    (("features=live",), "features=live keeps nothing of what frozen CLIP sees in the images: give features=cached"),
    (("batch_size=1",), "batch_size must be 2 or more"),
    (("heldout.folders=3",), "heldout.folders=3 must be 1 to 2 of 3 folders"),
    (("heldout.share=0.9", "leave_out=[ant,bee]"), "1 images are left to learn from and 6 are held out"),
    (("leave_out=[ant,bee,cow]",), "there is no image in"),
    (("heldout_accuracy=true", "heldout.folders=1"), "heldout_accuracy=true needs held-out images of several folders"),
    (
        ("pairs.map=pairs.csv",),
        r"pairs.recordings= is missing, the folder that the paths of pairs.map=pairs.csv begin at",
    ),
    (("simulation.speed=[3,1]",), "simulation.speed must be a lowest and a highest value"),
    (("loss.contrast=0", "loss.regression=0"), "leave nothing to learn"),
]


@pytest.mark.parametrize(("overrides", "told"), REFUSED, ids=[" ".join(overrides) for overrides, _ in REFUSED])
def test_a_mistake_is_told_before_anything_is_encoded(run_alignment, tmp_path, overrides, told):
    with pytest.raises(UserError, match=told) as refused:
        run_alignment(*overrides)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "aligned.safetensors").exists()


def test_lora_without_attention_names_what_works(run_alignment, tmp_path):
    (tmp_path / "small_efficientnet.json").write_text(json.dumps(EFFICIENTNET))
    own = (f"clip.config={tmp_path / 'small_efficientnet.json'}", "tuning=lora", "trainer.max_epochs=1")
    with pytest.raises(UserError, match=r"has no attention of that kind, so set tuning\.lora_targets=all"):
        run_alignment(*own)
    state = read_alignment(run_alignment(*own, "tuning.lora_targets=all", "tuning.lora_rank=2")).state
    assert all("parametrizations" in name for name in state)


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("aligned.pt", r"aligned\.pt must end in \.safetensors"),
        ("file/aligned.safetensors", "cannot be written .*: give another place"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_first(compose_alignment, tmp_path, out, told):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=told):
        aligning.align(compose_alignment(f"out={tmp_path / out}"))


def test_an_alignment_for_another_clip_is_refused(run_alignment, resnet, tiny_clip_json, tmp_path):
    out = run_alignment("trainer.max_epochs=1")
    with pytest.raises(UserError, match=r"sha256 [0-9a-f]{12}.* [0-9a-f]{12}"):
        loaded(out, tmp_path / "small_resnet.json")


def test_features_that_diverge_end_in_a_sentence(run_alignment):
    with pytest.raises(UserError, match=r"features that are not finite: alignment diverged, lower optim\.lr"):
        run_alignment("optim.lr=1e30", "optim.warmup=0")
