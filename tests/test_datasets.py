"""Data sets: splits, standardisation, files, and what bad files get."""

import io
import itertools
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gdkit import datasets
from gdkit.environment import enable_x64
from gdkit.errors import GdkitError, GdkitWarning, MissingPackageError


def rows(n=40, features=3, seed=0):
    """Features on scales far apart, labels of three classes, and numbers."""
    rng = np.random.default_rng(seed)
    x = rng.normal(5.0, [1.0, 100.0, 0.01][:features], (n, features))
    return x, rng.integers(0, 3, n), x @ np.arange(1.0, features + 1) + rng.normal(size=n)


def write_csv(path, x, y, names=None):
    names = names or [*(f"f{i}" for i in range(x.shape[1])), "y"]
    lines = [",".join(names), *(",".join(map(str, [*row, target])) for row, target in zip(x.tolist(), y, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def parts_of(dataset):
    return [part for part in (dataset.train, dataset.validation, dataset.test) if part is not None]


@pytest.fixture
def text(tmp_path):
    """Writes a .csv of the text and loads it."""

    def load(content, **options):
        path = tmp_path / "data.csv"
        path.write_text(content)
        return datasets.load({"file": str(path), "target": "y", **options}, split=(0.5, 0.5))

    return load


# --- splits


@pytest.mark.parametrize("split", [(0.7, 0.15, 0.15), (0.8, 0.2), [0.5, 0.0, 0.5], (1.0, 0.0)])
def test_parts_are_disjoint_and_together_all_rows(split):
    numbers = np.arange(100.0)
    parts = parts_of(datasets.load((numbers[:, None], -numbers), split=split))
    assert sorted(np.concatenate([x[:, 0] for x, _ in parts])) == numbers.tolist()
    assert all(np.array_equal(x[:, 0], -y) for x, y in parts)
    assert [len(y) for _, y in parts] == [round(100 * f) for f in split if f]


def test_the_same_key_gives_the_same_split_and_another_key_another():
    first, again, other = (datasets.load((*rows()[:2],), split_key=key).train[0] for key in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# --- built-in sets


@pytest.mark.parametrize("name", datasets.names())
def test_built_in_sets_are_those_of_scikit_learn_standardised_by_their_training_rows(name):
    import sklearn.datasets

    x, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    dataset = datasets.load(name)
    mean, spread = dataset.x_scale
    assert sum(len(part[1]) for part in parts_of(dataset)) == len(y)
    assert len(dataset.feature_names) == x.shape[1]
    given_back = np.concatenate([part[0] * spread + mean for part in parts_of(dataset)])
    assert np.allclose(np.sort(given_back, axis=0), np.sort(x, axis=0), rtol=1e-4, atol=1e-4 * np.abs(x).max(axis=0))
    varies = dataset.train[0].std(axis=0) > 0.5
    assert np.allclose(dataset.train[0].mean(axis=0), 0, atol=1e-5)
    assert np.allclose(dataset.train[0].std(axis=0)[varies], 1, atol=1e-4)
    assert (dataset.train[0].std(axis=0)[~varies] == 0).all()
    if dataset.task == "classification":
        labels = np.concatenate([part[1] for part in parts_of(dataset)])
        assert np.array_equal(np.bincount(labels), np.bincount(y))
        assert len(dataset.classes) == dataset.outputs == len(np.unique(y))
    else:
        assert abs(dataset.train[1].mean()) < 1e-6
        assert abs(dataset.train[1].std() - 1) < 1e-6
        assert np.allclose(dataset.y_scale, (y.mean(), y.std()), rtol=0.1)


def test_arrays_are_numpy_of_the_default_dtypes_and_read_only():
    x, y = datasets.load("iris").train
    assert (type(x), x.dtype, y.dtype) == (np.ndarray, np.float32, np.int32)
    with enable_x64():
        assert datasets.load("iris").train[0].dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 0


def test_a_second_load_is_the_cached_first():
    assert datasets.load("wine") is datasets.load("wine")
    assert datasets.load("wine") is not datasets.load("wine", split_key=1)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingPackageError, match=r"data='iris' needs scikit-learn.*gdkit\[app\]"):
        datasets.load("iris", split_key=987)  # in no cache


# --- arrays


def test_arrays_of_ones_own_are_not_standardised():
    x, labels, numbers = rows()
    dataset = datasets.load((x, labels), split=(0.5, 0.5))
    assert set(dataset.train[0][:, 1]) <= set(x[:, 1].astype(np.float32))
    assert dataset.x_scale is None
    assert dataset.task == "classification"
    assert datasets.load((x, numbers)).task == "regression"


def test_labels_of_arrays_stay_integers_and_text_is_numbered():
    x = np.ones((4, 2))
    assert datasets.load((x, [3, 1, 3, 1]), split=(0.5, 0.5)).outputs == 4
    named = datasets.load((x, np.array(["b", "a", "b", "a"], dtype=object)), split=(0.5, 0.5))
    assert named.classes == ("a", "b")
    assert datasets.load((x, [True, False, True, False]), split=(0.5, 0.5)).classes == (False, True)


def test_tokens_stay_integers_and_bfloat16_becomes_the_default_float():
    tokens = np.arange(12).reshape(4, 3)
    assert np.issubdtype(datasets.load((tokens, [0, 1, 0, 1]), split=(0.5, 0.5)).train[0].dtype, np.integer)
    half = jnp.ones((4, 2), jnp.bfloat16)
    assert datasets.load((half, [0, 1, 0, 1]), split=(0.5, 0.5)).train[0].dtype == np.float32


def test_a_dataset_is_taken_as_it_is_and_knows_its_outputs():
    x, labels, _ = rows()
    dataset = datasets.Dataset((x, labels), task="classification")
    assert datasets.load(dataset) is dataset
    assert dataset.outputs == 3
    assert datasets.Dataset((x, x[:, :2]), task="regression").outputs == 2


# --- files


def test_csv_holds_what_was_written(tmp_path):
    x, _, numbers = rows()
    path = write_csv(tmp_path / "a.csv", x, numbers, ["a", "b", "c", "y"])
    for target in ("y", 3, -1):
        dataset = datasets.load({"file": path, "target": target})
        mean, spread = dataset.x_scale
        target_mean, target_spread = dataset.y_scale
        given_back = np.concatenate([part[0] * spread + mean for part in parts_of(dataset)])
        targets_back = np.concatenate([part[1] * target_spread + target_mean for part in parts_of(dataset)])
        assert np.allclose(np.sort(given_back, axis=0), np.sort(x, axis=0), rtol=1e-4)
        assert np.allclose(np.sort(targets_back), np.sort(numbers), rtol=1e-4)
        assert (dataset.feature_names, dataset.task, dataset.name) == (("a", "b", "c"), "regression", "a")


@pytest.mark.parametrize(
    ("targets", "task", "classes"),
    [
        (["cat", "dog"], "classification", ("cat", "dog")),
        (["10", "9"], "classification", (9, 10)),
        (["1.0", "2"], "classification", (1, 2)),
        (["0.5", "2"], "regression", None),
    ],
)
def test_the_task_is_guessed_from_the_target(text, targets, task, classes):
    dataset = text("x,y\n" + "\n".join(f"{i},{targets[i % 2]}" for i in range(8)))
    assert (dataset.task, dataset.classes) == (task, classes)


def test_many_whole_numbers_are_a_regression_unless_the_task_is_given(text):
    content = "x,y\n" + "\n".join(f"{i % 7},{i}" for i in range(30))
    assert text(content).task == "regression"
    with pytest.warns(GdkitWarning, match="Classes with a single row"):
        assert len(text(content, task="classification").classes) == 30


def test_quotes_blank_lines_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "q.csv"
    path.write_bytes('\ufeff"x, one",y\r\n\r\n1,"a, b"\r\n2, c \r\n3,c\r\n4, "a, b"\r\n'.encode())
    dataset = datasets.load({"file": path, "target": "y"}, split=(0.5, 0.5))
    assert dataset.feature_names == ("x, one",)
    assert dataset.classes == ("a, b", "c")


def test_a_constant_column_has_spread_one(text):
    dataset = text("c,x,y\n" + "\n".join(f"0.1,{i},{i % 2}" for i in range(7)))
    assert dataset.x_scale[1][0] == 1
    assert np.allclose(dataset.train[0][:, 0], 0)


def test_an_edited_file_is_read_again(text):
    assert text("x,y\n1,0\n2,1\n3,0\n4,1\n").feature_names == ("x",)
    assert text("z,y\n1,0\n2,1\n3,1\n4,1\n5,0\n").feature_names == ("z",)


def test_the_split_in_the_mapping_goes_before_the_one_outside(text):
    content = "x,y\n" + "\n".join(f"{i * i},{i % 2}" for i in range(10))
    assert len(text(content, split=[0.8, 0.1, 0.1]).train[1]) == 8


def test_npz_is_split_like_a_csv_of_the_same_rows(tmp_path):
    x, labels, _ = rows()
    np.savez(tmp_path / "a.npz", x=x, y=labels)
    write_csv(tmp_path / "a.csv", x, labels)
    npz, table = datasets.load({"file": tmp_path / "a.npz"}), datasets.load({"file": tmp_path / "a.csv", "target": "y"})
    for a, b in zip(parts_of(npz), parts_of(table), strict=True):
        assert np.allclose(a[0], b[0])
        assert np.array_equal(a[1], b[1])


@pytest.mark.parametrize("with_validation", [True, False])
def test_npz_keeps_the_test_rows_it_names(tmp_path, with_validation):
    x = np.arange(100.0)[:, None]
    parts = {"x_train": x[:60], "y_train": x[:60, 0], "x_test": x[80:], "y_test": x[80:, 0]}
    if with_validation:
        parts |= {"x_validation": x[60:80], "y_validation": x[60:80, 0]}
    np.savez(tmp_path / "a.npz", **parts)
    dataset = datasets.load({"file": tmp_path / "a.npz"}, split=(0.6, 0.2, 0.2))
    back = [(y * dataset.y_scale[1] + dataset.y_scale[0]).round().astype(int).tolist() for _, y in parts_of(dataset)]
    assert back[2] == list(range(80, 100))
    assert len(back[0]) == (60 if with_validation else 45)
    assert sorted(back[0] + back[1]) == list(range(80 if with_validation else 60))
    assert datasets.load({"file": tmp_path / "a.npz"}, split=(0.8, 0.2)).validation is None or with_validation


# --- bad input

GOOD = "x,z,y\n1,2,0\n2,3,1\n3,4,0\n4,5,1\n"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", r"file='.*data\.csv': it is empty"),
        ("y\n1\n", "one column only, 'y'"),
        ("1,2,3\n1,2,3\n", "looks like a row of data: it has 1, 2, 3 above.*header: false"),
        (",x,y\n0,1,2\n", r"columns that seem to number the rows: ''\. Set drop: \[\"\"\]"),
        ("x,x,y\n0,1,2\n", "two columns are called 'x'"),
        ("x,z,y\n", "it has a header and no rows"),
        (GOOD + "1,2,3,4\n", "line 6 has 4 cells, the header 3"),
        (GOOD + "1,2\n", "missing values: 'y' 1, in 1 of 5 rows"),
        (GOOD + "1,abc,0\n", r"columns of text: 'z' \(5 values: 'abc', '2', '3', \.\.\.\)"),
        (GOOD + "1,,0\n", "missing values: 'z' 1, in 1 of 5 rows. Set missing: drop_rows or mean"),
        (GOOD + "NaN,1,0\n", "missing values: 'x' 1, in 1 of 5 rows"),
        (GOOD + "1,inf,0\n", "columns of text: 'z' .*'inf'"),
        (GOOD + "1,1,?\n", "missing values: 'y' 1, in 1 of 5 rows. Set missing: drop_rows, as a target is not"),
        (GOOD + "1,1,inf\n", "target 'y': 'inf' is not a number"),
        (GOOD + "1,1,cat\n", "target 'y': 'cat' is not a number.*task: classification"),
        ("x,z,y\n1,2,1\n3,4,1\n", r"y=\[1\]: all rows have the same class"),
        ("x,z,y\n1,2,1.5\n", "split=.*none of the 1 rows is left for"),
        ("x,z,y\n1,1e200,1\n3,1e308,0.5\n2,-1e308,1\n1,5,3\n", "too large for float32, at row ., column 1"),
        ('x,z,y\n1,"2,1\n', "cannot be read as a table"),
        (GOOD + "1,1,\x00\n", "file="),
    ],
)
def test_a_bad_csv_is_an_error_with_its_place(text, content, match):
    with pytest.raises(GdkitError, match=match):
        text(content)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"target": "zz"}, "target='zz': no such name. Did you mean 'z'"),
        ({"target": 3}, "target=3: there are 3 columns. Pass 0 to 2"),
        ({"target": -4}, "target=-4"),
        ({"target": None}, "target=None: the target column is not given"),
        ({"target": True}, "target=True: neither a name nor an index"),
        ({"task": "classify"}, "task='classify': no such name. Did you mean 'classification'"),
        ({"task": ["regression"]}, "task="),
        ({"taks": "regression"}, "data='taks': no such name. Did you mean 'task'"),
        ({"split": [0.5, 0.1]}, "split=.*sum to 0.6"),
        ({"target": "z", "task": "classification", "split": [1.0, 0.0]}, None),
    ],
)
def test_a_bad_key_is_an_error_with_the_nearest(text, options, match):
    if match is None:
        with pytest.warns(GdkitWarning, match="Classes with a single row, which cannot be in every part: 2, 3, 4, 5"):
            assert text(GOOD, **options).classes == (2, 3, 4, 5)
        return
    with pytest.raises(GdkitError, match=match):
        text(GOOD, **options)


