import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hw1.models import Cnn, Mlp, Rnn
from hw1.models.cnn import MaxPool, differentiated_once
from hw1.models.layers import ACTIVATIONS, scaled

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


# Sections and counts of spec/experiments.md.
MLPS = [
    ("1 sinc", 1, [5, 10, 10, 10, 10, 10, 5], 1, 571),
    ("1 sinc", 1, [10, 18, 15, 4], 1, 572),
    ("1 sinc", 1, [190], 1, 571),
    ("1 cos_sin", 1, [18, 24, 18], 1, 961),
    ("1 cos_sin", 1, [18, 20, 24], 1, 945),
    ("1 cos_sin", 1, [30, 14, 30], 1, 975),
    ("1 leaky", 1, [50, 25], 1, 1_401),
    ("1 leaky", 1, [467], 1, 1_402),
    ("1 mnist_mean", 784, [28, 64], 1, 23_901),
    ("3 default", 784, [256, 128], 10, 235_146),
    ("3 function", 1, [4, 8], 1, 57),
    ("5 smooth", 1, [6], 1, 19),
    ("6 deep", 784, [120, 120, 16], 10, 110_826),
    ("7 default", 784, [4, 8], 10, 3_270),
    ("7 default", 784, [8, 16], 10, 6_594),
    ("7 default", 784, [16, 32], 10, 13_434),
    ("7 default", 784, [32, 64], 10, 27_882),
    ("7 default", 784, [64, 128], 10, 59_850),
    ("7 default", 784, [100, 200], 10, 100_710),
    ("7 default", 784, [128, 256], 10, 136_074),
    ("7 default", 784, [200, 300], 10, 220_310),
    ("7 default", 784, [256, 400], 10, 307_770),
    ("7 default", 784, [256, 512], 10, 337_674),
    ("7 dnn", 784, [2, 5], 10, 1_645),
    ("7 dnn", 784, [800, 400], 10, 952_410),
    ("8 mlp", 784, [20, 40], 10, 16_950),
    ("9 mlp", 784, [20, 20], 10, 16_330),
]
DROPOUT = ["c3(10)", "p2", "c5(20)", "drop2d.5", "p3", 50, "drop"]
FILTERS = ["c5s(16)", "p2", "c5s(36)", "p2", 128]
CNNS = [
    ("1 mnist_mean", MNIST, ["c3(32)", "p2", 64], 1, 346_561),
    ("2 A", MNIST, ["c3(10)", "p2", "c3(16)", "p2", 512, 256, 125], 10, 371_581),
    ("2 B", MNIST, ["c5(32)", "c5(32)", "p2", "drop.5", "c5(64)", "p2", "drop.5", 256, "drop.5"], 10, 228_010),
    ("2 small", MNIST, ["c3(8)", "p2", "c3(18)", "p2", 18], 10, 9_702),
    ("2 small", MNIST, ["c4(6)", "p2", "c4(16)", "p2", 16, 14], 10, 6_154),
    ("2 dropout", MNIST, DROPOUT, 10, 14_680),
    ("2 dropout", MNIST, ["c3(10)", "p2", 50, "drop"], 10, 85_160),
    ("2 filters", MNIST, FILTERS, 10, 242_062),
    ("2 filters", MNIST, ["c5s(16)", "p2", "c5s(64)", "p2", 128], 10, 428_906),
    ("2 cifar10", CIFAR, ["c3s(32)", "drop.3", "c3s(32)", "p2", 512], 10, 4_210_090),
    ("2 cifar10", CIFAR, ["c3s(96)", "p2", "c3s(80)", "p2", "c3s(96)", "c3s(64)", 512], 10, 2_299_258),
    ("7 filters", MNIST, ["c5s(6)", "p2", 128], 10, 152_102),
    ("7 filters", MNIST, ["c5s(8)", "p2", 64], 10, 101_274),
    ("7 filters", MNIST, ["c5s(2)", "p4", 128], 10, 14_014),
    ("7 filters", MNIST, ["c5s(26)", "p2", "c5s(16)", "p2", 64], 10, 61_982),
    ("7 filters", MNIST, ["c5s(2)", "p7", 16], 10, 750),
    ("7 filters", MNIST, ["c5s(1)", "p9", 10], 10, 236),
    ("7 filters", MNIST, ["c3s(2)", "p9", 16], 10, 494),
    ("7 filters", MNIST, ["c5s(14)", "p2", "c5s(14)", "p4", 20], 10, 8_028),
    ("8 default", MNIST, ["c3(10)", "p2", "c3(16)", "p2", 32], 10, 14_718),
]


