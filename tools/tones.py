"""Writes the tones with which test keys are answered in formats other than WAV (needs ffmpeg).

python tools/tones.py
"""

from __future__ import annotations

import math
from array import array
from pathlib import Path

from haat.gateway.simulator.marks import SECONDS, TONES
from haat.providers.vani.sound import encode

FOLDER = Path(__file__).parents[1] / "src" / "haat" / "gateway" / "simulator" / "tones"
PITCH, LOUDNESS = 440, 6000


def main() -> None:
    for form, rate in TONES.items():
        samples = array(
            "h", (int(LOUDNESS * math.sin(math.tau * PITCH * at / rate)) for at in range(int(rate * SECONDS)))
        )
        (FOLDER / f"tone.{form}").write_bytes(encode(samples.tobytes(), rate, form)[0])


if __name__ == "__main__":
    main()
