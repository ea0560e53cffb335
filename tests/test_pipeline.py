"""The steps that join a library with images, labels and an estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from helpers_pipeline import CLASSES, COLUMNS, OPTIONS, ROWS, dump, make_library, write_files
from PIL import Image

from tumble import pipeline
from tumble.errors import (
    ConfigError,
    DataError,
    InputFileError,
    LabelError,
    LibraryError,
    ModelFileError,
)
from tumble.estimators import SSRVAEClassifier
from tumble.library import Library
from tumble.micrograph import read_label_image
from tumble.pipeline.fit import fingerprint, semi_supervised_targets

if TYPE_CHECKING:
    from pathlib import Path

N = ROWS * COLUMNS


def quick() -> SSRVAEClassifier:
    return SSRVAEClassifier(max_epochs=2, random_state=0)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return make_library(tmp_path)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("fitted")
    path = make_library(folder)
    with Library(path) as library:
        pipeline.fit_library(library, folder / "model", estimator=quick())
        pipeline.classify_library(library, folder / "model")
    return path, folder / "model"


# --- extract ------------------------------------------------------------------------------------------------


def test_extract_finds_every_object_once(tmp_path: Path) -> None:
    image, _ = write_files(tmp_path)
    seen: list[tuple[str, int, int]] = []
    with Library(tmp_path / "l.db", create=True) as library:
        first, again = pipeline.extract_into(
            library,
            [image, image],
            pixel_size_nm=2.0,
            options=OPTIONS,
            progress=lambda *state: seen.append(state),
        )
        assert first == pipeline.ExtractedFile(str(image), 1, N, added=True, notes=())
        assert again == pipeline.ExtractedFile(str(image), 1, N, added=False, notes=())
        assert library.crops().shape == (N, 24, 24)
        assert library.micrographs()["pixel_size_nm"].tolist() == [2.0]
    assert seen == [("Extracting", 0, 2), ("Extracting", 1, 2), ("Extracting", 2, 2)]


def test_extract_stops_at_a_bad_file_and_keeps_those_before(tmp_path: Path) -> None:
    image, _ = write_files(tmp_path)
    with Library(tmp_path / "l.db", create=True) as library:
        with pytest.raises(InputFileError, match=r"missing\.tif.*the 1 before"):
            pipeline.extract_into(library, [image, tmp_path / "missing.tif", image], options=OPTIONS)
        assert len(library.particles()) == N


def test_no_library_is_made_for_a_first_image_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="missing"):
        pipeline.extract_files(tmp_path / "l.db", [tmp_path / "missing.tif"], options=OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_a_new_library_keeps_what_came_before_a_bad_file(tmp_path: Path) -> None:
    image, _ = write_files(tmp_path)
    path = tmp_path / "l.db"
    with pytest.raises(InputFileError, match="missing"):
        pipeline.extract_files(path, [image, tmp_path / "missing.tif"], options=OPTIONS)
    again = pipeline.extract_files(path, [image], options=OPTIONS)
    assert [file.added for file in again] == [False]
    with Library(path) as library:
        assert len(library.particles()) == N


@pytest.mark.parametrize("mode", ["P", "1"])
def test_masks_are_read_as_numbers_not_as_colours(tmp_path: Path, mode: str) -> None:
    numbers = np.zeros((20, 30), dtype=np.uint8)
    numbers[5:9, 4:9] = 1
    numbers[12:15, 20:25] = 2 if mode == "P" else 1
    picture = Image.fromarray(numbers)
    if mode == "P":
        picture.putpalette([0, 0, 0, 255, 40, 0, 0, 200, 90])
    else:
        picture = Image.fromarray(numbers.astype(bool))
    picture.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_label_image(tmp_path / "mask.png"), numbers)
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(DataError, match="colour picture"):
        read_label_image(tmp_path / "rgb.png")


# --- label --------------------------------------------------------------------------------------------------


def test_labels_from_mask_are_those_painted(labelled: Path) -> None:
    with Library(labelled) as library:
        table = library.particles()
        # Classes alternate along each row of the grid; a pair has more than 1.5 times the area of a disc.
        assert (table["label"] == np.where(table["area_px"] > 75, "pair", "disc")).all()
        assert set(library.label_history()["author"]) == {"painter"}


def test_mask_may_be_an_array_of_floats(tmp_path: Path) -> None:
    path = make_library(tmp_path, labels=False)
    mask = tifffile.imread(tmp_path / "classes.tif").astype(np.float32)
    with Library(path) as library:
        assert pipeline.label_from_mask(library, mask, {2: "pair"}, author="a") == N // 2


@pytest.mark.parametrize(
    ("change", "classes", "kind", "text"),
    [
        (lambda mask: mask[:-1], CLASSES, DataError, "px"),
        (lambda mask: mask + 0.5, CLASSES, DataError, "whole numbers"),
        (lambda mask: mask, {9: "ring"}, LabelError, "no particle"),
    ],
)
def test_unfit_mask_changes_nothing(
    tmp_path: Path, change: Any, classes: dict[int, str], kind: type[Exception], text: str
) -> None:
    path = make_library(tmp_path, labels=False)
    before = dump(path)
    mask = change(tifffile.imread(tmp_path / "classes.tif"))
    with Library(path) as library, pytest.raises(kind, match=text):
        pipeline.label_from_mask(library, mask, classes, author="a")
    assert dump(path) == before


def test_mask_needs_a_micrograph_where_there_are_several(labelled: Path, tmp_path: Path) -> None:
    image = tifffile.imread(tmp_path / "image.tif")
    tifffile.imwrite(tmp_path / "other.tif", image[::-1])
    mask = tifffile.imread(tmp_path / "classes.tif")[::-1]
    with Library(labelled) as library:
        pipeline.extract_into(library, [tmp_path / "other.tif"], options=OPTIONS)
        with pytest.raises(ConfigError, match="2 micrographs"):
            pipeline.label_from_mask(library, mask, CLASSES, author="a")
        with pytest.raises(ConfigError, match="no micrograph 7"):
            pipeline.label_from_mask(library, mask, CLASSES, micrograph_id=7, author="a")
        assert pipeline.label_from_mask(library, mask, CLASSES, micrograph_id=2, author="a") == N


def test_labels_from_csv(tmp_path: Path) -> None:
    path = make_library(tmp_path, labels=False)
    (tmp_path / "labels.csv").write_text("particle_id,label\n3,disc\n1,pair\n", encoding="utf-8")
    with Library(path) as library:
        assert pipeline.label_from_csv(library, tmp_path / "labels.csv", author="a") == 2
        assert library.current_labels().to_dict() == {1: "pair", 3: "disc"}


@pytest.mark.parametrize("text", ["single", "1=", "0=background", "1=a,1=b", "", "-1=a", "1=a,,2=b"])
def test_class_names_must_be_pairs(text: str) -> None:
    with pytest.raises(ConfigError, match="classes"):
        pipeline.parse_class_names(text)


# --- fit ----------------------------------------------------------------------------------------------------


def test_targets_follow_the_order_of_the_particles() -> None:
    labels = pd.Series({5: "a", 2: "b", 9: "a", 4: "b", 77: "c"})
    y = semi_supervised_targets([9, 1, 2, 4, 5], labels, where="l")
    assert y.tolist() == ["a", None, "b", "b", "a"]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({}, "tumble label"),
        ({99: "a"}, "none of the 4 particles"),
        ({1: "a", 2: "a"}, "all 2 labels are 'a'"),
        ({1: "a", 2: "a", 3: "b"}, "'b' has one label only"),
        ({1: "a", 2: "b"}, "'a', 'b' have one label only"),
    ],
)
def test_too_few_labels_are_refused_by_name(labels: dict[int, str], text: str) -> None:
    with pytest.raises(LabelError, match=text):
        semi_supervised_targets([1, 2, 3, 4], pd.Series(labels, dtype=object), where="l.db")


def test_fit_saves_a_model_and_its_record(fitted: tuple[Path, Path]) -> None:
    path, folder = fitted
    assert {entry.name for entry in folder.iterdir()} == {"config.json", "weights.safetensors"}
    with Library(path) as library:
        record = library.model_record("model")
        assert record.classes == ("disc", "pair")
        assert len(record.labelled_particle_ids) == N
        assert record.manifold is not None
        assert record.manifold.shape == (2, 9, 9, 24, 24)
        assert record.manifold.max() > 10, "grey levels of 0 to 255, not of 0 to 1"
        assert len(record.history["loss"]) == 2
        assert record.config["max_epochs"] == 2
        assert {
            "python",
            "tumble",
            "torch",
            "numpy",
            "scikit-learn",
            "scikit-image",
            "platform",
            "threads",
        } <= set(record.environment)


def test_fit_can_be_limited_to_some_particles(labelled: Path, tmp_path: Path) -> None:
    with Library(labelled) as library:
        ids = [int(particle) for particle in library.particles().index[:20]]
        record = pipeline.fit_library(library, tmp_path / "m", estimator=quick(), particle_ids=ids)
        assert list(record.labelled_particle_ids) == ids
        with pytest.raises(ConfigError, match="no particle 1000"):
            pipeline.fit_library(library, tmp_path / "m2", estimator=quick(), particle_ids=[1, 1000])


def test_fit_replaces_a_model_only_when_told_to(labelled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with Library(labelled) as library:
        pipeline.fit_library(library, folder, estimator=quick())
        before = fingerprint(folder)
        with pytest.raises(ModelFileError, match="--overwrite"):
            pipeline.fit_library(library, folder, estimator=quick())
        other = SSRVAEClassifier(max_epochs=1, random_state=1)
        pipeline.fit_library(library, folder, estimator=other, overwrite=True)
        assert library.models()["name"].tolist() == ["m", "m"]
    assert pipeline.fit.fingerprint(folder) != before  # type: ignore[attr-defined]
    assert not list(tmp_path.glob(".m*"))


def test_fit_never_touches_a_folder_with_other_things(labelled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("years of work")
    with Library(labelled) as library, pytest.raises(ModelFileError, match=r"chapter\.txt"):
        pipeline.fit_library(library, folder, estimator=quick(), overwrite=True)
    assert (folder / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize("overwrite", [False, True])
def test_interrupted_fit_leaves_everything_as_it_was(labelled: Path, tmp_path: Path, overwrite: bool) -> None:
    folder = tmp_path / "m"
    if overwrite:
        with Library(labelled) as library:
            pipeline.fit_library(library, folder, estimator=quick())
    before, files = dump(labelled), sorted(tmp_path.rglob("*"))

    def interrupt(report: object) -> None:
        raise KeyboardInterrupt

    with Library(labelled) as library, pytest.raises(KeyboardInterrupt):
        pipeline.fit_library(library, folder, estimator=quick(), callbacks=[interrupt], overwrite=overwrite)
    assert dump(labelled) == before
    assert sorted(tmp_path.rglob("*")) == files


def test_failure_to_store_keeps_the_model_and_says_where(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Library, record: object) -> int:
        raise LibraryError("the disk is full.")

    monkeypatch.setattr(Library, "add_model", full)
    files = sorted(tmp_path.rglob("*"))
    with Library(labelled) as library, pytest.raises(LibraryError, match=r"full.*tumble classify"):
        pipeline.fit_library(library, tmp_path / "m", estimator=quick())
    # Minutes of fitting must not be lost because the library could not be written: the message says where it is.
    assert sorted(set(tmp_path.rglob("*")) - set(files)) == [
        tmp_path / "m",
        tmp_path / "m" / "config.json",
        tmp_path / "m" / "weights.safetensors",
    ]


# --- classify and evaluate ----------------------------------------------------------------------------------


def test_predictions_are_those_of_the_estimator(fitted: tuple[Path, Path]) -> None:
    path, folder = fitted
    with Library(path) as library:
        ids, predictions = library.predictions("model")
        assert ids.tolist() == library.particles().index.tolist()
        expected = SSRVAEClassifier.load(folder).predict_proba(library.crops(ids))
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-5)


def test_model_can_classify_another_library(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    path = make_library(tmp_path, labels=False)
    with Library(path) as library:
        done = pipeline.classify_library(library, fitted[1], model_name="visitor")
        assert (done.model_name, done.n_particles) == ("visitor", N)
        assert library.model_record("visitor").labelled_particle_ids == ()
        assert pipeline.classify_library(library, fitted[1]).model_name == "visitor"
        assert len(library.models()) == 1


def test_name_of_another_model_is_not_taken_over(fitted: tuple[Path, Path], labelled: Path, tmp_path: Path) -> None:
    with Library(labelled) as library:
        pipeline.fit_library(library, tmp_path / "model", estimator=SSRVAEClassifier(max_epochs=1, random_state=5))
        before = dump(labelled)
        with pytest.raises(ConfigError, match="another model"):
            pipeline.classify_library(library, fitted[1])
    assert dump(labelled) == before


def test_crops_of_another_size_are_refused(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    image, _ = write_files(tmp_path)
    with Library(tmp_path / "l.db", create=True) as library:
        pipeline.extract_into(library, [image], options=pipeline.ExtractionOptions(crop_size=32))
        with pytest.raises(DataError, match=r"24 x 24 px.*32 x 32 px"):
            pipeline.classify_library(library, fitted[1])


def test_missing_model_is_named(labelled: Path, tmp_path: Path) -> None:
    with Library(labelled) as library, pytest.raises(ModelFileError, match="nowhere"):
        pipeline.classify_library(library, tmp_path / "nowhere")


def test_evaluation_counts_as_by_hand(tmp_path: Path) -> None:
    path = make_library(tmp_path)
    with Library(path) as library:
        labels = library.current_labels()
        train, test = labels.iloc[:20], labels.iloc[20:]
        ids = [int(particle) for particle in train.index]
        pipeline.fit_library(library, tmp_path / "m", estimator=quick(), particle_ids=ids)
        pipeline.classify_library(library, tmp_path / "m")
        scores = pipeline.evaluate(library, "m", test, train, region="lower half")
        predicted = library.particles(model="m").loc[test.index, "predicted"]
        assert library.model_record("m").evaluation == scores
    expected = [
        [int(((test == true) & (predicted == guess)).sum()) for guess in ("disc", "pair")] for true in ("disc", "pair")
    ]
    assert scores["classes"] == ["disc", "pair"]
    assert scores["confusion"] == expected
    assert scores["n_test"] == N - 20
    assert scores["region"] == "lower half"
    assert scores["test_particle_ids"] == test.index.tolist()
    assert scores["test_labels"] == test.tolist()
    recalls = [row[i] / sum(row) for i, row in enumerate(expected)]
    assert list(scores["recall_per_class"].values()) == pytest.approx(recalls)
    assert scores["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    # Area separates discs from pairs perfectly.
    assert scores["baselines"]["area decision tree"]["balanced_accuracy"] == 1.0


def test_evaluation_refuses_labels_that_the_fit_saw(fitted: tuple[Path, Path]) -> None:
    with Library(fitted[0]) as library:
        labels = library.current_labels()
        with pytest.raises(LabelError, match="gave a training label"):
            pipeline.evaluate(library, "model", labels.iloc[:5], labels.iloc[5:], region="x")
