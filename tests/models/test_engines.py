"""How an engine and a number format are chosen."""

import json
import math
import threading

import pytest
import torch
from engine_networks import BFLOAT16, OPENVINO, TORCH, made

from invsr.errors import InvsrError
from invsr.models import compiled, engines, timings

pytestmark = pytest.mark.usefixtures("fresh")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({TORCH: 10.0}, TORCH),
        ({TORCH: 10.0, OPENVINO: 5.0}, OPENVINO),
        ({TORCH: 10.0, OPENVINO: 9.5}, TORCH),  # not worth it
        ({TORCH: 10.0, BFLOAT16: 4.0}, BFLOAT16),
        ({TORCH: 10.0, BFLOAT16: 20.0}, TORCH),
        ({TORCH: 10.0, BFLOAT16: 4.0, OPENVINO: 5.0}, BFLOAT16),
        ({TORCH: 10.0, BFLOAT16: 6.0, OPENVINO: 5.0}, OPENVINO),
    ],
)
def test_the_fastest_is_chosen(machine, times, expected):
    calls = machine(times)
    found = engines.choose(made("UNet"), CPU)
    assert str(found.way) == expected
    assert len(calls) == (len(times) > 1)
    assert found.milliseconds == (times if calls else {})
    in_float32 = engines.choose(made("UNet"), CPU, bfloat16=False).way
    assert str(in_float32) == (OPENVINO if times.get(OPENVINO, 9.9) < 9 else TORCH)


def test_a_measurement_holds_for_a_class_of_networks_and_is_kept(machine, monkeypatch):
    calls = machine({TORCH: 10.0, OPENVINO: 5.0})
    engines.choose(made("UNet"), CPU)
    engines.choose(made("UNet, elu"), CPU)
    assert len(calls) == 1
    engines.choose(made("DnCNN"), CPU)
    assert len(calls) == 2
    monkeypatch.setattr(engines, "_measured", {})  # as in another process
    assert str(engines.choose(made("UNet"), CPU).way) == OPENVINO and len(calls) == 2
    engines.choose(made("UNet"), CPU, anew=True)
    assert len(calls) == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    engines.choose(made("UNet"), CPU)
    assert len(calls) == 4
    monkeypatch.setattr(compiled, "version", lambda: "2027.0")
    engines.choose(made("UNet"), CPU)
    assert len(calls) == 5


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "[" * 10_000, "{}", '{"KEY": 1}', '{"KEY": {"milliseconds": {"torch float32": "fast"}}}', "\xff"]
    + [f'{{"KEY": {{"measured": "today", "milliseconds": {times}}}}}' for times in ("{}", '{"a": -1}', '{"a": NaN}')],
)
def test_a_damaged_file_is_measured_anew(machine, monkeypatch, content):
    calls = machine({TORCH: 10.0, OPENVINO: 5.0})
    monkeypatch.setattr(engines, "_key", lambda network: "KEY")
    timings.path().parent.mkdir(parents=True)
    timings.path().write_text(content, encoding="latin-1")
    assert str(engines.choose(made("UNet"), CPU).way) == OPENVINO
    assert len(calls) == 1
    assert json.loads(timings.path().read_text())["KEY"]["milliseconds"] == {TORCH: 10.0, OPENVINO: 5.0}


