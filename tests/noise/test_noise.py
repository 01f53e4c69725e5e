"""Noise: sampled moments against closed forms, and sigma estimated within 15 % on heads of known noise."""

from __future__ import annotations

import math
import os
import warnings
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.noise.estimation import estimate_sigma, noise_colour
from invsr.noise.sampling import add_noise

TOLERANCE = 0.15
SIGMAS = (0.005, 0.01, 0.02, 0.03, 0.05)
DATA = Path(os.environ.get("INVSR_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
VOLUMES = ("adult_T1w", "child_T1w", "stroke_FLAIR", "stroke_T1w", "stroke_T2w")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def white(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


# --- sampling


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gaussian_has_the_mean_of_the_image_and_the_variance_asked_for(dtype: torch.dtype) -> None:
    y = add_noise(torch.full((400, 500), 3.0, dtype=dtype), 0.5, generator=seeded())
    assert y.dtype == dtype
    assert y.mean() == pytest.approx(3, abs=0.005)
    assert y.std() == pytest.approx(0.5, rel=0.01)


def test_complex_noise_has_sigma_in_each_part_and_no_correlation_between_them() -> None:
    y = add_noise(torch.full((400, 500), 2.0), 0.5, "complex", seeded())
    assert y.dtype == torch.complex64
    assert y.real.mean() == pytest.approx(2, abs=0.005)
    assert y.imag.mean() == pytest.approx(0, abs=0.005)
    assert y.real.std() == pytest.approx(0.5, rel=0.01)
    assert y.imag.std() == pytest.approx(0.5, rel=0.01)
    assert ((y.real - 2) * y.imag).mean() == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize("signal", [0.0, 0.3, 1.0, 4.0])
def test_rician_moments(signal: float) -> None:
    sigma = 0.5
    y = add_noise(torch.full((400, 500), signal, dtype=torch.float64), sigma, "rician", seeded())
    half = torch.tensor(signal**2 / (4 * sigma**2), dtype=torch.float64)
    # E y = sigma sqrt(pi/2) L_1/2(-2 half), the Laguerre function in exponentially scaled Bessel functions.
    laguerre = (1 + 2 * half) * torch.special.i0e(half) + 2 * half * torch.special.i1e(half)
    mean = sigma * math.sqrt(math.pi / 2) * float(laguerre)
    assert float(y.min()) >= 0
    assert y.mean() == pytest.approx(mean, abs=0.005)
    assert y.var() == pytest.approx(2 * sigma**2 + signal**2 - mean**2, rel=0.02)


def test_rician_takes_the_magnitude_of_a_complex_image() -> None:
    x = torch.polar(torch.full((50, 60), 2.0), white(50, 60))
    torch.testing.assert_close(add_noise(x, 0.0, "rician"), torch.full((50, 60), 2.0))


@pytest.mark.parametrize("model", ["gaussian", "rician", "complex"])
def test_same_seed_same_noise_and_only_the_given_generator_is_used(model: str) -> None:
    x = white(4, 5, 6)
    state = torch.get_rng_state()
    assert torch.equal(add_noise(x, 0.1, model, seeded(1)), add_noise(x, 0.1, model, seeded(1)))
    assert not torch.equal(add_noise(x, 0.1, model, seeded(1)), add_noise(x, 0.1, model, seeded(2)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("model", ["gaussian", "rician", "complex"])
def test_gradient(model: str) -> None:
    x = (2 + white(3, 4).double()).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: add_noise(x, 0.1, model, seeded()), (x,))


@pytest.mark.parametrize("shape", [(), (5,), (2, 1, 4, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int16])
def test_any_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.ones(shape, dtype=dtype)
    for model in ("gaussian", "rician"):
        y = add_noise(x, 0.1, model, seeded())
        assert y.shape == shape
        assert y.dtype == (dtype if dtype.is_floating_point else torch.get_default_dtype())


@pytest.mark.parametrize(
    ("x", "sigma", "model", "message"),
    [
        (torch.ones(3), 0.1, "poisson", "'poisson'.*gaussian, rician, complex"),
        (torch.ones(3), -0.1, "gaussian", "-0.1.*at least 0"),
        (torch.ones(3), math.nan, "rician", "nan.*finite"),
        (torch.ones(3) + 1j, 0.1, "gaussian", "complex64.*'complex'"),
    ],
)
def test_bad_sampling_input(x: Tensor, sigma: float, model: str, message: str) -> None:
    with pytest.raises(InvsrError, match=message) as caught:
        add_noise(x, sigma, model)
    assert "\n" not in str(caught.value)


# --- estimation: a drawn head, where the truth is exact


@cache
def head() -> tuple[Tensor, Tensor]:
    """A 1 mm head in [0, 1] with scalp, folded cortex, ventricles, texture and shading; the mask of its brain."""
    shape = (80, 96, 88)
    i, j, k = torch.meshgrid(*[torch.arange(n) - n / 2 for n in shape], indexing="ij")

    def inside(a: float, b: float, c: float, width: float = 0.7) -> Tensor:
        radius = ((i / a) ** 2 + (j / b) ** 2 + (k / c) ** 2).sqrt()
        return torch.sigmoid((1 - radius) * min(a, b, c) / width)

    folds = torch.sin(i / 2.4 + 1.5 * torch.sin(k / 4)) + torch.sin(j / 2.6 + 1.5 * torch.sin(i / 5))
    folds = folds + torch.sin(k / 2.5)
    white_matter = torch.maximum(inside(22, 28, 24, 2), torch.sigmoid(folds * 3) * inside(29, 36, 32))
    brain = inside(32, 40, 36)
    scalp = inside(38, 46, 42) - inside(35, 43, 39)
    image = 0.9 * scalp + brain * (0.25 + 0.3 * inside(31, 39, 35) + 0.3 * white_matter) - 0.6 * inside(4, 14, 6)
    texture = torch.nn.functional.avg_pool3d(white(1, 1, *(n + 4 for n in shape)), 5, stride=1)[0, 0]
    image = image * (1 + 0.1 * texture) * (1 + 0.15 * torch.sin(i / 40 + j / 50))
    image = torch.where(image < 0.005, 0, image)
    return image / torch.quantile(image[image > 0], 0.999), brain > 0.5


def thick(x: Tensor, axis: int, mm: float) -> Tensor:
    """Contiguous slices with a Gaussian profile, from 1 mm voxels."""
    count = int(x.shape[axis] / mm)
    distance = torch.arange(x.shape[axis]) - ((torch.arange(count) + 0.5) * mm - 0.5)[:, None]
    weights = torch.exp(-0.5 * (distance / mm * 2.354820045) ** 2)
    weights /= weights.sum(1, keepdim=True)
    return torch.tensordot(x, weights, ([axis], [1])).movedim(-1, axis)


def relative_error(found: float, truth: float) -> float:
    return found / truth - 1


@pytest.mark.parametrize("kind", ["air", "stripped", "rezeroed", "crop", "rician", "rician rezeroed"])
@pytest.mark.parametrize(("axis", "mm"), [(None, 1.0), (2, 3.0), (1, 5.0), (0, 8.0)])
def test_sigma_within_15_percent(kind: str, axis: int | None, mm: float) -> None:
    image, brain = head()
    axes = tuple(n for n in range(3) if n != axis)
    clean, keep = (image, brain) if axis is None else (thick(image, axis, mm), thick(brain.float(), axis, mm) > 0.5)
    if kind == "stripped":
        clean = clean * keep
    errors = {}
    for seed, sigma in enumerate(SIGMAS):
        y = add_noise(clean, sigma, "rician" if "rician" in kind else "gaussian", seeded(seed))
        if "rezeroed" in kind:
            y = y * keep
        if kind == "crop":
            y = y[tuple(slice(round(0.28 * n), round(0.72 * n)) for n in y.shape)]
        errors[sigma] = relative_error(estimate_sigma(y, axes), sigma)
    assert max(abs(e) for e in errors.values()) < TOLERANCE, errors


def test_default_axes_on_thick_slices() -> None:
    y = add_noise(thick(head()[0], 2, 5.0), 0.01, generator=seeded())
    assert abs(relative_error(estimate_sigma(y), 0.01)) < TOLERANCE


def test_air_that_says_nothing_about_tissue_is_not_used() -> None:
    image, brain = head()
    y = add_noise(image, 0.02, "rician", seeded())
    thresholded = torch.where(brain, y, (y - 0.02).clamp(min=0))
    rounded = torch.where(brain, y, (y * 40).floor() / 40)
    for scan in (thresholded, rounded):
        assert abs(relative_error(estimate_sigma(scan), 0.02)) < TOLERANCE


def test_noise_of_a_zero_filled_scan_is_the_sd_of_a_voxel() -> None:
    clean = thick(head()[0], 2, 5.0) * (thick(head()[1].float(), 2, 5.0) > 0.5)
    spectrum = torch.fft.fft2(white(*clean.shape), dim=(0, 1))
    acquired = [(torch.fft.fftfreq(n).abs() < 0.36).float() for n in clean.shape[:2]]
    noise = torch.fft.ifft2(spectrum * torch.outer(*acquired)[..., None], dim=(0, 1)).real
    y = (clean + noise * (0.02 / noise.std())) * (clean > 0)
    assert abs(relative_error(estimate_sigma(y, (0, 1)), 0.02)) < 0.25


# --- estimation: odd images


def test_pure_noise_gaussian_and_rayleigh() -> None:
    assert estimate_sigma(2 * white(48, 48, 48)) == pytest.approx(2, rel=0.1)
    assert estimate_sigma(add_noise(torch.zeros(48, 48, 48), 2.0, "rician", seeded())) == pytest.approx(2, rel=0.1)


def test_small_volumes() -> None:
    found = [estimate_sigma(white(40, 40, 6, seed=seed), (0, 1)) for seed in range(5)]
    assert found == pytest.approx([1] * 5, rel=TOLERANCE)


def test_zeroed_slices_constant_blocks_and_missing_voxels_are_left_out() -> None:
    x = white(64, 60, 30)
    x[:10] = 0
    x[10:30] = 0.3
    x[:, :, ::7] = 0
    x[60, 60 - 1, 29] = math.nan
    x[50, 20, 10] = math.inf
    for axes in (None, (0, 1)):
        assert estimate_sigma(x, axes) == pytest.approx(1, rel=TOLERANCE)


@pytest.mark.parametrize("image", [torch.zeros(9, 9, 9), torch.full((20, 20, 20), 0.1), torch.full((8, 8, 1), -3)])
def test_constant_image_is_free_of_noise(image: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert estimate_sigma(image) == 0.0


def test_drawing_without_noise() -> None:
    x = torch.zeros(50, 50, 50)
    x[10:40, 10:40, 10:40] = 1
    x[20:30, 20:30, 20:30] = 2
    assert estimate_sigma(x) == 0.0


def test_mask_selects_where_to_look() -> None:
    x = white(40, 40, 40)
    x[20:] *= 5
    mask = torch.zeros(40, 40, 40)
    mask[20:] = 1
    assert estimate_sigma(x, mask=mask) == pytest.approx(5, rel=TOLERANCE)
    assert estimate_sigma(x, mask=mask == 0) == pytest.approx(1, rel=TOLERANCE)


def test_unit_layout_batch_and_dtype_do_not_matter() -> None:
    x = add_noise(head()[0], 0.02, generator=seeded())
    found = estimate_sigma(x)
    assert estimate_sigma(1e6 * x) == pytest.approx(1e6 * found, rel=1e-4)
    assert estimate_sigma(x.double()) == pytest.approx(found, rel=1e-4)
    assert estimate_sigma(x[None, None]) == found
    assert estimate_sigma(x.permute(2, 1, 0).contiguous().permute(2, 1, 0)) == found
    assert estimate_sigma((1000 * x).round().to(torch.int16)) == pytest.approx(1000 * found, rel=0.02)
    two = torch.stack((x, add_noise(head()[0], 0.02, generator=seeded(1))))[:, None].requires_grad_()
    assert estimate_sigma(two) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("data", "axes", "mask", "message"),
    [
        (torch.ones(9, 9), None, None, r"shape \(9, 9\)"),
        (torch.ones(9, 9, 9) + 1j, None, None, "complex64"),
        (torch.ones(5, 5, 5), None, None, r"\(5, 5, 5\).*give sigma"),
        (torch.ones(9, 9, 9), (0, 3), None, r"\(0, 3\)"),
        (torch.full((9, 9, 9), math.nan), None, None, "finite"),
        (white(20, 20, 20), None, torch.zeros(20, 20, 20), "mask"),
        (white(20, 20, 20), None, torch.ones(20, 20, 20).tril(-17), "wider mask"),
        (white(20, 20, 20), None, torch.ones(10, 10, 10), r"\(10, 10, 10\).*\(20, 20, 20\)"),
    ],
)
def test_bad_estimation_input(data: Tensor, axes: tuple[int, ...], mask: Tensor, message: str) -> None:
    with pytest.raises(InvsrError, match=message) as caught:
        estimate_sigma(data, axes, mask)
    assert "\n" not in str(caught.value)


# --- estimation: real heads, which are noisy themselves


@pytest.mark.parametrize("name", VOLUMES)
def test_real_heads(name: str) -> None:
    path = DATA / "volumes" / f"{name}.nii.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not in {DATA}: set INVSR_DATA to the folder with the open MR data")
    image = nib.as_closest_canonical(nib.load(path))
    x = torch.from_numpy(np.ascontiguousarray(image.get_fdata(dtype=np.float32)))
    x = thick(x / torch.quantile(x[x > 0][::7], 0.999), 2, 5.0)
    keep = x > 0.05
    # Between the sigma added, seen in empty air, and that with the noise that tissue had before.
    native = estimate_sigma(x * keep, (0, 1))
    sigma = 0.01
    everywhere = add_noise(x, sigma, generator=seeded())
    for y in (everywhere, everywhere * keep, add_noise(x, sigma, "rician", seeded())):
        found = estimate_sigma(y, (0, 1))
        assert sigma * (1 - TOLERANCE) < found < math.hypot(sigma, native) * (1 + TOLERANCE)


def test_the_colour_of_noise():
    noise = torch.randn(60, 60, 12, generator=torch.Generator().manual_seed(0))
    assert noise_colour(noise + 50, (0, 1)) == pytest.approx((1, 1), abs=0.1)
    smooth = noise[:-1] + noise[1:]  # the amplitude of a frequency is multiplied by 2 cos(omega / 2)
    along, across = noise_colour(smooth + 50, (0, 1))
    assert along > 2 and across == pytest.approx(1, abs=0.1)
    assert noise_colour(torch.ones(60, 60, 12), (0, 1)) is None
