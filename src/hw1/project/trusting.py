"""`hw1 trust`, and which modules of a folder that is no project a command may yet take. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hw1.runs import Sweep


def trust(folder: Path, yes: bool) -> int:
    """Say what signing a folder means, ask, and sign it; 1 if nothing was signed.

    Args:
        folder: of results, or a project.
        yes: whether to sign without asking.
    """
    from hw1.terminal import agreed
    from hw1.trust.sign import carry_out, lines, plan
    from hw1.words import printable

    made = plan(folder)
    print(*map(printable, lines(made)), sep="\n")
    if not yes and not agreed("sign it as yours?", "nothing was signed", "signs it without asking"):
        return 1
    print(printable(carry_out(made)))
    return 0


def let_in_signed(sweep: Sweep, here: Path) -> None:
    """Let modules of the current folder be found whose hash stands in the user's own signed records, and no others."""
    from hw1.training.contents import RESULT, SETTINGS
    from hw1.trust.owner import signed_code
    from hw1.trust.reading import let_in

    if not any(here.glob("*.py")) and not any(here.glob("*/__init__.py")):
        return
    known: dict[str, set[str]] = {}
    records = [(run.path, name, run.code) for run in sweep.runs for name in (RESULT, SETTINGS)]
    for folder, name, code in [*records, (sweep.path, "sweep.json", sweep.record.get("code"))]:
        for module, hashes in signed_code(folder, name, code).items():
            known.setdefault(module, set()).update(hashes)
    let_in(here, known)


def lacks_code(error: BaseException) -> bool:
    """Whether a command failed for want of the user's own code or settings; a TrustError says itself what to do."""
    return "cannot be imported" in str(error)
