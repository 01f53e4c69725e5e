"""A CUDA device for machines without one: its tensors hold their numbers on the CPU, and keep a GPU's rules.

On a GPU, an operation that takes tensors of both devices fails, and so does a numpy view of the GPU's memory, or a
random draw on one device by the generator of the other. On a CPU nothing of this shows. Within `pretended_cuda`,
``device="cuda"`` gives tensors that keep these rules and compute what the CPU computes.

What it cannot show: the arithmetic, the speed and the memory of a GPU, operations that CUDA does not have, and forward
differentiation, which crashes on tensors of this kind.
"""

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
aten = torch.ops.aten
COPIES = (aten.copy_.default, aten._to_copy.default)
# A CPU tensor may say where to read or write.
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
# What autocast does in its number format.
PRODUCTS = (torch.conv2d, torch.conv3d, torch.conv_transpose2d, torch.conv_transpose3d, torch.matmul, functional.linear)
# A single number of the CPU may be written into a tensor of the GPU.
FILLS = (aten.fill_.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.where.self)
FREE_MEMORY = 2**36


class OnCuda(Tensor):
    """A tensor that says it is on CUDA.

    PyTorch itself takes it for one of the "meta" device, which needs no driver; all operations come to `compute`.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        made.held = held
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def data_ptr(self):
        return self.held.data_ptr()

    def __repr__(self):
        return f"{self.held!r} on cuda"

    def __format__(self, spec):
        return format(self.held, spec)

    def tolist(self):
        return self.held.tolist()

    def __reduce_ex__(self, protocol):
        return rebuild, (self.held, self.requires_grad, isinstance(self, nn.Parameter))

    def __deepcopy__(self, memo):
        return memo.setdefault(id(self), rebuild(self.held.clone(), self.requires_grad, isinstance(self, nn.Parameter)))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def rebuild(held, requires_grad, is_parameter):
    made = OnCuda(held)
    return nn.Parameter(made, requires_grad) if is_parameter else made.requires_grad_(requires_grad)


class Redirect(TorchDispatchMode):
    """Sends to `compute` what makes a tensor, too."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class Autocast(TorchFunctionMode):
    """What CUDA's autocast does to products, which takes tensors of the true device only."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in PRODUCTS and isinstance(args[0], OnCuda) and torch.is_autocast_enabled(CUDA.type):
            dtype = torch.get_autocast_dtype(CUDA.type)
            args, kwargs = each(lambda one: one.to(dtype), [args, kwargs])
        return func(*args, **kwargs)


def tensors_in(values):
    """The tensors among arguments: lists hold some, dictionaries are the keywords."""
    for one in values:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, tuple | list):
            yield from tensors_in(one)


def each(function, values):
    """Arguments, or results, with a function of each tensor in its place."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, tuple | list):
        return [each(function, one) for one in values]
    return {key: each(function, one) for key, one in values.items()} if isinstance(values, dict) else values


def require_one_device(func, args, kwargs):
    """Raise the errors of a GPU."""
    leaves = [*tensors_in(args), *tensors_in(kwargs.values())]
    here = any(isinstance(one, OnCuda) for one in leaves)
    if func in INDEXED:
        leaves = [args[0], *args[2:3]]
    elsewhere = [one for one in leaves if not isinstance(one, OnCuda)]
    if torch.Tag.pointwise in func.tags or func in INDEXED or func in FILLS:
        elsewhere = [one for one in elsewhere if one.dim()]
    if here and elsewhere and func not in COPIES:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got cuda:0 and cpu")
    device, generator = kwargs.get("device"), kwargs.get("generator")
    if generator is not None and generator.device == CPU and (here or (device is not None and device != CPU)):
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    return here


def compute(func, args, kwargs):
    """Do on the CPU what the GPU would do."""
    here = require_one_device(func, args, kwargs)
    if kwargs.get("device") is not None:
        here = kwargs["device"].type in ("cuda", "meta")
        kwargs = {**kwargs, "device": CPU}
    given = {id(one.held): one for one in (*tensors_in(args), *tensors_in(kwargs.values())) if isinstance(one, OnCuda)}
    args, kwargs = each(lambda one: one.held if isinstance(one, OnCuda) else one, [args, kwargs])

    def outer(one):
        if id(one) in given:  # what was changed in place
            return given[id(one)]
        return OnCuda(one.resolve_conj().resolve_neg()) if here else one  # the flags would get lost

    found = func(*args, **kwargs)
    return type(found)(each(outer, found)) if isinstance(found, tuple | list) else each(outer, found)


@contextmanager
def pretended_cuda():
    """Within it, there is a CUDA device."""
    torch._C._ensureCUDADeviceGuardSet()
    answers = {
        "torch.cuda._lazy_init": None,
        "torch.cuda.is_available": True,
        "torch.cuda.is_bf16_supported": True,
        "torch.cuda.mem_get_info": (FREE_MEMORY, FREE_MEMORY),
        "torch.cuda.get_device_name": "pretended GPU",
        "torch.cuda.synchronize": None,
        "torch.cuda.reset_peak_memory_stats": None,
        "torch.cuda.max_memory_allocated": 0,
        "torch.amp.autocast_mode.torch.cuda.amp.common.amp_definitely_not_available": False,
    }
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch(name, lambda *args, answer=answer, **options: answer))
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") by way of `compute`
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        stack.enter_context(Autocast())
        stack.enter_context(Redirect())
        yield CUDA
