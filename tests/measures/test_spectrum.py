import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load
from subjects import broken, function, subject_of, train

from hw1.data import Digits
from hw1.measures import Spectrum
from hw1.measures.spectrum import DENSITY
from hw1.models import Mlp
from hw1.vectors import ParamSpace

SETTINGS = {"examples": None, "probes": 20, "steps": 19, "seed": None}


def test_it_agrees_with_all_eigenvalues():
    nets = [train(Mlp((1,), 1, hidden=[6], activation="tanh"), function(), steps=20) for _ in range(2)]
    subject = subject_of(nets, function())
    found = Spectrum(**SETTINGS).take(subject, {})
    assert set(found.values) == set(Spectrum.columns)
    x, y = (tensor.double() for tensor in subject.data.train_tensors)
    density = load(found.files[DENSITY])
    assert density["nodes"].shape == density["weights"].shape == (2, 20, 19)
    for member, net in enumerate(nets):
        exact, space = net.double(), ParamSpace.of(net)
        theta = space.flatten({name: p.detach() for name, p in exact.named_parameters()})

        def value(t, exact=exact, space=space):
            return F.mse_loss(torch.func.functional_call(exact, space.unflatten(t), (x,)), y)

        values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, theta))
        assert found.values["spectrum/largest"][member] == pytest.approx(values[-1].item(), rel=1e-3)
        assert found.values["spectrum/smallest"][member] >= values[0].item() - 1e-5 * values[-1].item()
        error = found.values["spectrum/mean_standard_error"][member]
        assert found.values["spectrum/mean"][member] == pytest.approx(values.mean().item(), abs=4 * error + 1e-6)
        weights = density["weights"][member]
        assert torch.allclose(weights.sum(1), torch.ones(20).double(), atol=1e-6)


@pytest.mark.parametrize("how", ["weights", "loss"])
def test_a_member_that_diverged_does_not_cost_the_others_theirs(how):
    nets = [Mlp((1,), 1, hidden=[6], activation="tanh") for _ in range(2)]
    without = Spectrum(**SETTINGS).take(subject_of(nets, function()), {})
    three = [nets[0], broken(Mlp((1,), 1, hidden=[6], activation="tanh"), how), nets[1]]
    found = Spectrum(**SETTINGS).take(subject_of(three, function()), {})
    for name, values in found.values.items():
        assert [values[0], values[2]] == without.values[name] and math.isnan(values[1]), name
    density, alone = load(found.files[DENSITY]), load(without.files[DENSITY])
    assert all(torch.equal(density[name][[0, 2]], alone[name]) for name in ("nodes", "weights"))
    assert density["nodes"][1].isnan().all() and not density["weights"][1].any()
    lost = Spectrum(**SETTINGS).take(subject_of([three[1]], function()), {})
    assert load(lost.files[DENSITY])["nodes"].shape == (1, 20, 19)


def test_a_part_of_the_training_set_is_the_seeds():
    net = Mlp((1, 8, 8), 10, hidden=[4])

    def largest(seed=0, **changes):
        settings = SETTINGS | {"probes": 2, "examples": 30} | changes
        return Spectrum(**settings).take(subject_of([net], Digits(), train_size=100, seed=seed), {}).values

    assert largest() == largest() != largest(seed=1) and largest(seed=1) == largest(**{"seed": 1})


@pytest.mark.parametrize(("name", "value"), [("examples", 0), ("probes", 1), ("steps", 1)])
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: got {value}, expected"):
        Spectrum(**SETTINGS | {name: value})
