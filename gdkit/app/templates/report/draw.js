// Scales, ticks, marks and axes, used by all figures.

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, children = []) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function html(tag, attributes = {}, children = []) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// A scale maps values between low and high onto pixels between from and to; `at` is its inverse. "symlog" is linear below
// `knee`. `zoom` returns the same scale with other ends; `numbers` is the scale itself, or for texts the scale of their places.
function scaleOf(kind, low, high, from, to, knee = 1) {
  const [forward, backward] = {
    linear: [(v) => v, (u) => u],
    log: [(v) => Math.log10(v), (u) => 10 ** u],
    symlog: [(v) => (v <= knee ? (0.5 * v) / knee : 0.5 + Math.log10(v / knee)), (u) => (u <= 0.5 ? 2 * knee * u : knee * 10 ** (u - 0.5))],
  }[kind];
  const [a, b] = [forward(low), forward(high)];
  const ratio = b === a ? 0 : (to - from) / (b - a);
  const scale = { kind, low, high, from, to, knee, of: (v) => (ratio ? from + (forward(v) - a) * ratio : (from + to) / 2), at: (p) => backward(a + (p - from) / ratio) };
  return Object.assign(scale, { numbers: scale, zoom: ([first, last]) => scaleOf(kind, first, last, from, to, knee) });
}

// A scale of texts at equal distances; its ends are places among them.
function textScale(texts, from, to, ends = [-0.5, texts.length - 0.5]) {
  const at = new Map(texts.map((text, i) => [text, i]));
  const numbers = scaleOf("linear", ...ends, from, to);
  return { ...numbers, numbers, kind: "text", texts, of: (text) => numbers.of(at.get(text)), zoom: (range) => textScale(texts, from, to, range) };
}

// A scale for the values of an axis, with a margin of half a step (less where they are few, unless they are cells);
// texts are placed at equal distances.
function axisScale(sweep, axis, values, from, to, cells = false, chosen = null) {
  if (typeof values[0] !== "number") return textScale(values, from, to);
  const kind = chosen && (chosen === "linear" || values[0] > 0) ? chosen : (sweep.axes[axis]?.scale ?? "linear");
  let [low, high] = [values[0], values[values.length - 1]];
  if (low === high) return kind === "log" ? scaleOf("log", low / 3, low * 3, from, to) : scaleOf("linear", low - 1, low + 1, from, to);
  const marks = values.length <= 8 ? values : null; // a tick at each of few values
  const share = 0.5 / Math.max(values.length - 1, cells ? 1 : 8);
  if (kind === "log") {
    const margin = (high / low) ** share;
    return { ...scaleOf("log", low / margin, high * margin, from, to), marks };
  }
  if (kind === "symlog") return scaleOf("symlog", low, high * 1.3, from, to, values.find((value) => value > 0));
  const margin = (high - low) * share;
  return { ...scaleOf("linear", low - margin, high + margin, from, to), marks };
}

// Whether losses suit a log axis: if all are positive, or if some are 0 and the others extend over three decades.
function suitLog(values) {
  const [least, most] = [smallest(values), largest(values)];
  return least > 0 || (least === 0 && most > 1000 * smallest(values.filter((value) => value > 0)));
}

// A scale for losses: log where it suits them, at most sixteen decades. Outliers on the bad side lie beyond its end.
function lossScale(values, from, to, linear, maximize = false) {
  const finite = values.filter(Number.isFinite);
  const isLog = !linear && finite.length > 0 && suitLog(finite);
  const shown = (isLog ? finite.filter((value) => value > 0).map(Math.log10) : finite).sort((a, b) => a - b);
  let [low, high] = shown.length ? withoutOutliers(shown, maximize) : [0, 1];
  if (isLog) low = Math.max(low, high - 16);
  const margin = 0.05 * (isLog ? Math.max(high - low, 0.3) : high - low || Math.abs(high) || 1);
  const ends = [low - margin, high + margin].map((end) => (isLog ? 10 ** end : end));
  return { ...scaleOf(isLog ? "log" : "linear", ...ends, from, to), empty: !shown.length };
}

