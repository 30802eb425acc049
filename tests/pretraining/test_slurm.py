"""The Slurm script, with stand-ins for Slurm's commands; torchrun and training are real in one."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import yaml

from matpac.core import files

import smoke

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "slurm" / "pretrain.sbatch"

LIMIT_S = 240
"""Seconds until a script is taken to hang."""

# Like Slurm's: starts one task in a session of its own; SIGTERM kills it at once (`srun: forcing
# job termination`), which is why the script must not use it.
SRUN = """
echo "srun $*" >> "$LOG"
while [[ $1 == --* ]]; do shift; done
export SLURM_NODEID=0 SLURMD_NODENAME=localhost SLURM_NNODES=1
setsid "$@" &
task=$!
echo "$task" > "$LOG.task"
trap 'echo "srun killed its task" >> "$LOG"; kill -KILL -- "-$task"' TERM
wait "$task"
"""
SCONTROL = """
echo "scontrol $*" >> "$LOG"
[[ $1 != show ]] || printf '%b' "$HOSTS"
[[ $HOSTS != broken ]]
"""
SCANCEL = """
echo "scancel $*" >> "$LOG"
kill -TERM "$(cat "$LOG.task")"
"""
# An interpreter that knows what the script asks it. As torchrun it starts one training process,
# which does what $TRAINING says, and fails if that does.
PYTHON = """
echo "python $*" >> "$LOG"
case "$*" in
    "-m matpac.cli check") ;;
    "-c "*) echo "$BULK" ;;
    *)
        env | grep -E '^(SRUN_|OMP_|NCCL_|GLOO_)' | sort >> "$LOG"
        trap 'echo "torchrun told" >> "$LOG"' TERM
        mkfifo "$LOG.fifo"
        touch "$LOG.torchrun"
        read -rt "${MEETING_S:-0}" <> "$LOG.fifo" # waits without a process of its own
        bash -c "$TRAINING" &
        wait $! || exit 1
        ;;
esac
"""
UNTIL_TOLD = """
trap told=1 TERM
touch "$LOG.started"
for ((i = 0; i < 400; i++)); do [[ ${told:-} ]] && break; sleep 0.05; done
"""
STATE = '"$BULK/checkpoints/base/fingerprint/state-000000001.pt"'


class Cluster:
    """A folder with Slurm's commands, in which the script runs.

    Args: folder: for all of it; variables: of the job's environment, more or other.
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        self.log = folder / "log"
        self.log.touch()
        (folder / "bin").mkdir(exist_ok=True)
        for name, text in (
            ("srun", SRUN),
            ("scontrol", SCONTROL),
            ("scancel", SCANCEL),
            ("python", PYTHON),
        ):
            path = folder / "bin" / name
            path.write_text(f"#!/bin/bash\n{text}")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.states = folder / "bulk" / "paper" / "checkpoints" / "base" / "fingerprint"
        self.states.mkdir(parents=True, exist_ok=True)
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("SLURM_", "OMP_"))}
        self.environment = kept | {
            "PATH": path,
            "LOG": str(self.log),
            "HOSTS": "node7\\nnode8\\n",
            "BULK": str(folder / "bulk" / "paper"),
            "PYTHON": "python",
            "TRAINING": "true",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_ID": "123456",
            "SLURM_JOB_NODELIST": "node[7-8]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_GPUS_ON_NODE": "4",
            "SLURM_CPUS_PER_TASK": "16",
            **variables,
        }

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", str(SCRIPT)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self) -> tuple[int, str]:
        """Exit status and output of the script."""
        with self.start() as script:
            output, _ = script.communicate(timeout=LIMIT_S)
        return script.returncode, output

    def told_to_stop(self, started: Path) -> tuple[int, str]:
        """The same, with SIGTERM to the script once a file is there."""
        with self.start() as script:
            wait_for(started, script)
            script.send_signal(signal.SIGTERM)
            output, _ = script.communicate(timeout=LIMIT_S)
        return script.returncode, output

    def calls(self, command: str) -> list[str]:
        """What was asked of a command."""
        lines = self.log.read_text().splitlines()
        return [
            line.removeprefix(f"{command} ") for line in lines if line.startswith(f"{command} ")
        ]


