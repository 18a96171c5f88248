#!/usr/bin/env bash
# Trains a student on several machines: the same command on each, which all see the folders of data and run.
#   HEAD=first-machine:29500 NODES=2 examples/cluster/each_node.sh --data DATA --run RUN --stages paper --model gen3c
# NODES=1:4 lets machines come and go: the batch of a step is the same, so that as many processes as divide it go on
# with the curve.
set -euo pipefail
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes "${NODES:-2}" --nproc-per-node "${PROCESSES:-gpu}" \
  --rdzv-backend c10d --rdzv-endpoint "${HEAD:?the first machine and a free port of it, as in head:29500}" \
  --rdzv-id "${RUN_ID:-lyra}" --max-restarts "${RESTARTS:-3}" -m -- lyra.cli train student "$@"
