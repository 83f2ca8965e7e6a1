"""``eventclip export`` as a user types it."""

import sys

import open_clip
import pytest
import torch

from eventclip import export as command_line
from eventclip.files import held
from eventclip.models.alignment import aligned_state, write_alignment
from eventclip.models.export import BESIDE, WEIGHTS
from eventclip.models.factory import load_clip
from eventclip.models.tuning import tune


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Type the command in an empty folder; gives what it prints, or the sentence that it ends with."""
    monkeypatch.chdir(tmp_path)

    def typed(*arguments):
        monkeypatch.setattr(sys, "argv", ["eventclip", *map(str, arguments)])
        try:
            command_line.main()
        except SystemExit as ended:
            return str(ended)
        return capsys.readouterr().out

    return typed


@pytest.fixture
def aligned(tmp_path):
    """An alignment of the tiny CLIP, in a file whose name no command line splits, and the CLIP that learned."""
    encoder = load_clip("tiny")
    tune(encoder, "batchnorm")
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.05)
    path = tmp_path / "aligned of mine.safetensors"
    write_alignment(path, encoder, aligned_state(encoder.visual), tuning={"parts": "batchnorm"}, made={})
    return path, encoder


def test_a_clip_and_its_alignment_become_a_folder(run, aligned, tmp_path):
    path, encoder = aligned
    printed = run("clip=tiny", f"clip.aligned={path}", "out=exported")
    assert printed.splitlines() == [
        "exported holds tiny: 153 tensors, 17.7 MiB",
        "open_clip.create_model_and_transforms('local-dir:exported')",
    ]
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name, "exported"]
    assert sorted(one.name for one in (tmp_path / "exported").iterdir()) == [BESIDE, WEIGHTS]
    model, _, _ = open_clip.create_model_and_transforms("local-dir:exported")
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.eval().encode_image(pixels)
        torch.testing.assert_close(features, encoder.encode_pixels(pixels), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_becomes_a_folder(run, run_experiment, tmp_path):
    checkpoint = run_experiment("tuning=lora", "tuning.lora_targets=all", "trainer.max_epochs=1")
    printed = run(f"checkpoint={checkpoint / 'checkpoints' / 'last.ckpt'}", "out=exported")
    assert "TextAdapter of last.ckpt is no part of it" in printed
    assert (tmp_path / "exported" / WEIGHTS).is_file()


def test_mistakes_are_told_in_one_sentence(run, aligned, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for arguments, message in (
        ((), "out= is missing, the folder to write: eventclip export clip=NAME out=FOLDER"),
        (("out=x",), "there is no CLIP to export: give clip=NAME, or checkpoint=FILE"),
        (("out=full", "clip=tiny"), "out=full holds thesis.tex, no part of an exported CLIP"),
        (("out=x", "clip=tiny", "clip.aligned=gone"), "clip.aligned=gone does not exist"),
        (("out=x", "clip=tiny", "clip.aligned=full"), "clip.aligned=full does not exist"),
        (("out=x", "clip=tiny", "clip.init_seed=x"), "clip.init_seed"),
        (("out=x", "checkpoint=gone.ckpt"), "there is no checkpoint gone.ckpt"),
        (("out=x", f"checkpoint={aligned[0]}"), "cannot be read as a checkpoint"),
        (("out=x", "clip=vit_b_32", "clip.pretrained=null", f"clip.aligned={aligned[0]}"), "was made for CLIP tiny/"),
        (("out=x", "clip=tiny", "odd=3"), "there is no setting odd"),
    ):
        told = run(*arguments)
        assert message in told
        assert "\n" not in told
    assert not (tmp_path / "x").exists()


def test_two_at_once_do_not_write_into_one_folder(run, tmp_path):
    with held(tmp_path / "exported" / WEIGHTS):
        assert "another process is writing exported" in run("clip=tiny", "out=exported")
    assert "holds tiny" in run("clip=tiny", "out=exported")
