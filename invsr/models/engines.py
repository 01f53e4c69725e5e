"""Which engine runs a network, and in which number format: what a short measurement on this machine finds fastest.

On CPUs the engine is PyTorch, or OpenVINO where it is installed, for passes without gradients; the number format is
float32, or bfloat16 by PyTorch where the processor multiplies it (AMX, AVX-512 BF16). OpenVINO runs in float32 only:
small noise on a bright image does not survive bfloat16 without the two parts in which it enters there. On GPUs it is
PyTorch, with bfloat16 where the hardware multiplies it.

The environment variable INVSR_ENGINE, "torch" or "openvino", takes the place of the measurement.
"""

from __future__ import annotations

import math
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from invsr.errors import InvsrError
from invsr.models import compiled, timings
from invsr.models.streaming import is_tracing

VARIABLE = "INVSR_ENGINE"
TORCH, OPENVINO = "torch", "openvino"
FLOAT32, BFLOAT16 = "float32", "bfloat16"
# PyTorch runs smaller images: compiling takes longer than it saves.
LEAST_VOXELS = 2**17
# What is measured: voxels of the image, at least; repetitions; seconds after which no more follow. PyTorch in float32
# is left for what is faster by so much.
MEASURED_SIDE = {2: 64, 3: 32}
REPEATS, SECONDS, MARGIN = 3, 1.0, 1.1
# Working memory of OpenVINO, float32 numbers per voxel and channel at full resolution, and bytes beside; measured
# (`python -m benchmarks.speed.network_memory`). Bytes that it may take unless somebody says otherwise.
NUMBERS, BESIDE = 4.0, 130_000_000
ALLOWANCE = 2**31
# Values of ONEDNN_MAX_CPU_ISA with which oneDNN, PyTorch's convolutions, emulates bfloat16.
WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
# Levels of PyTorch's own kernels, which ATEN_CPU_CAPABILITY may lower, that go with them.
WITHOUT_AVX512 = ("DEFAULT", "NO AVX", "AVX2")

# Names that PyTorch has for its tests of the processor; earlier versions lack some.
INSTRUCTION_SETS = {
    "AVX2": "_is_avx2_supported",
    "AVX-512": "_is_avx512_supported",
    "AVX-512 BF16": "_is_avx512_bf16_supported",
    "AMX": "_is_amx_tile_supported",
}


@dataclass(frozen=True)
class Way:
    """An engine and a number format."""

    engine: str = TORCH
    number_format: str = FLOAT32

    def __str__(self) -> str:
        return f"{self.engine} {self.number_format}"


@dataclass(frozen=True)
class Choice:
    """The way that was chosen.

    Attributes
    ----------
    way : Way
    why : str
        In words.
    milliseconds : dict
        What was measured, by the way's name; empty where nothing was.
    measured : str
        When.
    """

    way: Way
    why: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    measured: str = ""


_lock = threading.RLock()
_measured: dict[str, timings.Timing] = {}
_record: ContextVar[dict[str, list[str]] | None] = ContextVar("record", default=None)
_allowance: ContextVar[int] = ContextVar("allowance", default=ALLOWANCE)
_only_torch: ContextVar[bool] = ContextVar("only_torch", default=False)


def instruction_sets() -> list[str]:
    """What this processor has of what number formats and speed depend on."""
    return [name for name, query in INSTRUCTION_SETS.items() if getattr(torch.cpu, query, lambda: False)()]


def processor() -> str:
    """The name of the processor."""
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return str(known.get("cpu_name") or platform.processor() or platform.machine())


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 matrices; emulated, they take minutes."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in WITHOUT_BFLOAT16
    if device.type != "cpu" or limited or torch.backends.cpu.get_cpu_capability() in WITHOUT_AVX512:
        return False
    return bool({"AMX", "AVX-512 BF16"} & set(instruction_sets()))


def bfloat16_is_fastest(network: Any | None, device: torch.device) -> bool:
    """Whether to run a network in bfloat16: a network of this package by measurement, others (None) by hardware."""
    if network is None or not multiplies_bfloat16(device):
        return multiplies_bfloat16(device)
    return choose(network, device).way.number_format == BFLOAT16


