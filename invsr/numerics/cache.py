"""Results that hold as long as the tensors they were computed from stay the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def learnable(module: nn.Module) -> bool:
    """Whether one of a module's parameters or buffers asks for a gradient: what follows from it then needs a graph."""
    return any(t.requires_grad for t in [*module.parameters(), *module.buffers()])


class TensorState:
    """Values, device and dtype of a module's tensors, to be compared: equal states allow cached results.

    Holds on to the tensors, so that no other one can take the place of one of them in memory.
    """

    def __init__(self, module: nn.Module) -> None:
        tensors = [*module.parameters(), *module.buffers()]
        self.alive = [t.detach() for t in tensors]
        # Changes of inference tensors are not counted: such a state equals no other.
        self.key = tuple(
            (t.data_ptr(), object() if t.is_inference() else t._version, t.device, t.dtype) for t in tensors
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TensorState) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class StateCache:
    """Results computed from a module's parameters and buffers, kept until one of them changes.

    Copies and pickles of it are empty.

    Parameters
    ----------
    limit : int
        Number of results that are kept; the one that was not used for the longest time is dropped first.
    """

    def __init__(self, limit: int = 40) -> None:
        self.limit = limit
        self._state: TensorState | None = None
        self._found: OrderedDict[Any, Any] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return StateCache, (self.limit,)

    def get(self, module: nn.Module, key: Any, build: Callable[[], Any]) -> Any:
        """``build()``, once for each key and state of the module's tensors; runs without a graph."""
        state = TensorState(module)
        if self._state != state:
            self._state, self._found = state, OrderedDict()
        if key not in self._found:
            with torch.inference_mode(False), torch.no_grad():
                self._found[key] = build()
            if len(self._found) > self.limit:
                self._found.popitem(last=False)
        self._found.move_to_end(key)
        return self._found[key]
