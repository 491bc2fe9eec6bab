# srun starts one process for each GPU. torchrun would end with 1 where its processes end with 75.
read -r MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export WORLD_SIZE="$SLURM_NTASKS" LOCAL_WORLD_SIZE=@tasks
# --wait: once a process has ended, the others have 60 s to end by themselves.
srun --kill-on-bad-exit=0 --wait=60 bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec "$@@"' rank \
  @run || code=$?
