"""Thick-slice scans of a known volume, for benchmarks, tutorials and tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from invsr.errors import InvsrError
from invsr.io.warn import warn
from invsr.noise.sampling import add_noise
from invsr.operators.profiles import PROFILES
from invsr.operators.scan_model import acquisition, slice_profile_of
from invsr.volume import Volume


def simulate(
    volume: Volume,
    *,
    slice_thickness: float,
    gap: float = 0.0,
    slice_profile: str | Path = "gaussian",
    axis: int | None = None,
    in_plane_factor: float = 1.0,
    noise: float = 0.0,
    noise_model: str = "gaussian",
    seed: int = 0,
) -> Volume:
    """The scan of `volume` with slices of a thickness, a gap between them, larger pixels and noise.

    Parameters
    ----------
    volume : Volume
        High resolution; taken as the truth.
    slice_thickness, gap : float, mm
        Slices lie ``slice_thickness + gap`` apart, from the first outer face on.
    slice_profile : {"gaussian", "boxcar", "sinc", "slr"} or path
        A file sets the width of slices, too.
    axis : {0, 1, 2}, optional
        Axis along which slices are stacked; the one of the largest voxels by default.
    in_plane_factor : float
        Pixels are that many times larger, by truncation of k-space.
    noise : float
        Standard deviation as a share of the volume's 99.9th percentile of positive voxels; 0 or more.
    noise_model : {"gaussian", "rician"}
    seed : int

    Raises
    ------
    InvsrError
        When a number is out of range or no slice fits the field of view.

    Warns
    -----
    InvsrWarning
        When slices are thinner than voxels, or intensities that cannot be magnitudes get Rician noise.
    """
    grid = volume.grid
    axis = grid.through_plane if axis is None else axis
    for name, value, least in (("slice thickness", slice_thickness, 0.0), ("in-plane factor", in_plane_factor, 0.999)):
        if not (np.isfinite(value) and value > least):
            raise InvsrError(f"{name} is {value:g}: it must be {'at least 1' if least else 'above zero'}")
    if not (np.isfinite(gap) and slice_thickness + gap > 0):
        raise InvsrError(f"a gap of {gap:g} mm with {slice_thickness:g} mm slices leaves no distance between slices")
    if not (np.isfinite(noise) and noise >= 0):
        raise InvsrError(f"noise is {noise:g}: it must be a share of the peak, 0 or more")
    if noise_model not in ("gaussian", "rician"):
        raise InvsrError(f"unknown noise model {noise_model!r}: use gaussian or rician")
    thickness = slice_thickness if slice_profile in PROFILES else slice_profile_of(slice_profile, 1.0).reach
    if thickness < 0.999 * grid.spacing[axis]:
        warn(
            f"{volume.name}: slices {thickness:.4g} mm thick are thinner than its voxels of "
            f"{grid.spacing[axis]:.4g} mm: they show no more detail than the volume holds"
        )
    spacing = grid.spacing * in_plane_factor
    spacing[axis] = slice_thickness + gap
    scan = grid.coarsen(tuple(spacing))
    operator = acquisition(
        scan, reference=grid, slice_thickness=slice_thickness, slice_profile=slice_profile, through_plane=axis
    ).to(volume.data.device)
    with torch.no_grad():
        data = operator(volume.data)
    positive = volume.data[volume.data > 0].cpu()
    if noise and not positive.numel():
        raise InvsrError(f"{volume.name}: has no positive voxel to scale the noise by")
    if noise:
        peak = float(np.percentile(positive.numpy(), 99.9))
        lowest = float(volume.data.min())
        if noise_model == "rician" and lowest < -noise * peak:
            warn(
                f"{volume.name}: intensities down to {lowest:.4g} are no magnitudes, and Rician noise takes away their "
                "sign: use gaussian noise"
            )
        noisy = add_noise(data.cpu(), noise * peak, noise_model, torch.Generator().manual_seed(seed))
        data = noisy.to(data.device)  # the same for a seed on every device
        if not bool(data.isfinite().all()):
            raise InvsrError(
                f"noise is {noise:g}: intensities exceed what float32 holds; give it as a share of the peak"
            )
    return Volume(data, scan, volume.name, thickness, float(spacing[axis]), volume.form_code, slice_axis=axis)
