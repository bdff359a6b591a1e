"""The ports: the interfaces that the core needs, in domain types only. A port is a Protocol, with the values that only
its methods take and return. Adapters and the store implement them; tests replace them by small fakes that pass the
same contract suites.

Every method may raise `controller.domain.errors` (Transient, Waiting, Stalled) and nothing else that is expected.

Each subject has a module; `store/` has the ports of the store, by noun. All others import from this package alone
(`from controller.ports import Engine`), so that a port may move between modules; `lint-imports` and
`tests/unit/test_imports.py` refuse imports from the modules.
"""

from controller.ports.clock import Clock, Ticks
from controller.ports.encryption import SecretCipher
from controller.ports.engine import ContainerLogReader, Engine, EngineEvent
from controller.ports.git import BuildContext, CommitDraft, Revision, SourceFile, Sources
from controller.ports.jobs import Job, JobMount, Jobs, JobState, ObservedJob
from controller.ports.models import Models
from controller.ports.probes import Prober, Readiness
from controller.ports.registries import ImageRegistry, RemoteImage
from controller.ports.senders import ChatSender, MailSender, Sender
from controller.ports.storage import Objects, Storage, StorageAdmin
from controller.ports.store.activity import Activity, Series
from controller.ports.store.apps import Apps, Events, History
from controller.ports.store.boxes import Boxes
from controller.ports.store.branches import Branches
from controller.ports.store.gpus import Gpus
from controller.ports.store.images import FollowedImages, ImageLists
from controller.ports.store.notifications import Notifications
from controller.ports.store.orders import Orders, Templates
from controller.ports.store.previews import Previews
from controller.ports.store.repositories import Repositories
from controller.ports.store.requests import Requests
from controller.ports.store.routes import Gateways, Routes
from controller.ports.store.runs import QueueLimits, RunLimits, Runs, Schedules
from controller.ports.store.secrets import AgeKeyStore, Secrets
from controller.ports.store.state import CommitWatch, Store
from controller.ports.store.webhooks import Webhooks, WebhookUnderWay

__all__ = [
    "Activity",
    "AgeKeyStore",
    "Apps",
    "Boxes",
    "Branches",
    "BuildContext",
    "ChatSender",
    "Clock",
    "CommitDraft",
    "CommitWatch",
    "ContainerLogReader",
    "Engine",
    "EngineEvent",
    "Events",
    "FollowedImages",
    "Gateways",
    "Gpus",
    "History",
    "ImageLists",
    "ImageRegistry",
    "Job",
    "JobMount",
    "JobState",
    "Jobs",
    "MailSender",
    "Models",
    "Notifications",
    "Objects",
    "ObservedJob",
    "Orders",
    "Previews",
    "Prober",
    "QueueLimits",
    "Readiness",
    "RemoteImage",
    "Repositories",
    "Requests",
    "Revision",
    "Routes",
    "RunLimits",
    "Runs",
    "Schedules",
    "SecretCipher",
    "Secrets",
    "Sender",
    "Series",
    "SourceFile",
    "Sources",
    "Storage",
    "StorageAdmin",
    "Store",
    "Templates",
    "Ticks",
    "WebhookUnderWay",
    "Webhooks",
]
