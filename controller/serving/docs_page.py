"""The OpenAPI description as one page for people, with a form that tries a call. Self-contained: nothing is
loaded from elsewhere.

Its addresses are relative, so that it works behind any prefix. The form POSTs the JSON in the box to
``predict``.
"""

from __future__ import annotations

from typing import Any

from .plain_json import dumps

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render(document: dict[str, Any]) -> str:
    """HTML of a document made by ``openapi.document``."""
    info, schemas = document["info"], document["components"]["schemas"]
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    return _PAGE.format(
        title=escape(info["title"]),
        summary=escape(info.get("summary", "")),
        description="".join(
            f"<p>{escape(part)}</p>" for part in info.get("description", "").split("\n\n") if part
        ),
        inputs=_table(schemas, "Input"),
        outputs=_table(schemas, "Output"),
        example=escape(dumps(example, indent=2, ensure_ascii=False)),
    )


def escape(text: str) -> str:
    """Text as HTML, also within a quoted attribute."""
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = text.replace(mark, entity)
    return text


def _table(schemas: dict[str, Any], side: str) -> str:
    rows = [
        _row(name.partition(".")[2], schema, schemas)
        for name, schema in schemas.items()
        if name.startswith(f"{side}.")
    ]
    if not rows:
        return "<p>None.</p>"
    return f"<table><tr><th>name</th><th>datatype</th><th>meaning</th></tr>{''.join(rows)}</table>"


def _row(name: str, schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    forms = schema.get("oneOf", [schema])
    datatypes = " or ".join(form["properties"]["datatype"]["const"] for form in forms)
    rules = schemas["Request"]["properties"]["inputs"].get("allOf", [])
    optional = any(
        rule["minContains"] == 0 and rule["contains"]["properties"]["name"]["const"] == name
        for rule in rules
        if schema is schemas.get(f"Input.{name}")
    )
    note = " <em>optional</em>" if optional else ""
    meaning = escape(" ".join([forms[0]["description"], *_remarks(forms)]).strip())
    return (
        f"<tr><td><code>{escape(name)}</code>{note}</td><td>{escape(datatypes)}</td><td>{meaning}</td></tr>"
    )


def _remarks(forms: list[dict[str, Any]]) -> list[str]:
    """What is said of the values: which ones there are, and the default."""
    found = []
    data = [form["properties"]["data"] for form in forms]
    elements = [one["oneOf"][0] if "oneOf" in one else one.get("items", one) for one in data]
    choices = [choice for element in elements for choice in element.get("enum", ())]
    if choices:
        found.append(f"One of {', '.join(dumps(choice, ensure_ascii=False) for choice in choices)}.")
    default = next((one["default"] for one in data if "default" in one), None)
    if default is not None:
        found.append(f"{dumps(default, ensure_ascii=False)} if it is left out.")
    return found


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ border-bottom: 1px solid #8886; padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; }}
textarea {{ width: 100%; box-sizing: border-box; font: 14px/1.4 ui-monospace, monospace; }}
pre {{ font-size: 14px; overflow: auto; border: 1px solid #8886; padding: .6rem; }}
</style></head><body>
<h1>{title}</h1>
<p><strong>{summary}</strong></p>
{description}
<h2>Inputs</h2>
{inputs}
<h2>Outputs</h2>
{outputs}
<p>The full description for programs: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1).</p>
<h2>Try it</h2>
<form id="try">
<p><label for="body">Body of <code>POST predict</code></label>
<textarea id="body" rows="14" spellcheck="false">{example}</textarea></p>
<p><button>Send</button></p>
</form>
<pre id="answer" aria-live="polite">No answer yet.</pre>
<script>
document.getElementById("try").addEventListener("submit", async (event) => {{
  event.preventDefault();
  const answer = document.getElementById("answer");
  answer.textContent = "Waiting ...";
  const began = performance.now();
  try {{
    const body = document.getElementById("body").value;
    const reply = await fetch("predict", {{method: "POST", headers: {{"Content-Type": "application/json"}}, body}});
    const text = await reply.text();
    let shown = text;
    try {{ shown = JSON.stringify(JSON.parse(text), null, 2); }} catch {{ }}
    const took = Math.round(performance.now() - began);
    answer.textContent = reply.status + " " + reply.statusText + ", " + took + " ms\\n\\n" + shown;
  }} catch (error) {{
    answer.textContent = "No answer: " + error;
  }}
}});
</script>
</body></html>
"""
