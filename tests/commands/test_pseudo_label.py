"""Learning without labels as people type it: guess, select, train on the result; one sentence for each mistake."""

import json

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from eventclip.config.composition import CONFIG_DIR, PseudoLabelConfig, command, register_schema
from eventclip.datasets.split_files import read_split


@pytest.fixture
def label(learnable_root, tiny_clip_json, tmp_path):
    """Run eventclip.pseudo_label on the learnable data set with the tiny CLIP, in this process."""

    def run(*overrides):
        from eventclip.training.pseudo_label import label

        register_schema(PseudoLabelConfig)
        small = [
            "experiment=demo_pseudo",
            "data=ncaltech101",
            f"data.root={learnable_root}",
            "data.sensor_hw=[60,80]",
            "frames.events_per_frame=200",
            "data.p95_events=600",
            "data.num_workers=0",
            f"clip.config={tiny_clip_json}",
            "clip.arch=null",
            "clip.pretrained=null",
            "pseudo.threshold=0.3",
            "pseudo.tta_consistent=false",
            "pseudo.tta_min_prob=false",
            "pseudo.progress=false",
            f"out={tmp_path / 'pseudo.json'}",
        ]
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            cfg = compose("pseudo_label", [*small, *overrides])
        label(cfg)
        return read_split(tmp_path / "pseudo.json")

    return run


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_zero_shot_teachers_labels_are_trained_on(label, run_experiment, tmp_path):
    split = label(f"links={tmp_path / 'links'}")
    assert split.head["teacher"]["kind"] == "zero_shot"
    assert split.head["options"]["threshold"] == 0.3
    assert split.head["class_names"] == ["face", "airplane", "yin yang"]
    assert split.guessed.all()
    assert (split.probabilities > 0.3).all()
    report = json.loads((tmp_path / "pseudo.report.json").read_text())
    assert report["selected"] == len(split.pairs) == len(list((tmp_path / "links" / "training").rglob("*.npy")))
    assert (tmp_path / "pseudo.reliability.png").read_bytes().startswith(b"\x89PNG")
    run = run_experiment(f"fewshot.split_file={split.path}", folder="trained")
    assert results(run)["data"]["recordings"]["training"] == len(split.pairs)
    assert results(run)["data"]["pseudo_labelled"] == len(split.pairs)


def test_a_few_shot_teachers_shots_keep_their_labels(label, run_experiment, tmp_path):
    shots = run_experiment("fewshot.shots=1", folder="shots")
    checkpoint = shots / "checkpoints" / "last.ckpt"
    split = label(f"checkpoint={checkpoint}", "pseudo.threshold={zero_shot: 0.999, few_shot: 0.31}")
    assert split.head["options"]["threshold"] == 0.31
    assert split.head["counts"] == {"selected": int(split.guessed.sum()), "true": 3, "guessed": 15}
    assert sorted(label for (_, label), guessed in zip(split.pairs, split.guessed, strict=True) if not guessed) == [
        0,
        1,
        2,
    ]
    names = [name for name, _ in split.pairs]
    assert len(set(names)) == len(names)
    trained = run_experiment(f"fewshot.split_file={split.path}", folder="trained")
    again = label(f"checkpoint={trained / 'checkpoints' / 'last.ckpt'}")  # a second round knows the same three
    assert again.head["counts"]["true"] == 3
    assert label(f"checkpoint={checkpoint}", "pseudo.keep_true=false").guessed.all()


def test_a_fitted_teacher_labels_as_it_was_tested(label, run_experiment, tmp_path):
    fitted = ("adapter=prototype", "features=cached", f"paths.cache={tmp_path / 'cache'}")
    shots = run_experiment(*fitted, "fewshot.shots=2", folder="shots")
    split = label(f"checkpoint={shots / 'checkpoints' / 'last.ckpt'}", "pseudo.threshold=0")
    assert split.head["counts"] == {"selected": 12, "true": 6, "guessed": 12}
    assert split.head["teacher"]["adapter"]["_target_"] == "eventclip.adapters.gaussian.PrototypeAdapter"
    guessed = {label for (_, label), guess in zip(split.pairs, split.guessed, strict=True) if guess}
    assert guessed <= {0, 1, 2}
    trained = run_experiment(*fitted, f"fewshot.split_file={split.path}", folder="trained")
    assert results(trained)["data"]["pseudo_labelled"] == 12


