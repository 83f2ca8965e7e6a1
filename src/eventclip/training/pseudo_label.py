"""Composed configuration -> teacher -> scores -> split file with labels, report beside it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning import Fabric
from omegaconf import DictConfig, OmegaConf

import eventclip
from eventclip.datasets.datamodule import EventDataModule
from eventclip.datasets.recordings import Recordings
from eventclip.datasets.split_files import (
    PSEUDO,
    check_linkable,
    check_names,
    check_new_folder,
    link_recordings,
    write_split,
)
from eventclip.errors import UserError
from eventclip.files import check_out, fingerprint, held, write_json
from eventclip.models.building import build_classifier, call_partial, with_sentences
from eventclip.models.checkpoint import check_metadata, load_learned, read_checkpoint
from eventclip.models.classifier import EventClassifier
from eventclip.plots.style import save_figure
from eventclip.training.experiment import build_datamodule, build_feature_cache, quieten
from eventclip.training.scores import ScoreStore, check_tta, score_all
from eventclip.training.selection import Scores, Selection, draw_report, label_report, report_lines
from eventclip.training.support import learns

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    """Who labels."""

    classifier: EventClassifier
    shots: Recordings
    """Recordings whose true labels it learned from; none for a zero-shot teacher."""
    metadata: dict[str, Any]
    """Plain values that tell who it is, for the head of the split file."""

    def decides(self) -> dict[str, Any]:
        """Those of them that decide what it thinks of a recording: where its weights lie does not."""
        places = ("pretrained", "config", "aligned")
        clip = {name: value for name, value in self.metadata["clip"].items() if name not in places}
        return {**{name: value for name, value in self.metadata.items() if name != "checkpoint"}, "clip": clip}


def label(cfg: DictConfig) -> None:
    """Score the training recordings, select, and write split file, report and reliability curve.

    Raises:
        UserError: an option out of its range, a teacher of other classes, nothing selected, a folder that cannot
            be written to, or another process that writes the same.
    """
    quieten()
    options = cfg.pseudo
    if OmegaConf.is_missing(cfg, "out"):
        raise UserError("out= is missing, the split file to write: eventclip pseudo_label ... out=pseudo.json")
    out = Path(cfg.out).expanduser()
    tta = check_tta(options.tta)
    select = Selection(
        threshold=_threshold(options.threshold, "zero_shot" if cfg.checkpoint is None else "few_shot"),
        tta_consistent=options.tta_consistent,
        tta_min_prob=options.tta_min_prob,
        topk=options.topk,
    )
    links = None if cfg.links is None else Path(cfg.links).expanduser()
    _check_places(out, links)
    fabric = make_fabric(cfg)
    if cfg.checkpoint is not None:
        cfg = _as_the_teacher_sees(cfg, Path(cfg.checkpoint).expanduser())
    datamodule = build_datamodule(cfg)
    datamodule.few_shot = None
    teacher = make_teacher(cfg, datamodule)
    datamodule.connect(feature_cache=build_feature_cache(cfg, teacher.classifier.encoder))
    everything = datamodule.training
    check_names(everything)  # before hours of scoring
    if links is not None:
        check_linkable(everything)
    pool = everything.subset(np.flatnonzero(~np.isin(everything.paths, teacher.shots.paths)))
    decides = {
        "teacher": teacher.decides(),
        "recordings_sha256": pool.checksum(),
        "tta": list(tta),
        "files": datamodule.files.describe(),
        "frames": OmegaConf.to_container(cfg.frames, resolve=True),
        "views": [datamodule.evaluation_views, datamodule.resize_mode, datamodule.image_size],
        "features": cfg.features.dtype if cfg.features else "live",
    }
    store = ScoreStore(out.with_suffix(".scores"), decides, pool.paths, shard_size=options.shard_size, tta=len(tta))
    log.info("%d of %d training recordings are to be labelled: %s", len(pool), len(everything), store.folder)
    with held(out) if fabric.is_global_zero else contextlib.nullcontext():
        score_all(fabric, teacher.classifier, datamodule, pool, store, tta=tta, progress=options.progress)
        if fabric.is_global_zero:
            chosen = _write(out, select, tta, store.read(), pool, teacher, datamodule)
            if links is not None:
                log.info("%d links: %s", link_recordings(links, chosen), links)


def make_fabric(cfg: DictConfig) -> Fabric:
    """Launch the processes that the trainer's configuration asks for; nothing learns, so no Trainer is needed."""
    names = ("accelerator", "devices", "num_nodes", "precision", "strategy")
    given = {name: cfg.trainer[name] for name in names if name in cfg.trainer}
    fabric: Fabric = call_partial(Fabric, "trainer", **given)
    fabric.launch()
    return fabric


