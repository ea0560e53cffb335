"""Labels can be taken back and restored, carried to another library, and are compared between people."""

from __future__ import annotations

import pytest
from helpers_library import make_micrograph, make_particles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tumble.errors import LabelError
from tumble.library import Library, write_label_log
from tumble.pipeline import label_from_csv


def filled(path="sqlite://", first=0):
    library = Library(path, create=True)
    for seed in (first, 1 - first):
        library.add_micrograph(make_micrograph(seed), make_particles(4, seed=seed))
    return library


@pytest.fixture
def library():
    with filled() as library:
        yield library


def test_undo_brings_back_what_was_there_and_redo_what_was_taken(library):
    library.add_labels([1, 2], ["rod", "rod"], author="ann", source="app")
    library.add_labels([2, 3], ["cube", "cube"], author="ann", source="app")
    taken = library.undo_labels("ann")
    assert (taken.action_id, taken.n_labels, taken.source) == (2, 2, "app")
    assert library.current_labels().to_dict() == {1: "rod", 2: "rod"}
    library.undo_labels("ann")
    assert library.current_labels().empty
    assert library.redo_labels("ann").action_id == 1
    assert library.redo_labels("ann").action_id == 2
    assert library.current_labels().to_dict() == {1: "rod", 2: "cube", 3: "cube"}
    with pytest.raises(LabelError, match="nothing that could be restored"):
        library.redo_labels("ann")
    assert len(library.label_history()) == 4
    assert library.label_actions()["kind"].tolist() == ["label", "label", "undo", "undo", "redo", "redo"]


def test_undo_leaves_alone_what_others_said_since(library):
    library.add_labels([1], ["rod"], author="ann", source="app")
    library.add_labels([1], ["cube"], author="bob", source="app")
    library.undo_labels("ann")
    assert library.current_labels().to_dict() == {1: "cube"}
    library.undo_labels("bob")
    assert library.current_labels().empty
    assert library.label_history()["retracted"].tolist() == [True, True]


def test_an_action_can_be_named_and_new_labels_end_redoing(library):
    library.add_labels([1], ["rod"], author="ann", source="app")
    library.add_labels([2], ["cube"], author="ann", source="app")
    library.undo_labels("bob", action_id=1)
    assert library.current_labels().to_dict() == {2: "cube"}
    with pytest.raises(LabelError, match="no action 1"):
        library.undo_labels("bob", action_id=1)
    with pytest.raises(LabelError, match="ann has taken back nothing"):
        library.redo_labels("ann")
    library.add_labels([3], ["rod"], author="bob", source="app")
    with pytest.raises(LabelError, match="bob has taken back nothing"):
        library.redo_labels("bob")
    with pytest.raises(LabelError, match="carl has no labels"):
        library.undo_labels("carl")


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("ab"), st.lists(st.integers(1, 3), min_size=1, unique=True), st.sampled_from("xyz")),
        st.tuples(st.sampled_from("ab"), st.just("undo"), st.none()),
        st.tuples(st.sampled_from("ab"), st.just("redo"), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_undo_and_redo_are_those_of_an_editor(operations):
    """Against a list of standing actions per person, replayed from the beginning."""
    done, undone = [], {"a": [], "b": []}
    with filled() as library:
        for author, what, label in operations:
            if what == "undo":
                own = [entry for entry in done if entry[1] == author]
                if own:
                    done.remove(own[-1])
                    undone[author].append(own[-1])
                    library.undo_labels(author)
            elif what == "redo":
                if undone[author]:
                    done.append(undone[author].pop())
                    done.sort()
                    library.redo_labels(author)
            else:
                done.append((len(library.label_actions()), author, what, label))
                undone[author].clear()
                library.add_labels(what, [label] * len(what), author=author, source="test")
        expected = {}
        for _, _, ids, label in done:
            expected |= dict.fromkeys(ids, label)
        assert library.current_labels().to_dict() == expected


@pytest.mark.parametrize("history", [False, True])
def test_a_log_of_labels_survives_a_file_and_another_library(library, tmp_path, history):
    library.add_labels([1, 6], ['rod, "bent"', "NA"], author="ann", source="app")
    library.add_labels([1, 2], ["cube", "rod"], author="bob", source="app")
    library.add_labels([6], [None], author="bob", source="app")
    library.add_labels([3], ["slip"], author="bob", source="app")
    library.undo_labels("bob")
    path = tmp_path / "labels.csv"
    write_label_log(path, library.label_log(history=history))
    before = path.read_bytes()
    with filled(first=1) as other:  # the same particles under other ids
        n = label_from_csv(other, path, author="importer")
        assert n == (5 if history else 2)
        assert label_from_csv(other, path, author="importer") == 0
        assert other.current_labels().to_dict() == {5: "cube", 6: "rod"}
        assert other.label_history()["author"].tolist() == (["ann"] * 2 + ["bob"] * 3 if history else ["bob"] * 2)
        columns = ["label", "author", "created_at", "content_hash", "index_in_micrograph"]
        assert other.label_log(history=history)[columns].equals(library.label_log(history=history)[columns])
        other.undo_labels("importer")
        assert other.current_labels().empty
    assert label_from_csv(library, path, author="importer") == 0
    write_label_log(path, library.label_log(history=history))
    assert path.read_bytes() == before


def test_a_log_of_particles_that_are_not_there_changes_nothing(library, tmp_path):
    library.add_labels([1, 5], ["rod", "cube"], author="ann", source="app")
    path = tmp_path / "labels.csv"
    write_label_log(path, library.label_log())
    with Library("sqlite://", create=True) as other:
        other.add_micrograph(make_micrograph(0), make_particles(4, seed=0))
        with pytest.raises(LabelError, match=r"labels.csv, line 3: this library has no particle 0"):
            label_from_csv(other, path, author="importer")
        assert other.label_history().empty
    path.write_text(path.read_text().replace("2026-", "not a time "))
    path.write_text(path.read_text().replace(library.label_log()["created_at"][0][:4], "long ago"))
    with filled() as other, pytest.raises(LabelError, match=r"created_at .*is not a time"):
        label_from_csv(other, path, author="importer")


def test_labels_of_several_people_stand_side_by_side(library):
    library.add_labels([1, 2], ["rod", "rod"], author="ann", source="app")
    library.add_labels([1], ["cube"], author="ann", source="app")
    library.add_labels([2, 3], ["cube", "rod"], author="bob", source="app")
    table = library.labels_by_author()
    assert table.index.tolist() == [1, 2, 3]
    assert table.values.tolist() == [["cube", None], ["rod", "cube"], [None, "rod"]]
