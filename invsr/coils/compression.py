"""Fewer virtual coils that hold next to all of the signal."""

from __future__ import annotations

import torch
from torch import Tensor

from invsr.coils.whitening import combined
from invsr.errors import InvsrError
from invsr.raw import Data


def compressed(raw: Data, n_coils: int | None = None, energy: float = 0.995) -> Data:
    """Principal components across whitened coils: ``V* y`` with V the eigenvectors of ``sum_k m_k y_k y_k*``.

    V has orthonormal columns, so that the noise stays white. White noise of standard deviation 1 in each part adds 2 n
    to every eigenvalue of n samples; the rest is signal. The strongest virtual coils come first.

    Parameters
    ----------
    raw : RawData or NonCartesianData
        From `whitened`.
    n_coils : int, optional
        Virtual coils to keep; by default as few as hold the share `energy` of the signal's energy.
    energy : float
        Above 0, at most 1.

    Returns
    -------
    RawData or NonCartesianData
        Its notes tell how many of how many coils were kept; `raw` itself where all are.

    Raises
    ------
    InvsrError
        When a number is out of range.

    References
    ----------
    Buehrer, Pruessmann, Boesiger, Kozerke (2007), Magn. Reson. Med. 57, 1131-1139. Huang, Vijayakumar, Li, Hertel,
    Duensing (2008), Magn. Reson. Imaging 26, 133-141.
    """
    rows, note = virtual_coils(raw, n_coils, energy)
    if not note:
        return raw
    few = combined(raw, rows)
    return few.with_samples(few.samples, notes=(*raw.notes, note))


def virtual_coils(raw: Data, n_coils: int | None = None, energy: float = 0.995) -> tuple[Tensor, str]:
    """What `compressed` multiplies the coils by: ``V*``, shape (virtual coils, coils), complex128, and its note.

    The identity, and no note, where all coils are kept as they are.

    Raises
    ------
    InvsrError
        As `compressed`.
    """
    if n_coils is not None and not 1 <= n_coils <= raw.n_coils:
        raise InvsrError(f"{raw.name}: {n_coils} virtual coils of {raw.n_coils}: keep from 1 to {raw.n_coils}")
    if not 0 < energy <= 1:
        raise InvsrError(f"coil compression to a share {energy:g} of the signal: give one above 0, at most 1")
    total = torch.zeros(raw.n_coils, raw.n_coils, dtype=torch.complex128, device=raw.samples.device)
    # A part of k-space at a time: double precision of all of it would double the memory.
    for samples, counts in zip(torch.split(raw.samples[0], 1, 1), torch.split(raw.counts, 1), strict=True):
        taken = counts > 0
        values = (samples[:, taken] * counts[taken].sqrt()).to(total.dtype)
        total += values @ values.mH
    noise = 2.0 * int(raw.measured.sum())
    powers, vectors = torch.linalg.eigh(total)
    signal = (powers.flip(0) - noise).clamp(min=0)
    share = signal.cumsum(0) / signal.sum().clamp(min=1e-300)
    kept = n_coils if n_coils is not None else min(raw.n_coils, 1 + int((share < energy).sum()))
    if kept == raw.n_coils and n_coils is None:
        return torch.eye(kept, dtype=total.dtype, device=total.device), ""
    held = 100 * float(share[kept - 1])
    note = f"{kept} virtual coils kept of {raw.n_coils}, with {held:.1f} % of the signal's energy"
    return vectors.flip(1)[:, :kept].mH, note
