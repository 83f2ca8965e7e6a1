"""A real Slurm cluster of one node in a folder, for tests: ``python cluster.py start DIR`` and ``... stop DIR``.

No systemd, no cgroups, nothing outside DIR but the Debian packages, and nothing listens but on 127.0.0.1. Runs as
the user who starts it. Exit status 77 means "not here": packages are missing and may not be installed.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
DAEMONS = ("munged", "slurmctld", "slurmd")
NOT_HERE = 77
POLICY = Path("/usr/sbin/policy-rc.d")

CONF = """\
ClusterName=test
# The node is called localhost, which every library can resolve, and the daemons bind to the address they are named by.
SlurmctldHost=localhost(127.0.0.1)
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A requeued job starts again only when its credential has expired; asked for 3 s, Slurm takes its default of 120.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# More CPUs than the machine may have: jobs share its cores.
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MinJobAge=3600
JobRequeue=1
# A job of the high partition takes the place of one of main: it is signalled, has GraceTime, and is requeued.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/none
PartitionName=main Nodes=localhost Default=YES DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=localhost DefaultTime=60 PriorityTier=10 PreemptMode=OFF
"""


def start(folder: Path) -> None:
    """Write the configuration, start the daemons, and wait until the node takes jobs."""
    install()
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        ports = a.getsockname()[1], b.getsockname()[1]
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    text = CONF.format(folder=folder, user=user, cpus=4, controller_port=ports[0], node_port=ports[1])
    (folder / "slurm.conf").write_text(text)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    folder.chmod(0o700)
    names = {option: f"--{option}-file={folder}/munge" for option in ("key", "pid", "log", "seed")}
    run("munged", "--force", f"--socket={folder}/munge.socket", f"{names['key']}.key", f"{names['pid']}d.pid",
        f"{names['log']}.log", f"{names['seed']}.seed")  # fmt: skip
    run("slurmctld")
    wait_for("the controller", "scontrol", "ping")
    run("slurmd", "-N", "localhost")
    wait_for("the node", "srun", "--immediate=1", "true")


def install() -> None:
    """Install what is missing, where that is allowed."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    allowed = os.environ.get("EVENTCLIP_INSTALL_SLURM") == "1" and os.getuid() == 0 and shutil.which("apt-get")
    if not allowed:
        print(
            f"Slurm is not installed ({' '.join(missing)}); EVENTCLIP_INSTALL_SLURM=1 lets root install it by apt-get"
        )
        sys.exit(NOT_HERE)
    own_policy = not POLICY.exists()
    if own_policy:  # installing must not start daemons
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        apt = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *missing]
        if subprocess.run(apt, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
            subprocess.run(["apt-get", "-qq", "update"], env=environment, check=False)
            if subprocess.run(apt, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
                print(f"apt-get could not install {' '.join(missing)}")
                sys.exit(NOT_HERE)
    finally:
        if own_policy:
            POLICY.unlink()


def stop(folder: Path) -> None:
    """End the jobs, then the daemons and whatever else runs with this cluster's configuration."""
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    subprocess.run(["scancel", "--user", str(os.getuid())], timeout=30, check=False)
    deadline = time.monotonic() + 20
    while (
        time.monotonic() < deadline
        and subprocess.run(["squeue", "-h"], capture_output=True, timeout=30, check=False).stdout.strip()
    ):
        time.sleep(0.2)
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 10
        while (own := processes_of(folder)) and time.monotonic() < deadline:
            for pid in own:
                os.kill(pid, number)
            time.sleep(0.3)


def processes_of(folder: Path) -> list[int]:
    """Living daemons of this cluster: those whose command line or environment names its folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
            told = (process / "cmdline").read_bytes() + b"\0" + (process / "environ").read_bytes()
            zombie = "State:\tZ" in (process / "status").read_text()
        except OSError:
            continue
        if name in (*DAEMONS, "slurmstepd") and f"{folder}/".encode() in told and not zombie:
            found.append(int(process.name))
    return found


def run(*command: str) -> None:
    """Run a daemon, which puts itself into the background and holds none of our pipes."""
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30,
                   check=True)  # fmt: skip


def wait_for(what: str, *command: str) -> None:
    """Repeat a command until it succeeds."""
    deadline = time.monotonic() + 30
    while subprocess.run(command, capture_output=True, timeout=30, check=False).returncode:
        if time.monotonic() > deadline:
            sys.exit(f"{what} of the test cluster did not come up")
        time.sleep(0.2)


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]](Path(sys.argv[2]).resolve())
