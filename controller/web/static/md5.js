// MD5 (RFC 1321) of bytes, as hexadecimal digits: the storage tells by it what a part that has arrived holds. Browsers
// have it not, and it protects nothing here: a part that differs is sent again.
const SHIFTS = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];
const SINES = Int32Array.from({ length: 64 }, (_, at) => Math.floor(Math.abs(Math.sin(at + 1)) * 2 ** 32));
const FIRST = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476];

/** `buffer` is an ArrayBuffer. */
export const md5 = (buffer) => {
  const state = Int32Array.from(FIRST);
  const whole = buffer.byteLength - (buffer.byteLength % 64);
  mix(state, new DataView(buffer, 0, whole));
  mix(state, rest(buffer, whole));
  const bytes = new DataView(new ArrayBuffer(16));
  state.forEach((value, at) => bytes.setInt32(4 * at, value, true));
  return Array.from(new Uint8Array(bytes.buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
};

/** The last bytes, with the padding and the length in bits. */
const rest = (buffer, from) => {
  const left = new Uint8Array(buffer, from);
  const padded = new Uint8Array(left.length < 56 ? 64 : 128);
  padded.set(left);
  padded[left.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setBigUint64(padded.length - 8, BigInt(buffer.byteLength) * 8n, true);
  return view;
};

const mix = (state, view) => {
  const words = new Int32Array(16);
  for (let start = 0; start < view.byteLength; start += 64) {
    for (let at = 0; at < 16; at += 1) words[at] = view.getInt32(start + 4 * at, true);
    block(state, words);
  }
};

const block = (state, words) => {
  let [a, b, c, d] = state;
  for (let step = 0; step < 64; step += 1) {
    const round = step >> 4;
    let value;
    let at;
    if (round === 0) [value, at] = [(b & c) | (~b & d), step];
    else if (round === 1) [value, at] = [(d & b) | (~d & c), (5 * step + 1) & 15];
    else if (round === 2) [value, at] = [b ^ c ^ d, (3 * step + 5) & 15];
    else [value, at] = [c ^ (b | ~d), (7 * step) & 15];
    const sum = (a + value + SINES[step] + words[at]) | 0;
    const by = SHIFTS[4 * round + (step & 3)];
    [a, d, c, b] = [d, c, b, (b + ((sum << by) | (sum >>> (32 - by)))) | 0];
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
};
