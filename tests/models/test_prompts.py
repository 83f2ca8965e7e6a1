"""Sentences of a class's own: read from files that nobody vouches for, and encoded beside the templates."""

import json
import logging

import pytest
import torch
import torch.nn.functional as F

from eventclip import EventCLIP
from eventclip.errors import UserError
from eventclip.models.prompts import (
    PromptFeatures,
    check_sentences,
    encode_classes,
    encode_prompts,
    find_sentences,
    read_prompts_file,
)

NAMES = ["star", "anchor"]
SENTENCES = {"star": ["five points around a middle", "it shines"], "anchor": ["it holds a ship"]}


def test_one_template_is_what_the_tower_says_bit_for_bit(golden_clip):
    alone = golden_clip.encode_text(["a sketch of a star", "a sketch of a anchor"])
    assert torch.equal(encode_classes(golden_clip, NAMES, ["a sketch of a {}"]), alone)


def test_templates_are_averaged_and_made_unit_bit_for_bit(golden_clip):
    templates = ["a sketch of a {}", "{}", "the {}"]
    columns = [golden_clip.encode_text([template.replace("{}", n) for n in NAMES]) for template in templates]
    expected = F.normalize(columns[0] + columns[1] + columns[2], dim=-1)
    assert torch.equal(encode_classes(golden_clip, NAMES, templates), expected)


def test_sentences_stand_beside_the_filled_templates(golden_clip):
    prompts = encode_prompts(golden_clip, NAMES, ["a {}"], SENTENCES)
    assert prompts.valid.tolist() == [[True, True, True], [True, True, False]]
    star = golden_clip.encode_text(["a star", *SENTENCES["star"]])
    anchor = golden_clip.encode_text(["a anchor", *SENTENCES["anchor"]])
    torch.testing.assert_close(prompts.features[0], star)
    torch.testing.assert_close(prompts.features[1, :2], anchor)
    expected = F.normalize(torch.stack([star.sum(0), anchor.sum(0)]), dim=-1)
    torch.testing.assert_close(prompts.mean(), expected)


def test_sentences_alone_need_no_template(golden_clip):
    prompts = encode_prompts(golden_clip, NAMES, [], SENTENCES)
    torch.testing.assert_close(prompts.features[0], golden_clip.encode_text(SENTENCES["star"]))
    torch.testing.assert_close(prompts.mean()[1:], golden_clip.encode_text(SENTENCES["anchor"]))


def drawn(*, prompts=3):
    features = torch.randn(4, prompts, 8, generator=torch.Generator().manual_seed(0))
    return F.normalize(features, dim=-1)


def test_the_mean_knows_no_order_and_no_doubling():
    features = drawn()
    valid = torch.ones(4, 3, dtype=torch.bool)
    plain = PromptFeatures(features, valid).mean()
    torch.testing.assert_close(PromptFeatures(features.flip(1), valid).mean(), plain)
    doubled = PromptFeatures(features.repeat(1, 2, 1), valid.repeat(1, 2))
    torch.testing.assert_close(doubled.mean(), plain)


@pytest.mark.parametrize("junk", [1.0, float("nan"), float("inf")])
def test_what_a_padded_prompt_holds_changes_nothing(junk):
    features, valid = drawn(), torch.tensor([[True, True, False]] * 4)
    padded = torch.cat([features[:, :2], torch.full((4, 1, 8), junk)], dim=1)
    only = PromptFeatures(features[:, :2], valid[:, :2]).mean()
    assert torch.equal(PromptFeatures(padded, valid).mean(), only)


JSON_AND_YAML = [
    ("a.json", json.dumps(SENTENCES)),
    ("a.yaml", "star: [five points around a middle, it shines]\nanchor:\n  - it holds a ship\n"),
    ("a.yml", "\ufeffstar: ['five points around a middle', ' it shines ']\nanchor: ['it holds a ship']\n"),
]


@pytest.mark.parametrize(("name", "text"), JSON_AND_YAML)
def test_json_and_yaml_say_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_prompts_file(tmp_path / name) == SENTENCES


def test_yamls_own_words_are_names_like_any_other(tmp_path):
    (tmp_path / "a.yaml").write_text("0: [zero]\nno: [nay]\nnull: [nil]\n1e3: [many]\n")
    assert list(read_prompts_file(tmp_path / "a.yaml")) == ["0", "no", "null", "1e3"]


