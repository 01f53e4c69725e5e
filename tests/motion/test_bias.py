"""Smooth fields between scans: found where they were put in, not where there is none."""

from dataclasses import replace

import numpy as np
import torch
from moving import known, scan_of

import invsr
from invsr.motion.bias import N_TERMS, estimate_bias, field
from invsr.pipeline.run import register

# Slopes of a few tens of per cent over the phantom, whose radius is 0.36 of the unit.
BIAS = torch.tensor([0.5, -0.4, 0.3, 0.3, 0.0, -0.2, 0.0, 0.3, 0.0], dtype=torch.float64)


def inside(volume):
    return volume.data[0, 0] > 0.3


def test_a_field_is_found_against_the_truth(truth):
    volume = scan_of(truth, noise=0.01)
    centre = torch.from_numpy(truth.grid.centre)
    shading = field(BIAS, volume.grid, centre)
    assert 1.3 < float(shading[0, 0][inside(volume)].max() / shading[0, 0][inside(volume)].min()) < 3
    scan = known(volume, truth)
    found = estimate_bias(truth.data, truth.grid, replace(scan, data=(1.2 * scan.data * shading).float()))
    ratio = (field(found, volume.grid, centre) / shading)[0, 0][inside(volume)]
    assert float(ratio.std() / ratio.mean()) < 0.02


def test_where_there_is_none_none_is_found(truth):
    volume = scan_of(truth, noise=0.03)
    found = estimate_bias(truth.data, truth.grid, known(volume, truth))
    shading = field(found, volume.grid, torch.from_numpy(truth.grid.centre))[0, 0][inside(volume)]
    assert float((shading - 1).abs().max()) < 0.03


def test_too_little_to_see_is_no_field(truth):
    scan = known(scan_of(truth), truth)
    dark = replace(scan, data=scan.data * 0)
    assert torch.equal(estimate_bias(truth.data, truth.grid, dark), torch.zeros(N_TERMS, dtype=torch.float64))


def test_scans_are_brought_to_the_first_ones_shading(truth, monkeypatch):
    scans = [scan_of(truth, axis, seed=axis) for axis in (2, 1, 0)]
    centre = torch.from_numpy(truth.grid.centre)
    shaded = [scans[0]] + [
        scan.with_data((scan.data * field(sign * BIAS, scan.grid, centre)).float())
        for scan, sign in zip(scans[1:], (1, -1), strict=True)
    ]
    plain, evened = (invsr.reconstruct(one, method="tv", reference=truth.grid) for one in (scans, shaded))
    monkeypatch.setattr("invsr.motion.joint.estimate_bias", lambda volume, domain, scan: scan.bias)
    uneven = invsr.reconstruct(shaded, method="tv", reference=truth.grid)
    error = [float((one.x - truth.data).square().mean().sqrt()) for one in (plain, evened)]
    assert error[1] < 1.5 * error[0]
    assert evened.chi2 < 1.1 and uneven.chi2 > 10
    monkeypatch.undo()
    moved = register(shaded, motion="stack")
    for one, sign in zip(moved.scans, (0, 1, -1), strict=True):
        assert np.abs(one.bias[:3] - sign * BIAS[:3].numpy()).max() < 0.15
        assert np.abs(one.motion[:, 3:]).max() < 0.3  # shading is not taken for motion
