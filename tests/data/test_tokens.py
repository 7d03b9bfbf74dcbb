import pytest
import torch

from hw1.data import Characters, Modular


def characters(tmp_path, text, length=4, test_fraction=0.5):
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    return Characters("mine.txt", str(tmp_path), length, test_fraction)


def test_targets_are_the_next_characters(tmp_path):
    text = "to be or not to be, that is thé question"
    data = characters(tmp_path, text)
    sets = data.load()
    assert (data.name, data.source, data.in_shape, data.out_features) == ("mine", "file", (4,), len(set(text)))
    for part, x, y in (
        (text[:20], sets.train_x, sets.train_y), (text[20:], sets.test_x, sets.test_y),
    ):  # fmt: skip
        words = ["".join(data.vocabulary[token] for token in row) for row in x.tolist()]
        assert words == [part[i : i + 4] for i in range(0, len(part) - 4, 4)]
        after = ["".join(data.vocabulary[token] for token in row) for row in y.tolist()]
        assert after == [part[i + 1 : i + 5] for i in range(0, len(part) - 4, 4)]
    assert x.dtype == torch.int64


def test_the_bundled_text_is_there_and_cut_otherwise_is_other_data():
    data = Characters(None, None, 64, 0.1)
    data.prepare()
    assert len(data.text) > 40_000 and data.out_features < 200 and data.source == "bundled"
    assert data.identity() != Characters(None, None, 32, 0.1).identity()
    assert len(data.load().train_x) == (round(0.9 * len(data.text)) - 1) // 64


def test_a_changed_text_is_another(tmp_path):
    assert characters(tmp_path, "abcdefghijkl").identity() != characters(tmp_path, "abcdefghijkL").identity()


def test_texts_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"file: .*none.txt cannot be read"):
        Characters("none.txt", str(tmp_path), 4, 0.5).prepare()
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match=r"file: .*UTF-8"):
        Characters("bytes.txt", str(tmp_path), 4, 0.5).prepare()
    with pytest.raises(ValueError, match="length: got 4, expected less than 2"):
        characters(tmp_path, "abcd").prepare()
    for wrong in ((None, None, 0, 0.1), (None, None, 4, 0.0), (None, None, 4, 1.0)):
        with pytest.raises(ValueError, match=r"length: got 0|test_fraction: got"):
            Characters(*wrong)


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply"])
def test_the_last_target_is_the_result(operation):
    sets = Modular(7, operation, 0.6, 0).load()
    assert (len(sets.train_x), len(sets.test_x)) == (29, 20)
    seen = set()
    for x, y in ((sets.train_x, sets.train_y), (sets.test_x, sets.test_y)):
        for (a, b, sign), targets in zip(x.tolist(), y.tolist(), strict=True):
            result = {"add": a + b, "subtract": a - b, "multiply": a * b}[operation] % 7
            assert sign == 7 and targets == [-100, -100, result]
            seen.add((a, b))
    assert len(seen) == 49


def test_the_split_is_that_of_its_seed():
    one, same, other = (Modular(5, "add", 0.5, seed).load().train_x for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert Modular(5, "add", 0.5, 0).identity() != Modular(5, "add", 0.5, 1).identity()


@pytest.mark.parametrize("wrong", [(1, "add", 0.5, 0), (5, "divide", 0.5, 0), (5, "add", 0.0, 0), (5, "add", 1.0, 0)])
def test_refusals_of_modular(wrong):
    with pytest.raises(ValueError, match=r"^(p|operation|train_fraction): got"):
        Modular(*wrong)
