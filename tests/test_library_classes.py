import pytest
from helpers_library import make_micrograph, make_particles

from tumble.errors import LabelError
from tumble.library import Library
from tumble.library.classes import CLASS_COLOURS


@pytest.fixture
def library(tmp_path):
    with Library(tmp_path / "p.db", create=True) as opened:
        opened.add_micrograph(make_micrograph(1), make_particles(6, seed=1))
        yield opened


def label(library, ids, name):
    library.add_labels(ids, [name] * len(ids), author="ann", source="test")


def test_classes_in_use_are_shown_in_order_of_name(library):
    label(library, [1, 2], "rod")
    label(library, [3], "cube")
    table = library.classes()
    assert table.index.tolist() == ["cube", "rod"]
    assert table["n_labels"].tolist() == [1, 2]
    assert table["colour"].tolist() == list(CLASS_COLOURS[:2])


def test_a_new_class_leaves_the_colours_and_the_order_of_others(library):
    label(library, [1], "rod")
    library.put_class("ball")
    library.put_class("rod", "#ABCDEF")
    label(library, [2], "another")
    assert library.classes()["colour"].to_dict() == {
        "rod": "#abcdef",
        "ball": CLASS_COLOURS[1],
        "another": CLASS_COLOURS[2],
    }


def test_renaming_labels_anew_and_can_be_taken_back(library):
    label(library, [1, 2], "rod")
    library.put_class("rod", "#123456")
    assert library.rename_class("rod", "stick", author="ann", source="app") == 2
    assert library.current_labels().to_dict() == {1: "stick", 2: "stick"}
    assert library.classes()["colour"].to_dict() == {"stick": "#123456"}
    library.undo_labels("ann")
    assert library.current_labels().to_dict() == {1: "rod", 2: "rod"}
    assert len(library.label_history()) == 4


def test_renaming_to_a_class_that_exists_merges(library):
    label(library, [1, 2], "rod")
    label(library, [3], "stick")
    assert library.rename_class("rod", "stick", author="ann", source="app") == 2
    assert library.classes()["n_labels"].to_dict() == {"stick": 3}


def test_a_class_with_labels_is_not_removed(library):
    label(library, [1], "rod")
    library.put_class("empty")
    library.remove_class("empty")
    with pytest.raises(LabelError, match="has 1 labels"):
        library.remove_class("rod")
    assert library.classes().index.tolist() == ["rod"]


@pytest.mark.parametrize(
    ("name", "colour"), [("", None), (" ", None), ("a\nb", None), ("x" * 81, None), ("rod", "red"), ("rod", "#12345g")]
)
def test_what_is_no_class_is_refused(library, name, colour):
    with pytest.raises(LabelError):
        library.put_class(name, colour)
    assert library.classes().empty


def test_there_must_be_a_class_to_rename_or_remove(library):
    with pytest.raises(LabelError, match="no class 'rod'"):
        library.rename_class("rod", "stick", author="ann", source="app")
    with pytest.raises(LabelError, match="no class 'rod'"):
        library.remove_class("rod")
