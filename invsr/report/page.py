"""The report as one HTML page without external resources."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from invsr.report.layers import DIVERGING, SHARE
from invsr.report.plot import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A figure's colours become the page's, so that they suit light and dark.
INK = "#111111"
ROLES = {INK: "currentColor", COLOURS[0]: "var(--blue)", COLOURS[1]: "var(--red)", COLOURS[2]: "var(--green)"}
STOPS = {DIVERGING: "PuOr_r", SHARE: "cividis"}

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="{policy}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
"""

PAGE = (
    HEAD
    + """<p class="quiet">{subtitle}</p>
<ul class="cards">{cards}</ul>
{remarks}
<h2>Scan and result</h2>
<div class="controls" id="sets" role="group" aria-label="What is shown"></div>
<div class="controls">
{sliders}
<label>Brightness <input type="range" id="window" min="50" max="300" value="100"></label>
<label><input type="checkbox" id="difference"> Differences from the result</label>
<label><input type="checkbox" id="hair" checked> Cross-hair</label>
<label>Sides <select id="sides"><option value="radiological">radiological</option>
<option value="neurological">neurological</option></select></label>
</div>
<p class="quiet">Cross-hair at <output id="place"></output>. Click into a picture, or use the arrow keys and page up and
down. Every layer is drawn with its own voxels, so thick slices look thick.</p>
<p id="loading">Unpacking the images.</p>
<div id="viewer"></div>
{sections}
</main>
<script type="application/json" id="layers">{layers}</script>
<script>
{script}
</script>
</body>
</html>
"""
)

PLAIN = (
    HEAD
    + """{sections}
</main>
</body>
</html>
"""
)
# Nothing is loaded from anywhere; the viewer's script and the style stand in the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
VIEWER_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


def plain_page(title: str, *sections: str) -> str:
    """A page of sections, without a viewer."""
    return PLAIN.format(policy=POLICY, title=html.escape(title), style=style(), sections="\n".join(sections))


def page(
    title: str,
    subtitle: str,
    cards: Sequence[tuple[str, str, bool | None]],
    remarks: Sequence[str],
    sections: Sequence[str],
    layers: Mapping[str, Any],
) -> str:
    """The whole page.

    Parameters
    ----------
    title, subtitle : str
    cards : sequence of (heading, sentence, verdict)
        Verdict: True for good, False for bad, None for neither.
    remarks : sequence of str
        Remarks on the reconstruction, shown above the images.
    sections : sequence of str
        HTML that `section` made.
    layers : mapping
        The data of `viewer.js`.
    """
    room = files("invsr.report")
    sliders = "\n".join(
        f'<label for="slide-{name}">{name.capitalize()} <input type="range" id="slide-{name}" min="0" value="0">'
        f'<output id="at-{name}"></output></label>'
        for name in ("sagittal", "coronal", "axial")
    )
    verdicts = {True: ("good", "✓ "), False: ("bad", "! "), None: ("", "")}
    return PAGE.format(
        policy=VIEWER_POLICY,
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        style=style(),
        cards="".join(
            f'<li class="{verdicts[verdict][0]}"><strong>{verdicts[verdict][1]}{html.escape(heading)}</strong>'
            f"{html.escape(sentence)}</li>"
            for heading, sentence, verdict in cards
        ),
        remarks="".join(f"<p>! {html.escape(one)}</p>" for one in remarks),
        sliders=sliders,
        sections="\n".join(sections),
        # A "</script>" in a file name must not end the script.
        layers=json.dumps(layers).replace("<", "\\u003c"),
        script=(room / "viewer.js").read_text(encoding="utf-8"),
    )


def section(title: str, *parts: str) -> str:
    """A heading and the parts under it."""
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{html.escape(words)}</p>"


def table(rows: Mapping[str, str]) -> str:
    """A table of names and values."""
    cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
    return f'<div class="scroll"><table>{"".join(cells)}</table></div>'


def charts(*figures: str) -> str:
    """Charts side by side, or below each other on a narrow screen."""
    return f'<div class="charts">{"".join(figures)}</div>'


def chart(figure: Figure, caption: str, wide: bool = False) -> str:
    """A Matplotlib figure as SVG, text as text, in the page's colours."""
    import matplotlib

    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.tick_params(which="both", colors=INK, labelcolor=INK)
        for one in (axes.xaxis.label, axes.yaxis.label, axes.title):
            one.set_color(INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
        legend = axes.get_legend()
        if legend is not None:
            legend.get_frame().set_alpha(0)
            for word in legend.get_texts():
                word.set_color(INK)
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": caption, "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", out.getvalue()[out.getvalue().index("<svg") :], flags=re.S)
    for colour, role in ROLES.items():
        svg = svg.replace(colour, role)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(caption, quote=True)}" ', 1)
    kind = ' class="wide"' if wide else ""
    return f"<figure{kind}>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def style() -> str:
    """The style sheet of all pages."""
    found = (files("invsr.report") / "style.css").read_text(encoding="utf-8")
    for name, source in STOPS.items():
        found = found.replace(f"{name.upper()}_STOPS", _stops(source))
    return found


def _stops(source: str) -> str:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return ", ".join(to_hex(colormaps[source](k / 8)) for k in range(9))
