"""A frozen image tower run by another engine than torch, on the CPU: faster, and with the same features or nearly."""

from __future__ import annotations

import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eventclip.errors import UserError

log = logging.getLogger(__name__)

ENGINES = {"torch": ("exact",), "openvino": ("exact", "fast"), "onnxruntime": ("exact",)}
"""Engine -> the precisions that it has: "exact" computes in float32, "fast" as the engine finds best for this CPU."""

RUN_BY_TORCH = {"engine": "torch", "engine_precision": "exact"}
"""Arguments of :func:`.load_clip` for no other engine, as all checkpoints have them: each process says what it runs."""

_NEEDS = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnx")}
_OPSET = 17  # of ONNX: the first with layer norms

_Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Engine:
    """Runs an image tower as it stands when it first sees images; see :func:`find_engine`.

    Args:
        name: "openvino" or "onnxruntime", installed.
        precision: one that it has, see :data:`ENGINES`.

    Attributes:
        version: of the engine.
    """

    def __init__(self, name: str, precision: str) -> None:
        self.name, self.precision = name, precision
        self.version = str(importlib.import_module(name).__version__)
        self._run: _Run | None = None

    def __call__(self, visual: nn.Module, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            visual: the tower, frozen; the same at every call, until :meth:`forget`.
            images: float32 (B, 3, S, S), on the CPU.

        Returns:
            (B, D) features, float32, through which no gradient flows.

        Raises:
            UserError: the tower or what makes the images learns, they are not on the CPU, mixed precision is asked
                for, or the engine cannot take the tower.
        """
        self.refuse_learning(images.requires_grad or any(one.requires_grad for one in visual.parameters()))
        if images.device.type != "cpu":
            raise UserError(
                f"clip.engine={self.name} runs on the CPU and CLIP is on {images.device.type}: set clip.engine=torch"
            )
        if torch.is_autocast_enabled("cpu"):
            raise UserError(
                f"clip.engine={self.name} has a precision of its own and takes no mixed one: set "
                f"trainer.precision=32-true"
            )
        if self._run is None:
            self._run = self._compiled(visual, tuple(images.shape[1:]))
        return torch.from_numpy(self._run(images.detach().contiguous().numpy()))

    def __getstate__(self) -> dict[str, Any]:
        """Copies compile anew: what is compiled belongs to one process."""
        return {**self.__dict__, "_run": None}

    def forget(self) -> None:
        """Take the tower anew at the next call, as it was changed."""
        self._run = None

    def refuse_learning(self, learns: bool) -> None:
        """Refuse a tower that learns.

        Raises:
            UserError: it does.
        """
        if learns:
            raise UserError(
                f"clip.engine={self.name} runs a frozen image tower, and here it learns: set clip.engine=torch, or "
                f"tuning=frozen"
            )

    def describe(self) -> dict[str, str]:
        """Plain values that decide the last bits of the features."""
        return {"engine": f"{self.name} {self.version}", "engine_precision": self.precision}

    def _compiled(self, visual: nn.Module, shape: tuple[int, ...]) -> _Run:
        compiled = _with_openvino if self.name == "openvino" else _with_onnxruntime
        try:
            with _traceable():
                return compiled(visual, torch.zeros(2, *shape), self.precision)
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"clip.engine={self.name} cannot take the image tower {type(visual).__qualname__} ({reason}): set "
                f"clip.engine=torch"
            ) from error


def find_engine(name: str, precision: str) -> Engine | None:
    """The engine of that name; None where torch itself runs the tower.

    Args:
        name: of :data:`ENGINES`. One that is not installed is told in a warning, and torch takes its place.
        precision: of those that the engine has.

    Raises:
        UserError: an unknown engine, or a precision that it does not have.
    """
    if not isinstance(name, str) or name not in ENGINES:
        raise UserError(f"clip.engine={name} is unknown: expected one of {', '.join(ENGINES)}")
    if precision not in ENGINES[name]:
        able = " or ".join(other for other, has in ENGINES.items() if precision in has)
        remedy = f"set clip.engine={able}, or clip.engine_precision=exact" if able else "expected exact or fast"
        raise UserError(f"clip.engine_precision={precision} is none of clip.engine={name}: {remedy}")
    if name == "torch":
        return None
    if not is_installed(name):
        log.warning("clip.engine=%s is not installed, and torch encodes: pip install 'eventclip[%s]'", name, name)
        return None
    return Engine(name, precision)


def is_installed(name: str) -> bool:
    """Whether an engine, with all that it needs, can be imported here."""
    try:
        return all(importlib.util.find_spec(module) is not None for module in _NEEDS[name])
    except ValueError:  # a module in sys.modules that says nothing of where it is from
        return False


def _with_openvino(visual: nn.Module, example: Tensor, precision: str) -> _Run:
    import openvino

    model = openvino.convert_model(visual, example_input=example, input=[-1, *example.shape[1:]])
    # Threads as torch has them: beside loaders' workers, and other runs, more would fight.
    options: dict[str, Any] = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    if precision == "exact":
        options["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = openvino.Core().compile_model(model, "CPU", options)
    return lambda images: np.array(compiled(images)[0], dtype=np.float32)


def _with_onnxruntime(visual: nn.Module, example: Tensor, _: str) -> _Run:
    import onnxruntime

    file: Any = io.BytesIO()  # which the exporter takes, whatever its annotation says
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["features"]}
    axes = {"images": {0: "batch"}, "features": {0: "batch"}}
    torch.onnx.export(visual, (example,), file, dynamo=False, opset_version=_OPSET, dynamic_axes=axes, **names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda images: np.array(session.run(["features"], {"images": images})[0], dtype=np.float32)


@contextmanager
def _traceable() -> Iterator[None]:
    """Have attention in operations that engines know, and keep to ourselves what tracing says of itself."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(mode=False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
