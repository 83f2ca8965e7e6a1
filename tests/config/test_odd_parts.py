"""What the schema cannot know, the parts refuse as they are built: in one sentence, never a traceback."""

import pytest

from eventclip.config.checking import check_config
from eventclip.config.sentences import command
from eventclip.training.experiment import assemble, make_trainer


@pytest.mark.parametrize(
    "override",
    [
        "trainer.accelerator=abc",
        "trainer.devices=abc",
        "trainer.devices=0",
        "+trainer.strategy=abc",
        "trainer.precision=transformer-engine",
        "+trainer.nonsense=1",
        "trainer.max_steps=-2",
        "clip.config=null",
        "clip.pretrained=abc",
        "clip.mean=[0.5,0.5]",
        "clip.std=[0,0,0]",
        "+data.variant=abc",
        "data.classes=abc",
        "data.classes=[abc]",
        "data.class_names=[face,Face,yin]",
        "data.class_names={abc: x}",
        "data.augmentation={}",
        "data.augmentation._target_=abc",
        "data._target_=os.getcwd",
        "+data.split_fraction=1",
        "adapter._target_=eventclip.nothing.Adapter",
        "adapter={}",
        "+callbacks.last={a: 1}",
        "callbacks.last.folder=null",
        "logger.csv.version=abc",
        "tuning.parts=[full,lora]",
        "tuning.parts=[]",
        "classifier.prompts=[abc]",
        "classifier.prompts=[]",
        "fewshot._target_=abc",
        "frames._target_=eventclip.events.frames",
        "+optim={_partial_: 3}",
    ],
)
def test_an_odd_part_is_built_or_refused_in_one_sentence(compose_experiment, override):
    def build():
        cfg = compose_experiment(override)
        check_config(cfg, "train")
        make_trainer(cfg, assemble(cfg).metadata["class_names"])

    try:
        command(build)()
    except SystemExit as stopped:
        sentence = str(stopped.code)
        assert sentence.startswith("eventclip: ")
        assert "\n" not in sentence
