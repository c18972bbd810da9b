"""Configs: what they accept, and the message for everything that they reject."""

import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdkit.app.config.loading import dump, load, loads
from gdkit.app.config.schema import ConfigAxis, StudyConfig, SweepConfig, build_json_schema
from gdkit.app.config.source import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"

FULL = """\
name: everything
problem:
  name: mlp
  data: {file: my.csv, target: y, split: [0.7, 0.15, 0.15]}
  widths: [64, 64]
optimizer:
  - {name: sgd}
  - {name: sgd, momentum: 0.9, label: momentum}
  - {name: adam, learning_rate: {log: {from: 1e-5, to: 1, count: 31}}, b1: [0.8, 0.9]}
  - {use: my_module:my_factory, schedule: {name: warmup_cosine, warmup: 0.2}, clip_norm: 1.0, mask: null}
sweep:
  axes:
    learning_rate: {log: {from: 1e-4, to: 100, count: 31}}
    problem.init_scale: {linear: {from: 0, to: 1, count: 3}}
    nesterov: {static: [true, false]}
  paired:
    b2: [0.9, 0.99]
    eps: {values: [1e-8, 1e-4]}
  seeds: 3
  steps: 600
  target: -1.5
precision: float64
thresholds: {converged: 0.01}
output: somewhere
"""
SMALL = """\
name: small
problem: {name: parabola}
optimizer: {name: sgd}
sweep:
  axes: {learning_rate: [0.1, 0.2]}
  steps: 10
"""
STUDY = "experiment: experiments.parabola:run\nsettings: {steps: 10}\n"


def message(text: str, *overrides: str) -> str:
    """The message for an invalid config."""
    with pytest.raises(ConfigError) as caught:
        loads(text, overrides, file="c.yaml")
    return str(caught.value)


def test_exponents_without_a_point_are_numbers():
    config = loads(SMALL, ["sweep.axes.learning_rate=[1e-4, 1e2, 3]"])
    assert isinstance(config, SweepConfig)
    assert config.sweep.axes["learning_rate"].list_values() == [1e-4, 1e2, 3]


@pytest.mark.parametrize("text", [FULL, SMALL, STUDY])
def test_a_dumped_config_loads_to_the_same(text):
    config = loads(text)
    again = loads(dump(config))
    assert again == config
    assert dump(again) == dump(config)


def test_the_name_of_a_study_is_that_of_its_module_by_default():
    assert loads(STUDY).name == "parabola"
    assert loads(STUDY + "name: mine").name == "mine"
    assert isinstance(loads(STUDY), StudyConfig)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configs_of_the_project_are_valid_and_named_like_their_file(path):
    assert load(path).name == path.stem


def test_every_field_is_described_for_editors():
    schema = build_json_schema()
    json.dumps(schema)
    for name, model in schema["$defs"].items():
        for field, content in model.get("properties", {}).items():
            assert content.get("description"), f"{name}.{field}"


# Axes


def test_both_ends_of_a_log_axis_are_exact():
    values = ConfigAxis.model_validate({"log": {"from": 1e-5, "to": 100, "count": 57}}).list_values()
    assert (values[0], values[-1], len(values)) == (1e-5, 100.0, 57)
    ratios = [b / a for a, b in itertools.pairwise(values)]
    assert max(ratios) == pytest.approx(min(ratios))


def test_linear_axes_have_equal_distances_and_lists_are_taken_as_they_are():
    values = ConfigAxis.model_validate({"linear": {"from": 0, "to": 1, "count": 5}}).list_values()
    assert values == [0, 0.25, 0.5, 0.75, 1]
    assert ConfigAxis.model_validate(["relu", "tanh"]).list_values() == ["relu", "tanh"]
    assert ConfigAxis.model_validate({"static": [[8, 8], [64]]}).list_values() == [[8, 8], [64]]


def test_runs_are_counted_by_optimizer():
    config = loads(FULL)
    assert isinstance(config, SweepConfig)
    rest = 3 * 2 * 2 * 3  # init_scale, nesterov, the pair, seeds
    assert config.lanes_per_optimizer == [31 * rest, 31 * rest, 31 * 2 * rest, 31 * rest]


