"""The commands of `rl-lab`, one a file; `rl_lab.cli` imports each only when it is run."""
