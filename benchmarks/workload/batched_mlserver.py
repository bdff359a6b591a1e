"""The same as a custom runtime of MLServer. Runs in MLServer's own environment, not in ours."""

from batched import squares  # type: ignore[import-not-found]  # both lie in one folder of PYTHONPATH
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput  # type: ignore[import-not-found]


class Squares(MLModel):  # type: ignore[misc]
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        found = squares(payload.inputs[0].data.root)
        output = ResponseOutput(name="square", datatype="INT32", shape=[len(found), 1], data=found)
        return InferenceResponse(model_name=self.name, outputs=[output])