def test_random_axes_are_sampled_jointly():
    config = loads(
        SMALL, ["sweep.axes={a: {random: {from: 1, to: 2, count: 7}}, b: {random: {from: 1, to: 2}}, c: [1, 2]}"]
    )
    assert isinstance(config, SweepConfig)
    assert config.lanes_per_optimizer == [14]


# Overrides


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("sweep.steps=20", lambda config: config.sweep.steps == 20),
        ("sweep.steps=1e3", lambda config: config.sweep.steps == 1000),
        ("sweep.target=0.5", lambda config: config.sweep.target == 0.5),
        ("sweep.target=", lambda config: config.sweep.target is None),
        ("optimizer.1.momentum=0.5", lambda config: config.optimizer[1].fixed["momentum"] == 0.5),
        ("optimizer.0.momentum=0.9", lambda config: config.optimizer[0].fixed["momentum"] == 0.9),
        ("optimizer[0].momentum=0.9", lambda config: config.optimizer[0].fixed["momentum"] == 0.9),
        ("optimizer.0.schedule.name=cosine", lambda config: config.optimizer[0].schedule.name == "cosine"),
        ("problem.widths.1=32", lambda config: config.problem.arguments["widths"] == [64, 32]),
        ("sweep.axes.learning_rate.log.count=3", lambda config: config.sweep.axes["learning_rate"].log.count == 3),
        (
            "sweep.axes.problem.init_scale.linear.count=9",
            lambda config: config.lanes_per_optimizer[0] == 31 * 9 * 2 * 2 * 3,
        ),
        ("sweep.axes.problem.depth=[1, 2]", lambda config: list(config.sweep.axes)[-1] == "problem.depth"),
        ("sweep.axes.learning_rate=[1, 2]", lambda config: config.lanes_per_optimizer[0] == 2 * 3 * 2 * 2 * 3),
    ],
)
def test_an_override_sets_what_it_names(assignment, read):
    assert read(loads(FULL, [assignment]))


def test_the_last_override_wins_and_a_single_optimizer_may_be_numbered():
    config = loads(SMALL, ["optimizer.momentum=0.1", "optimizer.0.momentum=0.2", "sweep.steps=1", "sweep.steps=2"])
    assert isinstance(config, SweepConfig)
    assert config.optimizer[0].fixed == {"momentum": 0.2}
    assert config.sweep.steps == 2


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("swep.steps=3", "swep: unknown key. Did you mean 'sweep'?"),
        ("sweep.stpes=3", "sweep.stpes = 3: unknown key. Did you mean 'steps'?"),
        ("sweep.steps", "not of the form key.path=value"),
        ("=3", "not of the form key.path=value"),
        ("optimizer.9.x=3", "has no entry '9'. Its entries are 0 (sgd), 1 (momentum)"),
        ("name.x=3", "name is everything, which has no key 'x'"),
        ("sweep.steps=[1", "not YAML"),
        ("sweep.steps=0", "override 'sweep.steps=0': sweep.steps = 0: must be greater than or equal to 1"),
    ],
)
def test_an_invalid_override_is_rejected_with_the_remedy(assignment, expected):
    assert expected in message(FULL, assignment)


