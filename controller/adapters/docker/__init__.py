"""The Docker engine behind the ports `Engine` and `Jobs`. The only package that imports the Docker SDK.

`engine` runs workloads, `jobs` runs what ends by itself, whose logs `job_log` reads; `images` pins, pulls and
builds; `networks` separates apps; `mapping` and `job_mapping` describe containers, and parse what the engine
lists, without any call; `errors` translates the SDK's errors; `serving` puts a copy of the serving library
where containers mount it. `local` has what runs without the platform need besides jobs, and `local_serving`
creates the container of a component there. `checks` are those of `prichal doctor`.

The low-level client is used throughout: its responses are the engine's own JSON, and listing does not need
one more call for each container, unlike the SDK's objects.
"""

from controller.adapters.docker.engine import DockerEngine
from controller.adapters.docker.jobs import DockerJobs
from controller.adapters.docker.local import LocalEngine
from controller.adapters.docker.local_serving import HostFolders, LocalServing
from controller.adapters.docker.serving import stage_serving

__all__ = ["DockerEngine", "DockerJobs", "HostFolders", "LocalEngine", "LocalServing", "stage_serving"]
