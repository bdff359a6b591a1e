"""`python -m adder_litserve PORT`: the same function behind LitServe. Runs in an environment of its own."""

import sys
from typing import Any

import litserve  # type: ignore[import-not-found]
from adder import predict  # type: ignore[import-not-found]  # both lie in one folder of PYTHONPATH


class Adder(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        """Load no model: there is none."""

    def decode_request(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        return request["inputs"]  # type: ignore[no-any-return]

    def predict(self, inputs: list[dict[str, Any]]) -> int:
        return predict(inputs)["total"]  # type: ignore[no-any-return]

    def encode_response(self, total: int) -> dict[str, object]:
        return {"outputs": [{"name": "total", "datatype": "INT32", "shape": [1], "data": [total]}]}


if __name__ == "__main__":
    server = litserve.LitServer(Adder(), accelerator="cpu")
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
    )
