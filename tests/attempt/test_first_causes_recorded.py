"""Rank, node and kind are right for real faults, whose runs were recorded, under noise that a cluster would add."""

from __future__ import annotations

from hpc.attempt.first_cause import first_cause
from tests.benchmarks.first_cause import is_right, noisy, read_corpus, score, table
from tests.benchmarks.injected_faults import name_of
from tests.conftest import ROOT

LEAST = 0.95
CORPUS = read_corpus()


def test_the_corpus_has_the_faults_that_happen() -> None:
    faults = {each.case.fault.partition("@")[0] for each in CORPUS}
    assert len(CORPUS) >= 40
    assert {
        "exception",
        "import",
        "port",
        "disk",
        "nan",
        "memory",
        "cuda",
        "exit3",
        "hardexit",
        "oom",
        "node",
    } <= faults
    assert {"sigkill", "sigsegv", "sigabrt", "sigstop", "sleep", "deadlock", "shapes"} <= faults


def test_rank_node_and_kind_are_right_with_noise() -> None:
    shares = score(CORPUS)
    wrong = {name: share for name, share in shares.items() if share < 1}
    assert sum(shares.values()) / len(shares) >= LEAST, wrong


def test_noise_is_seeded_and_never_changes_what_was_recorded() -> None:
    before = [first_cause(each.seen) for each in CORPUS]
    assert [noisy(each, 3) for each in CORPUS] == [noisy(each, 3) for each in CORPUS]
    assert [first_cause(each.seen) for each in CORPUS] == before
    assert any(noisy(each, 3) != noisy(each, 4) for each in CORPUS)


def test_a_wrong_rank_or_node_is_not_counted_as_right() -> None:
    assert not any(is_right(each.case, None) for each in CORPUS)
    one = next(each for each in CORPUS if name_of(each.case) == "exception@forward, rank 3")
    told = [each for each in one.seen.statements if each.is_echo]
    assert told
    assert not is_right(one.case, first_cause(type(one.seen)(tuple(told), world_size=4)))


def test_the_page_has_the_figures() -> None:
    page = (ROOT / "docs" / "first-cause.md").read_text()
    assert [line for line in table(CORPUS) if line not in page] == []
