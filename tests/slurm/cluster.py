"""Slurm as far as hw1 and submitit ask for it: a queue in a folder, whose jobs are processes of this machine.

`Cluster` is the controller and the nodes, a thread of the test; the commands (sbatch, srun, sacct, scontrol, scancel)
are this file again, as small scripts on the PATH, which change files in the queue's folder. Only the standard library.

Run by itself it is a cluster to try things on: `python tests/slurm/cluster.py FOLDER`, then put FOLDER/bin on PATH.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

QUEUE = "STAND_IN_QUEUE"  # in the environment: the folder
COMMANDS = ("sbatch", "srun", "sacct", "scontrol", "scancel")
# What a script has to say: a cluster has no good defaults for it.
REQUIRED = ("job-name", "time", "cpus-per-task", "mem", "output", "error", "signal", "open-mode", "requeue")
KNOWN = {*REQUIRED, "array", "partition", "account", "qos", "constraint", "nodes", "ntasks-per-node", "gpus-per-node"}
KNOWN |= {"gres", "exclude", "comment", "wckey", "mail-type", "dependency", "mem-per-cpu", "mem-per-gpu"}
KILL_WAIT = 2.0  # seconds from SIGTERM to SIGKILL


def write(file, value):
    part = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    part.write_text(json.dumps(value))
    part.replace(file)


def read(file):
    return json.loads(file.read_text())


def order(file):
    """Where a job's file stands in the queue."""
    return [int(part) for part in file.stem.split("_")]


def jobs_in(folder):
    return {file.stem: read(file) for file in sorted(Path(folder, "jobs").glob("[0-9]*.json"), key=order)}


class Cluster:
    """The controller: starts what waits, ends what is over its time, queues again what is asked to.

    Args:
        folder: of the queue.
        slots: jobs that run at a time.
        partitions: what `--partition` may say; any where there are none.
        minutes: the longest time limit.
    """

    def __init__(self, folder, slots=2, partitions=(), minutes=1440):
        self.folder, self.slots, self.paused = Path(folder), slots, False
        self.most = 0  # jobs that were at work at a time
        self._running, self._ended = {}, threading.Event()
        for name in ("jobs", "scripts", "steps", "asked", "bin"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        write(self.folder / "limits", {"partitions": list(partitions), "minutes": minutes})
        for name in COMMANDS:
            script = self.folder / "bin" / name
            words = [sys.executable, "-SI", str(Path(__file__).resolve()), name]
            script.write_text(f'#!/bin/sh\n{QUEUE}={shlex.quote(str(self.folder))} exec {shlex.join(words)} "$@"\n')
            script.chmod(0o755)

    @property
    def path(self):
        return os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])

    def __enter__(self):
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()
        for name in list(self._running):
            self._kill(name)

    # What tests see and do

    def jobs(self):
        """{number: what is known of it}."""
        return jobs_in(self.folder)

    def states(self):
        return {name: job["state"] for name, job in self.jobs().items()}

    def until(self, true, seconds=120):
        """Wait until `true()`, and return what it came to."""
        last = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < last, self.states()
            time.sleep(0.05)
        return found

    def scripts(self):
        return [file.read_text() for file in sorted((self.folder / "scripts").glob("*.sh"), key=order)]

    def time_out(self, name):
        """The signal that the script asked for, as some seconds before the time limit."""
        asked = self.jobs()[name]["options"]["signal"].partition("@")[0]
        self.signal(name, asked)

    def preempt(self, name):
        """A more important job wants the node: SIGTERM, and after a while SIGKILL; the job is queued again."""
        self._ask(name, "preempt")

    def lose(self, name):
        """The job's node fails: all of its processes are gone at once."""
        self._ask(name, "lose")

    def signal(self, name, number):
        """Send a signal to the job's step."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(read(self.folder / "steps" / name), getattr(signal, f"SIG{number}"))

    # The controller

    def _ask(self, name, what):
        write(self.folder / "asked" / f"{name}.{what}", time.time())

    def _work(self):
        while not self._ended.wait(0.05):
            self._answer()
            self._look()
            if not self.paused:
                self._start()

    def _answer(self):
        for file in sorted((self.folder / "asked").iterdir()):
            name, _, what = file.name.rpartition(".")
            if name.startswith("."):
                continue
            file.unlink()
            self._answered(name, what)

    def _answered(self, name, what):
        running = self._running.get(name)
        if running is None:
            if what == "cancel" and self.jobs()[name]["state"] == "PENDING":
                self._set(name, state="CANCELLED by 0")
            return
        running["then"] = {"cancel": "CANCELLED by 0", "requeue": "PENDING", "preempt": "PENDING", "lose": "NODE_FAIL"}[
            what
        ]
        if what == "lose":
            if "requeue" in self.jobs()[name]["options"]:
                running["then"] = "PENDING"
            self._kill(name)
        else:
            self._tell(name, running)

    def _tell(self, name, running):
        """SIGTERM, and a while for what it does of it."""
        self.signal(name, "CONT")
        self.signal(name, "TERM")
        running["kill"] = time.monotonic() + running.get("wait", KILL_WAIT)

    def _look(self):
        for name, running in list(self._running.items()):
            now, code = time.monotonic(), running["process"].poll()
            if code is None:
                if now > running["limit"] and not running["then"]:
                    running["then"] = "TIMEOUT"
                    self._tell(name, running)
                elif now > running["warn"] and not running["warned"]:
                    running["warned"] = True
                    self.time_out(name)
                if now > running["kill"]:
                    self._kill(name)
                continue
            del self._running[name]
            state = running["then"] or ("COMPLETED" if code == 0 else "FAILED")
            again = {"restarts": self.jobs()[name]["restarts"] + 1} if state == "PENDING" else {}
            self._set(name, state=state, code=code, **again)

    def _start(self):
        jobs = self.jobs()
        for name, job in jobs.items():
            if job["state"] != "PENDING" or len(self._running) >= self.slots:
                continue
            alike = [other for other in self._running if other.partition("_")[0] == job["array"]]
            if job["throttle"] and len(alike) >= job["throttle"]:
                continue
            self._begin(name, job)
            self.most = max(self.most, len(self._running))

    def _begin(self, name, job):
        options, number = job["options"], job["id"]
        node = f"node{len(self._running) + 1}"
        own = {
            **{"SLURM_JOB_ID": number, "SLURM_JOBID": number},
            **dict.fromkeys(("SLURM_NTASKS", "SLURM_JOB_NUM_NODES"), options.get("nodes", "1")),
            **{"SLURM_JOB_NAME": options["job-name"], "SLURM_JOB_NODELIST": node, "SLURMD_NODENAME": node},
            **{"SLURM_CPUS_PER_TASK": options["cpus-per-task"], "SLURM_RESTART_COUNT": str(job["restarts"])},
            **{"SLURM_SUBMIT_DIR": job["place"], QUEUE: str(self.folder), "STAND_IN_JOB": name},
        }
        if "_" in name:
            own |= dict(zip(("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"), name.split("_"), strict=True))
        with open(pattern(options["output"], name), "ab") as out, open(pattern(options["error"], name), "ab") as err:
            process = subprocess.Popen(
                ["bash", job["script"]],
                **{"cwd": job["place"], "env": {**job["environment"], **own}},
                **{"stdout": out, "stderr": err, "stdin": subprocess.DEVNULL, "start_new_session": True},
            )
        minutes, (_, _, before) = float(options["time"]), options["signal"].partition("@")
        limit = time.monotonic() + 60 * minutes
        running = {"process": process, "then": "", "limit": limit, "warn": limit - float(before or 0), "warned": False}
        self._running[name] = running | {"kill": float("inf")}
        self._set(name, state="RUNNING", node=node)

    def _kill(self, name):
        process = self._running[name]["process"]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _set(self, name, **changes):
        file = self.folder / "jobs" / f"{name}.json"
        write(file, read(file) | changes)


def pattern(path, name, number=0):
    """A file of a job's, as sbatch and srun write its name."""
    array, _, task = name.partition("_")
    return path.replace("%A", array).replace("%a", task).replace("%j", name).replace("%t", str(number))


