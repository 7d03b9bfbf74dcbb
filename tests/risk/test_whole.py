import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hw1.landscape import WholeSet
from hw1.models import Cnn, Mlp
from hw1.vectors import ParamSpace

N = 103


def flat(net):
    return torch.cat([parameter.detach().reshape(-1) for parameter in net.parameters()])


def images(count=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.randint(0, 3, (count,), generator=generator)


def test_it_is_the_mean_over_all_examples_one_by_one_with_dropout_off():
    net = Cnn((1, 8, 8), 3, layers=["c3(4)", "p2", "drop2d", 6, "drop"], activation="tanh").double().train()
    x, y = images()
    losses, hits = [], []
    conv, dense, last = net[0], net[5], net[8]
    for image, label in zip(x, y, strict=True):
        hidden = F.conv2d(image[None], conv.weight, conv.bias).tanh()
        hidden = F.max_pool2d(hidden, 2).flatten() @ dense.weight.T + dense.bias
        logits = hidden.tanh() @ last.weight.T + last.bias
        losses.append((logits.logsumexp(0) - logits[label]).item())
        hits.append(float(logits.argmax() == label))
    risk = WholeSet(net, F.cross_entropy, x, y, batch_size=25)  # a last batch of 3
    loss, accuracy = risk(flat(net)).tolist()
    assert risk.columns == ("loss", "accuracy")
    assert loss == pytest.approx(sum(losses) / N, rel=1e-12)
    assert accuracy == pytest.approx(sum(hits) / N, rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 25, 103, 1000])
def test_the_batch_size_changes_nothing(batch_size):
    net = Mlp((1, 8, 8), 3, hidden=[5]).double()
    x, y = images()
    whole = F.cross_entropy(net(x), y).item()
    assert WholeSet(net, F.cross_entropy, x, y, batch_size=batch_size)(flat(net))[0].item() == pytest.approx(
        whole, 1e-12
    )


def test_theta_decides_not_the_module():
    net, other = (Mlp((1, 8, 8), 3, hidden=[5]).double() for _ in range(2))
    x, y = images()
    risk = WholeSet(net, F.cross_entropy, x, y)
    assert risk(flat(other))[0].item() == pytest.approx(F.cross_entropy(other(x), y).item(), rel=1e-12)
    with torch.no_grad():
        net[1].weight.zero_()  # the caller may go on with the module
    assert risk(flat(other))[0].item() == pytest.approx(F.cross_entropy(other(x), y).item(), rel=1e-12)


def test_regression_has_a_loss_alone():
    net = Mlp((2,), 1, hidden=[4]).double()
    x, y = torch.randn(11, 2, dtype=torch.float64), torch.randn(11, 1, dtype=torch.float64)
    risk = WholeSet(net, F.mse_loss, x, y, batch_size=4)
    assert risk.columns == ("loss",)
    values = risk(flat(net))
    assert values.shape == (1,) and values.dtype == torch.float64
    assert values.item() == pytest.approx((net(x) - y).square().mean().item(), rel=1e-12)


def test_float32_nets_are_summed_in_float64():
    net = Mlp((1, 8, 8), 3, hidden=[5])
    x, y = images()
    value = WholeSet(net, F.cross_entropy, x.float(), y, batch_size=10)(flat(net))
    assert value.dtype == torch.float64
    double = copy.deepcopy(net).double()
    assert value[0].item() == pytest.approx(F.cross_entropy(double(x), y).item(), rel=1e-6)


def test_tied_weights():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    net[2].weight = net[0].weight
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randint(0, 4, (9,))
    theta = torch.randn(ParamSpace.of(net).size, dtype=torch.float64)
    weight, one, two = theta[:16].reshape(4, 4), theta[16:20], theta[20:]
    expected = F.cross_entropy(torch.tanh(x @ weight.T + one) @ weight.T + two, y).item()
    assert WholeSet(net, F.cross_entropy, x, y, batch_size=4)(theta)[0].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("norm", [[], ["bn"]])
def test_the_callers_module_gradients_and_randomness_are_left_alone(norm):
    net = Cnn((1, 8, 8), 3, layers=["c3(4)", *norm, "p2", "drop", 5]).double().train()
    net[-1].eval()  # a mode of its own for one layer
    x, y = images()
    F.cross_entropy(net(x), y).backward()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    grads = [parameter.grad.clone() for parameter in net.parameters()]
    modes = [module.training for module in net.modules()]
    randomness = torch.get_rng_state()
    theta = (2 * flat(net)).requires_grad_()
    value = WholeSet(net, F.cross_entropy, x, y, batch_size=25, statistics_inputs=x)(theta)
    assert not value.requires_grad and torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), randomness)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(net.parameters(), grads, strict=True))
    assert all(parameter.requires_grad for parameter in net.parameters())


# --- kinds of targets


def binary_loss(outputs, y):
    return F.binary_cross_entropy_with_logits(outputs.reshape(y.shape), y.to(outputs))


@pytest.mark.parametrize("dtype", [torch.long, torch.float64])
@pytest.mark.parametrize("squeezed", [False, True])
def test_one_logit_is_right_on_its_side_of_0(dtype, squeezed):
    torch.manual_seed(0)
    net = Mlp((2,), 1, hidden=[4])
    net = (nn.Sequential(*net, nn.Flatten(0)) if squeezed else net).double()
    x, y = torch.randn(40, 2).double(), torch.randint(0, 2, (40,))
    right = ((net(x).flatten() > 0) == y.bool()).double().mean().item()
    assert right != pytest.approx((y == 0).double().mean().item())  # what the largest of one logit would say
    whole = WholeSet(net, binary_loss, x, y.to(dtype), batch_size=15, kind="binary")
    assert whole.columns == ("loss", "accuracy")
    assert whole(flat(net)).tolist() == pytest.approx([binary_loss(net(x), y).item(), right], rel=1e-12)
    unsaid = WholeSet(net, binary_loss, x, y.to(dtype))
    assert unsaid.columns == ("loss",) and unsaid(flat(net)).item() == pytest.approx(binary_loss(net(x), y).item())