# Messages and their lines


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seeds: 3", "sedes: 3", "c.yaml:19: sweep.sedes = 3: unknown key. Did you mean 'seeds'?"),
        (
            "count: 31}}\n    prob",
            "count: -3}}\n    prob",
            "c.yaml:13: sweep.axes.learning_rate.log.count = -3: must be",
        ),
        (
            "log: {from: 1e-4",
            "lgo: {from: 1e-4",
            "c.yaml:13: sweep.axes.learning_rate.lgo: unknown key. Did you mean 'log'?",
        ),
        ("count: 31}}, b1", "cuont: 31}}, b1", "c.yaml:9: optimizer.2.learning_rate.log.cuont = 31: unknown key"),
        (
            "from: 1e-4, to: 100",
            "from: 100, to: 1e-4",
            "c.yaml:13: sweep.axes.learning_rate.log: from must be below to",
        ),
        ("from: 1e-4", "from: -1", "c.yaml:13: sweep.axes.learning_rate.log.from = -1: must be greater than 0"),
        ("from: 1e-4", "from: '1'", "c.yaml:13: sweep.axes.learning_rate.log.from = '1': must be a number"),
        (
            "[0.9, 0.99]",
            "[0.9, 0.99, 0.999]",
            "c.yaml:16: sweep.paired: paired axes must have equal lengths: b2 has 3, eps has 2",
        ),
        ("[0.8, 0.9]", "[0.8, 0.9, 0.8]", "c.yaml:9: optimizer.2.b1: duplicate value 0.8. Remove one"),
        ("[0.8, 0.9]", "[0.8, [0.9]]", "c.yaml:9: optimizer.2.b1.1: must be a number, a string"),
        (
            "values: [1e-8, 1e-4]",
            "random: {from: 1, to: 2}",
            "c.yaml:18: sweep.paired.eps: a paired axis cannot be random",
        ),
        (
            "b1: [0.8, 0.9]",
            "b1: {random: {from: 0.5, to: 0.9}}",
            "c.yaml:9: optimizer.2.b1: a random axis must be one of the sweep",
        ),
        ("b1: [0.8, 0.9]", "b2: [0.8, 0.9]", "c.yaml:9: optimizer.2.b2: also an axis that varies jointly with others"),
        (
            "linear: {from: 0, to: 1, count: 3}",
            "random: {from: 1, to: 2}",
            "c.yaml:14: sweep.axes.problem.init_scale: random",
        ),
        ("steps: 600", "steps: 0", "c.yaml:20: sweep.steps = 0: must be greater than or equal to 1"),
        ("steps: 600", "steps: many", "c.yaml:20: sweep.steps = 'many': must be an integer"),
        ("steps: 600", "steps: true", "c.yaml:20: sweep.steps = true: must be an integer"),
        ("steps: 600", "steps: 1" + "0" * 30, "c.yaml:20: the number 1000000"),
        ("steps: 600", "steps: " + "9" * 9000, "c.yaml:20: 9999"),
        ("  steps: 600\n", "", "c.yaml:11: sweep.steps: missing. Expected: number of updates per run."),
        ("target: -1.5", "target: .nan", "c.yaml:21: .nan is not a finite number"),
        ("target: -1.5", "target: 1e999", "c.yaml:21: 1e999 is not a finite number"),
        ("name: everything", "name: a/b", "c.yaml:1: name = 'a/b': must consist of letters, digits and . _ -"),
        ("name: everything", "name: ..", "c.yaml:1: name = '..': must consist of letters"),
        ("name: mlp", "use: nothing", "c.yaml:3: problem.use = 'nothing': must be module:function"),
        ("name: mlp", "name: mlp\n  use: a:b", "c.yaml:2: problem: give either name (built-in) or use"),
        (
            "label: momentum",
            "label: sgd",
            "c.yaml:8: optimizer.1: another optimizer is called 'sgd', too. Give it a label",
        ),
        ("problem.init_scale", "problem.widths", "c.yaml:5: problem.widths: both fixed here and an axis"),
        ("clip_norm: 1.0", "clip_norm: -1", "c.yaml:10: optimizer.3.clip_norm = -1: must be greater than 0"),
        ("warmup_cosine", "warmup_cosin", "c.yaml:10: optimizer.3.schedule.name = 'warmup_cosin': must be 'constant'"),
        ("warmup_cosine", "cosine", "c.yaml:10: optimizer.3.schedule.warmup = 0.2: a cosine schedule has no warmup."),
        (
            "precision: float64",
            "precision: float16",
            "c.yaml:22: precision = 'float16': must be 'float32' or 'float64'",
        ),
        ("seeds: 3", "seeds: 3\n  seeds: 4", "c.yaml:20: duplicate key 'seeds' (first at c.yaml:19)"),
        ("seeds: 3", "seeds: !!python/object:os.system 3", "c.yaml:19: the tag"),
        ("seeds: 3", "? [a, b]\n  : 3", "a key must be a string, not a list"),
        ("seeds: 3", "seeds: 1000000", "sweep: 1,860,000,000"),
        ("b2: [0.9, 0.99]", "learning_rate: [1, 2]", "c.yaml:17: sweep.paired.learning_rate: also given under axes"),
        ("b2: [0.9, 0.99]", "b2 b: [0.9, 0.99]", "c.yaml:17: sweep.paired.b2 b: must be the name of a hyperparameter"),
    ],
)
def test_each_mistake_is_named_with_its_line_its_path_and_its_remedy(old, new, expected):
    assert old in FULL
    assert expected in message(FULL.replace(old, new, 1))


