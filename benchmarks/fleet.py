"""Compare `splitc simulate` with sixteen real clients and a real server: latencies, and load of the cloud.

    python benchmarks/fleet.py                                # 4 minutes
    python benchmarks/fleet.py --seconds 120 --json fleet.json
    python benchmarks/fleet.py --only least-cloud,price

The server runs on one core of this machine and the clients on another, with an emulated link between two network
namespaces. This needs Linux with unprivileged namespaces, or root. The server computes; the clients only wait for as
long as their heads would take, because two cores cannot compute for sixteen phones. Other programs distort the
results, and the output warns of them: run this while the machine is idle.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the program runs from anywhere

from rich.console import Console  # noqa: E402

from benchmarks.running import fleet  # noqa: E402
from benchmarks.running.models import Compiler  # noqa: E402
from splitc.common.errors import SplitcError  # noqa: E402

CONSOLE = Console(width=150, highlight=False)
MODEL = "listener"  # small payloads, so that sixteen clients hardly delay each other on the shared link
SECONDS = 40.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    policies = [case.policy for case in fleet.CASES]
    parser.add_argument("--only", default=",".join(policies), help=f"policies (default {','.join(policies)})")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="duration for each policy (default %(default)g)"
    )
    parser.add_argument("--json", type=Path, help="keep all numbers in this file")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    unknown = [name for name in chosen if name not in policies]
    if unknown:
        parser.error(f"there is no policy '{unknown[0]}'; choose of {', '.join(policies)}")
    cases = [case for case in fleet.CASES if case.policy in chosen]
    with tempfile.TemporaryDirectory(prefix="splitc-bench-") as name:
        try:
            model = Compiler(Path(name), say).compiled(MODEL)
            rows = []
            for row in fleet.measure(model, Path(name), cases, arguments.seconds):
                say(f"{row.case.policy}: load average {row.load:.1f}")
                rows.append(row)
        except (SplitcError, OSError) as error:  # no privileges, no `taskset`
            say(f"left out: {error}")
            return
    CONSOLE.print(fleet.table(rows))
    CONSOLE.print(fleet.verdict(rows), soft_wrap=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")


def say(text: str) -> None:
    CONSOLE.print(text, style="dim", soft_wrap=True)


if __name__ == "__main__":
    main()
