from eventclip.training.resume import flat_settings


def test_nested_keys_become_dotted_without_the_machines():
    config = {
        "name": "x",
        "seed": 3,
        "data": {"root": "/data", "num_workers": 4, "augmentation": {"max_shift": 20}, "class_names": None},
        "clip": {"config": "/home/me/tiny.json", "cache_dir": "/cache", "mean": [0.1, 0.2]},
        "adapter": {"_target_": "a.B", "_partial_": True},
        "trainer": {"accelerator": "gpu", "max_epochs": 5, "precision": "16-mixed"},
        "paths": {"output": "/out"},
        "callbacks": {"last": {"folder": "/out"}},
    }
    assert flat_settings(config) == {
        "data.augmentation.max_shift": 20,
        "data.class_names": None,
        "clip.config": "tiny.json",
        "clip.mean": [0.1, 0.2],
        "adapter._target_": "a.B",
        "trainer.max_epochs": 5,
        "trainer.precision": "16-mixed",
    }
