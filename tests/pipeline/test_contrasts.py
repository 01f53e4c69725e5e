"""Several contrasts of one head together: better than alone, each in its own units, and registered."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import invsr
from invsr.errors import InvsrError, InvsrWarning
from invsr.examples import crop, example
from invsr.models.joint import JointUNet
from invsr.models.networks import UNet
from invsr.motion import Motion
from invsr.noise.likelihoods import Rician
from invsr.operators import acquisition
from invsr.pipeline.contrasts import best_together, motion_of_scans, reconstruct_contrasts
from invsr.pipeline.joint import JointTV, JointUnrolled, together_of
from invsr.pipeline.memory import Budget
from invsr.solvers.trained import save_solver, unrolled_of
from invsr.testing.metrics import evaluate
from invsr.testing.phantoms import centred_grid, shapes

GRID = centred_grid((36, 36, 36), 1.0)


def two_contrasts(volume):
    """A volume, and the same with its intensities mapped, not monotonously, and scaled."""
    levels = volume.data / float(volume.data.max())
    other = 300 * levels * (1.7 - 1.4 * levels)
    return [invsr.Volume(data, volume.grid, name) for data, name in ((volume.data, "t1.nii.gz"), (other, "t2.nii.gz"))]


def simulated(truths):
    pairs = zip(truths, (2, 0), strict=True)
    return [invsr.simulate(one, slice_thickness=4.0, axis=axis, noise=0.01, seed=axis) for one, axis in pairs]


@pytest.fixture(scope="module")
def truths():
    return two_contrasts(invsr.Volume(shapes(GRID, n_samples=16, size=36.0), GRID))


@pytest.fixture(scope="module")
def scans(truths):
    return simulated(truths)


@pytest.fixture(scope="module")
def heads():
    """Registration needs anatomy: the phantom is nearly round."""
    return two_contrasts(crop(example(), 40))


def psnr(found, truth):
    return evaluate(found.x[0, 0].numpy(), truth.numpy(), quick=True)["psnr"]


def rigid(vector, centre):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(vector[:3]).as_matrix()
    matrix[:3, 3] = centre + vector[3:] - matrix[:3, :3] @ centre
    return matrix


def moved(scan, matrix):
    """The scan with a header that is wrong by a motion."""
    return scan.with_data(scan.data, invsr.Grid(scan.grid.shape, matrix @ scan.grid.affine))


def test_each_contrast_gains_from_the_other(truths, scans):
    together = reconstruct_contrasts(scans, method=JointTV(), reference=GRID, motion="none")
    for truth, scan, one in zip(truths, scans, together, strict=True):
        alone = invsr.reconstruct(scan, method="tv", reference=GRID)
        assert psnr(one, truth) > psnr(alone, truth) + 0.5
        assert one.volume.name == scan.name and one.gain == pytest.approx(1, abs=0.01)
        assert 0.6 < one.chi2 < 1.4 and str(one.method) == "joint-tv"


def test_the_nuclear_norm_gains_more_than_the_euclidean_one(truths, scans):
    both = [
        reconstruct_contrasts(scans, method=JointTV(norm=norm), reference=GRID, motion="none")
        for norm in ("nuclear", "euclidean")
    ]
    for truth, nuclear, euclidean in zip(truths, *both, strict=True):
        assert psnr(nuclear, truth) > psnr(euclidean, truth)


def test_units_do_not_matter(scans):
    plain = reconstruct_contrasts(scans, method=JointTV(), reference=GRID, motion="none")
    scaled = [scans[0], scans[1].with_data(1e-3 * scans[1].data)]
    other = reconstruct_contrasts(scaled, method=JointTV(), reference=GRID, motion="none")
    torch.testing.assert_close(other[0].x, plain[0].x, rtol=1e-3, atol=1e-3 * float(plain[0].x.max()))
    torch.testing.assert_close(1e3 * other[1].x, plain[1].x, rtol=1e-3, atol=1e-3 * float(plain[1].x.max()))


def test_stacks_of_one_contrast_count_together(truths, scans, weights):
    second = invsr.simulate(truths[0], slice_thickness=4.0, axis=1, noise=0.01, seed=7)
    given = [scans[0], scans[1], second]
    told = {"reference": GRID, "motion": "none"}
    each = {"slice_thickness": [4.0, 4.0, 4.0], "noise_model": "gaussian"}
    for method in (JointUnrolled(model=weights[JointUNet]), JointTV()):
        found = reconstruct_contrasts(given, ["t1", "t2", "t1"], method=method, **told, **each)
        assert [len(one.problem.scans) for one in found] == [2, 1]
        alone = reconstruct_contrasts(scans, method=method, **told)
        assert psnr(found[0], truths[0]) > psnr(alone[0], truths[0])
    motion = motion_of_scans(found, ["t1", "t2", "t1"])
    assert [one.name for one in motion.scans] == [scan.name for scan in given]


@pytest.fixture
def fewer_points(monkeypatch):
    """A quarter of those that contrasts are registered by, which takes a third of the time."""
    monkeypatch.setattr("invsr.motion.contrasts.POINTS", 5_000)


def test_contrasts_are_registered(heads, fewer_points):
    first, second = simulated(heads)
    grid = heads[0].grid
    wrong = rigid(np.array([0.07, -0.1, 0.05, 3.0, -2.0, 4.0]), grid.centre)
    method = JointTV(max_iter=4)
    found = reconstruct_contrasts([first, moved(second, wrong)], method=method, reference=grid)
    motion = motion_of_scans(found)
    assert motion.scans[0].still and not motion.scans[1].still
    points = grid.points()[::9, ::9, ::9].reshape(-1, 3)
    both = rigid(motion.scans[1].motion[0], motion.centre) @ wrong
    away = points @ both[:3, :3].T + both[:3, 3] - points
    assert np.sqrt((away**2).sum(1).mean()) < 0.3
    right = reconstruct_contrasts([first, second], method=method, reference=grid)
    assert all(one.motion is None for one in right)  # what lies right stays where it is
    for truth, one, best in zip(heads, found, right, strict=True):
        assert psnr(one, truth) > psnr(best, truth) - 0.3
    again = reconstruct_contrasts([first, moved(second, wrong)], method=method, reference=grid, motion=motion)
    torch.testing.assert_close(again[1].x, found[1].x)


def test_another_person_is_remarked(scans, fewer_points):
    noise = torch.rand(scans[1].data.shape, generator=torch.Generator().manual_seed(5))
    with pytest.warns(InvsrWarning, match="t2.nii.gz: its edges do not lie where"):
        reconstruct_contrasts([scans[0], scans[1].with_data(noise)], method=JointTV(max_iter=1), reference=GRID)


def test_a_scan_one_pixel_wide_is_not_registered(scans):
    second = scans[1]
    narrow = invsr.Volume(
        second.data[..., :1], invsr.Grid((*second.grid.shape[:2], 1), second.grid.affine), "t2.nii.gz"
    )
    with pytest.raises(InvsrError, match="too narrow to be registered"):
        reconstruct_contrasts([scans[0], narrow], slice_axis=[2, 0])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"contrasts": ["a", "a"]}, "one contrast: leave contrasts out"),
        ({"contrasts": ["a"]}, "1 contrasts named for 2 scans"),
        ({"masks": [invsr.Volume(torch.ones(1, 1, 36, 36, 36), GRID)]}, "1 masks for 2 scans"),
        ({"motion": "slice"}, "use none or stack"),
        ({"method": "tv"}, "method 'tv' of several contrasts: give .*JointTV"),
        ({"slice_thickness": [4.0, 4.0, 4.0]}, "3 values of slice thickness for 2 scans"),
        ({"motion": Motion(GRID.centre, ())}, "motion of 0 scans for 2"),
    ],
)
def test_refuses(scans, how, words):
    with pytest.raises(InvsrError, match=words):
        reconstruct_contrasts(scans, reference=GRID, **how)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network of several contrasts that was not trained, and one of a single contrast."""
    files = {}
    for kind in (JointUNet, UNet):
        torch.manual_seed(0)
        files[kind] = tmp_path_factory.mktemp("weights") / "weights.safetensors"
        about = {"thickness": [2.0, 6.0], "gap": 0.2, "noise": [0.001, 0.04], "stacks": 0.5}
        save_solver(unrolled_of([kind(channels=(4, 8))], n_steps=3), files[kind], about)
    return files


