srun @run || code=$?
