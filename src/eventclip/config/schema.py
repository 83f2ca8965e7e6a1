"""What every setting of every command may be; light on imports, so that a mistake is told at once.

A dataclass is a section of the configuration and its annotations are the kinds of its values, which `checking` applies.
A section with a ``_target_`` is looked up by it; of a target of the user's own nothing is known, and its keys pass.
Ranges stand here where they are simple; what depends on several settings is checked where it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from omegaconf import MISSING

_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Between:
    """The range of a number, both ends included unless said otherwise."""

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range."""
        above = value > self.low if self.without_low else value >= self.low
        return above and (value < self.high if self.without_high else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:g}" if self.without_low else f"of {self.low:g} or more"
        return f"{'above' if self.without_low else 'from'} {self.low:g} to {'below ' * self.without_high}{self._end()}"

    def _end(self) -> str:
        return str(self.high) if isinstance(self.high, int) else f"{self.high:g}"


@dataclass(frozen=True)
class Text:
    """A text that is the name of something.

    Attributes:
        meaning: what it names, for messages.
        path: whether that is a file or a folder.
        empty: whether it may be without a letter.
        plain: whether it must stay within a folder: no separator, and no dot first.
    """

    meaning: str = "a text"
    path: bool = False
    empty: bool = False
    plain: bool = False


@dataclass(frozen=True)
class Exactly:
    """So many items in a list."""

    count: int
    meaning: str


