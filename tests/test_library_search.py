"""Searches in SQL against the same conditions in pandas, neighbours and duplicates against comparing all with all."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from helpers_library import make_micrograph, make_particles, make_predictions, make_record
from typer.testing import CliRunner

from tumble.cli import app
from tumble.errors import ConfigError, DataError, LibraryError
from tumble.library import Library, Query, duplicates, models, neighbours, search
from tumble.pipeline import ask, suggest_labels, varied_particles

N = 120


@pytest.fixture(scope="module")
def library():
    with Library("sqlite://", create=True) as library:
        for seed in range(3):
            library.add_micrograph(make_micrograph(seed), make_particles(N // 3, seed=seed))
        rng = np.random.default_rng(0)
        for author in ("ann", "bob", "ann"):
            ids = rng.choice(np.arange(1, N + 1), 30, replace=False)
            library.add_labels(ids, rng.choice(["rod", "sphere", "cube"], 30), author=author, source="test")
        library.add_labels([1, 2], [None, None], author="bob", source="test")
        library.add_labels(np.arange(1, N + 1), ["slip"] * N, author="carl", source="test")
        library.undo_labels("carl")
        for name, seed in (("first", 1), ("second", 2)):
            library.add_model(make_record(name))
            said = make_predictions(N - 10, seed=seed)
            novelty = rng.normal(size=N - 10).astype(np.float32)
            novelty[::7] = np.nan
            library.add_predictions(name, np.arange(1, N - 9), dataclasses.replace(said, novelty=novelty))
        library.add_model(make_record("never ran"))
        yield library


def naive(library, query):
    """The same question asked of the whole table."""
    frame = library.particles(model=query.model or "second")
    frame = frame.rename_axis(None).assign(particle_id=frame.index)
    keep = frame["predicted"].notna() if query.needs_model else frame["micrograph_id"].notna()
    for name, (low, high) in {
        "probability": query.probability,
        "novelty": query.novelty,
        **query.measurements,
    }.items():
        if low is not None:
            keep &= frame[name] >= low
        if high is not None:
            keep &= frame[name] <= high
    for name, values in (
        ("particle_id", query.particle_ids),
        ("micrograph_id", query.micrograph_ids),
        ("predicted", query.predicted),
        ("label", query.labels),
    ):
        if values is not None:
            keep &= frame[name].isin(values)
    by_author = library.labels_by_author()
    contested = by_author.index[by_author.nunique(axis=1) > 1]
    keep &= {
        "any": True,
        "labelled": frame["label"].notna(),
        "unlabelled": frame["label"].isna(),
        "contested": frame.index.isin(contested),
    }[query.label_state]
    if query.labelled_by:
        history = library.label_history()
        newest = history.loc[~history["retracted"]].groupby("particle_id").tail(1)
        keep &= frame.index.isin(newest.loc[newest["author"] == query.labelled_by, "particle_id"])
        keep &= frame["label"].notna()
    if query.disagrees_with:
        other = library.particles(model=query.disagrees_with)["predicted"]
        keep &= other.notna() & (other != frame["predicted"])
    if query.disagrees_with_label:
        keep &= frame["label"].notna() & (frame["label"] != frame["predicted"])
    if query.also_predicted:
        model, name = query.also_predicted
        keep &= library.particles(model=model)["predicted"] == name
    keep &= frame[query.order_by].notna()
    order = ["particle_id"] if query.order_by == "particle_id" else [query.order_by, "particle_id"]
    return frame.loc[keep].sort_values(order, ascending=not query.descending)


QUERIES = [
    Query(),
    Query(predicted=("rod", "cube"), probability=(0.5, 0.9)),
    Query(probability=(None, 0.6), order_by="probability"),
    Query(novelty=(0.5, None), order_by="novelty", descending=True),
    Query(order_by="novelty"),
    Query(measurements={"area_px": (100, 500), "equivalent_diameter_nm": (None, 60)}, order_by="area_px"),
    Query(micrograph_ids=(1, 3), label_state="labelled"),
    Query(label_state="unlabelled", model="first", predicted=("sphere",), order_by="probability", descending=True),
    Query(label_state="contested"),
    Query(labels=("rod",), labelled_by="bob"),
    Query(model="first", disagrees_with="second", order_by="area_px", descending=True),
    Query(model="second", disagrees_with_label=True),
    Query(model="first", predicted=("rod",), also_predicted=("second", "cube")),
    Query(model="second", also_predicted=("first", "sphere"), order_by="probability"),
    Query(particle_ids=(5, 3, 117, 9999)),
    Query(descending=True, order_by="particle_id", predicted=("rod",)),
    Query(predicted=("rod",), order_by="equivalent_diameter_nm", descending=True),
    Query(predicted=("rod", "cube"), order_by="area_px", label_state="unlabelled"),
    Query(predicted=("rod",), order_by="area_px", label_state="labelled"),
    Query(predicted=("cube",), order_by="area_px", measurements={"area_px": (100, 500)}),
]


@pytest.mark.parametrize("walk", [1, 10**6], ids=["short", "long"])
@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_all_pages_together_are_what_pandas_finds(library, query, walk, monkeypatch):
    monkeypatch.setattr(search, "_WALK", walk)
    expected = naive(library, query)
    assert len(expected) > 0
    assert library.count(query) == len(expected)
    found, query = [], dataclasses.replace(query, limit=7)
    for _ in range(N):
        page = library.search(query)
        found.append(page.particles)
        assert len(page.particles) <= 7
        if page.next is None:
            break
        query = dataclasses.replace(query, after=page.next)
    assert list(itertools.chain(*(frame.index for frame in found))) == expected.index.tolist()
    for frame in found:
        rows = expected.loc[frame.index]
        assert frame["label"].tolist() == rows["label"].tolist()
        assert frame["micrograph_id"].tolist() == rows["micrograph_id"].tolist()
        np.testing.assert_array_equal(frame["probability"], rows["probability"])
        assert frame["predicted"].tolist() == rows["predicted"].tolist()


def test_a_page_of_a_class_by_size_is_found_by_walking_only_where_it_fills(library, monkeypatch):
    few = Query(predicted=("rod",), order_by="area_px", limit=3)
    rods = library.count(few)

    def is_walked(query):
        with library._database.reading() as connection:
            return search._walked(connection, query, search._model_of(connection, query)) is not None

    assert is_walked(few)
    assert is_walked(dataclasses.replace(few, label_state="unlabelled", descending=True))
    assert not is_walked(dataclasses.replace(few, limit=rods))  # there is no next page
    assert not is_walked(dataclasses.replace(few, probability=(0.1, None)))
    assert not is_walked(dataclasses.replace(few, measurements={"area_px": (100, None)}))
    assert not is_walked(dataclasses.replace(few, order_by="solidity"))  # has no index
    monkeypatch.setattr(search, "_WALK", 1)
    by_size = library.search(Query(predicted=("rod", "cube", "sphere"), order_by="area_px", limit=N)).particles
    first = by_size["predicted"].iloc[0]
    rare = next(name for name in ("rod", "cube", "sphere") if name != first)
    assert not is_walked(Query(predicted=(rare,), order_by="area_px", limit=1))


def test_pages_of_equal_values_repeat_and_lose_nothing():
    with Library("sqlite://", create=True) as library:
        found = make_particles(20)
        found.table["area_px"] = np.arange(20) // 7
        library.add_micrograph(make_micrograph(0), found)
        for descending in (False, True):
            query, ids = Query(order_by="area_px", descending=descending, limit=3), []
            while True:
                page = library.search(query)
                ids += page.particles.index.tolist()
                if page.next is None:
                    break
                query = dataclasses.replace(query, after=page.next)
            assert ids == sorted(range(1, 21), reverse=descending)


def test_a_library_without_a_model_can_be_searched_but_not_by_class():
    with Library("sqlite://", create=True) as library:
        library.add_micrograph(make_micrograph(0), make_particles(3))
        assert library.search(Query()).particles.columns.tolist()[:2] == ["micrograph_id", "label"]
        with pytest.raises(ConfigError, match="no model has classified"):
            library.search(Query(predicted=("rod",)))
        with pytest.raises(LibraryError, match="no model"):
            library.search(Query(model="first"))
        with pytest.raises(ConfigError, match="no model has classified"):
            library.neighbours(1)
        library.add_model(make_record("empty"))
        assert library.predicting_model() is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": (0.9, 0.1)}, "no range"),
        ({"novelty": (float("nan"), None)}, "no range"),
        ({"measurements": {"colour": (0, 1)}}, "no measurement 'colour'"),
        ({"order_by": "label; DROP TABLE labels"}, "cannot be ordered"),
        ({"label_state": "maybe"}, "label_state is 'maybe'"),
        ({"limit": 0}, "limit is 0"),
        ({"label_state": "unlabelled", "labels": ("rod",)}, "unlabelled particles have no label"),
    ],
)
def test_questions_without_an_answer_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Query(**change)


@pytest.mark.parametrize("window", [1, 3, 512])
@pytest.mark.parametrize("latent_dim", [1, 2, 6])
def test_neighbours_are_those_of_comparing_with_all(monkeypatch, window, latent_dim):
    monkeypatch.setattr(neighbours, "FIRST_WINDOW", window)
    rng = np.random.default_rng(latent_dim)
    latent = rng.normal(size=(80, latent_dim)).astype(np.float32)
    latent[10:20] = latent[30]  # ties
    with Library("sqlite://", create=True) as library:
        library.add_micrograph(make_micrograph(0), make_particles(81))
        library.add_model(make_record("first"))
        said = dataclasses.replace(make_predictions(80), latent=latent)
        library.add_predictions("first", np.arange(1, 81), said)
        for particle, n in itertools.product((1, 12, 31, 77), (1, 5, 79, 200)):
            distances = np.linalg.norm(latent.astype(float) - latent[particle - 1], axis=1)
            order = [i for i in np.lexsort((np.arange(80), distances)) if i != particle - 1][:n]
            found = library.neighbours(particle, n)
            np.testing.assert_allclose(found["distance"], distances[order], atol=1e-9)
            if n >= 79:
                assert sorted(found.index) == sorted(i + 1 for i in order)
        with pytest.raises(ConfigError, match="no latent factors of a particle 81"):
            library.neighbours(81)
        with pytest.raises(ConfigError, match="n is 0"):
            library.neighbours(1, 0)


def test_duplicates_are_found_across_micrographs_only(monkeypatch):
    first, second = make_particles(30, seed=1, side=24), make_particles(30, seed=2, side=24)
    noise = np.random.default_rng(0).integers(-3, 4, first.crops[5].shape)
    second.crops[3] = first.crops[5]
    second.crops[4] = np.clip(first.crops[6].astype(int) + noise, 0, 255)
    first.crops[8] = first.crops[7]  # in one micrograph: not meant
    for i, j in ((3, 5), (4, 6)):
        second.table.loc[i, "area_px"] = first.table.loc[j, "area_px"]
    with Library("sqlite://", create=True) as library:
        library.add_micrograph(make_micrograph(1), first)
        library.add_micrograph(make_micrograph(2), second)
        assert library.duplicates()[["particle_id", "other_id"]].values.tolist() == [[6, 34]]
        similar = library.duplicates(min_correlation=0.95)
        assert similar[["particle_id", "other_id"]].values.tolist() == [[6, 34], [7, 35]]
        assert similar["correlation"][0] == 1.0
        assert 0.95 <= similar["correlation"][1] < 1.0
        assert len(library.duplicates(min_correlation=0.999999)) == 1
        with pytest.raises(ConfigError, match="min_correlation"):
            library.duplicates(min_correlation=1.5)
        monkeypatch.setattr(duplicates, "MAX_BUCKET", 0)
        assert library.duplicates(min_correlation=0.95).empty


def test_models_are_compared_class_by_class(library):
    table = library.contingency("first", "second")
    a, b = library.particles(model="first")["predicted"], library.particles(model="second")["predicted"]
    for one, other in itertools.product(table.index, table.columns):
        assert table.loc[one, other] == ((a == one) & (b == other)).sum()
    assert table.to_numpy().sum() == N - 10


def test_counts_by_micrograph_are_those_of_the_table(library):
    counts = library.predicted_counts(Query(model="first", probability=(0.5, None)))
    frame = library.particles(model="first")
    frame = frame.loc[frame["probability"] >= 0.5]
    for micrograph, name in itertools.product(counts.index, counts.columns):
        assert (
            counts.loc[micrograph, name]
            == ((frame["micrograph_id"] == micrograph) & (frame["predicted"] == name)).sum()
        )


def test_the_report_takes_the_newest_model_that_has_predictions(library):
    from tumble.report.data import collect

    assert library.predicting_model() == "second"
    data = collect(library)
    assert data.record is not None
    assert data.record.name == "second"
    assert data.has_predictions


@pytest.mark.parametrize("page", [1, 7, 10_000])
@pytest.mark.parametrize("wanted", [1, 12, 1000])
def test_the_least_sure_are_among_those_read_whatever_the_page(library, monkeypatch, page, wanted):
    monkeypatch.setattr(models, "ROWS", page)
    ids, p, latent = library.least_sure("second", wanted)
    all_ids, said = library.predictions("second")
    open_ = ~np.isin(all_ids, library.current_labels().index.to_numpy())
    best = np.sort(said.probabilities[open_], axis=1)
    order = np.argsort(best[:, -1] - best[:, -2])[:wanted]
    assert set(all_ids[open_][order]) <= set(ids)
    assert len(set(ids)) == len(ids)
    assert np.isin(ids, all_ids[open_]).all()
    rows = np.searchsorted(all_ids, ids)
    np.testing.assert_array_equal(p, said.probabilities[rows])
    np.testing.assert_array_equal(latent, said.latent[rows])
    if page == 1 and wanted == 1:
        assert len(ids) < open_.sum(), "it stops when it has them"


def test_suggestions_are_unlabelled_and_the_most_uncertain_first(library):
    found = suggest_labels(library, 5, model="second")
    assert len(found) == 5
    assert not set(found.index) & set(library.current_labels().index)
    assert found["uncertainty"].is_monotonic_decreasing
    assert (found["predicted"] != found["second"]).all()


def test_any_number_of_particles_can_be_asked_for(library):
    wanted = tuple(range(2, 200_000, 2))  # more than a database takes as parameters
    found = library.search(Query(particle_ids=wanted, limit=1000)).particles
    assert found.index.tolist() == list(range(2, N + 1, 2))
    predicted = library.particles(model="first")["predicted"]
    rods = int((predicted[predicted.index % 2 == 0] == "rod").sum())
    assert library.count(Query(particle_ids=wanted, model="first", predicted=("rod",))) == rods


def test_latents_and_sizes_are_those_of_the_whole_table(library):
    whole = library.particles(model="second")
    latents, n = library.latents("second")
    assert n == len(latents) == N - 10
    sizes = library.sizes("second")
    for table in (latents, sizes):
        for name in table.columns.intersection(whole.columns):
            pairs = zip(table[name], whole.loc[table.index, name], strict=True)
            assert all(a == b or (a != a and b != b) for a, b in pairs), name
    assert len(sizes) == N
    assert {"label", "predicted", "latent_0", "latent_1"} <= set(latents)
    assert library.sizes()["predicted"].isna().all()


def test_a_sample_of_latents_is_always_the_same_and_no_row_is_made_up(library):
    sample, n = library.latents("second", at_most=40)
    assert (len(sample), n) == (40, N - 10)
    assert sample.equals(library.latents("second", at_most=40)[0])
    whole, _ = library.latents("second")
    assert sample.equals(whole.loc[sample.index])
    assert sample.index.is_monotonic_increasing


def test_of_a_large_library_every_kth_particle_is_a_candidate_for_a_varied_choice(library, monkeypatch):
    free = set(library.search(Query(label_state="unlabelled", limit=N)).particles.index)
    assert set(varied_particles(library, N).index) == free
    monkeypatch.setattr(ask, "_VARIED_OF", 50)  # of 120: every third
    assert set(varied_particles(library, N).index) == free & set(range(1, N + 1, 3))


def test_a_varied_choice_falls_back_to_those_in_between():
    with Library("sqlite://", create=True) as library:
        library.add_micrograph(make_micrograph(0), make_particles(9))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ask, "_VARIED_OF", 4)  # of 9: every third
            library.add_labels([1, 4, 7], ["rod"] * 3, author="ann", source="test")
            assert set(varied_particles(library, 9).index) <= {2, 3, 5, 6, 8, 9}
            library.add_labels(range(1, 10), ["rod"] * 9, author="ann", source="test")
            with pytest.raises(DataError, match="without a label"):
                varied_particles(library, 9)


def test_the_command_suggests_varied_particles_until_a_model_has_classified(tmp_path):
    place = tmp_path / "particles.db"
    with Library(place, create=True) as opened:
        opened.add_micrograph(make_micrograph(0), make_particles(30, seed=0))
        varied = varied_particles(opened, 4)
    said = CliRunner().invoke(app, ["suggest", str(place), "-n", "4", "--csv"])
    assert said.exit_code == 0, said.output
    assert [int(line.split(",")[0]) for line in said.stdout.splitlines()[1:]] == varied.index.tolist()
    assert "differ most in size and shape" in said.stderr
    with Library(place) as opened:
        opened.add_model(make_record("first"))
        opened.add_predictions("first", np.arange(1, 21), make_predictions(20, seed=1))
        unsure = suggest_labels(opened, 4)
    said = CliRunner().invoke(app, ["suggest", str(place), "-n", "4", "--csv"])
    assert [int(line.split(",")[0]) for line in said.stdout.splitlines()[1:]] == unsure.index.tolist()
    assert "size and shape" not in said.stderr
    named = CliRunner().invoke(app, ["suggest", str(place), "--model", "nobody"])
    assert named.exit_code == 6  # that of the library
    assert "nobody" in named.stderr
