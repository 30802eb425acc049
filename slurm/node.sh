#!/bin/bash
# One machine of a Slurm job: torchrun and its training processes. Started by pretrain.sbatch as
#   node.sh PYTHON PROCESSES HOST:PORT RUN
set -uo pipefail
python=$1 processes=$2 meeting=$3 run=$4

# Slurm says which machine hosts the meeting, and how the others call this one; torchrun's own
# guesses hang where a host has several names.
"$python" -m torch.distributed.run \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$processes" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$meeting" \
    --rdzv-conf "is_host=$((SLURM_NODEID == 0)),read_timeout=300" \
    --local-addr "$SLURMD_NODENAME" \
    -m matpac.cli pretrain "$run" &
torchrun=$!

# The training processes are told, not torchrun, which would give them no more than 30 seconds; and
# told when they are there, as machines may wait for each other before.
trap 'until pkill -TERM -P "$torchrun" || ! kill -0 "$torchrun" 2> /dev/null; do sleep 1; done' TERM

wait "$torchrun"
status=$?
while ((status > 128)) && kill -0 "$torchrun" 2> /dev/null; do  # a signal had ended the wait
    wait "$torchrun"
    status=$?
done
exit "$status"
