"""Random acquisitions of k-space, and training on them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from invsr.solvers.trained import load_solver
from invsr.training.kspace import FASTEST, LINES, MOST_COILS, PARTIAL, SCATTERED, SHARES, TRUNCATED, draw_kspace
from invsr.training.recipe import SolverRecipe
from invsr.training.solver import SimulatedPatches, train_solver
from invsr.training.synthesis import Anatomies

SHAPE = (16, 40, 32)
RECIPE = SolverRecipe(
    config={"dim": 3, "channels": [4, 8]}, steps=28, batch=2, patch=(8, 8, 16), n_steps=2, rate=1e-2, kspace=1.0
)


@pytest.fixture(scope="module")
def drawn():
    return [draw_kspace(SHAPE, 0.02, 0.02, torch.Generator().manual_seed(seed)) for seed in range(300)]


def test_patterns_have_their_shares_and_samples_are_missing_along_the_fourier_axes_alone(drawn):
    counts = Counter(one.pattern for one in drawn)
    for pattern, share in SHARES.items():
        assert counts[pattern] / len(drawn) == pytest.approx(share, abs=0.08)
    for one in drawn:
        assert one.mask.shape == SHAPE and set(one.mask.unique().tolist()) == {0.0, 1.0}
        assert one.mask[tuple(n // 2 for n in SHAPE)] == 1  # frequency zero
        for axis in {0, 1, 2} - set(one.axes):
            assert torch.equal(one.mask, one.mask.narrow(axis, 0, 1).expand(SHAPE))
        # The readout lies along the shortest axis.
        assert (0 in one.axes) == (one.pattern == TRUNCATED)
        assert len(one.axes) == {SCATTERED: 2, LINES: 1, TRUNCATED: 3}.get(one.pattern, len(one.axes))


def test_acceleration_coils_and_phase_stay_in_their_ranges(drawn):
    kept = {name: [one for one in drawn if one.pattern == name] for name in SHARES}
    for pattern, (one_coil, several) in FASTEST.items():
        for one in kept[pattern]:
            corners = 4 / np.pi if pattern == SCATTERED else 1.0
            fastest = one_coil if one.maps is None else several
            assert 1.2 < one.mask.numel() / float(one.mask.sum()) < 1.1 * corners * fastest
    assert max(one.mask.numel() / float(one.mask.sum()) for one in kept[PARTIAL]) < 1 / (0.6 * 0.7) + 0.2
    coils = [1 if one.maps is None else len(one.maps) for one in drawn]
    assert set(coils) == set(range(1, MOST_COILS + 1))
    for one in drawn[:20]:
        if one.maps is not None:
            np.testing.assert_allclose(one.maps.abs().square().sum(0), 1, atol=1e-5)
        steps = torch.angle(torch.polar(torch.ones(()), one.phase.diff(dim=1)))
        assert float(steps.abs().max()) < 1  # smooth: what is taken off a patch is a phase, not noise


def test_noise_is_that_of_the_acquisition_and_lies_where_samples_were_taken(drawn):
    clean = torch.rand(1, 1, *SHAPE)
    for one in drawn[:8]:
        y = one.measured(clean, torch.Generator().manual_seed(1))
        rest = y - one.operator()(clean * torch.polar(torch.ones(()), one.phase))
        inside = torch.view_as_real(rest[..., one.mask > 0])
        assert float(inside.std()) == pytest.approx(one.sigma, rel=0.05)
        assert not bool(rest[..., one.mask == 0].any())


def test_patches_are_the_same_whenever_they_are_drawn(folder):
    patches = SimulatedPatches(Anatomies([folder / "image.nii.gz"]), replace(RECIPE, batch=1))
    for n in range(3):
        (clean, y, step), again = patches[n], patches[n]
        assert int(step) == n and clean.shape[0] == 1 and y.is_complex()
        assert torch.equal(clean, again[0]) and torch.equal(y, again[1])
        assert y.shape[1:] == patches.acquisition(n).operator().range.shape


def test_it_learns_from_kspace(folder, tmp_path):
    entries = []
    recipe = replace(RECIPE, noise=(0.01, 0.01), average=0.5)
    train_solver(
        [folder / "image.nii.gz"],
        tmp_path / "w.safetensors",
        recipe,
        log=None,
        report=lambda step, steps, entry: entries.append(entry),
    )
    assert sum(one["gain_db"] for one in entries[-10:]) > sum(one["gain_db"] for one in entries[:10]) + 1
    _, about = load_solver(tmp_path / "w.safetensors")
    assert about["kspace"] == 1.0 and about["noise"] == [0.01, 0.01]
