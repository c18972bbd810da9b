"""Data files with the quirks of public ones, read as a plain pipeline of pandas and scikit-learn reads them."""

import bz2
import dataclasses
import gzip

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import gdkit
from gdkit import datasets, problems
from gdkit.app.config.build import build_problem
from gdkit.app.config.loading import loads
from gdkit.errors import GdkitError, GdkitWarning

N = 60
RNG = np.random.default_rng(0)
NUMBERS = {name: [f"{v:.3f}" for v in RNG.normal(scale=10, size=N)] for name in ("length", "width", "depth")}
KIND = RNG.permuted(np.repeat(["north", "south", "west"], N // 3)).tolist()
SEX = RNG.choice(["male", "female"], N).tolist()
CITY = RNG.permuted(np.repeat(["Paris, France", 'the "Hague"', "Zürich", "line\nbreak"], N // 4)).tolist()
FLAG = RNG.choice(["TRUE", "FALSE"], N).tolist()
DATE = [f"20{i % 20:02}-0{1 + i % 9}-1{i % 10}" for i in range(N)]
LEVELS = RNG.permuted(np.repeat([f"level {i}" for i in range(12)], N // 12)).tolist()
PLAIN = NUMBERS | {"kind": KIND}


def gaps(column, mark, every=7):
    return [mark if i % every == 3 else cell for i, cell in enumerate(column)]


def comma(column):
    return [cell.replace(".", ",") for cell in column]


def text(columns, by=",", header=True, start="", end="\n", quote=True):
    """The columns as text, with quotes where they are needed."""
    needed = lambda cell: quote and any(c in cell for c in (by, '"', "\n"))
    quoted = lambda cell: '"' + cell.replace('"', '""') + '"' if needed(cell) else cell
    rows = [*([columns] if header else []), *zip(*columns.values(), strict=True)]
    return "".join(start + by.join(map(quoted, row)) + end for row in rows)


MANY = {"x": [str(i * i % 97) for i in range(400)], "level": [f"l{i % 100}" for i in range(400)]}
MANY |= {"y": [str(i % 7 * 0.5 + 0.25) for i in range(400)]}
ADULT = NUMBERS | {"work": gaps(SEX, "?"), "city": LEVELS, "kind": KIND}
TITANIC = {
    "Survived": [str(int(s == "male") ^ (i % 3 == 0)) for i, s in enumerate(SEX)],
    "Age": gaps(NUMBERS["width"], ""),
}
TITANIC |= {"Name": [f'Mr. "{i}", {city}' for i, city in enumerate(CITY)], "Sex": SEX, "Fare": NUMBERS["depth"]}
QUALITY = NUMBERS | {"quality": [str(3 + i * i % 7) for i in range(N)]}
MONEY = [f"{round(float(v) * 9e4):,}" for v in NUMBERS["width"]]
EURO = [f"{float(v) * 9e4:,.2f}".translate(str.maketrans(",.", ".,")) for v in NUMBERS["width"]]
COUNT = {"": [str(i + 1) for i in range(N)]}

# name of the file, its content, the options, and how pandas reads it
FILES = {
    "plain": ("a.csv", text(PLAIN), {}, {}),
    "byte order mark": ("a.csv", "\ufeff" + text(PLAIN), {}, {"encoding": "utf-8-sig"}),
    "newlines in quotes": ("a.csv", text({"city": CITY} | PLAIN), {"categorical": "one_hot"}, {}),
    "semicolons": ("a.csv", text(PLAIN, ";"), {}, {"sep": ";"}),
    "semicolons beside commas": ("a.csv", text({"city": CITY} | PLAIN, ";"), {"drop": ["city"]}, {"sep": ";"}),
    "decimal commas": (
        "a.csv",
        text({name: comma(column) for name, column in NUMBERS.items()} | {"kind": KIND}, ";"),
        {"decimal": ","},
        {"sep": ";", "decimal": ","},
    ),
    "tsv": ("a.tsv", text(PLAIN, "\t"), {}, {"sep": "\t"}),
    "tabs": ("a.csv", text({"city": CITY} | PLAIN, "\t"), {"categorical": "ordinal"}, {"sep": "\t"}),
    "aligned with spaces": ("a.txt", text(PLAIN, "   ", start="  "), {}, {"sep": r"\s+"}),
    "bars": ("a.csv", text(PLAIN, "|"), {"delimiter": "|"}, {"sep": "|"}),
    "not ascii": ("a.csv", text(PLAIN, "§"), {"delimiter": "§"}, {"sep": "§", "engine": "python"}),
    "question marks": ("a.csv", text(PLAIN | {"width": gaps(NUMBERS["width"], "?")}), {"missing": "drop_rows"}, {}),
    "NA": ("a.csv", text(PLAIN | {"width": gaps(NUMBERS["width"], "NA")}), {"missing": "mean"}, {}),
    "other gaps": ("a.csv", text(PLAIN | {"depth": gaps(NUMBERS["depth"], "#N/A", 5)}), {"missing": "mean"}, {}),
    "gaps in text": (
        "a.csv",
        text({"work": gaps(SEX, "None")} | PLAIN),
        {"missing": "mean", "categorical": "one_hot"},
        {},
    ),
    "missing targets": ("a.csv", text(PLAIN | {"kind": gaps(KIND, "<NA>")}), {"missing": "drop_rows"}, {}),
    "titanic": (
        "a.csv",
        text(TITANIC),
        {"drop": ["Name"], "missing": "drop_rows", "categorical": "one_hot"},
        {"target": "Survived"},
    ),
    "two levels": ("a.csv", text({"sex": SEX} | PLAIN), {"categorical": "one_hot"}, {}),
    "twelve levels": ("a.csv", text({"level": LEVELS} | PLAIN), {"categorical": "ordinal"}, {}),
    "hundred levels": ("a.csv", text(MANY), {"categorical": "one_hot"}, {"target": "y"}),
    "dates": ("a.csv", text({"date": DATE} | PLAIN), {"drop": ["date"]}, {}),
    "booleans": ("a.csv", text({"flag": FLAG} | PLAIN), {"categorical": "one_hot"}, {}),
    "boolean target": ("a.csv", text(NUMBERS | {"churn": FLAG}), {}, {"target": "churn"}),
    "thousands": ("a.csv", text(PLAIN | {"width": MONEY}), {"thousands": ","}, {"thousands": ","}),
    "european money": (
        "a.csv",
        text({"price": EURO, "area": comma(NUMBERS["depth"]), "kind": KIND}, ";"),
        {"decimal": ",", "thousands": "."},
        {"sep": ";", "decimal": ",", "thousands": "."},
    ),
    "trailing commas": ("a.csv", text(PLAIN, end=",\n"), {}, {"usecols": range(4)}),
    "commas after rows": ("a.csv", text(PLAIN, end=",\n").replace(",\n", "\n", 1), {}, {"index_col": False}),
    "comments": ("a.csv", "# by, hand\n# 2019\n" + text(PLAIN), {"comment": "#"}, {"comment": "#"}),
    "target first": ("a.csv", text({"kind": KIND} | NUMBERS), {}, {"target": 0}),
    "names": ("a.csv", text({"花びら 長さ": NUMBERS["depth"], " 幅": SEX} | PLAIN), {"categorical": "one_hot"}, {}),
    "no header": ("a.data", text(PLAIN, header=False), {"header": False}, {"header": None, "target": 3}),
    "adult": (
        "a.data",
        text(ADULT, ", ", header=False, quote=False),
        {"header": False, "missing": "drop_rows", "categorical": "one_hot"},
        {"header": None, "skipinitialspace": True, "target": 5},
    ),
    "spaces, no header": (
        "a.data",
        text(QUALITY, "  ", header=False, start=" "),
        {"header": False},
        {"header": None, "sep": r"\s+", "target": -1},
    ),
    "no header, dropped": (
        "a.csv",
        text(COUNT | PLAIN, header=False),
        {"header": False, "drop": [0]},
        {"header": None, "target": 4},
    ),
    "gz": ("a.csv.gz", gzip.compress(text(PLAIN).encode()), {}, {}),
    "bz2": ("a.tsv.bz2", bz2.compress(text(PLAIN, "\t").encode()), {}, {"sep": "\t"}),
    "index of pandas": ("a.csv", text({"Unnamed: 0": COUNT[""]} | PLAIN), {"drop": ["Unnamed: 0"]}, {}),
    "index of R": ("a.csv", text(COUNT | PLAIN), {"drop": [""]}, {}),
    "latin-1": (
        "a.csv",
        text({"city": CITY} | PLAIN).encode("latin-1"),
        {"encoding": "latin-1", "categorical": "one_hot"},
        {"encoding": "latin-1"},
    ),
    "utf-16": ("a.csv", text(PLAIN).encode("utf-16"), {"encoding": "utf-16"}, {"encoding": "utf-16"}),
    "carriage returns": ("a.csv", text(PLAIN, end="\r\n\r\n"), {}, {}),
    "years as names": (
        "a.csv",
        text(dict(zip(("2019", "2020", "2021"), NUMBERS.values(), strict=True)) | {"kind": KIND}),
        {"header": True},
        {},
    ),
    "whole numbers": ("a.csv", text(QUALITY, ";"), {}, {"sep": ";", "target": "quality"}),
    "regression": ("a.csv", text(NUMBERS), {}, {"target": "depth"}),
    "notations": ("a.csv", text(PLAIN | {"width": [f"+{i * i}e-0{i % 3}" for i in range(N)]}), {}, {}),
}


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pipeline(frame, target, *, drop=(), missing="refuse", categorical="refuse", **_):
    """Rows as columns of standardized numbers, and the targets, by pandas and scikit-learn alone."""
    frame = frame.drop(columns=["Unnamed: 0" if name == "" else name for name in drop])
    frame = frame.dropna() if missing == "drop_rows" else frame
    y = frame.pop(target)
    numbers, texts = frame.select_dtypes("number"), frame.select_dtypes(exclude="number").astype(object)
    blocks = [SimpleImputer().fit_transform(numbers)]
    if texts.shape[1]:
        encoder = OneHotEncoder(sparse_output=False) if categorical == "one_hot" else OrdinalEncoder()
        blocks.append(encoder.fit_transform(SimpleImputer(strategy="most_frequent").fit_transform(texts)))
    return StandardScaler().fit_transform(np.hstack(blocks)), y


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_pandas_and_scikit_learn_read_it(tmp_path, name):
    file, content, options, reading = FILES[name]
    reading = {"na_values": ["?"], "target": "kind"} | reading
    target = reading.pop("target")
    path = write(tmp_path, file, content)
    frame = pd.read_csv(path, **reading)
    target_name = frame.columns[target] if isinstance(target, int) else target
    x, y = pipeline(frame, target_name, **options)
    dataset = datasets.load({"file": path, "target": target, "split": [1.0, 0.0]} | options)
    assert len(options) <= 3
    assert dataset.train[0].shape == x.shape
    np.testing.assert_allclose(np.sort(dataset.train[0], axis=0), np.sort(x, axis=0), atol=2e-6)
    if dataset.task == "classification":
        assert dataset.classes == tuple(
            str(v).upper() if isinstance(v, (bool, np.bool_)) else v for v in sorted(set(y))
        )
        assert np.bincount(dataset.train[1]).tolist() == np.unique(y, return_counts=True)[1].tolist()
    else:
        back = dataset.train[1] * dataset.y_scale[1] + dataset.y_scale[0]
        np.testing.assert_allclose(np.sort(back), np.sort(y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", [3, -1, "labels.npy"])
def test_an_array_file_is_mapped(tmp_path, target):
    x, y = np.column_stack([np.array(column, float) for column in NUMBERS.values()]), np.arange(N) % 3
    np.save(tmp_path / "a.npy", x if isinstance(target, str) else np.column_stack([x, y]))
    np.save(tmp_path / "labels.npy", y)
    target = str(tmp_path / target) if isinstance(target, str) else target
    dataset = datasets.load({"file": tmp_path / "a.npy", "target": target, "split": [1.0, 0.0]})
    expected = StandardScaler().fit_transform(x)
    np.testing.assert_allclose(np.sort(dataset.train[0], axis=0), np.sort(expected, axis=0), atol=1e-6)
    assert dataset.classes == (0, 1, 2)


def test_parquet_is_read_with_its_types(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": np.arange(N) ** 2, "flag": [True, False] * (N // 2), "y": KIND})
    frame["gap"] = pd.array(gaps(list(range(N)), None), dtype="Int64")
    frame.to_parquet(tmp_path / "a.parquet")
    mapping = {"file": tmp_path / "a.parquet", "target": "y", "missing": "mean", "categorical": "one_hot"}
    dataset = datasets.load(mapping, split=(1.0, 0.0))
    assert dataset.feature_names == ("a", "gap", "flag=False", "flag=True")
    x, _ = pipeline(frame.astype({"gap": float}), "y", missing="mean", categorical="one_hot")
    np.testing.assert_allclose(np.sort(dataset.train[0], axis=0), np.sort(x, axis=0), atol=2e-6)


# --- refusals


def plain(columns):
    return text(columns | PLAIN)


ONE_HOT = {"categorical": "one_hot"}

REFUSED = {
    "rows as header": (
        text(PLAIN, header=False),
        {"target": 3},
        r"above columns of numbers.*header: false.*header: true",
    ),
    "one number as name": (text({"2019": NUMBERS["depth"], "b": SEX, "kind": KIND}), {}, "it has 2019 above"),
    "numbers as header": (text(NUMBERS, ";", header=False), {"target": 0}, "header: false"),
    "Unnamed: 0": (plain({"Unnamed: 0": LEVELS}), {}, r"""number the rows: 'Unnamed: 0'.*drop: \["Unnamed: 0"\]"""),
    "no name": (plain({"": NUMBERS["depth"]}), {}, r'drop: \[""\]'),
    "level": (plain({"Unnamed: 0_level_0": SEX}), {}, r'drop: \["Unnamed: 0_level_0"\]'),
    "all at once": (
        plain({"sex": SEX, "work": gaps(LEVELS, "?"), "gap 1": gaps(NUMBERS["width"], "nan", 5)}),
        {},
        r"""text: 'sex' \(2 .*, 'work' \(12 .*missing values: 'work' 9, 'gap 1' 12, .*: .*"sex", "work"\]; missing: """,
    ),
    "no target": (text(PLAIN | {"kind": gaps(KIND, "NULL")}), {"missing": "mean"}, "'kind' 9.*missing: drop_rows"),
    "no value": (plain({"empty": [""] * N}), {"missing": "mean"}, r"""without a value: 'empty'.*drop: \["empty"\]"""),
    "iso dates": (plain({"date": DATE}), {}, r"""columns of dates: 'date' .*drop: \["date"\]"""),
    "dots": (plain({"day": [f"{1 + i % 28}.{1 + i % 12}.2020" for i in range(N)]}), ONE_HOT, "dates: 'day'"),
    "months": (
        plain({"day": [f"Mar {1 + i % 28}, 2020" for i in range(N)]}),
        {"categorical": "ordinal"},
        "dates: 'day'",
    ),
    "decimal commas": (text({"a": [f"{i},5" for i in range(N)]} | PLAIN, ";"), {}, r"""'a' \(.*Set decimal: ","\.$"""),
    "which commas": (text({"a": comma(NUMBERS["width"])} | PLAIN, ";"), {}, """thousands: ",", or decimal: ",\""""),
    "thousands": (plain({"price": MONEY}), ONE_HOT, """'price' .*thousands: ",\""""),
    "european": (text({"price": EURO} | PLAIN, ";"), {}, r'decimal: "," and thousands: "\."'),
    "underscores": (plain({"a": ["1_000", *NUMBERS["depth"][1:]]}), ONE_HOT, "numbers and text: 'a' .*'1_000'"),
    "arabic digits": (plain({"a": ["\u0661\u0662", *NUMBERS["depth"][1:]]}), {}, "'a' .*'\u0661\u0662'"),
    "infinity": (plain({"a": ["inf", *NUMBERS["depth"][1:]]}), {}, "'a' .*'inf'"),
    "past 2**53": (plain({"a": [str(2**53 + 1), *NUMBERS["depth"][1:]]}), {}, "'a' .*'9007199254740993'"),
    "codes": (plain({"zip": ["01", "1", "2"] * (N // 3)}), {}, r"'zip' \(3 values: '01', '1', '2'\).*categorical"),
    "own values": (
        text({"x": ["1", "2"] * 150, "name": [f"n{i}" for i in range(300)], "kind": ["a", "b", "b"] * 100}),
        ONE_HOT,
        r"""too many values to encode: 'name' \(300.*drop: \["name"\]""",
    ),
    "ragged": (text(PLAIN) + "1,2,3,4,5\n", {}, "line 62 has 5 cells, the header 4.*comment"),
    "NUL": (text(PLAIN) + "1\x002,2,3,north\n", {}, "NUL character"),
    "bytes": (text(PLAIN | {"kind": ["Köln", "Bonn"] * (N // 2)}).encode("latin-1"), {}, "encoding: latin-1"),
    "missing": (text(PLAIN), {"missing": "drop"}, "missing='drop'.*refuse, drop_rows or mean"),
    "categorical": (text(PLAIN), {"categorical": "onehot"}, "categorical='onehot'.*refuse, one_hot or ordinal"),
    "header": (text(PLAIN), {"header": "no"}, r"header='no': neither true nor false.*header: false"),
    "delimiter": (text(PLAIN), {"delimiter": ";;"}, "delimiter=';;': not a single character"),
    "decimal": (text(PLAIN), {"thousands": "."}, r"thousands='\.': the same character as decimal"),
    "encoding": (text(PLAIN), {"encoding": "utf9"}, r"encoding='utf9': no such encoding.*latin-1"),
    "unknown drop": (text(PLAIN), {"drop": ["lenght"]}, r"drop='lenght': no such column\. Did you mean 'length'"),
    "drop of the target": (text(PLAIN), {"drop": ["kind"]}, "drop='kind': it is the target"),
    "drop of a number": (text(PLAIN), {"drop": [0]}, r'drop=0: .*drop: \["0"\]'),
    "drop beyond": (text(PLAIN, header=False), {"header": False, "target": 3, "drop": [9]}, "drop='9': no such column"),
    "drop of a name": (text(PLAIN), {"drop": "width"}, r"drop='width': not a list of columns\. Set drop: \[width\]"),
    "drop of all": (text(PLAIN), {"drop": [*NUMBERS]}, "no feature is left"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_columns_and_the_remedy(tmp_path, name):
    content, options, match = REFUSED[name]
    with pytest.raises(GdkitError, match=match):
        datasets.load({"file": write(tmp_path, "a.csv", content), "target": "kind"} | options)


def test_an_option_of_text_is_refused_for_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.eye(4), y=np.arange(4.0))
    np.save(tmp_path / "a.npy", np.eye(4))
    for file, options in [("a.npz", {"delimiter": ";"}), ("a.npy", {"missing": "mean"}), ("a.npz", {"drop": ["x"]})]:
        with pytest.raises(GdkitError, match=f"{next(iter(options))}=.*is read without it"):
            datasets.load({"file": tmp_path / file, "target": "y"} | options)


@pytest.mark.parametrize("labels", [("01", "1", "2"), (str(2**53), str(2**53 + 1), "a"), ("1e2", "100 ", "1_00")])
def test_labels_that_differ_stay_apart(tmp_path, labels):
    path = write(tmp_path, "a.csv", text(NUMBERS | {"kind": list(labels) * (N // 3)}))
    dataset = datasets.load({"file": path, "target": "kind", "task": "classification"})
    assert dataset.classes == tuple(sorted(label.strip() for label in labels))


@pytest.mark.parametrize(
    ("options", "line"),
    [({}, 6), ({"missing": "none"}, 8), ({"drop": ["depht"]}, 8), ({"target": "kidn"}, 7), ({"task": "classify"}, 8)],
)
def test_a_config_error_names_the_line_of_the_option(tmp_path, options, line):
    path = write(tmp_path, "a.csv", text(PLAIN | {"width": gaps(NUMBERS["width"], "")}))
    lines = "".join(f"    {key}: {value}\n" for key, value in ({"file": path, "target": "kind"} | options).items())
    config = loads(
        f"name: a\nproblem:\n  name: mlp\n  widths: [4]\n  data:\n{lines}"
        "optimizer: {name: adam}\nsweep: {axes: {learning_rate: [0.1]}, steps: 9}\n"
    )
    with pytest.raises(GdkitError, match=f"^<config>:{line}: "):
        build_problem(config)


# --- splits and encoding


def sources(folder):
    y = np.repeat([0, 1, 2], [50, 30, 20])
    x = np.random.default_rng(1).normal(size=(100, 2))
    rows = {"a": [*map(str, x[:, 0])], "b": [*map(str, x[:, 1])], "kind": [*map(str, y)]}
    return {"arrays": (x, y), "file": {"file": write(folder, "a.csv", text(rows)), "target": "kind"}, "set": "wine"}


@pytest.mark.parametrize("source", ["arrays", "file", "set"])
@pytest.mark.parametrize("split", [(0.7, 0.15, 0.15), (0.5, 0.5)])
def test_every_part_has_the_classes_in_their_proportions(tmp_path, source, split):
    dataset = datasets.load(sources(tmp_path)[source], split=split)
    parts = [y for _, y in (dataset.train, dataset.validation or (None, None), dataset.test) if y is not None]
    total = np.bincount(np.concatenate(parts))
    for y, fraction in zip(parts, split, strict=True):
        assert np.abs(np.bincount(y, minlength=len(total)) - fraction * total).max() <= 1


def test_a_class_with_one_row_is_reported_and_trained(tmp_path):
    for single in (["b"], ["b", "c"], ["b", "c", "d"]):
        kinds = ["a"] * (N - len(single)) + single
        path = write(tmp_path, f"{len(single)}.csv", text(NUMBERS | {"kind": kinds}))
        with pytest.warns(GdkitWarning, match=f"Classes with a single row.*: {', '.join(map(repr, single))}"):
            dataset = datasets.load({"file": path, "target": "kind"})
        assert set(single) <= {dataset.classes[label] for label in dataset.train[1]}


def test_means_scales_and_categories_are_those_of_the_training_rows(tmp_path):
    y = [str(i * i % 11 / 4) for i in range(N)]
    path = write(tmp_path, "a.csv", text({"width": gaps(NUMBERS["width"], ""), "sex": SEX, "y": y}))
    mapping = {"file": path, "target": "y", "missing": "mean", "categorical": "one_hot"}
    dataset = datasets.load(mapping, split=(0.5, 0.5))
    mean, spread = dataset.x_scale
    back = {name: dataset.train[0][:, i] * spread[i] + mean[i] for i, name in enumerate(dataset.feature_names)}
    known = np.array([float(v) for v in gaps(NUMBERS["width"], "nan") if v != "nan"])
    is_filled = np.abs(back["width"][:, None] - known).min(axis=1) > 1e-3
    assert is_filled.any()
    np.testing.assert_allclose(back["width"][is_filled], back["width"][~is_filled].mean(), atol=1e-3)
    assert np.allclose(dataset.train[0].mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("step", [5, 7, 11])
@pytest.mark.parametrize("categorical", ["one_hot", "ordinal"])
def test_values_in_no_training_row_are_unknown_and_a_caveat(tmp_path, categorical, step):
    levels = [f"v{i}" if i % step == 0 else "often" for i in range(N)]
    path = write(tmp_path, "a.csv", text({"level": levels, "y": NUMBERS["depth"]}))
    with pytest.warns(GdkitWarning, match=r"\d values? of column 'level' in no training row") as caught:
        dataset = datasets.load({"file": path, "target": "y", "categorical": categorical}, split=(0.5, 0.5))
    unseen = int(str(caught[0].message).split()[1])
    mean, spread = dataset.x_scale
    codes = (dataset.test[0] * spread + mean).round().astype(int)
    is_unknown = (codes == 0).all(axis=1) if categorical == "one_hot" else codes[:, 0] == -1
    assert is_unknown.sum() == unseen
    assert codes.shape[1] == (len(set(levels)) - unseen if categorical == "one_hot" else 1)


# --- caveats


Y = [f"{float(a) + float(b):.3f}" for a, b in zip(NUMBERS["length"], NUMBERS["width"], strict=True)]
NEAR = [f"{'nsw'.index(kind[0]) + v:.3f}" for kind, v in zip(KIND, RNG.uniform(0, 0.5, N), strict=True)]
CODES = [{"north": "31", "south": "7", "west": "12"}[kind] for kind in KIND]
CAVEATS = {
    "counter": (plain({"id": [str(7 + i) for i in range(N)]}), "kind", r"""'id' counts the rows.*drop: \["id"\]"""),
    "counter of floats": (plain({"id": [f"{i}.0" for i in range(N)]}), "kind", "'id' counts the rows"),
    "counter from one": (text({"row": COUNT[""]} | NUMBERS), "length", "'row' counts the rows"),
    "code": (plain({"code": [kind[0] for kind in KIND]}), "kind", r"""'code' predicts the target.*drop: \["code"\]"""),
    "number": (plain({"code": CODES}), "kind", "'code' predicts the target"),
    "thresholds": (plain({"near": NEAR}), "kind", "'near' predicts the target"),
    "unit": (text({"kg": [f"{float(v) / 2.2:.6f}" for v in Y]} | NUMBERS | {"y": Y}), "y", "'kg' predicts the target"),
    "reversed": (text({"loss": [f"{-float(v):.3f}" for v in Y]} | NUMBERS | {"y": Y}), "y", "'loss' predicts"),
}


@pytest.mark.parametrize("name", CAVEATS)
def test_a_suspicious_column_is_a_caveat_and_a_warning(tmp_path, name):
    content, target, match = CAVEATS[name]
    mapping = {"file": write(tmp_path, "a.csv", content), "target": target, "categorical": "one_hot"}
    with pytest.warns(GdkitWarning, match=match) as caught:
        dataset = datasets.load(mapping)
    assert [f"a.csv: {caveat}" for caveat in dataset.caveats] == [str(warning.message) for warning in caught]


def test_a_caveat_of_the_data_is_one_of_the_recommendation(tmp_path):
    path = write(tmp_path, "a.csv", CAVEATS["code"][0])
    with pytest.warns(GdkitWarning, match="'code' predicts"):
        problem = problems.logistic_regression({"file": path, "target": "kind", "categorical": "one_hot"})
    problem = dataclasses.replace(problems.parabola(), caveats=problem.caveats)  # which compiles faster
    result = gdkit.sweep(problem, gdkit.sgd, {"learning_rate": [0.01, 0.1, 1.0]}, steps=5, store=tmp_path / "a.nc")
    for one in (result, gdkit.open(tmp_path / "a.nc")):
        assert any("'code' predicts the target perfectly" in caveat for caveat in one.recommend().caveats)
