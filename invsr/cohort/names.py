"""Names of files in BIDS datasets: entities and suffix, and what they say of scans that belong together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Entities in the order of the BIDS specification (1.10), as far as images of anatomy have them.
ORDER = (
    *("sub", "ses", "sample", "task", "acq", "ce", "stain", "rec", "dir", "run", "echo", "flip", "inv", "mt", "part"),
    *("proc", "hemi", "space", "split", "chunk", "seg", "res", "den", "label", "desc"),
)
# The names that filter files may use instead.
LONG = {
    **{"subject": "sub", "session": "ses", "acquisition": "acq", "ceagent": "ce", "reconstruction": "rec"},
    **{"direction": "dir", "inversion": "inv", "mtransfer": "mt", "processing": "proc", "resolution": "res"},
    **{"density": "den", "description": "desc"},
}
IMAGES = (".nii.gz", ".nii")
# Words for the direction of slices in labels such as acq-axial or acq-tseSag.
DIRECTIONS = {"ax", "axial", "tra", "trans", "transverse", "cor", "coronal", "sag", "sagittal"}
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


@dataclass(frozen=True)
class Name:
    """The name of an image.

    Attributes
    ----------
    entities : tuple of (str, str)
        Key and value, in their order.
    suffix : str
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str

    @classmethod
    def of(cls, file: str) -> Name | None:
        """The parts of a file's name; None where it is no image with BIDS entities.

        Examples
        --------
        >>> Name.of("sub-01_acq-axial_T2w.nii.gz").get("acq")
        'axial'
        """
        ending = next((one for one in IMAGES if file.endswith(one)), None)
        if ending is None:
            return None
        *parts, suffix = file.removesuffix(ending).split("_")
        pairs = [tuple(part.split("-", 1)) for part in parts]
        if not pairs or any(len(pair) != 2 or not all(pair) for pair in pairs) or not suffix or "-" in suffix:
            return None
        return cls(tuple((pair[0], pair[1]) for pair in pairs), suffix)

    def get(self, key: str) -> str | None:
        """The value of an entity; None without it."""
        return dict(self.entities).get(key)

    def with_entities(self, entities: Mapping[str, str | None]) -> Name:
        """The name with other values; None takes an entity away.

        Examples
        --------
        >>> str(Name.of("sub-01_run-2_T2w.nii.gz").with_entities({"run": None, "desc": "invsr"}))
        'sub-01_desc-invsr_T2w'
        """
        found = {key: value for key, value in {**dict(self.entities), **entities}.items() if value is not None}
        keys = [*(key for key in ORDER if key in found), *(key for key in found if key not in ORDER)]
        return Name(tuple((key, found[key]) for key in keys), self.suffix)

    def without_direction(self) -> Name:
        """The name without the number of the run and the direction of the slices: that of all stacks of a contrast.

        Examples
        --------
        >>> str(Name.of("sub-01_acq-tseSag_run-2_T2w.nii.gz").without_direction())
        'sub-01_acq-tse_T2w'
        """
        label = self.get("acq")
        words = [word for word in WORDS.findall(label or "") if word.lower() not in DIRECTIONS]
        return self.with_entities({"run": None, "acq": "".join(words) or None})

    def __str__(self) -> str:
        return "_".join([*("-".join(pair) for pair in self.entities), self.suffix])
