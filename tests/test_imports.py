"""What importing costs, and who may import whom."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import tumble

ROOT = Path(__file__).parents[1]


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_tumble_loads_no_heavy_package() -> None:
    loaded = modules_after("import tumble; tumble.__version__; tumble.errors")
    assert "tumble" in loaded
    assert not loaded & {"torch", "matplotlib", "sqlalchemy", "skimage", "pandas", "numpy"}


def test_command_line_starts_without_heavy_packages() -> None:
    loaded = modules_after("import tumble.cli")
    assert "typer" in loaded
    assert not loaded & {"torch", "matplotlib", "sqlalchemy", "skimage", "pandas", "numpy"}


def test_pipeline_starts_without_torch() -> None:
    assert "torch" not in modules_after("import tumble.pipeline, tumble.report")


@pytest.mark.parametrize("name", tumble.__all__)
def test_public_name_can_be_used(name: str) -> None:
    assert getattr(tumble, name) is not None
    assert name in dir(tumble)


def test_public_name_is_the_one_of_its_module() -> None:
    assert tumble.Library is importlib.import_module("tumble.library").Library
    assert tumble.datasets is importlib.import_module("tumble.datasets")


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tumble.nothing  # type: ignore[attr-defined]


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="contracts are in the source tree")
def test_layers_are_kept() -> None:
    pytest.importorskip("importlinter")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
