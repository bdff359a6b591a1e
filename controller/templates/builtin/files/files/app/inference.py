"""The function for programs: files come from a box, and results are stored there."""

from pathlib import Path

from app.work import process


def predict(inputs, context):
    """Number the lines of a text.

    :param inputs.document: a text in UTF-8
    :type inputs.document: FILE
    :param outputs.result: the same with numbered lines
    :type outputs.result: FILE
    """
    document = Path(inputs[0]["data"])
    result = Path(context.folder, f"{document.stem}.numbered.txt")
    result.write_bytes(process(document.read_bytes()))
    return {"result": result}
