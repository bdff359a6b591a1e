"""The actions of a plan on the storage: buckets of boxes, accounts, and models that are fetched from boxes. Called by
the executor. It decides nothing.
"""

from __future__ import annotations

from dataclasses import replace

from controller.domain.apps.plan import (
    CopyBox,
    CreateBucket,
    EnsureAccount,
    KeepBucket,
    RemoveAccount,
    RemoveBucket,
    StageModel,
    StorageAction,
    UpdateBox,
)
from controller.domain.localizable import Localizable
from controller.domain.names import short
from controller.domain.reasons import Reason
from controller.domain.storage.box import BoxRecord, BoxState
from controller.domain.units import about_size
from controller.ports import Boxes, Clock, Models, Storage
from controller.reconcile.box_copies import BoxCopies, CopyMemory, remove_bucket
from controller.reconcile.execution_context import ExecutionContext


class StorageActions:
    def __init__(
        self,
        storage: Storage,
        boxes: Boxes,
        models: Models,
        copies: CopyMemory,
        clock: Clock,
        context: ExecutionContext,
    ) -> None:
        self._storage = storage
        self._boxes = boxes
        self._models = models
        self._copies = copies
        self._clock = clock
        self._context = context

    def act(self, action: StorageAction) -> None:
        match action:
            case CreateBucket():
                self._create_bucket(action)
            case CopyBox():
                self._copy_box(action)
            case UpdateBox():
                self._save_box(action.record, BoxState.BOUND)
                self._set_quota(action.record)
                self._context.record_event(
                    Reason.BOX_UPDATED, Localizable("box {box}: {why}", box=action.record.box, why=action.why)
                )
            case KeepBucket():
                self._keep_bucket(action)
            case RemoveBucket():
                self._remove_bucket(action)
            case EnsureAccount():
                buckets = [grant.bucket for grant in action.account.grants]
                self._boxes.grant(action.account.name, buckets)
            case RemoveAccount():
                self._boxes.grant(action.name, ())
                # Earlier releases created accounts in the storage itself.
                if admin := self._storage.admin():
                    admin.remove_account(action.name)
            case StageModel():
                self._stage_model(action)

    def _create_bucket(self, action: CreateBucket) -> None:
        record = action.record
        self._save_box(record, BoxState.BOUND)
        self._storage.objects().create_bucket(record.bucket)
        self._set_quota(record)
        self._boxes.record_access(self._storage.access())
        self._context.record_event(
            Reason.BOX_CREATED,
            Localizable(
                "box {box} has bucket {bucket}: {why}", box=record.box, bucket=record.bucket, why=action.why
            ),
        )

    def _copy_box(self, action: CopyBox) -> None:
        record, source = action.record, action.source
        copies = BoxCopies(self._storage, self._boxes, self._clock, self._copies, self._set_quota)
        done = copies.copy(record, source, self._context.superseded)
        self._boxes.record_access(self._storage.access())
        self._context.record_event(
            Reason.BOX_COPIED,
            Localizable(
                "box {box} is a copy of the one of {app}: {size} in {files} files",
                box=record.box,
                app=source.app,
                size=about_size(done.size),
                files=done.files,
            ),
        )

    def _set_quota(self, record: BoxRecord) -> None:
        if admin := self._storage.admin():
            admin.set_quota(record.bucket, record.capacity)

    def _keep_bucket(self, action: KeepBucket) -> None:
        record = action.record
        self._save_box(record, BoxState.KEPT)
        size = Localizable("{used} in {files} files", used=about_size(record.used), files=record.files)
        text = Localizable(
            "box {box}: {why}. Its data is in bucket {bucket} ({size}); see: prichal box ls",
            box=record.box,
            why=action.why,
            bucket=record.bucket,
            size=size,
        )
        self._context.record_event(Reason.DATA_KEPT, text, warn=True)

    def _remove_bucket(self, action: RemoveBucket) -> None:
        record = action.record
        remove_bucket(self._storage.objects(), self._boxes, record.bucket)
        self._copies.progress.pop(record.bucket, None)
        self._context.record_event(
            Reason.DATA_REMOVED,
            Localizable(
                "bucket {bucket} of box {box}: {why}", bucket=record.bucket, box=record.box, why=action.why
            ),
            warn=True,
        )

    def _save_box(self, record: BoxRecord, state: BoxState) -> None:
        self._boxes.save(replace(record, state=state, since=self._clock.now()))

    def _stage_model(self, action: StageModel) -> None:
        model = action.model
        what = Localizable(
            "model {model}@{digest} ({size})",
            model=model.name,
            digest=short(model.digest),
            size=about_size(model.size),
        )
        self._context.record_event(
            Reason.STAGING,
            Localizable("downloading {what} from bucket {bucket}", what=what, bucket=model.bucket),
            action.component,
        )
        self._models.stage(model)
