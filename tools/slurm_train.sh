#!/usr/bin/env bash
# Train on a Slurm cluster, one task per GPU.
set -euo pipefail

if [[ $# -lt 4 ]]; then
    echo "usage: $0 PARTITION JOB CONFIG WORK_DIR [arguments of train.py]   (environment: GPUS GPUS_PER_NODE CPUS_PER_TASK SRUN_ARGS PORT PYTHON)" >&2
    exit 2
fi
partition=$1 job=$2 config=$3 work_dir=$4
shift 4
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
read -ra srun_args <<< "${SRUN_ARGS:-}"

if [[ -n ${PORT:-} ]]; then
    export MASTER_PORT=$PORT  # where mmengine's slurm launcher looks for it
fi
path=$(printf %s "${PYTHONPATH:-}" | sed 's/::*/:/g; s/^://; s/:$//')  # an empty entry would be the current folder
export PYTHONPATH=$tools/..${path:+:$path}
exec srun --partition="$partition" --job-name="$job" \
    --gres="gpu:$gpus_per_node" --ntasks="$gpus" --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${srun_args[@]+"${srun_args[@]}"} \
    "${PYTHON:-python}" -u "$tools/train.py" "$config" --work-dir="$work_dir" --launcher=slurm "$@"
