import itertools

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure

from hw1.plots.style import broken, entitle, heading, is_log, panels, save, scale, seed_looks, style, ticks
from hw1.words import NETWORK


def drawn(value=1.0):
    with style():
        figure = Figure()
        figure.subplots().plot([0, 1], [0, value])
    return figure


def test_a_figure_is_a_png_and_an_svg_and_the_same_figure_the_same_bytes(tmp_path):
    paths = save(drawn(), tmp_path / "a=0.5")
    assert [path.name for path in paths] == ["a=0.5.png", "a=0.5.svg"]
    again = save(drawn(), tmp_path / "again")
    for one, two in zip(paths, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert save(drawn(2.0), tmp_path / "other")[1].read_bytes() != paths[1].read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{n}.{k}" for n in ("a=0.5", "again", "other") for k in ("png", "svg")
    }


def plotted(values, side="y"):
    axes = Figure().subplots()
    axes.plot(*(([0, 1], values) if side == "y" else (values, [0, 1])))
    return axes


def numbers(axes, side="y"):
    """What is written at the ticks that are seen."""
    axes.figure.draw_without_rendering()
    axis, (low, high) = (axes.yaxis, axes.get_ylim()) if side == "y" else (axes.xaxis, axes.get_xlim())
    labels = [label.get_text() for label in axis.get_ticklabels(which="both")]
    return [label for tick, label in zip(axis.get_ticklocs(), labels, strict=False) if low <= tick <= high and label]


@pytest.mark.parametrize(
    ("quantity", "logarithmic"),
    [
        *[(name, True) for name in ("loss", "train/loss", "train_step/loss", "gradient_norm/4", "sharpness/trace")],
        *[(name, True) for name in ("sensitivity/loss", "dataset.batch_size", "optimizer.lr", "parameters")],
        *[(name, False) for name in ("accuracy", "test/accuracy", "loss_gap", "accuracy_gap", "depth", "epoch")],
        *[(name, False) for name in ("minimal_ratio/positive", "spectrum/smallest", "optimizer", "curve/length")],
    ],
)
def test_a_quantity_has_one_scale_wherever_it_is_drawn(quantity, logarithmic):
    assert is_log(quantity) == logarithmic
    for side, values in (("x", [1, 1.1]), ("y", [1, 1.1]), ("y", [1e-6, 1e6])):
        axes = plotted(values, side)
        note = scale(axes, side, quantity)
        found = axes.get_xscale() if side == "x" else axes.get_yscale()
        assert (found, note) == (("log", "log scale") if logarithmic else ("linear", ""))


@pytest.mark.parametrize(
    ("values", "plain"), [([2.26, 2.31], True), ([0.04, 0.3], True), ([0.03, 2.0], True), ([1e-4, 2.0], False)]
)
def test_a_narrow_logarithmic_axis_has_plain_numbers(values, plain):
    axes = plotted(values)
    scale(axes, "y", "loss")
    seen = numbers(axes)
    assert len(seen) >= 3 and all(("10^" not in label) == plain for label in seen)


def test_long_numbers_on_an_x_axis_are_powers():
    axes = plotted([3_000, 300_000], "x")
    scale(axes, "x", "parameters")
    assert all("10^" in label for label in numbers(axes, "x"))


def test_a_logarithmic_quantity_that_is_not_positive_is_drawn_all_the_same():
    axes = plotted([-3.0, 0.02])
    axes.axvline(1.0)  # from edge to edge: no value
    assert scale(axes, "y", "sharpness/trace") == "log scale, linear below 1" and axes.get_yscale() == "symlog"
    positive = plotted([0.5, 0.02])
    positive.axvline(1.0)
    assert scale(positive, "y", "sharpness/trace") == "log scale"
    shared = Figure().subplots(1, 2, sharey=True)
    shared[1].plot([0, 1], [-0.1, 0.02])
    shared[0].plot([0, 1], [0.5, 0.02])
    assert "linear below" in scale(shared[0], "y", "sharpness/trace")
    band = plotted([50, 0.02])
    band.fill_between([0, 1], [-0.1, 0.01], [90, 0.03])
    assert scale(band, "y", "sharpness/trace") == "log scale, linear below 0.1"
    assert band.get_ylim()[0] < -0.1 and band.get_ylim()[1] > 90
    dead = plotted([0.5, 0.0])
    assert scale(dead, "y", "gradient_norm") == "log scale, 0 is below it" and dead.get_yscale() == "log"


