#!/usr/bin/env bash
# Train with one process per GPU, or, on a machine without one, with that many processes on the CPU (gloo).
set -euo pipefail

if [[ $# -lt 2 || ! $2 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 CONFIG GPUS [arguments of train.py]   (environment: NNODES NODE_RANK MASTER_ADDR PORT PYTHON)" >&2
    exit 2
fi
config=$1 gpus=$2
shift 2
. "$(dirname "${BASH_SOURCE[0]}")/torchrun.sh" train.py "$gpus" "$config" --launcher pytorch "$@"
