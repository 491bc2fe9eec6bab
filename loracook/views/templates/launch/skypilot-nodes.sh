export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=300 # seconds to save a checkpoint in, else 30
exec torchrun --nnodes="$SKYPILOT_NUM_NODES" --node_rank="$SKYPILOT_NODE_RANK" \
  --nproc_per_node=@processes_per_node \
  --master_addr="$(head -n 1 <<< "$SKYPILOT_NODE_IPS")" --master_port=29500 \
  @run
