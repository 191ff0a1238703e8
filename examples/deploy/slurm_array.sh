#!/bin/bash
# Maps a list of scenes in an array job of Slurm: each task maps its share.
#
#   sbatch slurm_array.sh scenes.txt /shared/maps
#   sbatch --dependency=afterany:JOB --wrap 'geocfl catalog /shared/maps'
#   geocfl status /shared/maps
#
# Give every task the same list. Submit the same command again to map what is missing.
#SBATCH --job-name=geocfl
#SBATCH --array=0-99
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
#SBATCH --output=geocfl-%A_%a.log

set -euo pipefail
scenes=${1:?usage: sbatch slurm_array.sh SCENES OUT}
out=${2:?usage: sbatch slurm_array.sh SCENES OUT}
mkdir -p "$out"

status=0
srun geocfl map --list "$scenes" --out "$out" --shard auto \
    --events "$out/$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID.jsonl" || status=$?

# 143: stopped two minutes before the time limit, or preempted. It resumes after the last finished strip.
if [[ $status -eq 143 ]]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$status"
