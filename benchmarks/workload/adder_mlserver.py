"""The same function as a custom runtime of MLServer. Runs in MLServer's own environment, not in ours."""

from adder import predict  # type: ignore[import-not-found]  # both lie in one folder of PYTHONPATH
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput  # type: ignore[import-not-found]


class Adder(MLModel):  # type: ignore[misc]
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        total = predict([{"name": i.name, "data": i.data.root} for i in payload.inputs])["total"]
        output = ResponseOutput(name="total", datatype="INT32", shape=[1], data=[total])
        return InferenceResponse(model_name=self.name, outputs=[output])
