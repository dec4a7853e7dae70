"""Makes docs/report.png: trains on scikit-learn's digits for a minute, and takes images of two parts of the report.

`python docs/pages/picture.py [RUN]` needs the extras digits and reports, playwright and chromium. RUN is a finished run
to take in place of a new one.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

import inceptionnet

WIDTH_PX, COLUMN_PX, HEIGHT_PX, SCALE = 760, 400, 752, 1.4  # of the left part, the right one, and pixels for each


def main(run: str | None) -> None:
    """Train, open the report, and write the picture of the README and of the home page."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        if run is None:
            run = f"{folder}/digits"
            inceptionnet.fit("digits", run, model="inception_resnet_v1", width=0.25, size=75, epochs=12)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(color_scheme="light", device_scale_factor=SCALE)
        report = Path(run, "report.html").resolve().as_uri()
        sections = ((WIDTH_PX, "body"), (COLUMN_PX, "#examples"))
        parts = [part(page, report, width, section) for width, section in sections]
        browser.close()
    picture = Image.new("RGB", (sum(one.width for one in parts) + 2 * (len(parts) - 1), parts[0].height), "#c8ccd0")
    left = 0
    for one in parts:
        picture.paste(one, (left, 0))
        left += one.width + 2
    picture.quantize(128, dither=Image.Dither.NONE).save(Path(__file__).parent.parent / "report.png", optimize=True)


def part(page: Any, report: str, width: int, section: str) -> Image.Image:
    """The report in a window of this width, px, from the element of this CSS selector on."""
    page.set_viewport_size({"width": width, "height": HEIGHT_PX})
    page.goto(report)
    page.wait_for_load_state()
    top = page.locator(section).bounding_box()["y"] if section != "body" else 0
    clip = {"x": 0, "y": top, "width": width, "height": HEIGHT_PX}
    return Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))).convert("RGB")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
