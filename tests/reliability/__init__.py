"""Harm done to runs, by one command: `python -m tests.reliability kills | crashes | damage | disk | long | all`.

kills end new processes at random moments, crashes every verb at each of its file operations. damage spoils files, disk
leaves no room, long trains for ten thousand steps. Results are compared bit for bit with those of undisturbed runs.
The test suite does a little of each harm. The figures in docs/reliability.md come from these commands.
"""
