"""Nothing wrong in silence: generated files and command lines, for every command; see `fuzz_run` for what must hold.

300 cases in the suite; a long run with other cases: ``pytest tests/fuzz --fuzz-cases 5000 --hypothesis-seed 1
--fuzz-log log.jsonl``, which writes a line for each case and goes on after faults.
"""

import json
import zlib

import numpy as np
import pytest
from fuzz_cases import SHARES
from fuzz_run import run
from hypothesis import HealthCheck, Phase, given, seed, settings

import invsr
from invsr.app import demo
from invsr.examples import INFARCT, example

USUAL_CASES = 500


@pytest.fixture
def small_example(monkeypatch):
    """A piece of the example head about its infarct, in the place of the whole."""
    whole = example()
    first = np.array(INFARCT) - 6
    i, j, k = (slice(int(n), int(n) + 12) for n in first)
    affine = whole.grid.affine.copy()
    affine[:3, 3] = whole.grid.to_world(first)
    small = invsr.Volume(whole.data[..., i, j, k], invsr.Grid((12, 12, 12), affine), whole.name)
    monkeypatch.setattr("invsr.examples.example", lambda: small)
    monkeypatch.setattr(demo, "example", lambda: small)


@pytest.mark.parametrize("name", SHARES)
def test_no_case_fails_in_silence(name, request, tmp_path, small_example, capfd):
    cases, share = SHARES[name]
    total = request.config.getoption("--fuzz-cases")
    log = request.config.getoption("--fuzz-log")
    first = request.config.getoption("--hypothesis-seed")
    faults = []

    @seed(zlib.crc32(name.encode()) if first is None else f"{name} {first}")
    @settings(
        max_examples=max(1, round(share * total / USUAL_CASES)),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate] if log else [Phase.generate, Phase.shrink],
    )
    @given(cases)
    def check(case):
        found = run(case, tmp_path / "case")
        # What libraries write past Python's streams.
        found.problems += [f"raw output: {text[:200]}" for text in capfd.readouterr() if text]
        if log:
            last = found.err.strip().splitlines()[-1:]
            line = {"name": name, "code": found.code, "seconds": round(found.seconds, 2), "last": last}
            faults.extend([(found.problems, case)] if found.problems else [])
            with open(log, "a", encoding="utf-8") as file:
                extra = {"problems": found.problems, "case": repr(case)} if found.problems or found.seconds > 5 else {}
                file.write(json.dumps(line | extra) + "\n")
        else:
            assert not found.problems, f"{found.problems}\nstandard error:\n{found.err}"

    check()
    assert not faults, f"{len(faults)} cases, the first: {faults[0]}"
