"""One operator, several packages: how long it takes, and how far they are apart.

    python -m benchmarks.kspace.operators [--side 96]

"coils": k-space of a cube by eight coils, an eighth of it in a Poisson disc. "spokes": one slice, 64 spokes at golden
angles, readouts oversampled twice, eight coils. "slices": slices of 4 voxels (Gaussian) of the cube. The image is the
example head, for "slices" with air at both ends, where packages differ in what lies beyond. Milliseconds are the least
of five calls; "A*A" is the normal operator where a package has one of its own, else forward and adjoint. The difference
is that of the forward operator to ours, relative. MRpro takes `pip install mrpro`.
"""

import time

import numpy as np
import torch

from benchmarks.arguments import normalised, parser, row, table
from invsr.examples import example
from invsr.grid import Grid
from invsr.operators import KSpaceMask, NonUniformKSpace, acquisition, poisson_disc, radial
from invsr.testing.kspace import sensitivities

REPEATS = 5


def head(side):
    """The middle of the example head, peak about 1."""
    return normalised(example(side)).data


def least(function, *arguments):
    """The result, and the least seconds of several calls."""
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        found = function(*arguments)
        seconds.append(time.perf_counter() - begun)
    return found, min(seconds)


def show(problem, packages, x):
    """Rows of packages: a name, and what makes (forward, adjoint, normal), with tensors as ours."""
    ours = None
    for name, make in packages.items():
        begun = time.perf_counter()
        forward, adjoint, normal = make()
        making = time.perf_counter() - begun
        y, there = least(forward, x)
        _, back = least(adjoint, y)
        _, both = least(normal, x) if normal is not None else (None, there + back)
        values = torch.as_tensor(np.asarray(y)).squeeze()
        ours = values if ours is None else ours
        apart = float((values - ours).norm() / ours.norm())
        times = [f"{1e3 * one:.1f}" for one in (there, back, both)]
        row([problem, name, f"{making:.2f}", *times, f"{apart:.1e}"])


def coils(side):
    shape = (side, side, side)
    mask, maps = poisson_disc(shape, 8, side // 8).float(), sensitivities(shape, 8)

    def ours():
        operator = KSpaceMask(Grid(shape, np.eye(4)), mask, maps)
        return operator, operator.adjoint, operator.gram

    def sigpy():
        from sigpy.mri.linop import Sense

        operator = Sense(maps.numpy(), weights=mask.numpy())
        return lambda x: operator(x[0, 0].numpy()), operator.H, None

    def deepinv():
        from deepinv.physics import MultiCoilMRI

        physics = MultiCoilMRI(mask=mask[None, None], coil_maps=maps[None], three_d=True)

        def forward(x):
            return physics.to_torch_complex(physics(physics.from_torch_complex(x[:, 0])))

        return forward, lambda y: physics.A_adjoint(physics.from_torch_complex(y)), None

    def mrpro():
        from mrpro.operators import FastFourierOp, SensitivityOp

        operator = mask.to(maps.dtype) * (FastFourierOp() @ SensitivityOp(maps[None]))
        return lambda x: operator(x)[0], lambda y: operator.H(y)[0], None

    packages = {"invsr": ours, "sigpy": sigpy, "deepinv": deepinv, "mrpro": mrpro}
    show(f"coils, {side}³", packages, head(side) + 0j)


def spokes(side):
    shape = (side, side, 1)
    points, maps = radial(64, 2 * side, side), sensitivities(shape, 8)

    def ours():
        operator = NonUniformKSpace(Grid(shape, np.eye(4)), points, maps, axes=(0, 1))
        return operator, operator.adjoint, operator.gram

    def sigpy():
        from sigpy.mri.linop import Sense

        operator = Sense(maps[..., 0].numpy(), coord=points.numpy())
        return lambda x: operator(x[0, 0, ..., 0].numpy()), operator.H, None

    def mrpro():
        from mrpro.data import KTrajectory
        from mrpro.operators import NonUniformFastFourierOp, SensitivityOp

        ky, kx = (points[..., n].T[None, None, None] for n in (0, 1))
        trajectory = KTrajectory(torch.zeros(1, 1, 1, 1, 1), ky, kx)
        fourier = NonUniformFastFourierOp((-2, -1), shape[:2], shape[:2], trajectory)
        operator = fourier @ SensitivityOp(maps[..., 0][None, :, None])
        normal = operator.gram
        return (
            lambda x: operator(x[..., 0][:, :, None])[0],
            lambda y: operator.H(y)[0],
            lambda x: normal(x[..., 0][:, :, None])[0],
        )

    packages = {"invsr": lambda: transposed(ours()), "sigpy": lambda: transposed(sigpy()), "mrpro": mrpro}
    show(f"spokes, {side}²", packages, head(side)[..., side // 2 : side // 2 + 1] + 0j)


def transposed(three):
    """Samples in the order coils, shots, readout."""
    forward, adjoint, normal = three

    def reordered(x):
        return torch.as_tensor(np.asarray(forward(x))).squeeze().movedim(1, 2)

    def back(y):
        samples = y.movedim(2, 1)
        return adjoint(samples[None, ..., None] if normal is not None else samples.contiguous().numpy())

    return reordered, back, normal


def slices(side):
    grid = Grid((side, side, side), np.eye(4))
    count = side // 4

    def ours():
        operator = acquisition(grid.coarsen((4, 1, 1)), reference=grid, slice_thickness=4.0, through_plane=0)
        return operator, operator.adjoint, operator.gram

    def mrpro():
        from mrpro.data import SpatialDimension
        from mrpro.operators import SliceProjectionOp
        from mrpro.utils.slice_profiles import SliceGaussian

        shift = 1.5 + 4 * torch.arange(count) - (side - 1) / 2
        operator = SliceProjectionOp(SpatialDimension(side, side, side), None, shift, SliceGaussian(4.0))
        return lambda x: operator(x[0, 0])[0], lambda y: operator.H(y)[0], None

    x = head(side).clone()
    x[:, :, :8] = x[:, :, -8:] = 0
    show(f"slices, {side}³", {"invsr": ours, "mrpro": mrpro}, x)


def main():
    options = parser(__doc__)
    options.add_argument("--side", type=int, default=96, help="[%(default)s]")
    args = options.parse_args()
    torch.manual_seed(0)
    table(["problem", "package", "set-up (s)", "A (ms)", "A* (ms)", "A*A (ms)", "difference"])
    with torch.no_grad():
        for problem in (coils, spokes, slices):
            problem(args.side)


if __name__ == "__main__":
    main()
