// Try it: the form of a component's API, the upload of files into the caller's area, the call, and what comes back.
// Calls carry a pass for one API (auth/call_passes.py), never a cookie, and follow no redirect with it. Nothing that
// a module answers becomes an element: it is shown as text, or as a picture from a blob.
import { mayAsk, request } from "./page.js";
import { curlText, fieldsOf, pythonText, requestOf, WrongValue } from "./openapi.js";
import { explained, Problem, translated, word } from "./words.js";

const MOST = 8 * 2 ** 20; // bytes of an answer that are read
const SHOWN = 200000; // characters of a text that are shown
const MESSAGES = "application/json, application/problem+json; messages=1, */*; q=0.9"; // asks what problems were made of
const MARGIN = 30000; // milliseconds before a pass ends in which another one is asked for
const PICTURE = /^image\/(png|jpeg|gif|webp|bmp|avif|svg\+xml)$/;

const passes = new Map();
let blobs = [];

export const offerTry = () => {
  const place = document.querySelector("[data-try]");
  if (!place || !mayAsk()) return;
  const choice = place.querySelector("[data-apis]");
  choice.addEventListener("change", () => open(place));
  place.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    send(place);
  });
  place.querySelector("form").addEventListener("input", () => tell(place));
  open(place);
};

const chosen = (place) => place.querySelector("[data-apis]").selectedOptions[0].dataset;
const base = (place) => place.dataset.base || location.origin;

/** A pass for a path of the app, as long as it is good. */
const pass = async (place, path) => {
  const known = passes.get(path);
  if (known && Date.parse(known.expires) - Date.now() > MARGIN) return known.pass;
  const answer = await request(place.dataset.try, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ path }),
  });
  if (!answer.ok) throw await problem(answer);
  const made = await answer.json();
  passes.set(path, made);
  return made.pass;
};

const call = async (place, path, below, options = {}) =>
  fetch(`${base(place)}/${place.dataset.app}/${path}${below}`, {
    ...options,
    credentials: "omit",
    cache: "no-store",
    redirect: "error",
    referrerPolicy: "no-referrer",
    headers: { Accept: MESSAGES, ...options.headers, "X-Prichal-Pass": await pass(place, path) },
  });

// --- the form -------------------------------------------------------------------------------------------------------

/** Shows the form of the API that is chosen. Nothing can be called before its fields are there. */
const open = async (place) => {
  const api = chosen(place);
  const opening = (place.opening = Symbol("opening"));
  const form = place.querySelector("[data-fields]");
  const button = place.querySelector("[data-send]");
  button.disabled = true;
  clear(place);
  form.replaceChildren();
  place.fields = null;
  const { fields, controls, error } = api.kind === "own" ? { controls: ownFields() } : await described(place, api);
  if (opening !== place.opening) return; // another choice was made meanwhile, and its form is shown
  if (error) fail(place, error);
  place.fields = fields ?? null;
  form.replaceChildren(...(controls ?? ownFields("/predict", "POST")));
  tell(place);
  button.disabled = false;
};

/** The fields of an API by its own description, with their controls, or why there are none. */
const described = async (place, { path }) => {
  try {
    const answer = await call(place, path, "/openapi.json");
    if (!answer.ok) throw await problem(answer);
    const fields = fieldsOf(JSON.parse(await text(answer)));
    return { fields, controls: fields?.map((field) => fieldset(place, field)) };
  } catch (error) {
    return { error };
  }
};

const element = (kind, values = {}, ...children) => {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(values)) if (value !== false) made.setAttribute(name, value === true ? "" : value);
  made.append(...children);
  return made;
};

const labelled = (id, label, control, hint = "") => {
  control.id = id;
  const parts = [element("label", { for: id }, label), control];
  if (hint) {
    control.setAttribute("aria-describedby", `${id}-hint`);
    parts.push(element("p", { class: "hint", id: `${id}-hint` }, hint));
  }
  return parts;
};