@pytest.mark.parametrize("kind", [None, "tokens"])
def test_tokens_are_in_the_last_dimension(kind):
    torch.manual_seed(0)
    net, x, y = nn.Linear(4, 5).double(), torch.randn(20, 3, 4).double(), torch.randint(0, 5, (20, 3))
    whole = WholeSet(net, lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten()), x, y, batch_size=7, kind=kind)
    loss, right = F.cross_entropy(net(x).flatten(0, 1), y.flatten()), (net(x).argmax(-1) == y).double().mean()
    assert whole.columns == ("loss", "accuracy")
    assert whole(flat(net)).tolist() == pytest.approx([loss.item(), right.item()], rel=1e-12)


@pytest.mark.parametrize("kind", [None, "counts"])
def test_counts_are_not_classes(kind):
    net, x, y = nn.Linear(4, 1).double(), torch.randn(20, 4).double(), torch.randint(0, 9, (20, 1))
    whole = WholeSet(net, lambda o, t: F.poisson_nll_loss(o, t.to(o)), x, y, batch_size=7, kind=kind)
    expected = (net(x).exp() - y * net(x)).mean().item()
    assert whole.columns == ("loss",) and whole(flat(net)).item() == pytest.approx(expected, rel=1e-12)


def test_a_kind_that_outputs_do_not_have_is_refused():
    net, x, y = nn.Linear(2, 1).double(), torch.randn(40, 2).double(), torch.randint(0, 2, (40,))
    with pytest.raises(
        ValueError, match=r"^outputs: got \[2, 1\] for targets \[2\], expected several logits a target in "
    ):
        WholeSet(net, binary_loss, x, y, kind="classes")


# --- the loss


def test_counted_tokens_weigh_the_same_in_any_batching():
    torch.manual_seed(0)
    net, x, y = nn.Linear(4, 5).double(), torch.randn(20, 4).double(), torch.randint(0, 5, (20,))
    y[3:9] = -100
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).double()
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=weight)):
        for batch_size in (1, 7, 20):
            found = WholeSet(net, loss, x, y, batch_size=batch_size)(flat(net))
            right = (net(x).argmax(1) == y)[y >= 0].double().mean().item()
            assert found.tolist() == pytest.approx([loss(net(x), y).item(), right], rel=1e-12)


def test_a_sum_is_a_sum():
    net, (x, y) = Mlp((1, 8, 8), 3, hidden=[5]).double(), images()
    whole = WholeSet(net, nn.CrossEntropyLoss(reduction="sum"), x, y, batch_size=20)
    assert whole.reduction == "sum"
    assert whole(flat(net))[0].item() == pytest.approx(F.cross_entropy(net(x), y, reduction="sum").item(), rel=1e-12)
    assert WholeSet(net, F.cross_entropy, x, y).reduction == "mean"


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, y: F.cross_entropy(o, y, weight=torch.tensor([1.0, 5.0, 2.0]).to(o)),
        lambda o, y: F.cross_entropy(o, y, ignore_index=1),
        lambda o, y: F.cross_entropy(o, y).sqrt(),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 20, 200])
def test_what_is_no_mean_is_refused(loss, batch_size):
    net, (x, y) = Mlp((1, 8, 8), 3, hidden=[5]).double(), images()
    with pytest.raises(ValueError, match=r"^loss: got .* expected a mean over examples: "):
        WholeSet(net, loss, x[y.argsort()], y.sort().values, batch_size=batch_size)


def test_examples_that_influence_each_other_are_refused():
    class Centred(nn.Linear):
        def forward(self, x):
            return super().forward(x - x.mean(0))

    with pytest.raises(ValueError, match=r"^module: got .*expected independent examples"):
        WholeSet(Centred(2, 3), F.cross_entropy, torch.randn(20, 2), torch.randint(0, 3, (20,)))


@pytest.mark.parametrize("norm", [[], ["bn"]])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_the_module_s_own_parameters_need_not_be_finite(norm, value):
    good = Cnn((1, 8, 8), 3, layers=["c3(4)", *norm, "p2", 5]).double()
    bad, (x, y) = copy.deepcopy(good), images()
    for tensor in (*bad.parameters(), *(b for b in bad.buffers() if b.is_floating_point())):
        nn.init.constant_(tensor, value)
    expected = WholeSet(good, F.cross_entropy, x, y, statistics_inputs=x)(flat(good))
    whole = WholeSet(bad, F.cross_entropy, x, y, statistics_inputs=x)
    assert whole(flat(bad))[0].isnan()
    assert torch.equal(whole(flat(good)), expected)
    assert not bad[0].weight.isfinite().any()


def test_bad_sets_are_refused():
    net = Mlp((1, 8, 8), 3, hidden=[5]).double()
    x, y = images()
    with pytest.raises(ValueError, match=r"^inputs and targets: got 0 and 0 examples"):
        WholeSet(net, F.cross_entropy, x[:0], y[:0])
    with pytest.raises(ValueError, match=r"^inputs and targets: got 103 and 102 examples"):
        WholeSet(net, F.cross_entropy, x, y[1:])
    with pytest.raises(ValueError, match=r"^theta: got shape \[7\], expected"):
        WholeSet(net, F.cross_entropy, x, y)(torch.zeros(7, dtype=torch.float64))