# The commands


def fail(text):
    print(text, file=sys.stderr)
    sys.exit(1)


def sbatch(folder, words):
    script = Path(words[-1]).read_text()
    lines = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.M)
    options = {key: " ".join(shlex.split(value)) for key, value in lines}
    limits = read(folder / "limits")
    if not script.startswith("#!"):
        fail("sbatch: error: This does not look like a batch script.")
    if unknown := sorted(options.keys() - KNOWN):
        fail(f"sbatch: unrecognized option '--{unknown[0]}'")
    if missing := [key for key in REQUIRED if key not in options]:
        fail(f"sbatch: error: the script says nothing of --{missing[0]}")
    if limits["partitions"] and options.get("partition") not in limits["partitions"]:
        fail(f"sbatch: error: invalid partition specified: {options.get('partition')}")
    if float(options["time"]) > limits["minutes"]:
        fail("sbatch: error: Batch job submission failed: Requested time limit is invalid")
    if not re.fullmatch(r"[A-Z]+[12]?@\d+", options["signal"]) or int(options["signal"].partition("@")[2]) > 65535:
        fail(f"sbatch: error: Invalid --signal specification: {options['signal']}")
    step = next((line for line in script.splitlines() if line.startswith("srun ")), "")
    if f"--cpus-per-task={options['cpus-per-task']}" not in step:
        fail("sbatch: error: the step takes nothing over of the job's cores: srun --cpus-per-task")
    if options.get("nodes", "1") != "1" and "--kill-on-bad-exit=1" not in step:
        fail("sbatch: error: where one task is killed the others would stay: srun --kill-on-bad-exit=1")
    array = re.fullmatch(r"0-(\d+)%(\d+)", options["array"]) if "array" in options else None
    if "array" in options and (array is None or int(array[1]) > 1000):
        fail("sbatch: error: Batch job submission failed: Invalid job array specification")
    while True:  # two commands may submit at once
        number = max([100, *(int(file.stem) for file in (folder / "scripts").glob("*.sh"))]) + 1
        kept = folder / "scripts" / f"{number}.sh"
        with contextlib.suppress(FileExistsError), kept.open("x") as file:
            file.write(script)
            break
    names = [f"{number}_{task}" for task in range(int(array[1]) + 1)] if array else [str(number)]
    common = {"state": "PENDING", "array": str(number), "throttle": int(array[2]) if array else 0, "options": options}
    common |= {"script": str(kept), "place": os.getcwd(), "environment": dict(os.environ), "restarts": 0, "node": ""}
    for task, name in enumerate(names):
        write(folder / "jobs" / f"{name}.json", {**common, "id": str(number if not task else 1000 * number + task)})
    print(f"Submitted batch job {number}")


