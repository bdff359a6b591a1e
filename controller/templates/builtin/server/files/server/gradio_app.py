"""A Gradio interface within a FastAPI application: replace `greet` by your own, but keep `/ready`."""

import gradio
from fastapi import FastAPI

app = FastAPI(title="{{ app }}")


@app.get("/ready")
def ready():
    return {"ready": True}


def greet(name):
    return f"Hello, {name}"


app = gradio.mount_gradio_app(app, gradio.Interface(greet, "text", "text", title="{{ app }}"), path="/")
