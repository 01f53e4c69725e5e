"""Whole reconstructions on CUDA give what they give on the CPU, and what comes out of them can be used."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from compare import assert_same
from moving import known, scan_of

import invsr
from invsr.models.networks import UNet
from invsr.motion.align import align
from invsr.operators import acquisition
from invsr.pipeline.methods import METHODS, PnP
from invsr.priors import Denoiser
from invsr.solvers.trained import equilibrium_of, save_solver, unrolled_of
from invsr.testing.phantoms import centred_grid, shapes
from invsr.training import adapt

GRID = centred_grid((16, 15, 12))
# Of networks in half precision, which the fastest format of a device may be, and of sums in another order.
RTOL = {"pnp": 0.05, "posterior": 0.2, "unrolled": 0.05, "deq": 0.05}


@pytest.fixture(scope="module")
def truth():
    return invsr.Volume(shapes(GRID, n_samples=16, size=16.0), GRID, "phantom")


@pytest.fixture(scope="module")
def scan(truth):
    return invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=0.01)


def network():
    torch.manual_seed(0)
    return UNet(3, (4, 6), blocks=1).requires_grad_(False)


def denoiser():
    return Denoiser(network(), symmetries=False, bfloat16=False)


@pytest.fixture(scope="module")
def method_of(tmp_path_factory):
    """A method, by its name, that takes little time."""
    folder = tmp_path_factory.mktemp("weights")
    trained = {"unrolled": unrolled_of([network()], n_steps=2), "deq": equilibrium_of(network(), max_iter=4)}
    options = {name: {"model": folder / f"{name}.safetensors"} for name in trained}
    for name, solver in trained.items():
        save_solver(solver, options[name]["model"], {})
    options["pnp"] = {"denoiser": denoiser(), "max_iter": 3}
    options["posterior"] = {"denoiser": denoiser(), "n_samples": 2}
    options["tv"] = options["tikhonov"] = {"max_iter": 5}
    return lambda name: METHODS[name](**options.get(name, {}))


def both(cuda, scans, method, **options):
    """The reconstructions on either device."""
    return [invsr.reconstruct(scans, method=method(), device=where, **options) for where in ("cpu", cuda.type)]


def assert_agree(expected, found, cuda, rtol):
    assert_same(found.x, expected.x, cuda, rtol)
    assert found.chi2 == pytest.approx(expected.chi2, rel=10 * rtol)
    assert (found.std is None) == (expected.std is None)
    if found.std is not None:
        assert_same(found.std, expected.std, cuda, 10 * rtol)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore::invsr.errors.InvsrWarning")  # the phantom is small
def test_methods(name, scan, method_of, cuda):
    expected, found = both(cuda, scan, lambda: method_of(name))
    assert_agree(expected, found, cuda, RTOL.get(name, 1e-3))
    assert found.volume.numpy().shape == GRID.shape and found.remarks() == expected.remarks()


@pytest.mark.parametrize("model", ["gaussian", "rician", "huber", "l1"])
def test_noise_models_and_masks(model, truth, scan, cuda):
    inside = scan.with_data((scan.data > 0.1).float())
    magnitudes = scan.with_data(scan.data.abs())
    expected, found = both(cuda, magnitudes, lambda: METHODS["tv"](max_iter=3), masks=inside, noise_model=model)
    assert_agree(expected, found, cuda, 1e-3)


def test_stacks_and_bootstrap(truth, cuda):
    scans = [invsr.simulate(truth, slice_thickness=4.0, axis=axis, noise=0.01) for axis in (0, 2)]
    options = {"uncertainty": "bootstrap", "n_samples": 2}
    expected, found = both(cuda, scans, METHODS["tikhonov"], **options)
    assert_agree(expected, found, cuda, 1e-3)


@pytest.mark.parametrize("each_slice", [False, True])
def test_registration(each_slice, truth, cuda):
    def aligned(where):
        scan = known(scan_of(truth.to("cpu")), truth)
        return align(
            truth.data.to(where), GRID, replace(scan, data=scan.data.to(where)), each_slice=each_slice, n_iter=1
        )

    np.testing.assert_allclose(aligned(cuda).motion, aligned("cpu").motion, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("level", ["stack", "slice"])
@pytest.mark.filterwarnings("ignore::invsr.errors.InvsrWarning")
def test_motion(level, truth, cuda):
    turned = torch.tensor([0.03, -0.02, 0.02, 0.5, -0.4, 0.3], dtype=torch.float64).repeat(3, 1)
    scans = [scan_of(truth), scan_of(truth, axis=2, motion=turned, seed=1)]
    expected, found = both(cuda, scans, METHODS["tikhonov"], motion=level, reference=GRID)
    for a, b in zip(expected.motion.scans, found.motion.scans, strict=True):
        np.testing.assert_allclose(b.motion, a.motion, atol=0.02)  # rad, mm
    assert_agree(expected, found, cuda, 0.05)


def test_adapted_denoiser(scan, cuda, monkeypatch):
    monkeypatch.setattr(adapt, "adapt", functools.partial(adapt.adapt, steps=1))
    expected, found = both(cuda, scan, lambda: PnP(denoiser=denoiser(), max_iter=2, adapt=True))
    assert_agree(expected, found, cuda, 0.05)


def test_what_comes_out_can_be_saved_simulated_and_reported(scan, cuda, tmp_path):
    for needed in ("nibabel", "matplotlib"):
        pytest.importorskip(needed)
    from invsr.report import write_report

    found = invsr.reconstruct(scan, method="tv", device=cuda.type)
    invsr.save(found.volume, tmp_path / "out.nii.gz")
    np.testing.assert_allclose(invsr.load(tmp_path / "out.nii.gz").numpy(), found.volume.numpy(), rtol=1e-5)
    again = invsr.simulate(found.volume, slice_thickness=4.0, axis=2, noise=0.01)
    assert again.data.device.type == cuda.type
    write_report(tmp_path / "report", found)


def test_command(scan, run, cuda, tmp_path):
    invsr.save(scan, tmp_path / "low.nii.gz")
    code, _, err = run(
        "reconstruct", tmp_path / "low.nii.gz", "-o", tmp_path / "a.nii.gz", "--method", "tv", "--device", "cuda"
    )
    assert code == 0, err


def test_any_problem(scan, cuda):
    A = acquisition(scan.grid, reference=GRID)
    expected, found = (invsr.solve(A.to(w), scan.data.to(w), sigma=0.01, max_iter=5) for w in ("cpu", cuda))
    assert_agree(expected, found, cuda, 1e-3)


def test_scipy_takes_operators_of_the_device(scan, cuda):
    A = acquisition(scan.grid, reference=GRID).to(cuda)
    x = np.ones(GRID.size)
    np.testing.assert_allclose(A.to_scipy() @ x, A.cpu().to_scipy() @ x, atol=1e-12)
