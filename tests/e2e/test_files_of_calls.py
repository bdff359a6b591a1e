"""FILE variables on the whole platform: what a caller put into their area reaches the function, what it makes is stored
there, and nobody meets another's files."""

from __future__ import annotations

from tests.support.engines import BASE_IMAGE
from tests.support.platform import Module, Platform

PEOPLE = {"anna": "the-key-of-anna-is-long", "boris": "the-key-of-boris-is-long"}
SHOUT = '''
def predict(inputs, context):
    """Write a text in capitals.

    :param inputs.text: a text file
    :type inputs.text: FILE
    :param outputs.loud: the same in capitals
    :type outputs.loud: FILE
    :param outputs.length: in bytes
    :type outputs.length: INT32
    """
    with open(inputs[0]["data"]) as file:
        text = file.read()
    path = context.folder + "/loud.txt"
    with open(path, "w") as file:
        file.write(text.upper())
    return {"loud": path, "length": len(text)}
'''


def bearer(user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {PEOPLE[user]}"}


def declare(module: Module) -> str:
    auth = {"token": {"credentials": "people"}}
    module.write("app.py", SHOUT).write("Dockerfile", f"FROM {BASE_IMAGE}\nWORKDIR /srv\nCOPY app.py .\n")
    module.component(
        "model",
        image={"build": {"context": "."}},
        mlService={"inference": "app:predict"},
        resources={"cpus": 0.5, "memory": "128Mi"},
        connectedBoxes=[{"name": "data", "default": True}],
    )
    module.api(restfulApi={"auth": auth}).box("data").files_api(auth=auth)
    return module.push()


def test_files_go_to_the_function_and_back(platform: Platform, module: Module, app: str) -> None:
    revision = declare(module)
    platform.connect(module, app, {"people": PEOPLE})
    platform.until_ready(app, revision)
    assert platform.put_file(app, "data/texts/a.txt", b"quiet", headers=bearer("anna")).status == 200
    asked = [{"name": "text", "datatype": "FILE", "data": "texts/a.txt"}]
    reply = platform.predict(app, asked, headers=bearer("anna"))
    assert reply.status == 200, reply.body
    outputs = {output["name"]: output["data"] for output in reply.json["outputs"]}
    assert outputs["length"] == [5]
    assert platform.get_file(app, f"data/{outputs['loud']}", headers=bearer("anna")).body == b"QUIET"
    assert platform.get_file(app, f"data/{outputs['loud']}", headers=bearer("boris")).status == 404
    foreign = platform.predict(app, asked, headers=bearer("boris"))
    assert foreign.status == 422
    assert foreign.json["errors"][0]["pointer"] == "/inputs/0/data"
