import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import pytest
import torch
from torch import nn

from hw1.settings import construct
from hw1.settings.construct import call, check_setting, takes, target_of
from hw1.settings.identity import ConfigError

HERE = __name__
LINEAR = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}


class Thing:
    """Something that a config node can name."""

    def __init__(
        self,
        size: int,
        rate: float = 1.0,
        name: str = "x",
        sizes: Sequence[int] = (),
        limit: int | None = None,
        kind: Literal["a", "b"] = "a",
        part: object = None,
    ) -> None:
        if size < 0:
            raise ValueError(f"size: got {size}, expected at least 0")
        if rate < 0:
            raise ValueError(f"Invalid rate: {rate}")
        if name == "os":
            raise OSError("cannot\nopen   it")
        if name == "bug":
            raise ZeroDivisionError("not a matter of settings")
        self.size, self.rate, self.name, self.sizes, self.limit, self.part = size, rate, name, sizes, limit, part

    @classmethod
    def made(cls, size: int, **others: object) -> "Thing":
        return cls(size, **others)


class Open:
    """Takes anything."""

    def __init__(self, first: int, **others: object) -> None:
        self.first, self.others = first, others


def node(**values):
    return {"_target_": f"{HERE}.Thing", **values}


def refused(*arguments, **given):
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **given)
    assert "\n" not in str(caught.value), "one line"
    return str(caught.value)


def test_values_reach_the_constructor():
    thing = call(node(size=3, rate=2, sizes=[1, 2], limit=None), "thing", part="given")
    assert (thing.size, thing.rate, thing.sizes, thing.limit, thing.part) == (3, 2, [1, 2], None, "given")
    assert call({"_target_": f"{HERE}.Open", "first": 1, "second": "b"}, "open").others == {"second": "b"}


def test_nested_nodes_come_first():
    thing = call(node(size=1, part=node(size=2, part=node(size=3))), "thing")
    assert thing.part.part.size == 3
    message = refused(node(size=1, part=node(size=2, part=node(size=-3))), "thing")
    assert message == "thing.part.part.size: got -3, expected at least 0"
    assert refused(node(size=1, part=node(sise=2)), "thing").startswith("thing.part.sise: no such setting of ")


def test_nodes_by_name_become_a_dict_of_objects():
    thing = call(node(size=1, part={"a": node(size=2), "b": node(size=3)}), "thing")
    assert {name: part.size for name, part in thing.part.items()} == {"a": 2, "b": 3}
    message = refused(node(size=1, part={"a": node(size=2), "b": node(size=-3)}), "thing")
    assert message == "thing.part.b.size: got -3, expected at least 0"
    message = refused(node(size=1, part={"a": node(sise=2)}), "thing")
    assert message.startswith("thing.part.a.sise: no such setting of ")
    assert call(node(size=1, part={}), "thing").part == {}


def test_nodes_are_built_at_any_depth():
    deep = {"a": [1, node(size=2), {"b": [node(size=3)]}], "c": 4}
    part = call(node(size=1, part=deep), "thing").part
    assert (part["a"][0], part["a"][1].size, part["a"][2]["b"][0].size, part["c"]) == (1, 2, 3, 4)
    assert refused(node(size=1, part=[node(size=1), [node(sise=2)]]), "thing").startswith(
        "thing.part.1.0.sise: no such"
    )
    made = call({"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.Flatten"}, LINEAR]}, "model")
    assert [type(layer) for layer in made] == [nn.Flatten, nn.Linear]
    assert call({"_target_": "fractions.Fraction", "_args_": [1, 2]}, "x") == Fraction(1, 2)
    assert refused({"_target_": "torch.nn.Sequential", "_args_": 3}, "model").startswith("model._args_: got 3")
    ready = call(node(_partial_=True, part=[node(size=2)]), "thing")
    assert ready(size=5).part[0].size == 2


def test_only_what_a_signature_names_is_taken():
    assert takes(Thing, "size") and takes(Thing.made, "size") and takes(functools.partial(Thing, 1), "rate")
    assert takes(Open, "first") and not takes(Open, "second") and not takes(Open, "others")
    assert call({"_target_": f"{HERE}.Thing.made", "size": 2}, "thing").size == 2


def test_a_partial_is_not_called_yet():
    make = call(node(size=-1, _partial_=True), "thing")
    assert isinstance(make, functools.partial)
    with pytest.raises(ValueError):
        make()
    assert make(size=2).size == 2


def test_an_unknown_setting():
    message = refused(node(size=1, sise=2), "thing", part="given")
    known = "size, rate, name, sizes, limit, kind"
    assert message == f"thing.sise: no such setting of {HERE}.Thing; expected one of: {known}"


def test_a_missing_setting():
    assert refused(node(rate=1.0), "thing") == f"thing.size: missing; {HERE}.Thing needs it"
    assert call(node(), "thing", size=1).size == 1


