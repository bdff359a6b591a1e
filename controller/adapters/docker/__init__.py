"""The Docker engine behind the ports `Engine` and `Jobs`. The only package that imports the Docker SDK.

`engine` runs workloads, `jobs` what runs to its end, whose logs `job_log` reads; `images` pins, pulls and builds;
`networks` keeps apps apart; `mapping` and `job_mapping` say, without any call, what a container looks like and read
back what the engine lists; `errors` turns what the SDK raises into our decisions; `serving` puts a copy of the serving
library where containers mount it from. `local` has what runs without the platform need beside jobs.

The low-level client is used throughout: its answers are the engine's own JSON, and listing does not cost one more
call for each container, as the SDK's objects do.
"""

from controller.adapters.docker.engine import DockerEngine
from controller.adapters.docker.jobs import DockerJobs
from controller.adapters.docker.local import LocalEngine
from controller.adapters.docker.serving import stage_serving

__all__ = ["DockerEngine", "DockerJobs", "LocalEngine", "stage_serving"]
