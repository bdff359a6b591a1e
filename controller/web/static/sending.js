// One upload: a small file in one piece, a larger one in parts, of which what has arrived is kept by the platform. While
// the connection is lost it waits and goes on; what has arrived is compared with the file before it counts. What is refused
// again and again is given up, and can be begun again.
import { md5 } from "./md5.js";
import { request } from "./page.js";
import { Problem } from "./words.js";

const SMALL = 4 * 2 ** 20; // bytes up to which a file is sent in one piece
const LONGEST_PAUSE = 30000; // milliseconds
const PASSING = [0, 408, 429, 500, 502, 503, 504]; // statuses after which it is tried again
const EXPIRED = 403; // of a link
const GONE = 404;
const EXISTS = 412;
const MOST_TRIES = 6; // of what is answered, and refused: over half a minute

export class Upload {
  /** `address(query)` makes the address of the file in the files API; `tell(state, sent)` is told how it goes on. */
  constructor(file, address, tell) {
    this.file = file;
    this.address = address;
    this.tell = tell;
    this.stop = new AbortController();
    this.replaces = false;
    this.hasSent = false;
    this.id = "";
  }

  /** Returns when the file is stored. Raises Problem. */
  async run() {
    if (this.file.size > SMALL) return this.inParts();
    try {
      await this.send(this.file, { size: this.file.size }, 0, this.condition());
    } catch (error) {
      if (!(error.status === EXISTS && this.hasSent && (await this.isStored()))) throw error;
    }
  }

  async inParts() {
    const { partSize, arrived } = (this.id && (await this.resumed())) || (await this.begun());
    const count = Math.ceil(this.file.size / partSize);
    for (let number = 1; number <= count; number += 1) {
      const start = (number - 1) * partSize;
      const part = this.file.slice(start, start + partSize);
      if (!arrived.has(number)) await this.send(part, { upload: this.id, part: number }, start);
      this.tell("uploads", start + part.size);
    }
    await this.ask("POST", { upload: this.id });
  }

  /** Whether the file that is there is this one: the answer to a former attempt may have been lost. */
  async isStored() {
    const { size, etag } = await this.ask("GET", {});
    return size === this.file.size && etag === md5(await this.file.arrayBuffer());
  }

  async begun() {
    const { size } = this.file;
    const before = new Set((await this.unfinished()).map(({ upload }) => upload));
    const letGo = async () => {
      const mine = (each) => !before.has(each.upload) && each.size === size && !each.arrived;
      for (const { upload } of (await this.unfinished()).filter(mine)) await this.ask("DELETE", { upload });
    };
    const { upload, partSize } = await this.ask("POST", { uploads: "", size }, this.condition(), letGo);
    this.id = upload;
    return { partSize, arrived: new Set() };
  }

  async unfinished() {
    return (await this.ask("GET", { uploads: "" })).uploads;
  }

  /** Finds the parts that have arrived and are those of this file; null if the upload was given up meanwhile. */
  async resumed() {
    const known = await this.ask("GET", { upload: this.id }).catch((error) => {
      if (error.status !== GONE) throw error;
    });
    if (!known) return null;
    const { partSize, parts } = known;
    const arrived = new Set();
    for (const { number, size, etag } of parts) {
      this.tell("compares", (number - 1) * partSize);
      const start = (number - 1) * partSize;
      const content = await this.file.slice(start, start + partSize).arrayBuffer();
      if (content.byteLength === size && md5(content) === etag) arrived.add(number);
      if (this.stop.signal.aborted) throw this.stop.signal.reason;
    }
    return { partSize, arrived };
  }

  /** Ends it, and lets go of what has arrived. False if that stays, as the platform cannot be asked or refuses it. */
  async cancel() {
    this.stop.abort();
    if (!this.id) return true;
    const answer = await request(this.address({ upload: this.id }), { method: "DELETE" }).catch(() => null);
    return Boolean(answer?.ok) || answer?.status === GONE;
  }

  condition() {
    return this.replaces ? {} : { "If-None-Match": "*" };
  }

  /** `afterLoss` puts right what a request may have done whose answer was lost. */
  async ask(method, query, headers = {}, afterLoss = () => {}) {
    let refused = 0;
    for (let tries = 0; ; tries += 1) {
      const answer = await this.answer(method, query, headers);
      if (answer?.ok) return answer.status === 204 ? null : answer.json();
      if (answer) refused += 1;
      if (answer && (!PASSING.includes(answer.status) || refused === MOST_TRIES)) {
        throw new Problem(answer.status, await answer.json().catch(() => null));
      }
      await this.pause(tries, answer);
      if (!answer) await afterLoss();
    }
  }

  /** Null while the connection is lost. */
  async answer(method, query, headers) {
    const { signal } = this.stop;
    try {
      return await request(this.address(query), { method, headers, signal });
    } catch {
      if (signal.aborted) throw signal.reason;
      return null;
    }
  }

  async send(part, query, before, headers = {}) {
    let refused = 0;
    for (let tries = 0; ; tries += 1) {
      const link = await this.ask("PUT", query, headers);
      this.tell("uploads", before);
      this.hasSent = true;
      const { status, text } = await this.put(link.presigned_put_url, part, before);
      if (status === 200) return;
      if (status) refused += 1;
      if (![...PASSING, EXPIRED].includes(status) || refused === MOST_TRIES) throw new Problem(status, parsed(text));
      await this.pause(tries, status);
    }
  }

  /** Sends bytes by a link. fetch tells nothing about progress. */
  put(url, part, before) {
    const { signal } = this.stop;
    return new Promise((resolve, reject) => {
      const call = new XMLHttpRequest();
      const abort = () => call.abort();
      signal.addEventListener("abort", abort);
      call.open("PUT", url);
      if (part.type) call.setRequestHeader("Content-Type", part.type);
      call.upload.onprogress = ({ loaded }) => this.tell("uploads", before + loaded);
      call.onabort = () => reject(signal.reason);
      call.onloadend = () => {
        signal.removeEventListener("abort", abort);
        resolve({ status: call.status, text: call.responseText });
      };
      call.send(part);
    });
  }

  /** Waits, but no longer than until the connection is back. */
  async pause(tries, isAnswered) {
    const { signal } = this.stop;
    this.tell(isAnswered ? "later" : "again", null);
    await new Promise((resolve) => {
      setTimeout(resolve, Math.min(1000 * 2 ** tries, LONGEST_PAUSE));
      addEventListener("online", resolve, { once: true });
      signal.addEventListener("abort", resolve, { once: true });
    });
    if (signal.aborted) throw signal.reason;
  }
}

const parsed = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
};
