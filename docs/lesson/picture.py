"""Take the picture of the lesson that leads to it: ``docs/pictures/lesson.png``.

It needs the extra ``browser``, and Chromium: ``python docs/lesson/picture.py chromium``.
"""

import runpy
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
PICTURE = HERE.parent / "pictures" / "lesson.png"
SCENE = "#input .bench"


def main(program: str) -> None:
    """Build the page, point at a pixel, and take the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page_file = Path(folder) / "lesson.html"
        runpy.run_path(str(HERE / "build.py"))["main"](page_file)
        browser = driver.chromium.launch(executable_path=shutil.which(program))
        page = browser.new_page(viewport={"width": 1200, "height": 1500})
        page.goto(page_file.as_uri())
        page.locator('#input [data-array="dX"] td[data-flat="10"]').hover()
        page.locator(SCENE).screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