@dataclass(frozen=True)
class Portion:
    """A number of batches where it is whole as written, a fraction of them where it has a point: 1 is not 1.0."""

    def holds(self, value: Any) -> bool:
        """Whether a value is such a number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return 0.0 <= value <= 1.0 if isinstance(value, float) else 0 <= value <= _LARGEST

    def __str__(self) -> str:
        return "from 0.0 to 1.0 (a fraction) or a whole number of 0 or more"


Name = Annotated[str, Text("a plain name, without / and no dot first", plain=True)]
Path = Annotated[str, Text("a path", path=True)]
ClassName = Annotated[str, Text("a class name")]
Prompt = Annotated[str, Text("a prompt such as 'a photo of a {}'")]
Sentence = Annotated[str, Text("a sentence such as 'a cup for hot drinks'")]
Count = Annotated[int, Between(1, 2**31 - 1)]
CountOrNone = Annotated[int, Between(0, 2**31 - 1)]
Unlimited = Annotated[int, Between(-1, 2**31 - 1)]
Microseconds = Annotated[int, Between(1, 2**62)]
Seed = Annotated[int, Between(0, 2**32 - 1)]
Fraction = Annotated[float, Between(0.0, 1.0)]
PartOfAll = Annotated[float, Between(0.0, 1.0, without_high=True)]
Positive = Annotated[float, Between(0.0, without_low=True)]
NotNegative = Annotated[float, Between(0.0)]
Rate = Annotated[float, Between(0.0, 1e6)]
SensorSides = Annotated[
    list[Annotated[int, Between(1, 32_768)]],  # places of pixels are kept in 16 bits
    Exactly(2, "height and width of the sensor in pixels, such as [180,240]"),
]
Channels = Annotated[list[float], Exactly(3, "three numbers, such as [0.5,0.5,0.5]")]

ResizeMode = Literal["crop", "pad", "stretch"]
Color = Literal["gray", "rgb"]
TimeUnit = Literal["s", "ms", "us", "ns"]
Weights = Literal["fixed", "support", "validation"]
Split = Literal["training", "validation", "test"]
Parts = Literal["frozen", "full", "lora", "bias", "layernorm", "batchnorm", "conv1", "projection", "class_token"]
Precision: TypeAlias = Literal[
    "transformer-engine",
    "transformer-engine-float16",
    "16-true",
    "16-mixed",
    "bf16-true",
    "bf16-mixed",
    "32-true",
    "64-true",
    "64",
    "32",
    "16",
    "bf16",
    16,
    32,
    64,
]


@dataclass(frozen=True)
class Built:
    """A section that its ``_target_`` describes.

    Attributes:
        usual: what the targets that ship take.
    """

    usual: tuple[type, ...]


@dataclass(frozen=True)
class Collected:
    """A section of named sections, each with its ``_target_``, or null.

    Attributes:
        usual: what those take that ship, by name.
    """

    usual: tuple[tuple[str, type], ...]


@dataclass
class Frames:
    """Of :class:`eventclip.events.frames.FrameRenderer`."""

    events_per_frame: Count
    hot_pixel_std: NotNegative
    count_non_zero: bool
    white_background: bool
    color: Color


@dataclass
class Augmentation:
    """Of :class:`eventclip.views.augment.Augmentation`."""

    max_shift: Annotated[int, Between(0, 32_767)]
    flip_time: bool
    mirror: bool
    image: bool


Augmented = Annotated[Any, Built((Augmentation,))]


@dataclass
class DataSet:
    """What every data module takes."""

    root: Path | None
    sensor_hw: SensorSides | None
    p95_events: Count
    augmentation: Augmented | None
    class_names: list[ClassName] | dict[str, ClassName] | None
    batch_size: Count
    evaluation_batch_size: Count
    num_workers: Annotated[int, Between(0, 1024)]
    packed: Path | list[Path] | None


@dataclass
class RecordedDataSet(DataSet):
    """One that comes as files of recordings."""

    file_format: str | None
    time_unit: TimeUnit | None
    columns: str | None
    stream: str | None
    sort: bool
    drop_outside: bool
    on_bad_recording: Literal["error", "skip"]


@dataclass
class NCaltech101(RecordedDataSet):
    """Of :class:`eventclip.datasets.ncaltech101.NCaltech101DataModule`."""

    classes: list[str] | Path | None


@dataclass
class NCars(RecordedDataSet):
    """Of :class:`eventclip.datasets.ncars.NCarsDataModule`."""

    split_fraction: Fraction


@dataclass
class NImageNet(RecordedDataSet):
    """Of :class:`eventclip.datasets.nimagenet.NImageNetDataModule`."""

    variant: int | str | None
    classes: list[str] | Path | None
    split_fraction: Fraction


@dataclass
class Folder(RecordedDataSet):
    """Of :class:`eventclip.datasets.folder.FolderDataModule`."""

    splits: dict[str, Path] | None
    classes: list[str] | Path | None
    split_fraction: Fraction


@dataclass
class Clip:
    """Of :class:`eventclip.models.factory.load_clip`."""

    arch: str | None
    pretrained: Path | None
    config: Path | None
    quick_gelu: bool | None
    mean: Channels | None
    std: Channels | None
    cache_dir: Path | None
    precision: Literal["fp32", "fp16", "bf16"]
    init_seed: Annotated[int, Between(0, 2**63 - 1)]
    aligned: Path | None
    compiled: bool


@dataclass
class IdentityAdapter:
    """Of :class:`eventclip.adapters.paper.IdentityAdapter`."""

    normalize_image_features: bool


@dataclass
class TextAdapter:
    """Of :class:`eventclip.adapters.paper.TextAdapter`."""


@dataclass
class TransformerAdapter:
    """Of :class:`eventclip.adapters.paper.VisualAdapter` and ``JointAdapter``."""

    width: Count
    layers: Count
    heads: Count
    mlp_width: Count
    dropout: PartOfAll
    residual: Fraction


@dataclass
class SupportAdapter:
    """What every adapter takes that is fitted from a support."""

    weights: Weights


@dataclass
class BestAdapter(SupportAdapter):
    """Of :class:`eventclip.adapters.best.BestAdapter`."""


@dataclass
class PrototypeAdapter(SupportAdapter):
    """Of :class:`eventclip.adapters.gaussian.PrototypeAdapter`."""

    text_shots: Positive


@dataclass
class GDAAdapter(SupportAdapter):
    """Of :class:`eventclip.adapters.gaussian.GDAAdapter`."""

    alpha: Positive | None
    prompt_weighting: Literal["mean", "timo"]
    gamma: NotNegative
    prompt_samples: bool


@dataclass
class ProKeRAdapter(SupportAdapter):
    """Of :class:`eventclip.adapters.kernel.ProKeRAdapter`."""

    beta: Positive
    regularization: Positive | None
    blend: Positive | None


@dataclass
class TipAdapter(SupportAdapter):
    """Of :class:`eventclip.adapters.kernel.TipAdapter`."""

    alpha: Positive
    beta: Positive


@dataclass
class TipAdapterF(TipAdapter):
    """Of :class:`eventclip.adapters.kernel.TipAdapterF`."""

    epochs: Count


@dataclass
class RandomProbeAdapter(SupportAdapter):
    """Of :class:`eventclip.adapters.probe.RandomProbeAdapter`."""

    prior_weight: Positive


@dataclass
class ProLIPAdapter(RandomProbeAdapter):
    """Of :class:`eventclip.adapters.projection.ProLIPAdapter`."""


@dataclass
class LinearProbeAdapter(RandomProbeAdapter):
    """Of :class:`eventclip.adapters.probe.LinearProbeAdapter`."""

    class_weights: Literal["uniform", "clap"]
    prompt_weighting: Literal["mean", "timo"]
    gamma: NotNegative


@dataclass
class LPPlusPlusAdapter(SupportAdapter):
    """Of :class:`eventclip.adapters.probe.LPPlusPlusAdapter`."""

    steps: Count


@dataclass
class TaskResAdapter:
    """Of :class:`eventclip.adapters.residual.TaskResAdapter`."""

    alpha: Positive


@dataclass
class CLIPAdapter:
    """Of :class:`eventclip.adapters.residual.CLIPAdapter`."""

    reduction: Count
    residual: Fraction


@dataclass
class FewShot:
    """Of :func:`eventclip.datasets.sampling.sample_few_shot`."""

    shots: Count | None
    seed: Annotated[int, Between(0, 2**63 - 1)]
    sampling: Literal["seeded", "reference"]
    repeat: bool
    split_file: Path | None
    classes: Literal["all", "base", "new"]


@dataclass
class Optim:
    """Of :class:`eventclip.training.optim.AdamWarmupCosine`."""

    lr: Positive
    warmup: PartOfAll
    floor: Fraction


@dataclass
class FeatureCache:
    """Of :class:`eventclip.features.cache.FeatureCache`."""

    folder: Path
    copies: Count
    dtype: Literal["fp32", "fp16"]
    rebuild: bool
    precision: Precision
    num_workers: Annotated[int, Between(0, 1024)]
    progress: bool


@dataclass
class Trainer:
    """Of :class:`lightning.Trainer`, as far as ``conf/trainer`` names it."""

    accelerator: str
    devices: Unlimited | list[CountOrNone] | str
    num_nodes: Count
    precision: Precision
    max_epochs: Unlimited | None
    max_steps: Unlimited
    accumulate_grad_batches: Count
    check_val_every_n_epoch: Count | None
    num_sanity_val_steps: Unlimited
    log_every_n_steps: CountOrNone
    enable_model_summary: bool
    use_distributed_sampler: bool
    deterministic: bool | Literal["warn"] | None
    limit_train_batches: Annotated[float, Portion()] | None
    limit_test_batches: Annotated[float, Portion()] | None
    default_root_dir: Path | None


@dataclass
class DistributedTrainer(Trainer):
    """With what ``conf/trainer/ddp.yaml`` adds."""

    strategy: str


@dataclass
class FileLogger:
    """Of Lightning's loggers of CSV files and for TensorBoard."""

    save_dir: Path
    name: Annotated[str, Text(empty=True)] | None
    version: CountOrNone | Annotated[str, Text(empty=True)] | None


