from collections import Counter

import pytest
import torch

from hw1.data.labels import corrupt, subset


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


LABELS = torch.randint(10, (5000,), generator=seeded(9))


def test_a_subset_of_sequences_is_a_plain_one():
    tokens = torch.randint(5, (100, 7), generator=seeded())
    kept = subset(tokens, 30, seeded(1))
    assert len(set(kept.tolist())) == 30 and kept.tolist() == sorted(kept.tolist())
    assert torch.equal(kept, subset(tokens.float(), 30, seeded(1)))


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1.0])
def test_corruption_keeps_frequencies_and_changes_its_share(fraction):
    before = LABELS.clone()
    corrupted = corrupt(LABELS, fraction, seeded())
    assert torch.equal(LABELS, before)
    assert Counter(corrupted.tolist()) == Counter(LABELS.tolist())
    changed = (corrupted != LABELS).float().mean().item()
    # A chosen label changes with probability 1 - sum of squared frequencies = 0.9; 5 binomial standard deviations.
    assert changed == pytest.approx(0.9 * fraction, abs=5 * (0.09 * fraction / 5000) ** 0.5)


def test_corruption_touches_exactly_round_of_fraction_times_n_positions():
    labels = torch.arange(1000)  # all different: a fixed point of the shuffle is the only way to stay
    changed = (corrupt(labels, 0.3, seeded()) != labels).sum().item()
    assert 290 <= changed <= 300


def test_corruption_is_a_function_of_the_generator():
    assert torch.equal(corrupt(LABELS, 1.0, seeded(1)), corrupt(LABELS, 1.0, seeded(1)))
    assert not torch.equal(corrupt(LABELS, 1.0, seeded(1)), corrupt(LABELS, 1.0, seeded(2)))


@pytest.mark.parametrize("size", [1, 9, 10, 137, 2500, 4999, 5000])
def test_subset_is_stratified(size):
    labels = torch.cat([torch.full((3200,), 4), torch.full((1700,), 0), torch.full((100,), 7)])
    chosen = subset(labels, size, seeded())
    assert chosen.tolist() == sorted(set(chosen.tolist())) and len(chosen) == size
    counts = Counter(labels[chosen].tolist())
    for label, total in ((4, 3200), (0, 1700), (7, 100)):
        assert abs(counts[label] - size * total / 5000) < 1


def test_subset_is_uniform_within_a_class():
    labels = torch.tensor([0] * 4 + [1] * 4)
    hits = Counter(index for seed in range(2000) for index in subset(labels, 4, seeded(seed)).tolist())
    for index in range(8):  # each is drawn with probability 1/2
        assert hits[index] == pytest.approx(1000, abs=5 * 500**0.5)


def test_subset_of_targets_is_a_plain_random_one():
    chosen = subset(torch.rand(100, 1), 30, seeded())
    assert len(set(chosen.tolist())) == 30 and chosen.max() < 100
    assert not torch.equal(chosen, subset(torch.rand(100, 1), 30, seeded(1)))
