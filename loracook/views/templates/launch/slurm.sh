#!/bin/bash
#SBATCH --job-name=@name
#SBATCH --nodes=@nodes
#SBATCH --ntasks-per-node=@tasks
@gpu_line
@time_line
# 300 s before the time is up every process gets SIGUSR1, saves a checkpoint and ends with exit code 75.
#SBATCH --signal=USR1@@300
# A preempted job is queued again, and its output is appended.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# What your cluster asks for besides; remove one # to use a line.
##SBATCH --partition=gpu
##SBATCH --account=my-project
##SBATCH --cpus-per-task=8

# @made
# Submit it with: sbatch FILE
#
@files

set -euo pipefail

@activate
cd -- @folder
# Downloads and prepared rows, in folders that every node reaches. A home folder's quota may be too small for them.
export HF_HOME="${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}"
export LORACOOK_CACHE="${LORACOOK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/loracook}"
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
  export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK" # srun does not take it over from sbatch
fi

code=0
@start

# 75: stopped by a signal, and the checkpoint is saved. The same job, queued again, resumes from it.
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
