"""One script for all commands: it lists them at once, runs them, and completes what is typed."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from eventclip.__main__ import COMMANDS

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "eventclip"
HEAVY = ("torch", "hydra", "omegaconf", "lightning", "numpy")


@pytest.fixture
def eventclip(tmp_path):
    """Type ``eventclip ...`` in an empty folder, as the console script does; gives what it left."""
    script = tmp_path / "bin" / "eventclip"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom eventclip.__main__ import main\nsys.exit(main())\n")
    script.chmod(0o755)
    paths = {"PATH": f"{script.parent}:{os.environ['PATH']}", "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}

    def run(*words, **environment):
        return subprocess.run(
            ["eventclip", *words],
            cwd=tmp_path,
            env=os.environ | paths | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    run.environment = os.environ | paths
    return run


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_all_commands_are_listed_a_line_each(eventclip, words):
    done = eventclip(*words)
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == list(COMMANDS)
    modules = {path.stem for path in PACKAGE.glob("*.py") if 'if __name__ == "__main__"' in path.read_text()}
    assert set(COMMANDS) == modules - {"__main__"}


def test_the_version_is_that_of_the_package(eventclip):
    assert eventclip("--version").stdout == f"eventclip {version('eventclip')}\n"


@pytest.mark.parametrize(
    "words", [["--help"], ["train"], ["train", "--help"], ["simulate", "-h"], ["report", "--help"]]
)
def test_help_needs_nothing_heavy(words):
    code = (
        f"import sys; sys.argv = {['eventclip', *words]!r}\n"
        "from eventclip.__main__ import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        f"sys.exit(', '.join(name for name in {HEAVY} if name in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_tells_groups_options_and_settings(eventclip, tmp_path):
    (tmp_path / "mine" / "clip").mkdir(parents=True)
    (tmp_path / "mine" / "clip" / "my_clip.yaml").touch()
    told = eventclip("predict", "--help", "--config-dir", "mine").stdout
    assert "my_clip" in told
    assert "vit_b_32" in told
    for setting in ("  recordings: ???", "  window_us: null", "  sensor_hw: null"):
        assert setting in told
    assert "hydra" not in told.replace("--hydra-help", "").lower().replace("what else hydra's", "")
    assert max(map(len, told.splitlines())) <= 130


def test_a_command_that_is_none_is_told_with_close_ones(eventclip):
    for typed, sentence in (
        ("trian", "there is no command trian, did you mean train?"),
        ("pseudo-labels", "did you mean pseudo_label?"),
        ("qqq", "expected one of train, evaluate, "),
    ):
        done = eventclip(typed)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "other"), [("train", "pseudo_label_nimagenet_mini"), ("pseudo_label", "demo "), ("align", "fewshot")]
)
def test_nothing_chosen_lists_the_experiments(eventclip, tmp_path, command, other):
    done = eventclip(command)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 24  # one screen
    conf = PACKAGE.parents[1] / "conf" / "experiment"
    names = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert names <= {path.stem for path in conf.glob("*.yaml")}
    assert {"train": "fewshot_ncaltech", "pseudo_label": "demo_pseudo", "align": "align_demo"}[command] in names
    assert other not in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]


def test_a_command_ends_as_python_m_ends_it(eventclip, tmp_path):
    done = eventclip("train", "experiment=fewshot_ncaltech", "data.root=/nowhere")
    assert done.returncode == 1
    assert done.stderr == "eventclip: there is no folder /nowhere: set data.root to the data set's folder\n"
    composed = eventclip("train", "data=ncars", "--cfg", "job")
    assert "NCarsDataModule" in composed.stdout


def test_what_starts_a_command_again_finds_its_module(monkeypatch, capsys):
    """Lightning starts further processes by the name in the spec of __main__, and the same arguments."""
    seen = {}

    def note(name, **options):
        seen.update(name=name, argv=list(sys.argv), **options)

    monkeypatch.setattr("runpy.run_module", note)
    monkeypatch.setattr(sys, "argv", ["/bin/eventclip", "train", "trainer=ddp", "seed=1"])
    from eventclip.__main__ import main

    main()
    assert seen["name"] == "eventclip.train"
    assert seen["argv"][1:] == ["trainer=ddp", "seed=1"]
    assert (seen["run_name"], seen["alter_sys"]) == ("__main__", True)


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("eventclip ", ["train", "predict"], ["--help"]),
        ("eventclip tr", ["train"], []),
        ("eventclip train ", ["adapter=", "seed=", "experiment="], ["train"]),
        ("eventclip train adapter=t", ["adapter=text"], ["adapter=joint"]),
        ("eventclip train experiment=fewshot_n", ["experiment=fewshot_ncars"], ["experiment=demo"]),
        ("eventclip predict window", ["window_us=", "window_events="], []),
        ("eventclip train seed=abc opt", [], ["adapter="]),
        ("eventclip report ", [], ["adapter="]),
        ("eventclip nothing ", [], ["adapter="]),
    ],
)
def test_a_shell_is_told_what_may_come_next(eventclip, line, wanted, unwanted):
    done = eventclip("-sc", "query=bash", COMP_LINE=line)
    assert done.stderr == ""
    offered = done.stdout.split()
    assert set(wanted) <= set(offered)
    assert not set(unwanted) & set(offered)


def test_bash_completes_after_the_documented_line(eventclip):
    script = (
        'eval "$(eventclip --shell-completion install=bash)"; COMP_LINE="eventclip train adapter=jo"; COMP_CWORD=2\n'
    )
    script += 'COMP_WORDS=(eventclip train adapter=jo); hydra_bash_completion; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", script], env=eventclip.environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["adapter=joint"], done.stderr


def test_a_shell_that_is_not_known_is_told(eventclip):
    done = eventclip("--shell-completion", "install=tcsh")
    assert done.returncode == 1
    assert done.stderr == (
        "eventclip: --shell-completion takes install=SHELL or uninstall=SHELL, where SHELL is bash or fish or zsh\n"
    )