@pytest.mark.parametrize(("section", "inputs", "hidden", "outputs", "parameters"), MLPS)
def test_parameters_of_dense_nets(section, inputs, hidden, outputs, parameters):
    assert count(Mlp((inputs,), outputs, hidden=hidden)) == parameters


@pytest.mark.parametrize(("section", "in_shape", "layers", "outputs", "parameters"), CNNS)
def test_parameters_of_convolutional_nets(section, in_shape, layers, outputs, parameters):
    net = Cnn(in_shape, outputs, layers=layers)
    assert count(net) == parameters
    assert net(torch.zeros(2, *in_shape)).shape == (2, outputs)


def test_parameters_of_the_recurrent_net():
    assert count(Rnn(MNIST, 1, hidden=64)) == 6_081


@pytest.mark.parametrize("parameters", [753, 1_820, 5_865, 35_740, 117_460, 583_100, 1_481_770, 3_448_830, 11_245_450])
def test_width_reaches_the_sizes_of_section_7_nearly(parameters):
    with torch.device("meta"):
        widths = [k / 200 for k in range(10, 200)] + [k / 20 for k in range(20, 200)] + [k / 4 for k in range(40, 160)]
        nearest = min(
            (count(Cnn(MNIST, 10, layers=DROPOUT, width=w)) for w in widths), key=lambda n: abs(n - parameters)
        )
    assert abs(nearest - parameters) / parameters < 0.1


@pytest.mark.parametrize(
    ("net", "layers"),
    [
        (lambda width: Mlp((3,), 2, hidden=[10, 7], width=width), [nn.Linear]),
        (lambda width: Cnn((1, 9, 9), 2, layers=["c3(10)", "p2", "drop.5", 7], width=width), [nn.Conv2d, nn.Linear]),
    ],
)
@pytest.mark.parametrize(("width", "first", "second"), [(1, 10, 7), (2, 20, 14), (0.33, 3, 2), (0.01, 1, 1)])
def test_width_multiplies_hidden_sizes_alone(net, layers, width, first, second):
    found = [layer for layer in net(width).modules() if isinstance(layer, tuple(layers))]
    shapes = [(layer.weight.shape[1], layer.weight.shape[0]) for layer in found]
    if nn.Conv2d in layers:
        assert shapes == [(1, first), (first * 3 * 3, second), (second, 2)]
    else:
        assert shapes == [(3, first), (first, second), (second, 2)]


def test_width_of_the_recurrent_net():
    net = Rnn((1, 5, 4), 3, hidden=6, width=0.5, layers=2)
    assert net.recurrent.hidden_size == 3 and net.recurrent.input_size == 4 and net.head.out_features == 3
    assert Rnn((4,) * 3, 3, hidden=6, width=1e-3).recurrent.hidden_size == 1
    assert [scaled(10, 0.26), scaled(10, 0.24), scaled(3, 0.1)] == [3, 2, 1]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("leaky_relu", lambda x: torch.where(x > 0, x, 0.01 * x)),
        ("tanh", lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())),
        ("sigmoid", lambda x: 1 / (1 + (-x).exp())),
        ("softplus", lambda x: (1 + x.exp()).log()),
        ("silu", lambda x: x / (1 + (-x).exp())),
        ("elu", lambda x: torch.where(x > 0, x, x.exp() - 1)),
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
    ],
)
def test_activations_by_name(name, function):
    net, cnn = (
        Mlp((3,), 2, hidden=[5], activation=name).double(),
        Cnn((1, 3, 3), 2, layers=["c3(4)"], activation=name).double(),
    )
    x = torch.randn(7, 3, dtype=torch.float64)
    first, last = net[1], net[-1]
    hidden = function(x @ first.weight.T + first.bias)
    torch.testing.assert_close(net(x), hidden @ last.weight.T + last.bias)
    images = torch.randn(7, 1, 3, 3, dtype=torch.float64)
    hidden = function(images.flatten(1) @ cnn[0].weight.flatten(1).T + cnn[0].bias)
    torch.testing.assert_close(cnn(images), hidden @ cnn[-1].weight.T + cnn[-1].bias)
    assert name in ACTIVATIONS


def test_every_activation_is_tested():
    names = test_activations_by_name.pytestmark[0].args[1]
    assert {name for name, _ in names} == set(ACTIVATIONS)