@pytest.mark.parametrize("obstacle", ["a file", "no home"])
def test_a_folder_that_cannot_be_written_is_measured_each_time(machine, monkeypatch, fresh, obstacle):
    calls = machine({TORCH: 10.0, OPENVINO: 5.0})
    (fresh / "cache").write_text("in the folder's place")
    if obstacle == "no home":
        for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.delenv(name)
        monkeypatch.setattr(timings.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    for n in (1, 2):
        monkeypatch.setattr(engines, "_measured", {})
        assert str(engines.choose(made("UNet"), CPU).way) == OPENVINO
        assert len(calls) == n


def test_processes_that_keep_measurements_at_the_same_time_leave_a_whole_file():
    def work(n):
        for k in range(5):
            timings.keep(f"{n} {k}", timings.now({TORCH: 1.0 + n}))

    threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert any(timings.kept(f"{n} 4") for n in range(4))
    assert [one.name for one in timings.path().parent.iterdir()] == [timings.FILE]


def test_the_variable_decides(machine, monkeypatch):
    calls = machine({TORCH: 10.0, OPENVINO: 5.0})
    for name, expected in {"torch": TORCH, "openvino": OPENVINO, " Torch ": TORCH}.items():
        monkeypatch.setenv(engines.VARIABLE, name)
        found = engines.choose(made("UNet"), CPU)
        assert (str(found.way), found.why) == (expected, "by INVSR_ENGINE")
    assert not calls
    monkeypatch.setenv(engines.VARIABLE, "tensorflow")
    with pytest.raises(InvsrError, match="INVSR_ENGINE is 'tensorflow': use torch or openvino"):
        engines.choose(made("UNet"), CPU)
    machine({TORCH: 10.0})
    monkeypatch.setenv(engines.VARIABLE, "openvino")
    with pytest.raises(InvsrError, match="not installed: pip install"):
        engines.choose(made("UNet"), CPU)


def test_torch_by_the_variable_still_chooses_its_number_format(machine, monkeypatch):
    machine({TORCH: 10.0, BFLOAT16: 4.0, OPENVINO: 2.0})
    monkeypatch.setenv(engines.VARIABLE, "torch")
    assert str(engines.choose(made("UNet"), CPU).way) == BFLOAT16


@pytest.mark.parametrize(
    ("sets", "level", "limit", "expected"),
    [
        ([], "AVX2", "", False),
        (["AVX2", "AVX-512"], "AVX512", "", False),
        (["AVX2", "AVX-512", "AVX-512 BF16"], "AVX512", "", True),
        (["AVX2", "AVX-512", "AMX"], "AVX512", "", True),
        (["AVX2", "AVX-512", "AMX"], "AVX2", "", False),
        (["AVX2", "AVX-512", "AMX"], "AVX512", "AVX2", False),
        (["AVX2", "AVX-512", "AMX"], "AVX512", "avx512_core_bf16", True),
    ],
)
def test_bfloat16_needs_instructions_for_it(monkeypatch, sets, level, limit, expected):
    monkeypatch.setattr(engines, "instruction_sets", lambda: sets)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert engines.multiplies_bfloat16(CPU) == expected
    assert [str(way) for way in engines._ways("torch")] == [TORCH, *[BFLOAT16] * expected]


@pytest.mark.parametrize("supported", [True, False])
def test_on_a_gpu_the_hardware_decides(monkeypatch, supported):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(1) or supported)
    monkeypatch.setenv(engines.VARIABLE, "openvino")
    assert str(engines.choose(made("UNet"), CUDA).way) == (BFLOAT16 if supported else TORCH)
    assert str(engines.choose(made("UNet"), CUDA, bfloat16=False).way) == TORCH
    assert asked


def test_the_measurement_runs_every_way(openvino, monkeypatch):
    monkeypatch.setattr(engines, "MEASURED_SIDE", {2: 8, 3: 8})
    for name in ("UNet", "UNet of slabs"):
        found = engines._measure(made(name), [engines.Way(), engines.Way("openvino"), engines.Way("torch", "bfloat16")])
        assert set(found) == {TORCH, OPENVINO, BFLOAT16}
        assert all(0 < value < math.inf for value in found.values())
    monkeypatch.setattr(compiled, "run", lambda network, x: None)
    assert set(engines._measure(made("UNet"), [engines.Way(), engines.Way("openvino")])) == {TORCH}
    network, state = made("UNet"), torch.get_rng_state()
    engines._measure(network, [engines.Way()])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_processor_has_a_name():
    assert engines.processor().strip()
    assert set(engines.instruction_sets()) <= set(engines.INSTRUCTION_SETS)