// The ends of sorted numbers, without outliers on the bad side: at most a tenth of the numbers, more than three times the
// distance of the quartiles beyond a quartile (Tukey). Without a known bad side no number counts as an outlier.
function withoutOutliers(sorted, maximize) {
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const [low, high, far] = [sorted[0], sorted.at(-1), 3 * (at(0.75) - at(0.25))];
  if (maximize === null || sorted.length < 8 || !far) return [low, high];
  const within = (limit, ok) => sorted.filter((value) => ok(value, limit));
  if (maximize) return [within(Math.min(at(0.1), at(0.25) - far), (v, end) => v >= end)[0], high];
  return [low, within(Math.max(at(0.9), at(0.75) + far), (v, end) => v <= end).at(-1)];
}

const smallest = (values) => values.reduce((a, b) => (b < a ? b : a), Infinity);
const largest = (values) => values.reduce((a, b) => (b > a ? b : a), -Infinity);

// Labels of an axis, [value, text], no two closer than `gap` pixels.
function ticksOf(scale, gap) {
  if (scale.kind === "text") return scale.texts.filter((text) => isInside(scale, text)).map((text) => [text, text]);
  const marks = scale.marks && apart(scale, scale.marks, gap);
  const ticks = marks?.length > 1 ? marks : apart(scale, scale.kind === "linear" ? linearTicks(scale, gap) : logTicks(scale, gap), gap);
  const enough = ticks.length > 1 ? ticks : apart(scale, linearTicks(scale, gap), gap); // the range is less than a decade
  return enough.map((value) => [value, tickText(value, enough)]);
}

// Whether a value is between the ends of a scale, or within a pixel of them.
const isInside = ({ of, from, to }, value) => of(value) >= Math.min(from, to) - 1 && of(value) <= Math.max(from, to) + 1;

function apart(scale, values, gap) {
  const ticks = [];
  for (const value of values) {
    const at = scale.of(value);
    if (isInside(scale, value) && ticks.every((other) => Math.abs(scale.of(other) - at) >= gap)) ticks.push(value);
  }
  return ticks;
}

// As few digits as distinguish the labels of an axis.
function tickText(value, ticks) {
  if (new Set(ticks.map((tick) => short(tick))).size === ticks.length) return short(value);
  return String(Number(value.toPrecision(8)));
}

function linearTicks(scale, gap) {
  const count = Math.max(2, Math.floor(Math.abs(scale.to - scale.from) / gap / 1.4));
  const rough = (scale.high - scale.low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(scale.low / step - 1e-9); i * step <= scale.high + step * 1e-9; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

function logTicks(scale, gap) {
  const low = scale.kind === "symlog" ? Math.max(scale.knee, scale.low) : scale.low;
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(scale.high))];
  const decades = Math.log10(scale.high / low);
  const every = Math.max(1, Math.ceil(decades / Math.max(1, Math.abs(scale.to - scale.from) / gap / 1.3)));
  const within = decades >= 2 ? [1] : decades >= 0.7 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  const ticks = scale.kind === "symlog" && scale.low <= 0 ? [0] : [];
  for (let e = first; e <= last; e++) {
    if ((e - first) % every && decades >= 2) continue;
    for (const m of within) {
      const value = Number(`${m}e${e}`);
      if (value >= low * 0.999 && value <= scale.high * 1.001) ticks.push(value);
    }
  }
  return ticks;
}

