"""Labels from files and from painted masks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tumble.errors import InputFileError, LabelError
from tumble.library import labels_from_mask, read_label_csv, write_label_csv


def test_labels_survive_a_csv_file(tmp_path):
    path = tmp_path / "labels.csv"
    labels = pd.Series({4: "rod, bent", 2: 'a "ß" b', 9: "NA"}, dtype=object)
    write_label_csv(path, labels)
    table = read_label_csv(path)
    assert table["particle_id"].dtype == np.int64
    assert dict(zip(table["particle_id"], table["label"], strict=True)) == labels.to_dict()


def test_extra_columns_blank_labels_and_repeats_are_accepted(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffname,label,particle_id\nx, rod ,3\ny,,4\nz,rod,3\n", encoding="utf-8")
    assert read_label_csv(path).values.tolist() == [[3, "rod"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("id,label\n1,a\n", "no column particle_id"),
        ("a;b\n1;2\n", "no column particle_id and no column label"),
        ("particle_id,label\n", "no labels"),
        ("particle_id,label\n1,\n", "no labels"),
        ("particle_id,label\n1,a\n2.5,b\n", "line 3: '2.5' is not a particle id"),
        ("particle_id,label\n,a\n", "line 2: '' is not a particle id"),
        ("particle_id,label\n-1,a\n", "'-1' is not"),
        ("particle_id,label\n1,b\n1,a\n", "particle 1 has different labels: a, b"),
    ],
)
def test_unusable_labels_are_explained(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LabelError, match=message) as error:
        read_label_csv(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\x00\xff\xfe",
        b"particle_id,label\n1,\xff\n",
        b'particle_id,label\n1,"a\n',
        b"a\n1,2,3\n1,2,3,4,5\n",
    ],
)
def test_files_that_are_no_table(tmp_path, content):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises((InputFileError, LabelError), match=r"labels\.csv"):
        read_label_csv(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        read_label_csv(tmp_path / "nothing.csv")
    with pytest.raises(InputFileError, match="cannot be read"):
        read_label_csv(tmp_path)
    with pytest.raises(InputFileError, match="cannot be written"):
        write_label_csv(tmp_path / "no" / "labels.csv", pd.Series({1: "a"}))


def naive_labels(masks, classes, names, min_overlap):
    found = {}
    for particle_id in sorted(set(masks[masks > 0].tolist())):
        painted = classes[masks == particle_id].tolist()
        best = max(sorted(names), key=painted.count)
        if painted.count(best) / len(painted) >= min_overlap:
            found[particle_id] = names[best]
    return found


@pytest.mark.parametrize("min_overlap", [0.1, 0.4, 0.5, 1.0])
def test_labels_from_a_mask_agree_with_counting_one_by_one(min_overlap):
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 40, (30, 31)).astype(np.int32) * 1_000_003 % 1009
    classes = np.where(rng.random((30, 31)) < 0.6, masks % 4, rng.integers(-2, 9, (30, 31)))
    names = {1: "rod", 3: "cube", 7: "sphere"}
    found = labels_from_mask(masks, classes, names, min_overlap)
    assert found == naive_labels(masks, classes, names, min_overlap)


def test_masks_that_do_not_fit():
    masks = np.ones((4, 5), np.int32)
    assert labels_from_mask(masks * 0, masks, {1: "a"}) == {}
    with pytest.raises(LabelError, match="original size"):
        labels_from_mask(masks, np.ones((5, 4), np.uint8), {1: "a"})
    with pytest.raises(LabelError, match="integers"):
        labels_from_mask(masks, np.ones((4, 5)), {1: "a"})
    with pytest.raises(LabelError, match="min_overlap"):
        labels_from_mask(masks, masks, {1: "a"}, 0.0)
    with pytest.raises(LabelError, match="class_names"):
        labels_from_mask(masks, masks, {})