const ownFields = (path = "/", method = "GET") => {
  const methods = ["GET", "POST", "PUT", "PATCH", "DELETE"].map((each) => element("option", { selected: each === method }, each));
  return [
    ...labelled("try-method", word("method"), element("select", { name: "method" }, ...methods)),
    ...labelled("try-path", word("path"), element("input", { name: "path", value: path, required: true, pattern: "/.*", spellcheck: "false" })),
    ...labelled("try-body", word("body"), element("textarea", { name: "body", rows: "6", spellcheck: "false" }), word("body-hint")),
  ];
};

let number = 0;

const fieldset = (place, field) => {
  number += 1;
  const id = `try-${number}`;
  const around = element("fieldset", { "data-field": field.name });
  const legend = element("legend", {}, field.name, " ");
  legend.append(element("span", { class: "soft" }, field.optional ? word("optional") : word("needed")));
  around.append(legend);
  if (field.description) around.append(element("p", { class: "hint", lang: "mul" }, field.description));
  const control = element("div", { "data-control": "" });
  if (field.forms.length > 1) {
    const options = field.forms.map((form) => element("option", {}, form.datatype));
    const choice = element("select", { "data-datatype": "" }, ...options);
    choice.addEventListener("change", () => control.replaceChildren(...controls(place, id, field.forms[choice.selectedIndex])));
    around.append(...labelled(`${id}-type`, word("type"), choice));
  }
  control.replaceChildren(...controls(place, id, field.forms[0]));
  around.append(control);
  return around;
};

const controls = (place, id, form) => {
  if (form.choices.length) {
    const options = form.choices.map((each) => element("option", {}, each));
    return labelled(id, form.datatype, element("select", { "data-value": "" }, ...options));
  }
  if (form.kind === "file") return fileControls(place, id);
  if (form.kind === "text") return labelled(id, form.datatype, element("textarea", { "data-value": "", rows: "2" }));
  if (form.kind === "json") return labelled(id, form.datatype, element("textarea", { "data-value": "", rows: "4", spellcheck: "false" }, form.fallback), word("json-hint"));
  const input = element("input", { "data-value": "", inputmode: "decimal", spellcheck: "false", value: form.fallback, class: "mono" });
  return labelled(id, form.datatype, input, word("number-hint"));
};

const fileControls = (place, id) => {
  const path = element("input", { "data-value": "", spellcheck: "false", placeholder: "group/file.png" });
  const parts = labelled(id, word("file-path"), path, word("file-hint"));
  if (!place.dataset.box || !place.dataset.files) return parts;
  const file = element("input", { type: "file", "data-file": "" });
  return [...labelled(`${id}-file`, word("file"), file), ...parts];
};

// --- the call -------------------------------------------------------------------------------------------------------

const values = (place) => {
  const found = Object.create(null);
  for (const around of place.querySelectorAll("[data-field]")) {
    const field = place.fields.find((each) => each.name === around.dataset.field);
    const choice = around.querySelector("[data-datatype]");
    const form = field.forms[choice ? choice.selectedIndex : 0];
    const file = around.querySelector("[data-file]")?.files[0];
    const typed = around.querySelector("[data-value]").value;
    found[field.name] = { datatype: form.datatype, text: file ? `${place.folder}/${file.name}` : typed };
  }
  return found;
};

/** The call that the form makes now. */
const callOf = (place) => {
  const form = place.querySelector("form");
  const at = `${base(place)}/${place.dataset.app}/${chosen(place).path}`;
  if (!place.fields) {
    const { method, path, body } = form.elements;
    return { method: method.value, below: path.value, url: at + path.value, body: method.value === "GET" ? "" : body.value };
  }
  return { method: "POST", below: "/predict", url: `${at}/predict`, body: JSON.stringify(requestOf(place.fields, values(place))) };
};

