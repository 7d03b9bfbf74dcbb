"""The nine questions at the quick budget: each page says in words what the full one says."""

import json

import pytest

# What the page must say, and must not: the answers of the full budget, as docs/results.csv has them.
ANSWERS = {
    "actual_task": (["The highest test accuracy is that of three convolutions with dropout, 228,010 weights"], []),
    "flatness_interp": (["they lie in different valleys"], ["one valley"]),
    "flatness_sensitivity": (["The test accuracy falls with the batch size"], ["The test accuracy rises"]),
    "gradient_norm": (
        [
            "With weight decay 0 ",
            "the smaller the loss, the smaller the gradient",
            "collapsed to a constant prediction",
        ],
        ["the smaller the loss, the larger the gradient"],
    ),
    "min_ratio": (["nothing follows about index and loss"], ["the higher the loss"]),
    "params_vs_generalization": (
        ["The test accuracy grows with the number of parameters", "The gap between test and train loss grows"],
        [],
    ),
    "random_labels": (["fits shuffled labels", "On true test labels it is then right on"], ["has not fitted"]),
    "simulate_function": (["1-190-1 comes to", "the difference is settled"], ["On sinc_5pi 1-190-1 has"]),
    "weight_trajectories": (["no nearer to each other than they began"], ["different starts end nearer"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_a_quick_page_says_what_the_full_one_says(name, command, tmp_path):
    done = command(f"experiment={name}", "budget=quick", "hydra/launcher=basic", output=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*/sweeps/*/sweep.json")
    said = " ".join(json.loads(file.read_text())["answer"])
    wanted, unwanted = ANSWERS[name]
    assert "Too short" not in said
    for words in wanted:
        assert words in said, said
    for words in unwanted:
        assert words not in said, said
    page = (file.parent / "report.html").read_text()
    assert "budget=quick" in page and '<h2 id="answer">Answer</h2>' in page