@dataclass
class Nothing:
    """Of what is built without a setting."""


@dataclass
class LearningRate:
    """Of Lightning's LearningRateMonitor."""

    logging_interval: Literal["step", "epoch"] | None


@dataclass
class LastCheckpoint:
    """Of :class:`eventclip.training.checkpoints.LastCheckpoint`."""

    folder: Path
    every_n_steps: Count


@dataclass
class BestCheckpoint:
    """Of Lightning's ModelCheckpoint."""

    dirpath: Path | None
    filename: Name | None
    monitor: str | None
    mode: Literal["max", "min"]
    save_top_k: Unlimited
    enable_version_counter: bool


@dataclass
class Pictures:
    """Of :class:`eventclip.training.callbacks.PredictionPictures`."""

    folder: Path | None
    count: CountOrNone


@dataclass
class Diagnostics:
    """Of :class:`eventclip.training.callbacks.Diagnostics`."""

    folder: Path | None
    bins: Count
    confusions: CountOrNone


@dataclass
class PredictionTable:
    """Of :class:`eventclip.training.callbacks.PredictionTable`."""

    file: Path
    top: Count


TARGETS: dict[str, type] = {
    "eventclip.events.frames.FrameRenderer": Frames,
    "eventclip.views.augment.Augmentation": Augmentation,
    "eventclip.datasets.symbols.SymbolsDataModule": DataSet,
    "eventclip.datasets.ncaltech101.NCaltech101DataModule": NCaltech101,
    "eventclip.datasets.ncars.NCarsDataModule": NCars,
    "eventclip.datasets.nimagenet.NImageNetDataModule": NImageNet,
    "eventclip.datasets.folder.FolderDataModule": Folder,
    "eventclip.datasets.sampling.sample_few_shot": FewShot,
    "eventclip.models.factory.load_clip": Clip,
    "eventclip.adapters.paper.IdentityAdapter": IdentityAdapter,
    "eventclip.adapters.paper.TextAdapter": TextAdapter,
    "eventclip.adapters.paper.VisualAdapter": TransformerAdapter,
    "eventclip.adapters.paper.JointAdapter": TransformerAdapter,
    "eventclip.adapters.best.BestAdapter": BestAdapter,
    "eventclip.adapters.gaussian.PrototypeAdapter": PrototypeAdapter,
    "eventclip.adapters.gaussian.GDAAdapter": GDAAdapter,
    "eventclip.adapters.kernel.ProKeRAdapter": ProKeRAdapter,
    "eventclip.adapters.kernel.TipAdapter": TipAdapter,
    "eventclip.adapters.kernel.TipAdapterF": TipAdapterF,
    "eventclip.adapters.projection.ProLIPAdapter": ProLIPAdapter,
    "eventclip.adapters.probe.LinearProbeAdapter": LinearProbeAdapter,
    "eventclip.adapters.probe.RandomProbeAdapter": RandomProbeAdapter,
    "eventclip.adapters.probe.LPPlusPlusAdapter": LPPlusPlusAdapter,
    "eventclip.adapters.residual.TaskResAdapter": TaskResAdapter,
    "eventclip.adapters.residual.CLIPAdapter": CLIPAdapter,
    "eventclip.training.optim.AdamWarmupCosine": Optim,
    "eventclip.features.cache.FeatureCache": FeatureCache,
    "eventclip.training.checkpoints.LastCheckpoint": LastCheckpoint,
    "eventclip.training.requeue.Requeue": Nothing,
    "eventclip.training.callbacks.PredictionPictures": Pictures,
    "eventclip.training.callbacks.Diagnostics": Diagnostics,
    "eventclip.training.callbacks.PredictionTable": PredictionTable,
    "lightning.Trainer": DistributedTrainer,
    "lightning.pytorch.loggers.TensorBoardLogger": FileLogger,
    "lightning.pytorch.loggers.CSVLogger": FileLogger,
    "eventclip.training.progress.progress": Nothing,
    "lightning.pytorch.callbacks.TQDMProgressBar": Nothing,
    "lightning.pytorch.callbacks.LearningRateMonitor": LearningRate,
    "lightning.pytorch.callbacks.ModelCheckpoint": BestCheckpoint,
}
"""What a ``_target_`` takes from the configuration."""


