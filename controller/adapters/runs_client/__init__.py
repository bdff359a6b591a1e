"""Client of the run API over HTTP: pipelines of a platform that runs elsewhere. See `client`."""

from controller.adapters.runs_client.client import RunsClient
from controller.adapters.runs_client.logs import LogPiece, StageEnd
from controller.adapters.runs_client.reports import RunReport

__all__ = ["LogPiece", "RunReport", "RunsClient", "StageEnd"]
