"""The device that results of the CPU are compared on."""

import pytest
from pretend import pretended_cuda


@pytest.fixture(scope="module")
def cuda(request):
    """A GPU with ``--device cuda``, else the pretended one."""
    if request.config.option.device == "cpu":
        with pretended_cuda() as pretended:
            yield pretended
    else:
        yield request.getfixturevalue("device")


def pytest_collection_modifyitems(config, items):
    """Leave out what is thorough, unless a device is asked for: operations of the pretended one are slow."""
    if config.option.device == "cpu":
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
