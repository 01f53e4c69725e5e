"""Where slices lie in a volume: rigid registration by Gauss-Newton on the slices' own forward model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.motion.order import links
from invsr.numerics.axes import gaussian_means, multiply
from invsr.numerics.interpolation import Sample
from invsr.operators.moving_slices import Slices
from invsr.operators.profiles import AxisProfile

# Residuals, in robust standard deviations, from which on pixels count for less (Geman & McClure).
OUTLYING = 3.0
# Neighbouring pixels err together: as if this many were one.
CORRELATED = 10.0
# A rotation moves the surface of a brain by its angle times this, mm.
RADIUS = 50.0
N_ITER = 8
# Of the peak: what is bright enough to compare intensities.
BRIGHT = 0.1


@dataclass(frozen=True)
class Scan:
    """What registration needs of one scan.

    Attributes
    ----------
    data : Tensor, shape (1, 1, *grid.shape)
        Intensities of all scans on one scale.
    grid : Grid
    profile : AxisProfile
    axis : int
        Across the slices.
    mask : Tensor or None, bool, shape of data
    motion : Tensor, shape (n_slices, 6), float64
        Rotation vectors (radians) about `centre` and translations (mm), from the scan to the volume.
    centre : Tensor, shape (3,), mm, float64
        The same for all scans.
    weights : Tensor, shape (n_slices,)
        1 for slices that are used, 0 for rejected ones.
    order : Tensor, shape (n_slices,)
        Slice numbers as they were acquired, or as is assumed until their motion tells.
    ordered : bool
        Whether the order is known.
    gain : float
        By which the data were divided: of this scan's intensities against the volume's.
    bias : Tensor, shape (9,)
        Of the field by which they were divided too (`invsr.motion.bias`).
    correlation : float
        With what the volume predicts.
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
        """The scan's forward model for a volume on `domain`, its pixels points."""
        return Slices(domain, self.grid, self.profile, self.motion, centre=self.centre, through_plane=self.axis)

    def coarser(self, spacing: float) -> Scan:
        """The same with about `spacing` between pixels, the mean of Gaussian weights of that width."""
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
class Fit:
    """How well each slice fits: normal equations and figures.

    Attributes
    ----------
    curvature, slope : Tensor, shapes (n_slices, 6, 6), (n_slices, 6)
        Of the cost in small motions (rotation about the centre, translation) after the present one.
    cost : Tensor, shape (n_slices,)
        Robust, per effective pixel.
    misfit : Tensor, shape (n_slices,)
        Root mean square residual of each slice, in intensities.
    signal : Tensor, shape (n_slices,)
        Root mean square of each slice's prediction.
    counts : Tensor, shape (n_slices,)
        Pixels that see the volume, inside the mask.
    spread : float
        Robust standard deviation of all residuals.
    correlation : float
        Between all slices and their prediction.
    gain : float
        Of the scan against the volume.
    """

    curvature: Tensor
    slope: Tensor
    cost: Tensor
    misfit: Tensor
    signal: Tensor
    counts: Tensor
    spread: float
    correlation: float
    gain: float


