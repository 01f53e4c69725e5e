"""`invsr info`: the versions, the machine, and how networks run on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer


def info(
    measure: Annotated[bool, typer.Option("--measure", help="Measure the networks' speed anew.")] = False,
) -> None:
    """Print versions, processor, memory, devices, and which engine runs the networks, and why."""
    for name, what in [*_versions(), *_machine(), *_networks(measure)]:
        print(f"{name:10s} {what}")


def _versions() -> Iterator[tuple[str, str]]:
    import platform

    import torch

    from invsr import __version__
    from invsr.models import compiled

    yield "invsr", __version__
    yield "Python", f"{platform.python_version()}, {platform.platform()}"
    yield "PyTorch", torch.__version__
    yield "OpenVINO", compiled.version() or "not installed: pip install 'invsr[fast]'"


def _machine() -> Iterator[tuple[str, str]]:
    import psutil
    import torch

    from invsr.models import engines, timings
    from invsr.models.registry import ROOM
    from invsr.numerics.memory import free_memory

    sets = ", ".join(engines.instruction_sets()) or "no AVX2"
    yield "processor", f"{engines.processor()}: {sets}; PyTorch uses {torch.backends.cpu.get_cpu_capability()}"
    yield "threads", str(torch.get_num_threads())
    yield "memory", _memory(free_memory(torch.device("cpu")), psutil.virtual_memory().total)
    for n in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield f"cuda:{n}", f"{torch.cuda.get_device_name(n)}, {_memory(*torch.cuda.mem_get_info(n))}"
    if not torch.cuda.is_available():
        yield "GPU", "none that PyTorch can use"
    yield "weights", str(ROOM)
    try:
        yield "timings", str(timings.path())
    except RuntimeError:
        yield "timings", "each time: there is no home folder to keep it in"


def _memory(free: int, total: int) -> str:
    return f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


def _networks(measure: bool) -> Iterator[tuple[str, str]]:
    """How the networks of the package run, those of one class together, on each kind of device."""
    import torch

    from invsr.models import engines
    from invsr.models.architectures import build
    from invsr.models.registry import DEVIATION, models, weights_of
    from invsr.models.weights import read_description

    groups: dict[str, list[str]] = {}
    networks: dict[str, Any] = {}
    for model, entry in models().items():
        if entry["kind"] == DEVIATION:  # one pass, in PyTorch
            continue
        about = read_description(weights_of(model)[0])
        groups.setdefault(about["architecture"], []).append(model)
        networks.setdefault(about["architecture"], build(about["architecture"], about["config"]).eval())
    kinds = ["cpu", *["cuda"] * torch.cuda.is_available()]
    for kind in kinds:
        for architecture, names in groups.items():
            if networks[architecture].is_gradient_step:
                words = f"{engines.Way()}: a descent is told by the last digits"
            else:
                words = _words(engines.choose(networks[architecture], torch.device(kind), anew=measure))
            yield kind, f"{', '.join(names)} ({architecture}): {words}"


def _words(choice: Any) -> str:
    if not choice.milliseconds:
        return f"{choice.way}, {choice.why}"
    times = ", ".join(f"{name} {value:.0f} ms" for name, value in choice.milliseconds.items())
    return f"{choice.way}, {choice.why} {choice.measured}: {times}"
