"""Scans with negative intensities: standardised images, signed inversion recovery, Hounsfield units."""

import pytest
import torch
from comparisons import error

import invsr
from invsr.pipeline.methods import TV, PnP, Unrolled
from invsr.pipeline.preparation import scans_of


def reconstructed(scan, **options):
    return invsr.reconstruct(scan, spacing=1.0, **options)


def less(volume, offset, factor=1.0):
    return volume.with_data((volume.data - offset) * factor)


METHODS = {"tv": TV(), "pnp": PnP(denoiser="mri-denoiser-fast", max_iter=15), "unrolled": Unrolled()}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_an_offset_changes_nothing_else(small_scan, small_truth, method):
    plain = reconstructed(small_scan, method=method)
    found = reconstructed(less(small_scan, 0.4), method=method)
    assert error(found, less(small_truth, 0.4)) < 1.05 * error(plain, small_truth)
    assert abs(float(found.x.mean() - plain.x.mean()) + 0.4) < 5e-3
    assert found.sigma == pytest.approx(plain.sigma, rel=0.02)
    assert any("intensities below 0" in line for line in found.remarks())
    assert not any("intensities below 0" in line for line in plain.remarks())


def test_networks_need_it(small_scan, small_truth):
    shifted, truth = less(small_scan, 1.0), less(small_truth, 1.0)
    kept, found = (reconstructed(shifted, method="unrolled", faults=faults) for faults in ("keep", "auto"))
    assert error(found, truth) < 0.8 * error(kept, truth)


def test_samples_and_masks_have_the_intensities_of_the_scan(small_scan):
    mask = small_scan.with_data(torch.ones_like(small_scan.data))
    mask.data[:, :, :8] = 0
    found = reconstructed(less(small_scan, 5.0), method="posterior", n_samples=2, masks=mask)
    inside, whole = found.x != 0, found.samples.mean(0, keepdim=True)
    assert int((~inside).sum()) > 0 and bool((found.x[inside] < -2).all())
    torch.testing.assert_close(whole, found.x, atol=1e-4, rtol=1e-4)


def test_each_scan_has_its_own(small_scan, small_truth):
    both = [less(small_scan, 0.3), less(small_scan, 0.5, factor=1.4)]
    found = reconstructed(both, method="tv", motion="none")
    assert found.problem.motion.scans[1].gain == pytest.approx(1.4, rel=0.02)
    assert error(found, less(small_truth, 0.3)) < 1.05 * error(reconstructed(small_scan, method="tv"), small_truth)


@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_noise_around_zero_is_no_offset(small_truth, noise):
    (scan,) = scans_of(invsr.simulate(small_truth, slice_thickness=4.0, noise=noise))
    assert scan.offset == 0