def srun(folder, words):
    files, wait = {}, float("inf")
    while words and words[0].startswith("--"):
        key, equals, value = words.pop(0)[2:].partition("=")
        if key in ("output", "error"):
            files[key] = value if equals else words.pop(0)
        elif key == "wait":
            wait = float(value)
        elif key not in ("unbuffered", "cpus-per-task", "kill-on-bad-exit", "wait"):
            fail(f"srun: unrecognized option '--{key}'")
    name, number = os.environ["STAND_IN_JOB"], int(os.environ["SLURM_NTASKS"])
    write(folder / "steps" / name, os.getpid())
    if number == 1:
        os.environ |= own(0)
        for stream, key in ((1, "output"), (2, "error")):
            os.dup2(appended(files[key], name), stream)
        os.execvp(words[0], words)
    tasks = [
        subprocess.Popen(
            words,
            env={**os.environ, **own(task)},
            stdout=appended(files["output"], name, task),
            stderr=appended(files["error"], name, task),
        )
        for task in range(number)  # one on each node
    ]
    for code in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT):  # all of them get it
        signal.signal(code, lambda code, frame: [task.send_signal(code) for task in tasks])
    last = None
    while None in (codes := [task.poll() for task in tasks]):
        if codes != [None] * number and last is None:
            last = time.monotonic() + wait
        if any(codes) or (last and time.monotonic() > last):  # --kill-on-bad-exit, --wait
            for task in tasks:
                task.kill()
        time.sleep(0.02)
    sys.exit(max(code if code >= 0 else 128 - code for code in codes))


def own(task):
    """What a step's process knows of itself."""
    return {"SLURM_PROCID": str(task), "SLURM_NODEID": str(task), "SLURM_LOCALID": "0", "SLURM_STEP_ID": "0"}


def appended(path, name, task=0):
    return os.open(pattern(path, name, task), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def sacct(folder, words):
    asked = words[words.index("-j") + 1].split(",")
    if words[words.index("-o") + 1] != "JobID,State,NodeList" or not {"-X", "-n", "-P"} <= {*words}:
        fail(f"sacct: error: the stand-in knows no {words}")
    waiting = {}
    for name, job in jobs_in(folder).items():
        if job["array"] not in asked:
            continue
        if job["state"] == "PENDING" and "_" in name and not job["restarts"]:
            waiting.setdefault(job["array"], (job["throttle"], []))[1].append(int(name.partition("_")[2]))
        else:
            print(f"{name}|{job['state']}|{job['node'] or 'None assigned'}")
    for array, (throttle, tasks) in waiting.items():
        print(f"{array}_[{','.join(spans(tasks))}%{throttle}]|PENDING|None assigned")


def spans(numbers):
    """Numbers as Slurm writes them: 1-3,5."""
    found = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [f"{first}-{last}" if last > first else f"{first}" for first, last in found]


def named(folder, number):
    """The jobs that a number is about: by an array's, its own, or the one that only Slurm uses."""
    found = [
        name
        for name, job in jobs_in(folder).items()
        if number in (name, job["id"]) or ("_" not in number and number == job["array"])
    ]
    return found or fail(f"error: Invalid job id specified: {number}")


def scontrol(folder, words):
    if words[0] != "requeue":
        fail(f"scontrol: error: the stand-in knows no {words[0]}")
    for name in named(folder, words[1]):
        if "requeue" not in read(folder / "jobs" / f"{name}.json")["options"]:
            fail("scontrol: error: Requested operation is presently disabled")
        write(folder / "asked" / f"{name}.requeue", time.time())


def scancel(folder, words):
    for number in words:
        for name in named(folder, number):
            write(folder / "asked" / f"{name}.cancel", time.time())


if __name__ == "__main__":
    if sys.argv[1] in COMMANDS:
        globals()[sys.argv[1]](Path(os.environ[QUEUE]), sys.argv[2:])
    else:
        with Cluster(Path(sys.argv[1]).absolute()) as here:
            print(f'export PATH="{here.folder / "bin"}:$PATH"', flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(1)
