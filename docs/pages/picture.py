"""Makes home.png: trains on scikit-learn's digits for a minute, and takes an image of the run's report.

`python docs/pages/picture.py` needs the extras digits and reports, playwright and chromium.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import inceptionnet


def main() -> None:
    """Train, open the report, and write the image beside the home page."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        inceptionnet.fit("digits", f"{folder}/digits", model="inception_resnet_v1", width=0.25, size=75, epochs=4)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
        page.goto(Path(folder, "digits", "report.html").as_uri())
        page.wait_for_load_state()
        page.screenshot(path=Path(__file__).parent.parent / "home.png")
        browser.close()


if __name__ == "__main__":
    main()