@pytest.mark.parametrize(("activation", "function"), [("relu", F.relu), ("tanh", torch.tanh)])
@pytest.mark.parametrize("in_shape", [(2, 5, 3), (5, 3)])
def test_the_recurrent_net_reads_an_image_row_by_row(activation, function, in_shape):
    net = Rnn(in_shape, 2, hidden=4, activation=activation).double()
    images = torch.randn(6, *in_shape, dtype=torch.float64)
    weights = dict(net.recurrent.named_parameters())
    expected = []
    for image in images:
        channels = image if image.dim() == 3 else image[None]
        state = torch.zeros(4, dtype=torch.float64)
        for row in range(5):
            seen = torch.cat([channel[row] for channel in channels])
            inward = weights["weight_ih_l0"] @ seen + weights["bias_ih_l0"]
            state = function(inward + weights["weight_hh_l0"] @ state + weights["bias_hh_l0"])
        expected.append(net.head.weight @ state + net.head.bias)
    torch.testing.assert_close(net(images), torch.stack(expected))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 7, 9), (1, 1, 5, 11), (4, 6, 6), (1, 2, 3, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_max_pooling_without_gradients_is_max_pool2d_to_the_bit(size, shape, layout):
    x = torch.randn(shape).round(decimals=1)  # with ties
    x = x.to(memory_format=layout) if len(shape) == 4 else x
    with torch.no_grad():
        pooled = MaxPool(size)(x)
    assert torch.equal(pooled, F.max_pool2d(x, size))


def test_max_pooling_with_nan_and_infinities():
    x = torch.randn(1, 1, 6, 6)
    x[0, 0, 0, 0], x[0, 0, 2, 2], x[0, 0, 4, 4] = float("nan"), float("inf"), -float("inf")
    with torch.no_grad():
        torch.testing.assert_close(MaxPool(2)(x), F.max_pool2d(x, 2), rtol=0, atol=0, equal_nan=True)


def test_max_pooling_sends_the_gradient_of_a_tie_to_one_element():
    x = torch.ones(1, 1, 4, 4, requires_grad=True)
    MaxPool(2)(x).sum().backward()
    assert x.grad.sum() == 4 and sorted(x.grad.flatten().tolist()) == [0.0] * 12 + [1.0] * 4


def test_channels_last_changes_no_value():
    net = Cnn((3, 9, 9), 4, layers=["c3(5)", "bn", "p2", "c3s(6)", "drop2d", 7]).double().eval()
    x = torch.randn(6, 3, 9, 9, dtype=torch.float64)
    expected = net(x)
    net = net.to(memory_format=torch.channels_last)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), expected)


def test_batch_norm_stands_before_the_activation_of_its_layer():
    net = Cnn((1, 8, 8), 3, layers=["c3(4)", "bn", "p2", 5, "bn", "drop.1"])
    kinds = [type(layer) for layer in net]
    dense = [nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, MaxPool, *dense]
    assert net[1].num_features == 4 and net[6].num_features == 5


