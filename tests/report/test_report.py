"""The report: true figures in its JSON, true pictures in its page, looked at in a browser."""

import base64
import gzip
import hashlib
import json
import re

import numpy as np
import pytest
import torch

import invsr
from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.models import engines
from invsr.models.networks import UNet
from invsr.operators import acquisition
from invsr.priors.denoiser import Denoiser
from invsr.report import write_report
from invsr.report.layers import MOST_VOXELS, Layer, packed, shown, upright
from invsr.solvers.residuals import residuals
from invsr.testing.phantoms import centred_grid, shapes

SIDE = 32


@pytest.fixture(scope="module")
def solution():
    """Of a scan whose voxels run to the left, down and back, with a bright block on the patient's right."""
    grid = centred_grid((SIDE, SIDE + 4, SIDE))
    data = shapes(grid, size=SIDE - 4.0, n_samples=64)
    data[:, :, -6:-3, 10:20, 10:20] = 1.0
    scan = invsr.simulate(invsr.Volume(data, grid), slice_thickness=4.0, axis=2, noise=0.01)
    flipped = Grid(scan.grid.shape, scan.grid.affine @ _turned(scan.grid.shape))
    scan = invsr.Volume(scan.data.flip(2, 3, 4), flipped, "scan <1>.nii.gz")
    return invsr.reconstruct(scan, method="tv", seed=3)


def _turned(shape):
    turn = np.diag([-1.0, -1.0, -1.0, 1.0])
    turn[:3, 3] = np.array(shape) - 1
    return turn


