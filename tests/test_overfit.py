"""A few steps on a few pictures make better what a term of a loss is there to make better."""

import pytest
from overfit import CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_a_term_does_what_it_is_for(name: str):
    CHECKS[name]()
