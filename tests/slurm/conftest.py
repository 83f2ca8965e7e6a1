"""A real one-node Slurm for the session, and a small run that can be submitted to it."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPT = ROOT / "scripts" / "train.sbatch"
STEPS = 60  # 20 epochs of 15 recordings in batches of 5


class Cluster:
    """What the tests ask of Slurm."""

    def __init__(self, environment, words):
        self.environment, self.words = environment, words

    def run(self, *command, check=True, timeout=60):
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=timeout
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout

    def submit(self, work, *overrides, options=(), script=SCRIPT):
        """Submit the shipped job script with the small run; gives the job's number."""
        log = f"--output={work}/%j.out"
        told = self.run(
            *("sbatch", "--parsable", f"--chdir={work}", "--cpus-per-task=1", log, *options, str(script)),
            *(*self.words, f"paths.runs={work}/runs", *overrides),
        )
        return told.strip()

    def start_sweep(self, work, *overrides):
        """Start a multirun whose elements submitit sends to the cluster."""
        command = [sys.executable, "-m", "eventclip.train", "-m", *self.words, "hydra/launcher=slurm"]
        own = ("hydra.launcher.cpus_per_task=1", f"hydra.sweep.dir={work}/sweep", *overrides)
        values = [o.split("=")[0] for o in overrides]
        words = [word for word in [*command, *own] if word.split("=")[0] not in values or word in overrides]
        return subprocess.Popen(
            words, cwd=work, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def state(self, job):
        told = self.run("scontrol", "-o", "show", "job", job)
        return dict(re.findall(r"(\w+)=(\S+)", told))

    def tasks(self, job):
        """Process numbers of the tasks that srun started; none before it has."""
        rows = [row.split() for row in self.run("scontrol", "listpids", f"{job}.0", check=False).splitlines()[1:]]
        return [int(process) for process, _, _, task, *_ in rows if task.isdigit()]

    def wait_for_end(self, job, seconds=240):
        """State of a job that is over, and has been for a second: between two turns one looks over for a moment."""
        over = []

        def stays_over():
            state = self.state(job)
            if state["JobState"] in ("PENDING", "RUNNING", "COMPLETING"):
                over.clear()
            else:
                over.append((time.monotonic(), state))
            return over and over[-1][0] - over[0][0] >= 1

        self.wait_for(stays_over, job, seconds)
        end = over[-1][1]
        print(job, end["JobState"], end["ExitCode"], Path(end["StdOut"]).read_text())  # shown where a test fails
        return end

    def wait_for(self, condition, job="", seconds=240):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{job}: {self.state(job) if job else ''}"
            time.sleep(0.2)

    def folder(self, work, job):
        """The run's folder, once it is there."""
        found = work / "runs" / "fewshot_ncaltech"
        self.wait_for(lambda: list(found.glob(f"slurm-{job}-*")), job)
        (folder,) = found.glob(f"slurm-{job}-*")
        return folder

    def training(self, work, job):
        """Wait until a job has saved a first checkpoint; gives its folder."""
        folder = self.folder(work, job)
        self.wait_for((folder / "checkpoints" / "last.ckpt").exists, job)
        return folder


@pytest.fixture(scope="session")
def words(learnable_root):
    """The small run: deterministic, with dropout and validation, some seconds long."""
    return [
        *("experiment=fewshot_ncaltech", f"data.root={learnable_root}", "data.sensor_hw=[60,80]"),
        *("frames.events_per_frame=200", "data.p95_events=600", "data.augmentation.max_shift=3", "clip=tiny"),
        *("fewshot.shots=5", "data.batch_size=5", "optim.lr=0.01", "trainer.max_epochs=20", "data.num_workers=1"),
        *("selection=validation", "callbacks.last.every_n_steps=7", "callbacks.progress=null"),
        *("adapter=joint", "adapter.width=16", "adapter.mlp_width=16", "adapter.heads=2"),
        *("+callbacks.pace._target_=pace.Pace", "+callbacks.pace.seconds=0.1"),
    ]


@pytest.fixture(scope="session")
def job_environment():
    """Environment of the runs, on the cluster and off it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    python = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PATH": path, "PYTHONPATH": python, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture(scope="session")
def cluster(words, job_environment):
    """A running cluster; the tests are skipped, and say so, where Slurm is not installed and may not be."""
    folder = tempfile.mkdtemp(prefix="slurm", dir="/tmp")  # short: paths of Unix sockets are limited
    script = str(HERE / "cluster.py")
    try:
        begun = subprocess.run(
            [sys.executable, script, "start", folder], stdout=subprocess.PIPE, text=True, check=False
        )
        if begun.returncode == 77:
            pytest.skip(begun.stdout.strip())
        assert begun.returncode == 0
        yield Cluster({**job_environment, "SLURM_CONF": f"{folder}/slurm.conf"}, words)
    finally:
        subprocess.run([sys.executable, script, "stop", folder], check=False)


@pytest.fixture(scope="session")
def unbroken(words, job_environment, tmp_path_factory):
    """The folder of a run that was never interrupted, outside Slurm."""
    folder = tmp_path_factory.mktemp("unbroken")
    command = [sys.executable, "-m", "eventclip.train", *words, "callbacks.pace=null", f"hydra.run.dir={folder}"]
    done = subprocess.run(command, env=job_environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder
