#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --constraint='ib&hdr'
#SBATCH --cpus-per-task=12
#SBATCH --dependency=afterok:41_2
#SBATCH --exclude=node07,node08
#SBATCH --gres=gpu:a100:8
#SBATCH --job-name=ablate-L1-3
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=492032M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/results/launches/L1/arrays/3/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=long
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=720

# setup
echo "ablate: job script begins, restart ${SLURM_RESTART_COUNT:-0}, on $(hostname)"
export NCCL_DEBUG=WARN
export NOTE='two words; $HOME'
module load cuda/12
export PYTHONPATH=/results/code/abc${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1  # or the folder that sbatch was called in would come first
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-12}
trap '' TERM  # the last lines below are run even then
for _ in $(seq 1 "${SLURM_RESTART_COUNT:-0}"); do
  timeout 60 srun --quiet --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=1 --gres=none \
    true < /dev/null > /dev/null 2>&1 || true
done

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /results/launches/L1/arrays/3/%j_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=12 apptainer exec --nv /shared/suite.sif sh -c 'trap "" USR2; exec "$@"' sh /shared/envs/suite/bin/python -u -m slurm.worker /results/launches/L1/arrays/3


# teardown
code=$?
PYTHON -m slurm.ending /results/launches/L1/arrays/3 $code
exit $?
