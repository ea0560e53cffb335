"""Tables and sentences of the page, from what a library holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tumble.report.style import short_number

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from tumble.report.data import ReportData

__all__ = [
    "ClassRow",
    "Verdict",
    "class_rows",
    "curve_names",
    "extraction_rows",
    "missing_name",
    "setting_rows",
    "verdict",
]


@dataclass(frozen=True)
class ClassRow:
    """One line of the table of classes; a size is "mean ± standard deviation (n)" or a dash.

    Parameters
    ----------
    name : str
        Class, or what to call particles without one.
    predicted, labelled : int
        How many particles are predicted to be of it, and are labelled so.
    size_px, size_nm : str
        Equivalent diameter of its particles that lie wholly inside their micrograph.
    """

    name: str
    predicted: int
    labelled: int
    size_px: str
    size_nm: str


@dataclass(frozen=True)
class Verdict:
    """How the model compares with its baselines on the held-out region.

    Parameters
    ----------
    scores : tuple of (str, float)
        Balanced accuracies, the model's first, then the baselines' in the order stored.
    sentence : str
        What the numbers say.
    better : bool
        Whether the model is ahead of every baseline by more than one particle of the rarest class is worth.
    """

    scores: tuple[tuple[str, float], ...]
    sentence: str
    better: bool


def missing_name(data: ReportData) -> str:
    """Name for particles that the figures cannot give a class.

    Parameters
    ----------
    data : ReportData
        What the report shows.

    Returns
    -------
    str
        "not predicted", "unlabelled", or "all particles" where there are neither predictions nor labels.
    """
    if data.has_predictions:
        return "not predicted"
    return "unlabelled" if data.classes else "all particles"


def class_rows(data: ReportData) -> list[ClassRow]:
    """Count and measure the particles of each class.

    Parameters
    ----------
    data : ReportData
        What the report shows.

    Returns
    -------
    list of ClassRow
        In the order of the classes, then particles without a class if there are any.
    """
    shown = data.shown_classes
    whole = ~data.touches_border.to_numpy(dtype=bool)
    label = data.particles["label"].to_numpy(dtype=object)
    groups = [(name, (shown == name).to_numpy(dtype=bool), label == name) for name in data.classes]
    if shown.isna().any():
        groups.append((missing_name(data), shown.isna().to_numpy(), np.zeros(len(shown), dtype=bool)))
    sizes_px, sizes_nm = data.diameters("px").to_numpy(), data.diameters("nm").to_numpy()
    return [
        ClassRow(
            name=name,
            predicted=int(members.sum()),
            labelled=int(labelled.sum()),
            size_px=_mean_and_sd(sizes_px[members & whole]),
            size_nm=_mean_and_sd(sizes_nm[members & whole]),
        )
        for name, members, labelled in groups
    ]


def _mean_and_sd(values: npt.NDArray[Any]) -> str:
    values = values[np.isfinite(values)]
    if not len(values):
        return "–"
    spread = f" ± {short_number(values.std(ddof=1))}" if len(values) > 1 else ""
    return f"{short_number(values.mean())}{spread} (n = {len(values)})"


def verdict(data: ReportData) -> Verdict | None:
    """Compare the model's balanced accuracy with its baselines'.

    Parameters
    ----------
    data : ReportData
        What the report shows.

    Returns
    -------
    Verdict or None
        None where no evaluation is stored.
    """
    evaluation = data.evaluation
    if evaluation is None or data.record is None:
        return None
    own = float(evaluation["balanced_accuracy"])
    baselines = {
        str(name): float(scores["balanced_accuracy"]) for name, scores in evaluation.get("baselines", {}).items()
    }
    scores = ((data.record.name, own), *baselines.items())
    if not baselines:
        return Verdict(scores, "No baseline was scored, so this number has nothing to be compared with.", False)
    best = max(baselines, key=lambda name: baselines[name])
    ahead = own - baselines[best]
    rarest, grain = _one_particle(evaluation)
    if ahead > grain:
        sentence = f"The model is ahead of the best baseline ({best}) by {ahead:.3f}."
    elif ahead > 0:
        sentence = f"The model is ahead of the best baseline ({best}) by only {ahead:.3f}: take them as equal."
    elif ahead == 0:
        sentence = f"The model is no better than the baseline {best}, which is simpler: prefer the baseline."
    elif -ahead <= grain:
        sentence = f"The model is no better than the baseline {best} ({-ahead:.3f} behind)."
    else:
        sentence = f"The baseline {best} is better, by {-ahead:.3f}: prefer it to this model on data like these."
    if grain:
        sentence += f" One test particle of the rarest class ({rarest}) is worth {grain:.3f}."
    return Verdict(scores, sentence, ahead > grain)


def _one_particle(evaluation: Mapping[str, Any]) -> tuple[str, float]:
    """Rarest class of the test region, and how much one particle of it moves the balanced accuracy."""
    totals = np.asarray(evaluation["confusion"], dtype=int).sum(axis=1)
    occurring = np.flatnonzero(totals)
    if not len(occurring):
        return "", 0.0
    rarest = occurring[totals[occurring].argmin()]
    return str(evaluation["classes"][rarest]), 1.0 / (len(occurring) * int(totals[rarest]))


def curve_names(history: Mapping[str, Any]) -> list[str]:
    """Names of the training curves that have values.

    Parameters
    ----------
    history : mapping of str to list of float
        As a model record stores it.

    Returns
    -------
    list of str
        In the order stored.
    """
    return [name for name, values in history.items() if len(values)]


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "not set", True: "yes", False: "no"}[value]
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(item) for item in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, default=str, ensure_ascii=False)


def setting_rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Flatten nested settings into lines of a table.

    Parameters
    ----------
    settings : mapping of str to object
        JSON-like values; mappings within give names joined by a dot.

    Returns
    -------
    list of (str, str)
        Name and value, in the order stored.

    Examples
    --------
    >>> setting_rows({"latent_dim": 2, "crop": {"side_px": 32}})
    [('latent_dim', '2'), ('crop.side_px', '32')]
    """
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}.{inner}", text) for inner, text in setting_rows(value)]
        else:
            rows.append((str(name), _value(value)))
    return rows


def extraction_rows(micrographs: pd.DataFrame) -> list[tuple[str, str]]:
    """Tabulate the extraction's settings over all micrographs.

    Parameters
    ----------
    micrographs : DataFrame
        With a column ``extraction`` of mappings.

    Returns
    -------
    list of (str, str)
        Name and value; where micrographs differ, the first few values that occur.
    """
    values: dict[str, dict[str, None]] = {}
    for settings in micrographs["extraction"]:
        for name, text in setting_rows(settings or {}):
            values.setdefault(name, {})[text] = None
    rows = []
    for name, texts in values.items():
        several = list(texts)
        more = f"; and {len(several) - 4} more" if len(several) > 4 else ""
        rows.append((name, "; ".join(several[:4]) + more))
    return rows
