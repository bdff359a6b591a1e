// Follows the parts of a page that change: a stream of fragments, each put in place of the former one, with the event
// "changed". A window that nobody sees follows nothing: browsers allow few connections to one host.
import { mayAsk, readEvents, renew, request } from "./page.js";
import { morph } from "./morph.js";
import { showTimes } from "./times.js";

const main = document.querySelector("main[data-live]");
const notice = document.querySelector("[data-lost]");
let stop = null;
let pause = 1000;
let timer = 0;

export const follow = () => {
  if (!main || !mayAsk()) return;
  document.addEventListener("visibilitychange", wakeOrRest);
  addEventListener("pagehide", rest);
  addEventListener("pageshow", wakeOrRest);
  wakeOrRest();
};

const wakeOrRest = () => {
  if (document.visibilityState === "visible") wake();
  else rest();
};

const rest = () => {
  clearTimeout(timer);
  stop?.abort();
  stop = null;
};

const wake = () => {
  if (stop) return;
  stop = new AbortController();
  listen(stop.signal);
};

const listen = async (signal) => {
  let answer = null;
  try {
    answer = await request(`${main.dataset.live}&have=${have()}`, { signal, headers: { Accept: "text/event-stream" } });
    if (answer.ok) {
      tell("");
      pause = 1000;
      await readEvents(answer, take);
    }
  } catch (error) {
    if (signal.aborted) return;
  }
  if (signal.aborted) return;
  stop = null;
  if (answer && [401, 403, 404].includes(answer.status)) tell(notice.dataset.ended);
  else again(answer);
};

const again = (answer) => {
  if (!answer?.ok) tell(notice.dataset.offline);
  timer = setTimeout(wakeOrRest, pause);
  pause = Math.min(2 * pause, 30000);
};

const have = () =>
  [...document.querySelectorAll("[data-fragment]")].map((one) => `${one.dataset.fragment}:${one.dataset.version}`).join();

const take = (kind, data) => {
  if (kind === "token") renew(data);
  if (kind === "fragment") put(JSON.parse(data));
};

const put = ({ name, version, html }) => {
  const part = document.querySelector(`[data-fragment="${name}"]`);
  if (!part) return;
  morph(part, html);
  part.dataset.version = version;
  showTimes(part);
  part.dispatchEvent(new Event("changed", { bubbles: true }));
};

const tell = (text) => {
  notice.textContent = text;
  notice.hidden = !text;
};
