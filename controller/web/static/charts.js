// Draws the series of a component as SVG, and the same as tables. Values come from .../series; a gap is a gap, not zero.
import { mayAsk, request } from "./page.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [640, 180, 64, 22, 8];
const ROWS = 12;
const language = document.documentElement.lang;

export const keepCharts = () => {
  const place = document.querySelector("[data-charts]");
  if (!place || !mayAsk()) return;
  let timer = 0;
  const show = async () => {
    clearTimeout(timer);
    const chosen = place.querySelector("input[name=window]:checked").value;
    if (document.visibilityState === "visible") await draw(place, chosen);
    timer = setTimeout(show, chosen === "1h" ? 10000 : 60000);
  };
  place.addEventListener("change", show);
  document.addEventListener("visibilitychange", show);
  show();
};

const draw = async (place, chosen) => {
  try {
    const answer = await request(`${place.dataset.charts}?window=${chosen}`);
    if (!answer.ok) return;
    const series = await answer.json();
    for (const figure of place.querySelectorAll("figure[data-chart]")) chart(figure, series);
    place.dataset.drawn = series.start;
  } catch {
    return; // the page says that the connection is lost; the next look comes
  }
};

const chart = (figure, series) => {
  const names = figure.dataset.chart.split(" ");
  const lines = names.map((name) => series.values[name] ?? []);
  const isKnown = lines.some((line) => line.some((value) => value !== null));
  figure.hidden = !isKnown && "optional" in figure.dataset;
  const most = top(Math.max(0, ...lines.flat().filter((value) => value !== null)), figure.dataset.unit);
  figure.querySelector("svg").replaceChildren(...axes(series, most, figure.dataset.unit), ...lines.map((line, at) => path(line, most, at)));
  figure.querySelector("[data-none]").hidden = isKnown;
  table(figure.querySelector("tbody"), series, lines, figure.dataset.unit);
};

const path = (line, most, at) => {
  const step = (WIDTH - LEFT) / Math.max(1, line.length - 1);
  let text = "";
  line.forEach((value, number) => {
    if (value === null) return;
    const isFirst = number === 0 || line[number - 1] === null;
    const [x, y] = [LEFT + number * step, height(value, most)].map((each) => each.toFixed(1));
    text += isFirst ? `M${x} ${y}h0.1L${x} ${y}` : `L${x} ${y}`;
  });
  return make("path", { d: text || "M0 0", class: `line line-${at}` });
};

const height = (value, most) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - BOTTOM - TOP);

const axes = (series, most, unit) => {
  const count = series.values.requests.length;
  const begin = Date.parse(series.start);
  const parts = [0, 0.5, 1].flatMap((share) => {
    const y = height(share * most, most);
    return [make("line", { x1: LEFT, x2: WIDTH, y1: y, y2: y, class: "axis" }), words(LEFT - 6, y + 4, formatted(share * most, unit), "end")];
  });
  const times = [0, 0.5, 1].map((share) => {
    const at = begin + share * count * series.step * 1000;
    return words(LEFT + share * (WIDTH - LEFT), HEIGHT - 6, clock.format(at), share === 0 ? "start" : share === 1 ? "end" : "middle");
  });
  return [...parts, ...times];
};

const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit" });

/** The least round number that is not below the greatest value. */
const top = (value, unit) => {
  if (unit === "share") return 1;
  if (value <= 0) return unit === "bytes" ? 2 ** 20 : 1;
  const base = unit === "bytes" ? 2 : 10;
  const power = base ** Math.floor(Math.log(value) / Math.log(base));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= value) ?? value;
};

const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

const formatted = (value, unit) => {
  if (value === null) return "–";
  if (unit === "bytes") {
    const step = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log(Math.max(1, value)) / Math.log(1024))));
    return new Intl.NumberFormat(language, { style: "unit", unit: UNITS[step], maximumSignificantDigits: 3 }).format(value / 1024 ** step);
  }
  if (unit === "seconds") {
    const [amount, name] = value < 1 ? [value * 1000, "millisecond"] : [value, "second"];
    return new Intl.NumberFormat(language, { style: "unit", unit: name, maximumSignificantDigits: 3 }).format(amount);
  }
  if (unit === "share") return new Intl.NumberFormat(language, { style: "percent" }).format(value);
  return new Intl.NumberFormat(language, { maximumSignificantDigits: 3 }).format(value);
};

/** The last value of each of some equal parts of the time. */
const table = (body, series, lines, unit) => {
  const count = lines[0].length;
  const begin = Date.parse(series.start);
  const rows = [];
  for (let row = 1; row <= Math.min(ROWS, count); row += 1) {
    const end = Math.round((row * count) / Math.min(ROWS, count));
    const from = Math.round(((row - 1) * count) / Math.min(ROWS, count));
    const cells = lines.map((line) => {
      const known = line.slice(from, end).filter((value) => value !== null);
      return cell("td", formatted(known.length ? known.at(-1) : null, unit), "number");
    });
    const line = document.createElement("tr");
    const head = cell("th", clock.format(begin + end * series.step * 1000));
    head.scope = "row";
    line.append(head, ...cells);
    rows.push(line);
  }
  body.replaceChildren(...rows);
};

const cell = (kind, text, name = "") => {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
};

const words = (x, y, text, anchor) => {
  const made = make("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
};

const make = (kind, values) => {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
  return made;
};
