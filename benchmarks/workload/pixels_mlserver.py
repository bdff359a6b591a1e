"""The same as a custom runtime of MLServer. Runs in MLServer's own environment, not in ours."""

from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput  # type: ignore[import-not-found]


class Pixels(MLModel):  # type: ignore[misc]
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        name, data = payload.outputs[0].name, payload.inputs[0].data.root
        answered = data if name == "image" else data[:1]
        output = ResponseOutput(name=name, datatype="FP32", shape=[len(answered)], data=answered)
        return InferenceResponse(model_name=self.name, outputs=[output])
