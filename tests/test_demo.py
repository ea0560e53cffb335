"""The demo: what it hands to the fit, what it leaves in its folder, and what it never touches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers_pipeline import dump

from tumble import demo as demo_module
from tumble import estimators
from tumble.demo import prepare_folder, run_demo
from tumble.errors import ConfigError
from tumble.estimators import SSRVAEClassifier
from tumble.library import Library


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Run the demo with a fit of one epoch, and keep what the estimator was given."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    given: dict[str, Any] = {}

    class Spy(SSRVAEClassifier):
        def fit(self, X: Any, y: Any, **options: Any) -> Any:
            given.update(X=np.array(X), y=np.array(y, dtype=object))
            return super().fit(X, y, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimators, "SSRVAEClassifier", Spy)
        summary = run_demo(folder, max_epochs=1, random_state=3)
    return folder, summary, given


@pytest.mark.slow
def test_demo_summary(demo_run: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    folder, summary, _ = demo_run
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8")) == summary
    assert {
        "n_particles",
        "n_labelled",
        "classes",
        "balanced_accuracy",
        "recall_per_class",
        "baseline_area_balanced_accuracy",
        "fit_seconds",
        "total_seconds",
    } <= set(summary)
    assert summary["n_labelled"] == 60
    assert set(summary["classes"]) == {"single", "dimer", "cluster", "pile"}
    assert set(summary["recall_per_class"]) == set(summary["classes"])
    assert summary["detection"]["recall_iou_0.5"] >= 0.92
    assert summary["detection"]["recall_iou_0.3"] >= 0.96
    assert summary["detection"]["unmatched_found_iou_0.3"] <= 0.02
    assert {"report.html", "summary.json", "library.db", "model"} <= {entry.name for entry in folder.iterdir()}


@pytest.mark.slow
def test_demo_gives_the_fit_no_label_of_the_test_region(
    demo_run: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder, summary, given = demo_run
    with Library(folder / "library.db") as library:
        table = library.particles(model=demo_module.MODEL_NAME)
        evaluation = library.model_record(demo_module.MODEL_NAME).evaluation
        history = library.label_history()
    assert evaluation is not None
    is_given = np.array([value is not None for value in given["y"]])
    assert len(given["y"]) == len(given["X"]) == summary["n_particles"]
    assert is_given.sum() == 60
    assert set(pd.Series(given["y"][is_given]).value_counts()) == {15}
    # Crops of 48 px: what gave a label has its whole crop in the left half, what is tested in the right.
    middle, half_crop = 1012 / 2, 24
    assert (table["centroid_col_px"][is_given] + half_crop <= middle).all()
    tested = table.loc[evaluation["test_particle_ids"]]
    assert (tested["centroid_col_px"] - half_crop >= middle).all()
    assert not set(tested.index) & set(table.index[is_given])
    # In the log, labels of the test region come after all training labels, and are marked.
    sources = history["source"].tolist()
    assert sources == ["training labels, left half"] * 60 + ["held-out reference"] * len(tested)
    assert tested["label"].notna().all()


@pytest.mark.slow
def test_demo_states_no_path_of_the_installation(
    demo_run: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder = demo_run[0]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert str(Path(demo_module.__file__).parent) not in page


@pytest.mark.slow
def test_demo_rebuilds_only_its_own(demo_run: tuple[Path, dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    touched, untouched = (Path(shutil.copytree(demo_run[0], tmp_path / name)) for name in ("touched", "untouched"))
    (untouched / "notes.txt").write_text("mine")
    with Library(touched / "library.db") as library:
        library.add_labels([1], ["single"], author="me", source="app")
    before = dump(touched / "library.db")
    # The second marker is that of a demo that was interrupted and labelled by hand afterwards.
    for n_labels in (753, None):
        demo_module._write_marker(touched, n_labels=n_labels)
        with pytest.raises(ConfigError, match="changed since"):
            prepare_folder(touched)
        assert dump(touched / "library.db") == before

    assert prepare_folder(untouched) is True
    assert {entry.name for entry in untouched.iterdir()} == {demo_module.MARKER, "notes.txt"}


def test_demo_refuses_a_folder_of_others(tmp_path: Path) -> None:
    (tmp_path / "library.db").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="which no demo made"):
        run_demo(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["library.db"]


def test_demo_refuses_a_file_as_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="not a folder"):
        run_demo(tmp_path / "out")


def test_demo_goes_on_where_one_was_interrupted(tmp_path: Path) -> None:
    assert prepare_folder(tmp_path / "out") is False
    (tmp_path / "out" / "library.db").write_bytes(b"half")
    assert prepare_folder(tmp_path / "out") is True
    assert not (tmp_path / "out" / "library.db").exists()


def test_demo_keeps_foreign_files_in_its_model_folder(tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        prepare_folder(tmp_path)
    assert (tmp_path / "model" / "notes.txt").exists()