def test_all_errors_are_listed_at_once():
    text = FULL.replace("seeds: 3", "sedes: 3").replace("float64", "float16").replace("steps: 600", "steps: -1")
    lines = message(text).splitlines()
    assert lines[0] == "3 errors:"
    assert [line.split(":")[1] for line in lines[1:]] == ["20", "19", "22"]


def test_a_syntax_error_shows_its_line():
    assert message("name: a\nproblem: x: y\n") == (
        "c.yaml:2: not YAML: mapping values are not allowed here.\n     2 | problem: x: y\n       |           ^"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("# nothing but a remark\n", "empty"),
        ("- a\n- b\n", "a config is a mapping of keys to values, not a list"),
        ("a: 1\n---\nb: 2\n", "a second YAML document starts"),
        ("a: &a [*a]\n", "this anchor contains itself"),
        ("a: &a {b: *a}\n", "this anchor contains itself"),
        ("[" * 600, "nested too deeply"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
        ("a: *nowhere\n", "found undefined alias"),
        ("\x00\x01\x02", "not YAML"),
        ("1: x\n", "a key must be a string, not '1'"),
    ],
)
def test_a_text_that_is_not_a_config_is_rejected(text, expected):
    assert expected in message(text)


def test_the_number_of_values_after_expanding_aliases_is_limited():
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "after aliases are expanded" in message("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(levels))


def test_files_that_cannot_be_read_are_rejected(tmp_path):
    for name, content in {
        "binary.yaml": b"\xff\xfe\x00\x80",
        "large.yaml": b"a" * 1_000_001,
        "fine.yaml": b"a: 1",
    }.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"no such file\. Did you mean 'fine.yaml'"):
        load(tmp_path / "fone.yaml")
    with pytest.raises(ConfigError, match="this is a folder"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="byte 0 is not UTF-8"):
        load(tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="larger than 1,000,000 bytes"):
        load(tmp_path / "large.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load("a\x00b")


def test_an_error_found_later_still_names_the_line():
    config = loads(FULL, file="c.yaml")
    assert (
        str(config.error(("optimizer", 1, "momentum"), "too large"))
        == "c.yaml:8: optimizer.1.momentum = 0.9: too large."
    )
    single = loads(SMALL, file="c.yaml")
    assert str(single.error(("optimizer", 0, "name"), "x.")) == "c.yaml:3: optimizer.name = 'sgd': x."


# Fuzz: whatever the text, a config or a ConfigError

WORDS = ["name", "problem", "optimizer", "sweep", "axes", "learning_rate", "log", "from", "to", "count", "steps", "use"]
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*WORDS, "a:b", "sgd", 1e-4, 0.5, 3, "random", "static", "values", "experiment"])
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def outcome(text: str, *overrides: str) -> None:
    try:
        config = loads(text, overrides)
    except ConfigError:
        return
    assert loads(dump(config)) == config
    if isinstance(config, SweepConfig):
        assert math.isfinite(sum(config.lanes_per_optimizer))


@settings(max_examples=60, deadline=None)
@given(st.text() | st.text(alphabet="ab:-[]{},&*!|>#'\"%@?~<. \n\t1e", max_size=60))
def test_any_text_is_a_config_or_a_config_error(text):
    outcome(text)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_change_of_a_valid_config_is_a_config_or_a_config_error(data):
    text = data.draw(st.sampled_from([FULL, SMALL, STUDY]))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    outcome(
        text[:start]
        + data.draw(st.text(alphabet="ab:-[]{},&*!\"' \n01e.", max_size=6) | st.text(max_size=3))
        + text[end:]
    )


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([FULL, SMALL, STUDY]), st.data(), trees)
def test_any_value_anywhere_is_a_config_or_a_config_error(text, data, tree):
    keys = st.sampled_from(
        [*WORDS, "0", "1", "seeds", "paired", "label", "clip_norm", "schedule", "momentum", "problem.x"]
    )
    path = ".".join(data.draw(st.lists(keys, min_size=1, max_size=5)))
    try:
        value = json.dumps(tree)
    except ValueError:
        value = str(tree)
    outcome(text, f"{path}={value}")


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(max_size=10), trees, max_size=4))
def test_settings_of_any_content_survive_the_round_trip(content):
    outcome(STUDY, f"settings={json.dumps(content)}")
