// A component's log as it comes: the stream is read only as fast as it is shown.
import { Lines } from "./lines.js";
import { mayAsk, readEvents, request, seenAfter } from "./page.js";

const SHOWN = 1000; // lines
const TAIL = 500; // lines to begin with
const PAUSE = 3000;

export const keepLog = () => {
  const place = document.querySelector("[data-component-log]");
  if (!place || !mayAsk()) return;
  const count = place.querySelector("[data-count]");
  const told = (found, all) => {
    count.textContent = `${found} / ${all}`;
  };
  const lines = new Lines(place.querySelector("pre"), place.querySelector("input[type=search]"), { shown: SHOWN, told });
  place.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  follow(place, lines);
};

/** Follows the log while somebody looks at the page; goes on where it was after an interruption. */
const follow = async (place, lines) => {
  let last = "";
  const take = (kind, data, id) => {
    if (id) last = id;
    lines.add(`${data}\n`);
  };
  for (;;) {
    const stop = new AbortController();
    const rest = () => document.visibilityState !== "visible" && stop.abort();
    document.addEventListener("visibilitychange", rest);
    try {
      const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
      const answer = await request(`${place.dataset.componentLog}follow=1&tail=${TAIL}`, { headers, signal: stop.signal });
      place.querySelector("[data-none]").hidden = answer.ok;
      if (answer.ok) await readEvents(answer, take);
      else if ([401, 403].includes(answer.status)) return;
    } catch {
      // the connection broke, or nobody looks: it goes on below
    } finally {
      document.removeEventListener("visibilitychange", rest);
    }
    await seenAfter(PAUSE);
  }
};
