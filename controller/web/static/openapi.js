// From a component's OpenAPI description to a form, from what is typed into it to a call, and from a call to texts for a
// shell and for Python. Pure: nothing here touches the page or the network. Descriptions are made by modules, so nothing
// in them is trusted: what does not look as the serving library writes it makes no field.

const MOST_FIELDS = 200;
const KINDS = { FP32: "number", FP64: "number", INT32: "integer", str: "text", dict: "json", FILE: "file" };

/** Returns the fields of the form for POST /predict, or null for a description of another kind. */
export const fieldsOf = (description) => {
  const schemas = record(record(record(description).components).schemas);
  const inputs = record(record(record(schemas.Request).properties).inputs);
  if (!record(record(description).paths)["/predict"] || inputs.type !== "array") return null;
  const needed = new Set(list(inputs.allOf).filter((each) => record(each).minContains !== 0).map(nameIn));
  return list(record(inputs.items).oneOf)
    .slice(0, MOST_FIELDS)
    .map((each) => schemas[String(record(each).$ref).replace("#/components/schemas/", "")])
    .map((schema) => fieldOf(schema, needed))
    .filter(Boolean);
};

const nameIn = (each) => record(record(record(record(each).contains).properties).name).const;

const fieldOf = (schema, needed) => {
  const forms = (Array.isArray(record(schema).oneOf) ? schema.oneOf : [schema]).map(formOf).filter(Boolean);
  if (!forms.length) return null;
  const { name, description } = forms[0];
  return { name, description, optional: !needed.has(name), forms };
};

const formOf = (schema) => {
  const properties = record(record(schema).properties);
  const [name, datatype] = [record(properties.name).const, record(properties.datatype).const];
  if (typeof name !== "string" || !Object.hasOwn(KINDS, datatype)) return null;
  const data = record(properties.data);
  const element = Array.isArray(data.oneOf) ? record(data.oneOf[0]) : data;
  return {
    name,
    description: typeof schema.description === "string" ? schema.description : "",
    datatype,
    kind: KINDS[datatype],
    choices: Array.isArray(element.enum) ? element.enum.map(String) : [],
    fallback: "default" in element ? JSON.stringify(element.default) : "",
    least: number(element.minimum),
    most: number(element.maximum),
  };
};

const record = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
const list = (value) => (Array.isArray(value) ? value : []);
const number = (value) => (typeof value === "number" ? value : null);

// --- values ---------------------------------------------------------------------------------------------------------

/** What is wrong with a value; `code` chooses the words that the page shows. */
export class WrongValue extends Error {
  constructor(field, code, detail = "") {
    super(`${field}: ${code} ${detail}`);
    Object.assign(this, { field, code, detail });
  }
}

/** Returns the request of a form. `values` has for each field its datatype and its text; a file's text is its path. */
export const requestOf = (fields, values) => ({
  inputs: fields
    .map((field) => ({ field, value: values[field.name] ?? { datatype: field.forms[0].datatype, text: "" } }))
    .filter(({ field, value }) => !(field.optional && value.text.trim() === ""))
    .map(({ field, value }) => inputOf(field, value)),
});

const inputOf = (field, { datatype, text }) => {
  const form = field.forms.find((each) => each.datatype === datatype) ?? field.forms[0];
  const item = { name: field.name, datatype: form.datatype };
  if (form.kind === "text") return { ...item, data: text };
  if (!text.trim()) throw new WrongValue(field.name, "missing");
  if (form.kind === "file") return { ...item, data: text };
  if (form.kind === "json") return { ...item, data: object(field.name, text) };
  const { data, shape } = tensor(field.name, form, text);
  return { ...item, data, shape };
};

const object = (name, text) => {
  const value = parsed(name, text);
  if (record(value) !== value) throw new WrongValue(name, "object");
  return value;
};

/** One number, numbers between commas, or lists in lists of equal lengths. */
const tensor = (name, form, text) => {
  const value = parsed(name, /^\s*\[/.test(text) ? text : `[${text}]`);
  const shape = shapeOf(name, value);
  const data = value.flat(Infinity);
  for (const each of data) {
    const isGood = typeof each === "number" && (form.kind !== "integer" || Number.isInteger(each));
    if (!isGood) throw new WrongValue(name, form.kind, JSON.stringify(each));
    if ((form.least !== null && each < form.least) || (form.most !== null && each > form.most)) {
      throw new WrongValue(name, "range", `${form.least} … ${form.most}`);
    }
  }
  return { data, shape };
};

const shapeOf = (name, value) => {
  if (!Array.isArray(value)) return [];
  const inner = value.map((each) => shapeOf(name, each));
  if (inner.some((each) => each.join() !== inner[0].join())) throw new WrongValue(name, "ragged");
  return [value.length, ...(inner[0] ?? [])];
};

const parsed = (name, text) => {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new WrongValue(name, "json", error.message);
  }
};

// --- the same call as text ------------------------------------------------------------------------------------------

/** `call`: method, url, body ("" for none). `auth`: "", "basic" or "bearer"; the secrets come from the environment. */
export const curlText = ({ method, url, body, type = "application/json" }, auth = "") => {
  const parts = [`curl -sS -X ${method} ${shell(url)}`];
  if (auth === "basic") parts.push('-u "$API_USER:$API_PASSWORD"');
  if (auth === "bearer") parts.push('-H "Authorization: Bearer $API_TOKEN"');
  if (body) parts.push(`-H ${shell(`Content-Type: ${type}`)}`, `--data-raw ${shell(body)}`);
  return parts.join(" \\\n  ");
};

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export const pythonText = ({ method, url, body, type = "application/json" }, auth = "") => {
  const lines = ["import urllib.request"];
  const headers = body ? [`    ${JSON.stringify("Content-Type")}: ${JSON.stringify(type)},`] : [];
  if (auth) lines.unshift(...(auth === "basic" ? ["import base64", "import os"] : ["import os"]));
  if (auth === "basic") {
    lines.push("", 'pair = f"{os.environ[\'API_USER\']}:{os.environ[\'API_PASSWORD\']}"');
    headers.push('    "Authorization": "Basic " + base64.b64encode(pair.encode()).decode(),');
  }
  if (auth === "bearer") headers.push('    "Authorization": f"Bearer {os.environ[\'API_TOKEN\']}",');
  lines.push("", headers.length ? `headers = {\n${headers.join("\n")}\n}` : "headers = {}");
  lines.push(body ? `body = ${JSON.stringify(body)}.encode()` : "body = None");
  lines.push(`request = urllib.request.Request(${JSON.stringify(url)}, body, headers, method=${JSON.stringify(method)})`);
  lines.push("with urllib.request.urlopen(request) as answer:", "    print(answer.read().decode())");
  return `${lines.join("\n")}\n`;
};
