#!/usr/bin/env bash
# Test a checkpoint with one process per GPU, or, on a machine without one, with that many processes on the CPU (gloo).
set -euo pipefail

if [[ $# -lt 3 || ! $3 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [arguments of test.py]   (environment: NNODES NODE_RANK MASTER_ADDR PORT PYTHON)" >&2
    exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3
. "$(dirname "${BASH_SOURCE[0]}")/torchrun.sh" test.py "$gpus" "$config" "$checkpoint" --launcher pytorch "$@"
