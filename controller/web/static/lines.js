// The lines of a log on a page, with a search over them. A bounded number of the newest ones is kept, however long the log
// is, and drawn at most once a frame.
const KEPT = 5000;
const LONGEST = 10000; // characters of a line

export class Lines {
  /** `told` is called after each drawing. */
  constructor(text, search, { shown = KEPT, told = () => {} } = {}) {
    Object.assign(this, { text, search, shown, told });
    this.lines = [];
    this.rest = ""; // the beginning of a line
    this.isCut = false;
    this.isDrawn = true;
    search.addEventListener("input", () => this.draw());
  }

  add(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r/);
    this.rest = lines.pop().slice(0, LONGEST);
    for (const line of lines) this.lines.push(line.slice(0, LONGEST));
    if (this.lines.length > KEPT) {
      this.lines.splice(0, this.lines.length - KEPT);
      this.isCut = true;
    }
    if (!this.isDrawn) return;
    this.isDrawn = false;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.isDrawn = true;
    const wanted = this.search.value.toLowerCase();
    const all = this.rest ? [...this.lines, this.rest] : this.lines;
    const found = wanted ? all.filter((line) => line.toLowerCase().includes(wanted)) : all;
    const isAtEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 40;
    this.text.textContent = found.slice(-this.shown).join("\n");
    if (isAtEnd) this.text.scrollTop = this.text.scrollHeight;
    this.told(found.length, all.length);
  }
}
