// Shows <time datetime> in the reader's zone and language; those with data-time="ago" as how long ago it was.
const language = document.documentElement.lang;
const whole = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
const STEPS = [
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];
const EVERY = 10000;

export const keepTimes = () => {
  showTimes(document);
  setInterval(() => showTimes(document), EVERY);
};

export const showTimes = (root) => {
  for (const one of root.querySelectorAll("time[datetime]")) show(one);
};

const show = (one) => {
  const at = new Date(one.dateTime);
  if (Number.isNaN(at.getTime())) return;
  const text = one.dataset.time === "ago" ? ago((Date.now() - at) / 1000) : whole.format(at);
  if (one.textContent !== text) one.textContent = text;
  one.title = whole.format(at);
};

const ago = (seconds) => {
  for (const [unit, size] of STEPS) {
    if (Math.abs(seconds) >= 1.5 * size) return relative.format(-Math.round(seconds / size), unit);
  }
  return relative.format(-Math.max(0, Math.round(seconds)), "second");
};
