"""The tutorials are run, and the pages of the documentation are built."""

import ast
import re
import subprocess
import sys
from importlib import import_module

import nbformat
import pytest
from helpers_docs import DOCS, subprocess_environment
from nbclient import NotebookClient

NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))


def test_there_are_tutorials():
    assert {path.stem for path in NOTEBOOKS} == {"cards", "gold", "own-images", "microscope", "limits"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_output(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            ast.parse(re.sub(r"^%.*$", "", cell.source, flags=re.M))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the kernel, on its connection
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_the_quick_setting(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TUMBLE_QUICK", "1")
    for name, value in subprocess_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    # By default a kernel has a minute to start, and outputs that come 4 s after a cell's end are lost: too little on a
    # machine that is busy with other things. matplotlib says so on stderr if its cache of fonts takes it more than 5 s,
    # so it is made here.
    import_module("matplotlib.font_manager")
    patience = {"timeout": 1200, "startup_timeout": 600, "iopub_timeout": 120}
    client = NotebookClient(notebook, **patience, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if "data" in output]
    assert any("image/png" in data for data in shown)
    assert all("image/png" in data for data in shown if data.get("text/plain", "").startswith("<Figure"))
    # A warning that a reader would see is one to mend.
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


# --- the site -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    environment = {**subprocess_environment(), "TUMBLE_DOCS_EXECUTE": "off"}
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "html")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "tutorials" / "cards.html").read_text(encoding="utf-8")
    assert "_notebooks/cards.ipynb" in page
    assert (tmp_path / "html" / "_notebooks" / "cards.ipynb").exists()
