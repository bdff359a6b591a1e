// The module of a folder's page: the list is loaded again when something was uploaded, when somebody comes back to the
// window, and now and then, since the answer brings the page another token.
import { morph } from "./morph.js";
import { offerMoves } from "./moves.js";
import { mayAsk, renew, request } from "./page.js";
import { showTimes } from "./times.js";
import { address, offerUploads } from "./uploads.js";

const EVERY = 600000; // milliseconds
const list = document.querySelector("[data-files]");

const refresh = async () => {
  try {
    const answer = await request(list.dataset.files);
    if (!answer.ok) return;
    const { html, free, token } = await answer.json();
    renew(token);
    morph(list, html);
    list.dataset.free = free;
    showTimes(list);
  } catch {
    // the connection is lost: what is shown stays
  }
};

if (list && mayAsk()) {
  offerUploads(list, refresh);
  offerMoves(address, refresh);
  setInterval(refresh, EVERY);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && refresh());
}
