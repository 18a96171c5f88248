"""The two directions on two threads are the same scan."""

import pytest
import torch

from lyra.student.mamba2 import MambaBlock


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("tokens", [7, 16, 24, 37, 80])
def test_two_threads_change_nothing(tokens: int):
    block = MambaBlock(32, 8).double()
    x = torch.randn(2, tokens, 32, dtype=torch.float64)
    whole = block(x)  # in a graph, all at once
    in_graph = block.forward_by_segments(x, segment=8)
    with torch.no_grad():
        threaded = block.forward_by_segments(x, segment=8)
    assert torch.allclose(threaded, whole, atol=1e-10)
    assert torch.allclose(threaded, in_graph, atol=1e-12)
    assert not threaded.requires_grad
    with torch.inference_mode():
        assert torch.equal(block.forward_by_segments(x, segment=8), threaded)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_a_thread_is_raised_and_the_threads_come_back(monkeypatch: pytest.MonkeyPatch):
    block = MambaBlock(32, 8)
    monkeypatch.setattr("lyra.student.mamba2.scan_segment", lambda *arguments: 1 / 0)
    with torch.no_grad(), pytest.raises(ZeroDivisionError):
        block.forward_by_segments(torch.randn(1, 24, 32), segment=8)
    assert torch.get_num_threads() == 2