// A mark as a path around (x, y), so that thousands of marks are one element.
function markPath(marker, x, y, r) {
  if (marker === "o") return `M${(x - r).toFixed(1)} ${y.toFixed(1)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  return `${polyline((MARKS[marker] ?? MARKS.s).map(([a, b]) => [x + a * r, y + b * r]))}Z`;
}

const polygon = (corners, turn) =>
  Array.from({ length: corners }, (_, i) => {
    const angle = (2 * Math.PI * i) / corners + turn;
    return [1.05 * Math.sin(angle), -1.05 * Math.cos(angle)];
  });
const CROSS = [[0, -0.4], [0.6, -1], [1, -0.6], [0.4, 0], [1, 0.6], [0.6, 1], [0, 0.4], [-0.6, 1], [-1, 0.6], [-0.4, 0], [-1, -0.6], [-0.6, -1]];
const MARKS = {
  s: [[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]],
  D: [[0, -1.15], [1.15, 0], [0, 1.15], [-1.15, 0]],
  "^": [[0, -1.15], [1.05, 0.85], [-1.05, 0.85]],
  v: [[0, 1.15], [1.05, -0.85], [-1.05, -0.85]],
  _: [[-1.1, -0.45], [1.1, -0.45], [1.1, 0.45], [-1.1, 0.45]],
  X: CROSS,
  P: CROSS.map(([a, b]) => [(a - b) / Math.SQRT2, (a + b) / Math.SQRT2]),
  p: polygon(5, 0),
  h: polygon(6, 0),
  "*": Array.from({ length: 10 }, (_, i) => {
    const [r, angle] = [i % 2 ? 0.62 : 1.5, (Math.PI * i) / 5];
    return [r * Math.sin(angle), -r * Math.cos(angle)];
  }),
};

// Small marks for legends and tables.
const badge = (...content) => svg("svg", { class: "badge", viewBox: "-8 -8 16 16", "aria-hidden": "true" }, content);
const regimeBadge = (sweep, code) => badge(svg("path", { class: `mark r${code}`, d: markPath(sweep.regimes[code].marker, 0, 0, 5) }));
const seriesBadge = ({ look }) =>
  svg("svg", { class: "badge wide", viewBox: "0 -8 26 16", "aria-hidden": "true" }, [svg("line", { class: `line ${look}`, x1: 1, x2: 25, y1: 0, y2: 0 })]);

// Axes of a figure: grid, labels, titles. `box` holds left, right, top, bottom in pixels.
function drawAxes(picture, box, x, y, xTitle, yTitle, panel = "") {
  const grid = svg("g", { class: "grid" });
  const texts = svg("g", { class: "ticks" });
  const names = x.kind === "text";
  const width = names ? (box.right - box.left) / x.texts.length : 0;
  for (const [value, text] of ticksOf(x, 46)) {
    const at = x.of(value);
    grid.append(svg("line", { x1: at, x2: at, y1: box.top, y2: box.bottom }));
    const label = names && text.length * 7 > width ? `${text.slice(0, Math.max(1, Math.floor(width / 7) - 1))}…` : text;
    texts.append(svg("text", { x: at, y: box.bottom + 17, "text-anchor": "middle" }, [label]));
  }
  for (const [value, text] of y.empty ? [] : ticksOf(y, 26)) {
    const at = y.of(value);
    grid.append(svg("line", { x1: box.left, x2: box.right, y1: at, y2: at }));
    const label = text.length > 10 ? `${text.slice(0, 9)}…` : text;
    texts.append(svg("text", { x: box.left - 7, y: at + 4, "text-anchor": "end" }, [label]));
  }
  const middle = (box.left + box.right) / 2;
  texts.append(svg("text", { class: "title", x: middle, y: box.bottom + 38, "text-anchor": "middle" }, [xTitle]));
  if (panel) texts.append(svg("text", { class: "title", x: middle, y: 12, "text-anchor": "middle" }, [panel]));
  texts.append(svg("text", { class: "title", x: 2, y: panel ? box.top - 12 : 12 }, [yTitle]));
  picture.append(grid, texts);
}

// An empty picture as wide as its holder.
function canvas(holder, height) {
  const width = Math.max(260, Math.floor(holder.clientWidth));
  const pixels = Math.round(height ?? Math.min(440, Math.max(300, width * 0.62)));
  return { width, height: pixels, picture: svg("svg", { viewBox: `0 0 ${width} ${pixels}`, class: "picture" }) };
}

const polyline = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");

// The midpoints between increasing places, and one beyond each end.
function borders(places) {
  if (places.length === 1) return [places[0] - 20, places[0] + 20];
  const midpoints = places.slice(1).map((place, i) => (place + places[i]) / 2);
  return [2 * places[0] - midpoints[0], ...midpoints, 2 * places.at(-1) - midpoints.at(-1)];
}
