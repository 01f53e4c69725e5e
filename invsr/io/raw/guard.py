"""What damaged files and missing packages raise, turned into one line each."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from invsr.errors import InvsrError

INSTALL = 'pip install "invsr[raw]"'
# What h5py, numpy and zipfile raise where bytes are not those of a file of their kind.
DAMAGE = (OSError, EOFError, ValueError, TypeError, ArithmeticError, LookupError, RuntimeError, zipfile.BadZipFile)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """One error that names the file for all that reading raises; those of `RawData` and `Grid` name it, too.

    Raises
    ------
    InvsrError
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except InvsrError as error:
        said = str(error)
        if said.startswith(str(path)):
            raise
        raise InvsrError(f"{path}: {said.removeprefix(f'{path.name}: ')}") from error
    except ImportError as error:
        raise InvsrError(f"{path}: reading it takes the package {error.name}: {INSTALL}") from error
    except MemoryError as error:
        raise InvsrError(f"{path}: its samples do not fit into memory: check the sizes in its header") from error
    except (*DAMAGE, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvsrError(f"{path}: is damaged or cut short ({reason}): copy or export it again") from error


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file, open for reading.

    Raises
    ------
    InvsrError
        When it is not HDF5, or h5py is missing.
    """
    import h5py

    if not h5py.is_hdf5(path):
        raise InvsrError(f"{path}: is not an HDF5 file, whatever its name says: name a file of k-space")
    with h5py.File(path, "r") as file:
        yield file
