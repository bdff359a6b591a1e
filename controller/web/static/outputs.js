// Lists the files of a run's outputs, as soon as each output is in its box. Each file leads to its page, which shows what
// is in it. While the storage is down this says so and asks again, less and less often, and only while somebody looks.
import { mayAsk, request, seenAfter } from "./page.js";
import { sizeOf, word } from "./words.js";

const SHOWN = 20; // files of one output
const AGAIN = 5000;
const LONGEST_PAUSE = 60000;

const look = () => {
  for (const part of document.querySelectorAll("[data-outputs]:not([data-asked])")) {
    part.dataset.asked = "1";
    list(part);
  }
};

const list = async (part, pause = AGAIN) => {
  const [place, area] = part.dataset.outputs.split("?");
  const asked = new URLSearchParams(area);
  asked.set("recursive", "1");
  asked.set("limit", SHOWN);
  try {
    const answer = await request(`${place}?${asked}`);
    if (!answer.ok) throw new Error(answer.statusText);
    show(part, await answer.json());
  } catch {
    say(part, word("not-read"), "notice warn");
    await seenAfter(pause);
    if (part.isConnected) await list(part, Math.min(2 * pause, LONGEST_PAUSE));
  }
};

const show = (part, { files, next }) => {
  if (!files.length) {
    say(part, word("gone"), "hint");
    return;
  }
  const made = document.createElement("ul");
  made.className = "entries";
  made.append(...files.map((file) => entry(part.dataset.outputs, file)));
  part.replaceChildren(made);
  if (next) part.append(link(part.dataset.outputs, word("all")));
};

const entry = (folder, { name, size }) => {
  const [place, area] = folder.split("?");
  const at = `${place}${name.split("/").map(encodeURIComponent).join("/")}`;
  const saved = new URLSearchParams(area);
  saved.set("download", "1");
  const made = document.createElement("li");
  const save = link(`${at}?${saved}`, word("download"));
  save.setAttribute("aria-label", `${word("download")}: ${name}`);
  made.append(link(area ? `${at}?${area}` : at, name), ` ${sizeOf(size)} `, save);
  return made;
};

const link = (address, text) => {
  const made = document.createElement("a");
  made.href = address;
  made.textContent = text;
  return made;
};

const say = (part, text, kind) => {
  const made = document.createElement("p");
  made.className = kind;
  made.setAttribute("role", "status");
  made.textContent = text;
  part.replaceChildren(made);
};

if (mayAsk()) {
  look();
  document.addEventListener("changed", look);
}
