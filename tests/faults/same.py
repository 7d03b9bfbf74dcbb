"""What a finished sweep consists of, bit by bit, without times and paths; what two of them differ in; what verify says.

Read here by hand, with json, csv and torch: a campaign that asked hw1 for them would believe what it tests.
"""

import csv
import hashlib
import io
import json
import re
from pathlib import Path

_OF_A_MOMENT = ("time", "seconds", "checksum", "signature", "git", "versions", "traceback")


def fingerprint(base):
    """{what: value} of the folder of an experiment: of all its runs, and of its last sweep that is complete.

    What is read is compared, so a file that cannot be read has its error for a value.
    """
    found = {}
    for run in sorted((base / "runs").glob("*")):
        parts = {file.relative_to(run).as_posix(): _read(file) for file in sorted(run.rglob("*")) if _compared(file)}
        found |= {f"runs/{run.name}/{name}": value for name, value in parts.items()}
    sweeps = [(file, _read(file)) for file in sorted((base / "sweeps").glob("*/sweep.json"))]
    complete = [
        (file, record) for file, record in sweeps if isinstance(record, dict) and record["status"] == "complete"
    ]
    if complete:
        file, record = complete[-1]
        found["sweep.json"] = record
        found |= {f"sweep/{name}": _read(file.with_name(name)) for name in sorted(record["files"])}
    return found


def differences(one, other):
    """What two fingerprints differ in."""
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


def left_behind(base):
    """Temporaries that nobody took away, and files of unknown names."""
    hidden = (file for file in base.rglob(".*") if file.is_file() and file.name not in (".lock", ".lease"))
    return sorted(file.relative_to(base).as_posix() for file in hidden)


def verified(base):
    """The lines of `hw1 verify`, but those on sweeps that the command has made anew: an older one is left as it is."""
    from hw1.runs.sound import verify

    sweeps = sorted(file.parent for file in (base / "sweeps").glob("*/sweep.json"))
    return [line for line in verify(base).damage if not any(str(sweep) in line for sweep in sweeps[:-1])]


def state(base):
    """(fingerprint, lines of verify, temporaries that nobody took away) of an experiment's folder."""
    return fingerprint(base), verified(base), left_behind(base)


def _compared(file):
    if file.is_dir() or file.name in ("run.log", ".lock", ".lease", "progress.json") or "tfevents" in file.name:
        return False
    return not (file.name.endswith(".part") or file.name.startswith(".tmp"))


def _read(file):
    try:
        if file.suffix == ".json":
            return _json(json.loads(file.read_text()))
        if file.suffix == ".ckpt":
            return _checkpoint(file)
        if file.parent.name == ".hydra" or file.suffix in (".html", ".svg"):
            return file.is_file() and file.stat().st_size > 0  # they name times and paths
        if file.suffix == ".csv":
            return _table(file)
        if file.name == "config.yaml":
            return [line for line in file.read_text().splitlines() if not line.startswith("sweep: ")]
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except Exception as error:
        return f"{type(error).__name__}"


def _json(record):
    """A record without what differs from one command to the next."""
    kept = {name: value for name, value in record.items() if name not in _OF_A_MOMENT}
    if isinstance(kept.get("settings"), dict):  # they name the sweep, which a command makes anew
        kept["settings"] = {name: value for name, value in kept["settings"].items() if name != "sweep"}
    if "runs" in record:  # a sweep
        names = ("status", "failed", "swept", "runs", "measures", "study", "answer", "headlines", "numbers", "captions")
        return {**{name: record.get(name) for name in names}, "files": sorted(record.get("files", {}))}
    if isinstance(kept.get("files"), dict) and "metrics" in kept:
        kept["files"] = sorted(kept["files"])  # hashes of what holds times differ; the files are compared themselves
    return kept


def _table(file):
    rows = list(csv.reader(io.StringIO(file.read_text(), newline="")))
    if not rows:
        return []
    timed = [at for at, name in enumerate(rows[0]) if "seconds" in name]
    return [[cell for at, cell in enumerate(row) if at not in timed] for row in rows]


def _checkpoint(file):
    """A hash of the weights, the optimizer's state and where training stands; not of the time it took."""
    import torch

    state = torch.load(file, map_location="cpu", weights_only=True)
    digest = hashlib.sha256()
    recorded = {name: value for name, value in (state.get("hw1") or {}).items() if name != "settings"}  # with its time
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
        _hash(digest, state.get(name))
    _hash(digest, recorded)
    return digest.hexdigest()


def _hash(digest, value):
    import torch

    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{list(value.shape)}".encode())
        digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for name in sorted(value, key=str):
            digest.update(str(name).encode())
            _hash(digest, value[name])
    elif isinstance(value, list | tuple):
        for one in value:
            _hash(digest, one)
    else:
        digest.update(repr(value).encode())


def remedy(lines, base):
    """What lines of a refusal or of verify say to do: [("delete", path) or ("word", --rerun) or ("report", path)]."""
    found = []
    for line in lines:
        said = line.partition("error: ")[2] or line
        paths = [Path(one.rstrip(":;,.")) for one in re.findall(rf"{re.escape(str(base))}\S*", said)]
        if not paths:
            continue
        run = next((base / "runs" / path.relative_to(base).parts[1] for path in paths if _is_of_run(path, base)), None)
        if "makes it again" in said:
            found.append(("report", paths[-1]))
        elif "delete the run's folder" in said and run is not None:
            found.append(("delete", run))
        elif (named := re.search(rf"delete ({re.escape(str(base))}\S+)", said)) is not None:
            found.append(("delete", Path(named[1].rstrip(":;,."))))
        elif re.search(r"(delete|remove) (it|the file)\b", said):
            found.append(("delete", paths[0]))
        elif "--rerun" in said:
            found.append(("word", "--rerun"))
        elif "again" in said:
            found.append(("again", paths[0]))
    return found


def _is_of_run(path, base):
    parts = path.relative_to(base).parts
    return len(parts) > 1 and parts[0] == "runs"
