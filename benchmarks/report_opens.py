"""Size of a report and time to open it in a browser: python benchmarks/report_opens.py REPORT.html

Chromium opens the page with a new profile in each round; the times are until the load event and until the first paint.
The same is measured with the screen of a phone and the CPU slowed 4 times. Needs chromium and playwright.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROUNDS = 15
TIMES = """() => {
  const [load] = performance.getEntriesByType("navigation");
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return [load.loadEventEnd / 1000, paint ? paint.startTime / 1000 : NaN];
}"""


def main(file: Path) -> None:
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, size, slower in (("desktop", (1280, 900), 1), ("phone, CPU slowed 4 times", (390, 844), 4)):
            found = []
            for _ in range(ROUNDS):
                context = browser.new_context(viewport={"width": size[0], "height": size[1]})
                tab = context.new_page()
                context.new_cdp_session(tab).send("Emulation.setCPUThrottlingRate", {"rate": slower})
                tab.goto(file.resolve().as_uri())
                tab.wait_for_timeout(300)
                found.append(tab.evaluate(TIMES))
                context.close()
            for what, times in zip(("load event", "first paint"), zip(*found, strict=True), strict=True):
                print(f"{name}: {what} {statistics.median(times):.2f} s ({min(times):.2f}-{max(times):.2f})")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
