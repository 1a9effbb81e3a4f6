"""Reports of runs, groups and suites: plain data first, then a page and JSON of the same."""
