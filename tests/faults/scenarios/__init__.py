"""How things are broken: each scenario is given a case_run and breaks one thing in it."""
