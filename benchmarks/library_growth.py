"""How a library grows: rate of insertion, time of questions and memory from 10^4 to 10^6 particles in one SQLite file.

The particles are made up (measurements of every column, crops of 48 x 48 px, the default, two models' predictions,
labels for some), but go in through `Library.add_micrograph` and `Library.add_predictions`, as those of images do. One
library grows from size to size; each question is asked several times of particles, classes and ranges drawn at random,
in a process that holds nothing else. `--extraction` measures megapixels per second with 1 and with 2 workers in its
place.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import common
from tumble.library import Library, Query
from tumble.library.schema import MEASUREMENT_COLUMNS
from tumble.types import Micrograph, ModelRecord, Particles, Pose, Predictions

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
PER_MICROGRAPH = 1000
SIDE_PX = 48
CLASSES = ("single", "dimer", "trimer", "multiple")
#: Milliseconds that the median of an indexed query may take, and of others that are asked for; the rest is measured.
MARK_MS = 100.0
MARKS = {"nearest neighbours": 200.0, "suggest": None}


def micrograph(number: int) -> tuple[Micrograph, Particles]:
    """Make up a micrograph with a thousand particles."""
    rng = np.random.default_rng(number)
    side = 512
    pixels = np.broadcast_to(np.arange(side, dtype=np.uint16), (side, side)).copy()
    n = PER_MICROGRAPH
    table = pd.DataFrame({name: rng.lognormal(3, 0.5, n) for name in MEASUREMENT_COLUMNS})
    boxes = [name for name in MEASUREMENT_COLUMNS if name.startswith("bbox")]
    table[boxes] = table[boxes].astype(int)
    table[["touches_border", "truncated"]] = rng.random((n, 2)) < 0.05
    mask = np.zeros((side, side), dtype=np.int32)
    rows, columns = np.divmod(np.arange(n), 32)
    mask[16 * rows + 8, 16 * columns + 8] = np.arange(1, n + 1)
    crops = rng.integers(0, 256, (n, SIDE_PX, SIDE_PX), dtype=np.uint8)
    outlines = tuple(rng.uniform(0, side, (n, 24, 2)).astype(np.float32))
    parameters = {"crop_size": SIDE_PX, "intensity_range": [0, 511]}
    return Micrograph(pixels, f"made-up-{number}.tif", f"{number:064x}", 1.5), Particles(
        crops, table, mask, outlines, parameters
    )


def predictions(n: int, rng: np.random.Generator) -> Predictions:
    """Make up what a model says: mostly sure of itself, two latent factors in one cluster per class."""
    classes = rng.integers(0, len(CLASSES), n)
    p = rng.dirichlet(np.full(len(CLASSES), 0.2), n)
    swap = p.argmax(axis=1)
    rows = np.arange(n)
    p[rows, swap], p[rows, classes] = p[rows, classes], p[rows, swap]
    latent = rng.normal(0, 0.5, (n, 2)) + 2 * np.stack([classes % 2, classes // 2], axis=1)
    zeros = np.zeros(n, dtype=np.float32)
    pose = Pose(rng.uniform(-np.pi, np.pi, n).astype(np.float32), np.zeros((n, 2), np.float32), zeros + 1, zeros)
    novelty = rng.gamma(1.0, 0.4, n).astype(np.float32)
    return Predictions(CLASSES, p.astype(np.float32), latent.astype(np.float32), pose, novelty)


def rival(said: Predictions, rng: np.random.Generator) -> Predictions:
    """Make up another model that disagrees on some two in a hundred."""
    other = said.probabilities.copy()
    changed = rng.random(len(other)) < 0.02
    other[changed] = np.roll(other[changed], 1, axis=1)
    return Predictions(CLASSES, other, said.latent, said.pose, said.novelty)


def record(name: str) -> ModelRecord:
    """Describe a made-up model."""
    return ModelRecord(name, name, CLASSES, {}, {"weights_sha256": name}, {}, (), 1.0)


class Stopwatch:
    """Seconds of the clock and of the processor within its blocks: others may keep the processors busy meanwhile."""

    def __init__(self) -> None:
        self.wall = self.cpu = 1e-9

    def __enter__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def __exit__(self, *exc_info: object) -> None:
        self.wall += time.perf_counter() - self._begun[0]
        self.cpu += time.process_time() - self._begun[1]


def grow(path: Path, size: int) -> common.Row:
    """Add micrographs until there are `size` particles, two models' predictions of each, and labels of 1 in 500."""
    with Library(path, create=True) as library:
        for name in ("first", "second"):
            library.ensure_model(record(name))
        held = len(library.micrographs())
        runs = {name: library.begin_run(name) for name in ("first", "second")}
        seconds = {"particles": Stopwatch(), "predictions": Stopwatch(), "labels": Stopwatch()}
        for number in range(held, size // PER_MICROGRAPH):
            image, found = micrograph(number)
            rng = np.random.default_rng([number, 1])
            with seconds["particles"]:
                library.add_micrograph(image, found)
            ids = np.arange(number * PER_MICROGRAPH, (number + 1) * PER_MICROGRAPH) + 1
            said = predictions(PER_MICROGRAPH, rng)
            other = rival(said, rng)
            with seconds["predictions"]:
                library.add_predictions("first", ids, said, run_id=runs["first"])
                library.add_predictions("second", ids, other, run_id=runs["second"])
            with seconds["labels"]:
                library.add_labels(ids[:2], list(rng.choice(CLASSES, 2)), author="ann", source="benchmark")
    added = size - held * PER_MICROGRAPH
    row: common.Row = {"added": added, "bytes_per_particle": path.stat().st_size / size}
    if added:  # a library that was kept may have that size already
        for name, rows in (("particles", added), ("predictions", 2 * added)):
            row[f"{name}_per_s"] = rows / seconds[name].wall
            row[f"{name}_per_cpu_s"] = rows / seconds[name].cpu
    return row


def questions(library: Library, size: int, seed: int) -> dict[str, Callable[[], Any]]:
    """Give the questions, with what they are about drawn at random."""
    from tumble.pipeline import suggest_labels

    rng = np.random.default_rng(seed)
    low = float(rng.uniform(0.4, 0.8))
    name = str(rng.choice(CLASSES))
    diameter = float(rng.lognormal(3, 0.5))
    sizes = {"equivalent_diameter_nm": (diameter, diameter * 1.1)}
    some = int(rng.integers(1, size // PER_MICROGRAPH + 1))
    asked = {
        "class": Query(predicted=(name,), model="first"),
        "class and probability": Query(
            predicted=(name,), probability=(low, low + 0.1), order_by="probability", model="first"
        ),
        "least probable": Query(order_by="probability", model="first"),
        "size": Query(measurements=sizes, model="first"),
        "largest": Query(order_by="equivalent_diameter_nm", descending=True, model="first"),
        "micrograph": Query(micrograph_ids=(some,), model="first"),
        "labelled": Query(label_state="labelled", model="first"),
        "label": Query(labels=(name,), model="first"),
        "unlabelled, least probable": Query(label_state="unlabelled", order_by="probability", model="first"),
        "contested": Query(label_state="contested", model="first"),
        "label contradicted": Query(disagrees_with_label=True, model="first"),
        "models disagree": Query(disagrees_with="second", model="first"),
        "most novel": Query(novelty=(1.0, None), order_by="novelty", descending=True, model="first"),
    }
    found: dict[str, Callable[[], Any]] = {key: partial(library.search, query) for key, query in asked.items()}
    found["nearest neighbours"] = partial(library.neighbours, int(rng.integers(1, size + 1)), 10, model="first")
    found["suggest"] = partial(suggest_labels, library, 20, model="first", random_state=seed)
    return found


def ask(path: Path, size: int, repeats: int) -> common.Row:
    """Ask each question `repeats` times."""
    times: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with Library(path) as library:
        for seed in range(repeats):
            for name, question in questions(library, size, seed).items():
                watch = Stopwatch()
                with watch:
                    question()
                times.setdefault(name, []).append(1000 * watch.wall)
                cpu.setdefault(name, []).append(1000 * watch.cpu)
    median = {name: float(np.median(values)) for name, values in times.items()}
    return {
        "median_ms": median,
        "p95_ms": {name: float(np.percentile(values, 95)) for name, values in times.items()},
        "median_cpu_ms": {name: float(np.median(values)) for name, values in cpu.items()},
        "over_the_mark": [name for name, value in median.items() if value > (MARKS.get(name, MARK_MS) or np.inf)],
    }


def measure(path: Path, size: int, repeats: int) -> common.Row:
    """Grow to a size, and ask."""
    row = {**grow(path, size), **ask(path, size, repeats)}
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Others may have kept the processors busy: the load says how far the times are those of this work alone.
    return {**row, "peak_memory_mb": peak_kb / 1024, "load": os.getloadavg()[0], "processors": os.cpu_count()}


def extraction(n_workers: int, n_images: int, side_px: int) -> common.Row:
    """Extract images of discs with workers on this machine, and give the megapixels per second."""
    import tifffile
    from distributed import LocalCluster

    from tumble.pipeline import ExtractionOptions, extract_files

    with (
        TemporaryDirectory() as name,
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
    ):
        paths = []
        rows, columns = np.mgrid[:side_px, :side_px]
        discs = ((rows % 32 - 16) ** 2 + (columns % 32 - 16) ** 2 <= 64) * 120.0
        for number in range(n_images + n_workers):
            image = 60 + discs + np.random.default_rng(number).normal(0, 4, discs.shape)
            paths.append(Path(name) / f"{number}.tif")
            tifffile.imwrite(paths[-1], np.clip(np.rint(image), 0, 255).astype(np.uint8))
        options = ExtractionOptions(crop_size=SIDE_PX)
        address = cluster.scheduler_address
        library = Path(name) / "particles.db"
        extract_files(library, paths[:n_workers], options=options, scheduler=address)  # they import what they need
        begun = time.perf_counter()
        done = extract_files(library, paths[n_workers:], options=options, scheduler=address)
        seconds = time.perf_counter() - begun
    megapixels = n_images * side_px**2 / 1e6
    return {
        "megapixels": megapixels,
        "particles": sum(file.n_particles for file in done),
        "seconds": seconds,
        "megapixels_per_s": megapixels / seconds,
        "load": os.getloadavg()[0],
        "processors": os.cpu_count(),
    }


def plot(rows: list[common.Row], path: Path) -> None:
    """Draw how the rate of insertion, the questions and the memory change with the size.

    Where a size was measured several times, rates are those at the least load, and the processor's times of questions
    are the newest.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right, memory) = plt.subplots(
        1, 3, figsize=(15, 4.8), layout="constrained", gridspec_kw={"width_ratios": [1, 1.6, 1]}
    )
    calm = _one_of_each_size(rows, "particles_per_s", lambda row: -row["load"])
    timed = _one_of_each_size(rows, "particles_per_cpu_s", lambda row: -row["load"])
    for kind, colour in (("particles", "C0"), ("predictions", "C1")):
        _line(left, calm, f"{kind}_per_s", marker="o", color=colour, label=kind)
        _line(left, timed, f"{kind}_per_cpu_s", marker=".", color=colour, linestyle=":", label=f"{kind}, processor")
    left.set(xscale="log", xlabel="particles in the library", ylabel="rows stored per second", title="Insertion")
    left.set_ylim(0, 1.4 * left.get_ylim()[1])
    left.legend(frameon=False)
    asked = _one_of_each_size(rows, "median_cpu_ms", lambda row: row.get("measured", {}).get("date") or "")
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"][:8]
    styles = [(colour, line) for line in ("-", "--") for colour in colours]
    for (colour, line), name in zip(styles, asked[0]["median_cpu_ms"], strict=False):
        values = [row["median_cpu_ms"][name] for row in asked]
        sizes = [row["size"] for row in asked]
        right.plot(sizes, values, marker="o", markersize=3, color=colour, linestyle=line, label=name)
    right.axhline(MARK_MS, color="0.5", linewidth=1, linestyle=":")
    right.annotate("100 ms", (1e4, MARK_MS), xytext=(0, 3), textcoords="offset points", color="0.4", fontsize=8)
    right.set(
        xscale="log",
        yscale="log",
        xlabel="particles in the library",
        ylabel="median of processor time, ms",
        title="Questions",
    )
    right.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    held = [{**row, "memory": row["peak_memory_mb"] / 1024} for row in calm]
    held = [{**row, "file": row["bytes_per_particle"] * row["size"] / 2**30} for row in held]
    _line(memory, held, "memory", marker="o", label="memory, peak (GB)")
    _line(memory, held, "file", marker="o", label="file (GB)")
    memory.axhline(2, color="0.5", linewidth=1, linestyle=":")
    memory.set(xscale="log", xlabel="particles in the library", ylabel="GB", title="Memory and file")
    memory.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=110)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


def _one_of_each_size(rows: list[common.Row], key: str, rank: Callable[[common.Row], Any]) -> list[common.Row]:
    best: dict[int, common.Row] = {}
    for row in sorted((row for row in rows if key in row), key=rank):
        best[row["size"]] = row
    return [best[size] for size in sorted(best)]


def _line(axes: Any, rows: list[common.Row], key: str, **style: Any) -> None:
    axes.plot([row["size"] for row in rows], [row[key] for row in rows], **style)


def options_of(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options."""
    parser = common.arguments("library_growth", __doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="particles, in whole thousands")
    parser.add_argument("--repeats", type=int, default=25, help="of each question (default: %(default)s)")
    parser.add_argument("--library", type=Path, help="file to grow and keep (default: a temporary one)")
    parser.add_argument("--extraction", action="store_true", help="measure extraction with 1 and 2 workers instead")
    return common.parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    """Measure at each size, and draw."""
    options = options_of(argv)
    results = common.Record(options.out, since=options.since, marks_ms={"any": MARK_MS, **MARKS})
    sizes = [PER_MICROGRAPH, 2 * PER_MICROGRAPH] if options.quick else sorted(options.sizes)
    if options.extraction:
        for n_workers in (1, 2):
            case = common.with_options({"extraction_workers": n_workers}, options, uses_settings=False)
            work = partial(extraction, n_workers, 2 if options.quick else 12, 256 if options.quick else 1024)
            results.measure(case, work)
        return
    with TemporaryDirectory() as folder:
        path = options.library or Path(folder) / "growing.db"
        for size in sizes:
            case = common.with_options({"size": size}, options, uses_settings=False)
            results.measure(case, partial(measure, path, size, 2 if options.quick else options.repeats))
    plot([row for row in results.rows if "size" in row and bool(row.get("quick")) == options.quick], options.out)


if __name__ == "__main__":
    main()