def make_teacher(cfg: DictConfig, datamodule: EventDataModule) -> Teacher:
    """Build CLIP as it is, or what a checkpoint holds.

    Raises:
        UserError: the checkpoint is none of ours, of another CLIP or of other classes, or the recordings it learned
            from are not among the data set's.
    """
    class_names = datamodule.class_names
    path = None if cfg.checkpoint is None else Path(cfg.checkpoint).expanduser()
    checkpoint = None if path is None else read_checkpoint(path, trust=cfg.trust)
    if path is not None and checkpoint is not None and checkpoint["eventclip"]["class_names"] != class_names:
        ours = {**checkpoint["eventclip"], "class_names": class_names}
        check_metadata(path, checkpoint, ours)  # before gigabytes of CLIP are loaded
    cfg = with_sentences(cfg, class_names)
    classifier = build_classifier(cfg, class_names)
    datamodule.connect(image_size=classifier.encoder.image_size)
    clip = classifier.encoder.describe()
    shots = datamodule.training.subset([])
    if path is not None and checkpoint is not None:
        check_metadata(path, checkpoint, {"clip": clip, "class_names": class_names})
        load_learned(path, checkpoint, classifier)
        if cfg.pseudo.keep_true:
            shots = true_shots(cfg, path, checkpoint["eventclip"])
    elif learns(classifier):
        raise UserError(
            f"{cfg.adapter._target_.rsplit('.', 1)[-1]} has learned nothing yet and cannot teach: give checkpoint=, or "
            f"adapter=identity for zero-shot"
        )
    told = cast("dict[str, Any]", OmegaConf.to_container(cfg.classifier, resolve=True))
    if told.get("prompts_file") is not None:
        told["prompts_file"] = fingerprint(told["prompts_file"])  # of the sentences, which may be thousands
    metadata = {
        "kind": "zero_shot" if path is None else "few_shot",
        "checkpoint": None if path is None else str(path),
        "clip": clip,
        "class_names": class_names,
        "classifier": told,
        "adapter": OmegaConf.to_container(cfg.adapter, resolve=True),
        "learned_sha256": _sha256(classifier.learned_state_dict()),
    }
    return Teacher(classifier, shots, metadata)


def true_shots(cfg: DictConfig, path: Path, metadata: dict[str, Any]) -> Recordings:
    """The recordings whose true labels a checkpoint learned from, found again by the draw that its metadata tells.

    Raises:
        UserError: what the card's draw gives here is not what the checkpoint was trained on.
    """
    drew = {name: metadata["config"][name] for name in ("fewshot", "selection", "seed") if name in metadata["config"]}
    learned = metadata["data"]["checksums"].get("training", "of no recordings")
    drawn = build_datamodule(_changed(cfg, drew)).training
    if drawn.checksum() != learned:
        raise UserError(
            f"{path} was trained on other recordings than its own draw finds in {drawn.root} (checksum {learned[:12]}, "
            f"here {drawn.checksum()[:12]}): give the data set it was trained on, or set pseudo.keep_true=false to "
            f"guess everything"
        )
    true = drawn if drawn.guessed is None else drawn.subset(np.flatnonzero(~drawn.guessed))
    return true.subset(np.unique(true.paths, return_index=True)[1])  # a repeated shot has one label


