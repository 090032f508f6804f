from __future__ import annotations

from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc.errors import WorldError
from hpc.world import expand_hostlist, expand_tasks_per_node
from hpc.world.hostlist import MOST_HOSTS
from tests.world.hostlists import TABLE, ask_scontrol, reason_not_to_ask_scontrol

with_scontrol = pytest.mark.skipif(bool(reason_not_to_ask_scontrol()), reason=reason_not_to_ask_scontrol())
LITERALS = st.from_regex("[a-z][a-z.-]{0,4}", fullmatch=True)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[str, list[str]]:
    """One comma-separated part of a bracket, and the numbers it stands for."""
    low = draw(st.integers(0, 120))
    width = draw(st.integers(1, 5))
    if draw(st.booleans()):
        return f"{low:0{width}d}", [f"{low:0{width}d}"]
    numbers = range(low, low + draw(st.integers(0, 4)) + 1)
    return f"{low:0{width}d}-{numbers[-1]}", [f"{number:0{width}d}" for number in numbers]


@st.composite
def names(draw: st.DrawFn) -> tuple[str, list[str]]:
    """One element of a list: a literal, then up to three brackets with literals between them."""
    text, hosts = (start := draw(LITERALS)), [start]
    for _ in range(draw(st.integers(0, 2))):
        parts = draw(st.lists(ranges(), min_size=1, max_size=3))
        middle = draw(LITERALS | st.just(""))
        text = f"{text}[{','.join(part for part, _ in parts)}]{middle}"
        numbers = [number for _, each in parts for number in each]
        hosts = [host + number + middle for host, number in product(hosts, numbers)]
    return text, hosts


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """One element as Slurm accepts it: nothing after the last bracket."""
    groups = draw(st.lists(st.tuples(LITERALS, st.lists(ranges(), min_size=1, max_size=3)), min_size=1, max_size=4))
    return "".join(f"{literal}[{','.join(part for part, _ in parts)}]" for literal, parts in groups)


@pytest.mark.parametrize(("text", "hosts"), TABLE.items(), ids=TABLE)
def test_a_host_list_means_what_slurm_means_by_it(text: str, hosts: tuple[str, ...]) -> None:
    assert expand_hostlist(text) == hosts


@given(st.lists(names(), max_size=4))
def test_every_list_is_the_concatenation_of_its_products(elements: list[tuple[str, list[str]]]) -> None:
    text = ",".join(text for text, _ in elements)
    assert list(expand_hostlist(text)) == [host for _, hosts in elements for host in hosts]


@given(st.lists(names(), max_size=4))
def test_an_expanded_list_expands_to_itself(elements: list[tuple[str, list[str]]]) -> None:
    hosts = expand_hostlist(",".join(text for text, _ in elements))
    assert expand_hostlist(",".join(hosts)) == hosts


@given(st.text("a1-,[] x0", max_size=20))
def test_any_text_is_expanded_or_refused_and_nothing_else(text: str) -> None:
    with suppress(WorldError):
        assert not set("[], ") & {host.strip() for host in expand_hostlist(text)}


def test_text_may_follow_the_last_bracket() -> None:
    assert expand_hostlist("gpu-[08-09].cluster.local") == ("gpu-08.cluster.local", "gpu-09.cluster.local")


@with_scontrol
@pytest.mark.parametrize(("text", "hosts"), TABLE.items(), ids=TABLE)
def test_scontrol_agrees_with_the_table(text: str, hosts: tuple[str, ...], tmp_path: Path) -> None:
    assert ask_scontrol(text, tmp_path) == hosts


@with_scontrol
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(elements=st.lists(patterns() | LITERALS, min_size=1, max_size=3))
def test_scontrol_agrees_with_any_list(elements: list[str], tmp_path: Path) -> None:
    text = ",".join(elements)
    assert ask_scontrol(text, tmp_path) == expand_hostlist(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a[1-2", "brackets of host list 'a\\[1-2' must match one to one"),
        ("a]1[", "must match one to one"),
        ("a[[1]]", "without nesting"),
        ("a[3-1]", "must go up, but 'a\\[3-1\\]' has 3-1: write 1-3"),
        ("a[x]", "hold numbers such as 001-016,20 but 'a\\[x\\]' has 'x'"),
        ("a[]", "hold numbers"),
        ("a[1-2,]", "hold numbers"),
        ("a[1-2-3]", "hold numbers"),
        ("a[1 - 2]", "hold numbers"),
        ("a[0-999999999]", "at most 1,000,000 nodes, but 'a\\[0-999999999\\]' takes it beyond"),
        ("a[1-1001][1-1000]", "at most 1,000,000 nodes"),
        ("a[1-600000],b[1-600000]", "but 'b\\[1-600000\\]' takes it beyond"),
        ("n" * 200 + "[", "'n{77}\\.\\.\\.'"),
    ],
)
def test_what_is_no_host_list_is_refused(text: str, message: str) -> None:
    with pytest.raises(WorldError, match=message):
        expand_hostlist(text)


def test_the_largest_list_that_is_allowed_is_expanded() -> None:
    assert len(expand_hostlist(f"n[1-{MOST_HOSTS}]")) == MOST_HOSTS


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("1", (1,)),
        ("4(x2),3", (4, 4, 3)),
        ("3,1", (3, 1)),
        ("1,3,1", (1, 3, 1)),
        ("8(x3), 2(x2)", (8, 8, 8, 2, 2)),
    ],
)
def test_tasks_per_node_are_written_out(text: str, counts: tuple[int, ...]) -> None:
    assert expand_tasks_per_node(text) == counts


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 5)), min_size=1, max_size=6))
def test_tasks_per_node_repeat_as_often_as_they_say(parts: list[tuple[int, int]]) -> None:
    text = ",".join(f"{count}(x{repeats})" if repeats > 1 else str(count) for count, repeats in parts)
    assert list(expand_tasks_per_node(text)) == [count for count, repeats in parts for _ in range(repeats)]


@pytest.mark.parametrize("text", ["", "four", "4(x)", "4x2", "4(x2", "-1", "4,,3", "4(x99999999999)"])
def test_what_is_no_count_of_tasks_is_refused(text: str) -> None:
    with pytest.raises(WorldError, match=r"counts such as 4\(x2\),3 but"):
        expand_tasks_per_node(text)


def test_tasks_on_more_than_a_million_nodes_are_refused() -> None:
    with pytest.raises(WorldError, match="at most 1,000,000 nodes"):
        expand_tasks_per_node("1(x999999),1(x2)")
