"""Noise that is independent between coils, and of standard deviation 1."""

from __future__ import annotations

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.raw import Data

# Samples of noise for each coil: the covariance of n samples of C coils is off by about sqrt(C / n).
FEWEST_PER_COIL = 10
# A noise variance below this share of the largest, in some combination of coils, is a dead coil or a copy of others.
SINGULAR = 1e-10


def noise_covariance(noise: Tensor) -> Tensor:
    """Covariance of the noise between coils, ``Psi_cd = 1/(2 n) sum n_c conj(n_d)``, shape (coils, coils), complex128.

    So it is the identity where coils are independent, and the standard deviation of each part is 1, the real and the
    imaginary one. The mean of the noise is taken to be zero.

    Parameters
    ----------
    noise : Tensor, shape (coils, n), complex
        Samples of noise alone.

    Raises
    ------
    InvsrError
        When there are fewer than ten samples for each coil, some are not finite, or a coil or a combination of coils
        has no noise.

    Examples
    --------
    >>> noise = torch.randn(2, 100000, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    >>> [round(float(v), 1) for v in noise_covariance(noise).real.diagonal()]  # torch's has variance 1/2 in each part
    [0.5, 0.5]
    """
    if noise.ndim != 2 or not noise.is_complex():
        raise InvsrError(
            f"noise scan of shape {tuple(noise.shape)}, {noise.dtype}: give complex samples, (coils, samples)"
        )
    coils, n = noise.shape
    if n < FEWEST_PER_COIL * coils:
        raise InvsrError(
            f"noise scan of {n} samples for {coils} coils: at least {FEWEST_PER_COIL * coils} are needed; leave it "
            "out, so that the noise is estimated from k-space"
        )
    values = noise.to(torch.complex128)
    if not bool(values.isfinite().all()):
        raise InvsrError("noise scan holds NaN or infinite samples: leave them out")
    covariance = values @ values.mH / (2 * n)
    check_covariance(covariance, coils)
    return covariance


def whitened(raw: Data, covariance: Tensor | None = None) -> Data:
    """Samples whose noise is independent between coils: ``L^-1 y`` with ``L L^H = Psi``, Cholesky's factor.

    The noise of a sample measured once then has standard deviation 1 in its real and 1 in its imaginary part, that of a
    mean of m averages ``1 / sqrt(m)``. The calibration lines and the noise scan are whitened alike.

    Parameters
    ----------
    raw : RawData or NonCartesianData
    covariance : Tensor, shape (coils, coils), complex, optional
        Psi as `noise_covariance` and `estimate_noise` define it; that of the noise scan by default.

    Raises
    ------
    InvsrError
        When there is neither, the noise scan is too short, or the covariance does not fit or is singular.

    References
    ----------
    Pruessmann, Weiger, Boernert, Boesiger (2001), Magn. Reson. Med. 46, 638-651 (decorrelated coils).
    """
    if covariance is None:
        if raw.noise is None:
            raise InvsrError(
                f"{raw.name}: has no noise scan to whiten its coils by: give the covariance that estimate_noise finds"
            )
        try:
            covariance = noise_covariance(raw.noise)
        except InvsrError as error:
            raise InvsrError(f"{raw.name}: {error}") from None
    check_covariance(covariance, raw.n_coils, raw.name)
    return combined(raw, whitening_matrix(covariance))


def whitening_matrix(covariance: Tensor) -> Tensor:
    """``L^-1`` with ``L L^H`` the covariance, complex128: what `whitened` multiplies samples by."""
    factor = torch.linalg.cholesky(covariance.to(torch.complex128))
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
    return inverse


def combined(raw: Data, matrix: Tensor) -> Data:
    """The data of virtual coils, ``sum_c matrix_vc y_c``: samples, calibration lines and noise scan.

    Parameters
    ----------
    raw : RawData or NonCartesianData
    matrix : Tensor, shape (virtual coils, coils), complex
    """
    noise = None if raw.noise is None else mixed(matrix, raw.noise)
    calibration = None if raw.calibration is None else mixed(matrix, raw.calibration)
    return raw.with_samples(mixed(matrix, raw.samples[0])[None], noise=noise, calibration=calibration)


def mixed(matrix: Tensor, values: Tensor) -> Tensor:
    """``sum_c matrix_vc values_c`` of values (coils, ...), complex64: their maps, for instance."""
    rows = matrix.to(values.device, torch.complex64)
    return (rows @ values.to(rows.dtype).flatten(1)).reshape(len(rows), *values.shape[1:])


def check_covariance(covariance: Tensor, coils: int, name: str = "noise scan") -> None:
    """Refuse a covariance of the noise that does not fit the coils, or that has no inverse.

    Raises
    ------
    InvsrError
    """
    if tuple(covariance.shape) != (coils, coils):
        raise InvsrError(f"{name}: noise covariance of shape {tuple(covariance.shape)} for {coils} coils")
    variances = covariance.diagonal().real
    dead = [int(c) for c in (variances <= SINGULAR * variances.max()).nonzero().flatten()]
    if dead or not bool(covariance.isfinite().all()):
        which = f"coil {', '.join(map(str, dead))} has no noise" if dead else "it is not finite"
        raise InvsrError(f"{name}: the noise covariance has no inverse, {which}: leave out coils that received nothing")
    spread = variances.rsqrt().to(covariance.dtype)
    values = torch.linalg.eigvalsh(spread[:, None] * covariance * spread)
    if float(values[0]) <= SINGULAR * float(values[-1]):
        raise InvsrError(
            f"{name}: the noise covariance of {coils} coils has no inverse, as some are combinations of others: "
            "compress the coils before, or leave copies out"
        )