def test_a_network_takes_all_contrasts_together(truths, scans, weights):
    method = JointUnrolled(model=weights[JointUNet])
    found = reconstruct_contrasts(scans, method=method, reference=GRID, motion="none")
    for one, scan in zip(found, scans, strict=True):
        assert str(one.method) == "joint-unrolled" and one.volume.name == scan.name
        assert one.gain == pytest.approx(1, abs=0.05) and 0.6 < one.chi2 < 1.4
    scaled = [scans[0], scans[1].with_data(1e-3 * scans[1].data)]
    other = reconstruct_contrasts(scaled, method=method, reference=GRID, motion="none")
    torch.testing.assert_close(1e3 * other[1].x, found[1].x, rtol=1e-3, atol=5e-3 * float(found[1].x.max()))


def test_a_network_is_told_in_words_what_it_was_not_trained_for(scans, weights):
    grid = centred_grid((16, 16, 16), 1.0)
    small = simulated(two_contrasts(invsr.Volume(shapes(grid, n_samples=16, size=16.0), grid)))
    with pytest.warns(InvsrWarning, match="slices 8 target voxels thick: the network was trained on 2 to 6"):
        reconstruct_contrasts(
            small, method=JointUnrolled(model=weights[JointUNet]), reference=grid.refine(0.5), motion="none"
        )
    with pytest.raises(InvsrError, match="holds a network for one contrast: train one with --contrasts"):
        reconstruct_contrasts(scans, method=JointUnrolled(model=weights[UNet]), reference=GRID, motion="none")


