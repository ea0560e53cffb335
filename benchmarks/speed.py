"""Time of a training step, of classification, and what they cost with more classes; all with the same threads.

- ``step``: one optimiser step on images of 48 x 48 px, 4 classes, 100 images without regard to labels. For pyroVED
  0.3.0 (rotation and translation) that is one unlabelled `compute_loss`; for tumble one step of `fit`, which trains on
  labelled images as well (64 by default). Median over several steps, after a first one.
- ``step, 100 images in all``: the same where those labelled images are among the 100 (60 and 40, the usual parts).
- ``classes``: a step of tumble with 4 and with 20 classes. The sum over classes leaves out those of small q(y | x), so
  steps get cheaper as the classifier gets sure: the times of the first and the last epoch are kept beside the median.
- ``classify``: new crops of 48 x 48 px per second, by `predict_proba` and, where it can be exported, by ONNX Runtime.

Set the number of threads from outside, for example ``OMP_NUM_THREADS=1``; it is part of the case.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from benchmarks import data
from benchmarks.common import Record, Row, arguments, parse, with_options
from benchmarks.competitors import PyrovedClassifier
from tumble import SSRVAEClassifier
from tumble.datasets import make_cards

BATCH = 100
#: Images without regard to labels, and labelled ones, of a batch of 100 in all.
PARTS_OF_BATCH = (60, 40)
_SEED = data.TEST


def epoch_times(model: SSRVAEClassifier, X: npt.NDArray[Any], y: npt.NDArray[np.int64]) -> list[float]:
    """Wall time of each epoch of a fit, but for the first, in which memory is set aside and kernels are chosen."""
    ends: list[float] = []
    model.fit(X, y, callbacks=[lambda report: ends.append(report.elapsed_s)])
    return np.diff(ends).tolist()


def step_of_tumble(method: str, n_classes: int, options: argparse.Namespace, sizes: Sequence[int] = (BATCH, 64)) -> Row:
    """Time the steps of a fit to `n_classes`, each with `sizes` images: without regard to labels, and labelled ones."""
    n_steps, n_epochs, batch = (1, 3, 20) if options.quick else (options.steps, options.epochs, sizes[0])
    per_class = n_steps * batch // n_classes
    cards = make_cards(per_class, angle=180, glyphs=_glyphs(n_classes), random_state=_SEED)
    y = data.keep_labels(cards.y, max(1, per_class // 5), np.random.default_rng(_SEED))
    settings = {"method": method, "batch_size": batch, "labelled_batch_size": sizes[1], "max_epochs": n_epochs}
    settings |= {"random_state": 0, **options.settings}
    seconds = np.array(epoch_times(SSRVAEClassifier(**settings), cards.X, y)) / n_steps
    return {"seconds_per_step": float(np.median(seconds)), "first": seconds[0], "last": seconds[-1]}


def step_of_pyroved(options: argparse.Namespace) -> Row:
    """Time unlabelled steps of pyroVED on the same images."""
    x = torch.from_numpy(
        make_cards(5 if options.quick else BATCH // 4, angle=180, glyphs=_glyphs(4), random_state=_SEED).X
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pyro's, of its own use of torch
        trainer = PyrovedClassifier().make_trainer((48, 48), 4)
        seconds = [_timed(lambda: trainer.compute_loss(x.flatten(1))) for _ in range(2 if options.quick else 6)]
    return {"seconds_per_step": float(np.median(seconds[1:])), "first": seconds[1], "last": seconds[-1]}


def classification(options: argparse.Namespace) -> Row:
    """Crops per second of a model that was fitted for a moment: the time does not depend on what it learned."""
    n_crops = 40 if options.quick else 20_000
    cards = make_cards(10, angle=180, random_state=_SEED)
    model = SSRVAEClassifier(max_epochs=1, random_state=0, **options.settings).fit(cards.X, cards.y)
    crops = np.resize((cards.X * 255).astype(np.uint8), (n_crops, 48, 48))
    found: Row = {"n_crops": n_crops, "crops_per_second": _rate(model.predict_proba, crops)}
    if not hasattr(model, "export_onnx"):
        print("ONNX: this version of tumble does not export; left out", flush=True)
        return found
    with TemporaryDirectory() as folder:
        classify = onnx_classifier(model, Path(folder) / "classifier.onnx")
        if classify is not None:
            found["crops_per_second_onnx"] = _rate(classify, crops)
    return found


def onnx_classifier(model: Any, path: Path) -> Callable[[npt.NDArray[Any]], Any] | None:
    """Export a classifier and load it in ONNX Runtime, in batches; None where that is not installed."""
    try:
        import onnxruntime
    except ImportError:
        print("ONNX: onnxruntime is not installed; left out", flush=True)
        return None
    model.export_onnx(path)
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, session_options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]

    def classify(crops: npt.NDArray[Any]) -> list[Any]:
        results = []
        for start in range(0, len(crops), 512):
            x = crops[start : start + 512]
            x = x if entry.type == "tensor(uint8)" else x.astype(np.float32) / 255
            results.append(session.run(None, {entry.name: x[:, None] if len(entry.shape) == 4 else x})[0])
        return results

    return classify


def _glyphs(n: int) -> npt.NDArray[np.floating]:
    """Blobs of random shape, all different: as many classes as are asked for."""
    rng = np.random.default_rng(_SEED)
    rows, columns = np.mgrid[:48, :48] - 23.5
    smooth = ndimage.gaussian_filter(rng.standard_normal((n, 48, 48)), (0, 3, 3))
    return np.where((smooth > 0) & (np.hypot(rows, columns) < 14), 1.0, 0.0)


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _rate(classify: Callable[[npt.NDArray[Any]], Any], crops: npt.NDArray[Any]) -> float:
    """Crops per second, median of three passes after a short one."""
    classify(crops[:512])
    return len(crops) / float(np.median([_timed(lambda: classify(crops)) for _ in range(3)]))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each time once per run of the same number of threads, then print the table."""
    parser = arguments("speed", __doc__, methods=("tumble", "paper", "pyroved"), default_methods=("tumble", "pyroved"))
    parser.add_argument("--steps", type=int, default=5, help="steps per epoch that is timed (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="epochs, the first untimed (default: %(default)s)")
    options = parse(parser, argv)
    record = Record(options.out, options.since)
    threads = {"threads": torch.get_num_threads()}
    for method in options.methods:
        case = {"what": "step", "method": method, **threads}
        if method == "pyroved":
            case = with_options(case, options, uses_settings=False)
            record.measure(case, lambda: step_of_pyroved(options))
            continue
        name = "default" if method == "tumble" else method
        record.measure(with_options(case, options), lambda name=name: step_of_tumble(name, 4, options))
    if "tumble" in options.methods:
        case = with_options({"what": "step, 100 images in all", "method": "tumble", **threads}, options)
        record.measure(case, lambda: step_of_tumble("default", 4, options, PARTS_OF_BATCH))
        for n_classes in (4, 20):
            case = with_options({"what": "classes", "method": "tumble", "n_classes": n_classes, **threads}, options)
            record.measure(case, lambda n_classes=n_classes: step_of_tumble("default", n_classes, options))
        case = with_options({"what": "classify", "method": "tumble", **threads}, options)
        record.measure(case, lambda: classification(options))
    print("\n" + record.table(["what", "method", "n_classes", "threads"], "seconds_per_step", less_is_better=True))
    print("\n" + record.table(["what", "method", "threads"], "crops_per_second"))


if __name__ == "__main__":
    main()