def test_classes_that_are_no_whole_numbers_are_refused(text):
    with pytest.raises(GdkitError, match="task='classification': the target is not integers"):
        text("x,y\n1,0.5\n2,1.5\n", task="classification")


def test_bad_paths_are_errors(tmp_path):
    (tmp_path / "digits.csv").write_text(GOOD)
    (tmp_path / "folder.csv").mkdir()
    for file, match in [
        (tmp_path / "digit.csv", "no such file. Did you mean 'digits.csv'"),
        (tmp_path / "folder.csv", "no such file"),
        (tmp_path / "digits.xlsx", "not the name of a data file. Give a file .csv"),
        ("a" * 5000 + ".csv", "no such file"),
        ("a\0.csv", "no such file"),
        (3, "file=3: not a path"),
    ]:
        with pytest.raises(GdkitError, match=match):
            datasets.load({"file": file, "target": "y"})
    with pytest.raises(GdkitError, match="no file is named"):
        datasets.load({"target": "y"})


def test_bytes_that_are_no_text_are_an_error(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"x,y\n\xff\xfe,1\n")
    with pytest.raises(GdkitError, match=r"cannot be read as text.*encoding: latin-1"):
        datasets.load({"file": tmp_path / "a.csv", "target": "y"})


X, Y = np.ones((4, 2)), np.arange(4)


