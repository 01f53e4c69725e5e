"""The options of the command line: what each is called, takes, and says of itself."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

# Seeds of training are multiplied before they reach the generator, which takes 64 bits.
LARGEST_SEED = 2**32 - 1

# Scans and files -------------------------------------------------------------------------------------

Scans = Annotated[
    list[Path], typer.Argument(help="Thick-slice scans of one anatomy: NIfTI, mgz, NRRD.", metavar="SCAN.nii.gz")
]
ScansOrRaw = Annotated[
    list[Path],
    typer.Argument(
        help="Thick-slice scans of one anatomy: NIfTI, mgz, NRRD; or k-space: ISMRMRD, fastMRI, cfl, npy.",
        metavar="SCAN.nii.gz|RAW.h5",
    ),
]
ScansOrFolders = Annotated[
    list[Path], typer.Argument(help="Scans, or folders of them: NIfTI, mgz, NRRD.", metavar="SCAN|FOLDER")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="NIfTI file to write.")]
ResultOutput = Annotated[
    Path, typer.Option("--output", "-o", help="NIfTI file to write; with --contrasts, a folder for one of each.")
]
MotionOutput = Annotated[
    Path, typer.Option("--output", "-o", help="JSON file to write; .tfm files come beside it.", metavar="MOTION.json")
]
Reference = Annotated[Path | None, typer.Option(help="NIfTI file whose grid the result gets, by --geometry.")]
Contrasts = Annotated[
    bool,
    typer.Option(
        "--contrasts", help="Each scan is a contrast of its own: reconstruct them together, a file for each in OUTPUT."
    ),
]
ContrastNames = Annotated[
    list[str] | None,
    typer.Option(help="Contrast of each scan; scans with one name are stacks of one contrast. Implies --contrasts."),
]
ContrastGrid = Annotated[
    str | None,
    typer.Option(
        help="common: all contrasts on one grid; own: each on its own scan's, where its header says. [common]"
    ),
]
Masks = Annotated[list[Path] | None, typer.Option(help="Use only the data inside; one per scan.")]
VolumeIndex = Annotated[int | None, typer.Option(help="Which volume of a 4-D file, from 0.")]
ReportFolder = Annotated[Path | None, typer.Option(help="Folder for an HTML page and a JSON of the run.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]

# How the scans were acquired -------------------------------------------------------------------------

Thickness = Annotated[
    list[str] | None,
    typer.Option(
        help="FWHM of the slice profile, mm, or auto: estimated from the data; one, or one per scan. Default: sidecar, "
        "else slice spacing, unless the data show samples.",
        metavar="MM|auto",
    ),
]
Profile = Annotated[
    list[str] | None,
    typer.Option(help="gaussian, boxcar, sinc, slr or a file (mm, amplitude); one, or one per scan. [gaussian]"),
]
InPlane = Annotated[str | None, typer.Option(help="Pixels as kspace truncation, gaussian or none. [kspace]")]
Noise = Annotated[list[float] | None, typer.Option(help="Noise sigma in intensity units. Default: estimated.")]
NoiseModel = Annotated[str | None, typer.Option(help="gaussian, rician, huber or l1. [gaussian]")]
ScanSliceAxis = Annotated[
    str | None, typer.Option(help="Array axis across the slices: i, j or k. Default: header, else largest voxels.")
]
Geometry = Annotated[
    str | None, typer.Option(help="What of the header says where voxels lie: sform, qform or pixdim. [sform]")
]
ZeroFilling = Annotated[
    str, typer.Option(help="Pixels of a zero-filled k-space: auto takes back what the data show, keep does not.")
]
Faults = Annotated[
    str,
    typer.Option(
        help="Intensities below 0, spikes, empty slices, slices darker or moved by turns: auto corrects, keep does not."
    ),
]
MotionLevel = Annotated[
    str | None,
    typer.Option(
        help="What moved, estimated: none; of several scans stack (each as a whole) or slice; of one scan packages "
        "(slices acquired by turns). [none; with --contrasts stack]"
    ),
]
Transforms = Annotated[Path | None, typer.Option(help="Motion that `invsr register` wrote, instead of --motion.")]
RegisterLevel = Annotated[str, typer.Option(help="stack, or slice: a motion for each slice.")]
Spacing = Annotated[str | None, typer.Option(help="Target spacing, mm: 1.0 or 0.8x0.8x1. [finest, isotropic]")]

# k-space ---------------------------------------------------------------------------------------------

CoilMaps = Annotated[
    Path | None,
    typer.Option(help="With k-space: coil sensitivities (coils, i, j, k), .npy or .cfl. Default: estimated (ESPIRiT)."),
]
Coils = Annotated[
    int | None, typer.Option(help="With k-space: number of virtual coils to keep. Default: those with signal.", min=1)
]
RawSpacing = Annotated[
    str | None,
    typer.Option(help="Voxel spacing of the matrix as measured, mm, where a k-space file does not say: 0.9x0.9x3."),
]
RawMatrix = Annotated[
    str | None,
    typer.Option(
        help="With --trajectory: voxels of the image along its axes, which with their spacing are the field of view: "
        "64x64. Default: the fewest that hold it.",
        metavar="NxM",
    ),
]
Trajectory = Annotated[
    Path | None,
    typer.Option(
        help="With k-space of BART or an array: its trajectory, .cfl (3, readout, shots) or .npy (readout, shots, 2 or "
        "3), in cycles per field of view."
    ),
]
Phase = Annotated[bool, typer.Option("--phase", help="With k-space: write the phase (radians), too.")]
Complex = Annotated[bool, typer.Option("--complex", help="With k-space: write the complex image, too.")]

# How to solve ----------------------------------------------------------------------------------------

MethodName = Annotated[
    str, typer.Option(help="auto, cubic, tikhonov, tv, pnp, unrolled, deq or posterior; auto: what suits the scan.")
]
Solver = Annotated[str | None, typer.Option(help="With pnp: hqs, admm, pgd or red. [admm]")]
DenoiserName = Annotated[
    str | None,
    typer.Option(help="With pnp, posterior: see `invsr models`; a weights file; deepinv:CLASS. [mri-denoiser]"),
]
Adapt = Annotated[
    bool, typer.Option("--adapt", help="With pnp, posterior: train the denoiser on the scan's own slices first.")
]
Model = Annotated[str | None, typer.Option(help="With unrolled, deq: trained weights; see `invsr models`, or a file.")]
Weight = Annotated[
    str | None, typer.Option(help="With tikhonov, tv, pnp: regularisation parameter at peak intensity 1. [auto]")
]
HuberSlope = Annotated[float | None, typer.Option(help="With tv: slope (peak per mm) below which to smooth. [0]")]
MaxIter = Annotated[int | None, typer.Option(help="With tikhonov, tv, pnp: largest number of iterations. [60]", min=1)]
Samples = Annotated[
    int | None, typer.Option(help="With posterior: number of samples; with --uncertainty: repetitions. [8]")
]
Uncertainty = Annotated[
    str | None,
    typer.Option(
        help="A standard deviation per voxel, beside the result. Of the error: predicted (by a network that knows the "
        "errors of the default one) or bootstrap (any method, by repetition). Of the noise alone: replicas."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Memory = Annotated[
    float | None,
    typer.Option(help="GB that the program may hold: large volumes then go through networks in parts. [70 % of free]"),
]
Seed = Annotated[int, typer.Option(help="For whatever is drawn at random.", min=0, max=LARGEST_SEED)]

# Simulation ------------------------------------------------------------------------------------------

HighResolution = Annotated[Path, typer.Argument(help="High-resolution volume, NIfTI.", metavar="HIGH.nii.gz")]
HighResolutionVolumes = Annotated[
    list[Path] | None, typer.Argument(help="High-resolution volumes. [the example head]", metavar="HIGH.nii.gz")
]
SimulatedThickness = Annotated[float, typer.Option(help="Slice thickness, mm.")]
Gap = Annotated[float, typer.Option(help="Gap between slices, mm.")]
SimulatedProfile = Annotated[str, typer.Option(help="gaussian, boxcar, sinc, slr or a file.")]
SliceAxis = Annotated[str | None, typer.Option(help="Slice axis: i, j or k. Default: largest voxels.")]
InPlaneFactor = Annotated[float, typer.Option(help="Pixels that many times larger.")]
SimulatedNoise = Annotated[float, typer.Option(help="Sigma as a share of the 99.9th percentile.")]
SimulatedNoiseModel = Annotated[str, typer.Option(help="gaussian or rician.")]
NoiseSeed = Annotated[int, typer.Option(help="Seed of the noise.", min=0, max=LARGEST_SEED)]

# A BIDS dataset --------------------------------------------------------------------------------------


class Level(str, Enum):
    """Levels of analysis of a BIDS app."""

    PARTICIPANT = "participant"
    GROUP = "group"


BidsFolder = Annotated[Path, typer.Argument(help="BIDS dataset.", metavar="BIDS_DIR")]
DerivativeFolder = Annotated[Path, typer.Argument(help="Derivative dataset to write.", metavar="OUT_DIR")]
AnalysisLevel = Annotated[
    Level, typer.Argument(help="participant: reconstruct; group: sum up what is there in one page.")
]
Participants = Annotated[list[str] | None, typer.Option(help="Participants, with or without sub-. [all]")]
Sessions = Annotated[list[str] | None, typer.Option(help="Sessions, with or without ses-. [all]")]
Suffixes = Annotated[
    list[str] | None, typer.Option(help="Suffixes of the scans. [T1w T2w PDw FLAIR T2starw inplaneT1 inplaneT2]")
]
FilterFile = Annotated[
    Path | None, typer.Option(help='JSON file of queries: {"flair": {"suffix": "FLAIR", "acquisition": "axial"}}.')
]
Combine = Annotated[
    str,
    typer.Option(
        help="What is reconstructed together: stacks of one contrast (names differ in run and slice direction); "
        "contrasts of a session; none."
    ),
]
ThicknessOfAll = Annotated[
    str | None,
    typer.Option(
        help="Thickness of all slices, mm, or auto. Default: sidecars, else slice spacing.", metavar="MM|auto"
    ),
]
ProfileOfAll = Annotated[
    str | None, typer.Option(help="Slice profile of all scans: gaussian, boxcar, sinc, slr. [gaussian]")
]
MotionOfAll = Annotated[
    str | None,
    typer.Option(
        help="What moved, of several scans taken together: none, stack, slice; of one: packages. [stack; none]"
    ),
]
NoReports = Annotated[bool, typer.Option("--no-report", help="Write no page for each result.")]
WorkFolder = Annotated[
    Path | None, typer.Option("--work-dir", "-w", help="Folder for the workers' own files. [OUT_DIR/.invsr-work]")
]
Workers = Annotated[int | None, typer.Option(help="Jobs at once. [one for each core]", min=1)]
Threads = Annotated[int, typer.Option(help="Threads of each job.", min=1)]
MemoryOfAll = Annotated[float | None, typer.Option(help="GB that all jobs may hold together. [80 % of the machine's]")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler that runs already.")]
Cluster = Annotated[Path | None, typer.Option(help="YAML file of a Dask cluster to start (SLURM, PBS).")]
Dashboard = Annotated[bool, typer.Option("--dashboard", help="Show Dask's dashboard, on this machine only.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List what would be done, with time and memory.")]
