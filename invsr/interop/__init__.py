"""Operators of other libraries and for them: `deepinv`, `scipy`, `sigpy`; each imports its library when it is used."""

import importlib
from types import ModuleType

__all__ = ["deepinv", "scipy", "sigpy"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
