// The module of every page: times in the reader's zone, live parts, small conveniences. Pages work without it.
import { follow } from "./live.js";
import { keepTimes } from "./times.js";

keepTimes();
follow();

// A question that was opened by mistake closes with Escape, or when something else is chosen.
const close = (except) => {
  for (const one of document.querySelectorAll("details[data-dismiss][open]")) if (one !== except) one.open = false;
};
document.addEventListener("click", (event) => close(event.target.closest("details[data-dismiss]")));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = document.activeElement?.closest("details[data-dismiss][open]");
  close();
  open?.querySelector("summary").focus();
});

// A form is sent once, however often its button is pressed; a page that comes back may send it again.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  else if (event.target.method === "post") event.target.dataset.sent = "1";
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// What is confidential is forgotten when the page is left: going back must not fill it in again.
const forget = () => {
  for (const field of document.querySelectorAll("[data-forget]")) field.value = "";
};
addEventListener("pagehide", forget);
addEventListener("pageshow", forget);

// <button data-copy="id of an element"> copies its text, where the browser lets a page do so.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(text.textContent);
  } catch {
    getSelection().selectAllChildren(text);
  }
});
