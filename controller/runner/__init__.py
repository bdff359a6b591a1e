"""Runs of pipelines: claimed from the queue, driven stage by stage, brought to one end whatever happens meanwhile.

`runner` hands runs out, `driving` looks at one and does what `domain.steps.next_step` says, `attempt` brings one
attempt of a stage through its container; `timetable` starts runs by the clock, `webhooks` tells of their end.
Everything is written down before it is done: what a dead daemon has left is found in the store, the container engine
and the folders, and is gone on with by the same code.
"""
