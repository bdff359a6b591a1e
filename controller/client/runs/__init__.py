"""Client of the run API over HTTP: pipelines of a platform that runs elsewhere. See `client`."""

from controller.client.runs.client import RunsClient
from controller.client.runs.logs import LogPiece, StageEnd
from controller.client.runs.reports import RunReport

__all__ = ["LogPiece", "RunReport", "RunsClient", "StageEnd"]