@pytest.mark.parametrize("channels_last", [False, True])
def test_pooling_ahead_of_a_relu_changes_no_bit(channels_last):
    net = Cnn((2, 12, 12), 3, layers=["c3(4)", "bn", "p2", "c3(5)", "p2", 6])
    x = torch.randn(50, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    if channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    seen, found = [], []
    hooks = [layer.register_forward_hook(lambda layer, *_: seen.append(type(layer))) for layer in net]
    for context in (contextlib.nullcontext(), differentiated_once(), torch.no_grad()):
        seen.clear()
        with context:
            outputs = net.eval()(x)
        assert seen[2:4] == ([nn.ReLU, MaxPool] if not found else [MaxPool, nn.ReLU])
        gradients = torch.autograd.grad(outputs.square().mean(), list(net.parameters())) if len(found) < 2 else ()
        found.append([outputs, *gradients])
    assert all(torch.equal(one, two) for one, two in zip(found[0], found[1], strict=True))
    assert torch.equal(found[0][0], found[2][0]) and len(hooks) == len(list(net))


@pytest.mark.parametrize(
    ("token", "kind", "probability"),
    [
        ("drop", nn.Dropout, 0.5),
        ("drop.25", nn.Dropout, 0.25),
        ("drop0.3", nn.Dropout, 0.3),
        ("drop2d", nn.Dropout2d, 0.5),
        ("drop2d.1", nn.Dropout2d, 0.1),
        ("drop2d0.2", nn.Dropout2d, 0.2),
    ],
)
def test_dropout_tokens(token, kind, probability):
    layer = Cnn((1, 4, 4), 2, layers=["c3(2)", token])[2]
    assert type(layer) is kind and layer.p == probability


def test_dropout_of_dense_nets_follows_every_hidden_layer():
    net = Mlp((2,), 1, hidden=[3, 4], dropout=0.2)
    kinds = [nn.Flatten, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in net] == kinds and net[3].p == 0.2
    assert not any(isinstance(layer, nn.Dropout) for layer in Mlp((2,), 1, hidden=[3]))


@pytest.mark.parametrize(("token", "size"), [("c3(2)", 5), ("c3s(2)", 7), ("c5(2)", 3), ("c5s(2)", 7), ("p3", 2)])
def test_sizes_that_a_token_leaves(token, size):
    layers = ["c1(2)", token] if token[0] == "p" else [token]
    assert Cnn((1, 7, 7), 1, layers=layers)[-1].in_features == 2 * size * size


CNN, MLP, RNN = (
    lambda **settings: Cnn((1, 6, 6), 2, **{"layers": ["c3(2)"]} | settings),
    lambda **settings: Mlp((2,), 2, **{"hidden": [3]} | settings),
    lambda **settings: Rnn((1, 6, 6), 2, **{"hidden": 3} | settings),
)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (MLP, {"hidden": [3, 0]}, "hidden: got [3, 0], expected positive sizes"),
        (MLP, {"hidden": [-1]}, "hidden: got [-1], expected positive sizes"),
        (MLP, {"width": 0}, "width: got 0, expected a number above 0"),
        (MLP, {"width": float("nan")}, "width: got nan, expected"),
        (CNN, {"width": float("inf")}, "width: got inf, expected"),
        (RNN, {"width": -1.0}, "width: got -1.0, expected"),
        (MLP, {"dropout": 1.0}, "dropout: got 1.0, expected a probability"),
        (MLP, {"dropout": -0.1}, "dropout: got -0.1, expected a probability"),
        (MLP, {"activation": "rellu"}, "activation: got 'rellu', expected one of elu, "),
        (CNN, {"activation": "rellu"}, "activation: got 'rellu', expected one of elu, "),
        (RNN, {"activation": "gelu"}, "activation: got 'gelu', expected relu or tanh"),
        (RNN, {"hidden": 0}, "hidden: got [0], expected"),
        (RNN, {"layers": 0}, "layers: got 0, expected a positive integer"),
        (CNN, {"layers": ["c3"]}, "layers: got 'c3' in ['c3']: expected c3(10), c5s(16), p2, "),
        (CNN, {"layers": ["c0(3)"]}, "layers: got 'c0(3)' in ['c0(3)']: expected c3(10), c5s(16), p2, "),
        (CNN, {"layers": ["c3(0)"]}, "layers: got 'c3(0)' in ['c3(0)']: expected c3(10), c5s(16), p2, "),
        (CNN, {"layers": [0]}, "layers: got 0 in [0]: expected c3(10), c5s(16), p2, "),
        (CNN, {"layers": ["p0"]}, "layers: got 'p0' in ['p0']: expected c3(10), c5s(16), p2, "),
        (CNN, {"layers": ["drop1"]}, "layers: got 'drop1' in ['drop1']: expected c3(10), c5s(16), p2, "),
        (CNN, {"layers": [True]}, "layers: got True in [True]: expected c3(10), c5s(16), p2, "),
        (CNN, {"layers": ["bn"]}, "layers: got 'bn' in ['bn']: bn must follow"),
        (CNN, {"layers": ["c3(2)", "p2", "bn"]}, "layers: got 'bn' in "),
        (CNN, {"layers": [4, "c3(2)"]}, "layers: got 'c3(2)' in [4, 'c3(2)']: a convolution after a dense layer"),
        (CNN, {"layers": [4, "p2"]}, "layers: got 'p2' in [4, 'p2']: a pooling after a dense layer"),
        (CNN, {"layers": ["c7(2)"]}, "layers: 'c7(2)' leaves nothing of the image (1, 6, 6)"),
        (CNN, {"layers": ["p7"]}, "layers: 'p7' leaves nothing of the image (1, 6, 6)"),
    ],
)
def test_bad_values_are_refused_by_name(make, settings, message):
    with pytest.raises(ValueError) as caught:
        make(**settings)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [lambda s: Cnn(s, 2, layers=[]), lambda s: Rnn(s, 2, hidden=3)])
def test_vectors_are_no_images(make):
    with pytest.raises(ValueError, match=r"^in_shape: got \(784,\), expected an image .*: choose model=mlp$"):
        make((784,))


def test_no_hidden_layer_is_a_linear_model():
    x = torch.randn(4, 1, 3, 3)
    for net in (Mlp((1, 3, 3), 2, hidden=[]), Cnn((1, 3, 3), 2, layers=[])):
        torch.testing.assert_close(net(x), x.flatten(1) @ net[-1].weight.T + net[-1].bias)