@pytest.mark.parametrize(
    ("arrays", "options", "match"),
    [
        ({"x": X}, {}, r"it has \['x'\], and no array 'y'"),
        ({"x": X, "labels": Y}, {"target": "label"}, "no array 'label'. Did you mean 'labels'"),
        ({"x": X, "y": Y}, {"target": 0}, "target=0: an .npz has no columns"),
        ({"x_train": X, "y_train": Y}, {}, "no array 'x_test'"),
        ({"x": X, "y": Y[:3]}, {}, r"x has shape \(4, 2\) and y \(3,\)"),
        ({"x": X[:0], "y": Y[:0]}, {}, "no rows or no features"),
        ({"x": X.astype(str), "y": Y}, {}, "x='str.*not an array of real numbers"),
        (
            {"x": X, "y": Y.astype(str)},
            {"task": "regression", "split": [0.5, 0.5]},
            "y='str.*not an array of real",
        ),
        ({"x": X * 1j, "y": Y}, {}, "x='complex128'"),
        ({"x": np.where(np.eye(4, 2) * [[0, 1]], np.nan, X), "y": Y}, {}, "x=nan: missing .* row 1, column 1"),
        ({"x": X, "y": np.array([0, 1, np.nan, 2])}, {}, "y=nan: missing .* row 2 "),
        ({"x": X, "y": np.array([0, 1, np.nan, 2])}, {"task": "classification"}, "y=nan: missing .* row 2 "),
        ({"x": X, "y": np.array([{}, 1, 2, 3], dtype=object)}, {}, "pickled objects are never loaded"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y}, {}, "the parts differ in shape"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y.astype(str)}, {}, "targets of text and of numbers"),
    ],
)
def test_a_bad_npz_is_an_error(tmp_path, arrays, options, match):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(GdkitError, match=match):
        datasets.load({"file": tmp_path / "a.npz", **options})


