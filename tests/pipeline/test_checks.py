"""Results that cannot be are errors, numbers that cannot be are refused before anything is computed."""

import dataclasses

import numpy as np
import pytest
import torch

import invsr
from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.models.networks import UNet
from invsr.solvers.trained import save_solver, unrolled_of
from invsr.testing.phantoms import centred_grid, shapes

GRID = centred_grid((24, 22, 20), 1.0)


@pytest.fixture(scope="module")
def truth():
    return invsr.Volume(shapes(GRID, n_samples=16, size=24.0), GRID)


@pytest.fixture(scope="module")
def scan(truth):
    return invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=0.01)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gives(invsr.methods.Method):
    name = "gives"
    factor: float = 1.0
    hole: bool = False
    lam: float | None = None

    def solve(self, problem, progress=None):
        x = self.factor * problem.guess()
        if self.hole:
            x[0, 0, 3, 4, 5] = torch.nan
        return invsr.solvers.Solution(x, problem.domain)


def test_a_result_that_is_not_finite_is_an_error(scan):
    with pytest.raises(InvsrError, match="method gives: 1 of .* voxels of the result are NaN or infinite"):
        invsr.reconstruct(scan, method=Gives(hole=True))


def test_the_range_is_that_of_the_first_scan_whose_units_the_result_has(scan):
    data = scan.data.clone()
    data[0, 0, 2, 3, 1] = 1000 * data.max()
    with pytest.warns(InvsrWarning), pytest.raises(InvsrError, match="the result runs from"):
        invsr.reconstruct([scan, scan.with_data(data)], method=Gives(factor=0.1), faults="keep")


def test_a_result_that_the_units_of_the_data_cannot_hold_is_an_error(scan):
    large = scan.with_data(scan.data * (2e38 / scan.data.max()))
    with pytest.raises(InvsrError, match="voxels of the result are NaN or infinite: check the data for extreme values"):
        invsr.reconstruct(large, method=Gives(factor=3.0))


@pytest.mark.parametrize("noise", [1e4, 1e300])
def test_noise_far_above_all_intensities_is_refused(scan, noise):
    with pytest.raises(InvsrError, match="where the largest intensity is .*: give its standard deviation in"):
        invsr.reconstruct(scan, method="pnp", noise=noise)


@pytest.mark.parametrize("about", [{}, {"thickness": None}, {"thickness": [2], "gap": 0.1, "noise": [0, 1]}])
def test_weights_that_do_not_say_what_they_were_trained_on_are_questioned(scan, tmp_path, about):
    torch.manual_seed(0)
    path = tmp_path / "w.safetensors"
    save_solver(unrolled_of([UNet(channels=(2, 4))]), path, about)
    with pytest.warns(InvsrWarning, match="weights that do not say which acquisitions they were trained on"):
        invsr.reconstruct(scan, method="unrolled", model=path)


@pytest.mark.parametrize("method", ["tikhonov", "tv"])
@pytest.mark.parametrize("lam", [1e7, 1e300])
def test_a_result_that_shows_nothing_is_an_error(scan, method, lam):
    with pytest.raises(InvsrError, match="nothing was written"):
        invsr.reconstruct(scan, method=method, lam=lam)
    with pytest.raises(InvsrError, match="the result is .* everywhere, the data run from .*: lam is too large"):
        invsr.reconstruct(scan, method=Gives(factor=1e-4, lam=lam))


@pytest.mark.parametrize("factor", [100.0, -100.0])
def test_a_result_far_beyond_the_data_is_an_error(scan, factor):
    assert invsr.reconstruct(scan, method=Gives(factor=3.0)).x.isfinite().all()
    with pytest.raises(InvsrError, match="the result runs from .* the model does not fit them"):
        invsr.reconstruct(scan, method=Gives(factor=factor))
    with pytest.raises(InvsrError, match="the operator does not fit the data"):
        A = invsr.operators.Identity(GRID)
        invsr.solve(A, torch.rand(1, 1, *GRID.shape), sigma=0.01, method=Gives(factor=factor))


@pytest.mark.parametrize(
    "options",
    [
        {"lam": np.inf},
        {"lam": np.nan},
        {"huber": np.inf},
        {"noise": np.inf},
        {"noise": np.nan},
        {"slice_thickness": np.inf},
        {"spacing": np.inf},
        {"slice_thickness": np.nan},
    ],
)
def test_numbers_that_are_not_finite_are_refused(scan, options):
    with pytest.raises(InvsrError):
        invsr.reconstruct(scan, method="auto" if "huber" in options or "lam" in options else "tv", **options)


@pytest.mark.parametrize("thickness", [50.0, 5000.0, 0.005, 21.0])
def test_a_thickness_that_cannot_be_is_refused(scan, thickness):
    with pytest.raises(InvsrError, match="4 mm apart: between 0.02 and 5 times their spacing"):
        invsr.reconstruct(scan, method="tv", slice_thickness=thickness)


