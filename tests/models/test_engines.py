"""How an engine and a number format are chosen, and that all of them find the same."""

import copy
import gc
import json
import math
import pickle
import subprocess
import sys
import threading
import warnings
import weakref

import pytest
import torch
from torch.autograd import forward_ad

from invsr.errors import InvsrError, InvsrWarning
from invsr.models import compiled, engines, timings
from invsr.models.gradient_step import GradientStep
from invsr.models.networks import DnCNN, Network, UNet
from invsr.models.shuffled import ShuffledUNet
from invsr.priors.denoiser import Denoiser
from invsr.priors.loading import pretrained

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TORCH, BFLOAT16, OPENVINO = "torch float32", "torch bfloat16", "openvino float32"
NETWORKS = {
    "UNet": lambda: UNet(3, (4, 8), 1),
    "UNet, leaky": lambda: UNet(3, (4, 6, 8), (1, 0, 1, 1, 0), activation="leaky"),
    "UNet, elu": lambda: UNet(3, (4, 8), 1, activation="elu"),
    "UNet of slabs": lambda: UNet(2, (4, 8), 1, neighbours=1),
    "ShuffledUNet": lambda: ShuffledUNet(3, (4, 8), 1, detail=2),
    "ShuffledUNet of slices": lambda: ShuffledUNet(2, (4, 8), 1, detail=2),
    "DnCNN": lambda: DnCNN(3, 4, 4),
}


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """Nothing is known of this machine, and nothing is asked for."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    for name in (engines.VARIABLE, "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(engines, "_measured", {})
    monkeypatch.setattr(compiled, "_broken", [])
    return tmp_path


@pytest.fixture
def openvino(monkeypatch):
    """OpenVINO runs whatever it can, however small."""
    pytest.importorskip("openvino", reason="OpenVINO is an optional extra: pip install 'invsr[fast]'")
    monkeypatch.setenv(engines.VARIABLE, "openvino")
    monkeypatch.setattr(engines, "LEAST_VOXELS", 1)


@pytest.fixture
def machine(monkeypatch):
    """A machine of these times (ms), by way: a list that says how often they were measured."""

    def make(times):
        calls = []

        def measure(network, ways):
            calls.append([str(way) for way in ways])
            return {str(way): times[str(way)] for way in ways}

        monkeypatch.setattr(engines, "_measure", measure)
        monkeypatch.setattr(engines, "multiplies_bfloat16", lambda device: BFLOAT16 in times)
        monkeypatch.setattr(compiled, "version", lambda: "2026.1" if OPENVINO in times else None)
        return calls

    return make


def made(name, seed=0):
    """A network with weights that make all layers count."""
    torch.manual_seed(seed)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        for weights in network.parameters():
            weights.copy_(torch.randn(weights.shape) / math.sqrt(weights[0].numel()))
    return network


def image(network, *sides, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 1 + 2 * network.neighbours, *sides, generator=generator)


def both(network, x, sigma=0.1):
    """What the engine of the moment finds, and PyTorch."""
    used = engines.record()
    with torch.no_grad():
        found = network(x, sigma)
        ways = list(*used.values())
        with engines.only_torch():
            return found, network(x, sigma), ways


def error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


# The choice -----------------------------------------------------------------------------------------


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


# OpenVINO -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_openvino_finds_the_same(openvino, name):
    network = made(name)
    for n, (batch, factors) in enumerate([(1, (2, 3, 4)), (1, (4, 3, 2)), (2, (3, 3, 2))]):
        x = image(network, *(4 * network.multiple * one for one in factors[: network.dim]), batch=batch, seed=n)
        found, expected, ways = both(network, x)
        assert ways == [OPENVINO]
        assert error(x[:, : found.shape[1]] - found, x[:, : found.shape[1]] - expected) < 1e-5
        assert torch.equal(both(network, x)[0], found)


@pytest.mark.parametrize("sides", [(17, 22, 19), (24, 16, 20)])
def test_openvino_runs_trained_denoisers_of_volumes_of_any_size(openvino, sides):
    prior = pretrained("mri-denoiser-fast", symmetries=False, bfloat16=False)
    v = image(prior.network, *sides)
    used = engines.record()
    with torch.no_grad():
        found = prior.prox(v, 0.05)
        assert used == {"UNet": [OPENVINO]}
        with engines.only_torch():
            expected = prior.prox(v, 0.05)
    assert error(found, expected) < 1e-5
    assert error(v - expected, v) > 1e-3


def test_a_noise_map_goes_through_openvino_too(openvino):
    network = made("UNet")
    x = image(network, 8, 12, 8)
    found, expected, ways = both(network, x, 0.1 * image(network, 8, 12, 8, seed=1))
    assert ways == [OPENVINO] and error(found, expected) < 1e-5


def test_weights_that_change_are_compiled_anew(openvino):
    network = made("UNet")
    x = image(network, 8, 8, 8)
    first = both(network, x)[0]
    changes = [
        lambda: network.load_state_dict(made("UNet", 1).state_dict()),
        lambda: network.tail.weight.data.mul_(2),
        lambda: setattr(network.head.weight, "data", network.head.weight.data.flip(-1).clone()),
    ]
    for change in changes:
        change()
        found, expected, ways = both(network, x)
        assert ways == [OPENVINO]
        assert error(found, expected) < 1e-5 < error(found, first)
        first = found


def test_what_is_compiled_stays_with_its_network(openvino):
    network = made("UNet")
    x = image(network, 8, 8, 8)
    expected = both(network, x)[0]
    copies = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    prior = pickle.loads(pickle.dumps(Denoiser(network, symmetries=False)))
    assert torch.equal(both(prior.network, x)[0], expected)
    with torch.no_grad():
        copies[0].tail.weight.mul_(2)
    assert error(both(copies[0], x)[0], expected) > 1e-3
    assert all(torch.equal(both(one, x)[0], expected) for one in (copies[1], network))
    gone = weakref.ref(copies.pop())
    gc.collect()
    assert gone() is None


def test_few_shapes_are_kept(openvino):
    network = made("UNet")
    for n in range(compiled.MOST_SHAPES + 3):
        both(network, image(network, 4, 4, 4 + 2 * n))
    assert len(compiled._bodies[network]._compiled) == compiled.MOST_SHAPES


def test_openvino_leaves_alone_what_it_cannot_do(openvino, monkeypatch):
    network = made("UNet")
    x = image(network, 8, 8, 8)
    used = engines.record()
    network(x, 0.1)  # its gradient may be asked for
    with torch.no_grad():
        network.train()(x, 0.1)
        network.eval()
        with torch.autocast("cpu", torch.bfloat16):
            network(x, 0.1)
        with forward_ad.dual_level():
            _, tangent = forward_ad.unpack_dual(network(forward_ad.make_dual(x, torch.ones_like(x)), 0.1))
        assert tangent is not None
        made("UNet").double()(x.double(), 0.1)
        GradientStep(network).cost(x, 0.1)
        monkeypatch.setattr(engines, "LEAST_VOXELS", 8**3 + 1)
        network(x, 0.1)
    assert used == {"UNet": [TORCH, BFLOAT16, "torch float64"]}


def test_threads_share_what_is_compiled(openvino):
    network = made("UNet")
    images = [image(network, 8, 8, 8, seed=n) for n in range(4)]
    expected = [both(network, x)[1] for x in images]
    found = [None] * 4

    def work(n):
        with torch.no_grad():
            found[n] = [network(images[n], 0.1) for _ in range(5)]

    threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all(error(one, expected[n]) < 1e-5 for n in range(4) for one in found[n])


SIGNALLED = """
import gc, signal, torch
from invsr.models import compiled
from invsr.models.networks import UNet

