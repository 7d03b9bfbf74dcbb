"""Whether a network's outputs go with the data, seen on two examples before anything trains."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hw1.data import DataModule
from hw1.kinds import loss_of
from hw1.models.logits import OutputError, not_a_tensor
from hw1.risk.batchnorm import without_statistics
from hw1.risk.guard import line_of, random_state_kept
from hw1.settings import ConfigError
from hw1.settings.construct import parameters_of, target_of

_CPU = torch.device("cpu")
_CHANNELS = re.compile(r"expected input\[.*\] to have (\d+) channels, but got (\d+) channels")
_OUTPUTS = re.compile(r"(num|n)_?(class(es)?|labels?|outputs?)|out(put)?_?(features|size|dim|channels)|classes")
_EXAMPLES = 2  # one alone has no variance, which some layers take in evaluation mode too


def check_shapes(make: Callable[[], nn.Module], name: str, data: DataModule) -> nn.Module:
    """Refuse a network that does not take the data's inputs, or whose outputs do not go with its targets.

    In evaluation mode, on torch's meta device, which computes shapes and no numbers; on the CPU where a network cannot
    be made or evaluated there. The random state is what it was at the end.

    Args:
        make: () -> a network for these data.
        name: of its class or function, for messages.
        data: loaded.

    Returns:
        The network, on the meta device where it can be made there.

    Raises:
        ConfigError: names the model, what it gives, what is expected and the remedy.
    """
    x, y = data.examples_of("train", rows=torch.arange(_EXAMPLES) % data.sizes["train"])
    with random_state_kept(_CPU), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever a network warns of, it does when it trains
        net, outputs = _evaluated(make, name, x, data)
    if layer := without_statistics(net):
        raise ConfigError(
            f"model: got {name}, whose batch-norm {layer} keeps no running statistics, so that an evaluation depends "
            "on its batches; expected track_running_stats=True there"
        )
    _refuse_others(outputs, y, name, data)
    return net


def _evaluated(make: Callable[[], nn.Module], name: str, x: Tensor, data: DataModule) -> tuple[nn.Module, Any]:
    """The network, and its outputs for some inputs."""
    with torch.no_grad():
        if x.is_floating_point():  # tokens are looked up, and may be more than a table has
            try:
                with torch.device("meta"):
                    net = make().eval()
                    return net, net(x.to("meta"))
            except Exception:  # whatever cannot be done without numbers: they tell
                pass
        net = make().eval()
        if without_statistics(net):
            return net, x
        try:
            return net, net(x.clone())
        except OutputError as error:
            raise ConfigError(f"model: {name}: {error}: wrap it in a module of your own") from error
        except Exception as error:  # whatever the user's forward raises
            if channels := _CHANNELS.search(str(error)):
                wanted, there = channels.groups()
                remedy = (
                    f"a first layer for {there}, as in model=resnet, or dataset.channels={wanted} where there is one"
                )
                got = f"model: got {name}, which takes images of {wanted} channels, with {data.name} of {there}"
                raise ConfigError(f"{got}; expected {remedy}") from error
            raise ConfigError(
                f"model: got {name}, which does not take inputs {_shown(tuple(x.shape))} of {x.dtype}: "
                f"{line_of(error)}; "
                f"expected a network for these data{', as model=gpt' if data.kind == 'tokens' else ''}"
            ) from error


def _refuse_others(outputs: Any, targets: Tensor, name: str, data: DataModule) -> None:
    """Refuse outputs that do not go with the targets."""
    if not isinstance(outputs, Tensor):
        raise ConfigError(f"model: {name}: {not_a_tensor(outputs)}: wrap it in a module of your own")
    got, batch = tuple(outputs.shape), tuple(targets.shape)
    own_loss = data.loss is not loss_of(data.kind)
    number = data.out_features
    if data.kind == "classes":
        right = got[:1] + got[2:] == batch and got[1:2] == (number,)
        expected, place = f"[B, {', '.join(map(str, (number, *batch[1:])))}]", 1
    elif data.kind == "tokens":
        right = got == (*batch, number)
        expected, place = f"[B, {', '.join(map(str, (*batch[1:], number)))}]", len(got) - 1
    elif data.kind == "values":
        right = got == batch or (own_loss and got[:1] == batch[:1])
        expected, place = f"{_shown(batch)}", 1
    else:
        right = got in (batch, (*batch, 1)) or (own_loss and got[:1] == batch[:1])
        expected, place = f"{_shown(batch)} or {_shown((*batch, 1))}", -1
    if right:
        return
    counted = f"{data.kind} of {data.name}"
    remedy = "choose a model for them"
    if len(got) > place >= 0 and got[:place] + got[place + 1 :] == (batch if data.kind != "values" else batch[:1]):
        wanted = number if data.kind != "values" else batch[-1]
        remedy = _more_outputs(name, wanted)
    raise ConfigError(f"model: got {name} with outputs {_shown(got)}, expected {expected} for the {counted}: {remedy}")


def _more_outputs(name: str, wanted: int) -> str:
    """How a class or function is told its number of outputs."""
    parameters = parameters_of(target_of({"_target_": name}, "model"))
    if named := next((one for one in parameters if _OUTPUTS.fullmatch(one)), None):
        return f"give it {named}={wanted}"
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return f"give it num_classes={wanted}, or what it calls its number of outputs"
    return "its number of outputs is fixed, let it take out_features, which hw1 sets"


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(['B', *map(str, shape[1:])])}]"