@pytest.mark.parametrize("half", [1e-9, 50.0, 1e300])
def test_a_sampled_profile_that_cannot_be_is_refused(scan, tmp_path, half):
    file = tmp_path / "profile.txt"
    file.write_text(f"{-half} 1\n{half} 1\n")
    with pytest.raises(InvsrError, match="wide, for slices 4 mm apart: between .* are its offsets in mm"):
        invsr.reconstruct(scan, method="tv", slice_profile=file)
    file.write_text("-2 1\n2 1\n")
    sampled = invsr.Scan(scan, slice_profile=file)
    assert sampled.profile.reach == sampled.thickness == pytest.approx(4)


def test_what_is_given_of_slices_and_not_used_is_said(scan, truth, tmp_path):
    file = tmp_path / "profile.txt"
    file.write_text("-1.5 1\n0 1.2\n1.5 1\n")
    with pytest.warns(InvsrWarning, match="thickness 4 mm is not used: the profile .* is 3 mm wide") as seen:
        found = invsr.reconstruct(scan, method="cubic", slice_profile=file, slice_thickness=4.0)
    assert len(seen) == 1 and found.problem.scans[0].thickness == pytest.approx(3)
    with pytest.warns(InvsrWarning, match="slice profile slr is not used: voxels are isotropic") as seen:
        invsr.reconstruct(truth, method="cubic", slice_profile="slr")
    assert len(seen) == 1
    # A profile that was sampled is the voxels' own.
    assert invsr.reconstruct(truth, method="cubic", slice_profile=file).problem.scans[0].thickness == pytest.approx(3)
    low = invsr.simulate(truth, slice_thickness=2.0, gap=2.0, slice_profile=file, axis=2)
    assert low.slice_thickness == pytest.approx(3) and low.grid.spacing[2] == pytest.approx(4)


def test_simulated_slices_thinner_than_voxels_are_questioned(truth):
    with pytest.warns(InvsrWarning, match="slices 0.5 mm thick are thinner than its voxels of 1 mm") as seen:
        invsr.simulate(truth, slice_thickness=0.5, gap=1.5, axis=2)
    assert len(seen) == 1
    invsr.simulate(truth, slice_thickness=1.0, gap=1.0, axis=2)


def test_slices_that_overlap_much_are_questioned(scan):
    with pytest.warns(InvsrWarning, match="overlap 3.0 times") as seen:
        invsr.reconstruct(scan, method="cubic", slice_thickness=12.0)
    assert len(seen) == 1


def test_less_noise_than_the_least_is_questioned(scan):
    with pytest.warns(InvsrWarning, match=r"noise 1e-05 where bright tissue has .*\(0.05%\) is used") as seen:
        found = invsr.reconstruct(scan, method="cubic", noise=1e-5)
    assert len(seen) == 1 and found.sigma == pytest.approx(5e-4 * found.problem.scale)


def test_outside_of_a_mask_is_nothing_for_one_scan_as_for_several(truth, scan):
    inside = torch.zeros_like(scan.data)
    inside[:, :, :12] = 1
    found = invsr.reconstruct(scan, method="tv", masks=scan.with_data(inside), reference=truth.grid)
    assert float(found.x[:, :, 14:].abs().max()) == 0 and float(found.x[:, :, :11].abs().max()) > 0.5


def test_spikes_are_questioned_and_the_unit_of_length_does_not_matter(scan):
    spiked = scan.data.clone()
    spiked[0, 0, 3, 4, 2] = 1e3
    with pytest.warns(InvsrWarning, match="1 of its voxels exceed 20 times"):
        invsr.reconstruct(scan.with_data(spiked), method="cubic", faults="keep")
    affine = scan.grid.affine.copy()
    affine[:3] *= 1e-3
    tiny = invsr.Volume(scan.data, Grid(scan.grid.shape, affine), slice_axis=2)
    one, other = (invsr.reconstruct(volume, method="tv", noise=0.01) for volume in (scan, tiny))
    assert other.lam == pytest.approx(1e-3 * one.lam, rel=1e-3)
    torch.testing.assert_close(other.x, one.x, atol=1e-3, rtol=1e-3)


def test_a_mask_of_nothing_but_zeros_and_voxels_larger_than_the_head_are_refused(scan):
    data, mask = scan.data.clone(), torch.zeros_like(scan.data)
    data[..., 2], mask[0, 0, 3, 3, 2] = 0, 1
    with pytest.raises(InvsrError, match="every voxel inside the mask is 0"):
        invsr.reconstruct(scan.with_data(data), method="cubic", masks=scan.with_data(mask), faults="keep")
    with pytest.raises(InvsrError, match="exceeds the field of view"):
        invsr.reconstruct(scan, method="cubic", spacing=1e9)


def test_noise_beyond_all_numbers_is_not_simulated(truth):
    with pytest.raises(InvsrError, match="exceed what float32 holds"):
        invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=1e300)
