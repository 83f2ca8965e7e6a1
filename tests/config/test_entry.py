"""How commands begin and end, as typed: sentences, exit statuses, the folders of runs."""

import errno
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

from eventclip.config.entry import entry
from eventclip.config.run_folders import differences, overrides_of, sweep_folder
from eventclip.errors import UserError
from eventclip.reports.report import SweepTable

NMNIST = [
    *("-m", "experiment=fewshot_folder", "data.root=n-mnist", "data.sensor_hw=[34,34]"),
    "data.class_names=[zero,one,two,three,four,five,six,seven,eight,nine]",
    *("data.augmentation.mirror=false", "frames.events_per_frame=2000", "data.p95_events=5000", "fewshot=all"),
    *("clip.config=liteclip.json", "clip.arch=null", "clip.pretrained=liteclip.safetensors", "optim.lr=1e-2"),
    *("trainer.max_epochs=10", "seed=0,1,2"),
]


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """Type a command whose task does nothing but note its configuration and its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SweepTable, "on_multirun_end", lambda *_, **__: None)

    def run(command, *arguments, does=lambda cfg: None):
        seen = []

        def task(cfg):
            seen.append((cfg, HydraConfig.get().runtime.output_dir))
            does(cfg)

        monkeypatch.setattr(sys, "argv", [command, *arguments])
        entry(command)(task)()
        return seen

    return run


@pytest.fixture
def told(typed):
    """The one sentence that a command ends in."""
    for group in ConfigStore.instance().repo.values():  # of a checkpoint that another test in this process evaluated
        if isinstance(group, dict):
            group.pop("checkpoint.yaml", None)

    def run(command, *arguments, **further):
        with pytest.raises(SystemExit) as stopped:
            typed(command, *arguments, **further)
        sentence = str(stopped.value)
        assert sentence.startswith("eventclip: ")
        assert "\n" not in sentence
        return sentence.removeprefix("eventclip: ")

    return run


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["adaptor=text"], "there is no setting adaptor, did you mean adapter?"),
        (["data.shotz=1"], "there is no setting data.shotz, did you mean fewshot.shots"),
        (["fewshot.shot=1"], "there is no setting fewshot.shot, did you mean fewshot.shots?"),
        (["optim.qqqqq=1"], "there is no setting optim.qqqqq; those of optim are lr, warmup, floor"),
        (["trainer.limit_val_batches=1"], "+trainer.limit_val_batches=... hands it to what is built there"),
        (["experiment=dem"], "experiment=dem is no choice: expected one of align_demo, "),
        (["adapter=txt"], "adapter=txt is no choice: expected one of best, clip_adapter, gda, identity, "),
        (["data=0"], "data=0 is no choice: expected one of folder, "),
        (["clip=[1]"], "clip=[1] is no choice: expected one of openai, "),
        (["frames=null"], "frames=null is no choice: expected one of gray, rgb"),
        (["name=null"], "name must be a plain name"),
        (["seed=1.5"], "seed must be a whole number"),
        (["seed=0,1", "hydra.mode=RUN"], "seed=0,1 may mean several things: write 'seed=[0,1]' for a list"),
        (["optim.lr=(1"], "optim.lr= cannot be read, got (1: "),
        (["seed"], "seed is no setting: expected KEY=VALUE"),
        (["demo"], "demo is no setting: expected KEY=VALUE, did you mean experiment=demo?"),
        (["text"], "text is no setting: expected KEY=VALUE, did you mean adapter=text?"),
        (["."], ". is no setting: expected KEY=VALUE, did you mean data.root=.?"),
        (["a" * 5000], " is no setting: expected KEY=VALUE"),
        (
            ["experiment=demo_pseudo"],
            (
                "experiment/demo_pseudo.yaml cannot be taken here: "
                "there is no setting pseudo in this command: it is one of eventclip pseudo_label"
            ),
        ),
        (["split=test"], "there is no setting split in this command: it is one of eventclip evaluate, pack, simulate"),
        (["--colour"], "--colour cannot be read (unrecognized arguments: --colour)"),
        (["--run", "--multirun"], "Only one of --run, --multirun"),
        (
            ["data.root=${nowhere}", "--cfg", "job", "--resolve"],
            "the configuration is wrong: Interpolation key 'nowhere' not found",
        ),
        (["+data=mine"], "data=mine is no choice: expected one of folder, "),
        (["~nothing"], "the configuration cannot be composed: Could not delete"),
    ],
)
def test_what_hydra_says_in_lines_is_one_sentence(told, arguments, sentence):
    assert sentence in told("train", *arguments)


def test_a_file_typed_alone_is_answered_with_its_key(told, tmp_path):
    (tmp_path / "a.npy").touch()
    assert "did you mean recordings=a.npy?" in told("predict", "a.npy")
    assert "no clip= was chosen: give clip= as well, or +clip.aligned=" in told("predict", "clip.aligned=a.safetensors")
    assert "did you mean recording=a.npy?" in told("show", "a.npy")
    assert "did you mean recordings?" in told("predict", "recording=a.npy")


def test_a_typo_in_an_experiment_of_ones_own_is_named(told, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "mugs.yaml").write_text("# @package _global_\noptm: {lr: 1}\n")
    sentence = told("train", "--config-dir", str(tmp_path / "mine"), "experiment=mugs")
    assert sentence == "experiment/mugs.yaml cannot be taken here: there is no setting optm, did you mean optim?"


def test_a_wrong_value_leaves_no_folder(told, tmp_path):
    assert "frames.white_background must be true or false" in told("train", "frames.white_background=maybe")
    assert "seed must be" in told("train", "-m", "seed=0,-1", "adapter=text", "hydra.sweep.dir=s")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["s"])


def test_the_saved_configuration_holds_what_was_meant(typed, tmp_path):
    typed(
        "train",
        "adapter=text",
        "data.augmentation.mirror=no",
        "trainer.max_epochs=1e1",
        "hydra.run.dir=run=1",
        "hydra.mode=RUN",
    )
    saved = OmegaConf.load(tmp_path / "run=1" / ".hydra" / "config.yaml")
    assert saved.data.augmentation.mirror is False
    assert saved.trainer.max_epochs == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run=1"]


def test_every_hydra_error_is_whole_for_whoever_asks(typed, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(UserError, match="seed must be"):
        typed("train", "seed=-1", "adapter=text", "hydra.mode=RUN")


def test_ctrl_c_is_one_line_and_status_130(typed, capsys):
    def interrupt(cfg):
        raise KeyboardInterrupt

    def leave_as_lightning_does(cfg):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    for does in (interrupt, leave_as_lightning_does):
        with pytest.raises(SystemExit) as stopped:
            typed("predict", "recordings=x", does=does)
        assert stopped.value.code == 130
        assert capsys.readouterr().err == "eventclip: interrupted\n"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "make room, then give the same command again"),
        (errno.EDQUOT, "make room"),
        (errno.EROFS, "give a place that you can read and write"),
        (errno.EACCES, "give a place that you can read and write"),
        (errno.ENAMETOOLONG, "give another place"),
    ],
)
def test_a_disk_that_is_full_or_closed_is_told(told, number, words):
    def fails(cfg):
        raise OSError(number, os.strerror(number), "/x/y.csv")

    sentence = told("predict", "recordings=x", does=fails)
    assert sentence.startswith("/x/y.csv cannot be ")
    assert words in sentence


@pytest.mark.parametrize(
    "error",
    [
        OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),
        RuntimeError("[enforce fail at inline_container.cc:603] . PytorchStreamWriter failed writing file data/0"),
    ],
)
def test_a_full_disk_is_told_whoever_noticed_it(told, error):
    def fails(cfg):
        raise error

    assert "make room" in told("predict", "recordings=x", does=fails)


def test_a_folder_of_runs_in_a_files_place_is_told(told, tmp_path):
    (tmp_path / "file").touch()
    sentence = told("train", "adapter=text", "hydra.mode=RUN", "hydra.run.dir=file/run")
    assert sentence.startswith("file/run cannot be made or opened (Not a directory)")


@pytest.mark.parametrize("choice", [["experiment=demo"], ["-m", "adapter=text,joint"]])
def test_a_runs_folder_is_refused_in_a_sweep_and_nothing_left(told, typed, tmp_path, choice):
    sentence = told("train", *choice, "hydra.run.dir=mine")
    assert sentence.startswith("hydra.run.dir=mine is the folder of one run, and this is a sweep: add hydra.mode=RUN")
    assert not list(tmp_path.iterdir())
    ((_, folder),) = typed("train", "experiment=demo", "hydra.run.dir=mine", "hydra.mode=RUN")
    assert folder == str(tmp_path / "mine")


def test_a_mistake_found_late_leaves_no_empty_folder(told, tmp_path):
    def fails(cfg):
        raise UserError("there is no folder x")

    assert told("train", "adapter=text", "hydra.run.dir=mine", does=fails) == "there is no folder x"
    assert not (tmp_path / "mine").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.json").touch()
    told("train", "adapter=text", "hydra.run.dir=mine", does=fails)
    assert (tmp_path / "mine" / "results.json").exists()


def test_a_typo_in_a_group_of_an_own_experiment_is_told(told, tmp_path):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\noptim: {lrr: 0.1}\n")
    sentence = told("train", "--config-dir", "own", "experiment=mine")
    assert sentence == "optim.lrr is no setting of optim, did you mean optim.lr?"


def test_a_commands_version_is_the_packages(typed, capsys):
    assert typed("train", "--version") == []
    assert capsys.readouterr().out == f"eventclip {version('eventclip')}\n"


def test_a_mistake_of_ours_keeps_its_traceback(typed):
    def fails(cfg):
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        typed("predict", "recordings=x", does=fails)


def test_a_job_of_submitit_hands_its_sentence_on(typed, monkeypatch):
    def fails(cfg):
        raise UserError("too few")

    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    with pytest.raises(CompactHydraException, match=r"^eventclip: too few$"):
        typed("predict", "recordings=x", does=fails)


def test_the_readmes_long_sweep_has_three_short_folders(typed):
    seen = typed("train", *NMNIST)
    assert [cfg.seed for cfg, _ in seen] == [0, 1, 2]
    names = [folder.rpartition("/")[2] for _, folder in seen]
    assert [name.partition("-")[0] for name in names] == ["0", "1", "2"]
    assert all(len(name) == 10 for name in names)
    assert len(set(names)) == 3


def test_a_sweep_that_goes_on_finds_its_folders(typed):
    first = typed("train", "-m", "adapter=text", "seed=0,1", "optim.lr=1,2", "hydra.sweep.dir=s")
    again = typed(
        "train", "-m", "optim.lr=2,1", "adapter=text", "seed=1,0,7", "hydra.sweep.dir=s", "data.root=elsewhere"
    )
    place = {(cfg.seed, cfg.optim.lr): folder for cfg, folder in first}
    for cfg, folder in again:
        if cfg.seed == 7:
            assert folder not in place.values()
        else:
            assert folder == place[cfg.seed, cfg.optim.lr]


def test_names_do_not_tell_where_files_lie(tmp_path):
    here = sweep_folder(str(tmp_path), 3, ["clip.config=/a/b/c.json", "data.root=/x", "seed=1"])
    assert here == sweep_folder(str(tmp_path), 3, ["seed=1", "data.root=/y", "clip.config=/d/c.json", "paths.cache=z"])
    assert here != sweep_folder(str(tmp_path), 3, ["clip.config=/a/b/c.json", "seed=2"])
    assert here.startswith("3-")


def test_two_files_of_one_name_have_two_folders(tmp_path):
    names = []
    for number, override in enumerate(["resume=/a/x.ckpt", "resume=/b/x.ckpt"]):
        names.append(sweep_folder(str(tmp_path), number, [override]))
        (tmp_path / names[-1] / ".hydra").mkdir(parents=True)
        OmegaConf.save(OmegaConf.create([override]), tmp_path / names[-1] / ".hydra" / "overrides.yaml")
    assert len(set(names)) == 2
    assert sweep_folder(str(tmp_path), 7, ["resume=/b/x.ckpt"]) == names[1]


def test_runs_are_told_apart_by_what_was_typed_for_each(tmp_path):
    for name, overrides in (
        ("0-a", ["experiment=demo", "seed=0"]),
        ("1-b", ["experiment=demo", "seed=1"]),
        ("2-c", None),
    ):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        if overrides is not None:
            OmegaConf.save(OmegaConf.create(overrides), tmp_path / name / ".hydra" / "overrides.yaml")
    (tmp_path / "2-c" / ".hydra" / "overrides.yaml").write_bytes(b"\xff: [")
    assert overrides_of(tmp_path / "2-c") == []
    assert list(differences([tmp_path / "0-a", tmp_path / "1-b"]).values()) == ["seed=0", "seed=1"]


MISTAKES = [
    ["train", "experiment=fewshot_ncaltech", "data.root=/nowhere"],
    ["train", "adaptor=text"],
    ["train", "experiment=fewshot_folder", "data.root=.", "clip.pretrained=/nowhere.pt"],
    ["train", "experiment=demo", "adapter=text", "resume=/nowhere.ckpt", "hydra.mode=RUN"],
    ["train", "experiment=demo_selftrain", "fewshot.split_file=/nowhere.json"],
    ["evaluate", "checkpoint=/nowhere.ckpt"],
    ["evaluate", "checkpoint=/nowhere.ckpt", "split=testing"],
    ["predict", "recordings=/nowhere", "classes=[a,b]"],
    ["predict", "recordings=.", "classes=[a,b]"],
    ["predict", "recordings=/nowhere", "checkpoint=/nowhere.ckpt"],
    ["show", "recording=/nowhere"],
    ["pack", "data=folder", "data.root=/nowhere", "out=x.h5"],
    ["pack", "data=folder", "data.root=.", "out=x.h5", "split=testing"],
    ["data_check", "data.root=/nowhere"],
    ["pseudo_label", "out=x.json", "checkpoint=/nowhere.ckpt"],
    ["import_checkpoint", "/nowhere.pth", "out=x.ckpt"],
    ["simulate", "images=/nowhere", "out=x"],
    ["pairs", "recordings=/nowhere", "images=.", "out=x.csv"],
    ["report", "/nowhere"],
    ["report", "--frobnicate"],
]


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_that_needs_no_torch_is_told_without_it(words, tmp_path):
    code = (
        f"import sys, runpy; sys.argv = {['x', *words[1:]]!r}\n"
        "try:\n"
        f"    runpy.run_module('eventclip.{words[0]}', run_name='__main__')\n"
        "finally:\n"
        "    print([m for m in ('torch', 'lightning', 'open_clip') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "[]"
    assert [line for line in done.stderr.splitlines() if line][-1].startswith("eventclip: ")
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_a_command_starts_is_one_line(tmp_path):
    command = [sys.executable, "-m", "eventclip.train", "experiment=demo", "adapter=text", "hydra.mode=RUN"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in a shell's background ignore it
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("outputs/demo/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 130
    assert told.splitlines()[-1] == "eventclip: interrupted"
    assert "Traceback" not in told
