#!/usr/bin/env bash
# Trains a student on all GPUs of one machine, or in PROCESSES processes of its processor.
#   examples/cluster/one_node.sh --data DATA --run RUN --stages paper --model gen3c
# A process that dies takes the others down; all start again, RESTARTS times, and go on from the last checkpoint.
set -euo pipefail
# A store of its own for every start: one that is shared still has the addresses of processes that are gone.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc-per-node "${PROCESSES:-gpu}" \
  --max-restarts "${RESTARTS:-3}" -m -- lyra.cli train student "$@"
