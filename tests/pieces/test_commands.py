"""A command whose workers are all killed, given again; the whole matrix is `python -m tests.pieces`."""

import pytest

from .commands import LAUNCHERS, spectrum, trained


@pytest.mark.slow
def test_a_spectrum_goes_on_behind_a_kill_to_the_same_bits(tmp_path):
    base = trained(tmp_path / "one")
    alone = spectrum(base, ("hydra/launcher=basic", "pieces=false"))
    met = spectrum(base, LAUNCHERS["parallel, 2 workers"], after=3)
    assert met.digest == alone.digest and met.left >= 3 and met.again == met.pieces - met.left