Data = Annotated[Any, Built((DataSet, NCaltech101, NCars, NImageNet, Folder))]
FramesGroup = Annotated[Any, Built((Frames,))]
ClipGroup = Annotated[Any, Built((Clip,))]
AdapterGroup = Annotated[
    Any,
    Built(
        (
            IdentityAdapter,
            TextAdapter,
            TransformerAdapter,
            BestAdapter,
            PrototypeAdapter,
            GDAAdapter,
            ProKeRAdapter,
            TipAdapterF,
            LinearProbeAdapter,
            LPPlusPlusAdapter,
            TaskResAdapter,
            CLIPAdapter,
        )
    ),
]
FewShotGroup = Annotated[Any, Built((FewShot,))]
FeaturesGroup = Annotated[Any, Built((FeatureCache,))]
OptimGroup = Annotated[Any, Built((Optim,))]
TrainerGroup = Annotated[Any, Built((DistributedTrainer,))]
Loggers = Annotated[Any, Collected((("tensorboard", FileLogger), ("csv", FileLogger)))]
Callbacks = Annotated[
    Any,
    Collected(
        (
            ("progress", Nothing),
            ("learning_rate", LearningRate),
            ("last", LastCheckpoint),
            ("best", BestCheckpoint),
            ("requeue", Nothing),
            ("pictures", Pictures),
            ("diagnostics", Diagnostics),
            ("table", PredictionTable),
        )
    ),
]