def test_a_setting_that_hw1_gives_itself():
    assert refused(node(size=1), "thing", size=2) == "thing.size: got 1, but hw1 sets it itself; remove it"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "3"}, "thing.size: got '3', expected an integer"),
        ({"size": 3.0}, "thing.size: got 3.0, expected an integer"),
        ({"size": None}, "thing.size: got None, expected an integer"),
        ({"size": True}, "thing.size: got True, expected an integer"),
        ({"size": 1, "rate": "fast"}, "thing.rate: got 'fast', expected a number"),
        ({"size": 1, "rate": False}, "thing.rate: got False, expected a number"),
        ({"size": 1, "name": 3}, "thing.name: got 3, expected text"),
        ({"size": 1, "sizes": 3}, "thing.sizes: got 3, expected a list"),
        ({"size": 1, "sizes": [1, "b"]}, "thing.sizes: got [1, 'b'], expected a list"),
        ({"size": 1, "limit": "b"}, "thing.limit: got 'b', expected an integer or null"),
        ({"size": 1, "limit": True}, "thing.limit: got True, expected an integer or null"),
        ({"size": 1, "kind": "c"}, "thing.kind: got 'c', expected one of a, b"),
    ],
)
def test_a_value_of_another_type(values, message):
    assert refused(node(**values), "thing") == message


def test_booleans_are_no_numbers_inside_a_list_either():
    assert refused(node(size=1, sizes=[1, True]), "thing").startswith("thing.sizes: got [1, True], expected ")


def test_whole_numbers_are_numbers_and_truth_values_are_truth_values():
    check_setting("key", 1, float)
    check_setting("key", True, bool)
    with pytest.raises(ConfigError, match=r"^key: got 1, expected true or false$"):
        check_setting("key", 1, bool)


@pytest.mark.parametrize(
    ("optimizer", "values", "start"),
    [
        ("Adam", {"lr": "fast"}, "optimizer.lr: got 'fast', expected a number"),
        ("Adam", {"lr": True}, "optimizer.lr: got True, expected a number"),
        ("Adam", {"lr": -1.0}, "optimizer: Invalid learning rate: -1.0 (got lr=-1.0)"),
        ("Adam", {"lrr": 1.0}, "optimizer.lrr: no such setting of torch.optim.Adam; expected one of: lr, betas, eps,"),
        ("SGD", {"lr": 0.1, "nesterov": True}, "optimizer: Nesterov momentum requires a momentum"),
        ("SGD", {"momentum": "much"}, "optimizer.momentum: got 'much', expected a number"),
    ],
)
def test_settings_of_torch_optimizers(optimizer, values, start):
    parameters = [nn.Parameter(torch.zeros(1))]
    message = refused({"_target_": f"torch.optim.{optimizer}", **values}, "optimizer", params=parameters)
    assert message.startswith(start)


def test_refusals_of_the_constructor_name_the_key():
    assert refused(node(size=-1), "thing") == "thing.size: got -1, expected at least 0"
    assert refused(node(size=1, rate=-2.0), "thing") == "thing: Invalid rate: -2.0 (got size=1, rate=-2.0)"
    assert refused(node(size=1, name="os"), "thing") == "thing: cannot open it (got size=1, name=os)"
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        call(node(size=1, name="bug"), "thing")


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("hw1.nowhere.Thing", "which cannot be imported"),
        ("nowhere.Thing", "which cannot be imported"),
        (f"{HERE}.Nothing", "which cannot be imported"),
        ("", ""),
        ("torch", ""),  # a module
        ("hw1.studies.flatness_interp.SPLITS", ""),  # a value
    ],
)
def test_a_target_that_cannot_be_called(target, part):
    message = refused({"_target_": target}, "thing")
    assert message.startswith(f"thing._target_: got {target}") and part in message


def test_of_many_settings_the_closest_is_named():
    message = refused({"_target_": "lightning.Trainer", "max_epoch": 3}, "trainer")
    assert message.startswith("trainer.max_epoch: no such setting of lightning.Trainer; expected one of: ")
    assert message.endswith(" (did you mean max_epochs?)")


def test_a_name_in_place_of_a_node_is_shown_as_one():
    with pytest.raises(ConfigError, match=r"^task: got 'mine\.Task', expected 'task=\{_target_: mine\.Task\}'$"):
        target_of("mine.Task", "task")


def test_an_import_that_fails_is_not_printed_besides(capfd):
    refused({"_target_": "hw1.nowhere.Thing"}, "thing")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("broken", [None, "mlp", 3, {}, {"lr": 1}, {"_target_": 3}])
def test_no_target(broken):
    expected = f"model: got {broken!r}, expected a group option with a _target_"
    with pytest.raises(ConfigError) as caught:
        call(broken or {}, "model") if isinstance(broken, dict) else construct.target_of(broken, "model")
    assert str(caught.value) == expected


def generous(function):
    """A decorator that takes one setting more."""

    @functools.wraps(function)
    def wrapper(*arguments, extra=None, **others):
        made = function(*arguments, **others)
        made.extra = extra
        return made

    return wrapper


@generous
def decorated(size: int) -> Thing:
    return Thing(size)


def test_what_a_decorator_takes_besides_is_a_setting_too():
    assert call({"_target_": f"{HERE}.decorated", "size": 2, "extra": 3}, "thing").extra == 3
    message = refused({"_target_": f"{HERE}.decorated", "size": 2, "sise": 3}, "thing")
    assert message == f"thing.sise: no such setting of {HERE}.decorated; expected one of: size"
