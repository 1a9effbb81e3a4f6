"""Where many runs are trained: in processes here, on a Ray cluster, or by Slurm."""
