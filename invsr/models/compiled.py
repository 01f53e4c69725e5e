"""Networks as OpenVINO compiles them: an optional package, for CPUs, for passes without gradients."""

from __future__ import annotations

import threading
import warnings
import weakref
import zlib
from collections import OrderedDict
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from invsr.errors import InvsrWarning

PACKAGE = "openvino"
# Compiled shapes that are kept of a network: a volume that is turned at random has six.
MOST_SHAPES = 6
# Largest difference from PyTorch's result, relative to its maximum; both round to float32.
TOLERANCE = 1e-4
# What OpenVINO's own default settings would change: half precision where the processor has it, threads tied to cores,
# which processes side by side would share.
SETTINGS = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "ENABLE_CPU_PINNING": False,
}

_lock = threading.RLock()
_broken: list[str] = []


@cache
def version() -> str | None:
    """The version of OpenVINO; None where it is not installed."""
    if find_spec(PACKAGE) is None:
        return None
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def is_usable() -> bool:
    """Whether OpenVINO is installed, and has not failed in this process."""
    return version() is not None and not _broken


def run(network: Any, x: Tensor) -> Tensor | None:
    """What the network's body makes of x, float32 on the CPU; None where OpenVINO fails, of which a warning tells.

    Parameters
    ----------
    network : Network
    x : Tensor, shape (batch, channels + 1, *image)
        With sides that are multiples of the network's.
    """
    for last in (False, True):
        if _broken:
            break
        try:
            return _body_of(network)(x)
        except _failures() as error:
            # Seen twice: a model of a network without its one input. Why is unknown; a second try costs little.
            _bodies.pop(network, None)
            if last:
                _broken.append(type(error).__name__)
                reason = " ".join(str(error).split()[:20])
                words = f"OpenVINO cannot run {type(network).__name__} ({reason}): PyTorch does, more slowly"
                warnings.warn(words, InvsrWarning, 2)
    return None


class CompiledBody:
    """The body of a network in OpenVINO's form, compiled for each shape that it meets.

    Raises
    ------
    RuntimeError
        When what it computes differs from what PyTorch computes.
    """

    def __init__(self, network: Any) -> None:
        self.weights = checksum(network)
        self._model = _converted(network)
        self._compiled: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._check(network)

    def __call__(self, x: Tensor) -> Tensor:
        image = x.detach().contiguous().numpy()
        with _lock:  # one pass at a time: each takes all threads, and memory is released only between passes
            compiled = self._of_shape(tuple(x.shape))
            out = compiled.create_infer_request().infer([image], share_inputs=True, share_outputs=False)[0]
            # Until the next pass, other steps need the memory.
            compiled.release_memory()
        return torch.from_numpy(out)

    def _of_shape(self, shape: tuple[int, ...]) -> Any:
        threads = torch.get_num_threads()
        found = self._compiled.pop((shape, threads), None)
        if found is None:
            self._model.reshape(shape)
            settings = {**SETTINGS, "INFERENCE_NUM_THREADS": threads}
            found = _core().compile_model(self._model, "CPU", settings)
        self._compiled[shape, threads] = found
        while len(self._compiled) > MOST_SHAPES:
            self._compiled.popitem(last=False)
        return found

    def _check(self, network: Any) -> None:
        """Compare on images of another number and shape than what was traced."""
        x = _example(network, 3)
        with torch.no_grad():
            expected = network.body(x)
        error = float((self(x) - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
        if not error <= TOLERANCE:
            raise RuntimeError(f"its result differs by {error:.1e} from PyTorch's")


@cache
def _core() -> Any:
    """OpenVINO's door, one for the whole process.

    Each gives the thread a stack for signal handlers and takes it away at its end, even where another one's is in use:
    with two of them the next signal, Ctrl-C for instance, was handled on memory that belonged to others.
    """
    return import_module(PACKAGE).Core()


# The key does not keep its network alive; what was compiled is neither copied nor pickled with it.
_bodies: weakref.WeakKeyDictionary[nn.Module, CompiledBody] = weakref.WeakKeyDictionary()


def _body_of(network: Any) -> CompiledBody:
    with _lock:
        found = _bodies.get(network)
        if found is None or found.weights != checksum(network):
            found = _bodies[network] = CompiledBody(network)
        return found


def checksum(network: nn.Module) -> int:
    """Of the weights: the same memory may hold others after a step of training."""
    found = 0
    for one in network.parameters():
        found = zlib.crc32(one.detach().contiguous().numpy().data, found)
    return found


class _Body(nn.Module):
    """A network's body as a module to be traced."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network.body(x)
        return found


def _converted(network: Any) -> Any:
    """An OpenVINO model of the body, for any batch and sides.

    By the frontend, not by ``openvino.convert_model``: that one reports its use to its makers over the network.
    """
    decoder = import_module("openvino.frontend.pytorch.ts_decoder").TorchScriptPythonDecoder
    frontend = import_module("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    with torch.no_grad(), warnings.catch_warnings():
        # Tracing warns of sizes that become constants; the check sees whether any does harm.
        warnings.simplefilter("ignore")
        traced = decoder(_Body(network), example_input=_example(network, 2), shared_memory=False)
        return frontend.convert(frontend.load(traced))


def _example(network: Any, n: int) -> Tensor:
    """n - 1 small images and their noise levels; sides are n, n + 1, ... times what the network takes at least."""
    sides = [max(network.multiple, 4) * (n + axis) for axis in range(network.dim)]
    shape = (n - 1, 2 + 2 * network.neighbours, *sides)
    return torch.linspace(0, 40, torch.Size(shape).numel()).sin().reshape(shape)


def _failures() -> tuple[type[Exception], ...]:
    """What a package that is damaged, or does not suit PyTorch's version, raises."""
    errors: list[type[Exception]] = [ImportError, OSError, RuntimeError, AttributeError, TypeError]
    try:
        frontend = import_module("openvino.frontend")
    except (ImportError, OSError):
        return tuple(errors)
    names = (
        "GeneralFailure",
        "InitializationFailure",
        "NotImplementedFailure",
        "OpConversionFailure",
        "OpValidationFailure",
    )
    return (*errors, *(getattr(frontend, name) for name in names if hasattr(frontend, name)))