def test_the_default_is_the_network_where_it_was_trained_for_it(scans):
    problems = [one.problem for one in reconstruct_contrasts(scans, reference=GRID, method=JointTV(), motion="none")]
    budget = Budget.on(torch.device("cpu"))
    assert best_together(problems, budget) == JointUnrolled()
    assert best_together(problems, replace(budget, available=10**6)) == JointTV()
    noisy = [replace(one, likelihoods=(Rician(one.sigma),)) for one in problems]
    assert best_together(noisy, budget) == JointTV()
    thick = [invsr.simulate(one, slice_thickness=12.0, axis=0, noise=0.01) for one in two_contrasts(scans[0])]
    found = reconstruct_contrasts(thick, reference=GRID.refine(0.5), motion="none", method=JointTV(max_iter=1))
    assert best_together([one.problem for one in found], budget) == JointTV()


def test_a_guide_keeps_its_joint_tv(heads, weights):
    first, second = heads
    guide = invsr.simulate(first, slice_thickness=1.0, axis=2, noise=0.01)
    scans = [guide, invsr.simulate(second, slice_thickness=4.0, axis=0, noise=0.01)]
    given = {"reference": first.grid, "motion": "none"}
    found = reconstruct_contrasts(scans, method=JointUnrolled(model=weights[JointUNet]), **given)
    tv = reconstruct_contrasts(scans, method=JointTV(), **given)
    torch.testing.assert_close(found[0].x, tv[0].x, rtol=0, atol=0.02 * float(tv[0].x.max()))
    assert len(found[1].history) == 3


def test_methods_by_name():
    assert together_of("auto", {"lam": None}) is None
    assert together_of("auto", {"lam": 0.1}) == JointTV(lam=0.1) == together_of("tv", {"lam": 0.1})
    assert together_of("unrolled", {"model": "w"}) == JointUnrolled(model="w") == together_of("auto", {"model": "w"})
    with pytest.raises(InvsrError, match="method pnp reconstructs each contrast alone"):
        together_of("pnp", {})
    with pytest.raises(InvsrError, match="does not use all of the options lam"):
        together_of("unrolled", {"lam": 0.1})


def test_pixels_finer_than_the_grid_are_no_misfit(heads):
    """Where the scan lies obliquely, too: what voxels cannot show would drive the weight of the prior to nothing."""
    first, second = simulated(heads)
    fine = second.grid.refine((second.grid.spacing[0], 0.5, 0.5))
    operator = acquisition(fine, reference=fine.refine(0.5), slice_thickness=4.0)
    sharp = torch.nn.functional.interpolate(heads[1].data, operator.domain.shape, mode="nearest")
    sharp = sharp + 30 * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(0))  # detail of half a voxel
    noise = torch.randn(1, 1, *fine.shape, generator=torch.Generator().manual_seed(1))
    scan = invsr.Volume(operator(sharp) + 0.01 * sharp.max() * noise, fine, "t2.nii.gz", slice_thickness=4.0)
    wrong = rigid(np.array([0.05, -0.06, 0.04, 1.0, -1.0, 2.0]), heads[0].grid.centre)
    known = [0.01 * float(one.data.max()) for one in (heads[0], scan.with_data(sharp, operator.domain))]
    found = reconstruct_contrasts([first, moved(scan, wrong)], method=JointTV(), reference=heads[0].grid, noise=known)
    assert not found[1].motion.scans[0].still and found[1].chi2 < 1.4
    motion = motion_of_scans(found)
    assert motion.scans[1].grid.shape == fine.shape  # the scan's own, by which it is known again
