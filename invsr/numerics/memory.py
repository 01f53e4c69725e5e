"""How much memory there is, and how much of it this process holds."""

from __future__ import annotations

from pathlib import Path

import torch

# Where Linux tells of the limits of groups of processes (containers, batch systems), in its second and first version.
GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still use on a device: free, and within the limits set for it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = min([int(psutil.virtual_memory().available), *_left_in_groups()])
    try:
        import resource
    except ImportError:  # Windows sets no such limit
        return free
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return free if limit == resource.RLIM_INFINITY else min(free, limit - int(psutil.Process().memory_info().vms))


def total_memory() -> int:
    """Bytes of this machine, or the lowest limit that is set for this process's groups."""
    import psutil

    return min([int(psutil.virtual_memory().total), *(most for most, _ in _limits_of_groups())])


def held_memory(device: torch.device) -> int:
    """Bytes that this process holds on a device."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    import psutil

    return int(psutil.Process().memory_info().rss)


def _left_in_groups() -> list[int]:
    """Bytes below the limit of each control group that this process is in; none where there is no such limit."""
    return [max(0, most - used) for most, used in _limits_of_groups()]


def _limits_of_groups() -> list[tuple[int, int]]:
    """The limit of each control group that this process is in, and what is used of it, bytes."""
    found = []
    for folder in _groups():
        for limit, usage, cached in LIMITS:
            try:
                most = int((folder / limit).read_text(encoding="ascii"))
                used = int((folder / usage).read_text(encoding="ascii"))
                stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            except (OSError, ValueError):  # not on this system, or "max": no limit
                continue
            # Files that were read can be dropped from memory.
            found.append((most, used - int(stat.get(cached, 0))))
    return found


def _groups() -> list[Path]:
    """Folders of the control groups that this process is in, and of those around them."""
    try:
        lines = OWN_GROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = GROUPS / controllers
        inner = top / path.lstrip("/")
        # In a container, the path is the host's: only the top is to be seen.
        found += [inner, *(one for one in inner.parents if one == top or top in one.parents)]
    return list(dict.fromkeys(found))
