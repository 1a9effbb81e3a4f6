"""Searching a recipe for better values: trials drawn by optuna, each a run like any other.

    <runs>/<name>/
        sweep.yaml            the resolved recipe with its `sweep` section
        journal.log           every trial, as optuna's journal of JSON lines
        trial<n>-seed<k>/     the runs of a trial
        defaults-seed<k>/     the recipe as it is, on fresh seeds
        winner<n>-seed<k>/    the best trials, on the same fresh seeds
        result.json, winner.yaml

A sweep that was stopped or killed goes on from its journal and from its runs' checkpoints.
"""
