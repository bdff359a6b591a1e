// Texts that a module says, in the reader's language: those of the page's <template id="words">.
export const word = (key) => known(key) ?? key;

const known = (key) => [...document.getElementById("words").content.children].find(({ dataset }) => dataset.word === key)?.textContent;

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
