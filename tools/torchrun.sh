# What dist_train.sh and dist_test.sh share: `. torchrun.sh TOOL GPUS ARGUMENTS` becomes torchrun with that tool.
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tool=$1 gpus=$2
shift 2

# One machine and no PORT: torchrun picks a free port, so two runs never collide. Several machines must agree on one.
if [[ ${NNODES:-1} == 1 && -z ${PORT:-} ]]; then
    where=(--standalone --local-addr=127.0.0.1)
else
    where=(--nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}"
           --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}")
fi

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # torchrun's own default, said here so that it does not warn about it
path=$(printf %s "${PYTHONPATH:-}" | sed 's/::*/:/g; s/^://; s/:$//')  # an empty entry would be the current folder
export PYTHONPATH=$tools/..${path:+:$path}
# Not by -m, which would import from the current folder first. All processes end with the same line, and torchrun has words of
# its own for that: they leave it in a file, and it is said once, last.
run='
import os, sys, tempfile
sys.path[:] = [path for path in sys.path if path]
from torch.distributed.run import main
with tempfile.TemporaryDirectory() as folder:
    os.environ["MMCRRCD_ERROR_FILE"] = file = os.path.join(folder, "line")
    try:
        main()
    except BaseException:
        if not os.path.exists(file):
            raise
        sys.exit(open(file).read().rstrip())
'
exec "${PYTHON:-python}" -c "$run" "${where[@]}" --nproc-per-node="$gpus" "$tools/$tool" "$@"
