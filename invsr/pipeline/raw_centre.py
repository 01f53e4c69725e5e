"""The middle of k-space off the Cartesian grid, brought onto one: coil maps are found there."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from invsr.coils.centre import centre_box
from invsr.errors import InvsrError
from invsr.noncartesian import NonCartesianData
from invsr.numerics.fourier import fourier
from invsr.operators.nonuniform import NonUniformKSpace
from invsr.pipeline.raw_matrix import centred
from invsr.raw import of_matrix

# Frequencies along each axis, at most: of two axes, of three.
MOST = {2: 40, 3: 32}
# Weight of the image's energy, as a share of the mean eigenvalue; tolerance and iterations of the fit.
RIDGE, RTOL, ITERATIONS = 1e-3, 1e-3, 60
# Random images that tell how well the fit does.
DRAWS = 16
# Share of a frequency's energy that the fit may miss.
MISSED = 0.3


def central_lines(raw: NonCartesianData, seed: int = 0) -> Tensor:
    """The middle of k-space on a Cartesian grid, as far as samples tell its frequencies.

    A least-squares fit of an image of few voxels to the samples of the middle. It holds where random images, put
    through the same fit, come back.

    Parameters
    ----------
    raw : NonCartesianData
    seed : int
        Seed of the random images.

    Returns
    -------
    Tensor, shape (coils, a, b, c), complex64
        Calibration lines of the same field of view.

    Raises
    ------
    InvsrError
        When no sample lies there.
    """
    most = MOST[len(raw.axes)]
    wide = [min(size, most) if n in raw.axes else size for n, size in enumerate(raw.grid.shape)]
    flat = [size if n in raw.axes else 1 for n, size in enumerate(wide)]
    half = torch.tensor([wide[n] / 2 for n in raw.axes]).to(raw.trajectory.device)
    inside = (raw.trajectory.abs() <= half).all(-1)
    if not bool(inside.any()):
        raise InvsrError(f"{raw.name}: its trajectory leaves out the middle of k-space: give coil maps")
    trajectory, samples = raw.trajectory[inside][:, None], raw.samples[:, :, inside][:, :, :, None]

    def fit(y: Tensor, operator: NonUniformKSpace) -> Tensor:
        ridge = RIDGE * operator.mean_eigenvalue()
        image = operator.solve(operator.adjoint(y), ridge, rtol=RTOL, max_iter=ITERATIONS).x
        return fourier(image, raw.axes)

    single = NonUniformKSpace(of_matrix(raw.grid, flat), trajectory, axes=raw.axes)
    parts = torch.randn(2, 1, DRAWS, *flat, generator=torch.Generator().manual_seed(seed))
    images = torch.complex(parts[0], parts[1]).to(samples)
    missed = (fit(single(images), single) - fourier(images, raw.axes)).abs().square().mean(1) / 2
    sides = [3 if size > 2 else 1 for size in flat]
    missed = avg_pool3d(missed, sides, 1, [side // 2 for side in sides], count_include_pad=False)[0]
    box = centre_box((missed < MISSED).float(), raw.axes, wide)
    sizes = [max(1, cut.stop - cut.start) if n in raw.axes else wide[n] for n, cut in enumerate(box)]
    lines = fit(samples, NonUniformKSpace(of_matrix(raw.grid, wide), trajectory, axes=raw.axes))
    return centred(lines, sizes)[0]