def fit(volume: Tensor, domain: Grid, scan: Scan, spread: float | None = None) -> Fit:
    """Residuals of a scan's slices against a volume, and how they change with motion.

    Parameters
    ----------
    volume : Tensor, shape (1, 1, *domain.shape)
    domain : Grid
    scan : Scan
    spread : float, optional
        Standard deviation from which outliers are told; by default estimated here.
    """
    slices = scan.slices(domain)
    channels = torch.cat([volume, _gradient(volume, domain)], 1)
    a, b = slices.in_plane
    data = scan.data.movedim(2 + scan.axis, 2)[0, 0]
    masked = torch.ones_like(data, dtype=torch.bool) if scan.mask is None else scan.mask.movedim(2 + scan.axis, 2)[0, 0]
    means, seen = [], []
    for _, at, share in slices.parts(volume):
        means.append((Sample.apply(channels, at, False, None) * share).sum(-1)[0])
        seen.append(share.sum(-1) > 0.5)
    shape = data.shape
    predicted, *slopes = torch.cat(means, 1).reshape(4, *shape).double()
    inside = masked & torch.cat(seen).reshape(shape)
    counted = inside * scan.weights.to(data)[:, None, None]
    data = data.double()
    # A ratio of means: slopes are biased where the volume is smoother than the data.
    bright = counted * (predicted > BRIGHT)
    below = float((bright * predicted).sum())
    gain = float((bright * data).sum()) / below if below else 1.0
    residual = torch.where(inside, data / max(gain, 1e-6) - predicted, 0.0)
    if spread is None:
        used = residual[counted > 0].abs()
        spread = 1.4826 * float(used.median()) if used.numel() else 1.0
        spread = max(spread, 1e-3)
    z = (residual / spread) ** 2
    limit = OUTLYING**2
    weight = inside / (1 + z / limit) ** 2
    # As if all of the mask saw the volume: there is nothing to gain by leaving it.
    counts = inside.sum((1, 2))
    share = masked.sum((1, 2)) / counts.clamp(min=1)
    cost = share * (inside * z / (1 + z / limit)).sum((1, 2)) / CORRELATED
    # World position of each pixel, less the centre: the lever arm of rotations.
    matrices = slices.matrices() @ torch.tensor(scan.grid.affine)
    s, i, j = (torch.arange(n, dtype=torch.float64)[:, None] for n in shape)
    m = matrices[:, :3].mT[:, :, None]
    arm = (i * m[:, a])[:, :, None] + (j * m[:, b])[:, None] + (s[:, :, None] * m[:, scan.axis] + m[:, 3])[:, None]
    arm = arm - scan.centre
    gradient = torch.stack(slopes, -1)
    jacobian = torch.cat([torch.linalg.cross(arm, gradient), gradient], -1).flatten(1, 2)
    weighted = jacobian * (weight / (spread**2 * CORRELATED)).flatten(1)[..., None]
    pair = torch.stack([predicted[counted > 0], data[counted > 0]])
    correlation = float(torch.corrcoef(pair)[0, 1]) if pair.shape[1] > 1 and bool((pair.std(1) > 0).all()) else 0.0
    return Fit(
        curvature=weighted.mT @ jacobian,
        slope=(weighted.mT @ residual.flatten(1)[..., None])[..., 0],
        cost=cost,
        misfit=((inside * residual**2).sum((1, 2)) / counts.clamp(min=1)).sqrt(),
        signal=((inside * predicted**2).sum((1, 2)) / counts.clamp(min=1)).sqrt(),
        counts=counts,
        spread=spread,
        correlation=correlation,
        gain=gain,
    )


def _gradient(volume: Tensor, domain: Grid) -> Tensor:
    """Slope per mm along the world axes, shape (1, 3, ...), by central differences."""
    slopes = torch.gradient(volume[0, 0], spacing=domain.spacing.tolist())
    directions = torch.tensor(domain.directions).to(volume)
    return torch.einsum("wn,nijk->wijk", directions, torch.stack(list(slopes)))[None]


def align(
    volume: Tensor, domain: Grid, scan: Scan, *, each_slice: bool, stiffness: float = 0.0, n_iter: int = N_ITER
) -> Scan:
    """The scan with the motion that fits a volume best, near the present one (Levenberg-Marquardt).

    Parameters
    ----------
    volume, domain
        What to fit to.
    scan : Scan
    each_slice : bool
        A motion for each slice, or one more for all of them.
    stiffness : float, 1 / mm^2
        With `each_slice`: weight of squared differences between slices acquired one after the other, in mm
        at `RADIUS` from the centre, against squared residuals in standard deviations.
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
    for _ in range(n_iter):
        step = _step(here, scan, neighbours, stiff, damping, each_slice, units)
        moved = replace(scan, motion=composed(step, scan.motion))
        there = fit(volume, domain, moved, here.spread)
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


def scaled(scan: Scan, found: Fit) -> Scan:
    """The scan with its intensities brought to the volume's."""
    gain = found.gain if found.gain > 0 else 1.0
    return replace(scan, gain=scan.gain * gain, data=scan.data / gain, correlation=found.correlation)


def _chosen(better: Tensor, there: Fit, here: Fit) -> Fit:
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
    here: Fit, scan: Scan, neighbours: Tensor, stiff: Tensor, damping: Tensor, each_slice: bool, units: Tensor
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
    # Slices that see nothing stay where they are.
    least = 1e-6 * units**2 + damping[:, None] * diagonal
    step = torch.linalg.solve(curvature + torch.diag_embed(least), slope[..., None])[..., 0]
    length = (step * units).norm(dim=-1, keepdim=True)
    return torch.mul(step, 10.0 / length.clamp(min=10.0))


def composed(step: Tensor, motion: Tensor) -> Tensor:
    """Motion after which a small one follows: ``T' = S T``, both about the same centre; shapes (..., 6)."""
    from scipy.spatial.transform import Rotation

    step = step.expand_as(motion)
    second, first = Rotation.from_rotvec(step[:, :3].numpy()), Rotation.from_rotvec(motion[:, :3].numpy())
    shift = second.apply(motion[:, 3:].numpy()) + step[:, 3:].numpy()
    return torch.from_numpy(np.concatenate([(second * first).as_rotvec(), shift], 1))
