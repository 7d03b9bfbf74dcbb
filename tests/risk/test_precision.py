"""How float32 is multiplied: what is asked for inside, and the caller's settings afterwards, however they were made."""

import copy
import json
import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hw1.risk.nested import cast
from hw1.risk.precision import forward_in, multiplied_in, tolerance, without_cudnn

CPU = torch.device("cpu")
# Every public way of setting them, old and new, alone and against each other.
WAYS = {
    "untouched": "",
    "old highest": "torch.set_float32_matmul_precision('highest')",
    "old high": "torch.set_float32_matmul_precision('high')",
    "old medium": "torch.set_float32_matmul_precision('medium')",
    "old matmul on": "torch.backends.cuda.matmul.allow_tf32 = True",
    "old matmul off": "torch.backends.cuda.matmul.allow_tf32 = False",
    "old cudnn on": "torch.backends.cudnn.allow_tf32 = True",
    "old cudnn off": "torch.backends.cudnn.allow_tf32 = False",
    "old cudnn flags": "torch.backends.cudnn.flags(enabled=False).__enter__()",
    "cudnn set_flags": "torch.backends.cudnn.set_flags(_allow_tf32=False, _fp32_precision='tf32')",
    "root ieee": "torch.backends.fp32_precision = 'ieee'",
    "root tf32": "torch.backends.fp32_precision = 'tf32'",
    "root bf16": "torch.backends.fp32_precision = 'bf16'",
    "root none": "torch.backends.fp32_precision = 'none'",
    "root by flags": "torch.backends.flags(fp32_precision='tf32').__enter__()",
    "cudnn ieee": "torch.backends.cudnn.fp32_precision = 'ieee'",
    "cudnn tf32": "torch.backends.cudnn.fp32_precision = 'tf32'",
    "cudnn conv": "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "cudnn conv none": "torch.backends.cudnn.conv.fp32_precision = 'none'",
    "cudnn rnn": "torch.backends.cudnn.rnn.fp32_precision = 'ieee'",
    "matmul tf32": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "matmul ieee": "torch.backends.cuda.matmul.fp32_precision = 'ieee'",
    "mkldnn": "torch.backends.mkldnn.fp32_precision = 'bf16'",
    "mkldnn set_flags": "torch.backends.mkldnn.set_flags(_fp32_precision='bf16')",
    "mkldnn matmul": "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "mkldnn conv": "torch.backends.mkldnn.conv.fp32_precision = 'tf32'",
    "mkldnn rnn": "torch.backends.mkldnn.rnn.fp32_precision = 'ieee'",
    "old then new": "torch.set_float32_matmul_precision('high'); torch.backends.cuda.matmul.fp32_precision = 'ieee'",
    "new then old": "torch.backends.cuda.matmul.fp32_precision = 'ieee'; torch.backends.cuda.matmul.allow_tf32 = True",
    "each its own": """
        torch.backends.fp32_precision = 'bf16'
        torch.backends.cudnn.fp32_precision = 'ieee'
        torch.backends.cudnn.conv.fp32_precision = 'tf32'
        torch.backends.mkldnn.set_flags(_fp32_precision='tf32')
        torch.backends.mkldnn.rnn.fp32_precision = 'bf16'
        torch.backends.cuda.matmul.allow_tf32 = True
    """,
}
# Readings by public names alone; then each again while a parent is another: that tells what follows it. One process
# imports torch and is forked for every way, with and without our context.
PROGRAM = """
import json, os, sys, textwrap, traceback
import torch
from hw1.risk.precision import multiplied_in
b = torch.backends


def leaves():
    return (
        b.cuda.matmul.fp32_precision, b.cudnn.conv.fp32_precision, b.cudnn.rnn.fp32_precision,
        b.mkldnn.matmul.fp32_precision, b.mkldnn.conv.fp32_precision, b.mkldnn.rnn.fp32_precision,
    )


def read(get):
    try:
        return get()
    except RuntimeError as error:
        return str(error)


def readable():
    return (
        leaves(), b.fp32_precision, b.cudnn.fp32_precision, b.mkldnn.fp32_precision,
        read(torch.get_float32_matmul_precision), read(lambda: b.cuda.matmul.allow_tf32),
        read(lambda: b.cudnn.allow_tf32), b.mkldnn.allow_tf32, b.cudnn.enabled, b.mkldnn.enabled,
    )


def state():
    found = [readable()]
    for other in ("none", "ieee", "tf32", "bf16"):
        root, b.fp32_precision = b.fp32_precision, other
        found.append(readable())
        b.fp32_precision = root
    return found


def held():
    # at the end only: what the parents held is lost
    found = [state()]
    for other in ("none", "ieee", "tf32"):
        b.cudnn.fp32_precision = other
        found.append(state())
        b.mkldnn.set_flags(_fp32_precision=other)
        found.append(state())
    return found


def enter():
    before = state()
    for precision, expected in (("ieee", "ieee"), ("tf32", "tf32"), ("bfloat16", "ieee")):
        with multiplied_in(precision):
            assert leaves() == (expected,) * 6, (precision, leaves())
            with multiplied_in("tf32"):
                assert leaves() == ("tf32",) * 6
            assert leaves() == (expected,) * 6
        assert state() == before, precision
        try:
            with multiplied_in(precision):
                raise KeyError
        except KeyError:
            assert state() == before
        else:
            raise AssertionError


def forked(way, entered):
    out, into = os.pipe()
    if os.fork() == 0:
        os.close(out)
        try:
            exec(textwrap.dedent(way))
            if entered:
                enter()
            answer = held()
        except BaseException:
            answer = traceback.format_exc()
        with os.fdopen(into, "w") as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as file:
        answer = json.load(file)
    os.wait()
    return answer


ways = json.load(sys.stdin)
print(json.dumps({name: [forked(way, True), forked(way, False)] for name, way in ways.items()}))
"""


