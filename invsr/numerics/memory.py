"""How much memory there is."""

from __future__ import annotations

import torch


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still use on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        import resource
    except ImportError:  # Windows sets no such limit
        return free
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return free if limit == resource.RLIM_INFINITY else min(free, limit - int(psutil.Process().memory_info().vms))
