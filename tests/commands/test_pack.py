"""``python -m eventclip.pack`` as a user types it."""

import subprocess
import sys

import pytest

from eventclip.pack import main


def test_a_run_on_the_pack_is_the_run_on_the_folder(learnable_root, tmp_path, monkeypatch, capsys, run_experiment):
    import json

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    command = ["pack", "data=ncaltech101", f"data.root={learnable_root}", "out=../n", "workers=1", "verify=true"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    told = capsys.readouterr()
    assert "36 recordings, 36 of them new; 21,600 events" in told.out
    assert "verified: 36 recordings are the same in both" in told.out
    assert "packing: 36 of 36 rec" in told.err
    assert not list((tmp_path / "here").iterdir())

    both = [(), (f"data.packed={tmp_path / 'n'}", "data.root=/nowhere", "data.num_workers=1")]
    folder, packed = (
        json.loads((run_experiment(*options, folder=f"run{i}") / "results.json").read_text())
        for i, options in enumerate(both)
    )
    assert packed["metrics"] == folder["metrics"]
    assert packed["data"]["checksums"] == folder["data"]["checksums"]
    assert (packed["data"]["packed"], folder["data"]["packed"]) == ([str(tmp_path / "n")], None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("data=ncaltech101",), "eventclip: out= is missing, "),
        (("data=ncaltech101", "data.root=nowhere", "out=made"), "eventclip: there is no folder nowhere"),
        (("data=folder", "out=made"), "eventclip: data.root is missing"),
        (
            ("data=ncaltech101", "out=made", "split=train"),
            "eventclip: split must be one of training, validation, test, all, got",
        ),
    ],
)
def test_a_mistake_ends_in_one_sentence(tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pack", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert str(stopped.value).startswith(told)
    assert "\n" not in str(stopped.value)
    assert not list(tmp_path.iterdir())


def test_it_starts_without_its_heavy_imports():
    heavy = "('torch', 'lightning', 'numba', 'h5py')"
    code = f"import sys, eventclip.pack; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_worker_processes_do_not_wait_for_torch():
    code = "import sys, eventclip.datasets.packing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
