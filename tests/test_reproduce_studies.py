"""`tumble reproduce`: whole studies, by one process and by several, what they refuse, and the command."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers_reproduce import TINY, lab
from PIL import Image
from typer.testing import CliRunner

from tumble.cli import app
from tumble.errors import ConfigError, TumbleError
from tumble.paper import draw, pool, sweeps
from tumble.paper import run as paper_run
from tumble.paper.methods import BASELINES, DEGRADED
from tumble.paper.names import METHOD_TITLES, STUDY_TITLES
from tumble.paper.run import STUDIES, reproduce
from tumble.paper.tasks import FitTask, tasks_for

if TYPE_CHECKING:
    from tumble.fit import EpochReport

# Several processes


def test_processes_side_by_side_give_what_one_gives(
    everything: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    _, alone = everything
    asked: dict[str, Any] = {"sizes": TINY, "device": "cpu", "methods": ["paper-ss-vae", "ss-rvae", "tree"]}
    told: list[tuple[int, int]] = []
    nothing = reproduce(
        "fig4",
        tmp_path,
        jobs=2,
        draw_figures=False,
        progress=lambda _, done, total: told.append((done, total)),
        **asked,
    )
    assert nothing == {}
    assert sorted({done for done, _ in told} - {0}) == list(range(1, told[-1][1] + 1))
    assert not list(tmp_path.glob("*/result.json"))
    # What is left to do is to draw.
    epochs: list[EpochReport] = []
    beside = reproduce("fig4", tmp_path, callback=epochs.append, **asked)
    assert not epochs
    for method in asked["methods"]:
        found = _of_method(beside["fig4"]["values"], method)
        assert len(found) >= 5
        assert found == _of_method(alone["fig4"]["values"], method)


def _of_method(values: Any, method: str) -> list[Any]:
    """All numbers of a method, in their order, but for seconds."""
    found: list[Any] = []
    for name, value in values.items() if isinstance(values, dict) else ():
        if name.split(",")[0] == method:
            found.append({k: v for k, v in value.items() if k != "fit_seconds"} if isinstance(value, dict) else value)
        else:
            found += _of_method(value, method)
    return found


def test_a_task_waits_for_its_model(tmp_path: Path) -> None:
    tasks = tasks_for(lab(tmp_path), STUDIES)
    fits = [task for task in tasks if isinstance(task, FitTask)]
    assert len({task.fit for task in fits}) == len(fits)
    # The models that most figures share are first, the published one before all.
    assert [task.fit.filmed for task in fits[:4]] == [True] * 4
    assert fits[0].fit.method == "paper-ss-rvae"
    (robustness,) = (task for task in tasks if task.title == "fig4 of ss-rVAE of tumble")
    needed = FitTask(sweeps.main_fit(lab(tmp_path), "ss-rvae"))
    assert pool.first_ready([robustness, fits[0]], [needed]) is fits[0]
    assert pool.first_ready([robustness, needed], []) is needed
    assert pool.first_ready([robustness], [needed]) is None
    assert pool.first_ready([robustness], [fits[0]]) is robustness


def test_a_study_without_fits_needs_no_processes(tmp_path: Path) -> None:
    assert reproduce("fig2", tmp_path, sizes=TINY, device="cpu", jobs=2)["fig2"]["values"]


def test_an_ended_process_is_told_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_work", _die)
    with pytest.raises(TumbleError, match=r"its process was ended \(exit code 7\)"):
        reproduce("s2", tmp_path, sizes=TINY, device="cpu", methods=["tree", "forest"], jobs=2)
    assert not multiprocessing.active_children()
    monkeypatch.undo()
    assert reproduce("s2", tmp_path, sizes=TINY, device="cpu", methods=["tree"])["s2"]["values"]


def _die(line: Any, order: Any) -> None:
    line.recv()
    os._exit(7)


# Whole studies


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("paper")
    return folder, reproduce("all", folder, sizes=TINY, device="cpu")


def test_all_studies_have_a_title() -> None:
    assert list(STUDIES) == list(STUDY_TITLES)
    assert set(draw.METHOD_STYLES) == set(METHOD_TITLES)


@pytest.mark.parametrize("study", STUDY_TITLES)
def test_study_writes_figures_and_numbers(everything: tuple[Path, dict[str, dict[str, Any]]], study: str) -> None:
    folder, results = everything
    content = json.loads((folder / study / "result.json").read_text())
    assert content == results[study]
    assert content["quick"] is True
    assert "numbers mean nothing" in content["note"]
    assert content["machine"]["torch"]
    assert content["seed"] == 0
    assert content["values"]
    assert all("published" in compared["line"] for compared in content["comparison"])
    assert content["comparison"]
    assert {Path(name).suffix for name in content["files"]} >= {".png", ".svg"}
    for name in content["files"]:
        if name.endswith(".svg"):
            assert (folder / study / name).read_text().rstrip().endswith("</svg>")
        else:
            with Image.open(folder / study / name) as image:
                image.load()
                assert min(image.size) > 300
    assert not list((folder / study).glob(".part*"))


def test_methods_stand_side_by_side(everything: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    _, results = everything
    assert list(results["fig3"]["values"]["accuracy"]) == [name for name in METHOD_TITLES if name != DEGRADED]
    assert list(results["fig4"]["values"]["map"]["accuracy"]) == list(METHOD_TITLES)
    assert set(results["s3"]["values"]) == {"agglomerates", "gold"}
    assert set(results["s3"]["values"]["gold"]) == {*BASELINES, "paper-ss-rvae", "ss-rvae"}
    assert set(results["fig5"]["values"]["gold"]) == {
        "VAE as published",
        "rVAE as published",
        "VAE of tumble",
        "rVAE of tumble",
        "PCA",
    }


def test_studies_share_their_models(everything: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    _, results = everything
    at_60 = results["fig3"]["values"]["scores"]["ss-rvae, 60 deg"]
    assert at_60 == results["s2"]["values"]["cards"]["ss-rvae"]
    assert at_60 == results["labels"]["values"]["scores"]["ss-rvae, 4 per class"]


def test_film_has_a_frame_per_epoch(everything: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    folder, results = everything
    with Image.open(folder / "films" / "film-paper-ss-rvae.gif") as film:
        assert getattr(film, "n_frames", 1) == 2
    assert results["films"]["values"]["paper-ss-rvae"]["epoch"] == [1, 2]


def test_a_second_run_trains_nothing(everything: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    folder, results = everything
    epochs: list[EpochReport] = []
    estimates: list[float] = []
    again = reproduce("s2", folder, sizes=TINY, device="cpu", callback=epochs.append, announce=estimates.append)
    assert not epochs
    assert estimates == [0.0]
    assert again["s2"]["values"] == results["s2"]["values"]


def test_estimate_comes_before_training(tmp_path: Path) -> None:
    order: list[str] = []
    reproduce(
        "s2",
        tmp_path,
        sizes=replace(TINY, quick=False),
        methods=["ss-vae"],
        device="cpu",
        callback=lambda _: order.append("epoch"),
        announce=lambda seconds: order.append("estimate" if seconds > 0 else "nothing"),
    )
    assert order[0] == "estimate"
    assert "epoch" in order


# Errors


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "fig9"}, "'fig9': no such study"),
        ({"methods": ["magic"]}, "'magic': no such method"),
        ({"name": "films", "methods": ["tree"]}, "films compares others"),
        ({"device": "abacus"}, "device='abacus'"),
        ({"published": {"magic": 1}}, "--published magic: .* no such setting"),
        ({"swept": {"max_epochs": 1.5}}, "--swept max_epochs=1.5: must be of the kind of 100"),
        ({"published": {"precision": 16}}, "precision=16: must be of the kind of 'float32'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reproduce(**{"name": "s2", "out": tmp_path, "sizes": TINY, **given})
    assert not list(tmp_path.glob("*/result.json"))


def test_out_must_be_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is not a folder"):
        reproduce("fig2", path, sizes=TINY)
    assert path.read_text() == "mine"


def test_quick_results_never_replace_full_ones(tmp_path: Path) -> None:
    (tmp_path / "fig2").mkdir()
    result = tmp_path / "fig2" / "result.json"
    result.write_text('{"quick": false}')
    with pytest.raises(ConfigError, match="holds full results"):
        reproduce("fig2", tmp_path, sizes=TINY)
    assert result.read_text() == '{"quick": false}'


@pytest.mark.parametrize("name", ["result.json", "notes.txt"])
def test_what_no_study_made_is_left(tmp_path: Path, name: str) -> None:
    (tmp_path / "fig2").mkdir()
    (tmp_path / "fig2" / name).write_text("mine")
    with pytest.raises(ConfigError, match="nothing was changed"):
        reproduce("fig2", tmp_path, sizes=TINY)
    assert (tmp_path / "fig2" / name).read_text() == "mine"


# Command


def test_command_makes_a_quick_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_run, "QUICK", TINY)
    arguments = ["reproduce", "fig6", "--out", str(tmp_path), "--quick", "--methods", "ss-rvae", "--device", "cpu"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "QUICK RUN" in done.stdout
    assert "published above 0.6" in done.stdout
    content = json.loads((tmp_path / "fig6" / "result.json").read_text())
    assert content["command"] == "tumble reproduce fig6 --out DIR --quick --methods ss-rvae"
    assert sorted(path.name for path in (tmp_path / "fig6").iterdir()) == sorted([*content["files"], "result.json"])


def test_command_says_what_is_not_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_run, "QUICK", TINY)
    given = ["--published", "pixel_fraction=0.5", "--swept", "batch_size=8"]
    arguments = ["reproduce", "fig6", "--out", str(tmp_path), "--quick", "--methods", "paper-ss-rvae", *given]
    done = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "fig6" / "result.json").read_text())
    wanted = ["--quick", "--methods", "paper-ss-rvae", *given]
    assert content["command"] == " ".join(["tumble reproduce fig6 --out DIR", *wanted])
    assert content["settings"]["paper"]["pixel_fraction"] == 0.5


def test_command_names_a_setting_without_value(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["reproduce", "fig6", "--out", str(tmp_path), "--published", "pixel_fraction"])
    assert done.exit_code == 2
    assert "--published pixel_fraction: expected NAME=VALUE" in done.stderr


def test_command_explains_an_error_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["reproduce", "fig9", "--out", str(tmp_path / "new")])
    assert done.exit_code == 2
    assert "no such study" in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "new").exists()
