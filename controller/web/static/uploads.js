// Uploads into a folder: files are chosen or dragged onto the page, some are sent side by side, and each has a row that
// tells how far it is. A file that somebody began to upload before, on whatever page, goes on where it ended.
import { request } from "./page.js";
import { Upload } from "./sending.js";
import { explained, sizeOf, word } from "./words.js";

const AT_ONCE = 3; // files
const EXISTS = 412; // the status of an answer
const GONE = 404;

export const offerUploads = (list, refresh) => {
  const form = document.querySelector("[data-upload]");
  if (!form) return;
  const uploads = new Uploads(form, list, refresh);
  list.addEventListener("click", (event) => event.target.matches("[data-give-up]") && uploads.giveUp(event.target));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const chosen of form.querySelectorAll("input[type=file]")) {
    const take = () => {
      uploads.add([...chosen.files].map((file) => ({ file, at: folderOf(file) })));
      chosen.value = "";
    };
    chosen.addEventListener("change", take);
    if (chosen.files.length) take(); // chosen before this module was there
  }
  addEventListener("dragover", (event) => {
    event.preventDefault();
    form.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? form.classList.remove("dropping"));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    form.classList.remove("dropping");
    try {
      uploads.add(await dropped(event.dataTransfer.items));
    } catch {
      uploads.say(word("folder-unread"));
    }
  });
};

/** Where a file of this area is in the files API. */
export const address = (path, query) => {
  const [place, area] = document.querySelector("[data-area]").dataset.area.split("?");
  const asked = new URLSearchParams(area);
  for (const [name, value] of Object.entries(query)) asked.set(name, value);
  return `${place}${path.split("/").map(encodeURIComponent).join("/")}?${asked}`;
};

/** A file lies in a folder. Browsers resolve the names . and .. before they ask, and it would get elsewhere. */
const isPlace = (path) => path.includes("/") && !path.split("/").some((name) => name === "." || name === "..");

/** Where a file lies in a folder that was chosen. */
const folderOf = ({ webkitRelativePath: path }) => path.slice(0, path.lastIndexOf("/") + 1);

/** The files of a drop, with those in folders: `at` is the folder. Some browsers let a page with an origin of its own, as
    these are, read no folders. */
const dropped = async (items) => {
  const found = [...items].filter(({ kind }) => kind === "file");
  const roots = found.map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
  const files = await Promise.all(roots.map(({ entry, file }) => (entry?.isDirectory ? inside(entry, "") : [{ file, at: "" }])));
  return files.flat();
};

const inside = async (entry, at) => {
  if (entry.isFile) return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), at }];
  const [reader, found] = [entry.createReader(), []];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const each of some) found.push(...(await inside(each, `${at}${entry.name}/`)));
  }
};

class Uploads {
  constructor(form, list, refresh) {
    this.form = form;
    this.list = list;
    this.refresh = refresh;
    this.waiting = [];
    this.running = 0;
  }

  /** Takes all files, or none of them and says why. */
  add(files) {
    const into = this.form.querySelector("#into").value.trim().replace(/^\/+|\/+$/g, "");
    this.say("");
    if (!files.length) return this.say(word("no-files"));
    const all = files.map(({ file, at }) => ({ file, path: `${into}/${at}${file.name}`.replace(/^\/+/, "") }));
    if (!all.every(({ path }) => isPlace(path))) {
      this.form.querySelector("#into").focus();
      return this.say(word("no-folder"));
    }
    const needed = all.filter((one) => !this.begun(one)).reduce((sum, { file }) => sum + file.size, 0);
    const free = Number(this.list.dataset.free);
    if (needed > free) {
      const text = word(all.length > 1 ? "too-large-all" : "too-large");
      return this.say(text.replace("{size}", sizeOf(needed)).replace("{free}", sizeOf(free)));
    }
    for (const one of all) this.waiting.push(new Row(this, one));
    return this.next();
  }

