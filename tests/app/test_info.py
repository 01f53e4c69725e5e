"""What `invsr info` says of the machine, and `invsr models` of the networks."""

import torch

import invsr
from invsr.models import engines
from invsr.models.networks import UNet


def test_info_names_the_machine_and_what_runs_the_networks(run, tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("INVSR_ENGINE", raising=False)
    times = iter([10.0, 8.0, 10.0, 20.0])
    monkeypatch.setattr(engines, "_measured", {})

    def measured(network, ways):
        return {str(way): next(times) if type(network) is UNet else 10.0 for way in ways}

    monkeypatch.setattr(engines, "_measure", measured)
    monkeypatch.setattr(engines, "multiplies_bfloat16", lambda device: False)
    for installed, words, way in [
        (None, [], "torch float32, no other is here"),
        ("2026.4", [], "openvino float32, the fastest, measured"),
        ("2026.4", ["--measure"], "torch float32, the fastest, measured"),
        ("2026.4", [], "torch float32, the fastest, measured"),
    ]:
        monkeypatch.setattr(engines.compiled, "version", lambda installed=installed: installed)
        code, out, err = run("info", *words)
        assert (code, err) == (0, "")
        lines = dict(line.split(maxsplit=1) for line in out.splitlines() if not line.startswith("cpu"))
        assert lines["invsr"] == invsr.__version__ and lines["PyTorch"] == torch.__version__
        assert lines["OpenVINO"] == (installed or "not installed: pip install 'invsr[fast]'")
        assert lines["threads"] == str(torch.get_num_threads()) and "GiB free" in lines["memory"]
        runs = [line for line in out.splitlines() if line.startswith("cpu")]
        assert f"(UNet): {way}" in runs[0] and "mri-denoiser-gs (GradientStep): torch float32" in runs[1]
    monkeypatch.setenv("INVSR_ENGINE", "abacus")
    code, _, err = run("info")
    assert code == 1 and "INVSR_ENGINE is 'abacus': use torch or openvino" in err


def test_models_are_listed_and_have_cards(run):
    code, out, err = run("models")
    assert code == 0, err
    for name in ("mri-denoiser", "mri-denoiser-fast", "mri-denoiser-gs"):
        assert sum(line.split()[0] == name for line in out.splitlines()) == 1
        code, card, err = run("models", name)
        assert code == 0 and card.startswith(f"# {name}\n") and "Not for diagnosis" in card, err
    code, _, err = run("models", "nothing")
    assert code != 0 and "mri-denoiser-fast" in err
