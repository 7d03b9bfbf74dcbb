import matplotlib
import pytest
from matplotlib.figure import Figure

from hw1.plots.style import entitle, log_scale, save, style


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


@pytest.mark.parametrize(("values", "plain"), [([2.26, 2.31], True), ([0.04, 0.3], True), ([1e-3, 2.0], False)])
def test_a_narrow_logarithmic_axis_has_plain_numbers(values, plain):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], values)
    log_scale(axes)
    figure.draw_without_rendering()
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    labels = [label.get_text() for label in axes.get_yticklabels(which="both")]
    seen = [label for tick, label in zip(axes.yaxis.get_ticklocs(), labels, strict=False) if low <= tick <= high]
    assert len(seen) >= 3 and all(("10^" not in label) == plain for label in seen if label)


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