@dataclass
class Views:
    """The group views."""

    training_views: Count
    evaluation_views: Count
    resize_mode: ResizeMode


@dataclass
class Tuning:
    """The group tuning."""

    parts: Parts | list[Parts]
    lora_targets: Literal["qv", "qkv", "qkvo", "all"]
    lora_rank: Count
    clip_factor: NotNegative


@dataclass
class Classifier:
    """The group classifier."""

    prompts: list[Prompt]
    prompts_file: Path | dict[str, list[Sentence]] | None
    pooling: Literal["mean", "sum", "max"]
    loss: Literal["logits", "probabilities"]
    residual: Fraction


@dataclass
class Selection:
    """The group selection."""

    split: Literal["validation", "test"] | None
    every_n_epochs: Count


@dataclass
class Paths:
    """The group paths."""

    data: Path
    cache: Path | None
    runs: Path
    output: Path


@dataclass
class Pseudo:
    """The section pseudo of ``conf/pseudo_label.yaml``."""

    tta: list[Literal["as_is", "mirrored", "flipped", "both"]]
    threshold: Fraction | dict[str, Fraction]
    tta_consistent: bool
    tta_min_prob: bool
    topk: Unlimited
    keep_true: bool
    shard_size: Count
    progress: bool


@dataclass
class TrainConfig:
    """The root of ``conf/train.yaml``."""

    name: Name = MISSING
    seed: Seed = 0
    resume: Path | None = "auto"
    trust: bool = False
    data: Data = MISSING
    fewshot: FewShotGroup = MISSING
    frames: FramesGroup = MISSING
    views: Views = MISSING
    clip: ClipGroup = MISSING
    tuning: Tuning = MISSING
    adapter: AdapterGroup = MISSING
    classifier: Classifier = MISSING
    features: FeaturesGroup = MISSING
    selection: Selection = MISSING
    optim: OptimGroup = MISSING
    trainer: TrainerGroup = MISSING
    logger: Loggers = MISSING
    callbacks: Callbacks = MISSING
    paths: Paths = MISSING


@dataclass
class EvaluateConfig(TrainConfig):
    """The root of ``conf/evaluate.yaml``."""

    checkpoint: Path | None = MISSING
    split: Split = "test"


@dataclass
class ImportConfig(TrainConfig):
    """The root of ``conf/import_checkpoint.yaml``."""

    reference: Path = MISSING
    out: Path = MISSING


