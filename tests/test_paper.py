"""Every experiment of the paper is one command, and it composes to the paper's settings."""

import pytest
from hydra import compose, initialize_config_dir

from eventclip.config.composition import CONFIG_DIR, register_schema

TOWERS = {
    "rn50": "RN50",
    "rn101": "RN101",
    "rn50x4": "RN50x4",
    "rn50x16": "RN50x16",
    "rn50x64": "RN50x64",
    "vit_b_32": "ViT-B-32",
    "vit_b_16": "ViT-B-16",
    "vit_l_14": "ViT-L-14",
    "vit_l_14_336": "ViT-L-14-336",
}
DATA = {  # p95_events, events_per_frame, class of the data module
    "ncaltech": (225_000, 20_000, "NCaltech101DataModule"),
    "ncars": (12_500, 30_000, "NCarsDataModule"),
    "nimagenet": (135_000, 70_000, "NImageNetDataModule"),
    "nimagenet_mini": (135_000, 70_000, "NImageNetDataModule"),
}
LR = {"ncaltech": 1e-4, "ncars": 2e-4, "nimagenet": 2e-5, "nimagenet_mini": 2e-5}
EPOCHS = {"ncaltech": 100, "ncars": 50, "nimagenet": 100, "nimagenet_mini": 100}


def composed(*overrides):
    register_schema()
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose("train", list(overrides))


def check_data(cfg, data):
    percentile, per_frame, module = DATA[data]
    assert (cfg.data.p95_events, cfg.frames.events_per_frame) == (percentile, per_frame)
    assert cfg.data._target_.endswith(module)
    prompt = "a sketch image of a {}" if data == "nimagenet_mini" else "a point cloud image of a {}"
    assert cfg.classifier.prompts == [prompt]


@pytest.mark.parametrize("data", DATA)
def test_zero_shot_is_the_published_protocol(data):
    cfg = composed(f"experiment=zeroshot_{data}")
    check_data(cfg, data)
    assert cfg.clip.arch == ("ViT-B-32" if data == "nimagenet_mini" else "ViT-L-14")
    assert cfg.adapter._target_.endswith("IdentityAdapter")
    assert cfg.adapter.normalize_image_features is False
    assert composed(f"experiment=zeroshot_{data}", "adapter=identity").tuning.parts == "frozen"


def test_zero_shot_of_ones_own_normalises():
    assert composed("experiment=fewshot_folder", "data.root=x", "adapter=identity").adapter.normalize_image_features


@pytest.mark.parametrize(("clip", "arch"), TOWERS.items())
def test_zero_shot_takes_every_openai_tower(clip, arch):
    cfg = composed("experiment=zeroshot_ncaltech", f"clip={clip}")
    assert (cfg.clip.arch, cfg.clip.pretrained) == (arch, "openai")


@pytest.mark.parametrize("adapter", ["text", "joint"])
@pytest.mark.parametrize("shots", [1, 3, 5, 10, 20])
@pytest.mark.parametrize("data", DATA)
def test_few_shot(data, shots, adapter):
    cfg = composed(f"experiment=fewshot_{data}", f"fewshot.shots={shots}", f"adapter={adapter}")
    check_data(cfg, data)
    assert (cfg.optim.lr, cfg.trainer.max_epochs, cfg.fewshot.shots) == (LR[data], EPOCHS[data], shots)
    if adapter == "joint":
        assert cfg.adapter.residual == (0.95 if data.startswith("nimagenet") else 0.8)


@pytest.mark.parametrize("tuning", ["full", "lora", "bias", "layernorm", "conv1", "projection", "class_token"])
@pytest.mark.parametrize(
    ("experiment", "arch", "lr", "epochs"),
    [
        ("finetune_ncaltech", "ViT-B-16", 1e-4, 50),
        ("finetune_nimagenet", "ViT-B-16", 2e-5, 50),
        ("finetune_nimagenet_vit_l_14", "ViT-L-14", 2e-5, 100),
    ],
)
def test_fine_tuning(experiment, arch, lr, epochs, tuning):
    assert composed(f"experiment={experiment}").tuning.parts == "full"
    cfg = composed(f"experiment={experiment}", f"tuning={tuning}")
    assert (cfg.clip.arch, cfg.optim.lr, cfg.trainer.max_epochs) == (arch, lr, epochs)
    assert (cfg.tuning.parts, cfg.tuning.clip_factor, cfg.fewshot.shots) == (tuning, 0.1, None)
    assert (cfg.tuning.lora_targets, cfg.tuning.lora_rank) == ("qkvo", 16)
    assert cfg.adapter._target_.endswith("TextAdapter")


@pytest.mark.parametrize("variant", range(1, 10))
def test_robustness(variant):
    assert composed("experiment=zeroshot_nimagenet", f"data.variant={variant}").data.variant == variant


def test_an_ensemble_of_prompts_can_be_typed():
    typed = 'classifier.prompts=["a point cloud image of a {}","a sketch image of a {}"]'
    assert len(composed("experiment=zeroshot_nimagenet_mini", typed).classifier.prompts) == 2
