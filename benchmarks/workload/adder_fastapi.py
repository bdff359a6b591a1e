"""The same function behind FastAPI, as its documentation shows it: models of pydantic for request and response. Runs in
an environment of its own. The function is called on the event loop, which is faster than in a thread."""

from adder import predict  # type: ignore[import-not-found]  # both lie in one folder of PYTHONPATH
from fastapi import FastAPI  # type: ignore[import-not-found]
from pydantic import BaseModel  # type: ignore[import-not-found]

app = FastAPI()


class Variable(BaseModel):  # type: ignore[misc]
    name: str
    datatype: str
    shape: list[int]
    data: list[int]


class Request(BaseModel):  # type: ignore[misc]
    inputs: list[Variable]


class Response(BaseModel):  # type: ignore[misc]
    outputs: list[Variable]


@app.post("/predict")  # type: ignore[untyped-decorator]
async def answer(request: Request) -> Response:
    total = predict([{"name": one.name, "data": one.data} for one in request.inputs])["total"]
    return Response(outputs=[Variable(name="total", datatype="INT32", shape=[1], data=[total])])
