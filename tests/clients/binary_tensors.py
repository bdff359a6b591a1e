"""Calls a component by the public clients of the Open Inference Protocol, version 2, with tensors as bytes:
`binary_tensors.py ADDRESS MODEL AUTHORIZATION`. ADDRESS is host, port and path of the component's API. The component
gives arrays back, see tests/e2e/test_clients.py.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
import tritonclient.http
import tritonclient.http.aio
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

ADDRESS, MODEL, AUTHORIZATION = sys.argv[1:]
IMAGE = np.linspace(-1, 1, 224 * 224 * 3, dtype=np.float32).reshape(1, 3, 224, 224)
IDS = np.array([0, -1, 2**62])
WORDS = np.array([[b"a cat", "кот".encode()], [b"", "\N{CAT}".encode()]], dtype=object)


def headers() -> dict[str, Any]:
    """Return the fields of one call, to which the clients add their own."""
    return {"Authorization": AUTHORIZATION}


def inputs(module: Any) -> list[Any]:
    """An image of the usual size, numbers of 64 bits and texts, as the client sends them by default."""
    image = module.InferInput("image", IMAGE.shape, "FP32").set_data_from_numpy(IMAGE)
    ids = module.InferInput("ids", IDS.shape, "INT64").set_data_from_numpy(IDS)
    words = module.InferInput("words", WORDS.shape, "BYTES").set_data_from_numpy(WORDS)
    return [image, ids, words]


def check(result: Any) -> None:
    assert np.array_equal(result.as_numpy("image"), IMAGE), result.get_response()
    assert np.array_equal(result.as_numpy("ids"), IDS)
    assert np.array_equal(result.as_numpy("half"), (IMAGE / 2).astype(np.float16))
    assert np.array_equal(result.as_numpy("mask"), IMAGE > 0)
    assert result.as_numpy("words").tolist() == WORDS.reshape(-1).tolist()
    assert "binary_data_size" in result.get_output("image")["parameters"]


def triton() -> None:
    with tritonclient.http.InferenceServerClient(ADDRESS) as client:
        for coding in (None, "gzip"):
            check(
                client.infer(
                    MODEL,
                    inputs(tritonclient.http),
                    headers=headers(),
                    request_compression_algorithm=coding,
                )
            )
        check(client.infer(MODEL, inputs(tritonclient.http), model_version="1", headers=headers()))
        wanted = [
            tritonclient.http.InferRequestedOutput("image"),
            tritonclient.http.InferRequestedOutput("mask", binary_data=False),
        ]
        found = client.infer(
            MODEL, inputs(tritonclient.http), outputs=wanted, headers=headers(), request_id="7"
        )
        assert np.array_equal(found.as_numpy("image"), IMAGE)
        assert np.array_equal(found.as_numpy("mask"), IMAGE > 0)
        assert found.get_response()["id"] == "7"
        assert "data" in found.get_output("mask")
        (known,) = client.get_model_repository_index(headers())
        assert (known["name"], known["state"]) == (MODEL, "READY")
        assert client.is_model_ready(MODEL, "1", headers=headers())
        assert not client.is_model_ready(MODEL, "2", headers=headers())
        assert "binary_tensor_data" in client.get_server_metadata(headers())["extensions"]


async def triton_aio() -> None:
    async with tritonclient.http.aio.InferenceServerClient(ADDRESS) as client:
        check(await client.infer(MODEL, inputs(tritonclient.http.aio), headers=headers()))


async def kserve() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    image = InferInput("image", list(IMAGE.shape), "FP32")
    image.set_data_from_numpy(IMAGE, binary_data=True)
    request = InferRequest(MODEL, [image], parameters={"binary_data_output": True})
    found = await client.infer(f"http://{ADDRESS}", request, headers=headers(), model_name=MODEL)
    outputs = {output.name: output for output in found.outputs}
    assert np.array_equal(outputs["image"].as_numpy(), IMAGE)
    assert np.array_equal(outputs["half"].as_numpy(), (IMAGE / 2).astype(np.float16))


triton()
asyncio.run(triton_aio())
asyncio.run(kserve())
print("as the protocol says")
