// Makes an element's content that of a text, and leaves alone what is the same: elements with one id (or data-key) stay the
// same elements, so focus, scroll and selection stay, and what the reader has opened or typed in is kept. Only texts that
// the platform has rendered come here: this is the one place in which a text becomes elements.
const policy = globalThis.trustedTypes
  ? trustedTypes.createPolicy("prichal", { createHTML: (text) => text })
  : { createHTML: (text) => text };

export const morph = (element, html) => {
  const made = new DOMParser().parseFromString(policy.createHTML(html), "text/html");
  children(element, made.body);
};

/** What the reader sets, not the platform. */
const READERS = { DETAILS: ["open"], DIALOG: ["open"], INPUT: ["value", "checked"], OPTION: ["selected"] };

const key = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || "" : "");
const kind = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.tagName : node.nodeType);

const children = (old, made) => {
  const keyed = new Map();
  for (const node of old.childNodes) if (key(node)) keyed.set(key(node), node);
  let next = old.firstChild;
  for (const node of [...made.childNodes]) {
    const same = match(node, next, keyed);
    if (!same) {
      old.insertBefore(document.adoptNode(node), next);
      continue;
    }
    if (same === next) next = next.nextSibling;
    else old.insertBefore(same, next);
    become(same, node);
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
};

const match = (node, next, keyed) => {
  if (key(node)) {
    const found = keyed.get(key(node));
    return found && kind(found) === kind(node) ? found : null;
  }
  return next && !key(next) && kind(next) === kind(node) ? next : null;
};

const become = (old, made) => {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== made.nodeValue) old.nodeValue = made.nodeValue;
    return;
  }
  if (old.hasAttribute("data-keep")) return;
  if (old.tagName === "TIME" && old.dateTime === made.dateTime) return; // shown in the reader's zone already
  attributes(old, made);
  if (old.tagName !== "TEXTAREA") children(old, made);
};

const attributes = (old, made) => {
  const readers = READERS[old.tagName] ?? [];
  for (const { name } of [...old.attributes]) {
    if (!made.hasAttribute(name) && !readers.includes(name)) old.removeAttribute(name);
  }
  for (const { name, value } of made.attributes) {
    if (!readers.includes(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
};
