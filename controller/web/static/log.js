// Logs of stages: read in pieces while they are opened.
import { Lines } from "./lines.js";
import { request } from "./page.js";

const PAUSE = 1000;
const AGAIN = 5000;

class StageLog {
  constructor(part) {
    this.part = part;
    this.cut = part.querySelector("[data-cut]");
    this.failed = part.querySelector("[data-failed]");
    this.lines = new Lines(part.querySelector("[data-text]"), part.querySelector("[data-find]"));
    this.next = null;
    this.timer = 0;
  }

  wake() {
    clearTimeout(this.timer);
    if (this.part.open && document.visibilityState === "visible" && !this.isComplete) this.read();
  }

  async read() {
    let pause = PAUSE;
    try {
      const from = this.next === null ? "" : `?offset=${this.next}`;
      const answer = await request(this.part.dataset.log + from);
      if (!answer.ok) throw new Error(answer.statusText);
      const piece = await answer.json();
      this.failed.hidden = true;
      this.take(piece);
      if (piece.text && piece.next < piece.size) pause = 50; // an unfinished line is waited for
    } catch {
      this.failed.hidden = false;
      pause = AGAIN;
    }
    this.timer = setTimeout(() => this.wake(), pause);
  }

  take(piece) {
    if (this.next === null && piece.offset > 0) this.cut.hidden = false;
    this.next = piece.next;
    this.isComplete = piece.isComplete;
    if (piece.text) this.lines.add(piece.text);
    if (this.lines.isCut) this.cut.hidden = false;
  }
}

const logs = [...document.querySelectorAll("[data-log]")].map((part) => new StageLog(part));
for (const log of logs) log.part.addEventListener("toggle", () => log.wake());
document.addEventListener("visibilitychange", () => logs.forEach((log) => log.wake()));