def test_a_teachers_sentences_decide_and_are_one_value(label, tmp_path):
    sentences = {"face": ["eyes and a nose"], "airplane": ["two wings"], "yin yang": ["two drops"]}
    heads = []
    for wings in ("two wings", "four wings"):
        (tmp_path / "own.json").write_text(json.dumps({**sentences, "airplane": [wings]}))
        heads.append(label(f"classifier.prompts_file={tmp_path / 'own.json'}").head["teacher"]["classifier"])
    told = [head["prompts_file"] for head in heads]
    assert told[0] != told[1]
    assert [len(one) for one in told] == [16, 16]


def test_another_threshold_scores_nothing_anew(label, tmp_path, monkeypatch):
    loose = label()
    monkeypatch.setattr("eventclip.training.scores._score", None)
    strict = label(f"pseudo.threshold={float(np.median(loose.probabilities))}", "pseudo.topk=2")
    assert set(strict.pairs) < set(loose.pairs)
    assert len(list((tmp_path / "pseudo.scores").iterdir())) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pseudo.threshold=1.5"], r"pseudo\.threshold .* \[0, 1\], got 1\.5"),
        (["pseudo.threshold={few_shot: 0.5}"], "zero_shot and few_shot"),
        (["pseudo.threshold=0.9999"], r"highest probability among 18 recordings is 0\.\d+ .*lower pseudo\.threshold"),
        (["pseudo.topk=0"], r"pseudo\.topk"),
        (["pseudo.tta=[upside_down]"], "as_is, mirrored, flipped, both"),
        (["pseudo.shard_size=0"], r"pseudo\.shard_size"),
        (["out=???"], "out= is missing"),
        (["out=/proc/nowhere/pseudo.json"], r"out=/proc/nowhere/pseudo\.json cannot be written"),
        (["links=/proc"], "links=/proc is not empty"),
        (["adapter=text"], "has learned nothing yet and cannot teach"),
        (["adapter=prototype"], "PrototypeAdapter has learned nothing yet and cannot teach"),
        (["checkpoint=/nowhere.ckpt"], r"there is no checkpoint /nowhere\.ckpt"),
        (["trainer.precision=5-bit"], "trainer cannot be built"),
    ],
)
def test_a_mistake_is_one_sentence(label, overrides, message):
    with pytest.raises(SystemExit, match=message) as told:
        command(lambda: label(*overrides))()
    assert "\n" not in str(told.value)


def test_a_teacher_of_other_classes_is_refused(label, run_experiment):
    shots = run_experiment("fewshot.shots=1", "data.class_names=[face,plane,yin yang]")
    with pytest.raises(SystemExit, match=r"last\.ckpt was trained on 3 classes .*'plane' and 'airplane'"):
        command(lambda: label(f"checkpoint={shots / 'checkpoints' / 'last.ckpt'}"))()


def test_a_teacher_whose_shots_are_not_here_is_refused(label, run_experiment, learnable_root, tmp_path):
    shots = run_experiment("fewshot.shots=1")
    other = tmp_path / "other"
    for path in learnable_root.rglob("*.npy"):
        place = other / path.relative_to(learnable_root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_stem(f"renamed_{place.stem}").symlink_to(path)
    with pytest.raises(SystemExit, match=r"other recordings than its own draw finds.*pseudo\.keep_true=false"):
        command(lambda: label(f"checkpoint={shots / 'checkpoints' / 'last.ckpt'}", f"data.root={other}"))()


def test_labels_for_other_recordings_are_not_trained_on(label, run_experiment, tmp_path):
    path = label().path
    content = json.loads(path.read_text())
    content["checksums"]["training"] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(
        SystemExit, match=r"pseudo\.json was made for other training recordings \(checksum 000000000000"
    ):
        command(lambda: run_experiment(f"fewshot.split_file={path}", folder="trained"))()
