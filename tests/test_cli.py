"""The command line: its help, what it prints and the whole way from an image to a report."""

from __future__ import annotations

import inspect
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from helpers_pipeline import COLUMNS, ROWS, make_image, write_files
from rich.console import Console
from typer.testing import CliRunner

from tumble import console
from tumble.cli import app
from tumble.errors import ConfigError
from tumble.fit import EpochReport
from tumble.options import parse_length_nm, parse_threshold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tumble import SSRVAEClassifier

N = ROWS * COLUMNS


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    logger = logging.getLogger("tumble")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers, logger.level = handlers, level
    logger.setLevel(level)
    console.settings.debug = False


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# --- help, version, values of options -----------------------------------------------------------------------


def test_help_names_all_commands_in_the_order_of_work() -> None:
    text = run("--help").stdout
    # The introduction mentions them, too; each line of the list of commands begins with the name.
    places = [text.index(f"│ {name} ") for name in ("demo", "extract", "label", "fit", "classify", "report", "info")]
    assert places == sorted(places)


@pytest.mark.parametrize("command", ["demo", "extract", "label", "fit", "classify", "report", "info"])
def test_help_of_each_command_has_an_example(command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert f"Example: tumble {command}" in " ".join(done.stdout.split())


def test_version() -> None:
    done = run("--version")
    assert (done.exit_code, done.stdout.split()[0]) == (0, "tumble")


def test_unknown_command_is_a_usage_error() -> None:
    assert run("bogus").exit_code == 2


@pytest.mark.parametrize(
    ("text", "value_nm"),
    [
        ("1.2nm", 1.2),
        ("0.5um", 500),
        ("0.5 µm", 500),
        (".5 μm", 500),
        ("3A", 0.3),
        ("2e-3mm", 2000),
        ("5pm", 0.005),
    ],
)
def test_length_with_unit(text: str, value_nm: float) -> None:
    assert parse_length_nm(text) == pytest.approx(value_nm)


@pytest.mark.parametrize("text", ["1.2", "nm", "-1nm", "0nm", "1.2furlong", "1,2nm", "nan nm", ""])
def test_length_without_unit_or_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"1\.2nm"):
        parse_length_nm(text)


def test_threshold_is_a_method_or_a_number() -> None:
    assert parse_threshold("otsu") == "otsu"
    assert parse_threshold("1e3") == 1000.0
    with pytest.raises(ConfigError, match="median"):
        parse_threshold("median")


# --- the whole way ------------------------------------------------------------------------------------------


def test_whole_way(tmp_path: Path) -> None:
    image, mask = write_files(tmp_path)
    library, model, page = tmp_path / "particles.db", tmp_path / "model", tmp_path / "report.html"

    done = run("extract", image, "--library", library, "--pixel-size", "2nm", "--crop-size", "24")
    assert done.exit_code == 0, done.output
    assert f"{image}: {N} particles" in done.stdout
    assert f"`tumble app {library}`, or with `tumble label`" in done.stderr

    done = run("extract", image, "--library", library)
    assert "was there already" in done.stdout

    done = run("label", library, "--from-mask", mask, "--classes", "1=disc,2=pair", "--author", "ada")
    assert done.exit_code == 0, done.output
    assert f"{N} labels stored by ada" in done.stdout
    assert f"tumble fit {library}" in done.stderr

    done = run("fit", library, "--model", model, "--max-epochs", "2", "--name", "first")
    assert done.exit_code == 0, done.output
    assert f"fitted with {N} labels" in done.stdout
    assert "Fitting, epoch 2/2" in done.stderr
    assert f"tumble classify {library}" in done.stderr

    done = run("classify", library, "--model", model)
    assert done.exit_code == 0, done.output
    assert f"{N} particles classified by 'first'" in done.stdout

    done = run("report", library, "--out", page)
    assert done.exit_code == 0, done.output
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")

    done = run("info", library, "--json")
    content = json.loads(done.stdout)
    assert (content["particles"], content["labelled"], content["models"]) == (N, N, 1)
    assert content["labels"] == {"disc": N // 2, "pair": N // 2}
    assert "disc 20, pair 20" in run("info", library).stdout


def test_fit_takes_any_parameter_of_the_estimator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tumble import pipeline

    given = []

    def stop(*_: object, estimator: SSRVAEClassifier, **__: object) -> None:
        given.append(estimator.get_params())
        raise ConfigError("that is all")

    monkeypatch.setattr(pipeline, "fit_library", stop)
    image, _ = write_files(tmp_path)
    run("extract", image, "--library", tmp_path / "l.db")
    options = ["--classifier", "detailed", "--degradation", "0.5", "--latent-dim", "3"]
    options += ["--set", "calibrate=false", "--set", "class_prior=learned", "--set", "latent_dim=4"]
    run("fit", tmp_path / "l.db", "--model", tmp_path / "m", *options)
    (params,) = given
    chosen = {name: params[name] for name in ("classifier", "degradation", "calibrate", "class_prior", "latent_dim")}
    # What is set by name comes last; all else is as without it.
    assert list(chosen.values()) == ["detailed", 0.5, False, "learned", 4]
    assert params["scale_jitter"] == 0.05


def test_quiet_shows_no_progress(tmp_path: Path) -> None:
    image, _ = write_files(tmp_path)
    done = run("extract", image, "--library", tmp_path / "l.db", "--quiet")
    assert "Extracting" not in done.stderr
    assert "Next:" in done.stderr


def test_colour_photo_is_converted_and_said_so(tmp_path: Path) -> None:
    image, _ = make_image()
    colours = np.stack([image, image // 2, image // 3], axis=-1)
    tifffile.imwrite(tmp_path / "photo.tif", colours, photometric="rgb")
    done = run("extract", tmp_path / "photo.tif", "--library", tmp_path / "l.db")
    assert done.exit_code == 0, done.output
    assert "note: colour image converted to luminance" in done.stdout


@pytest.mark.parametrize("terminal", [True, False])
def test_fit_shows_epoch_losses_and_time_left(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    out = io.StringIO()
    screen = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    monkeypatch.setattr(console, "_stderr", lambda: screen)
    with console.ProgressDisplay() as display:
        display.step("Loading")
        losses = {"kl_z": 3.0, "loss": 1.25, "pseudo": 0.5, "other": 9.0}
        display.epoch(EpochReport(epoch=3, max_epochs=75, losses=losses, elapsed_s=8, remaining_s=185))
    last = [line for line in out.getvalue().splitlines() if "Fitting, epoch" in line][-1]
    assert "3/75" in last
    assert "loss 1.25  kl_z 3  pseudo 0.5  8 s passed, about 3 min 05 s left" in last


def test_defaults_of_the_options_are_those_of_the_functions() -> None:
    """The options repeat them, since reading them from there would load torch for every `--help`."""
    from tumble import cli, demo, pipeline

    options = inspect.signature(cli.fit).parameters
    settings = inspect.signature(pipeline.estimator_for_crops).parameters
    pairs = {"scale_jitter": "scale_jitter", "shear_jitter": "shear_jitter", "translation": "translation_prior"}
    for option, setting in pairs.items():
        assert options[option].default == settings[setting].default
    assert options["seed"].default == settings["random_state"].default
    assert inspect.signature(cli.demo).parameters["max_epochs"].default == demo.MAX_EPOCHS
