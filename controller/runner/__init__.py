"""Runs of pipelines: claimed from the queue, executed stage by stage, and brought to exactly one end whatever
happens.

`runner` hands out runs, `run_worker` looks at one and does what `domain.runs.steps.next_step` says, `attempt` takes
one attempt of a stage through its container; `cron_scheduler` starts runs by schedule, `webhook_dispatcher`
reports their end. Everything is recorded before it is done: the store, the container engine and the folders show what a
dead daemon has left, and the same code continues with it.
"""
