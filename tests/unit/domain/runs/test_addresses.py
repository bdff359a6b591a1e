from __future__ import annotations

import pytest

from controller.domain.runs.addresses import PipelineAddress, RunAddress, parse_pipeline, parse_run
from controller.domain.storage.addresses import AddressInvalid

ID = "19c0a7f3e2d5b1f04a6"
HOST = "https://models.example.org"
TRAIN = PipelineAddress("demo/train")
BY_URL = PipelineAddress("sub/demo/tr ain", HOST, by_url=True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("demo/train", TRAIN),
        (f"demo/train/{ID}", RunAddress(TRAIN, ID)),
        ("demo/pipelines/train", PipelineAddress("demo/pipelines/train")),
        (f"{HOST}/sub/demo/tr%20ain/runs", BY_URL),
        (f"{HOST}/sub/demo/tr%20ain/runs/", BY_URL),
        (f"{HOST}/sub/demo/tr%20ain/runs/{ID}", RunAddress(BY_URL, ID)),
    ],
)
def test_what_people_write(text: str, found: RunAddress | PipelineAddress) -> None:
    assert parse_run(text) == found
    assert parse_run(str(found)) == found, "what is shown can be given again"


@pytest.mark.parametrize(
    "text",
    [
        *("", "demo", "demo/", "/train", "demo//train", "Demo/train", "demo/a b", "demo/../x", "demo/x?y"),
        *(f"demo/{ID}", f"{HOST}/demo/train", f"{HOST}/demo/train/runs/1", f"ftp://h/demo/train/runs/{ID}"),
        *(f"https://anna:p@h/demo/train/runs/{ID}", f"{HOST}/demo/train/runs?x=1"),
    ],
)
def test_what_is_neither(text: str) -> None:
    with pytest.raises(AddressInvalid):
        parse_run(text)


def test_a_run_is_no_pipeline() -> None:
    assert parse_pipeline("demo/train") == TRAIN
    with pytest.raises(AddressInvalid, match="is a run"):
        parse_pipeline(f"demo/train/{ID}")


def test_where_they_are() -> None:
    run = TRAIN.on(HOST).run(ID)
    assert (run.url, str(run)) == (f"{HOST}/demo/train/runs/{ID}", f"demo/train/{ID}")
    assert BY_URL.run(ID).url == f"{HOST}/sub/demo/tr%20ain/runs/{ID}"


def test_links_of_lists() -> None:
    link = f"/demo/train/runs/{ID}"
    assert TRAIN.linked(link, "train") == TRAIN.run(ID)
    behind = PipelineAddress("sub/demo/train", HOST, by_url=True)
    assert behind.linked(link, "train") == behind.run(ID)
    every, one = PipelineAddress("demo/pipelines"), f"/demo/pipelines/train/runs/{ID}"
    assert str(every.linked(one, "train")) == f"demo/pipelines/train/{ID}"
    for bad in ("", "/demo/train/runs", "/demo/train/runs/../x"):
        with pytest.raises(AddressInvalid):
            TRAIN.linked(bad, "train")
