"""A loss that is wrong makes a test fail: the checks of ``test_overfit``, which hold for the losses as they are."""

import pytest
from mutants import CHANGES, TERMS, Term, is_killed, mutated
from overfit import CHECKS


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("term", TERMS, ids=lambda term: f"{term.function.__name__}: {term.code}")
def test_a_wrong_term_is_noticed(term: Term, change: str):
    assert is_killed(term, change)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("term", TERMS, ids=lambda term: f"{term.function.__name__}: {term.code}")
def test_every_term_has_a_mutant(term: Term, change: str):
    assert term.check in CHECKS
    with mutated(term, change):
        pass
