import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import CollinearityError, InputError
from send_va.multilevel.formula import check_full_rank, random_design, response_and_design


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "y": [1.0, 2.0, 3.0, 5.0],
            "prior": [1.0, 2.0, 3.0, 7.0],
            "sex": ["F", "M", "F", "M"],
            "gap in name": [1.0, 3.0, 2.0, 2.0],
            "constant": 3,
            "gaps": [1.0, None, 2.0, 3.0],
            "symbols": ["1", "NE", "2", "3"],
            "day": pd.Timestamp("2020-01-01"),
        }
    )


def test_columns_follow_the_formula_with_the_first_level_as_reference(table):
    table["band"] = pd.Categorical(["low", "high", "low", "mid"], categories=["low", "mid", "high"])
    design = response_and_design("y ~ band + `gap in name`", table)
    assert design.names == ("Intercept", "band[T.mid]", "band[T.high]", "gap in name")
    assert design.response == "y"
    np.testing.assert_array_equal(design.X, [[1, 0, 0, 1], [1, 0, 1, 3], [1, 0, 0, 2], [1, 1, 0, 2]])
    np.testing.assert_array_equal(design.y, [1, 2, 3, 5])


def test_arrays_are_float64_and_c_ordered(table):
    design = response_and_design("y ~ prior + sex", table)
    Z, _ = random_design("1 + prior", table)
    for array in (design.X, Z):
        assert array.dtype == np.float64
        assert array.flags.c_contiguous
    assert design.y.dtype == np.float64


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1, 0, 1, 1], dtype="Int64"),
        pd.array([1.0, 0.0, 1.0, 1.0], dtype="float64[pyarrow]"),
        pd.array([True, False, True, True], dtype="boolean"),
        np.array([True, False, True, True]),
        np.array([1, 0, 1, 1], dtype=object),
    ],
    ids=["Int64", "pyarrow", "boolean", "bool", "object"],
)
def test_numbers_stay_numbers_whatever_their_dtype(table, column):
    design = response_and_design("y ~ x", table.assign(x=column))
    assert design.names == ("Intercept", "x")
    np.testing.assert_array_equal(design.X[:, 1], [1, 0, 1, 1])


def test_row_order_and_index_of_the_table_do_not_matter_to_the_arrays(table):
    shuffled = table.iloc[[2, 0, 3, 1]]
    np.testing.assert_array_equal(response_and_design("y ~ prior + sex", shuffled).y, [3, 1, 5, 2])
    np.testing.assert_array_equal(
        response_and_design("y ~ prior + sex", shuffled).X,
        response_and_design("y ~ prior + sex", table).X[[2, 0, 3, 1]],
    )


def test_a_specification_makes_the_same_columns_from_a_batch_without_every_level(table):
    whole = response_and_design("y ~ sex + prior", table)
    batch = response_and_design(whole.spec, table.iloc[:1], check_rank=False)
    assert batch.names == whole.names
    np.testing.assert_array_equal(batch.X, whole.X[:1])


def test_a_specification_refuses_a_level_it_does_not_know(table):
    whole = response_and_design("y ~ sex + prior", table)
    with pytest.raises(InputError, match=r"does not know: \{'X'\}"):
        response_and_design(whole.spec, table.assign(sex=["F", "X", "F", "M"]))


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        ("y ~ priod", InputError, r"priod: is not a column of the table. Did you mean 'prior'\?"),
        ("y ~ spline(prior)", InputError, "spline: is not a column"),
        ("y ~ gaps", InputError, r"gaps: has missing values; 1 row fails; rows 2\. Fill them in"),
        ("y ~ np.log(constant - 3)", InputError, r"is infinite or undefined; 4 rows fail; rows 1, 2, 3, 4\."),
        ("y ~ np.log(sex)", InputError, "Text cannot enter arithmetic"),
        ("y ~ day", InputError, "day: is datetime"),
        ("y ~ prior +* sex", InputError, r"cannot be read: Operator `\+\*` is incorrectly used\."),
        ("prior", InputError, "has no response"),
        ("symbols ~ prior", InputError, "symbols: the response must be one column of numbers"),
        ("y ~ constant", CollinearityError, "constant: is constant. Leave it out"),
        ("y ~ C(constant)", CollinearityError, r"C\(constant\): has one level only"),
        (
            "y ~ prior + I(2 * prior)",
            CollinearityError,
            r"I\(2 \* prior\): is a combination of other columns \(2 prior\)",
        ),
    ],
)
def test_a_bad_formula_or_column_is_named_with_a_remedy(table, formula, error, message):
    with pytest.raises(error, match=message):
        response_and_design(formula, table)


def test_an_unused_level_is_an_empty_column(table):
    table["sex"] = pd.Categorical(table["sex"], categories=["F", "M", "X"])
    with pytest.raises(CollinearityError, match=r"sex\[T.X\]: is zero in every row. .* remove the level"):
        response_and_design("y ~ sex", table)


def test_an_identifier_does_not_become_a_thousand_dummies():
    table = pd.DataFrame({"y": np.arange(300.0), "pupil": [f"P{i}" for i in range(300)]})
    with pytest.raises(InputError, match="pupil: has 300 different texts") as caught:
        response_and_design("y ~ pupil", table)
    assert "P0" not in str(caught.value)


def test_every_failing_column_is_listed(table):
    with pytest.raises(InputError) as caught:
        response_and_design("y ~ nothing + nowhere", table)
    assert [failure.column for failure in caught.value.failures] == ["nothing", "nowhere"]


def test_an_empty_table_is_refused(table):
    with pytest.raises(InputError, match="no rows"):
        response_and_design("y ~ prior", table.iloc[:0])


@pytest.mark.parametrize(("formula", "message"), [("y ~ prior", "has a response"), ("0", "has no term")])
def test_a_random_effects_formula_is_a_right_hand_side(table, formula, message):
    with pytest.raises(InputError, match=message):
        random_design(formula, table)


def test_columns_far_from_zero_are_not_mistaken_for_constants():
    rng = np.random.default_rng(3)
    X = np.column_stack([np.ones(500), rng.integers(2015, 2020, 500), rng.normal(0, 1, 500), rng.normal(1e6, 100, 500)])
    check_full_rank(X.T @ X, ["Intercept", "year", "prior", "income"])


def test_cross_products_and_rows_give_the_same_verdict():
    rng = np.random.default_rng(4)
    X = np.column_stack([np.ones(200), rng.normal(size=(200, 3))])
    X = np.column_stack([X, X[:, 1] - 3 * X[:, 3] + 2])
    names = ["Intercept", "a", "b", "c", "d"]
    for matrix in (X, X.T @ X):
        with pytest.raises(CollinearityError, match=r"^d: .*\(2 Intercept \+ 1 a \+ -3 c\)"):
            check_full_rank(matrix, names)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.integers(2, 6),
    logs=st.lists(st.floats(-6, 6), min_size=6, max_size=6),
    dependent=st.booleans(),
)
def test_the_verdict_does_not_depend_on_units(seed, columns, logs, dependent):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(40, columns))
    if dependent:
        X[:, -1] = X[:, :-1] @ rng.uniform(0.5, 2, columns - 1)
    X *= 10.0 ** np.array(logs[:columns])
    names = [f"x{position}" for position in range(columns)]
    if dependent:
        with pytest.raises(CollinearityError) as caught:
            check_full_rank(X, names)
        assert caught.value.failures[0].column == names[-1]
        assert all(name in str(caught.value) for name in names)
    else:
        check_full_rank(X, names)
