"""Draw the pictures of docs/ anew, and take the explorer's screenshots (Chromium with its driver, and selenium).

Usage: python tools/make_pictures.py [NAME ...]

NAME is a file of docs/, or `explore` for all screenshots. Without one all are made but those of TIMED, which measure
for minutes on a machine that should do nothing else. Needs the extras [plot] and [dev].
"""

from __future__ import annotations

import argparse
import runpy
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from npmobilenet.cli.app import run as run_command  # noqa: E402

# A file of docs/ -> the command that draws it, to which the file is added.
COMMANDS = {
    "zoo.svg": "npmobilenet plot zoo -o",
    "memory.svg": "npmobilenet plot memory flowers -o",
    "ranges.svg": "npmobilenet plot ranges flowers_uint8 -o",
    "latency.svg": "npmobilenet plot latency -o",
    "edgetpu.svg": "npmobilenet plot edgetpu -o",
    "ladder.svg": "python examples/ladder.py --picture",
    "ladder_int8.svg": "python examples/ladder_int8.py --picture",
}
TIMED = ("latency.svg", "edgetpu.svg", "ladder.svg", "ladder_int8.svg")
# What others draw: tools/peer_report.py, tools/train_flowers.py, npmobilenet/images/example.py.
OTHERS = ("performance.svg", "training_curves.png", "example.png")

WIDTHS = (400, 900, 1600)
HEIGHT = 1000
PAGES = {"light": "flowers", "dark": "flowers_uint8"}  # theme -> the model that is shown in it
LAYER = 2  # a depthwise layer: few enough terms to be seen at once
SCREENSHOTS = {f"explore_{width}_{theme}.png": (width, theme) for theme in PAGES for width in WIDTHS}
COLOURS = 256  # of a screenshot's palette, which takes half the bytes; none is far off (10 or 20 of 255)


def chromium(binary: str, driver: str) -> Any:
    """A headless Chromium, driven by selenium, that keeps what pages write on the console."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_script_timeout(120)
    return browser


def found_chromium() -> tuple[str, str] | None:
    """The paths of Chromium and its driver, None where either isn't there."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    return (binary, driver) if binary and driver else None


def screenshots(names: Sequence[str], folder: Path) -> None:
    """Save the explorer's page as some of SCREENSHOTS: so many pixels wide, a theme, a value taken apart."""
    from PIL import Image

    found = found_chromium()
    if found is None:
        sys.exit("no Chromium with its driver here (apt-get install chromium chromium-driver)")
    browser = chromium(*found)
    with tempfile.TemporaryDirectory() as pages:
        for theme, model in PAGES.items():
            page = Path(pages) / f"{theme}.html"
            if run_command(["explore", "--model", model, "-o", str(page)]):
                sys.exit(1)
            for name in names:
                width, wanted = SCREENSHOTS[name]
                if wanted == theme:
                    shoot(browser, page, (width, theme), folder / name)
                    picture = Image.open(folder / name).convert("RGB")
                    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2).save(folder / name, optimize=True)
    browser.quit()


def shoot(browser: Any, page: Path, look: tuple[int, str], target: Path) -> None:
    """One screenshot, of exactly that width: a window of a real one can't be as narrow as a phone."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": look[0], "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get("about:blank")
    browser.get(page.as_uri())
    browser.execute_script("$('theme').value = arguments[0]; $('theme').dispatchEvent(new Event('change'))", look[1])
    for script in (f"pickLayer({LAYER})", "pick({ y: 4, x: 36, c: 4 })", "window.scrollTo(0, 0)"):
        browser.execute_script(script)
        browser.execute_async_script("settled.then(arguments[0])")
    browser.save_screenshot(str(target))


def main(arguments: Sequence[str] | None = None, folder: Path = ROOT / "docs") -> int:
    """Make them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*COMMANDS, *SCREENSHOTS, "explore"]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    chosen = parser.parse_args(arguments).names or [name for name in names if name not in TIMED]
    if wrong := [name for name in chosen if name not in names]:
        parser.error(f"{', '.join(wrong)}: expected some of {', '.join(names)}")
    for name in chosen:
        if name in COMMANDS:
            program, script, *words = (*COMMANDS[name].split(), str(folder / name))
            if program == "python":
                runpy.run_path(str(ROOT / script))["main"](words)
            elif run_command([script, *words]):
                return 1
    if shots := list(SCREENSHOTS) if "explore" in chosen else [name for name in SCREENSHOTS if name in chosen]:
        screenshots(shots, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
