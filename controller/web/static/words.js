// Texts that a module says, in the reader's language: those of the page's <template id="words">.
export const word = (key) => known(key) ?? key;

const known = (key) => [...document.getElementById("words").content.children].find(({ dataset }) => dataset.word === key)?.textContent;

const PLACE = /\{([a-z][a-z0-9_]*)(!r)?\}/g;

/** The translations of patterns of messages to callers, if the page has some. */
const patterns = () => JSON.parse(document.getElementById("patterns")?.textContent || "{}");

/** A message in the reader's language, of its pattern and its values (serving/texts.py); others' texts are values. */
const told = (message, known) => {
  const { pattern, values, sentence } = message;
  const text = String(known[pattern] ?? pattern).replace(PLACE, (place, name, quoted) => {
    if (!Object.hasOwn(values ?? {}, name)) return place;
    const value = values[name];
    if (value?.pattern !== undefined) return told(value, known);
    return quoted && typeof value === "string" ? `'${value}'` : String(value);
  });
  return sentence ? `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?…]$/.test(text) ? "" : "."}` : text;
};

/** The same document with its messages in the reader's language; they are its detail and its errors, in order. */
export const translated = (document) => {
  const known = patterns();
  if (!Array.isArray(document?.messages) || !Object.keys(known).length) return document;
  const [detail, ...errors] = document.messages.map((message) => message && told(message, known));
  return {
    ...document,
    ...(detail ? { said: detail } : {}),
    errors: document.errors?.map((each, at) => (errors[at] ? { ...each, detail: errors[at], isTranslated: true } : each)),
  };
};

/** What the platform, or a module, answers instead of doing it. `meaning` is in the reader's language, as far as it is a
    problem of the platform's own; so is the message if the platform has `said` it, else it is in English. */
export class Problem extends Error {
  constructor(status, told) {
    const meaning = known(`problem-${String(told?.type).split(":").at(-1)}`) ?? "";
    super(told?.said || [meaning ? "" : told?.title, told?.detail].filter(Boolean).join(". ") || `HTTP ${status}`);
    Object.assign(this, { status, meaning, isTranslated: Boolean(told?.said), errors: Array.isArray(told?.errors) ? told.errors : [] });
  }
}

/** An error as parts of an element. */
export const explained = ({ meaning, message, isTranslated }) => {
  const detail = document.createElement("span");
  if (!isTranslated) detail.lang = "en";
  detail.textContent = message;
  return meaning ? [meaning, " ", detail] : [detail];
};

/** A number of bytes in words. */
export const sizeOf = (bytes) => {
  const step = Math.min(4, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  const shown = new Intl.NumberFormat(document.documentElement.lang, { maximumSignificantDigits: 3 }).format(bytes / 1024 ** step);
  return `${shown} ${word(`unit-${step}`)}`;
};