def wait_for(path: Path, script: subprocess.Popen, seconds: float = LIMIT_S) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert script.poll() is None, script.communicate()[0]
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def test_the_job_can_be_queued_again() -> None:
    options = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    for option in ("--requeue", "--signal=B:TERM@180", "--open-mode=append"):
        assert f"#SBATCH {option}" in options
    assert "#SBATCH --ntasks-per-node=1" in options


def test_one_torchrun_per_machine_meets_at_the_first(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, INTERFACE="ib0")
    status, output = cluster.run()
    assert status == 0
    port = 10000 + 123456 % 20000
    assert cluster.calls("scontrol") == ["show hostnames node[7-8]"]
    (srun,) = cluster.calls("srun")
    assert srun == f"--kill-on-bad-exit=1 bash slurm/node.sh python 4 node7:{port} base"
    assert cluster.calls("python")[0] == "-m matpac.cli check"  # before anything is started
    assert cluster.calls("python")[-1] == (
        "-m torch.distributed.run --nnodes 1 --nproc-per-node 4 --rdzv-backend c10d "
        f"--rdzv-id 123456 --rdzv-endpoint node7:{port} "
        "--rdzv-conf is_host=1,read_timeout=300 --local-addr localhost "
        "-m matpac.cli pretrain base"
    )
    log = cluster.log.read_text()
    for setting in ("SRUN_CPUS_PER_TASK=16", "OMP_NUM_THREADS=4", "NCCL_SOCKET_IFNAME=ib0"):
        assert f"\n{setting}\n" in log
    assert "dvc commit --force pretrain@paper-base" in output


@pytest.mark.parametrize("hosts", ["", "\\n", "broken"])
def test_without_machines_nothing_starts(tmp_path: Path, hosts: str) -> None:
    cluster = Cluster(tmp_path, HOSTS=hosts)
    status, output = cluster.run()
    assert status == 1 and "pretrain.sbatch: scontrol names no machine" in output
    assert cluster.calls("srun") == [] and "localhost" not in output


@pytest.mark.parametrize(
    "missing", ["SLURM_JOB_NODELIST", "SLURM_GPUS_ON_NODE", "SLURM_SUBMIT_DIR"]
)
def test_outside_a_job_nothing_starts(tmp_path: Path, missing: str) -> None:
    cluster = Cluster(tmp_path)
    del cluster.environment[missing]
    status, output = cluster.run()
    assert status != 0 and missing in output and cluster.calls("srun") == []


def test_an_array_trains_a_run_per_task(tmp_path: Path) -> None:
    array = {"RUNS": "base k512", "SLURM_ARRAY_JOB_ID": "99", "SLURM_ARRAY_TASK_ID": "1"}
    cluster = Cluster(tmp_path, **array)
    status, output = cluster.run()
    assert status == 0 and "dvc commit --force pretrain@paper-k512" in output
    assert cluster.calls("srun")[0].endswith(" k512")
    (tmp_path / "other").mkdir()
    beyond = Cluster(tmp_path / "other", **array | {"SLURM_ARRAY_TASK_ID": "2"})
    status, output = beyond.run()
    assert status == 1 and "array task 2 has no run: RUNS holds 2" in output
    assert beyond.calls("srun") == []


