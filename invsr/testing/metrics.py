"""How close a volume is to the truth: scikit-image's and torchmetrics' figures, inside the head.

Volumes are numpy arrays or tensors of shape (i, j, k). Each figure takes `data_range`, the intensity that counts
as the peak, so that none depends on the scanner's scale.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch

from invsr.errors import InvsrError, InvsrWarning
from invsr.testing.checked_volumes import Array, Mask, Volume3D, inside_of, large_enough, pair_of, positive, real_volume

# Gaussian window of SSIM and MS-SSIM: sigma 1.5 voxels, cut at 3.5 sigma.
SSIM_WINDOW = 11
# Weights of the five scales in Wang et al. (2003), fine to coarse.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Smallest slice with four VIF scales.
VIF_WINDOW = 41


def evaluate(
    image: Volume3D,
    truth: Volume3D,
    mask: Volume3D | None = None,
    data_range: float | None = None,
    quick: bool = False,
) -> dict[str, float]:
    """PSNR, SSIM, MS-SSIM, NRMSE and VIF of `image` against `truth` inside `mask`.

    ===============  =================================================================================
    psnr             ``10 log10(data_range^2 / mean (image - truth)^2)`` inside the mask, dB
    ssim             mean of the 3-D SSIM map (Gaussian window) inside the mask
    ms_ssim          `ms_ssim` of the mask's bounding box
    ms_ssim_scales   its number of scales: values compare only where this is equal
    nrmse            ``||image - truth|| / ||truth||`` inside the mask
    vif              `vif` of the mask's bounding box, slices across axis k
    ===============  =================================================================================

    A figure that the volume is too small for is NaN, and a warning says why.

    Parameters
    ----------
    image, truth : array or Tensor, shape (i, j, k)
        On the same grid and intensity scale.
    mask : array or Tensor, shape (i, j, k), optional
        Non-zero inside; default `head_mask` of the truth.
    data_range : float, optional
        The peak; default `peak` of the truth.
    quick : bool
        Only psnr, ssim and nrmse: the others take ten times as long.

    Raises
    ------
    InvsrError
        When shapes differ, values are not finite, the mask is empty or the data range is not above zero.

    References
    ----------
    Wang, Bovik, Sheikh & Simoncelli (2004), IEEE Trans. Image Process. 13, 600-612 (SSIM).

    Examples
    --------
    >>> truth = np.random.default_rng(0).random((48, 48, 48))
    >>> scores = evaluate(truth + 0.1, truth, np.ones(truth.shape), data_range=1.0)
    >>> round(scores["psnr"], 3), scores["ms_ssim_scales"]
    (20.0, 3.0)
    """
    from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

    a, b = pair_of(image, truth)
    inside = head_mask(b) if mask is None else inside_of(mask, b, "mask")
    level = peak(b) if data_range is None else positive(data_range)
    a, b = a / level, b / level
    with np.errstate(divide="ignore", invalid="ignore"):  # equal volumes, or a truth of zeros: infinite or NaN
        psnr = float(peak_signal_noise_ratio(b[inside], a[inside], data_range=1.0))
        nrmse = float(normalized_root_mse(b[inside], a[inside]))
    ssim = float("nan")
    if large_enough("SSIM", a.shape, (SSIM_WINDOW,) * 3):
        # float32, and sample covariances, as in the reference protocol: its figures are met to six digits.
        single = b.astype(np.float32), a.astype(np.float32)
        _, ssim_map = structural_similarity(*single, data_range=1.0, gaussian_weights=True, full=True)
        ssim = float(ssim_map[inside].mean(dtype=np.float64))
    if quick:
        return {"psnr": psnr, "ssim": ssim, "nrmse": nrmse}
    box = tuple(slice(int(n.min()), int(n.max()) + 1) for n in np.nonzero(inside))
    a, b, inside = a[box], b[box], inside[box]
    return {
        "psnr": psnr,
        "ssim": ssim,
        "ms_ssim": ms_ssim(a, b, data_range=1.0),
        "ms_ssim_scales": float(ms_ssim_scales(a.shape)),
        "nrmse": nrmse,
        "vif": vif(a, b, mask=inside, data_range=1.0),
    }


def ms_ssim_scales(shape: tuple[int, ...]) -> int:
    """Scales, 0 to 5, that `ms_ssim` has room for: 176 voxels along the shortest axis for 5, 44 for 3.

    Examples
    --------
    >>> [ms_ssim_scales((n, 200, 200)) for n in (176, 175, 99, 44, 22, 11, 10)]
    [5, 4, 4, 3, 2, 1, 0]
    """
    shortest = min(shape)
    # The coarsest scale holds one window; the second figure is what torchmetrics asks for.
    return sum(shortest >= SSIM_WINDOW * max(2**n, n**2) for n in range(5))


def ms_ssim(image: Volume3D, truth: Volume3D, data_range: float) -> float:
    """Multi-scale SSIM in 3-D: ``prod_n contrast_n^w_n``, times luminance at the coarsest scale.

    Where fewer than five scales fit (`ms_ssim_scales`), the weights of those that do are scaled to the sum of
    all five. NaN, with a warning, where not even one fits.

    Parameters
    ----------
    image, truth : array or Tensor, shape (i, j, k)
    data_range : float
        The peak.

    References
    ----------
    Wang, Simoncelli & Bovik (2003), Asilomar Conf. Signals Syst. Comput., 1398-1402.

    Examples
    --------
    >>> truth = np.random.default_rng(0).random((24, 24, 24))
    >>> ms_ssim(truth, truth, data_range=1.0)
    1.0
    """
    a, b = pair_of(image, truth)
    level = positive(data_range)
    if not large_enough("MS-SSIM", a.shape, (SSIM_WINDOW,) * 3):
        return float("nan")
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    weights = np.array(MS_SSIM_WEIGHTS[: ms_ssim_scales(a.shape)])
    weights *= sum(MS_SSIM_WEIGHTS) / weights.sum()
    x, y = (torch.from_numpy((v / level).astype(np.float32))[None, None] for v in (a, b))
    return float(multiscale_structural_similarity_index_measure(x, y, data_range=1.0, betas=tuple(weights.tolist())))


def vif(image: Volume3D, truth: Volume3D, data_range: float, axis: int = 2, mask: Volume3D | None = None) -> float:
    """Visual information fidelity (pixel domain), mean over the slices across `axis`.

    The peak is scaled to 255, which the method's noise variance of 2 presumes. Slices without a voxel of the
    mask, and constant slices of the truth, hold no information and are left out. NaN, with a warning, for slices
    below 41 x 41 voxels or when none is left.

    Parameters
    ----------
    image, truth : array or Tensor, shape (i, j, k)
    data_range : float
        The peak.
    axis : {0, 1, 2}
        Slices are taken across this array axis.
    mask : array or Tensor, shape (i, j, k), optional
        Non-zero inside; default everywhere.

    References
    ----------
    Sheikh & Bovik (2006), IEEE Trans. Image Process. 15, 430-444.

    Examples
    --------
    >>> truth = np.random.default_rng(0).random((48, 48, 2))
    >>> round(vif(truth, truth, data_range=1.0), 4)
    1.0
    """
    a, b = pair_of(image, truth)
    level = positive(data_range)
    if axis not in (0, 1, 2):
        raise InvsrError(f"axis {axis} for slices of a 3-D volume: choose 0, 1 or 2")
    a, b = np.moveaxis(a, axis, 0) * (255 / level), np.moveaxis(b, axis, 0) * (255 / level)
    if not large_enough("VIF", a.shape[1:], (VIF_WINDOW,) * 2):
        return float("nan")
    keep = np.ptp(b, axis=(1, 2)) > 0
    if mask is not None:
        keep &= np.moveaxis(inside_of(mask, truth, "mask"), axis, 0).any((1, 2))
    if not keep.any():
        warnings.warn("VIF is NaN: no slice of the truth holds anything", InvsrWarning, stacklevel=2)
        return float("nan")
    from torchmetrics.functional.image import visual_information_fidelity

    # One slice at a time: the filters of a whole volume at once would need gigabytes.
    x, y = (torch.from_numpy(v[keep].astype(np.float32))[:, None, None] for v in (a, b))
    return float(np.mean([float(visual_information_fidelity(*pair)) for pair in zip(x, y, strict=True)]))


def contrast_to_noise(
    image: Volume3D, region_a: Volume3D, region_b: Volume3D, noise_region: Volume3D | None = None
) -> float:
    """``CNR = |mean_a - mean_b| / sd_noise``.

    ``sd_noise`` is the standard deviation inside `noise_region`, or without one ``sqrt((var_a + var_b) / 2)``.
    Choose uniform regions: structure inside them counts as noise.

    Parameters
    ----------
    image : array or Tensor, shape (i, j, k)
    region_a, region_b, noise_region : array or Tensor, shape (i, j, k)
        Non-zero inside, such as ``labels == 1``; two voxels at least.

    Raises
    ------
    InvsrError
        When a region has another shape or fewer than two voxels, values are not finite, or the noise is zero.

    References
    ----------
    Welvaert & Rosseel (2013), PLoS ONE 8, e77089.

    Examples
    --------
    >>> image = np.array([[[1.0, 3.0, 7.0, 9.0]]])
    >>> round(contrast_to_noise(image, image < 5, image > 5), 4)
    4.2426
    """
    volume = real_volume(image, "image")

    def values(region: Volume3D, name: str) -> Array:
        inside = inside_of(region, volume, name)
        if inside.sum() < 2:
            raise InvsrError(f"the {name} holds 1 voxel: a standard deviation needs 2 or more, draw a larger region")
        return volume[inside]

    a, b = values(region_a, "region_a"), values(region_b, "region_b")
    if noise_region is None:
        sd = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    else:
        sd = values(noise_region, "noise_region").std(ddof=1)
    # Equal values leave rounding errors, not an exact zero.
    if sd <= 1e-12 * np.abs(volume).max():
        raise InvsrError("the noise is 0 where it is measured, so CNR is infinite: give a noise_region that has noise")
    return float(abs(a.mean() - b.mean()) / sd)


def gain(image: Volume3D, reference: Volume3D) -> float:
    """Slope of the least-squares line through the origin: ``<image, reference> / <reference, reference>``.

    1 means that `image` is on the intensity scale of `reference`.

    Examples
    --------
    >>> gain(np.full((2, 2, 2), 3.0), np.full((2, 2, 2), 2.0))
    1.5
    """
    a, b = pair_of(image, reference)
    power = float(np.sum(b * b))
    if power == 0:
        raise InvsrError("the reference is 0 everywhere, so no gain can be measured: check which volume was given")
    return float(np.sum(a * b) / power)


def peak(truth: Volume3D) -> float:
    """The 99.9 percentile of the positive voxels: the intensity that counts as 1.

    Taken over the whole volume, as the reference protocol does, so that a figure's peak does not move with the mask.

    Examples
    --------
    >>> round(peak(np.arange(-1000.0, 1001.0).reshape(3, 23, 29)), 3)
    999.001
    """
    volume = real_volume(truth, "truth")
    positive = volume[volume > 0]
    if positive.size == 0:
        raise InvsrError(f"the truth has no voxel above 0 (maximum {volume.max():.4g}): give data_range and mask")
    return float(np.percentile(positive, 99.9))


def head_mask(truth: Volume3D) -> Mask:
    """The head: voxels above 5 % of the peak, closed over 3 voxels, holes filled, largest component.

    Parameters
    ----------
    truth : array or Tensor, shape (i, j, k)

    Returns
    -------
    bool array, shape (i, j, k)

    Raises
    ------
    InvsrError
        When no voxel is positive, or none is left.

    Examples
    --------
    >>> truth = np.zeros((20, 20, 20))
    >>> truth[5:15, 5:15, 5:15] = 1
    >>> truth[8:12, 8:12, 8:12] = 0  # a ventricle
    >>> int(head_mask(truth).sum())
    1000
    """
    from scipy import ndimage

    volume = real_volume(truth, "truth")
    bright = volume > 0.05 * peak(volume)
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(bright, iterations=3))
    labels, _ = ndimage.label(filled)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # the background
    if sizes.sum() == 0:  # closing erodes what lies within 3 voxels of a face
        raise InvsrError(f"no head found in a volume of shape {volume.shape}: give a mask")
    return np.asarray(labels == sizes.argmax())
