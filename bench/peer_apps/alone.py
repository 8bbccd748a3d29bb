"""The model of ten milliseconds by itself: prints the median of so many calls, in milliseconds.

python alone.py CALLS
"""

import statistics
import sys
import time

from served import Ten

PAUSE_SECONDS = 0.001
"""Between two calls, in which a server would hand on the one and hear of the next."""


def main() -> None:
    model, taken = Ten(), []
    for _ in range(int(sys.argv[1])):
        time.sleep(PAUSE_SECONDS)
        began = time.perf_counter()
        model.predict(["x"])
        taken.append(time.perf_counter() - began)
    print(f"{statistics.median(taken) * 1000:.4f}")


if __name__ == "__main__":
    main()
