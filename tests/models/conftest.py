"""Machines of which nothing is known, that have OpenVINO, or whose times are given."""

import pytest
from engine_networks import BFLOAT16, OPENVINO

from invsr.models import compiled, engines


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing is known of this machine, and nothing is asked for."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    for name in (engines.VARIABLE, "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(engines, "_measured", {})
    monkeypatch.setattr(compiled, "_broken", [])
    return tmp_path


@pytest.fixture
def openvino(monkeypatch):
    """OpenVINO runs whatever it can, however small."""
    pytest.importorskip("openvino", reason="OpenVINO is an optional extra: pip install 'invsr[fast]'")
    monkeypatch.setenv(engines.VARIABLE, "openvino")
    monkeypatch.setattr(engines, "LEAST_VOXELS", 1)


@pytest.fixture
def machine(monkeypatch):
    """A machine of these times (ms), by way: a list that says how often they were measured."""

    def make(times):
        calls = []

        def measure(network, ways):
            calls.append([str(way) for way in ways])
            return {str(way): times[str(way)] for way in ways}

        monkeypatch.setattr(engines, "_measure", measure)
        monkeypatch.setattr(engines, "multiplies_bfloat16", lambda device: BFLOAT16 in times)
        monkeypatch.setattr(compiled, "version", lambda: "2026.1" if OPENVINO in times else None)
        return calls

    return make