@dataclass
class PseudoLabelConfig(TrainConfig):
    """The root of ``conf/pseudo_label.yaml``."""

    checkpoint: Path | None = None
    out: Path = MISSING
    links: Path | None = None
    pseudo: Pseudo = MISSING


@dataclass
class PackConfig:
    """The root of ``conf/pack.yaml``."""

    frames: FramesGroup
    views: Views
    data: Data
    fewshot: FewShotGroup
    selection: Selection
    paths: Paths
    out: Path
    split: Literal["training", "validation", "test", "all"]
    verify: bool
    damaged: Literal["error", "keep"]
    workers: Annotated[int, Between(1, 1024)] | None
    progress: bool
    seed: Seed


@dataclass
class DataCheckConfig:
    """The root of ``conf/data_check.yaml``."""

    frames: FramesGroup
    data: Data
    paths: Paths
    splits: list[Split] | None
    out: Path | None
    progress: bool


@dataclass
class ClassifyFrames:
    """The section frames of ``conf/classify.yaml``."""

    events_per_frame: Count | None
    color: Color | None
    white_background: bool | None
    hot_pixel_std: NotNegative | None


@dataclass
class ClassifyViews:
    """The section views of ``conf/classify.yaml``."""

    max_views: Count | None
    resize_mode: ResizeMode | None


@dataclass
class ClassifyConfig:
    """What ``conf/classify.yaml`` gives to predict and show."""

    clip: ClipGroup | None
    checkpoint: Path | None
    classes: list[ClassName] | None
    sensor_hw: SensorSides | None
    device: str | None
    batch_views: Count
    columns: str | None
    file_format: str | None
    sort: bool
    stream: str | None
    drop_outside: bool
    time_unit: TimeUnit | None
    prompts: list[Prompt] | Prompt | None
    prompts_file: Path | None
    frames: ClassifyFrames
    views: ClassifyViews
    other_sensors: bool
    trust: bool


@dataclass
class PredictConfig(ClassifyConfig):
    """The root of ``conf/predict.yaml``."""

    recordings: Path | list[Path]
    out: Path | None
    top: Count
    progress: bool
    window_events: Count | None
    window_us: Microseconds | None
    step_events: Count | None
    step_us: Microseconds | None
    timeline: Path | None


@dataclass
class ShowConfig(ClassifyConfig):
    """The root of ``conf/show.yaml``."""

    recording: Path
    out: Path
    top: Count
    image_size: Annotated[int, Between(1, 4096)]
    gif_ms: Annotated[int, Between(1, 600_000)]


@dataclass
class ExportConfig:
    """The root of ``conf/export.yaml``."""

    clip: ClipGroup | None
    checkpoint: Path | None
    trust: bool
    out: Path


@dataclass
class Shares:
    """The section split of ``conf/simulate.yaml``."""

    training: Fraction
    validation: Fraction
    testing: Fraction


@dataclass
class Camera:
    """The section camera of ``conf/simulate.yaml``; a camera tells itself what lies outside its ranges."""

    threshold_on: Annotated[float, Between(-100.0, 100.0)]
    threshold_off: Annotated[float, Between(-100.0, 100.0)]
    threshold_spread: Annotated[float, Between(-100.0, 100.0)]
    refractory_us: Annotated[int, Between(0, 10**9)]
    shot_noise_hz: Rate
    leak_hz: Rate
    hot_pixel_fraction: Fraction
    hot_pixel_hz: Rate
    log_eps: Annotated[float, Between(-100.0, 100.0)]
    step_us: Annotated[float, Between(0.0, 1e9)]


@dataclass
class SimulateConfig:
    """The root of ``conf/simulate.yaml``."""

    images: Path
    out: Path
    leave_out: list[str]
    seed: Annotated[int, Between(0, 2**63 - 1)]
    workers: Annotated[int, Between(1, 1024)]
    progress: bool
    split: Shares
    sensor_hw: Annotated[
        list[Annotated[int, Between(16, 4096)]],
        Exactly(2, "height and width of the sensor in pixels, at least 16 each, such as [180,240]"),
    ]
    fit: Literal["inside", "cover"]
    amplitude_px: NotNegative
    saccade_us: Annotated[int, Between(1000, 10**9)]
    camera: Camera


