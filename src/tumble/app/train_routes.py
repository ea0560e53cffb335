"""Routes of training: start, watch, stop, resume."""

from __future__ import annotations

from typing import Annotated, Any

import pandas as pd
from fastapi import APIRouter, HTTPException, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from tumble.app.deps import LibraryDep, render
from tumble.app.downloads import FigureKind, csv_response, figure_response

__all__ = ["router"]

router = APIRouter(tags=["train"])


class TrainRequest(BaseModel):
    """How to train."""

    model_config = ConfigDict(extra="forbid")
    max_epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    hold_out: bool = True
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


@router.get("/train", include_in_schema=False)
def train_page(request: Request, library: LibraryDep) -> Response:
    """Show what is trained and what was."""
    classes = library.classes()
    table = library.models().iloc[::-1]
    models = [
        {
            "name": row["name"],
            "classes": ", ".join(row["classes"]),
            "n_labelled": row["n_labelled"],
            "accuracy": None if row["balanced_accuracy"] != row["balanced_accuracy"] else row["balanced_accuracy"],
            "seconds": row["fit_seconds"],
            "at": str(row["created_at"])[:16].replace("T", " "),
        }
        for row in table.head(50).to_dict("records")
    ]
    labelled = classes.loc[classes["n_labels"] > 0, "n_labels"]
    context = {
        "initial": request.app.state.runs.status(),
        "labelled": list(zip(labelled.index.tolist(), labelled.tolist(), strict=True)),
        "n_particles": sum(library.micrographs()["n_particles"].tolist()),
        "models": models,
    }
    return render(request, "train.html", context)


@router.get("/api/train")
def status(request: Request) -> dict[str, Any]:
    """Return what the newest run does, with its curves."""
    return request.app.state.runs.status()


@router.get("/api/train/manifold/{name}/{epoch}/{k}.png")
def frame(
    request: Request,
    name: Annotated[str, Path(max_length=40)],
    epoch: Annotated[int, Path(ge=1, le=99_999)],
    k: Annotated[int, Path(ge=0, le=99_999)],
) -> Response:
    """Return what a run drew of a class after an epoch."""
    content = request.app.state.runs.frame(name, epoch, k)
    if content is None:
        raise HTTPException(404, f"{name} has kept no images of class {k} after epoch {epoch}.")
    return Response(content, media_type="image/png")


@router.get("/export/training.csv")
def export_curves(request: Request) -> Response:
    """Return the losses and the accuracy of the newest run, a row for each epoch."""
    epochs, curves = _curves(request)
    return csv_response(pd.DataFrame(curves, index=pd.Index(epochs, name="epoch")), "training")


@router.get("/export/training.{kind}")
def export_curves_as_figure(request: Request, kind: FigureKind) -> Response:
    """Return the curves of the newest run as a figure."""
    from tumble.app.page_figures import training_figure  # takes a second to import

    epochs, curves = _curves(request)
    return figure_response(lambda: training_figure(epochs, curves), kind, "training")


def _curves(request: Request) -> tuple[list[int], dict[str, list[float | None]]]:
    run = request.app.state.runs.status()
    if not run.get("epochs"):
        raise HTTPException(404, "No training has finished an epoch yet: there are no curves.")
    return run["epochs"], run["curves"]


@router.post("/api/train")
def start(request: Request, asked: TrainRequest) -> dict[str, Any]:
    """Begin to train with the labels as they are now."""
    runs = request.app.state.runs
    runs.start(max_epochs=asked.max_epochs, hold_out=asked.hold_out, seed=asked.seed)
    return runs.status()


@router.post("/api/train/stop")
def stop(request: Request) -> dict[str, Any]:
    """End the run that goes on; what it learned is kept."""
    request.app.state.runs.stop()
    return request.app.state.runs.status()


@router.post("/api/train/resume")
def resume(request: Request) -> dict[str, Any]:
    """Go on with the run that was stopped or cut off."""
    request.app.state.runs.resume()
    return request.app.state.runs.status()
