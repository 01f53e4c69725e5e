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


@pytest.fixture(scope="session")
def thorough(request):
    """Whether to take the time that a pretended device costs: its operations are slow."""
    return request.config.option.device != "cpu"
