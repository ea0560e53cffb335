"""What the README tells people to type is typed here."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from tumble.cli import app
from tumble.datasets import make_agglomerate_micrograph
from tumble.library import Library

README = Path(__file__).parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.slow
def test_the_python_examples_run_and_do_what_they_say(capsys):
    cards, extraction = blocks("python")
    exec(compile(cards, "README.md", "exec"), {})
    accuracy = float(re.search(r"tumbled cards: ([\d.]+)", capsys.readouterr().out)[1])
    assert accuracy >= 0.95
    exec(compile(extraction, "README.md", "exec"), {})
    assert "equivalent_diameter_px" in capsys.readouterr().out


def test_the_commands_run_one_after_the_other(tmp_path, monkeypatch):
    """As written, but for the length of the fit; the user's own work, the labels, is done in between."""
    monkeypatch.chdir(tmp_path)
    micrograph = make_agglomerate_micrograph((20, 12, 0, 0), shape=(320, 320), random_state=0)
    tifffile.imwrite("image.tif", micrograph.image)
    commands = next(block for block in blocks("sh") if "tumble extract" in block).strip().splitlines()
    assert [line.split()[1] for line in commands] == ["extract", "label", "fit", "classify", "report", "info"]
    for line in commands:
        arguments = shlex.split(line)[1:]
        if arguments[0] == "label":
            write_labels(Path("gold.db"), Path("labels.csv"))
        if arguments[0] == "fit":
            arguments += ["--max-epochs", "1"]
        outcome = CliRunner().invoke(app, arguments)
        assert outcome.exit_code == 0, f"{line}\n{outcome.output}"
    assert "<h1" in Path("gold.html").read_text(encoding="utf-8")
    with Library(tmp_path / "gold.db") as library:
        table = library.particles(model="gold-model")
        assert library.micrographs()["pixel_size_nm"].iloc[0] == 1.2
        assert table["predicted"].notna().all()
        assert np.allclose(table["feret_max_nm"], 1.2 * table["feret_max_px"], rtol=1e-5)


def write_labels(database, path):
    """Label the six smallest and the six largest particles, as a user would in a spreadsheet."""
    with Library(database) as library:
        ids = library.particles()["area_px"].sort_values().index
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["particle_id", "label"])
        table.writerows([[i, "single"] for i in ids[:6]] + [[i, "dimer"] for i in ids[-6:]])


def test_the_files_that_the_readme_names_exist():
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", text):
        assert (README.parent / target).exists(), target
