"""What the documentation tells people to type is typed here."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers_docs import DOCS, ROOT, subprocess_environment
from helpers_pipeline import make_library
from typer.main import get_command
from typer.testing import CliRunner

import tumble
from tumble import SSRVAEClassifier
from tumble.cli import app
from tumble.datasets import make_cards
from tumble.estimators import base
from tumble.library import Library
from tumble.service.app import create_service
from tumble.service.model import load_served_model
from tumble.service.run import running_service

# The code of architecture.md is signatures, not examples; the README has a test of its own.
PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if not {"_build", "_generated", "generated"} & set(path.parts) and path.name != "architecture.md"
)
#: Services of the pages; their threads end with the process.
STARTED = []
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", flags=re.M | re.S)

sys.path.insert(0, str(DOCS / "_ext"))
generated_pages = import_module("generated_pages")
benchmark_tables = import_module("benchmark_tables")


def blocks(text):
    return [(found[1], found[2]) for found in BLOCK.finditer(text)]


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """The files that the pages speak of, small; fits are one epoch long."""
    monkeypatch.chdir(tmp_path)
    full_length = base.fit_config
    monkeypatch.setattr(base, "fit_config", lambda *args: dataclasses.replace(full_length(*args), max_epochs=1))
    for prefix, seed in (("", 0), ("test-", 1)):
        cards = make_cards(12, random_state=seed)
        np.save(f"{prefix}images.npy", np.rint(255 * cards.X[:, ::2, ::2]).astype(np.uint8))
        np.save(f"{prefix}labels.npy", cards.y if prefix else np.where(np.arange(48) < 32, cards.y, -1))
    with Library(make_library(tmp_path)) as library:
        ids = library.particles()["area_px"].sort_values().index
    Path("images").mkdir()
    shutil.copy("image.tif", "images")
    labels = {"particle_id": [*ids[:6], *ids[-6:]], "label": ["disc"] * 6 + ["pair"] * 6}
    pd.DataFrame(labels).to_csv("labels.csv", index=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))], ids=lambda page: page.stem
)
def test_the_examples_of_a_page_run_one_after_the_other(page, workspace):
    names = {}
    for language, code in blocks(page.read_text(encoding="utf-8")):
        file = re.match(r"# (\w+\.py)\n", code)
        if language == "sh":
            for line in code.strip().splitlines():
                type_command(shlex.split(line))
        elif file:
            Path(file[1]).write_text(code, encoding="utf-8")
        else:
            exec(compile(code, str(page), "exec"), names)
    if page.name == "torchrun.md":
        assert Path("together/weights.safetensors").exists()
    if page.name == "label.md":
        with Library("particles.db") as library:
            assert set(library.label_history()["author"]) == {"painter", "ada"} | {tumble_user()}


def tumble_user():
    from tumble.commands.shared import user_name

    return user_name()


def type_command(words):
    """Run a command as a reader would; what would install, or take minutes, is checked for what it names."""
    match words:
        case ["tumble", "demo", *_]:
            parse(words)  # tests/test_demo.py runs it
        case ["tumble", "serve", *arguments]:
            start_service(arguments)
        case ["tumble", *arguments]:
            outcome = CliRunner().invoke(app, arguments)
            assert outcome.exit_code == 0, f"{words}\n{outcome.output}"
        case ["torchrun", *arguments]:
            launcher = ["-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
            command = [sys.executable, *launcher, *arguments]
            done = subprocess.run(command, env=subprocess_environment(), capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        case ["python", "-m", "pip", "install", what]:
            check_install(what)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
        case ["python", "-m", module]:
            assert (ROOT / f"{module.replace('.', '/')}.py").exists()
        case _:
            pytest.fail(f"no test knows how to check the command {words}")


def start_service(arguments):
    """Serve in a thread, until the tests end, what a reader would serve in another terminal."""
    command = get_command(app).commands["serve"]
    given = command.make_context("serve", list(arguments)).params
    if not Path(given["model"]).exists():
        crops, y = np.load("images.npy"), np.load("labels.npy")
        SSRVAEClassifier(max_epochs=1, random_state=0).fit(crops, y).save(given["model"])
    service = running_service(create_service(load_served_model(given["model"])), port=given["port"])
    service.__enter__()
    STARTED.append(service)


def check_install(what):
    if what.startswith("torch"):
        assert f"install --quiet {what}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
        return
    wanted = re.fullmatch(r"\.(?:\[([\w,]+)\])?", what)
    assert wanted, what
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set((wanted[1] or "all").split(",")) <= set(known)


def parse(words):
    """Let the command line read its arguments, and do no more."""
    command, arguments = get_command(app), words[1:]
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context(words[0], arguments)


def test_a_wrong_command_is_noticed():
    with pytest.raises(BaseException, match="no-such-option"):
        parse(["tumble", "demo", "--no-such-option", "1"])
    with pytest.raises(AssertionError):
        check_install(".[no-such-extra]")
    with pytest.raises(pytest.fail.Exception):
        type_command(["tumbl", "extract"])


# --- generated pages ------------------------------------------------------------------------------------------------


def test_all_commands_are_described_and_their_examples_can_be_read():
    text = generated_pages.command_line()
    for name in get_command(app).commands:
        assert f"## `tumble {name}`" in text
    assert "[bold]" not in text
    examples = re.findall(r"Example: `(tumble [^`]*)`", text)
    assert len(examples) >= 8
    for line in examples:
        parse(shlex.split(line))


def test_benchmark_tables_give_mean_and_range_and_where_they_come_from(tmp_path):
    def row(seed, accuracy, date):
        return {
            "method": "a|b",
            "seed": seed,
            "accuracy": accuracy,
            "recall": {"x": accuracy},
            "measured": {"date": date},
        }

    rows = [row(0, 0.5, "2026-01-02T00:00:00"), row(1, 0.7, None), {"method": "c", "crops_per_second": 1234.5}]
    content = {"environment": {"processor": "P", "threads": 2}, "rows": rows, "settings": {"k": 1}}
    (tmp_path / "some_name.json").write_text(json.dumps(content))
    (tmp_path / "other.json").write_text("[1, 2]")
    text = generated_pages.benchmarks(tmp_path, tmp_path)
    assert text.startswith("## Some name\n")
    assert generated_pages.heading("mnist") == "MNIST"
    assert "| a\\|b | 0.600<br>(0.500 – 0.700) |  | x: 0.600 | 2 |" in text
    assert "| c |  | 1,234 |  | 1 |" in text
    assert "P (2 threads), on 2026-01-02; 2 of 3 rows carry no date; seeds 0, 1." in text
    assert "Other" not in text


def test_benchmark_tables_stay_readable_when_runs_store_much():
    recall = {str(k): 0.5 + k / 100 for k in range(8)}
    fit = {"method": "a", "pixel_fraction": 0.25, "recall": recall, "within": {"clean": 1, "noise": {"0.1": 0.75}}}
    rows = [
        {**fit, "seed": seed, "epoch": epoch, "accuracy": epoch / 100, "grid": {"cells": [0.1] * 256, "mean": 0.1}}
        for seed in (0, 1, 2, 5)
        for epoch in (90, 50)
    ]
    other = {**rows[0], "method": "b", "pixel_fraction": 0.5}
    text = "\n".join(benchmark_tables.tables([*rows, other]))
    # The last epoch of each seed stands for the fit; other settings are another case, and maps stay away.
    assert "| a | 0.25 | 0.900<br>(0.900 – 0.900) | clean: 1.0000<br>noise 0.1: 0.750 | 4 |" in text
    assert "| b | 0.5 | 0.900 | clean: 1<br>noise 0.1: 0.750 | 1 |" in text
    assert "cells" not in text
    # Many parts have a table of their own, one column per case.
    assert "| recall | a | b |\n|---|---|---|\n| 0 | 0.500 | 0.500 |" in text
    alone = "\n".join(benchmark_tables.tables(rows))
    assert "In all rows" not in alone
    assert "|  | recall |\n|---|---|\n| 0 | 0.500 |" in alone
    assert "In all rows: method: a." in "\n".join(benchmark_tables.tables([fit, {**fit, "pixel_fraction": 0.5}]))
    assert benchmark_tables.origin(rows, {}).endswith("seeds 0 to 2, 5.")


def test_benchmark_tables_part_what_was_set_and_where_it_ran():
    fit = {"method": "a", "seed": 0, "accuracy": 0.5}
    lines = benchmark_tables.tables([fit, {**fit, "settings": {"weight": 8}}, {**fit, "settings": {"weight": 9}}])
    assert [line.rsplit("|", 2)[1].strip() for line in lines if "0.500" in line] == ["1", "1", "1"]
    assert "weight: 8" in "\n".join(lines)
    # A number of steps that only some tell does not part them; a limit of the time does.
    ended = {**fit, "method": "b", "n_steps": 5, "max_seconds": 60.0}
    text = "\n".join(
        benchmark_tables.tables([fit, {**fit, "method": "b", "n_steps": 9}, ended, {**ended, "max_seconds": 9.0}])
    )
    assert text.count("| runs |") == 2
    assert text.count("| 0.500 | 1 |") == 4
    curve = [{**fit, "epoch": 9, "accuracy": a, "measured": {"processor": p}} for a, p in ((0.25, "x"), (0.75, "y"))]
    assert "0.500<br>(0.250 – 0.750) | 2 |" in "\n".join(benchmark_tables.tables(curve))


def test_a_checkout_without_results_builds_too(tmp_path):
    assert "No results" in generated_pages.benchmarks(tmp_path / "missing", tmp_path)


def test_the_stored_results_are_all_shown():
    text = generated_pages.benchmarks(DOCS / "results", ROOT / "benchmarks")
    for path in (DOCS / "results").glob("*.json"):
        if "rows" in json.loads(path.read_text(encoding="utf-8")):
            assert f"## {generated_pages.heading(path.stem)}\n" in text


def test_recomputed_figures_stand_beside_the_published_values(tmp_path):
    compared = [
        {"what": "accuracy", "published": "0.865", "measured": {"A": 0.8712, "B": None}},
        {"what": "recall", "published": "0.6", "measured": {"A": 0.5, "B": 0.25}},
        {"what": "|r|", "published": "high", "measured": {"A": 0.9}},
    ]
    content = {
        "title": "a title",
        "quick": False,
        "command": "tumble reproduce fig3 --out DIR",
        "comparison": compared,
        "files": ["fig3a.png", "fig3a.svg", "missing.png"],
        "machine": {"torch": "2.6", "processor": "P"},
        "measured_on": ["G"],
        "seed": 3,
        "methods": {"paper-ss-rvae": "as published", "tree": "tree"},
        "settings": {"paper": {"precision": "bfloat16", "kl_end": 1.5}, "sweep": {"pixel_fraction": 0.25}},
    }
    for study, quick in (("fig3", False), ("fig4", True)):
        (tmp_path / study).mkdir()
        (tmp_path / study / "result.json").write_text(json.dumps({**content, "quick": quick}))
    (tmp_path / "fig3" / "fig3a.png").touch()
    text = generated_pages.reproduced(tmp_path, "here")
    assert text.startswith("## Figure 3: a title\n")
    assert "tumble reproduce fig3 --out paper\n" in text
    # One table as long as the methods are the same.
    assert "| accuracy | 0.865 | 0.871 |  |\n| recall | 0.6 | 0.5 | 0.25 |\n\n| what | published | A |" in text
    assert "| \\|r\\| | high | 0.9 |" in text
    assert re.findall(r"{image} (\S+)", text) == ["here/fig3/fig3a.png"]
    assert "measured on G; PyTorch 2.6, seed 3." in text
    assert "was fitted with `pixel_fraction=0.25` but where" in text
    assert (
        "fitted with `precision=bfloat16`, `kl_end=1.5`; what spares pixels, classes or precision is for its ss-rVAE"
        in text
    )
    assert "Figure 4" not in text
    assert "No results" in generated_pages.reproduced(tmp_path / "none", "here")


def test_extras_are_listed_with_what_they_are_for():
    table = generated_pages.extras(ROOT / "pyproject.toml").splitlines()[2:]
    assert table
    assert all(re.fullmatch(r"\| `\w+` \| [^|]+ \| `[^|]+` \|", line) for line in table), table


# --- reference ------------------------------------------------------------------------------------------------------

MODULES = ("datasets", "metrics", "baselines", "library", "micrograph", "particles", "pipeline", "fit", "errors")


def test_every_public_name_is_in_the_reference():
    text = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    named = set(re.findall(r"^   (\w+)$", text, flags=re.M))
    public = {name for module in MODULES for name in import_module(f"tumble.{module}").__all__}
    public |= set(tumble.__all__) - {"__version__", "datasets", "errors"}
    # A name for a type of callable has no page of its own.
    assert public - named == {"ProgressCallback"}
