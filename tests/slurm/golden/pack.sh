#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --job-name=ablate-L1-0
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --open-mode=append
#SBATCH --output=/results/launches/L1/arrays/0/%A_%a_script_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
echo "ablate: job script begins, restart ${SLURM_RESTART_COUNT:-0}, on $(hostname)"
export PYTHONPATH=/results/code/abc${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1  # or the folder that sbatch was called in would come first
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
trap '' TERM  # the last lines below are run even then
for _ in $(seq 1 "${SLURM_RESTART_COUNT:-0}"); do
  timeout 60 srun --quiet --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=1 --gres=none \
    true < /dev/null > /dev/null 2>&1 || true
done

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /results/launches/L1/arrays/0/%A_%a_%t_log.out --kill-on-bad-exit=0 --wait=0 --cpus-per-task=8 sh -c 'trap "" USR2 TERM; ending=$1 folder=$2; shift 2; "$@" & child=$!; trap '"'"'kill -USR2 "$child" 2> /dev/null'"'"' USR2 TERM; wait "$child"; code=$?; while kill -0 "$child" 2> /dev/null; do wait "$child"; code=$?; done; trap "" USR2 TERM; exec "$ending" -m slurm.ending "$folder" "$code" "$SLURM_PROCID"' sh PYTHON /results/launches/L1/arrays/0 sh -c 'trap "" USR2; exec "$@"' sh PYTHON -u -m slurm.worker /results/launches/L1/arrays/0


# teardown
code=$?
PYTHON -m slurm.ending /results/launches/L1/arrays/0 $code
exit $?
