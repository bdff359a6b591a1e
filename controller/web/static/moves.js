// Moves of folders: the form's request moves some files, so it is repeated until all of them are moved, and the page tells
// how far it is. What a closed page has begun is among the unfinished moves of the list, and goes on from there.
import { request } from "./page.js";
import { Problem, explained, word } from "./words.js";

const COUNTING = 1000; // milliseconds until space has been counted again
const PAUSES = [1000, 4000, 15000]; // milliseconds before it is tried again
const PASSING = [408, 429, 500, 502, 503, 504]; // statuses

/** `address(path, query)` is where something of the area is in the files API; `refresh` loads the list again. */
export const offerMoves = (address, refresh) => {
  document.addEventListener("submit", (event) => {
    const from = event.target.dataset.move;
    if (from === undefined) return;
    event.preventDefault();
    const to = event.target.elements.to.value.trim().replace(/^\/+|\/+$/g, "");
    event.target.closest("details")?.removeAttribute("open");
    new Move(address(from, { moveTo: `${to}/` }), address(`${to}/`, {})).run().then(refresh);
  });
};

class Move {
  constructor(place, target) {
    this.place = place;
    this.target = target;
    this.shown = document.querySelector("[data-moving]");
    this.bar = this.shown.querySelector("progress");
    this.text = this.shown.querySelector("[role=status]");
  }

  async run() {
    this.shown.hidden = this.bar.hidden = false;
    this.bar.removeAttribute("value");
    try {
      let step = await this.step();
      for (; step.more; step = await this.step()) {
        if (!step.moved) await new Promise((resolve) => setTimeout(resolve, COUNTING));
      }
      if (!step.left) location.assign(this.target);
      else this.end(word("problem-path-conflict"));
    } catch (error) {
      if (error instanceof Problem) this.end(word("move-failed"), " ", ...explained(error));
      else this.end(word("move-lost"));
    }
  }

  async step() {
    const answer = await this.answer();
    const told = await answer.json().catch(() => null);
    if (!answer.ok) throw new Problem(answer.status, told);
    this.bar.max = Math.max(1, told.files, told.soFar);
    this.bar.value = told.soFar;
    const number = (value) => new Intl.NumberFormat(document.documentElement.lang).format(value);
    const far = word("moves").replace("{moved}", number(told.soFar)).replace("{files}", number(told.files));
    this.text.textContent = told.more && !told.moved ? `${far}: ${word("counts")}` : far;
    return told;
  }

  /** What is passing is tried again: a step that was carried out already is not repeated by that. */
  async answer() {
    for (const pause of PAUSES) {
      const answer = await request(this.place, { method: "POST" }).catch(() => null);
      if (answer && !PASSING.includes(answer.status)) return answer;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    return request(this.place, { method: "POST" });
  }

  end(...parts) {
    this.bar.hidden = true;
    this.text.replaceChildren(...parts);
  }
}