  /** The id of an upload of the same path and size that is not finished, "" if there is none. */
  begun({ file, path }) {
    const same = [...this.list.querySelectorAll("[data-unfinished]")].find((one) => one.dataset.path === path && Number(one.dataset.size) === file.size);
    return same?.dataset.unfinished ?? "";
  }

  next() {
    while (this.running < AT_ONCE && this.waiting.length) this.run(this.waiting.shift());
  }

  async run(row) {
    this.running += 1;
    await row.run();
    this.running -= 1;
    this.next();
    if (!this.running) await this.refresh();
  }

  again(row) {
    this.waiting.push(row);
    this.next();
  }

  /** Lets go of what has arrived of an upload that is not finished. */
  async giveUp(button) {
    const { path, unfinished } = button.closest("[data-unfinished]").dataset;
    const answer = await request(address(path, { upload: unfinished }), { method: "DELETE" }).catch(() => null);
    this.say(answer?.ok || answer?.status === GONE ? "" : `${path}: ${word("not-given-up")}`);
    await this.refresh();
  }

  say(text) {
    this.form.querySelector("[data-said]").textContent = text;
  }
}

/** One file, as the page shows it. */
class Row {
  constructor(uploads, { file, path }) {
    this.uploads = uploads;
    this.path = path;
    this.size = file.size;
    this.upload = new Upload(file, (query) => address(path, query), (state, sent) => this.tell(state, sent));
    this.upload.id = uploads.begun({ file, path });
    this.element = document.createElement("li");
    this.bar = document.createElement("progress");
    this.text = document.createElement("span");
    const name = document.createElement("code");
    name.textContent = path;
    this.bar.max = Math.max(1, file.size);
    this.bar.setAttribute("aria-label", path);
    this.acts = document.createElement("span");
    this.element.append(name, this.bar, this.text, this.acts);
    uploads.form.querySelector("[data-uploads]").append(this.element);
    this.tell("waits", 0);
    this.offer(["cancel", () => this.cancel()]);
  }

  async run() {
    const { signal } = this.upload.stop;
    try {
      if (!signal.aborted) await this.upload.run();
      if (!signal.aborted) this.end("done");
    } catch (error) {
      if (!signal.aborted) this.fail(error);
    }
  }

  tell(state, sent) {
    if (sent !== null) this.bar.value = sent;
    const share = this.size && this.bar.value ? ` ${Math.floor((100 * this.bar.value) / this.bar.max)} %` : "";
    this.text.textContent = word(state) + share;
  }

  end(state) {
    this.bar.hidden = true;
    this.text.textContent = word(state);
    this.offer();
    this.uploads.say(`${this.path}: ${word(state)}`);
  }

  fail(error) {
    if (error.status === EXISTS) {
      this.text.textContent = word("exists");
      this.offer(["replace", () => this.replace()], ["skip", () => this.cancel()]);
    } else {
      this.text.replaceChildren(word("failed"), " ", ...explained(error));
      this.offer(["resume", () => this.again()], ["cancel", () => this.cancel()]);
    }
    this.uploads.say(`${this.path}: ${this.text.textContent}`);
  }

  replace() {
    this.upload.replaces = true;
    this.again();
  }

  again() {
    this.tell("waits", null);
    this.offer(["cancel", () => this.cancel()]);
    this.uploads.again(this);
  }

  async cancel() {
    this.text.textContent = word("cancels");
    this.offer();
    if (await this.upload.cancel()) this.end("canceled");
    else {
      this.text.textContent = word("not-given-up");
      this.offer(["cancel", () => this.cancel()]);
      this.uploads.say(`${this.path}: ${word("not-given-up")}`);
    }
    await this.uploads.refresh();
  }

  /** Shows buttons, named by the file for those who do not see the row. */
  offer(...acts) {
    const buttons = acts.map(([key, act]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = word(key);
      button.setAttribute("aria-label", `${word(key)}: ${this.path}`);
      button.addEventListener("click", act);
      return button;
    });
    this.acts.replaceChildren(...buttons);
  }
}