def choose(network: Any, device: torch.device, *, bfloat16: bool = True, anew: bool = False) -> Choice:
    """The fastest way to run a network without gradients.

    Parameters
    ----------
    network : Network
        Networks of one class share a measurement.
    device : torch.device
    bfloat16 : bool
        Whether bfloat16 may be chosen.
    anew : bool
        Measure even if a measurement is kept.

    Raises
    ------
    InvsrError
        When INVSR_ENGINE names no engine, or one that is not there.
    """
    if device.type != "cpu":
        coarse = bfloat16 and multiplies_bfloat16(device)
        return Choice(Way(TORCH, BFLOAT16 if coarse else FLOAT32), "by what the device multiplies")
    wanted = _wanted()
    ways = [way for way in _ways(wanted if network.compiles else TORCH) if bfloat16 or way.number_format == FLOAT32]
    if len(ways) == 1:
        return Choice(ways[0], f"by {VARIABLE}" if wanted else "no other is here")
    timing = _timing(network, ways, anew)
    times = {way: timing.milliseconds.get(str(way), math.inf) for way in ways}
    first, best = ways[0], min(ways, key=lambda way: times[way])
    chosen = best if times[first] > MARGIN * times[best] else first
    return Choice(chosen, "the fastest, measured", timing.milliseconds, timing.when)


def _wanted() -> str:
    """The engine that the user wants; empty where there is a choice."""
    wanted = os.environ.get(VARIABLE, "").strip().lower()
    if wanted not in ("", TORCH, OPENVINO):
        raise InvsrError(f"{VARIABLE} is {wanted!r}: use {TORCH} or {OPENVINO}, or unset it to have the faster one")
    if wanted == OPENVINO and compiled.version() is None:
        raise InvsrError(f"{VARIABLE} is {OPENVINO}, which is not installed: pip install 'invsr[fast]'")
    return wanted


def _ways(wanted: str) -> list[Way]:
    """The ways that make sense on this CPU, PyTorch in float32 first where it is one."""
    if wanted == OPENVINO:
        return [Way(OPENVINO)]
    ways = [Way()]
    if multiplies_bfloat16(torch.device("cpu")):
        ways.append(Way(TORCH, BFLOAT16))
    if not wanted and compiled.is_usable():
        ways.append(Way(OPENVINO))
    return ways


def _timing(network: Any, ways: Sequence[Way], anew: bool) -> timings.Timing:
    """A measurement of all the ways: of this process, kept from an earlier one, or new."""
    wanted, key = {str(way) for way in ways}, _key(network)
    with _lock:
        found = None if anew else _measured.get(key) or timings.kept(key)
        if found is None or not wanted <= set(found.milliseconds):
            found = timings.now(_measure(network, _ways("")))
            timings.keep(key, found)
        _measured[key] = found
    return found


def _key(network: Any) -> str:
    """What a measurement holds for."""
    limits = [torch.backends.cpu.get_cpu_capability(), os.environ.get("ONEDNN_MAX_CPU_ISA", "")]
    versions = f"invsr {_version()}, torch {torch.__version__}, openvino {compiled.version()}"
    what = f"{type(network).__name__} {network.dim}-D"
    return "; ".join([processor(), " ".join(limits).strip(), f"{torch.get_num_threads()} threads", versions, what])


def _version() -> str:
    try:
        return metadata.version("invsr")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "unknown"


def _measure(network: Any, ways: Sequence[Way]) -> dict[str, float]:
    """Milliseconds of a pass over a small image, the shortest of a few, each way in turn; without those that fail."""
    side = network.multiple * math.ceil(MEASURED_SIDE[network.dim] / network.multiple)
    shape = (8 if network.dim == 2 else 1, 2 + 2 * network.neighbours, *[side] * network.dim)
    x = torch.linspace(0, 1, torch.Size(shape).numel()).reshape(shape).contiguous(memory_format=_layout(network))
    times: dict[str, float] = {}
    begun = time.perf_counter()
    with torch.no_grad():
        for way in ways:  # compiles, and chooses kernels
            _run(network, x, way)
        for repeat in range(REPEATS):
            for way in ways:
                before = time.perf_counter()
                if _run(network, x, way) is not None:
                    times[str(way)] = min(times.get(str(way), math.inf), 1e3 * (time.perf_counter() - before))
            if repeat and time.perf_counter() - begun > SECONDS:
                break
    return times


