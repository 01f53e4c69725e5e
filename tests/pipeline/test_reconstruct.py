"""The whole job in Python: geometry, likelihoods, weights, several scans, and what a Solution says of itself."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

import invsr
from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.pipeline import memory
from invsr.pipeline.choice import method_of
from invsr.pipeline.methods import METHODS, options_of
from invsr.solvers import Status
from invsr.testing.phantoms import centred_grid, shapes


@pytest.fixture(scope="module")
def truth():
    grid = centred_grid((40, 36, 32), 1.0)
    return invsr.Volume(shapes(grid, n_samples=16, size=40.0), grid)


@pytest.fixture(scope="module")
def scan(truth):
    return invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=0.01)


@pytest.fixture(scope="module")
def small_truth():
    """For networks, whose time grows with the number of voxels."""
    grid = centred_grid((28, 24, 24), 1.0)
    return invsr.Volume(shapes(grid, n_samples=16, size=30.0), grid)


@pytest.fixture(scope="module")
def small_scan(small_truth):
    return invsr.simulate(small_truth, slice_thickness=4.0, axis=2, noise=0.01)


def error(solution, truth):
    return float((solution.x - truth.data).square().mean().sqrt())


def reordered(volume, axes, flips):
    """The same volume in world space, its array axes permuted and reversed."""
    data = volume.data[0, 0].permute(*axes)
    affine = volume.grid.affine.copy()
    affine[:3, :3] = affine[:3, list(axes)]
    for n in flips:
        data = data.flip(n)
        affine[:3, 3] += affine[:3, n] * (data.shape[n] - 1)
        affine[:3, n] *= -1
    return invsr.Volume(data[None, None].contiguous(), Grid(data.shape, affine))


@pytest.mark.parametrize("gap, axis", [(0.0, 2), (0.7, 1), (2.0, 0)])
def test_simulation_is_a_gaussian_mean_of_slices_from_the_first_face(truth, gap, axis):
    # Written again from the definition: centres every step from the outer face, weights summing to 1 inside.
    step, thickness = 3.3 + gap, 3.3
    low = invsr.simulate(truth, slice_thickness=thickness, gap=gap, axis=axis)
    size = truth.grid.shape[axis]
    centres = (np.arange(int(size / step)) + 0.5) * step - 0.5
    weights = np.exp(-0.5 * ((np.arange(size) - centres[:, None]) / (thickness / 2.3548200450309493)) ** 2)
    weights /= weights.sum(1, keepdims=True)
    expected = np.moveaxis(np.tensordot(weights, truth.numpy(), (1, axis)), 0, axis)
    assert low.grid.shape == expected.shape
    index = [0.0, 0.0, 0.0]
    index[axis] = centres[0]
    np.testing.assert_allclose(low.grid.origin, truth.grid.to_world(index), atol=1e-9)
    # Up to the outer faces the sum over voxels and the integral over the profile differ: 0.5 % of the range.
    np.testing.assert_allclose(low.numpy(), expected, atol=5e-3)
    inner = [slice(None)] * 3
    inner[axis] = slice(2, -2)
    np.testing.assert_allclose(low.numpy()[tuple(inner)], expected[tuple(inner)], atol=2e-3)


@pytest.mark.parametrize("method", ["cubic", "tikhonov", "tv"])
def test_better_or_equal_to_cubic_and_faithful(truth, scan, method):
    solution = invsr.reconstruct(scan, method=method, reference=truth.grid)
    cubic = invsr.reconstruct(scan, method="cubic", reference=truth.grid)
    assert solution.status is Status.CONVERGED
    assert solution.grid == truth.grid and solution.volume.grid == truth.grid
    assert error(solution, truth) <= error(cubic, truth) + 1e-7
    if method != "cubic":
        assert 0.7 < solution.chi2 < 1.3
        assert abs(solution.gain - 1) < 0.01
        assert solution.remarks() == []
        assert 0.85 * 0.011 < solution.sigma < 1.15 * 0.011  # 1 % of the phantom's 1.1


@pytest.mark.parametrize("axes, flips", [((1, 2, 0), (0,)), ((2, 0, 1), (1, 2)), ((0, 1, 2), (0, 1, 2))])
@pytest.mark.parametrize("method", ["cubic", "tv"])
def test_axis_order_and_direction_do_not_matter(truth, scan, axes, flips, method):
    plain = invsr.reconstruct(scan, method=method, reference=truth.grid, noise=0.011)
    other = invsr.reconstruct(reordered(scan, axes, flips), method=method, reference=truth.grid, noise=0.011)
    # Forward differences are not symmetric under reversal: TV moves by less than its own error. Cubic does not.
    assert float((plain.x - other.x).abs().mean()) < (2e-3 if method == "tv" else 1e-6)
    same = invsr.reconstruct(reordered(scan, axes, ()), method=method, reference=truth.grid, noise=0.011)
    assert float((plain.x - same.x).abs().max()) < 1e-3


def test_ramp_stays_in_place_on_an_oblique_reference(scan):
    angle = math.radians(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    small = centred_grid((26, 24, 22), 1.0)
    target = Grid(small.shape, turn @ small.affine)
    direction = torch.tensor([0.4, -0.3, 0.5], dtype=torch.float64)

    def ramp(grid):
        return torch.from_numpy(grid.points()).matmul(direction)[None, None].float()

    sloped = invsr.Volume(ramp(scan.grid) + 40, scan.grid)
    # The reference covers part of the scan only: slices and pixels outside it do not count.
    for method, tolerance in (("cubic", 2e-2), ("tikhonov", 0.25), ("tv", 0.25)):
        weight = {} if method == "cubic" else {"lam": 1e-4}
        found = invsr.reconstruct(sloped, method=method, reference=target, noise=0.05, **weight)
        inner = (slice(None), slice(None), *(slice(7, -7),) * 3)
        assert float((found.x - ramp(target) - 40)[inner].abs().max()) < tolerance


def test_pixels_larger_than_the_target(truth):
    low = invsr.simulate(truth, slice_thickness=3.0, axis=2, in_plane_factor=2.0, noise=0.01)
    assert low.grid.shape == (20, 18, 10)
    cubic = error(invsr.reconstruct(low, method="cubic", reference=truth.grid), truth)
    for in_plane in ("kspace", "gaussian"):
        solution = invsr.reconstruct(low, reference=truth.grid, in_plane=in_plane)
        assert solution.status is Status.CONVERGED and 0.7 < solution.chi2 < 1.3
        if in_plane == "kspace":  # the model the data came from
            assert error(solution, truth) < 0.97 * cubic


def test_several_scans_of_unequal_noise(truth):
    scans = [
        invsr.simulate(truth, slice_thickness=4.0, axis=axis, noise=noise, seed=axis)
        for axis, noise in ((0, 0.01), (1, 0.05), (2, 0.02))
    ]
    one = invsr.reconstruct(scans[:1], method="tv", reference=truth.grid)
    three = invsr.reconstruct(scans, method="tv", reference=truth.grid)
    assert 0.7 < three.chi2 < 1.3
    assert error(three, truth) < 0.75 * error(one, truth)


def test_rician_likelihood_removes_the_floor(truth):
    dim = truth.with_data(0.15 * truth.data)
    scan = invsr.simulate(dim, slice_thickness=4.0, axis=2, noise=0.3, noise_model="rician")
    sigma = 0.3 * float(np.percentile(dim.numpy()[dim.numpy() > 0], 99.9))
    found = {
        model: invsr.reconstruct(scan, reference=truth.grid, noise=sigma, noise_model=model)
        for model in ("gaussian", "rician")
    }
    assert error(found["rician"], dim) < 0.7 * error(found["gaussian"], dim)


@pytest.mark.parametrize("model", ["huber", "l1"])
def test_robust_likelihoods_forgive_outliers(truth, scan, model):
    hit = torch.rand(scan.data.shape, generator=torch.Generator().manual_seed(0)) < 0.01
    spoiled = scan.with_data(torch.where(hit, torch.tensor(1.5), scan.data))
    fixed = {"reference": truth.grid, "noise": 0.011, "lam": 0.002, "max_iter": 80}
    plain = invsr.reconstruct(spoiled, **fixed)
    robust = invsr.reconstruct(spoiled, noise_model=model, **fixed)
    assert error(robust, truth) < 0.8 * error(plain, truth)


def test_masked_data_do_not_count(truth, scan):
    mask = torch.ones_like(scan.data)
    mask[..., 20:, :, :] = 0
    spoiled = scan.data.clone()
    spoiled[..., 20:, :, :] = 1.5
    fixed = {"reference": truth.grid, "noise": 0.011, "lam": 0.002}
    clean = invsr.reconstruct(scan, masks=scan.with_data(mask), **fixed)
    found = invsr.reconstruct(scan.with_data(spoiled), masks=scan.with_data(mask), **fixed)
    assert found.chi2 < 2
    near = (slice(None), slice(None), slice(0, 14))
    # The first guess outside differs, and little of it is left in the part that was measured.
    counted = invsr.reconstruct(scan.with_data(spoiled), **fixed)
    assert float((clean.x - found.x)[near].abs().mean()) < 0.01
    assert error(found, truth) > 0.1 and float((clean.x - counted.x)[..., 20:, :, :].abs().mean()) > 0.3


def test_isotropic_scan_is_denoised(truth):
    noisy = truth.with_data(
        truth.data + 0.03 * torch.randn(truth.data.shape, generator=torch.Generator().manual_seed(0))
    )
    found = invsr.reconstruct(noisy)
    assert found.grid == truth.grid
    assert error(found, truth) < 0.6 * 0.03


def test_remarks_say_what_is_doubtful(truth, scan):
    assert "chi2 is" in " ".join(invsr.reconstruct(scan, reference=truth.grid, lam=0.3).remarks())
    stopped = invsr.reconstruct(scan, method="tv", reference=truth.grid, max_iter=2)
    assert stopped.status is Status.MAX_ITER and "before it converged" in stopped.remarks()[0]


@pytest.mark.parametrize("method, tolerance", [("tv", 1e-4), ("unrolled", 5e-3)])  # a network rounds to bfloat16
def test_constant_extremes(small_truth, small_scan, method, tolerance):
    truth, scan = small_truth, small_scan
    plain = invsr.reconstruct(scan, method=method, reference=truth.grid)
    for factor in (1e-6, 1e6):  # intensity units do not matter
        scaled = invsr.reconstruct(scan.with_data(scan.data * factor), method=method, reference=truth.grid)
        torch.testing.assert_close(scaled.x / factor, plain.x, atol=tolerance, rtol=1e-3)
    negative = invsr.reconstruct(scan.with_data(scan.data - 0.5), method=method, reference=truth.grid)
    assert float(negative.x.min()) < -0.3
    assert bool(negative.x.isfinite().all())


def test_noise_free_data_are_no_special_case(truth):
    found = invsr.reconstruct(invsr.simulate(truth, slice_thickness=4.0, axis=2), reference=truth.grid)
    assert bool(found.x.isfinite().all()) and abs(found.gain - 1) < 0.01


def test_the_default_is_what_fits_the_scan(monkeypatch, truth, scan):
    def solve(self, problem, progress=None):
        return invsr.solvers.Solution(problem.operator.adjoint(problem.y), problem.domain)

    for kind in METHODS.values():  # which one is chosen is the question, not what it finds
        monkeypatch.setattr(kind, "solve", solve)

    def chosen(*scans, **options):
        return invsr.reconstruct(list(scans), reference=truth.grid, **options).method.name

    assert chosen(scan) == "unrolled"
    assert chosen(scan, lam=0.01) == chosen(scan, noise_model="huber") == "tv"
    assert chosen(scan, slice_thickness=1.0) == "unrolled"  # gaps
    thin = invsr.Scan(invsr.simulate(truth, slice_thickness=1.5, noise=0.01, axis=2), slice_thickness=1.5)
    assert chosen(thin) == "pnp"  # hardly thick
    thick = invsr.simulate(truth, slice_thickness=14.0, noise=0.01, axis=2)
    assert chosen(thick) == chosen(scan, noise=0.2) == "tv"
    assert chosen(scan, method="cubic") == "cubic"
    assert chosen(scan, scan) == "unrolled"
    assert chosen(thick, thick) == "pnp"  # beyond the training
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    oblique = invsr.Volume(scan.data, Grid(scan.grid.shape, turn @ scan.grid.affine), "oblique")
    assert chosen(scan, oblique) == "unrolled"
    assert chosen(thick, oblique) == chosen(scan, scan, lam=0.01) == "tv"


def test_memory_is_checked_before_starting(monkeypatch, scan):
    monkeypatch.setattr("invsr.numerics.memory.free_memory", lambda device: 2**20)
    with pytest.raises(InvsrError, match=r"needs about .* GiB of memory and 0.0 GiB are free: use a spacing of"):
        invsr.reconstruct(scan)


def test_oblique_and_moving_scans_are_known_to_take_more_memory(monkeypatch, truth, scan):
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    parallel, oblique = scan.grid, Grid(scan.grid.shape, turn @ scan.grid.affine)
    needed = [
        memory.needed_memory(invsr.methods.TV.volumes_in_memory, truth.grid, [grid], moving)
        for grid, moving in ((parallel, False), (oblique, False), (parallel, True))
    ]
    assert needed[0] < min(needed[1:])
    budget = memory.Budget(needed[0])
    memory.require_memory("tv", needed[0], truth.grid, budget)
    for more in needed[1:]:
        with pytest.raises(InvsrError, match="tv on .* GiB of memory"):
            memory.require_memory("tv", more, truth.grid, budget)


def test_one_value_per_scan(scan):
    with pytest.raises(InvsrError, match="3 values of noise for 2 scans"):
        invsr.reconstruct([scan, scan], noise=[1.0, 1.0, 1.0])
    with pytest.raises(InvsrError, match="1 masks for 2 scans"):
        invsr.reconstruct([scan, scan], masks=[scan])
    with pytest.raises(InvsrError, match="no scan"):
        invsr.reconstruct([])


# Plug-and-play -------------------------------------------------------------------------------------

SOLVERS = ("hqs", "admm", "pgd", "red")


def test_solvers_agree_and_score_above_tv(small_scan, small_truth):
    truth, options = small_truth, {"denoiser": "mri-denoiser-fast", "reference": small_truth.grid}
    tv = error(invsr.reconstruct(small_scan, method="tv", reference=truth.grid), truth)
    found = {name: invsr.reconstruct(small_scan, method="pnp", solver=name, **options) for name in SOLVERS}
    decibels = {name: 20 * math.log10(tv / error(one, truth)) for name, one in found.items()}
    assert max(decibels.values()) - min(decibels.values()) < 0.5, decibels
    assert decibels["hqs"] > 0, decibels
    for one in found.values():
        assert one.status is Status.CONVERGED and 0.7 < one.chi2 < 1.3 and abs(one.gain - 1) < 0.02


def test_a_seed_repeats_a_run(small_scan):
    one, same, other = (
        invsr.reconstruct(small_scan, method="pnp", denoiser="mri-denoiser-fast", seed=seed, max_iter=3).x
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_gradient_step_denoisers_descend(small_scan):
    solution = invsr.reconstruct(small_scan, method="pnp", denoiser="mri-denoiser-gs", max_iter=16)
    costs = [entry["objective"] for entry in solution.history]
    # Before, the objective changes with the noise level.
    settled = costs[invsr.solvers.HQS().n_levels :]
    assert len(settled) > 3 and all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(settled))


def test_adaptation_is_of_the_first_scans_slices(scan, truth, monkeypatch):
    asked = {}

    def adapt(prior, volume, **options):
        asked.update(options, shape=tuple(volume.shape), peak=float(volume.max()))
        return prior

    monkeypatch.setattr("invsr.training.adapt.adapt", adapt)
    turned = reordered(scan, (2, 0, 1), (0,))
    options = {"method": "pnp", "denoiser": "mri-denoiser-fast", "max_iter": 1, "adapt": True}
    invsr.reconstruct(turned, slice_thickness=3.0, reference=truth.grid, **options)
    assert asked["axis"] == 2 and asked["shape"] == (1, 1, 40, 36, 32) and 0.9 < asked["peak"] < 2
    assert asked["thickness"] == pytest.approx(3.0) and asked["gap"] == pytest.approx(1.0)
    with pytest.raises(InvsrError, match="method pnp"):
        invsr.reconstruct(scan, method="tv", adapt=True)
    with pytest.raises(InvsrError, match="cannot be adapted"):
        invsr.reconstruct(scan, **{**options, "denoiser": invsr.priors.TV()})


# Options belong to methods ----------------------------------------------------------------------------

USED = {
    "cubic": (),
    "tikhonov": ("lam", "max_iter"),
    "tv": ("lam", "huber", "max_iter"),
    "pnp": ("tile", "denoiser", "solver", "lam", "adapt", "max_iter"),
    "unrolled": ("tile", "model"),
    "deq": ("tile", "model"),
    "posterior": ("tile", "denoiser", "n_samples", "adapt"),
}
VALUES = {
    "lam": 0.01,
    "huber": 0.1,
    "solver": "hqs",
    "denoiser": "mri-denoiser-fast",
    "adapt": True,
    "model": "mri-unrolled",
    "max_iter": 3,
    "n_samples": 2,
    "tile": 50_000,
}


@pytest.mark.parametrize("option", VALUES)
@pytest.mark.parametrize("method", USED)
def test_an_option_that_the_method_does_not_use_is_an_error(method, option):
    if option in USED[method]:
        assert getattr(method_of(method, {option: VALUES[option]}), option) == VALUES[option]
    else:
        with pytest.raises(InvsrError, match=f"method {method} does not use the option {option} "):
            method_of(method, {option: VALUES[option]})


def test_every_method_and_option_is_in_these_tables():
    assert {name: options_of(kind) for name, kind in METHODS.items()} == {
        name: [*used, *(["seed"] if name in ("pnp", "posterior") else [])] for name, used in USED.items()
    }


@pytest.mark.parametrize(
    ("options", "method"),
    [
        (("lam",), "tv"),
        (("max_iter",), "tv"),
        (("huber",), "tv"),
        (("solver",), "pnp"),
        (("denoiser",), "pnp"),
        (("adapt",), "pnp"),
        (("n_samples",), "posterior"),
        (("model",), "unrolled"),
        (("lam", "solver"), "pnp"),
        (("denoiser", "n_samples"), "posterior"),
    ],
)
def test_an_option_without_a_method_implies_one(options, method):
    assert method_of("auto", {name: VALUES[name] for name in options}).name == method
    assert method_of("auto", {"model": "mri-deq"}).name == "deq"


def test_options_that_no_method_shares_are_an_error():
    with pytest.raises(InvsrError, match="no method uses all of the options huber, solver"):
        method_of("auto", {"huber": 0.1, "solver": "hqs"})


def test_a_method_object_owns_its_options(scan, truth):
    found = invsr.reconstruct(scan, method=invsr.methods.TV(lam=0.01, max_iter=4), reference=truth.grid)
    assert found.method.lam == found.lam == 0.01 and len(found.history) == 4
    with pytest.raises(InvsrError, match="lam given beside a TV object"):
        invsr.reconstruct(scan, method=invsr.methods.TV(), lam=0.01)


def test_auto_takes_the_next_method_where_memory_is_short(monkeypatch, scan, truth):
    needed = memory.needed_memory(invsr.methods.TV.volumes_in_memory, truth.grid, [scan.grid])
    monkeypatch.setattr("invsr.numerics.memory.free_memory", lambda device: needed)
    with pytest.warns(InvsrWarning, match="method unrolled needs about .* tv is used instead"):
        found = invsr.reconstruct(scan, reference=truth.grid)
    assert found.method.name == "tv"
    monkeypatch.setattr("invsr.numerics.memory.free_memory", lambda device: needed - 1)
    with pytest.warns(InvsrWarning, match="method unrolled needs about .* cubic is used instead"):
        assert invsr.reconstruct(scan, reference=truth.grid).method.name == "cubic"
    monkeypatch.setattr("invsr.numerics.memory.free_memory", lambda device: needed)
    # Much noise is not what the network was trained for: TV is chosen, and its memory is what counts.
    assert invsr.reconstruct(scan, reference=truth.grid, noise=0.2).method.name == "tv"


# Into the package and out of it -----------------------------------------------------------------------


def test_arrays_are_a_way_in(truth, scan):
    with pytest.raises(InvsrError, match=r"a ndarray is not a scan: make one with invsr.Volume.from_array"):
        invsr.reconstruct(scan.numpy())
    counts = (1000 * scan.numpy().clip(0)).astype(np.uint16)
    volume = invsr.Volume.from_array(counts, affine=scan.grid.affine, name="counts", slice_thickness=4.0)
    found = invsr.reconstruct(volume, method="tv", reference=truth.grid)
    plain = invsr.reconstruct(scan, method="tv", reference=truth.grid)
    assert float((found.x / 1000 - plain.x).abs().mean()) < 0.01


def test_the_result_keeps_its_name_and_space(tmp_path, scan):
    talairach = dataclasses.replace(scan, name="head.nii.gz", form_code=4)
    found = invsr.reconstruct(talairach, method="cubic")
    assert found.volume.name == "head.nii.gz" and found.volume.form_code == 4
    assert found.volume.slice_thickness is None  # slices of the scan no longer exist
    found.save(tmp_path / "out.nii.gz")
    assert invsr.load(tmp_path / "out.nii.gz").form_code == 4


def test_a_scan_knows_its_acquisition(truth, scan):
    plain = invsr.reconstruct(scan, method="tv", reference=truth.grid, slice_thickness=3.0, noise=0.02)
    own = invsr.reconstruct(invsr.Scan(scan, slice_thickness=3.0, noise=0.02), method="tv", reference=truth.grid)
    assert torch.equal(plain.x, own.x)
    with pytest.raises(InvsrError, match="noise given beside a Scan"):
        invsr.reconstruct(invsr.Scan(scan), noise=0.1)


def test_any_operator_is_solved_by_the_same_call(truth):
    mask = torch.rand(truth.grid.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    A = invsr.operators.Diagonal(truth.grid, mask.float())
    noise = 0.01 * torch.randn(truth.data.shape, generator=torch.Generator().manual_seed(1))
    y = 500 * mask * (truth.data + noise)
    found = invsr.solve(A, y, sigma=5.0, method="tv")
    filled = found.x / 500
    assert 0.5 < found.chi2 < 1.3 and found.volume.grid == truth.grid
    assert error_of(filled, truth) < 0.3 * error_of(y / 500, truth)


def error_of(x, truth):
    return float((x - truth.data).square().mean().sqrt())


def test_a_method_of_ones_own(truth, scan):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Adjoint(invsr.methods.Method):
        name = "adjoint"
        gain: float = 1.0

        def solve(self, problem, progress=None):
            return invsr.solvers.Solution(self.gain * problem.operator.adjoint(problem.y), problem.domain)

    found = invsr.reconstruct(scan, method=Adjoint(gain=2.0), reference=truth.grid)
    assert str(found.method) == "adjoint" and found.grid == truth.grid
    # What the solver does not say is worked out: twice the adjoint explains the data badly.
    assert found.chi2 > 10 and found.gain != 1.0 and "chi2" in " ".join(found.remarks())
