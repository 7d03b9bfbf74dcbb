"""What leaves the caller alone."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hw1.risk.guard import differentiable, modes_kept, own_copy, random_state_kept, twice_differentiable

CPU = torch.device("cpu")


def switches():
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"),
        torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled(),
    )  # fmt: skip


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")])
@pytest.mark.parametrize("guard", [differentiable, lambda device: twice_differentiable(device, nn.ReLU())])
def test_switches_are_the_guards_inside_and_the_callers_after(mode, guard):
    with mode():
        before = switches()
        with pytest.raises(KeyError), guard(CPU):
            inside = switches()
            raise KeyError
        assert switches() == before
    assert inside[:3] == (True, False, False)


def test_only_kernels_that_can_be_differentiated_twice():
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        before = switches()
        with twice_differentiable(CPU, nn.ReLU()):
            assert switches()[3:] == (False, True)
        assert switches() == before


def test_the_random_state_comes_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), random_state_kept(CPU):
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_modes_come_back_after_an_error():
    net = nn.Sequential(nn.Dropout(), nn.Dropout()).train()
    net[1].eval()
    with pytest.raises(KeyError), modes_kept(net):
        net.eval()
        raise KeyError
    assert [part.training for part in net.modules()] == [True, True, False]


def test_a_copy_can_be_written_to_wherever_it_was_made():
    net = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last).train()
    with torch.inference_mode():
        copied = own_copy(net)
    copied.weight.zero_()
    assert not copied.training and not any(p.requires_grad for p in copied.parameters())
    assert copied.weight.is_contiguous(memory_format=torch.channels_last)
    assert net.training and net.weight.requires_grad and net.weight.abs().max() > 0
