// The form that starts a run: a file is chosen, dragged onto its input or picked in the box. Its upload begins at once, and
// the run can be started when it has ended. Without this module people type the place of a file.
import { mayAsk, request } from "./page.js";
import { Upload } from "./sending.js";
import { explained, sizeOf, word } from "./words.js";

const SHOWN = 100; // files and folders at once

const escaped = (path) => path.split("/").map(encodeURIComponent).join("/");

class FileInput {
  constructor(form, part) {
    this.form = form;
    this.box = form.dataset.start;
    this.path = part.querySelector("input, textarea");
    this.file = part.querySelector("input[type=file]");
    this.bar = part.querySelector("progress");
    this.said = part.querySelector("[data-said]");
    this.pick = part.querySelector("[data-pick]");
    this.entries = part.querySelector("[data-entries]");
    this.upload = null;
    part.querySelector("[data-chooser]").hidden = false;
    this.file.addEventListener("change", () => this.file.files.length && this.take(this.file.files[0]));
    this.pick.addEventListener("click", () => this.open(this.entries.hidden));
    this.path.addEventListener("input", () => this.giveUp());
    part.addEventListener("dragover", (event) => event.preventDefault());
    part.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files.length) this.take(event.dataTransfer.files[0]);
    });
  }

  /** Uploads a file into a folder of its own; one that was chosen before is given up. */
  async take(file) {
    this.giveUp();
    const path = `uploads/${new Date().toISOString().replaceAll(/[:.]/g, "-")}/${file.name}`;
    const address = (query) => `${this.box}${escaped(path)}?${new URLSearchParams(query)}`;
    const upload = new Upload(file, address, (state, sent) => upload === this.upload && this.tell(file, state, sent));
    this.upload = upload;
    this.bar.max = Math.max(1, file.size);
    this.tell(file, "uploads", 0);
    allow(this.form);
    try {
      await upload.run();
      if (upload !== this.upload) return;
      this.path.value = path;
      this.end(`${file.name}: ${word("done")}`);
    } catch (error) {
      if (upload === this.upload) this.end(word("failed"), " ", ...explained(error));
    }
  }

  tell(file, state, sent) {
    this.bar.hidden = false;
    if (sent !== null) this.bar.value = sent;
    this.said.textContent = `${file.name} (${sizeOf(file.size)}): ${word(state)}`;
  }

  end(...said) {
    this.upload = null;
    this.bar.hidden = true;
    this.said.replaceChildren(...said);
    allow(this.form);
  }

  giveUp() {
    this.upload?.cancel();
    this.end();
  }

  // --- what is in the box already

  async open(isOpen, folder = "") {
    this.entries.hidden = !isOpen;
    this.pick.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) await this.list(folder, "");
  }

  async list(folder, after) {
    const asked = new URLSearchParams({ limit: SHOWN, ...(after ? { after } : {}) });
    try {
      const answer = await request(`${this.box}${escaped(folder)}?${asked}`);
      if (!answer.ok) throw new Error(answer.statusText);
      this.show(folder, after, await answer.json());
    } catch {
      this.entries.replaceChildren(item(word("not-read")));
    }
  }

  show(folder, after, { files, groups, next }) {
    const above = folder.split("/").slice(0, -2).join("/");
    const items = groups.map((name) => item(button(`${name}/`, () => this.list(`${folder}${name}/`, ""))));
    items.push(...files.map(({ name, size }) => item(button(name, () => this.choose(folder + name)), ` ${sizeOf(size)}`)));
    if (folder) items.unshift(item(button(`↑ ${word("above")}`, () => this.list(above && `${above}/`, ""))));
    if (!groups.length && !files.length) items.push(item(word("empty")));
    if (next) items.push(item(button(word("more"), () => this.list(folder, next))));
    const isInside = this.entries.contains(document.activeElement);
    this.entries.replaceChildren(...items);
    if (isInside) this.entries.querySelector("button")?.focus();
  }

  choose(path) {
    this.giveUp();
    this.file.value = "";
    this.path.value = path;
    this.open(false);
    this.path.focus();
  }
}

const item = (...children) => {
  const made = document.createElement("li");
  made.append(...children);
  return made;
};

const button = (text, act) => {
  const made = document.createElement("button");
  Object.assign(made, { type: "button", className: "link", textContent: text });
  made.addEventListener("click", act);
  return made;
};

let inputs = [];

/** A run starts when all files are there. */
const allow = (form) => {
  form.querySelector("button.primary").disabled = inputs.some((each) => each.upload);
};

const form = document.querySelector("form[data-start]");
if (form?.dataset.start && mayAsk()) {
  inputs = [...form.querySelectorAll("[data-file-input]")].map((part) => new FileInput(form, part));
  form.querySelector("[aria-invalid]")?.focus();
}
