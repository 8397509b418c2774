import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.plan.growing import Log, Variables

names = st.sampled_from("abcd")
pairs = st.lists(st.tuples(names, st.text(max_size=2)), max_size=6)


@given(st.lists(st.integers(), max_size=4), st.lists(st.integers(), max_size=4))
def test_an_older_log_stays_as_it_was(first: list[int], second: list[int]) -> None:
    old = Log(first)
    new = old.plus(*second)
    other = old.plus(-1)
    assert list(new) == first + second
    assert list(other) == [*first, -1]
    assert list(old) == first
    assert len(old) == len(first)


@given(pairs, pairs, pairs)
def test_older_variables_stay_as_they_were(
    first: list[tuple[str, str]], second: list[tuple[str, str]], third: list[tuple[str, str]]
) -> None:
    def plain(*groups: list[tuple[str, str]]) -> list[tuple[str, str]]:
        values: dict[str, str] = {}
        for name, value in (pair for group in groups for pair in group):
            values.pop(name, None)
            values[name] = value
        return list(values.items())

    old = Variables().plus(first)
    new = old.plus(second)
    other = old.plus(third)
    assert list(new.items()) == plain(first, second)
    assert list(other.items()) == plain(first, third)
    assert list(old.items()) == plain(first)
    assert len(old) == len(dict(first))
    assert list(old) == [name for name, _ in plain(first)]


def test_variables_are_looked_up_as_in_a_mapping() -> None:
    values = Variables({"a": "1"})
    assert values["a"] == "1"
    assert values.get("b") is None
    assert values.get("b", "-") == "-"
    with pytest.raises(KeyError):
        values["b"]
