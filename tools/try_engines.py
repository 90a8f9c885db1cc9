"""Run the programs of docs/other-engines.md on a folder of pictures, and compare their vectors with `features`.

Usage: python tools/try_engines.py [ray] [spark]

Without a name: those whose packages are installed. JAVA_HOME says which Java Spark takes. Exits with 1 if a vector or a
row differs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import npmobilenet as nm

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "other-engines.md"
PACKAGES = {"ray": "ray", "spark": "pyspark"}


def programs() -> dict[str, str]:
    """The engines' programs, as the page has them."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^## (\w+).*?^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return {name.lower(): program for name, program in found}


def differences(program: str, count: int = 30) -> int:
    """Rows that aren't as they should be, of `count` pictures and one that is broken."""
    import pyarrow.parquet

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        rng = np.random.default_rng(0)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(folder / "photos" / f"{i:02}.png")
        (folder / "photos" / "broken.png").write_bytes(b"no picture")
        (folder / "model.h5").symlink_to(ROOT / "weights" / "flowers.h5")
        variables = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        variables |= {"PYSPARK_PYTHON": sys.executable, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        subprocess.run([sys.executable, "-c", program], cwd=folder, env={**os.environ, **variables}, check=True)
        files = sorted((folder / "vectors").glob("*.parquet"))
        rows = [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]
        seen = {Path(row["path"]).name: row for row in rows}
        wrong = abs(len(rows) - count - 1) + (seen["broken.png"]["error"] is None)
        model = nm.load(ROOT / "weights" / "flowers.h5", threads=1)
        for i in range(count):
            expected = model.features(folder / "photos" / f"{i:02}.png")[0]
            wrong += np.array(seen[f"{i:02}.png"]["vector"], np.float32).tobytes() != expected.tobytes()
        return wrong


def main(names: list[str]) -> int:
    """Run them; the exit code."""
    installed = [name for name, package in PACKAGES.items() if importlib.util.find_spec(package)]
    wrong = 0
    for name in names or installed:
        found = differences(programs()[name])
        version = __import__(PACKAGES[name]).__version__
        print(f"{name} {version}: {found} rows differ")
        wrong += found
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