def _as_the_teacher_sees(cfg: DictConfig, path: Path) -> DictConfig:
    """Take what decides the teacher's probabilities from its own metadata: it labels as it was tested."""
    theirs = read_checkpoint(path, trust=cfg.trust)["eventclip"]["config"]
    decisive = ("clip", "tuning", "adapter", "classifier", "frames", "views")
    sections = {name: theirs[name] for name in decisive if name in theirs}
    if cfg.clip.get("aligned") is not None:  # where the file is now; another one is refused by its checksum
        sections["clip"] = {**sections["clip"], "aligned": cfg.clip.aligned}
    return _changed(cfg, sections)


def _changed(cfg: DictConfig, sections: dict[str, Any]) -> DictConfig:
    """The configuration with some sections replaced, each as a whole."""
    changed = OmegaConf.create(cast("dict[str, Any]", OmegaConf.to_container(cfg)))
    for name, section in sections.items():
        changed[name] = section
    return changed


def _check_places(out: Path, links: Path | None) -> None:
    """Tell before anything is scored that its result could not be written."""
    if links is not None:
        check_new_folder(links)
    check_out(out)


def _threshold(given: Any, kind: str) -> Any:
    """One threshold for every teacher, or one for each kind."""
    if not isinstance(given, DictConfig):
        return given
    if kind not in given:
        raise UserError(f"pseudo.threshold needs a number, or one for each of zero_shot and few_shot, got {given}")
    return given[kind]


def _sha256(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].float().contiguous().numpy()
        digest.update(f"{name} {value.shape}\n".encode() + value.tobytes())
    return digest.hexdigest()


def _write(
    out: Path,
    select: Selection,
    tta: tuple[str, ...],
    scores: Scores,
    pool: Recordings,
    teacher: Teacher,
    datamodule: EventDataModule,
) -> Recordings:
    """Select and write; the split file comes last, so that whoever finds it finds the report as well."""
    everything = datamodule.training
    chosen = select(scores, pool.paths)
    class_names = datamodule.class_names
    report = label_report(scores, chosen, pool.labels, class_names, added=len(teacher.shots))
    places = np.concatenate([_places(everything, teacher.shots), _places(everything, pool)[chosen]])
    labels = np.concatenate([teacher.shots.labels, scores["label"][chosen].astype(np.int64)])
    guessed = np.arange(len(labels)) >= len(teacher.shots)
    probabilities = np.concatenate([np.ones(len(teacher.shots)), scores["probability"][chosen].astype(np.float64)])
    labelled = everything.subset(places).relabelled(labels, guessed)
    head = {
        "kind": PSEUDO,
        "version": eventclip.__version__,
        "teacher": teacher.metadata,
        "options": {"tta": list(tta), **select.describe()},
        "class_names": class_names,
        "class_folders": list(everything.class_folders),
        "checksums": {"training": datamodule.split("training").checksum()},
        "counts": {"selected": len(chosen), "true": len(teacher.shots), "guessed": len(pool)},
    }
    save_figure(out.with_suffix(".reliability.png"), draw_report(report, threshold=select.threshold))
    write_json(out.with_suffix(".report.json"), {"options": head["options"], **report})
    write_split(out, labelled, head=head, probabilities=probabilities)
    for line in report_lines(report):
        log.info("%s", line)
    log.info("%s: %d recordings; report and reliability curve beside it", out, len(labelled))
    return labelled


def _places(everything: Recordings, some: Recordings) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Positions in ``everything`` of some of its recordings."""
    order = np.argsort(everything.paths)
    return order[np.searchsorted(everything.paths, some.paths, sorter=order)].astype(np.int64)
