"""What runs take in the cloud, alone and together: of the files that the server prepared, but without the server."""

import time
from pathlib import Path
from statistics import fmean

from benchmarks.running.programs import obey
from splitc.bundle.folder import read_bundle
from splitc.bundle.stacking import stack
from splitc.common import ort
from splitc.server.tails.files import cloud_files, in_cloud
from splitc.server.tails.prepare import Settings, prepare


def batch_times(
    bundle: str, cache: str, max_batch: int, rounds: int, pause_s: float
) -> dict[str, list[float]]:
    """Mean seconds of runs of 1, 2, ... requests of each file, up to the largest batch that pays.

    All in turns, with pauses, as requests come: what others left in the caches decides then.
    """
    found = read_bundle(Path(bundle))
    folder, prepared = prepare(found, in_cloud(found), Path(cache), Settings(1, max_batch), lambda _: None)
    described = {item.file: item for item in cloud_files(found, in_cloud(found))}
    taken_s: dict[str, list[list[float]]] = {}
    runs = []
    for item in prepared.models:
        level = ort.UNCHANGED if item.optimised else ort.FASTEST
        opened = ort.session(folder / item.file, threads=1, level=level)
        names = [output.name for output in opened.get_outputs()]
        taken_s[item.file] = [[] for _ in range(item.max_batch)]
        for size, own_s in enumerate(taken_s[item.file], 1):
            feeds = stack([described[item.file].made_up()] * size)
            opened.run(names, feeds)  # the first run also makes room
            runs.append((opened, names, feeds, own_s))
    for _ in range(rounds):
        for opened, names, feeds, own_s in runs:
            time.sleep(pause_s)
            began_s = time.perf_counter()
            opened.run(names, feeds)
            own_s.append(time.perf_counter() - began_s)
    return {file: [fmean(own_s) for own_s in sizes] for file, sizes in taken_s.items()}


if __name__ == "__main__":
    obey({"times": batch_times})