/** Keeps the texts for a shell and for Python as the form is. */
const tell = (place) => {
  place.folder ??= `tries/${new Date().toISOString().replaceAll(/[:.]/g, "-")}`;
  let texts = ["", ""];
  try {
    const { auth } = chosen(place);
    texts = [curlText, pythonText].map((make) => make(callOf(place), auth));
  } catch (error) {
    if (!(error instanceof WrongValue)) throw error;
  }
  place.querySelector("#try-curl").textContent = texts[0];
  place.querySelector("#try-python").textContent = texts[1];
};

const send = async (place) => {
  const button = place.querySelector("[data-send]");
  clear(place);
  button.disabled = true;
  place.setAttribute("aria-busy", "true");
  try {
    const made = callOf(place);
    await upload(place);
    const began = performance.now();
    const answer = await call(place, chosen(place).path, made.below, {
      method: made.method,
      ...(made.body ? { body: made.body, headers: { "Content-Type": "application/json" } } : {}),
    });
    await show(place, answer, (performance.now() - began) / 1000);
  } catch (error) {
    fail(place, error);
  } finally {
    place.folder = null;
    button.disabled = false;
    place.removeAttribute("aria-busy");
  }
};

const upload = async (place) => {
  for (const around of place.querySelectorAll("[data-field]")) {
    const file = around.querySelector("[data-file]")?.files[0];
    if (!file) continue;
    said(place, word("uploading"));
    const path = `${place.folder}/${file.name}`.split("/").map(encodeURIComponent).join("/");
    const link = await call(place, place.dataset.files, `/${place.dataset.box}/${path}?size=${file.size}`, { method: "PUT" });
    if (!link.ok) throw await problem(link);
    const { presigned_put_url: url } = await link.json();
    const stored = await fetch(url, { method: "PUT", body: file, credentials: "omit", redirect: "error" });
    if (!stored.ok) throw new Error(word("not-stored"));
  }
};

// --- what comes back ------------------------------------------------------------------------------------------------

const result = (place) => place.querySelector("[data-result]");

const clear = (place) => {
  for (const url of blobs) URL.revokeObjectURL(url);
  blobs = [];
  result(place).replaceChildren();
  said(place, "");
};

const said = (place, text) => {
  place.querySelector("[data-said]").textContent = text;
};