def test_a_pickle_called_npz_is_never_loaded(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(GdkitError, match=r"cannot be read as \.npz"):
        datasets.load({"file": tmp_path / "a.npz"})


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ("digit", "data='digit': no such name. Did you mean 'digits'"),
        ("my.csv", "not the name of a data set. Pass {'file': 'my.csv'"),
        (3, "data=3: not a data set"),
        ((X,), "not a data set"),
        ((X, Y[:3]), "equally many rows"),
        ((X, 1.0), "equally many rows"),
        ((X, [[1], [2, 3], [4], [5]]), "y=.*not an array"),
        ((X, np.array([{}] * 4)), "y='object': not an array of real numbers"),
        ((X, Y - 1), "labels below 0"),
        ((X, Y * 0), r"y=\[0\]: all rows have the same class"),
        ((X * np.inf, Y), "x=inf: missing or not finite, at row 0, column 0"),
        ((X * 1e200, Y), "too large for float32"),
    ],
)
def test_bad_data_is_an_error(data, match):
    with pytest.raises(GdkitError, match=match):
        datasets.load(data, split=(0.5, 0.5))


def test_traced_data_is_an_error():
    with pytest.raises(GdkitError, match="must not depend on a lane"):
        jax.jit(lambda x: datasets.load((x, Y)).train[0])(X)


