"""Run a module or a program while the time of day jumps by days, back and forth: `jumping.py splitc serve ...`."""

import random
import runpy
import sys
import time

_DAY_S = 86_400.0


def let_time_jump() -> None:
    """Whoever asks for the time of day is told one that is off by up to some days."""
    true_time, chance = time.time, random.Random(1)

    def jumping() -> float:
        return true_time() + chance.uniform(-3, 3) * _DAY_S

    time.time = jumping
    time.time_ns = lambda: int(1e9 * jumping())


if __name__ == "__main__":
    let_time_jump()
    del sys.argv[0]
    run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
    run(sys.argv[0], run_name="__main__")
