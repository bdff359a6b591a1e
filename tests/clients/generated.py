"""Calls every API of an app with the Python packages that openapi-python-client has generated from its descriptions:
`generated.py BASE FOLDER AUTHORIZATION`. BASE is the app's URL; in FOLDER lie the packages `echo`, `files`, `train` and
`pipelines`, one for each API.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import httpx

BASE, FOLDER, AUTHORIZATION = sys.argv[1:]
sys.path.insert(0, FOLDER)


class Api:
    """One generated package. Attributes are its operations: a call gives the parsed answer of a 2xx status."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.models: ModuleType = importlib.import_module(f"{name}.models")
        client = importlib.import_module(f"{name}.client")
        scheme, _, token = AUTHORIZATION.partition(" ")
        self.client = client.AuthenticatedClient(base_url=f"{BASE}/{name}", token=token, prefix=scheme)

    def __getattr__(self, operation: str) -> Any:
        module = importlib.import_module(f"{self.name}.api.default.{operation}")

        def call(*arguments: Any, **named: Any) -> Any:
            response = module.sync_detailed(*arguments, client=self.client, **named)
            assert response.status_code < 300, (operation, response.status_code, response.content)
            return response.parsed

        return call


def predict() -> None:
    echo = Api("echo")
    models = echo.models
    inputs = [
        models.InputText(name="text", datatype="str", data="a cat"),
        models.InputNumbers(name="numbers", datatype="FP32", data=[1.5, 2.5], shape=[2]),
    ]
    reply = echo.predict(body=models.Request(inputs=inputs, parameters=[], id="7"))
    outputs = {output.name: output.data for output in reply.outputs}
    assert (reply.id, outputs) == ("7", {"said": "a cat", "sum": [4.0]}), reply


def move_files() -> None:
    files = Api("files")
    box = files.models.UploadBox.DATA
    link = files.upload(box, "tables/2026/ä b.csv", size=5)
    assert httpx.put(link.presigned_put_url, content=b"1,2,3").status_code == 200
    found = files.download(files.models.DownloadBox.DATA, "tables/2026/ä b.csv")
    assert (found.size, httpx.get(found.presigned_get_url).content) == (5, b"1,2,3")
    assert files.list_box(files.models.ListBoxBox.DATA).groups == ["tables"]
    listing = files.list_(files.models.ListBox.DATA, "tables/2026")
    assert [file.name for file in listing.files] == ["ä b.csv"], listing
    deep = files.list_(files.models.ListBox.DATA, "tables", recursive=files.models.ListRecursive.VALUE_1)
    assert [file.name for file in deep.files] == ["2026/ä b.csv"], deep
    begun = files.upload_in_parts(files.models.UploadInPartsBox.DATA, "tables/large", uploads="", size=10)
    part = files.upload(box, "tables/large", upload=begun.upload, part=1)
    assert httpx.put(part.presigned_put_url, content=b"0123456789").status_code == 200
    assert (
        files.upload_in_parts(files.models.UploadInPartsBox.DATA, "tables/large", upload=begun.upload).size
        == 10
    )
    files.delete(files.models.DeleteBox.DATA, "tables/large")
    (about,) = files.boxes().boxes
    assert about.name == "data"


def run() -> None:
    train, models = Api("train"), Api("train").models
    table = models.SubmissionInputsType0ItemType0(name="table", data="tables/2026/ä b.csv")
    rounds = models.SubmissionInputsType0ItemType1(name="rounds", datatype="INT32", data=3)
    report = models.SubmissionOutputsType0ItemType0(name="report", data="results/today")
    body = models.Submission(inputs=[table, rounds], outputs=[report], priority=-1)
    begun = train.submit(body=body, idempotency_key="one", prefer="wait=1")
    again = train.submit(body=body, idempotency_key="one")
    assert again.id == begun.id
    found = begun
    while not found.ended:
        found = train.run(begun.id, wait=20)
    assert found.state == "SUCCEEDED", found
    assert [run.id for run in train.runs(state=models.RunsState.SUCCEEDED).runs] == [begun.id]
    assert "1,2,3 x 3" in train.logs(begun.id, stage="fit")
    assert train.cancel(begun.id).state == "SUCCEEDED"
    canceled = train.submit(body=models.Submission(inputs=[table], outputs=[report]))
    train.cancel(canceled.id)
    while not train.run(canceled.id, wait=20).ended:
        pass
    assert train.retry(canceled.id).origin == canceled.id
    files = Api("files")
    listing = files.list_(files.models.ListBox.DATA, "results/today")
    assert "report.txt" in [file.name for file in listing.files], listing


def look_at_pipelines() -> None:
    pipelines = Api("pipelines")
    found = next(found for found in pipelines.pipelines().pipelines if found.name == "train")
    assert [variable.name for variable in found.inputs] == ["table", "rounds"]
    assert len(pipelines.all_runs(limit=1).runs) == 1
    name = pipelines.models.RunsPipeline.TRAIN
    assert len(pipelines.runs(name).runs) == 3


for step in (predict, move_files, run, look_at_pipelines):
    step()
    print(f"{step.__name__}: as described")
