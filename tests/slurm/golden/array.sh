#!/bin/bash

# Parameters
#SBATCH --array=0-2%2
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --job-name=ablate-L1-0
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/results/launches/L1/arrays/0/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
export PYTHONPATH=/results/code/abc${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1  # or the folder that sbatch was called in would come first
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
trap '' TERM  # the last lines below are run even then

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /results/launches/L1/arrays/0/%A_%a_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=8 sh -c 'trap "" USR2; exec "$@"' sh PYTHON -u -m submitit.core._submit /results/launches/L1/arrays/0


# teardown
code=$?
PYTHON -m slurm.ending /results/launches/L1/arrays/0 $code
exit $?