def _run(network: Any, x: Tensor, way: Way) -> Tensor | None:
    if way.engine == OPENVINO:
        return compiled.run(network, x)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=way.number_format == BFLOAT16):
        found: Tensor = network.body(x)
        return found


def _layout(network: Any) -> torch.memory_format:
    return torch.channels_last if network.dim == 2 else torch.channels_last_3d


def estimated_noise(network: Any, x: Tensor) -> Tensor:
    """What the network's body makes of x, by the fastest engine that can.

    Parameters
    ----------
    network : Network
    x : Tensor, shape (batch, channels + 1, *image)
    """
    if _compilable(network, x) and choose(network, x.device, bfloat16=False).way.engine == OPENVINO:
        out = compiled.run(network, x)
        if out is not None:
            _note(network, Way(OPENVINO))
            return out
    note_torch(network, x)
    found: Tensor = network.body(x)
    return found


def compiles_whole(network: Any, x: Tensor) -> bool:
    """Whether OpenVINO is to run a large volume, which it does whole: where it is fastest, and the memory allows it."""
    if whole_memory(network, x[0, 0].numel()) > _allowance.get() or not _compilable(network, x):
        return False
    return choose(network, x.device, bfloat16=False).way.engine == OPENVINO


def whole_memory(network: Any, voxels: int) -> int:
    """Bytes that OpenVINO takes for a pass."""
    return BESIDE + round(4 * NUMBERS * float(network.width) * voxels)


def memory_beside(network: Any, voxels: int, device: torch.device) -> int:
    """Bytes that the fastest engine takes for a pass, beside what PyTorch would."""
    if not network.compiles or choose(network, device).way.engine != OPENVINO:
        return 0
    return whole_memory(network, voxels)


@contextmanager
def allowing(memory: int) -> Iterator[None]:
    """Within it, OpenVINO may take so many bytes for a pass; larger volumes PyTorch takes, a few planes at a time."""
    token = _allowance.set(memory)
    try:
        yield
    finally:
        _allowance.reset(token)


def _compilable(network: Any, x: Tensor) -> bool:
    """Whether OpenVINO might run this pass: a large float32 image, no gradient, and weights that stand still."""
    weights = next(network.parameters(), x)
    return (
        x.device.type == "cpu"
        and x.dtype == weights.dtype == torch.float32
        and x.numel() >= LEAST_VOXELS * x.shape[1]
        and not any(side % network.multiple for side in x.shape[2:])
        and not (torch.is_grad_enabled() or network.training or _only_torch.get())
        and not (torch.is_autocast_enabled("cpu") or is_tracing() or torch.compiler.is_compiling())
        and forward_ad.unpack_dual(x).tangent is None  # type: ignore[no-untyped-call]
    )


@contextmanager
def only_torch() -> Iterator[None]:
    """Within it PyTorch runs all networks: where a cost and its gradient must agree to the last digits."""
    token = _only_torch.set(True)
    try:
        yield
    finally:
        _only_torch.reset(token)


def record() -> dict[str, list[str]]:
    """A new record of how networks run from now on in this thread: class to engine and number format."""
    found: dict[str, list[str]] = {}
    _record.set(found)
    return found


def note_torch(network: Any, x: Tensor) -> None:
    """Note that PyTorch runs a network on x."""
    kind = x.device.type
    coarse = torch.is_autocast_enabled(kind)
    name = str(torch.get_autocast_dtype(kind) if coarse else x.dtype)
    _note(network, Way(TORCH, name.removeprefix("torch.")))


def _note(network: Any, way: Way) -> None:
    found = _record.get()
    if found is not None:
        ways = found.setdefault(type(network).__name__, [])
        if str(way) not in ways:
            ways.append(str(way))
