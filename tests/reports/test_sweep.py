from omegaconf import OmegaConf

from eventclip.reports.sweep import SweepTable


def at_the_end_of(folder):
    SweepTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}))


def test_the_table_of_all_runs_and_their_folder_end_a_multirun(write_run, tmp_path, capsys):
    write_run("adapter=text,seed=0", accuracy=0.25)
    write_run("adapter=joint,seed=0", accuracy=0.75, settings={"adapter._target_": "eventclip.adapters.paper.Joint"})
    at_the_end_of(tmp_path)
    told = capsys.readouterr().out
    assert "25.00" in told
    assert "75.00" in told
    assert told.rstrip().splitlines()[-1].startswith(str(tmp_path))


def test_a_multirun_without_a_finished_run_says_so(tmp_path, capsys):
    at_the_end_of(tmp_path)
    assert "no table: " in capsys.readouterr().out


def test_the_end_of_a_multirun_says_which_run_is_where(write_run, tmp_path, capsys):
    for name, adapter in (("10-1f0c9a2b", "joint"), ("2-0a1b2c3d", "text")):
        folder = write_run(name, accuracy=0.5).parent
        OmegaConf.save(OmegaConf.create(["experiment=x", f"adapter={adapter}"]), folder / ".hydra" / "overrides.yaml")
    at_the_end_of(tmp_path)
    told = capsys.readouterr().out.rstrip().splitlines()
    assert told[-3:-1] == ["2-0a1b2c3d: adapter=text", "10-1f0c9a2b: adapter=joint"]