RangeOf = Annotated[list[float], Exactly(2, "a lowest and a highest value, such as [0.5,1.0]")]


@dataclass
class Simulated:
    """The section simulation of ``conf/align.yaml``; what lies outside its ranges tells itself."""

    sensors: list[SensorSides]
    threshold: RangeOf
    balance: RangeOf
    spread: RangeOf
    refractory_us: RangeOf
    shot_noise_hz: RangeOf
    leak_hz: RangeOf
    hot_pixel_fraction: RangeOf
    log_eps: RangeOf
    motions: list[Literal["saccade", "line", "shake"]]
    travel: RangeOf
    speed: RangeOf
    size: RangeOf
    turn_degrees: RangeOf
    contrast: RangeOf
    gamma: RangeOf
    inverted: Fraction
    window: RangeOf


@dataclass
class Crops:
    """The section crops of ``conf/align.yaml``."""

    area: Annotated[float, Between(0.0, 1.0, without_low=True)]
    whole: Fraction
    beside: Fraction


@dataclass
class HeldOut:
    """The section heldout of ``conf/align.yaml``."""

    share: Annotated[float, Between(0.0, 1.0, without_low=True, without_high=True)]
    most: Annotated[int, Between(2, 2**31 - 1)]
    folders: list[str] | Count | None


@dataclass
class AlignmentLoss:
    """The section loss of ``conf/align.yaml``."""

    contrast: NotNegative
    scale: Positive
    regression: NotNegative
    distance: Literal["cosine", "smooth_l1", "standardized"]
    keep_images: NotNegative


@dataclass
class PairedRecordings:
    """The section pairs of ``conf/align.yaml``."""

    map: Path | None
    recordings: Path | None
    images: Path | None
    sensor_hw: SensorSides | None


@dataclass
class AlignConfig:
    """The root of ``conf/align.yaml``."""

    name: Name = MISSING
    images: Path = MISSING
    out: Path = MISSING
    seed: Seed = 0
    resume: Path | None = "auto"
    trust: bool = False
    dtype: Literal["fp32", "fp16"] = "fp32"
    leave_out: list[str] = MISSING
    on_bad_image: Literal["error", "skip"] = "error"
    batch_size: Annotated[int, Between(2, 2**31 - 1)] = 64
    views_at_once: Count | None = None
    num_workers: Annotated[int, Between(0, 1024)] = 2
    keep_share: Fraction = 0.5
    statistics: Literal["images", "events"] = "images"
    heldout_accuracy: bool = False
    prompts: list[Prompt] = MISSING
    clip: ClipGroup = MISSING
    tuning: Tuning = MISSING
    frames: FramesGroup = MISSING
    features: FeaturesGroup = MISSING
    optim: OptimGroup = MISSING
    trainer: TrainerGroup = MISSING
    logger: Loggers = MISSING
    callbacks: Callbacks = MISSING
    paths: Paths = MISSING
    crops: Crops | None = MISSING
    heldout: HeldOut = MISSING
    loss: AlignmentLoss = MISSING
    simulation: Simulated = MISSING
    pairs: PairedRecordings = MISSING


@dataclass
class PairsConfig:
    """The root of ``conf/pairs.yaml``."""

    recordings: Path
    images: Path | None
    originals: Path | None
    out: Path
    workers: Annotated[int, Between(1, 1024)] | None
    progress: bool


COMMANDS: dict[str, Any] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "import_checkpoint": ImportConfig,
    "pseudo_label": PseudoLabelConfig,
    "pack": PackConfig,
    "data_check": DataCheckConfig,
    "predict": PredictConfig,
    "show": ShowConfig,
    "simulate": SimulateConfig,
    "pairs": PairsConfig,
    "align": AlignConfig,
    "export": ExportConfig,
}
"""The root of each command's configuration."""
