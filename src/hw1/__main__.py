"""`hw1 train | init | list | report | ...` and `python -m hw1 ...`: thin commands on experiments and sweeps."""

import argparse
import os
import sys
from pathlib import Path

from hw1.arguments import completing, parser
from hw1.project import enter, hint, is_project
from hw1.project.trusting import lacks_code, let_in_signed, trust
from hw1.trust.reading import take_words
from hw1.upkeep import all_results, clean_up, export_runs, path_and_filters

_NOT_ENDED = {  # what to say of such a sweep that is drawn
    "interrupted": "its command was ended before all its runs had; given again, it goes on from there",
    "running": "its command is still at work, and will draw it when it has ended",
}


_RUN_CODE = ("train", "adopt", "node")  # that of the current folder; others take it from a project of the user's alone
_OF_DATA = ("report", "measure", "rekey")  # which take dataset.root= and the like; elsewhere these are filters


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given, here = sys.argv[1:] if words is None else words, Path.cwd()
    if given[:1] == ["-sc"] and not (given := completing(given)):
        return 0
    try:
        given = take_words(given, here, data=given[:1] != [] and given[0] in _OF_DATA)
    except ValueError as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 1
    if given[:1] == ["train"]:  # its words are Hydra's
        from hw1.job import command

        enter(here, runs_code=True)
        command(here, given[1:])
        return 0
    made = parser()
    chosen, flags = made.parse_known_args(given)
    if flags and chosen.command not in ("homework", "tensorboard"):  # whose flags are another program's
        made.error(f"unrecognized arguments: {' '.join(flags)}")

    enter(here, runs_code=(own := is_project(here)) or chosen.command in _RUN_CODE)

    from hw1.explaining import explain
    from hw1.runs import Sweep
    from hw1.terminal import say
    from hw1.words import printable

    try:
        if chosen.command == "init":
            from hw1.project.start import start

            print(*map(printable, start(chosen.folder)), sep="\n")
            return 0
        if chosen.command == "trust":
            return trust(chosen.folder, chosen.yes)
        if chosen.command == "measure":
            return _measure(chosen, own)
        if chosen.command == "node":
            from hw1.training.attending import attend
            from hw1.training.distributed_nodes import check_nodes
            from hw1.training.network import meeting_place

            check_nodes()
            say(f"comes to the runs of {(place := meeting_place())}, until Ctrl-C")
            attend(place, lambda: False, say)
            return 0
        if chosen.command == "adopt":
            from hw1.adopt import adopt

            adopt(chosen.words, chosen.config_dir, chosen.dry_run)
            return 0
        if chosen.command == "list":
            return _list(chosen.words, chosen.watch)
        if chosen.command == "compare":
            return _compare(chosen)
        if chosen.command == "clean":
            return clean_up(chosen)
        if chosen.command == "export":
            return export_runs(chosen.words, chosen.output)
        if chosen.command == "verify":
            return _verify(chosen.path)
        if chosen.command == "rekey":
            from hw1.report.rekey import rekey

            say(*rekey(chosen.path))
            return 0
        if chosen.command == "homework":
            from hw1.reproduction.homework import homework as ask
            from hw1.settings.conf import shipped

            return ask(shipped().parent, [*chosen.words, *flags])
        if chosen.command == "tensorboard":
            from hw1.report.tensorboard import show

            return show(chosen.paths, flags)
        if chosen.command in ("results", "claims"):
            from hw1.reproduction import claims, results

            fill = {"results": results.fill, "claims": claims.fill}[chosen.command]
            problems = fill(_checkout(), _with_sweeps(chosen.output or _checkout() / "multirun"))
            say(*problems, file=sys.stderr)
            return 1 if problems else 0
        sweep = Sweep.read(chosen.path)
        if chosen.command == "report":
            from hw1.records import read_record
            from hw1.report.conclude import conclude
            from hw1.runs.changed import READING, refuse_changed
            from hw1.trust.owner import keep_code

            if not own:
                let_in_signed(sweep, here)
            if not chosen.keep:
                refuse_changed([run for run in sweep.complete().runs if run.is_signed], READING)
            for run in sweep.runs if chosen.keep else ():
                keep_code(run.path, run.settings.plain, run.key)
            if (said := _NOT_ENDED.get(sweep.status)) is not None:
                say(f"{sweep.path.name}: {sweep.status}: {said}", file=sys.stderr)
            print(*map(printable, conclude(sweep.path, read=sweep)), sep="\n")
            failed = read_record(sweep.path / "sweep.json")["failed"]
            for name, error in failed.items():
                print(printable(f"failed: {name}: {error}"), file=sys.stderr)
            return 1 if failed else 0
        print(*map(printable, sweep.table(*chosen.metrics).to_string(index=False).splitlines()), sep="\n")
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError) as error:
        if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
            raise
        for line in explain(error).splitlines():
            print(f"error: {printable(line)}", file=sys.stderr)
        if not own and chosen.command not in _RUN_CODE and lacks_code(error) and (said := hint(here)):
            print(printable(said), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _list(words: list[str], watched: bool) -> int:
    """Say how experiments, sweeps and runs stand; again and again where it is watched."""
    from hw1.report.listing import listing, no_results, watch
    from hw1.terminal import columns

    path, filters = path_and_filters(words)
    if path == all_results() and not path.exists():
        print(no_results(path))
    elif watched:
        watch(path, filters)
    else:
        print("\n".join(listing(path, filters, columns())[0]))
    return 0


def _compare(chosen: argparse.Namespace) -> int:
    """Print two sweeps side by side, and write their page."""
    from hw1.report.compare import compare
    from hw1.report.side_by_side import lines, write_page
    from hw1.runs import Sweep
    from hw1.terminal import columns
    from hw1.words import printable

    found = compare(Sweep.read(chosen.a), Sweep.read(chosen.b), chosen.metrics)
    other = found.a.path.absolute()
    page = chosen.output or found.b.path / f"compare_{other.parent.parent.name}_{other.name}.html"
    write_page(found, page)
    print("\n".join(lines(found, columns())))
    print(printable(f"page: {page}"))
    return 0


def _verify(path: Path) -> int:
    """Say what is damaged below a path; 1 if anything is."""
    from hw1.runs.sound import verify
    from hw1.words import printable

    found = verify(path)
    for line in found.damage:
        print(printable(line), file=sys.stderr)
    aside = [f"{len(found.unlisted)} of an earlier version, which recorded no hashes"] if found.unlisted else []
    aside += [f"{len(found.foreign)} not signed by you"] if found.foreign else []
    said = "sound" if not found.damage else f"{len(found.damage)} damaged or missing"
    print(printable("; ".join([f"{path}: runs {found.runs}, sweeps {found.sweeps}: {said}", *aside])))
    return 1 if found.damage else 0


def _measure(chosen: argparse.Namespace, own_conf: bool) -> int:
    """Hand a measure command over to Hydra, whose launchers then take the measures, in parallel if they do."""
    from hw1.command import quoted
    from hw1.job import command
    from hw1.runs import Sweep
    from hw1.settings import ConfigError

    sweep = Sweep.read(chosen.path).path.absolute()
    names = [word for word in chosen.words if "=" not in word]
    own = [word for word in chosen.words if "=" in word and word.partition(".")[0] in names]
    others = [word for word in chosen.words if "=" in word and word not in own]
    others = [f"hydra.sweeper.{word}" if word.startswith("pieces=") else word for word in others]
    if not names:
        raise ConfigError(f"measure: got {' '.join(chosen.words)}, expected the name of a measure, as sharpness")
    words = [f"measured_sweep={quoted(str(sweep))}", f"measures=[{','.join(names)}]"]
    words += [f"hydra.sweep.dir={quoted(str(sweep.parent.parent))}", *(f"measures.{word}" for word in own), *others]
    flags = ["--config-dir", chosen.config_dir] if chosen.config_dir else []
    asked = {"--dry-run": chosen.dry_run, "--keep": chosen.keep, "--detach": chosen.detach}
    if not own_conf:
        read = Sweep.read(sweep)
        let_in_signed(read, Path.cwd())
        for run in read.runs[:1]:  # of somebody else's, which name what is not hw1's, it is said at once
            run.judge()
    try:
        command(Path.cwd(), [*flags, *words, *(flag for flag, given in asked.items() if given)], own_conf)
    except SystemExit as end:
        if end.code == 1 and not own_conf and Path("conf", "measures").is_dir():  # hers may be asked for
            print(hint(Path.cwd()), file=sys.stderr)
        raise
    return 0


def _with_sweeps(output: Path) -> Path:
    """A folder of sweeps, as it is: without any, the pages would say that nothing was ever run.

    Raises:
        ConfigError: there is none.
    """
    from hw1.settings import ConfigError

    if not any(output.glob("*/sweeps/*/sweep.json")):
        raise ConfigError(f"output: got {output}, where no sweeps are; expected the folder of all, as multirun")
    return output


def _checkout() -> Path:
    """The folder of train.py, conf/ and docs/, which what is about this project itself needs.

    Raises:
        ValueError: hw1 was not installed from a checkout.
    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "conf" / "train.yaml").is_file():
        raise ValueError(f"{checkout} is no checkout of hw1, which this command is about: pip install -e . in one")
    return checkout


if __name__ == "__main__":
    sys.exit(main())
