"""Calls a component by the public clients of the Open Inference Protocol, version 2, in JSON:
`open_inference.py ADDRESS MODEL AUTHORIZATION`. ADDRESS is host, port and path of the component's API.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
import tritonclient.http
import tritonclient.http.aio
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from tritonclient.utils import InferenceServerException

ADDRESS, MODEL, AUTHORIZATION = sys.argv[1:]
HEADERS = {"Authorization": AUTHORIZATION}
NUMBERS = {
    "FP32": np.float32,
    "FP64": np.float64,
    "FP16": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
}


def inputs(module: Any, datatype: str) -> list[Any]:
    """A text, and the numbers 0 and 1 as an array of this datatype."""
    text = module.InferInput("text", [1], "BYTES")
    text.set_data_from_numpy(np.array(["a cat"], dtype=object), binary_data=False)
    numbers = module.InferInput("numbers", [2], datatype)
    numbers.set_data_from_numpy(np.array([0, 1], dtype=NUMBERS[datatype]), binary_data=False)
    return [text, numbers]


def check(result: Any) -> None:
    assert result.as_numpy("sum").tolist() == [1.0], result.get_response()
    said = result.as_numpy("said").tolist()
    assert said in (["a cat"], [b"a cat"]), said


def triton() -> None:
    with tritonclient.http.InferenceServerClient(ADDRESS) as client:
        assert client.is_server_live(HEADERS)
        assert client.is_server_ready(HEADERS)
        assert client.is_model_ready(MODEL, headers=HEADERS)
        assert client.get_server_metadata(HEADERS)["name"] == "prichal"
        assert client.get_model_metadata(MODEL, headers=HEADERS)["name"] == MODEL
        for datatype in NUMBERS:
            if datatype == "FP16":
                continue  # the client itself sends FP16 in binary only
            check(client.infer(MODEL, inputs(tritonclient.http, datatype), headers=HEADERS))
        wanted = [tritonclient.http.InferRequestedOutput("sum", binary_data=False)]
        found = client.infer(MODEL, inputs(tritonclient.http, "FP32"), outputs=wanted, headers=HEADERS)
        assert [output["name"] for output in found.get_response()["outputs"]] == ["sum"]
        for model, sent, headers in (
            (MODEL, inputs(tritonclient.http, "FP32")[:1], HEADERS),
            ("another", inputs(tritonclient.http, "FP32"), HEADERS),
            (MODEL, inputs(tritonclient.http, "FP32"), {}),
        ):
            try:
                client.infer(model, sent, headers=headers)
            except InferenceServerException as error:
                assert "failed to parse" not in (error.message() or "failed to parse").lower(), error
            else:
                raise AssertionError("the call should have been refused")


async def triton_aio() -> None:
    async with tritonclient.http.aio.InferenceServerClient(ADDRESS) as client:
        assert await client.is_server_live(HEADERS)
        check(await client.infer(MODEL, inputs(tritonclient.http.aio, "INT64"), headers=HEADERS))
        try:
            await client.infer(MODEL, inputs(tritonclient.http.aio, "FP32")[:1], headers=HEADERS)
        except InferenceServerException as error:
            assert error.message()
        else:
            raise AssertionError("the call should have been refused")


async def kserve() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    text = InferInput("text", [1], "BYTES", data=["a cat"])
    numbers = InferInput("numbers", [2], "FP32", data=[0.0, 1.0])
    request = InferRequest(MODEL, [text, numbers])
    base = f"http://{ADDRESS}"
    assert await client.is_server_live(base, headers=HEADERS)
    assert await client.is_server_ready(base, headers=HEADERS)
    assert await client.is_model_ready(base, MODEL, headers=HEADERS)
    found = await client.infer(base, request, headers=HEADERS, model_name=MODEL)
    assert {output.name: output.data for output in found.outputs} == {"said": ["a cat"], "sum": [1.0]}, found


triton()
asyncio.run(triton_aio())
asyncio.run(kserve())
print("as the protocol says")
