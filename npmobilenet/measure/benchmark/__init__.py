"""How long a model takes to load, compile and run, and how much memory that needs: measured in fresh processes.

`subprocess_run.py` starts a process and reads its document; `child.py` is what happens there; `measure.py`,
`machine.py` and `random_model.py` are what it measures with.
"""
