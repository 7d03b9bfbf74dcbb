"""Which modules of the user's own count, and what in them; found from the source alone."""

import importlib
import sys

import pytest

from hw1.settings import code
from hw1.settings.code import code_of, code_of_node, source_of

MODEL = '''"""A model."""
from torch import nn

from my_layers import Wide


class Net(nn.Module):
    """It computes."""

    width: int = 3
    """Units."""

    def __init__(self):
        super().__init__()
        self.wide = Wide("a", 1)
'''


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write({path: text}) into a folder on sys.path, for a process that has read nothing yet."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        importlib.invalidate_caches()
        code._located.cache_clear()
        code._code_of_targets.cache_clear()
        code._read.cache_clear()

    return write


def of(*targets):
    """The code of so many `_target_`s, with the check that nothing was imported for it."""
    before = set(sys.modules)
    found = code_of_node([{"_target_": target} for target in targets])
    assert set(sys.modules) == before
    return found


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ('"""A model."""\n', "# a remark\n\n\n", False),
        ('    """It computes."""\n', '    """It computes\n    much."""\n', False),
        ('    """Units."""\n', "", False),
        ('Wide("a", 1)', "Wide('a',\n            1)  # one", False),
        ("    def", "\n\n    def", False),
        ('Wide("a", 1)', 'Wide("a", 1.0)', True),
        ('Wide("a", 1)', 'Wide("a", True)', True),
        ('Wide("a", 1)', 'Wide("b", 1)', True),
        ("= 3", "= None", True),
        ("super().__init__()\n", "super().__init__()\n        self.deep = Wide('', 0)\n", True),
    ],
)
def test_what_is_said_does_not_count_and_what_is_done_does(write, old, new, counts):
    write({"my_models.py": MODEL, "my_layers.py": "Wide = dict\n"})
    before = of("my_models.Net")
    assert set(before) == {"my_models", "my_layers"} and all(len(text) == 16 for text in before.values())
    assert old in MODEL
    write({"my_models.py": MODEL.replace(old, new)})
    after = of("my_models.Net")
    assert after["my_layers"] == before["my_layers"]
    assert (after["my_models"] != before["my_models"]) == counts


PACKAGE = {
    "lab/__init__.py": "from .tools import seed\n",
    "lab/tools.py": "seed = 1\n",
    "lab/unused.py": "import nothing\n",
    "lab/nets/__init__.py": "",
    "lab/nets/deep.py": (
        "import os, torch.nn\n"
        "from typing import TYPE_CHECKING\n"
        "from .. import parts\n"  # a module of the package above
        "from . import wide as other\n"
        "from hw1.models import Mlp\n"
        "if TYPE_CHECKING:\n    from lab.hints import Shape\n"
        "def build():\n    import late.module\n    from ..parts import size\n"
        "class Net:\n    class Inner:\n        pass\n"
    ),
    "lab/nets/wide.py": "from ..nets import deep\nfrom .nowhere import x\nfrom ..... import far\n",  # a circle
    "lab/parts.py": "size = 3\nfrom torch.nn import *\n",
    "lab/hints.py": "Shape = tuple\n",
    "late/module.py": "from late import more\n",  # a namespace package
    "late/more.py": "",
}
REACHED = {
    *("lab", "lab.tools", "lab.nets", "lab.nets.deep", "lab.nets.wide", "lab.parts", "lab.hints"),
    *("late.module", "late.more"),
}


@pytest.mark.parametrize("target", ["lab.nets.deep.Net", "lab.nets.deep.Net.Inner", "lab.nets.deep:Net.Inner"])
def test_all_that_is_imported_on_the_way_counts(write, target):
    write(PACKAGE)
    assert set(of(target)) == REACHED


@pytest.mark.parametrize("file", ["lab/__init__.py", "lab/tools.py", "lab/parts.py", "late/more.py", "lab/hints.py"])
def test_a_change_of_a_module_is_that_modules(write, file):
    write(PACKAGE)
    before = of("lab.nets.deep.Net")
    write({file: PACKAGE[file] + "changed = 1\n"})
    after = of("lab.nets.deep.Net")
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert {module for module in REACHED if before[module] != after[module]} == {name}


def test_targets_at_any_depth_but_for_what_does_not_train(write):
    names = [f"my_{i}" for i in range(8)]
    write({f"{name}.py": "" for name in names})
    nodes = [{"_target_": f"{name}.f"} for name in names]
    settings = {
        "model": nodes[0] | {"parts": [nodes[1], {"deep": nodes[2]}]},
        "callbacks": {"track": {"measure": nodes[3]}},
    }
    beside = {"study": nodes[4], "measures": {"a": nodes[5]}, "logger": {"b": nodes[6]}, "quick": {"c": nodes[7]}}
    assert list(code_of(settings | beside)) == names[:4] and list(code_of_node(settings | beside)) == names


def test_what_is_installed_is_not_the_users(write, tmp_path, monkeypatch):
    write(
        {"lib/site-packages/bought/__init__.py": "", "lib/dist-packages/given.py": "", "src/own.py": "import bought\n"}
    )
    for folder in ("lib/site-packages", "lib/dist-packages", "src"):  # the last as an editable install's .pth does
        monkeypatch.syspath_prepend(tmp_path / folder)
    assert list(of("bought.X", "given.Y", "own.Z", "collections.Counter", "sys.exit", "os.getcwd")) == ["own"]
    ours = ("hw1.models.Mlp", "hydra_plugins.hw1_sweeper.sweeper.Hw1Sweeper", "lightning.Trainer", "torch.optim.Adam")
    assert of(*ours, "nowhere.at.All", "", "my..X", "own.Z.") == of("own.Z")


def test_an_editable_installs_finder_is_asked(write, tmp_path, monkeypatch):
    write({"away/mine/__init__.py": "from mine import inner\n", "away/mine/inner.py": ""})

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "mine":
                file = tmp_path / "away" / "mine" / "__init__.py"
                return importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])
            return None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert list(of("mine.Net")) == ["mine", "mine.inner"]
    assert source_of("mine.inner") == tmp_path / "away" / "mine" / "inner.py"


def test_a_namespace_package_of_several_folders(write, tmp_path, monkeypatch):
    write({"one/space/deep/a.py": "import space.deep.b\n", "two/space/deep/b.py": ""})
    monkeypatch.syspath_prepend(tmp_path / "one")
    monkeypatch.syspath_prepend(tmp_path / "two")
    assert list(of("space.deep.a.f")) == ["space.deep.a", "space.deep.b"]


@pytest.mark.parametrize("content", [b"def f(:\n", b"\x7fELF\0", b"x = " + b"-" * 3000 + b"1\n"])
def test_of_what_does_not_parse_the_bytes_count(write, content):
    write({"my_broken.py": content})
    (before,) = of("my_broken.f").values()
    write({"my_broken.py": content + b"\n"})
    (after,) = of("my_broken.f").values()
    assert before != after


def test_a_process_goes_by_what_it_read_first(write, tmp_path):
    write({"my_first.py": "x = 1\n"})
    before = of("my_first.f")
    (tmp_path / "my_first.py").write_text("x = 2\n")
    assert of("my_first.f") == before