networks = [UNet(3, (4, 8), 1).eval() for _ in range(3)]
for network in networks:
    assert compiled.run(network, torch.rand(1, 2, 8, 8, 8)) is not None
del network
while networks:
    networks.pop(0)
    gc.collect()
handled = []
signal.signal(signal.SIGINT, lambda *_: handled.append(1))
signal.raise_signal(signal.SIGINT)
print(handled)
"""


def test_signals_are_handled_after_networks_have_gone(openvino):
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[1]\n"), done.stderr


# Where OpenVINO fails -------------------------------------------------------------------------------


class Strange(Network):
    """A network that does other things with other sizes, which a trace does not see."""

    def __init__(self):
        super().__init__(3)
        self.config = {}
        self.layer = torch.nn.Conv3d(2, 1, 3, padding=1, bias=False)

    def body(self, x):
        return self.layer(x) if len(x) == 1 else x[:, :1]


def test_what_differs_from_pytorch_is_not_used(openvino):
    network = Strange().eval()
    x = image(network, 8, 8, 8)
    with pytest.warns(InvsrWarning, match=r"OpenVINO cannot run Strange \(its result differs by .*PyTorch does"):
        found, expected, ways = both(network, x)
    assert torch.equal(found, expected) and ways == [TORCH]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert both(made("UNet"), x)[2] == [TORCH]  # once is enough


def test_a_failure_that_does_not_come_back_costs_nothing(openvino, monkeypatch):
    converted, failures = compiled._converted, [RuntimeError("must be called on a Model with exactly one parameter")]

    def once(network):
        if failures:
            raise failures.pop()
        return converted(network)

    monkeypatch.setattr(compiled, "_converted", once)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InvsrWarning)
        found, expected, ways = both(made("UNet"), image(made("UNet"), 8, 8, 8))
    assert failures == [] and ways == [OPENVINO]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_package_that_does_not_load_is_named_once(openvino, monkeypatch):
    def broken(name):
        raise ImportError("libopenvino.so: no such file")

    monkeypatch.setattr(compiled, "import_module", broken)
    with pytest.warns(InvsrWarning, match="OpenVINO cannot run UNet .libopenvino.so: no such file.") as said:
        ways = [both(made("UNet"), image(made("UNet"), 8, 8, 8))[2] for _ in range(2)]
    assert ways == [[TORCH]] * 2 and len(said) == 1


def test_without_openvino_nothing_is_said(monkeypatch, machine):
    machine({TORCH: 10.0})
    monkeypatch.setattr(engines, "LEAST_VOXELS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert both(made("UNet"), image(made("UNet"), 8, 8, 8))[2] == [TORCH]
