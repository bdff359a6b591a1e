"""The same function as a custom runtime of MLServer."""

from adder import predict
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Adder(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        total = predict([{"name": i.name, "data": i.data.root} for i in payload.inputs])["total"]
        output = ResponseOutput(name="total", datatype="INT32", shape=[1], data=[total])
        return InferenceResponse(model_name=self.name, outputs=[output])
