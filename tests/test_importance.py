"""The importance of axes: Sobol' indices of whole grids, against closed forms, and of ranks."""

import itertools

import numpy as np
import pytest
import synthetic

from gdkit.app.importance import axis_importances, decompose_variance, describe_importance
from gdkit.app.report import write_result_report


@pytest.mark.parametrize(
    "terms", [([0.0, 1.0], [0.0, 2.0, 7.0]), ([3.0, 1.0, 2.0], [5.0, 5.0], [0.0, 9.0, 1.0, 1.0]), ([1.0, 4.0],) * 4]
)
def test_the_variance_of_an_additive_function_is_that_of_its_terms(terms):
    values = np.array([sum(point) for point in itertools.product(*terms)]).reshape([len(term) for term in terms])
    known = np.array([np.var(term) for term in terms])
    expected = known / known.sum()
    for (alone, total), share in zip(decompose_variance(values), expected, strict=True):
        assert alone == pytest.approx(share, abs=1e-12) and total == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_product_of_centered_terms_is_interaction_alone(size):
    """Of w = u v with means 0 each axis explains nothing alone and everything with the other."""
    centered = np.arange(size) - (size - 1) / 2
    for alone, total in decompose_variance(np.multiply.outer(centered, centered)):
        assert (alone, total) == pytest.approx((0.0, 1.0), abs=1e-12)


def test_interaction_is_what_the_products_of_three_terms_leave():
    """Of (1 + u)(1 + v)(1 + w) - 1 with variances a, b, c and means 0: ANOVA terms a, b, c, ab, ac, bc, abc."""
    u, v, w = (np.array(term) for term in ([-1.0, 1.0], [-0.5, 0.5], [-2.0, 0.0, 2.0]))
    a, b, c = (np.var(term) for term in (u, v, w))
    values = np.multiply.outer(np.multiply.outer(1 + u, 1 + v), 1 + w)
    whole = (1 + a) * (1 + b) * (1 + c) - 1
    others = ((1 + b) * (1 + c), (1 + a) * (1 + c), (1 + a) * (1 + b))
    expected = [(x / whole, x * rest / whole) for x, rest in zip((a, b, c), others, strict=True)]
    np.testing.assert_allclose(decompose_variance(values), expected, atol=1e-12)


@pytest.mark.parametrize(
    "axes", [{}, {"momentum": [0.5]}, {"momentum": [0.0, 0.9]}, {"a": [1, 2], "b": ["x", "y", "z"]}]
)
def test_the_learning_rate_explains_what_depends_on_it_alone(axes, tmp_path):
    result = synthetic.result(("sgd", "adam"), others=axes)
    found = axis_importances(result, "validation_loss")
    page = write_result_report(result, tmp_path / "a.html", figures=[]).read_text()
    if all(len(values) < 2 for values in axes.values()):
        assert found == {} and "Importance" not in page
        return
    assert list(found) == ["sgd", "adam"]
    for label, shares in found.items():
        assert shares[0].name == "learning rate" and len(shares) == 1 + len(axes)
        assert shares[0].alone > 0.98 and max(share.total for share in shares[1:]) < 0.02
        assert f"{label}: {describe_importance(shares)}" in page
    assert "learning rate explains 100 % of" in page or "learning rate explains 99 % of" in page


def test_a_metric_that_is_maximized_and_points_that_diverged_have_the_ranks_of_their_scores():
    result = synthetic.result(("sgd",), others={"momentum": [0.0, 0.9]}, seeds=1)
    loss, accuracy = (axis_importances(result, name)["sgd"] for name in ("test_loss", "test_accuracy"))
    np.testing.assert_allclose([x[1:] for x in loss], [x[1:] for x in accuracy], atol=1e-3)


def test_points_that_are_all_equal_or_not_finished_have_no_importance():
    result = synthetic.result(("sgd",), others={"momentum": [0.0, 0.9]}, edge=1e-6)  # all diverged
    assert axis_importances(result, "validation_loss") == {}
    result.lanes["end_kind"].values[:2] = 0
    assert axis_importances(result, "validation_loss") == {}