@pytest.fixture(scope="module")
def held():
    """way -> what can be read at the end, of a process that entered our context and of one that did not."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=json.dumps(WAYS), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fresh process for each way would take minutes")
@pytest.mark.parametrize("way", WAYS)
def test_inside_what_is_asked_and_afterwards_as_before_however_it_was_set(held, way):
    entered, not_entered = held[way]
    assert isinstance(not_entered, list), not_entered
    assert entered == not_entered


def leaves():
    b = torch.backends
    return {
        "cuda.matmul": b.cuda.matmul, "cudnn.conv": b.cudnn.conv, "cudnn.rnn": b.cudnn.rnn,
        "mkldnn.matmul": b.mkldnn.matmul, "mkldnn.conv": b.mkldnn.conv, "mkldnn.rnn": b.mkldnn.rnn,
    }  # fmt: skip


def test_an_unknown_precision_is_refused_before_anything_is_set():
    before = {name: leaf.fp32_precision for name, leaf in leaves().items()}
    with pytest.raises(ValueError, match=r"precision: got 'float16', expected .*: "), multiplied_in("float16"):
        pass
    with pytest.raises(ValueError, match="precision: got 'float16'"), forward_in("float16", CPU):
        pass
    with pytest.raises(ValueError, match="precision: got 'high'"):
        tolerance(torch.float32, "high")
    assert {name: leaf.fp32_precision for name, leaf in leaves().items()} == before


# Not cudnn's leaves, whose initial state a test could not restore.
@pytest.mark.parametrize("name", ["cuda.matmul", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"])
def test_another_precision_that_is_left_inside_is_noticed(name):
    leaf = leaves()[name]
    before = {name: leaf.fp32_precision for name, leaf in leaves().items()}
    assert before[name] == "none"
    try:
        noticed = r"precision: got 'tf32' for (cuda|mkldnn)\.\w+ at the end, expected 'ieee'"
        with pytest.raises(ValueError, match=noticed), multiplied_in("ieee"):
            leaf.fp32_precision = "tf32"
        leaf.fp32_precision = "none"
        with pytest.raises(KeyError), multiplied_in("ieee"):  # an error passes as it is
            leaf.fp32_precision = "tf32"
            raise KeyError
    finally:
        leaf.fp32_precision = "none"
    assert {name: leaf.fp32_precision for name, leaf in leaves().items()} == before


def test_the_setting_is_the_processs_so_that_autograds_threads_see_it():
    seen = []

    def look():
        seen.append({leaf.fp32_precision for leaf in leaves().values()})

    with multiplied_in("ieee"):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == [{"ieee"}]


def test_a_thread_that_ends_first_is_noticed():
    inside, leave = threading.Event(), threading.Event()

    def first():
        with multiplied_in("ieee"):
            inside.set()
            leave.wait()

    before = {name: leaf.fp32_precision for name, leaf in leaves().items()}
    assert "none" in before.values()
    thread = threading.Thread(target=first)
    thread.start()
    inside.wait()
    with pytest.raises(ValueError, match="neither forward nor another thread"), multiplied_in("ieee"):
        leave.set()
        thread.join()
    assert {name: leaf.fp32_precision for name, leaf in leaves().items()} == before


def test_cudnn_is_switched_off_alone():
    def others():
        b = torch.backends
        legacy = (b.cudnn.allow_tf32, torch.get_float32_matmul_precision())
        return *legacy, b.cudnn.benchmark, b.cudnn.deterministic, [leaf.fp32_precision for leaf in leaves().values()]

    before = torch.backends.cudnn.enabled
    expected = others()
    with pytest.raises(KeyError), without_cudnn():
        assert not torch.backends.cudnn.enabled
        assert others() == expected
        raise KeyError
    assert torch.backends.cudnn.enabled is before
    with multiplied_in("ieee"), without_cudnn():  # where `cudnn.flags(enabled=False)` would set TF32, or raise
        assert {leaf.fp32_precision for leaf in leaves().values()} == {"ieee"}


def test_bfloat16_is_for_the_forward_and_leaves_float64_alone():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GELU(), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 3))
    x = torch.randn(5, 2, 6, 6)
    double = copy.deepcopy(net).double()
    whole, exact = net(x), double(x.double())
    with multiplied_in("bfloat16"):
        with forward_in("bfloat16", CPU):
            outputs = net(x)
            assert outputs.dtype == torch.bfloat16
            assert torch.equal(double(x.double()), exact)
        loss = F.mse_loss(cast(outputs, x), torch.zeros(5, 3))
        gradients = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    assert loss.dtype == torch.float32 and {g.dtype for g in gradients} == {torch.float32}
    assert 1e-4 < (outputs.float() - whole).abs().max() / whole.abs().max() < tolerance(torch.float32, "bfloat16")


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_the_callers_autocast_is_off(precision):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with forward_in(precision, CPU):
            assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32
        assert torch.is_autocast_enabled("cpu")


def test_tolerance_is_the_root_of_the_spacing_of_what_is_multiplied():
    spacing = {"ieee": torch.finfo(torch.float32).eps, "tf32": 2.0**-10, "bfloat16": torch.finfo(torch.bfloat16).eps}
    for precision, eps in spacing.items():
        assert tolerance(torch.float32, precision) == pytest.approx(eps**0.5, rel=1e-12)
        assert tolerance(torch.float64, precision) == torch.finfo(torch.float64).eps ** 0.5
