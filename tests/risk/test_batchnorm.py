import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hw1.landscape import WholeSet, has_batch_norm, recompute_statistics
from hw1.models import Cnn, Mlp
from hw1.vectors import ParamSpace

LAYERS = ["c3(4)", "bn", "p2", "drop2d", "c2(5)", "bn", 6, "bn", "drop"]


def net(layers=LAYERS):
    made = Cnn((1, 8, 8), 3, layers=layers, activation="tanh").double()
    for layer in made:
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5), nn.init.normal_(layer.bias)
    return made


def inputs(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=generator) + 1


def forward(module, x, statistics=None):
    """(outputs, statistics of each batch-norm layer), layer by layer: of `x` itself, or with given statistics."""
    found = []
    for layer in module:
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            axes = [0, *range(2, x.dim())]
            shape = [1, -1] + [1] * (x.dim() - 2)
            mean = x.mean(axes)
            squares = (x - mean.reshape(shape)).square().sum(axes)
            count = x.numel() // x.shape[1]
            found.append((mean, squares / (count - 1)))
            mean, variance = (mean, squares / count) if statistics is None else statistics[len(found) - 1]
            x = (x - mean.reshape(shape)) / (variance.reshape(shape) + layer.eps).sqrt()
            x = x * layer.weight.reshape(shape) + layer.bias.reshape(shape)
        elif not isinstance(layer, nn.Dropout | nn.Dropout2d):
            x = layer(x)
    return x, found


def norms(module):
    return [layer for layer in module if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]


def test_one_big_batch_gives_its_mean_and_unbiased_variance():
    module, x = net(), inputs(60)
    recompute_statistics(module, [x])
    _, expected = forward(module, x)
    for layer, (mean, variance) in zip(norms(module), expected, strict=True):
        torch.testing.assert_close(layer.running_mean, mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.running_var, variance, rtol=1e-12, atol=1e-12)


def test_equal_batches_weigh_the_same_and_old_statistics_are_forgotten():
    module, x = net(), inputs(60)
    for layer in norms(module):
        nn.init.constant_(layer.running_mean, 1e6), nn.init.constant_(layer.running_var, 1e6)
    recompute_statistics(module, x.split(20))
    parts = [forward(module, batch)[1] for batch in x.split(20)]
    for i, layer in enumerate(norms(module)):
        mean, variance = (torch.stack([part[i][j] for part in parts]).mean(0) for j in (0, 1))
        torch.testing.assert_close(layer.running_mean, mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.running_var, variance, rtol=1e-12, atol=1e-12)


def test_a_ragged_last_batch_weighs_what_it_holds():
    module, x = net(["c3(4)", "bn", 6]), inputs(50)
    x[-1] += 100  # one odd example, alone with nine others in the last batch
    recompute_statistics(module, x.split(20))
    hidden = module[0](x)
    torch.testing.assert_close(module[1].running_mean, hidden.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)


def test_whole_set_recomputes_at_every_theta():
    module, other = net().eval(), net()
    train, x = inputs(60), inputs(103, seed=1)
    y = torch.randint(0, 3, (103,), generator=torch.Generator().manual_seed(2))
    risk = WholeSet(module, F.cross_entropy, x, y, batch_size=70, statistics_inputs=train)
    space = ParamSpace.of(module)
    with torch.no_grad():
        for network in (module, other, module):
            _, statistics = forward(network, train)
            outputs, _ = forward(network, x, statistics)
            theta = space.flatten({name: value.detach() for name, value in network.named_parameters()})
            expected = [F.cross_entropy(outputs, y).item(), (outputs.argmax(1) == y).double().mean().item()]
            assert risk(theta).tolist() == pytest.approx(expected, rel=1e-10)


def test_training_inputs_take_the_module_s_dtype():
    module, x, y = net(), inputs(40), torch.zeros(40, dtype=torch.long)
    theta = ParamSpace.of(module).flatten({name: value.detach() for name, value in module.named_parameters()})
    single = WholeSet(module, F.cross_entropy, x.float(), y, statistics_inputs=x.float())(theta)
    double = WholeSet(module, F.cross_entropy, x.float().double(), y, statistics_inputs=x.float().double())(theta)
    assert torch.equal(single, double)


def test_a_last_batch_of_one_example_is_no_error():
    module = Cnn((1, 8, 8), 3, layers=[6, "bn"]).double()
    x, y = inputs(51), torch.zeros(51, dtype=torch.long)
    theta = ParamSpace.of(module).flatten({name: value.detach() for name, value in module.named_parameters()})
    assert WholeSet(module, F.cross_entropy, x, y, batch_size=25, statistics_inputs=x)(theta).isfinite().all()


def test_modes_momenta_and_randomness_are_left_and_dropout_stays_off():
    module, x = net().train(), inputs(40)
    module[2].eval()
    norms(module)[0].momentum, norms(module)[1].momentum = 0.3, None
    modes, randomness = [layer.training for layer in module.modules()], torch.get_rng_state()
    recompute_statistics(module, x.split(20))
    assert [layer.training for layer in module.modules()] == modes
    assert [layer.momentum for layer in norms(module)] == [0.3, None, 0.1]
    assert torch.equal(torch.get_rng_state(), randomness)  # a dropout that is on draws numbers
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())


def test_modes_and_momenta_are_restored_after_an_error():
    module = net().train()
    with pytest.raises(RuntimeError):
        recompute_statistics(module, [torch.zeros(2, 5, 8, 8, dtype=torch.float64)])
    assert all(layer.training for layer in module.modules())
    assert all(layer.momentum == 0.1 for layer in norms(module))


def test_it_is_refused_without_training_inputs():
    x, y = inputs(10), torch.zeros(10, dtype=torch.long)
    with pytest.raises(ValueError, match=r"^statistics_inputs: got None, expected training inputs: .* batch-norm$"):
        WholeSet(net(), F.cross_entropy, x, y)


def test_has_batch_norm():
    assert has_batch_norm(net()) and has_batch_norm(nn.Sequential(net()))
    assert not has_batch_norm(Mlp((2,), 1, hidden=[3]))
    assert not has_batch_norm(nn.BatchNorm1d(3, track_running_stats=False))
    assert not has_batch_norm(nn.LayerNorm(3))
