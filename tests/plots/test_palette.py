"""The palette in grey print and for deuteranopes: what colour does not tell apart, marker or dash does."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from hw1.plots.style import COLORS, DASHES, MARKERS

# Machado, Oliveira & Fernandes 2009, table 1: deuteranopia (severity 1), in linear RGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
# IEC 61966-2-1: linear sRGB to CIE XYZ under D65; the rows' sums are the white point.
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
# Differences in CIELAB (1976). Around 2.3 is just noticeable side by side (Mahy et al. 1994); lines lie apart.
CLEAR, VISIBLE = 20.0, 15.0


def linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear RGB."""
    ratio = TO_XYZ @ np.clip(rgb, 0, 1) / TO_XYZ.sum(axis=1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def plain(color):
    return lab(linear(color))


def deuteranope(color):
    return lab(DEUTERANOPIA @ linear(color))


def grey(color):
    return lab(np.full(3, TO_XYZ[1] @ linear(color)))


def distance(see, one, two):
    return float(np.linalg.norm(see(COLORS[one]) - see(COLORS[two])))


PAIRS = list(itertools.combinations(range(len(COLORS)), 2))


def test_the_oracle_knows_white_black_and_red():
    assert plain("white") == pytest.approx([100, 0, 0], abs=0.02) and plain("black") == pytest.approx([0, 0, 0])
    assert plain("red") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert deuteranope("white") == pytest.approx([100, 0, 0], abs=0.02)  # white stays white
    assert np.linalg.norm(plain("#a04040") - plain("#408040")) > 3 * np.linalg.norm(
        deuteranope("#a04040") - deuteranope("#408040")
    )


@pytest.mark.parametrize("pair", PAIRS)
def test_any_two_colors_are_told_apart_with_and_without_green_receptors(pair):
    assert distance(plain, *pair) > CLEAR
    assert distance(deuteranope, *pair) > VISIBLE


@pytest.mark.parametrize("pair", PAIRS)
def test_lines_of_one_dash_are_told_apart_in_grey(pair):
    one, two = pair
    same_dash = DASHES[one % len(DASHES)] == DASHES[two % len(DASHES)]
    assert not same_dash or distance(grey, *pair) > VISIBLE


def test_every_color_has_a_marker_of_its_own():
    assert len(set(MARKERS)) == len(MARKERS) >= len(COLORS) and len(set(DASHES)) == len(DASHES)


@pytest.mark.parametrize("color", COLORS)
def test_every_color_stands_out_from_the_paper(color):
    for see in (plain, deuteranope, grey):
        assert np.linalg.norm(see(color) - see("white")) > CLEAR