@pytest.mark.parametrize("array", [False, True], ids=["job", "array task"])
def test_a_stopped_job_is_queued_again_when_its_state_is_saved(tmp_path: Path, array: bool) -> None:
    task = {"SLURM_ARRAY_JOB_ID": "99", "SLURM_ARRAY_TASK_ID": "0"} if array else {}
    # Saving takes a second.
    training = f"{UNTIL_TOLD} sleep 1; touch {STATE}; exit 75"
    cluster = Cluster(tmp_path, TRAINING=training, **task)
    (cluster.states / "state-000000000.pt").touch()  # an earlier one is not enough
    status, output = cluster.told_to_stop(tmp_path / "log.started")
    job = "99_0" if array else "123456"
    assert status == 0, output
    assert cluster.calls("scancel") == [f"--signal=TERM {job}"]
    assert cluster.calls("scontrol")[1:] == [f"requeue {job}"]
    log = cluster.log.read_text()
    assert "srun killed" not in log and "torchrun told" not in log  # or saving would be cut short
    assert list(cluster.states.parent.glob(".told-*")) == []


def test_a_job_is_told_to_stop_before_its_training_processes_are_there(tmp_path: Path) -> None:
    """Machines may wait for each other for minutes."""
    training = f"{UNTIL_TOLD} [[ ${{told:-}} ]] && touch {STATE}; exit 75"
    cluster = Cluster(tmp_path, TRAINING=training, MEETING_S="1.5")
    status, output = cluster.told_to_stop(tmp_path / "log.torchrun")
    assert status == 0, output
    assert cluster.calls("scontrol")[1:] == ["requeue 123456"]


def test_without_a_new_state_the_job_is_not_queued_again(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, TRAINING=f"{UNTIL_TOLD} exit 1")
    (cluster.states / "state-000000000.pt").touch()
    status, output = cluster.told_to_stop(tmp_path / "log.started")
    assert status == 1 and "no state was saved in time" in output
    assert len(cluster.calls("scontrol")) == 1


def test_a_failed_job_is_not_queued_again(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, TRAINING=f"touch {STATE}; exit 1")
    status, output = cluster.run()
    assert status == 1 and "run base failed with exit status 1; not queued again" in output
    assert len(cluster.calls("scontrol")) == 1


@pytest.mark.ddp
@pytest.mark.slow
def test_a_run_of_two_processes_stops_and_goes_on(tmp_path: Path) -> None:
    """Real torchrun, real training: the job script twice, as Slurm would start it again."""
    sections = smoke.sections()
    sections["pretrain"] |= {"epochs": 12.0, "batch_size": 4, "checkpoint_every_s": 0.1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))
    bulk = tmp_path / "data" / "smoke"
    tiny.make_store(bulk / "logmel" / "noise", [96 + n for n in range(20)])
    files.write_json(bulk / "logmel" / "pretraining.json", tiny.pretraining_index(bulk))
    cluster = Cluster(
        tmp_path,
        PYTHON=sys.executable,
        HOSTS="localhost\\n",
        SLURM_JOB_NUM_NODES="1",
        GPUS_PER_NODE="2",
        OMP_NUM_THREADS="1",
        MATPAC_ROOT=str(tmp_path),
        PYTHONPATH=str(ROOT),
    )
    folder = bulk / "checkpoints" / "base"
    with cluster.start() as script:
        end = time.monotonic() + LIMIT_S
        while not list(folder.glob("*/state-*.pt")):  # training has begun
            assert script.poll() is None and time.monotonic() < end, script.communicate()[0]
            time.sleep(0.05)
        script.send_signal(signal.SIGTERM)
        output, _ = script.communicate(timeout=LIMIT_S)
    assert script.returncode == 0, output
    assert cluster.calls("scontrol")[-1] == "requeue 123456"
    step = max(int(state.stem.split("-")[1]) for state in folder.glob("*/state-*.pt"))
    assert 0 < step < 60
    status, output = cluster.run()
    assert status == 0, output
    assert f"base: resuming at step {step}" in output
    assert "dvc commit --force pretrain@smoke-base" in output
    metrics = files.read_json(tmp_path / "data" / "smoke" / "metrics" / "pretrain" / "base.json")
    assert metrics["seed_0"]["steps"] == 60