const show = async (place, answer, seconds) => {
  const took = new Intl.NumberFormat(document.documentElement.lang, { maximumSignificantDigits: 3 }).format(seconds);
  said(place, `${answer.status} · ${took} ${word("seconds")} · ${answer.headers.get("x-request-id") ?? ""}`);
  if (answer.status === 401) passes.clear();
  if (!answer.ok) {
    result(place).append(problemCard(await problem(answer)));
    return;
  }
  const type = (answer.headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase();
  if (PICTURE.test(type)) result(place).append(picture(await bytes(answer), type, word("answer")));
  else if (type.endsWith("json")) showJson(place, await text(answer));
  else if (type.startsWith("text/") || !type) result(place).append(block(await text(answer), word("answer")));
  else result(place).append(download(await bytes(answer), word("answer"), "answer"));
};

const showJson = (place, content) => {
  let value = null;
  try {
    value = JSON.parse(content);
  } catch {
    result(place).append(block(content, word("answer")));
    return;
  }
  const outputs = place.fields && Array.isArray(value?.outputs) ? value.outputs : [];
  for (const output of outputs) result(place).append(outputCard(place, output ?? {}));
  result(place).append(folded(word("json"), block(JSON.stringify(value, null, 2), word("json")), !outputs.length));
};

const outputCard = (place, output) => {
  const card = element("section", { class: "card pad" }, element("h4", { lang: "mul" }, String(output.name)));
  if (output.datatype === "FILE") stored(place, String(output.data), output.content_type).then((made) => card.append(made));
  else if (isTable(output)) card.append(grid(output));
  else card.append(block(typeof output.data === "string" ? output.data : JSON.stringify(output.data, null, 2), String(output.name)));
  return card;
};

const isTable = ({ data, shape }) => Array.isArray(data) && Array.isArray(shape) && shape.length === 2 && shape[0] * shape[1] === data.length && data.length <= 2500 && data.length > 0;

const grid = ({ data, shape: [rows, columns] }) => {
  const body = element("tbody");
  for (let row = 0; row < rows; row += 1) {
    const cells = data.slice(row * columns, (row + 1) * columns).map((value) => element("td", { class: "number" }, String(value)));
    body.append(element("tr", {}, element("th", { scope: "row" }, String(row)), ...cells));
  }
  const head = Array.from({ length: columns }, (_, at) => element("th", { scope: "col", class: "number" }, String(at)));
  return element("div", { class: "card", tabindex: "0" }, element("table", {}, element("thead", {}, element("tr", {}, element("td"), ...head)), body));
};

/** A file in the caller's area, as a picture or as text, and to be saved. */
const stored = async (place, path, told) => {
  if (!place.dataset.files || !place.dataset.box) return block(path, word("file-path"));
  try {
    const at = path.split("/").map(encodeURIComponent).join("/");
    const link = await call(place, place.dataset.files, `/${place.dataset.box}/${at}`);
    if (!link.ok) throw await problem(link);
    const { presigned_get_url: url } = await link.json();
    const answer = await fetch(url, { credentials: "omit", redirect: "error" });
    if (!answer.ok) throw new Error(word("not-read"));
    const [content, type, name] = [await bytes(answer), String(told ?? "").toLowerCase(), path.split("/").at(-1)];
    const parts = [element("p", {}, element("code", {}, path), " ", download(content, word("save"), name))];
    if (PICTURE.test(type)) parts.unshift(picture(content, type, name));
    else if (type.startsWith("text/") || type.endsWith("json")) parts.push(block(new TextDecoder().decode(content), name));
    return element("div", {}, ...parts);
  } catch (error) {
    return element("p", { class: "notice bad" }, ...explained(error));
  }
};

const address = (content, type) => {
  const url = URL.createObjectURL(new Blob([content], { type }));
  blobs.push(url);
  return url;
};

/** Pictures run nothing, whatever is in them; everything else is saved or shown as text. */
const picture = (content, type, name) => element("img", { src: address(content, type), alt: name, class: "shown" });
const download = (content, label, name) =>
  element("a", { href: address(content, "application/octet-stream"), download: name, class: "button" }, label);
const block = (content, label) => element("pre", { class: "block", tabindex: "0", "aria-label": label, lang: "mul" }, content.slice(0, SHOWN));

const folded = (label, content, isOpen) => element("details", { open: isOpen }, element("summary", {}, label), content);

const bytes = async (answer) => {
  const reader = answer.body.getReader();
  const parts = [];
  let size = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > MOST) {
      await reader.cancel();
      throw new Error(word("too-large"));
    }
    parts.push(value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
};

const text = async (answer) => new TextDecoder().decode(await bytes(answer));

const problem = async (answer) => {
  const content = await text(answer).catch(() => "");
  try {
    return new Problem(answer.status, translated(JSON.parse(content)));
  } catch {
    return new Problem(answer.status, { detail: content.slice(0, 500) });
  }
};

const problemCard = (error) => {
  const card = element("div", { class: "notice bad", role: "alert" }, element("p", {}, ...explained(error)));
  const items = (error.errors ?? []).slice(0, 50).map((each) => element("li", { lang: each?.isTranslated ? false : "en" }, `${each?.pointer ?? ""} ${each?.detail ?? ""}`));
  if (items.length) card.append(element("ul", {}, ...items));
  return card;
};

const fail = (place, error) => {
  said(place, "");
  if (error instanceof WrongValue) {
    const text = `${error.field}: ${word(`wrong-${error.code}`)} ${error.detail}`;
    result(place).replaceChildren(element("p", { class: "notice bad", role: "alert" }, text));
    place.querySelector(`[data-field="${CSS.escape(error.field)}"] [data-value]`)?.focus();
  } else if (error instanceof TypeError) {
    result(place).replaceChildren(element("p", { class: "notice bad", role: "alert" }, word("no-answer")));
  } else result(place).replaceChildren(problemCard(error));
};