BAD = [
    ("a.txt", "star: [x]", "must end in .json"),
    ("a.json", "", "cannot be read"),
    ("a.json", "{", "cannot be read"),
    ("a.json", "[" * 100_000, "cannot be read"),
    ("a.json", '{"star": ["a"], "star": ["b"]}', "is there twice"),
    ("a.json", "{}", "holds nothing"),
    ("a.json", '["a star"]', "holds a list"),
    ("a.json", '{"": ["x"]}', "for a class name"),
    ("a.json", '{"star": "shines"}', "expected a list of sentences"),
    ("a.json", '{"star": []}', "expected a list of sentences"),
    ("a.json", '{"star": {"a": "b"}}', "expected a list of sentences"),
    ("a.json", '{"star": [3]}', "which is no sentence"),
    ("a.json", '{"star": ["  "]}', "which is no sentence"),
    ("a.json", '{"star": ["a {}"]}', "{} means nothing"),
    ("a.json", '{"star": ["${oc.env:HOME}"]}', "${ means nothing"),
    ("a.json", '{"Star ": ["a"], "star": ["b"]}', "twice"),
    ("a.yaml", "star: [a\n", "cannot be read"),
    ("a.yaml", "star: [a]\nstar: [b]\n", "is there twice"),
    ("a.yaml", "star: &s [a]\nanchor: *s\n", "has an alias"),
    ("a.yaml", "[a, b]: [c]\n", "a name that is no text"),
    ("a.yaml", "star: [a]\n---\nanchor: [b]\n", "cannot be read"),
    ("a.yaml", "[" * 5_000, "cannot be read"),
    ("a.yaml", "star: [[a]]\n", "which is no sentence"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_a_file_of_no_use_is_told_in_one_sentence(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as raised:
        read_prompts_file(tmp_path / name)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(tmp_path / name) in str(raised.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00star", b"\x00" * 40, b"star: [\x07]"])
def test_bytes_that_are_no_text_are_told_in_one_sentence(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read|holds"):
        read_prompts_file(tmp_path / "a.yaml")


def test_no_file_and_a_folder_are_told(tmp_path):
    (tmp_path / "b.json").mkdir()
    for name in ("missing.json", "b.json"):
        with pytest.raises(UserError, match="cannot be read"):
            read_prompts_file(tmp_path / name)


def test_a_files_tags_run_nothing(tmp_path):
    (tmp_path / "a.yaml").write_text(f"star: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    assert read_prompts_file(tmp_path / "a.yaml") == {"star": [f"{tmp_path}/made"]}
    assert not (tmp_path / "made").exists()


def test_a_class_without_sentences_is_named_with_what_is_close():
    with pytest.raises(UserError, match="no sentences of class 'anchors': its anchor is close"):
        find_sentences(SENTENCES, ["star", "anchors"], "prompts_file")
    with pytest.raises(UserError, match="class 'mug' and 1 more classes: add a list of them"):
        find_sentences(SENTENCES, ["star", "mug", "zebra"], "prompts_file")


def test_sentences_of_other_classes_are_left_out_with_a_warning(caplog, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(SENTENCES))
    with caplog.at_level(logging.WARNING):
        assert find_sentences(tmp_path / "a.json", ["STAR"], "prompts_file") == {"STAR": SENTENCES["star"]}
    assert "sentences of 1 other classes, such as anchor: left out" in caplog.text


def test_what_a_file_held_is_as_good_as_the_file(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(SENTENCES))
    assert find_sentences(tmp_path / "a.json", NAMES, "prompts_file") == find_sentences(SENTENCES, NAMES, "p")
    assert find_sentences(None, NAMES, "prompts_file") is None
    assert check_sentences(SENTENCES, "p") == SENTENCES


def test_zero_shot_takes_sentences_and_says_whose_are_missing():
    with pytest.raises(UserError, match="prompts_file has no sentences of class 'heart'"):
        EventCLIP.zero_shot(["star", "heart"], clip="tiny", prompts_file={"star": ["the symbol star"]})
    told = EventCLIP.zero_shot(["star", "heart"], clip="tiny", prompts=[], prompts_file={"star": ["a"], "heart": ["b"]})
    torch.testing.assert_close(
        told._batches.classifier.adapter.text_features.cpu(),
        EventCLIP.zero_shot(["a", "b"], clip="tiny", prompts="{}")._batches.classifier.adapter.text_features.cpu(),
    )
