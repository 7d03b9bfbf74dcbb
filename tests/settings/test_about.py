import pytest

from hw1.settings import ConfigError
from hw1.settings.about import About, experiments


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("40 seconds; x", 40 / 3600),
        ("About an hour (estimated)", 1),
        ("half a minute", 1 / 120),
        ("about 1.5 hours", 1.5),
    ],
)
def test_times_in_words(text, hours):
    assert About(question="7 hours?", expect=text).hours == pytest.approx(hours)


@pytest.mark.parametrize("text", ["little", "some minutes", "", "a few figures after 2 hours"])
def test_an_expectation_without_a_time_is_refused(text):
    with pytest.raises(ConfigError, match=r"^about\.expect: got no time, expected .*: |^about\.expect: got no time"):
        _ = About(question="2 hours", expect=text).hours


def test_an_experiment_that_says_nothing_has_empty_words(tmp_path):
    (tmp_path / "experiment" / "one").mkdir(parents=True)
    (tmp_path / "experiment" / "one.yaml").write_text("name: one\n")
    (tmp_path / "experiment" / "one" / "two.yaml").write_text("about: {title: 3, question: 'Is it?'}\n")
    assert experiments(tmp_path) == {"one": About(), "one/two": About(question="Is it?")}
    (tmp_path / "experiment" / "one.yaml").write_text("name: [\n")
    with pytest.raises(ConfigError, match=r"one\.yaml: got no YAML"):
        experiments(tmp_path)
