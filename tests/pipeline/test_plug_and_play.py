"""Plug-and-play: its solvers agree, descend, repeat a run by its seed, and adapt the denoiser."""

import itertools
import math

import pytest
import torch
from comparisons import error, reordered

import invsr
from invsr.errors import InvsrError
from invsr.solvers import Status

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
