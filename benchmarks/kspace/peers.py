"""The reconstructions of other packages from k-space: sigpy's apps, deepinv, MRpro.

Each takes samples of shape (coils, i, j, k), coil maps, counts of samples, Fourier axes and a weight as multiple of the
noise, and returns the magnitude; where the third axis is no Fourier axis, slices are reconstructed one by one or as a
batch. All take the same numbers of iterations.
"""

import time

import numpy as np
import torch

from invsr.testing.metrics import evaluate

ITERATIONS = 100
# The sweep of weights begins here, as a multiple of the noise, and goes on by this factor while PSNR rises.
FIRST, FACTOR = 0.1, 2.0
# Of deepinv's inner iterations, which start from where the last ones ended.
INNER = 20


def sigpy_app(kind):
    def run(samples, counts, maps, axes, weight):
        import sigpy.mri.app as apps

        def one(y, s, w):
            app = getattr(apps, kind)(y, s, weight, weights=w, max_iter=ITERATIONS, show_pbar=False)
            return np.abs(app.run())

        y, s, w = (each.numpy() for each in (samples, maps, counts))
        if len(axes) == 3:
            return one(y, s, w)
        return np.stack([one(y[..., k], s[..., k], w[..., k]) for k in range(y.shape[-1])], -1)

    return run


def deepinv_tv(samples, counts, maps, axes, weight):
    """FISTA with its TV prior, whose prox iterates; complex numbers are two channels."""
    from deepinv.optim import FISTA, L2, TVPrior
    from deepinv.physics import MultiCoilMRI

    if len(axes) == 3:
        y, s, mask = samples[None], maps[None], counts[None, None]
    else:
        y, s, mask = (one.movedim(-1, 0) for one in (samples, maps, counts))
        mask = mask[:, None]
    physics = MultiCoilMRI(mask=mask, coil_maps=s, three_d=len(axes) == 3)
    data = physics.from_torch_complex(y)
    solver = FISTA(data_fidelity=L2(), prior=TVPrior(n_it_max=INNER), lambda_reg=weight, max_iter=ITERATIONS)
    with torch.no_grad():
        x = physics.to_torch_complex(solver(data, physics)).abs()
    return (x[0] if len(axes) == 3 else x.movedim(0, -1)).numpy()


def mrpro_tv(samples, counts, maps, axes, weight):
    """Its primal-dual algorithm, with the functionals of its TV reconstruction."""
    from mrpro.algorithms.optimizers import pdhg
    from mrpro.operators import (
        FastFourierOp,
        FiniteDifferenceOp,
        LinearOperatorMatrix,
        ProximableFunctionalSeparableSum,
        SensitivityOp,
    )
    from mrpro.operators.functionals import L1NormViewAsReal, L2NormSquared

    mask = (counts > 0).to(samples.dtype)
    operator = mask * (FastFourierOp(dim=[n - 3 for n in axes]) @ SensitivityOp(maps[None]))
    slopes = FiniteDifferenceOp(dim=[n - 3 for n in axes], mode="forward")
    both = LinearOperatorMatrix(((operator,), (slopes,)))
    data = samples[None]
    # Its misfit has no factor of 1/2.
    norms = ProximableFunctionalSeparableSum(L2NormSquared(target=data), L1NormViewAsReal(weight=2 * weight))
    with torch.no_grad():
        (x,) = pdhg(f=norms, g=None, operator=both, initial_values=operator.H(data), max_iterations=ITERATIONS)
    return x[0, 0].abs().numpy()


PEERS = {
    "sigpy wavelet": sigpy_app("L1WaveletRecon"),
    "sigpy tv": sigpy_app("TotalVariationRecon"),
    "deepinv tv": deepinv_tv,
    "mrpro tv": mrpro_tv,
}


def best_of_sweep(run, data, sigma, truth, mask, name):
    """The best magnitude of the sweep, the name with the weight, no chi2, and the seconds of that one run."""
    found = {}

    def score(n):
        if n not in found:
            begun = time.perf_counter()
            image = run(*data, FIRST * FACTOR**n * sigma)
            seconds = time.perf_counter() - begun
            found[n] = evaluate(image, truth, mask, quick=True)["psnr"], image, seconds
        return found[n][0]

    best = 0
    for direction in (1, -1):
        while score(best + direction) > score(best):
            best += direction
    _, image, seconds = found[best]
    return image, f"{name}, {FIRST * FACTOR**best:.3g} sigma", "", seconds