def test_a_seed_has_one_look_and_no_two_have_the_same():
    looks = seed_looks([3, 9, 3, *range(20, 30)])
    assert list(looks) == [3, 9, *range(20, 30)] and looks == seed_looks(reversed(list(looks)))
    assert len({(look["color"], look["marker"], look["linestyle"]) for look in looks.values()}) == 12
    assert len({(look["marker"], look["linestyle"]) for look in looks.values()}) == 12  # without colours too


@pytest.mark.parametrize(
    ("number", "rows"), [(1, [1]), (2, [2]), (3, [3]), (4, [2, 2]), (5, [3, 2]), (11, [3, 3, 3, 2])]
)
def test_panels_fill_the_figure_without_empty_ones(number, rows):
    figure = Figure(figsize=(9, 9))
    axes = panels(figure, number, 3)
    assert len(figure.axes) == len(axes) == number and all(ax.axison for ax in axes)
    tops = [round(ax.get_position().y0, 6) for ax in axes]
    found = [list(group) for _, group in itertools.groupby(axes, key=lambda ax: round(ax.get_position().y0, 6))]
    assert [len(row) for row in found] == rows and tops == sorted(tops, reverse=True)
    for row in found:  # from edge to edge
        assert row[0].get_position().x0 == pytest.approx(axes[0].get_position().x0)
        assert row[-1].get_position().x1 == pytest.approx(found[0][-1].get_position().x1)


def test_numbers_at_ticks_do_not_run_into_one_another():
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    values = [0.0001, 0.00011, 0.00012, 0.0005, 0.001, 0.0011]
    axes.plot(values, values)
    scale(axes, "x", "optimizer.lr")
    ticks(axes, values)
    figure.draw_without_rendering()
    assert list(axes.get_xticks()) == values
    shown = [label for label in axes.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in shown]
    assert [shown[0].get_text(), shown[-1].get_text()] == ["0.0001", "0.0011"] and len(shown) > 2
    assert all(one.x1 < two.x0 for one, two in itertools.pairwise(boxes))


def test_a_title_says_the_data_and_the_only_network_and_is_no_wider_than_the_figure():
    table = pd.DataFrame({"data": "digits", "source": "scikit-learn", "n_train": 1437, NETWORK: ["a", "a", "b"]})
    one, several = Figure(figsize=(5, 5)), Figure(figsize=(9, 5))
    heading(one, table[:2], "", "word " * 60)
    heading(several, table)
    assert several.get_suptitle() == "digits (scikit-learn, 1,437 training examples)"
    assert one.get_suptitle().startswith("digits (scikit-learn, 1,437 training examples); a\nword word")
    one.draw_without_rendering()
    box = one.texts[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= one.bbox.width
    assert broken("ab cd\nef", 0.2) == "ab\ncd\nef" and broken("ab cd", 5) == "ab cd"


def test_the_style_ends_with_its_block():
    before = dict(matplotlib.rcParams)
    with pytest.raises(RuntimeError), style():
        assert matplotlib.rcParams["axes.grid"] is True
        raise RuntimeError
    assert dict(matplotlib.rcParams) == before


def test_a_note_is_a_line_of_the_title():
    titled, bare = drawn(), drawn()
    titled.suptitle("digits, n = 3", fontsize=7)
    for figure in (titled, bare):
        entitle(figure, "budget = quick")
    assert titled.get_suptitle() == "digits, n = 3\nbudget = quick" and bare.get_suptitle() == "budget = quick"
    assert [text.get_fontsize() for text in titled.texts] == [7] and len(bare.texts) == 1


def test_a_note_stands_in_the_title_of_a_part_where_the_figure_has_none():
    with style():
        figure = Figure()
        upper, _ = figure.subfigures(2, 1)
        upper.suptitle("paths")
    entitle(figure, "budget = quick")
    assert upper.get_suptitle() == "paths\nbudget = quick" and not figure.get_suptitle()
