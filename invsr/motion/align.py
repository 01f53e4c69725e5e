"""Rigid slice-to-volume registration: Gauss-Newton on the residuals of the forward model of the slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.motion.order import links
from invsr.numerics.axes import gaussian_means, multiply
from invsr.numerics.interpolation import Sample
from invsr.numerics.iteration import each
from invsr.operators.moving_slices import Slices
from invsr.operators.profiles import AxisProfile

# Residual, in robust standard deviations, above which pixels are down-weighted (Geman & McClure).
OUTLIER_RESIDUAL = 3.0
# Errors of neighbouring pixels are correlated: this many pixels count as one.
CORRELATED_PIXELS = 10.0
# Least standard deviation of the residuals, as a share of the peak.
LEAST_RESIDUAL_SD = 1e-3
# Radius of a brain, mm: a rotation moves its surface by the angle times this.
RADIUS = 50.0
N_ITER = 8
# Intensities are compared where they exceed this share of the peak.
LEAST_INTENSITY = 0.1


@dataclass(frozen=True)
class RegisteredScan:
    """A scan with its estimated motion, gain and bias field: images on any device, what is estimated on the CPU.

    Attributes
    ----------
    data : Tensor, shape (1, 1, *grid.shape)
        Intensities, all scans on one scale.
    grid : Grid
    profile : AxisProfile
    axis : int
        Axis across the slices.
    mask : Tensor or None, bool, shape of data
    motion : Tensor, shape (n_slices, 6), float64
        Rotation vectors (radians) about `centre` and translations (mm), from scan to volume coordinates.
    centre : Tensor, shape (3,), mm, float64
        Centre of rotation, the same for all scans.
    weights : Tensor, shape (n_slices,)
        1 for used slices, 0 for outlier slices.
    order : Tensor, shape (n_slices,)
        Slice numbers in the order of acquisition; assumed, until it is estimated from the motion, unless `ordered`.
    ordered : bool
        Whether the order of acquisition is known.
    gain : float
        Intensity of this scan relative to the volume; the data were divided by it.
    bias : Tensor, shape (9,)
        Coefficients of the bias field, by which the data were also divided (`invsr.motion.bias`).
    correlation : float
        Correlation of the data with the prediction of the volume.
    """

    data: Tensor
    grid: Grid
    profile: AxisProfile
    axis: int
    mask: Tensor | None
    motion: Tensor
    centre: Tensor
    weights: Tensor
    order: Tensor
    bias: Tensor
    ordered: bool = False
    gain: float = 1.0
    correlation: float = 1.0

    def slices(self, domain: Grid) -> Slices:
        """The forward model of the scan for a volume on `domain`; pixels are point samples in-plane."""
        found = Slices(domain, self.grid, self.profile, self.motion, centre=self.centre, through_plane=self.axis)
        return found.to(self.data.device)

    def coarser(self, spacing: float) -> RegisteredScan:
        """The scan with in-plane pixels of about `spacing` mm, Gaussian-weighted means of the original ones."""
        data, mask = self.data, None if self.mask is None else self.mask.to(self.data)
        seen = torch.ones_like(data) if mask is None else mask
        data = data * seen
        affine, shape = self.grid.affine.copy(), list(self.grid.shape)
        for n in (0, 1, 2):
            stride = round(spacing / float(self.grid.spacing[n]))
            if n == self.axis or stride < 2:
                continue
            count = -(-shape[n] // stride)
            blur = gaussian_means(shape[n], stride).to(data)
            pick = torch.arange(count, device=data.device) * stride
            data, seen = multiply(blur[pick], data, n), multiply(blur[pick], seen, n)
            affine[:3, n] *= stride
            shape[n] = count
        data = torch.where(seen > 0.5, data / seen.clamp(min=0.5), 0.0)
        return replace(self, data=data, grid=Grid(shape, affine), mask=None if mask is None else seen > 0.5)


@dataclass(frozen=True)
class SliceFit:
    """Fit of each slice to a volume: normal equations and measures of fit, a few numbers, on the CPU.

    Attributes
    ----------
    curvature, slope : Tensor, shapes (n_slices, 6, 6), (n_slices, 6)
        Gauss-Newton curvature and negative gradient of half the cost, for small rotations about the centre and
        translations that follow the present motion.
    cost : Tensor, shape (n_slices,)
        Robust cost, in units of effective pixels.
    misfit : Tensor, shape (n_slices,)
        Root mean square residual of each slice, in intensities.
    signal : Tensor, shape (n_slices,)
        Root mean square of each slice's prediction.
    counts : Tensor, shape (n_slices,)
        Pixels that see the volume, inside the mask.
    residual_sd : float
        Robust standard deviation of all residuals.
    correlation : float
        Correlation of all slices with their prediction.
    gain : float
        Intensity of the scan relative to the volume.
    """

    curvature: Tensor
    slope: Tensor
    cost: Tensor
    misfit: Tensor
    signal: Tensor
    counts: Tensor
    residual_sd: float
    correlation: float
    gain: float


def fit(volume: Tensor, domain: Grid, scan: RegisteredScan, residual_sd: float | None = None) -> SliceFit:
    """Residuals of a scan's slices against a volume, and their derivatives with respect to motion.

    Parameters
    ----------
    volume : Tensor, shape (1, 1, *domain.shape)
    domain : Grid
    scan : RegisteredScan
    residual_sd : float, optional
        Standard deviation of the residuals, relative to which outliers are down-weighted; estimated by default.
    """
    slices = scan.slices(domain)
    data = scan.data.movedim(2 + scan.axis, 2)[0, 0]
    predicted, gradient, seen = _predicted(volume, domain, slices, data.shape)
    masked = torch.ones_like(data, dtype=torch.bool) if scan.mask is None else scan.mask.movedim(2 + scan.axis, 2)[0, 0]
    inside = masked & seen
    counted = inside * scan.weights.to(data)[:, None, None]
    data = data.double()
    gain = _gain(predicted, data, counted)
    residual = torch.where(inside, data / max(gain, 1e-6) - predicted, 0.0)
    if residual_sd is None:
        used = residual[counted > 0].abs()
        residual_sd = max(1.4826 * float(used.median()) if used.numel() else 1.0, LEAST_RESIDUAL_SD)
    z = (residual / residual_sd) ** 2
    limit = OUTLIER_RESIDUAL**2
    weight = inside / (1 + z / limit) ** 2
    counts = inside.sum((1, 2))
    # Scaled to the whole mask: a slice gains nothing by moving out of the field of view.
    share = masked.sum((1, 2)) / counts.clamp(min=1)
    cost = share * (inside * z / (1 + z / limit)).sum((1, 2)) / CORRELATED_PIXELS
    jacobian = torch.cat([torch.linalg.cross(lever_arms(scan, slices, data.shape), gradient), gradient], -1).flatten(
        1, 2
    )
    weighted = jacobian * (weight / (residual_sd**2 * CORRELATED_PIXELS)).flatten(1)[..., None]
    return SliceFit(
        curvature=(weighted.mT @ jacobian).cpu(),
        slope=(weighted.mT @ residual.flatten(1)[..., None])[..., 0].cpu(),
        cost=cost.cpu(),
        misfit=((inside * residual**2).sum((1, 2)) / counts.clamp(min=1)).sqrt().cpu(),
        signal=((inside * predicted**2).sum((1, 2)) / counts.clamp(min=1)).sqrt().cpu(),
        counts=counts.cpu(),
        residual_sd=residual_sd,
        correlation=_correlation(predicted[counted > 0], data[counted > 0]),
        gain=gain,
    )


def _predicted(volume: Tensor, domain: Grid, slices: Slices, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """The slices that the volume predicts, their gradient along the world axes, and the pixels that see the volume.

    All have the given shape (n_slices, a, b); the gradient, per mm, has 3 entries for each pixel.
    """
    channels = torch.cat([volume, slopes_of(volume, domain)], 1)
    means, seen = [], []
    for _, at, share in slices.parts(volume):
        means.append((Sample.apply(channels, at, False, None) * share).sum(-1)[0])
        seen.append(share.sum(-1) > 0.5)
    predicted, *gradient = torch.cat(means, 1).reshape(4, *shape).double()
    return predicted, torch.stack(gradient, -1), torch.cat(seen).reshape(shape)


def _gain(predicted: Tensor, data: Tensor, counted: Tensor) -> float:
    """Mean of the data over mean of the prediction; a regression slope is biased if the volume is the smoother one."""
    bright = counted * (predicted > LEAST_INTENSITY)
    below = float((bright * predicted).sum())
    return float((bright * data).sum()) / below if below else 1.0


def lever_arms(scan: RegisteredScan, slices: Slices, shape: torch.Size) -> Tensor:
    """World position of each pixel relative to the centre of rotation, mm: (n_slices, a, b) and 3 entries."""
    a, b = slices.in_plane
    device = scan.data.device
    matrices = slices.matrices() @ torch.tensor(scan.grid.affine, device=device)
    s, i, j = (torch.arange(n, dtype=torch.float64, device=device)[:, None] for n in shape)
    m = matrices[:, :3].mT[:, :, None]
    middle = s[:, :, None] * m[:, scan.axis] + m[:, 3]
    return (i * m[:, a])[:, :, None] + (j * m[:, b])[:, None] + middle[:, None] - scan.centre.to(device)


def _correlation(predicted: Tensor, data: Tensor) -> float:
    pair = torch.stack([predicted, data])
    if pair.shape[1] < 2 or not bool((pair.std(1) > 0).all()):
        return 0.0
    return float(torch.corrcoef(pair)[0, 1])


def slopes_of(volume: Tensor, domain: Grid) -> Tensor:
    """Gradient per mm along the world axes, shape (1, 3, ...), by central differences."""
    slopes = torch.zeros_like(volume[0]).repeat(3, 1, 1, 1)
    for axis, spacing in enumerate(domain.spacing.tolist()):
        if domain.shape[axis] > 1:  # along a single voxel there is no slope
            slopes[axis] = torch.gradient(volume[0, 0], spacing=spacing, dim=axis)[0]
    directions = torch.tensor(domain.directions).to(volume)
    return torch.einsum("wn,nijk->wijk", directions, slopes)[None]


def align(
    volume: Tensor,
    domain: Grid,
    scan: RegisteredScan,
    *,
    each_slice: bool,
    stiffness: float = 0.0,
    n_iter: int = N_ITER,
) -> RegisteredScan:
    """Register a scan to a volume by Levenberg-Marquardt, from its present motion.

    Parameters
    ----------
    volume, domain
        The volume and its grid.
    scan : RegisteredScan
    each_slice : bool
        Estimate a motion for each slice, or one for the whole scan, which follows the motion of its slices.
    stiffness : float, 1 / mm^2
        With `each_slice`, weight of the squared motion between consecutively acquired slices (mm, at `RADIUS` from
        the centre) relative to squared residuals (in standard deviations).
    n_iter : int

    References
    ----------
    Levenberg (1944), Q. Appl. Math. 2, 164-168. Marquardt (1963), SIAM J. Appl. Math. 11, 431-441.
    """
    units = torch.tensor([RADIUS] * 3 + [1.0] * 3, dtype=torch.float64)
    stiff = stiffness * units**2 if each_slice else torch.zeros(6, dtype=torch.float64)
    neighbours = links(scan.order)
    here = fit(volume, domain, scan)
    cost = _total(here.cost, scan.motion, neighbours, stiff, each_slice)
    damping = torch.full((len(scan.motion) if each_slice else 1,), 1e-3, dtype=torch.float64)
    for _ in each(range(n_iter)):
        step = _step(here, scan, neighbours, stiff, damping, each_slice, units)
        moved = replace(scan, motion=composed(step, scan.motion))
        there = fit(volume, domain, moved, here.residual_sd)
        after = _total(there.cost, moved.motion, neighbours, stiff, each_slice)
        better = after < cost
        damping = torch.where(better, damping / 5, damping * 20)
        if each_slice:
            scan = replace(scan, motion=torch.where(better[:, None], moved.motion, scan.motion))
            here = _chosen(better, there, here)
            cost = _total(here.cost, scan.motion, neighbours, stiff, each_slice)
        elif bool(better):
            scan, here, cost = moved, there, after
        if float((step * units).abs().max()) < 0.01:
            break
    return scaled(scan, here)


def scaled(scan: RegisteredScan, found: SliceFit) -> RegisteredScan:
    """The scan with its intensities scaled to those of the volume."""
    gain = found.gain if found.gain > 0 else 1.0
    return replace(scan, gain=scan.gain * gain, data=scan.data / gain, correlation=found.correlation)


def _chosen(better: Tensor, there: SliceFit, here: SliceFit) -> SliceFit:
    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(better.reshape(-1, *([1] * (a.ndim - 1))), a, b)

    return replace(
        there,
        curvature=pick(there.curvature, here.curvature),
        slope=pick(there.slope, here.slope),
        cost=pick(there.cost, here.cost),
    )


def _total(cost: Tensor, motion: Tensor, neighbours: Tensor, stiff: Tensor, each_slice: bool) -> Tensor:
    if not each_slice:
        return cost.sum()[None]
    return cost + ((motion[:, None] - motion[neighbours]) ** 2 * stiff).sum((1, 2))


def _step(
    here: SliceFit,
    scan: RegisteredScan,
    neighbours: Tensor,
    stiff: Tensor,
    damping: Tensor,
    each_slice: bool,
    units: Tensor,
) -> Tensor:
    if not each_slice:
        used = scan.weights.double()
        curvature = (here.curvature * used[:, None, None]).sum(0, keepdim=True)
        slope = (here.slope * used[:, None]).sum(0, keepdim=True)
    else:
        n_links = (neighbours != torch.arange(len(neighbours))[:, None]).sum(1)
        curvature = here.curvature + n_links[:, None, None] * torch.diag(stiff)
        slope = here.slope + ((scan.motion[neighbours] - scan.motion[:, None]) * stiff).sum(1)
    diagonal = torch.diagonal(curvature, dim1=-2, dim2=-1)
    # Slices outside the volume do not move.
    least = 1e-6 * units**2 + damping[:, None] * diagonal
    step = torch.linalg.solve(curvature + torch.diag_embed(least), slope[..., None])[..., 0]
    length = (step * units).norm(dim=-1, keepdim=True)
    return torch.mul(step, 10.0 / length.clamp(min=10.0))


def composed(step: Tensor, motion: Tensor) -> Tensor:
    """The composition ``S T`` of a step S after a motion T about the same centre; shapes (..., 6)."""
    from scipy.spatial.transform import Rotation

    step = step.expand_as(motion)
    second, first = Rotation.from_rotvec(step[:, :3].numpy()), Rotation.from_rotvec(motion[:, :3].numpy())
    shift = second.apply(motion[:, 3:].numpy()) + step[:, 3:].numpy()
    return torch.from_numpy(np.concatenate([(second * first).as_rotvec(), shift], 1))