@pytest.mark.parametrize(
    ("split", "match"),
    [
        ((0.5, 0.4), "sum to 0.9"),
        ((1.5, -0.5), "a fraction is below 0 or above 1"),
        ((10**400, 0.5), "a fraction is below 0 or above 1"),
        ((0.0, 1.0), "no row is left for training"),
        ((float("nan"), 1.0), "a fraction is below 0"),
        ((0.5, float("nan")), "a fraction is below 0"),
        ((1.0,), "not two or three"),
        (0.8, "not two or three"),
        ("80", "not two or three"),
        (("0.8", "0.2"), "not all fractions are numbers"),
        ((0.998, 0.001, 0.001), "none of the 40 rows is left for validation"),
    ],
)
def test_a_bad_split_is_an_error(split, match):
    with pytest.raises(GdkitError, match=match):
        datasets.load(rows()[:2], split=split)


@pytest.mark.parametrize("split_key", [-1, 1.5, True, "a", jax.random.key])
def test_a_split_key_is_an_integer(split_key):
    with pytest.raises(GdkitError, match="split_key="):
        datasets.load("iris", split_key=split_key)


cells = st.one_of(
    st.floats(allow_subnormal=True).map(str),
    st.integers(-3, 3).map(str),
    st.sampled_from(["", "a", "nan", "1e999", '"', "x", "y", " ", "-1e308", "5e-324", "\x00", "１", "#"]),
)
tables = st.lists(st.lists(cells, min_size=1, max_size=4).map(",".join), max_size=6)
contents = st.one_of(
    st.binary(max_size=60),
    tables.map(lambda lines: ("a,b,y\n" + "\n".join(lines)).encode()),
    tables.map(lambda lines: "\r\n".join(lines).encode()),
)
CHANGES = itertools.count(1)
fuzzed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.filterwarnings("ignore::gdkit.errors.GdkitWarning")
@fuzzed
@given(contents, st.sampled_from(["y", "a", 0, -1, None]), st.sampled_from([None, *datasets.TASKS]))
def test_no_csv_raises_anything_but_a_typed_error(tmp_path, content, target, task):
    path = tmp_path / "fuzz.csv"
    path.write_bytes(content)
    changes = next(CHANGES)
    os.utime(path, ns=(changes, changes))  # sizes and times of files are the keys of a cache
    try:
        dataset = datasets.load({"file": path, "target": target, "task": task}, split=(0.5, 0.5))
    except GdkitError:
        return
    assert all(np.isfinite(values).all() for part in parts_of(dataset) for values in part)


@pytest.mark.filterwarnings("ignore::gdkit.errors.GdkitWarning")
@fuzzed
@given(st.integers(0, 600), st.binary(min_size=1, max_size=4))
def test_no_damaged_npz_raises_anything_but_a_typed_error(tmp_path, at, damage):
    file = io.BytesIO()
    np.savez(file, x=X, y=Y)
    content = bytearray(file.getvalue())
    content[at : at + len(damage)] = damage
    path = tmp_path / "fuzz.npz"
    path.write_bytes(content)
    changes = next(CHANGES)
    os.utime(path, ns=(changes, changes))
    try:
        datasets.load({"file": path}, split=(0.5, 0.5))
    except GdkitError:
        return