@pytest.fixture(scope="module")
def folder(solution, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    some = folder / "input.bin"
    some.write_bytes(b"voxels")
    write_report(folder, solution, command="invsr reconstruct x", files={"input": some})
    return folder


def test_the_record_says_what_was_done(folder, solution):
    record = json.loads((folder / "report.json").read_text())
    assert record["chi2"] == solution.chi2 and record["command"] == "invsr reconstruct x" and record["seed"] == 3
    assert record["sha256"] == {"input": hashlib.sha256(b"voxels").hexdigest()}
    (scan,) = record["scans"]
    assert scan["slice_profile"] == "gaussian" and scan["slice_thickness"] == 4.0 and scan["sigma_is"] == "estimated"
    assert scan["slice_correlation"] == solution.slice_correlations[0]
    assert len(scan["slice_chi2"]) == SIDE // 4 and 0.6 < np.mean(scan["slice_chi2"]) < 1.2
    assert 0 < record["evidence"]["prior_share_of_detail"] < 1


def test_the_record_says_by_what_networks_ran(solution, tmp_path):
    assert solution.networks == {}
    network = UNet(dim=3, channels=(2, 4), blocks=0).eval()
    prior = Denoiser(network, symmetries=False, bfloat16=False)
    found = invsr.reconstruct(solution.problem.scans[0], method="pnp", denoiser=prior, max_iter=2)
    page, path = write_report(tmp_path, found)
    record = json.loads(path.read_text())
    assert record["networks"] == {"UNet": ["torch float32"]}
    assert record["processor"] == engines.processor() and record["threads"] == torch.get_num_threads()
    assert "UNet by torch float32" in page.read_text()


def test_a_noisy_slice_stands_out(solution):
    problem = solution.problem
    data = problem.y.clone()
    data[..., 3] += 0.03 * torch.randn(data.shape[:-1], generator=torch.Generator().manual_seed(1))
    spoilt = invsr.reconstruct(invsr.Volume(data, problem.grids[0]), method="tv", noise=0.01, reference=solution.grid)
    again = spoilt.problem
    (found,) = residuals(again.operator, again.likelihoods, again.y, spoilt.prediction, again.slice_axes)
    assert int(found.slice_chi2.argmax()) == 3
    assert float(found.slice_chi2[3]) > 2 * float(found.slice_chi2.median())


def test_the_page_needs_nothing_else(folder):
    page = (folder / "report.html").read_text()
    outside = [url for url in re.findall(r"https?://[^\"'\s)<]+", page) if "www.w3.org" not in url]
    assert outside == []  # w3.org names SVG's namespaces, which nobody fetches
    assert "scan &lt;1&gt;.nii.gz" in page and "<1>" not in page
    assert re.search(r'aria-label="[^"]*χ² of each slice', page)


def test_a_problem_without_scans_is_refused(tmp_path):
    grid = centred_grid((8, 8, 8))
    A = acquisition(grid.coarsen((1, 1, 4)), reference=grid)
    x = shapes(grid, size=6.0, n_samples=32)
    with pytest.raises(InvsrError, match="a report is made of scans"):
        write_report(tmp_path, invsr.solve(A, A(x), sigma=0.01, max_iter=2))


def test_a_folder_that_cannot_be_made_is_refused(solution, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvsrError, match="file: no folder can be made there"):
        write_report(tmp_path / "file", solution)


def test_scans_of_one_name_are_told_apart(tmp_path):
    grid = centred_grid((16, 16, 16))
    truth = invsr.Volume(shapes(grid, size=14.0, n_samples=16), grid, "T2w.nii.gz")
    scans = [invsr.simulate(truth, slice_thickness=4.0, axis=axis, noise=0.01) for axis in (2, 1)]
    _, path = write_report(tmp_path, invsr.reconstruct(scans, method="tv", reference=grid))
    record = json.loads(path.read_text())
    assert [scan["name"] for scan in record["scans"]] == ["T2w.nii.gz (1)", "T2w.nii.gz (2)"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("standard deviation 0.") == 2 and page.count("Slices of T2w.nii.gz (") == 2


def test_negative_intensities_are_no_special_case(solution, tmp_path):
    problem = solution.problem
    scan = invsr.Volume(problem.y - 5.0, problem.grids[0])
    write_report(tmp_path, invsr.reconstruct(scan, method="tv"))
    assert 0 <= json.loads((tmp_path / "report.json").read_text())["evidence"]["prior_share_of_detail"] <= 1


# Layers ---------------------------------------------------------------------------------------------


def test_upright_is_right_anterior_superior_at_the_same_places():
    affine = np.array([[0, 0, -2.0, 5], [-1, 0, 0, 7], [0, 3, 0, -4], [0, 0, 0, 1]])
    grid = Grid((4, 5, 6), affine)
    found, order, flips = upright(grid)
    assert (np.diag(found.directions) > 0.99).all() and found.shape == (6, 4, 5)
    points = torch.from_numpy(grid.points()).permute(*order, 3).flip(flips)
    np.testing.assert_allclose(points.numpy(), found.points())


def test_what_is_packed_is_the_volume_in_256_levels():
    grid = Grid((5, 6, 7), np.diag([1.0, 1.0, 2.0, 1.0]))
    data = torch.rand(1, 1, 5, 6, 7)
    found = packed(Layer("a", data, grid, 0.0, 1.0, "gray", ""), grid)
    changes = np.frombuffer(gzip.decompress(base64.b64decode(found["bytes"])), np.uint8).reshape(found["shape"])
    levels = np.cumsum(changes, axis=2, dtype=np.uint8)
    np.testing.assert_allclose(found["low"] + levels * found["step"], data[0, 0].numpy(), atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(np.array(found["affine"])[:, :3], np.eye(3), atol=1e-9)


def test_large_volumes_are_shown_coarser_in_the_same_place():
    grid = Grid((300, 300, 60), np.diag([0.5, 0.5, 2.0, 1.0]))
    ramp = torch.from_numpy(grid.points()[..., 0]).float()[None, None]
    found = shown(Layer("a", ramp, grid, 0.0, 150.0, "gray", ""))
    assert found.grid.size <= MOST_VOXELS < grid.size
    inner = found.grid.points()[2:-2, 2:-2, 2:-2, 0]
    np.testing.assert_allclose(found.data[0, 0, 2:-2, 2:-2, 2:-2].numpy(), inner, atol=1e-3)


# In a browser ---------------------------------------------------------------------------------------


@pytest.fixture
def page(browser, folder):
    from selenium.webdriver.support.ui import WebDriverWait

    size(browser, 1280)
    browser.get((folder / "report.html").as_uri())
    WebDriverWait(browser, 60).until(lambda d: d.execute_script("return document.body.dataset.ready") == "true")
    yield browser
    errors = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert errors == []


def size(browser, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def pictures(page):
    """What each of the nine canvases shows, column by column."""
    return page.execute_script("return [...document.querySelectorAll('canvas')].map((one) => one.toDataURL())")


def changed(before, after):
    return [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]


def slide(page, name, value):
    page.execute_script(
        "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
        "one.dispatchEvent(new Event('input', {bubbles: true}));",
        name,
        value,
    )


def test_sliders_move_the_cuts_of_all_columns(page):
    for number, name in enumerate(("sagittal", "coronal", "axial")):
        before = pictures(page)
        slide(page, f"slide-{name}", 9)
        assert changed(before, pictures(page)) == [number, 3 + number, 6 + number]
        assert page.execute_script(f"return document.getElementById('at-{name}').textContent").startswith("10/")


def test_what_is_drawn_is_the_volume_where_it_lies(page, solution):
    volume = solution.volume
    _, order, flips = upright(volume.grid)
    data = volume.data[0, 0].permute(*order).flip(flips).numpy()
    slide(page, "slide-axial", 15)
    low = 0.0
    high = page.execute_script(
        "const s = JSON.parse(document.getElementById('layers').textContent);"
        "const r = s.layers[s.result]; return r.low + 255 * r.step"
    )
    drawn = page.execute_script(
        "const c = document.querySelectorAll('canvas')[8];"
        "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, k) => k % 4 === 0)"
    )
    # Rows from the front back, columns from the patient's right: the block is on the left of the picture.
    expected = (data[::-1, ::-1, 15].T - low) / (high - low) * 255
    found = np.array(drawn).reshape(expected.shape)
    np.testing.assert_allclose(found, np.clip(expected, 0, 255), atol=0.51)
    assert found[:, :8].mean() > found[:, -8:].mean() + 10
    sides = page.execute_script("return [...document.querySelectorAll('.pane')].map((one) => one.textContent)")
    assert sides[6:] == ["PA", "RL", "RL"]


def test_neurological_convention_mirrors(page):
    before = pictures(page)
    page.execute_script(
        "const one = document.getElementById('sides'); one.value = 'neurological';"
        "one.dispatchEvent(new Event('change'))"
    )
    assert changed(before, pictures(page)) == [1, 2, 4, 5, 7, 8]
    sides = page.execute_script("return [...document.querySelectorAll('.pane')].map((one) => one.textContent)")
    assert sides[6:] == ["PA", "LR", "LR"]


def test_clicks_and_keys_move_the_cross_hair(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    canvas = page.find_elements(By.TAG_NAME, "canvas")[0]
    before, place = pictures(page), page.find_element(By.ID, "place").text
    ActionChains(page).move_to_element_with_offset(canvas, 40, -30).click().perform()
    assert page.find_element(By.ID, "place").text != place
    # Of the result: in the scan's thick slices a small step changes nothing. The clicked plane stays.
    assert changed(before, pictures(page))[-2:] == [7, 8]
    before = pictures(page)
    canvas.send_keys(Keys.ARROW_UP)
    assert changed(before, pictures(page))[-2:] == [5, 8]
    before = pictures(page)
    canvas.send_keys(Keys.PAGE_UP)
    assert changed(before, pictures(page)) == [0, 3, 6]


def test_differences_and_sets(page):
    from selenium.webdriver.common.by import By

    before = pictures(page)
    page.find_element(By.ID, "difference").click()
    assert changed(before, pictures(page)) == [0, 1, 2, 3, 4, 5]
    page.find_element(By.ID, "difference").click()
    assert changed(before, pictures(page)) == []
    buttons = page.find_elements(By.CSS_SELECTOR, "#sets button")
    assert [one.text for one in buttons] == ["Scan, cubic, result", "Evidence", "Residual"]
    buttons[1].click()
    chosen = page.execute_script(
        "return [...document.querySelectorAll('.column select')].map((s) => s.selectedOptions[0].text)"
    )
    assert chosen == ["from the data", "from the prior", "prior's share"]
    assert changed(before, pictures(page)) == list(range(9))
    assert [one.get_attribute("aria-pressed") for one in buttons] == ["false", "true", "false"]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_and_stays_on_the_page(page, width, scheme):
    size(page, width)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    small, faint = page.execute_script(
        """
        const luminance = (text) => {
          const parts = text.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
            .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
          return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
        };
        const behind = (one) => {
          for (; one; one = one.parentElement) {
            const colour = getComputedStyle(one).backgroundColor;
            if (!/, 0\\)$/.test(colour)) return colour;
          }
          return getComputedStyle(document.body).backgroundColor;
        };
        const small = [], faint = [];
        for (const one of document.querySelectorAll('main *')) {
          const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
          if (!own || one.closest('svg, .pane, .column:not(:last-child)')) continue;
          const style = getComputedStyle(one);
          if (parseFloat(style.fontSize) < 13) small.push(one.textContent);
          const [a, b] = [luminance(style.color), luminance(behind(one))];
          if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) faint.push(one.textContent);
        }
        return [small, faint];
        """
    )
    assert small == [] and faint == []


def test_nothing_is_fetched(page):
    asked = []
    for entry in page.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"].split(":")[0])
    assert set(asked) <= {"file", "data", "blob"} and "file" in asked
