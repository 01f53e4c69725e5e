"""A scan: a volume, and how it was acquired."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.motion.order import by_times
from invsr.noise.estimation import estimate_sigma
from invsr.numerics.filling import filled
from invsr.numerics.levels import peak
from invsr.operators.base import LinearOperator
from invsr.operators.profiles import PROFILES, AxisProfile
from invsr.operators.scan_model import COVERING, acquisition, covered, slice_profile_of
from invsr.volume import Volume, require_signal

# A slice thickness beyond these shares of the slice spacing is an error; above the third it is questioned.
THINNEST, THICKEST, OVERLAPPING = 0.02, 5.0, 2.0
# Voxels whose edges differ by less than this share are isotropic: without a thickness they are samples.
ISOTROPIC = 0.01
# Voxels so many times as bright as bright tissue (`invsr.numerics.levels.peak`) are questioned.
SPIKE = 20.0
# Slice profile where nothing is known of it; thicknesses that differ by this share are the same.
DEFAULT, SAME = "gaussian", 0.01
# Noise is never taken to be less than this share of the peak: a fit closer than that is beyond float32 data.
LEAST_SIGMA = 5e-4

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scan:
    """A thick-slice scan and what is known of its acquisition.

    Parameters
    ----------
    volume : Volume
    slice_thickness : float, mm, optional
        Full width at half maximum of the slice profile. By default what the sidecar says, else the slice spacing;
        isotropic voxels without a thickness are samples of the volume.
    slice_profile : {"gaussian", "boxcar", "sinc", "slr"} or path
    in_plane : {"kspace", "gaussian", "none"}
        What a target finer than the pixels assumes.
    noise : float, in intensity units, optional
        Standard deviation; estimated by default.
    noise_model : {"gaussian", "rician", "huber", "l1"}
        The likelihood; the last two forgive outliers.
    mask : Volume, optional
        On the scan's grid; data outside (where it is 0) are not used.
    slice_axis : {0, 1, 2}, optional
        The array axis across the slices. By default what the file says, else that of the largest voxels.
    air_noise : float, in intensity units, optional
        Standard deviation of the noise in the air of the image as it was stored, which takes the place of an estimate.
    offset : float
        Intensity of the volume as it was stored that counts as 0 in `data` (`invsr.pipeline.offset`).
    empty_slices : tuple of int
        Numbers of slices that hold no data of the anatomy and are left out: the model and the prior bridge them.
    padded_slices : tuple of int
        Numbers of slices at the ends that were not measured: as if they lay outside the mask.
    notes : tuple of str
        What was found in the data and changed (`invsr.pipeline.preparation`), in one line each.

    Raises
    ------
    InvsrError
        When the volume holds no signal, a number is not finite and above zero, the noise exceeds all intensities,
        the slice thickness or profile cannot be that of slices so far apart, or the mask is empty or on another grid.

    Examples
    --------
    >>> scan = Scan(Volume.from_array(np.random.default_rng(0).random((16, 16, 4)), spacing=(1, 1, 4)))
    >>> scan.thickness
    4.0
    """

    volume: Volume
    slice_thickness: float | None = None
    slice_profile: str | Path = DEFAULT
    in_plane: str = "kspace"
    noise: float | None = None
    noise_model: str = "gaussian"
    mask: Volume | None = None
    slice_axis: int | None = None
    air_noise: float | None = None
    offset: float = 0.0
    empty_slices: tuple[int, ...] = ()
    padded_slices: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_signal(self.volume)
        for what, value in (("slice thickness", self.slice_thickness), ("noise", self.noise)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise InvsrError(f"{self.name}: {what} {value}: it must be finite and above zero")
        if self.noise is not None and self.noise > float(self.data.abs().max()):
            raise InvsrError(
                f"{self.name}: noise {self.noise:g} where the largest intensity is {float(self.data.abs().max()):.4g}: "
                "give its standard deviation in the scan's intensity units"
            )
        if self.slice_axis not in (None, 0, 1, 2):
            raise InvsrError(f"{self.name}: slice axis {self.slice_axis}: use 0, 1 or 2 (command line: i, j or k)")
        if self.slice_thickness is not None and not THINNEST <= self.slice_thickness / self.slice_spacing <= THICKEST:
            raise InvsrError(
                f"{self._slices_in_words()}: between {THINNEST:g} and {THICKEST:g} times their spacing is possible: "
                "give the thickness in mm, and the slice axis if it is another one"
            )
        if self.slice_profile not in PROFILES:
            self._require_profile(slice_profile_of(self.slice_profile, 1.0).reach)
        if self.mask is None:
            return
        if self.mask.grid != self.grid:
            raise InvsrError(
                f"{self.mask.name}: the mask lies on {self.mask.grid} but {self.name} on {self.grid}: "
                "resample it onto the scan"
            )
        if not bool(self.mask.data.any()):
            raise InvsrError(f"{self.mask.name}: the mask is empty: every voxel is 0")

    def _require_profile(self, reach: float) -> None:
        """Raise unless a sampled profile can be that of slices so far apart; `reach` in mm."""
        if not THINNEST <= reach / self.slice_spacing <= THICKEST:
            raise InvsrError(
                f"{self.name}: slice profile {self.slice_profile} is {reach:.4g} mm wide, for slices "
                f"{self.slice_spacing:.4g} mm apart: between {THINNEST:g} and {THICKEST:g} times their spacing is "
                "possible: are its offsets in mm?"
            )

    def question(self) -> None:
        """Warn of what is possible but unusual: much overlap of slices, single bright voxels, next to no noise."""
        used = self.data.abs() if self.inside is None else self.data[self.inside].abs()
        tissue, top = peak(used), float(used.max())
        bright = SPIKE * tissue
        if self.noise is not None and self.noise < LEAST_SIGMA * tissue:
            warnings.warn(
                f"{self.name}: noise {self.noise:g} where bright tissue has {tissue:.4g}: {LEAST_SIGMA * tissue:.3g} "
                f"({LEAST_SIGMA:.2%}) is used, the least there is; is it in the scan's intensity units?",
                InvsrWarning,
                stacklevel=3,
            )
        if top > bright:
            count = int((used > bright).sum())
            warnings.warn(
                f"{self.name}: {count} of its voxels exceed {SPIKE:g} times the level of bright tissue (up to "
                f"{top:.3g}): if they are spikes, leave them out by a mask",
                InvsrWarning,
                stacklevel=3,
            )
        for doubt in self._unused():
            warnings.warn(f"{self.name}: {doubt}", InvsrWarning, stacklevel=3)
        if self.slice_thickness is not None and self.slice_thickness > OVERLAPPING * self.slice_spacing:
            overlap = self.slice_thickness / self.slice_spacing
            warnings.warn(
                f"{self._slices_in_words()}, overlap {overlap:.1f} times: is that so?", InvsrWarning, stacklevel=3
            )

    def _unused(self) -> Iterator[str]:
        """What was given of the slices and has no effect."""
        given, taken, profile = self.slice_thickness, self.thickness, self.slice_profile
        if profile not in PROFILES and given is not None and taken is not None and abs(given - taken) > SAME * taken:
            yield f"slice thickness {given:g} mm is not used: the profile {profile} is {taken:.3g} mm wide"
        if taken is None and profile != DEFAULT:
            yield f"slice profile {profile} is not used: voxels are isotropic, taken as samples: give a slice thickness"

    def _slices_in_words(self) -> str:
        return f"{self.name}: slices {self.slice_thickness:g} mm thick, {self.slice_spacing:.4g} mm apart"

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.volume.name

    @property
    def grid(self) -> Grid:
        """Where its voxels lie."""
        return self.volume.grid

    @property
    def data(self) -> Tensor:
        """Intensities, shape (1, 1, *grid.shape)."""
        return self.volume.data

    @property
    def inside(self) -> Tensor | None:
        """Where data are used, bool, shape of `data`; None for everywhere."""
        masked = None if self.mask is None else self.mask.data != 0
        return self._without(masked, self.padded_slices)

    @property
    def used(self) -> Tensor | None:
        """Which data count, bool, shape of `data`: `inside`, without the empty slices; None for all."""
        return self._without(self.inside, self.empty_slices)

    def _without(self, kept: Tensor | None, slices: tuple[int, ...]) -> Tensor | None:
        if not slices:
            return kept
        kept = torch.ones_like(self.data, dtype=torch.bool) if kept is None else kept
        return kept.index_fill(2 + self.through_plane, torch.tensor(slices, device=kept.device), False)

    @property
    def through_plane(self) -> int:
        """The axis across the slices: as given, as the file says, or that of the largest voxels."""
        stated = self.volume.slice_axis if self.slice_axis is None else self.slice_axis
        return self.grid.through_plane if stated is None else stated

    @property
    def slice_spacing(self) -> float:
        """Distance between slice centres, mm."""
        return float(self.grid.spacing[self.through_plane])

    @property
    def thickness(self) -> float | None:
        """Slice thickness that the model takes, mm; None where voxels are samples of the volume.

        As given, the width of a profile that was sampled, or the distance between slices.
        """
        if self.slice_profile not in PROFILES:
            return slice_profile_of(self.slice_profile, 1.0).reach
        given = self.volume.slice_thickness if self.slice_thickness is None else self.slice_thickness
        if given is not None:
            return float(given)
        isotropic = self.grid.spacing.max() < (1 + ISOTROPIC) * self.grid.spacing.min()
        return None if isotropic else self.slice_spacing

    @property
    def profile(self) -> AxisProfile:
        """What a slice averages."""
        return slice_profile_of("none", 1.0) if self.thickness is None else slice_profile_of(*self._profile)

    @property
    def _profile(self) -> tuple[str | Path, float]:
        return ("none", 1.0) if self.thickness is None else (self.slice_profile, self.thickness)

    @property
    def slice_order(self) -> Tensor | None:
        """Slice numbers as they were acquired, shape (n_slices,); None where no sidecar tells."""
        times = self.volume.slice_times
        return by_times(times) if times is not None and len(times) == self.grid.shape[self.through_plane] else None

    def sigma(self) -> float:
        """Standard deviation of the noise in intensity units: as given, else estimated inside the mask."""
        for known in (self.noise, self.air_noise):
            if known is not None:
                return float(known)
        try:
            return estimate_sigma(self.data, axes=self.grid.fine_axes, mask=self.used)
        except InvsrError as error:
            raise InvsrError(f"{self.name}: {error} (noise=, command line: --noise)") from None

    def continued(self) -> Tensor:
        """`data`; outside the mask what is inside continues, for first guesses see it."""
        return self.data if self.inside is None else filled(self.data, self.inside)

    def operator(
        self, target: Grid, motion: Array | None = None, centre: Array | None = None, part: Grid | None = None
    ) -> LinearOperator:
        """The forward model from a volume on `target` to this scan, or to a part of its grid; motion as in
        `invsr.operators.acquisition`."""
        profile, thickness = self._profile
        try:
            found = acquisition(
                self.grid if part is None else part,
                reference=target,
                slice_thickness=thickness,
                slice_profile=profile,
                in_plane=self.in_plane,
                through_plane=self.through_plane,
                motion=motion,
                centre=centre,
            )
        except InvsrError as error:
            raise InvsrError(f"{self.name}: {error}") from None
        return found.to(self.data.device)

    def covers(self, target: Grid, motion: Array | None = None, centre: Array | None = None) -> Tensor:
        """Which voxels of `target` the scan shows, gaps between slices included, inside its mask: bool."""
        wide = replace(self, slice_thickness=COVERING * self.slice_spacing, slice_profile="gaussian")
        return covered(wide.operator(target, motion, centre), self.inside)

    def to(self, device: torch.device | str) -> Scan:
        """The same scan with its data on `device`."""
        mask = None if self.mask is None else self.mask.to(device)
        return replace(self, volume=self.volume.to(device), mask=mask)

    def cropped(self) -> Scan:
        """The scan without the rows and columns in which the mask is empty; all slices stay."""
        if self.mask is None:
            return self
        at = torch.nonzero(self.mask.data[0, 0])
        low, high = at.amin(0).tolist(), (at.amax(0) + 1).tolist()
        low[self.through_plane], high[self.through_plane] = 0, self.grid.shape[self.through_plane]
        return self.part(low, high)

    def part(self, low: Sequence[int], high: Sequence[int]) -> Scan:
        """The scan between two corners in voxels, `high` not included; with all of its slices."""
        i, j, k = (slice(a, b) for a, b in zip(low, high, strict=True))
        grid = self.grid.part(low, high)
        volume = replace(self.volume, data=self.data[..., i, j, k], grid=grid)
        mask = None if self.mask is None else replace(self.mask, data=self.mask.data[..., i, j, k], grid=grid)
        return replace(self, volume=volume, mask=mask)
