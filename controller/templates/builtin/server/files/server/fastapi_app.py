"""A FastAPI application: replace it by your own, but keep `/ready`."""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

app = FastAPI(title="{{ app }}")


@app.get("/ready")
def ready():
    return {"ready": True}


@app.get("/", response_class=HTMLResponse)
def page():
    return "<!doctype html><title>{{ app }}</title><h1>{{ app }}</h1><p><a href='docs'>The API</a></p>"


@app.get("/greet")
def greet(name: str = "world"):
    return {"greeting": f"Hello, {name}"}
