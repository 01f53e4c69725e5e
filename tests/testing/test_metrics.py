"""Metrics: the reference protocol's figures, library values, invariances, bad input."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from invsr.errors import InvsrError
from invsr.testing import metrics


@pytest.fixture(scope="module")
def pair():
    """A smooth head with a hole and a satellite, in noisy air; and a blurred copy."""
    rng = np.random.default_rng(0)
    xyz = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (48, 52, 48)], indexing="ij"))
    radius = np.sqrt((xyz**2).sum(0))
    texture = ndimage.gaussian_filter(rng.standard_normal(radius.shape), 1.5)
    truth = np.where(radius < 0.92, 0.6 + texture, 0.0)
    truth[22:26, 24:28, 20:24] = 0
    truth[:2, :2, :2] = 0.9
    truth = np.clip(truth + 0.01 * rng.standard_normal(truth.shape), 0, None)
    image = ndimage.gaussian_filter(truth, 0.7) + 0.005 * rng.standard_normal(truth.shape)
    return (1000 * image).astype(np.float32), (1000 * truth).astype(np.float32)


def protocol(image, truth, dtype=np.float64):
    """The reference protocol: intensities over p99.9 of the positive voxels, then PSNR and SSIM in the head.

    It averages in float32, whose steps near 22 dB are 2e-6; in float64 the formula is sharper than that.
    """
    level = np.percentile(truth[truth > 0], 99.9)
    image, truth = image / level, truth / level
    mask = ndimage.binary_fill_holes(ndimage.binary_closing(truth > 0.05, iterations=3))
    labels, count = ndimage.label(mask)
    if count > 1:
        mask = labels == 1 + np.argmax(ndimage.sum(mask, labels, range(1, count + 1)))
    psnr = -10 * np.log10(np.mean((image[mask] - truth[mask]) ** 2, dtype=dtype))
    _, ssim = structural_similarity(truth, image, data_range=1.0, gaussian_weights=True, full=True)
    return float(psnr), float(ssim[mask].mean()), mask


def test_agrees_with_the_reference_protocol(pair):
    psnr, ssim, mask = protocol(*pair)
    np.testing.assert_array_equal(metrics.head_mask(pair[1]), mask)
    for scores in (metrics.evaluate(*pair), metrics.evaluate(*pair, mask=mask)):
        assert scores["psnr"] == pytest.approx(psnr, abs=1e-6)
        assert scores["psnr"] == pytest.approx(protocol(*pair, np.float32)[0], abs=4e-6)
        assert scores["ssim"] == pytest.approx(ssim, abs=1e-6)


def test_figures_follow_their_formulas(pair):
    image, truth = (np.asarray(v, float) for v in pair)
    mask = metrics.head_mask(truth)
    scores = metrics.evaluate(*pair, mask=mask, data_range=500.0)
    error = image[mask] - truth[mask]
    assert scores["psnr"] == pytest.approx(10 * math.log10(500.0**2 / np.mean(error**2)))
    assert scores["nrmse"] == pytest.approx(np.linalg.norm(error) / np.linalg.norm(truth[mask]))
    assert list(scores) == ["psnr", "ssim", "ms_ssim", "ms_ssim_scales", "nrmse", "vif"]
    assert all(type(v) is float for v in scores.values())


def test_scale_and_container_do_not_matter(pair):
    reference = metrics.evaluate(*pair)
    scaled = metrics.evaluate(*(torch.from_numpy(1e-4 * v) for v in pair))
    assert scaled == pytest.approx(reference, abs=1e-5)


def test_better_is_better(pair):
    image, truth = pair
    worse = metrics.evaluate(ndimage.gaussian_filter(image, 1.5), truth)
    better = metrics.evaluate(image, truth)
    perfect = metrics.evaluate(truth, truth)
    for name in ("psnr", "ssim", "ms_ssim", "vif"):
        assert worse[name] < better[name] < perfect[name]
    assert worse["nrmse"] > better["nrmse"] > perfect["nrmse"] == 0
    assert perfect["psnr"] == math.inf
    assert [perfect[n] for n in ("ssim", "ms_ssim", "vif")] == pytest.approx([1, 1, 1])


def test_what_lies_outside_the_mask_counts_only_for_windows(pair):
    image, truth = pair
    mask = np.zeros(truth.shape)
    mask[2:46, 2:46, 1:45] = 1  # 44 voxels: three scales
    spoiled = image.copy()
    spoiled[-1, -1, -1] = 1e4
    a, b = (metrics.evaluate(v, truth, mask) for v in (image, spoiled))
    for name in ("psnr", "nrmse", "ms_ssim", "vif"):
        assert a[name] == b[name]
    assert a["ms_ssim_scales"] == 3


def test_ms_ssim_with_one_scale_is_ssim(pair):
    image, truth = (v[10:31, 10:31, 10:31] for v in pair)
    assert metrics.ms_ssim_scales(image.shape) == 1
    found = metrics.ms_ssim(image, truth, data_range=1000.0)
    # torchmetrics keeps the border and uses plain covariances.
    expected = structural_similarity(
        truth, image, data_range=1000.0, gaussian_weights=True, use_sample_covariance=False, full=True
    )[1].mean()
    assert found == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("n", [11, 22, 44])
def test_ms_ssim_at_its_smallest_sizes(n):
    truth = np.random.default_rng(n).random((n, n + 3, n + 1))
    assert 0 < metrics.ms_ssim(truth + 0.1, truth, data_range=1.0) < 1
    assert metrics.ms_ssim_scales((n, n, n)) == metrics.ms_ssim_scales((n - 1, n, n)) + 1


def test_vif_is_the_mean_over_slices_that_hold_something():
    rng = np.random.default_rng(0)
    truth = rng.random((5, 44, 48))
    truth[1] = 0.5
    image = truth + 0.05 * rng.standard_normal(truth.shape)
    single = [metrics.vif(image[n : n + 1], truth[n : n + 1], 1.0, axis=0) for n in (0, 2, 3, 4)]
    assert metrics.vif(image, truth, 1.0, axis=0) == pytest.approx(np.mean(single))
    mask = np.zeros(truth.shape)
    mask[2:4] = 1
    assert metrics.vif(image, truth, 1.0, axis=0, mask=mask) == pytest.approx(np.mean(single[1:3]))
    with pytest.warns(UserWarning, match="no slice"):
        assert math.isnan(metrics.vif(image[1:2], truth[1:2], 1.0, axis=0))


def test_small_volumes_give_nan_and_a_reason():
    truth = np.random.default_rng(0).random((20, 20, 8))
    with pytest.warns(UserWarning) as caught:
        scores = metrics.evaluate(truth + 0.1, truth, np.ones(truth.shape), data_range=1.0)
    reasons = [str(w.message) for w in caught]
    assert [r.split()[0] for r in reasons] == ["SSIM", "MS-SSIM", "VIF"]
    assert "20x20x8" in reasons[0] and "11x11x11" in reasons[0] and "41x41" in reasons[2]
    assert scores["psnr"] == pytest.approx(20)
    assert all(math.isnan(scores[n]) for n in ("ssim", "ms_ssim", "vif")) and scores["ms_ssim_scales"] == 0


def test_contrast_to_noise():
    rng = np.random.default_rng(0)
    image = rng.normal(100, 5, (40, 40, 40))
    labels = np.zeros(image.shape, int)
    labels[:15], labels[15:30] = 1, 2
    image[labels == 2] += 30
    for noise in (None, labels == 0):
        assert metrics.contrast_to_noise(image, labels == 1, labels == 2, noise) == pytest.approx(6, rel=0.02)
        assert metrics.contrast_to_noise(image, labels == 2, labels == 1, noise) == pytest.approx(6, rel=0.02)
    with pytest.raises(InvsrError, match="region_b is empty"):
        metrics.contrast_to_noise(image, labels == 1, labels == 7)
    with pytest.raises(InvsrError, match="noise is 0"):
        metrics.contrast_to_noise(labels + 0.1, labels == 1, labels == 2)
    with pytest.raises(InvsrError, match="1 voxel"):
        metrics.contrast_to_noise(image[:1, :1, :1], np.ones((1, 1, 1)), np.ones((1, 1, 1)))


def test_gain(pair):
    image, truth = pair
    assert metrics.gain(1.7 * truth, truth) == pytest.approx(1.7)
    assert metrics.gain(image, truth) == pytest.approx(np.vdot(image, truth) / np.vdot(truth, truth), rel=1e-5)
    with pytest.raises(InvsrError, match="0 everywhere"):
        metrics.gain(image, 0 * truth)


def test_bad_input_gets_its_error(pair):
    image, truth = pair
    hole = image.copy()
    hole[0, 0, 0], hole[1, 1, 1] = np.nan, np.inf
    cases = [
        ((image[1:], truth), {}, r"\(47, 52, 48\).*\(48, 52, 48\)"),
        ((image[None, None], truth), {}, r"image has shape \(1, 1, 48, 52, 48\)"),
        ((hole, truth), {}, f"image has 2 of {image.size} voxels"),
        ((image, hole), {}, "truth has 2 of"),
        ((image + 1j, truth), {}, "complex"),
        ((image, truth, np.zeros(truth.shape)), {}, "mask is empty"),
        ((image, truth, np.ones((2, 2, 2))), {}, r"\(2, 2, 2\).*\(48, 52, 48\)"),
        ((image, truth), {"data_range": 0.0}, "data_range is 0.0"),
        ((image, 0 * truth), {}, "no voxel above 0"),
    ]
    for args, options, message in cases:
        with pytest.raises(InvsrError, match=message) as caught:
            metrics.evaluate(*args, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(InvsrError, match="axis 3"):
        metrics.vif(image, truth, 1.0, axis=3)
    with pytest.raises(InvsrError, match="no head"):
        metrics.head_mask(np.ones((3, 3, 3)))


def test_heavy_libraries_wait_until_used():
    heavy = "('skimage', 'torchmetrics', 'scipy')"
    code = f"import sys, invsr.testing.metrics; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
