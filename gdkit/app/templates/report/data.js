// The embedded sweep: columns of exact numbers, one row per lane, and queries on them.

const TYPES = { f4: Float32Array, f8: Float64Array, i4: Int32Array, u1: Uint8Array };
const [CONVERGED, DIVERGED] = [1, 6]; // codes of regimes
const COMPLETED = 1; // code of an end

function unpack(type, base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new TYPES[type](bytes.buffer);
}

function readSweep(source) {
  labels = source.labels;
  const columns = new Map();
  for (const column of source.columns) {
    columns.set(column.name, { ...column, values: unpack(column.type, column.data), data: null });
  }
  const curves = source.curves.map((curve) => {
    const rows = unpack("i4", curve.rows);
    return { what: curve.what, steps: curve.steps, values: unpack("f4", curve.values), at: new Map([...rows].map((row, i) => [row, i])) };
  });
  const edges = new Map(Object.entries(source.edges).map(([axis, data]) => [axis, unpack("f4", data)]));
  return { ...source, columns, curves, edges, rows: columns.get("lane").values.length };
}

// One cell: a number, or a text where the column holds texts.
function cell(sweep, name, row) {
  const column = sweep.columns.get(name);
  return column.texts ? column.texts[column.values[row]] : column.values[row];
}

const regimeOf = (sweep, row) => sweep.columns.get("regime").values[row];
const optimizerOf = (sweep, row) => sweep.optimizers.findIndex((o) => row >= o.start && row < o.start + o.count);
// Labels of columns, axes and curves: [text, unit, description], as Python writes them into the page.
let labels = {};
const humanize = (name) => labels[name]?.[0] ?? name.replace(/^problem\./, "").replaceAll("_", " ");
const titleOf = (name) => (labels[name]?.[1] ? `${humanize(name)} (${labels[name][1]})` : humanize(name));
const describe = (name) => labels[name]?.[2] ?? "";

// Whether larger numbers of a measure are better.
const isMaximized = (sweep, name) => sweep.maximized.includes(name);

// The score of a lane; infinitely bad if it diverged or its number is not finite.
function score(sweep, name, row) {
  const value = sweep.columns.get(name).values[row];
  return regimeOf(sweep, row) === DIVERGED || !Number.isFinite(value) ? (isMaximized(sweep, name) ? -Infinity : Infinity) : value;
}

// Whether an optimizer has an axis; the optimizer itself can be one.
const has = (optimizer, axis) => axis === "optimizer" || optimizer.dimensions.some((names) => names.includes(axis));

// Rows of one optimizer that vary along the `free` axes only; the other axes are fixed at `at`, or at its best point.
function rowsAlong(sweep, optimizer, free, at) {
  const fixed = optimizer.dimensions.filter((names) => !names.some((name) => free.includes(name))).flat();
  const wanted = fixed.map((name) => [name, at[name] ?? cell(sweep, name, optimizer.best)]);
  const rows = [];
  for (let row = optimizer.start; row < optimizer.start + optimizer.count; row++) {
    if (wanted.every(([name, value]) => cell(sweep, name, row) === value)) rows.push(row);
  }
  return rows;
}

// A line along an axis: its values in order, and the rows of each value, one per seed.
function lineAlong(sweep, index, axis, at) {
  const optimizer = sweep.optimizers[index];
  const groups = new Map();
  for (const row of rowsAlong(sweep, optimizer, [axis], at)) {
    const value = axis === "optimizer" ? optimizer.label : cell(sweep, axis, row);
    if (!groups.has(value)) groups.set(value, []);
    groups.get(value).push(row);
  }
  const values = distinct(groups.keys());
  return { index, optimizer, axis, values, rows: values.map((value) => groups.get(value)) };
}

// Distinct values: numbers in order, texts in their order of appearance.
function distinct(values) {
  const found = [...new Set(values)];
  return typeof found[0] === "number" ? found.sort((a, b) => a - b) : found;
}

// Distinct values of an axis in some rows, without those of optimizers that lack the axis.
const valuesOf = (sweep, name, rows = sweep.columns.get("lane").values.keys()) =>
  distinct([...rows].map((row) => cell(sweep, name, row)).filter((value) => value === value && value !== ""));

// Number of `rows` in each regime.
function regimeCounts(sweep, rows) {
  const counts = new Array(sweep.regimes.length).fill(0);
  for (const row of rows) counts[regimeOf(sweep, row)]++;
  return counts;
}

// The most common regime of `rows`; of equally common regimes the lowest code.
function mostCommonRegime(sweep, rows) {
  const counts = regimeCounts(sweep, rows);
  return counts.indexOf(Math.max(...counts));
}

// The edge of divergence along a line, computed from all lanes of the sweep, embedded or not; null if it is not on the axis.
function edgeOf(sweep, line) {
  const edge = sweep.edges.get(line.axis)?.[line.rows[0]?.[0]];
  return edge > 0 ? edge : null;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  if (sorted.length % 2) return sorted[half];
  return sorted[half - 1] === sorted[half] ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

// The curve of a row up to its end, its last loss included; null if the page does not embed one.
function curveOf(sweep, row, what = "loss") {
  const source = sweep.curves.find((curve) => curve.what === what && curve.at.has(row));
  if (!source) return null;
  const offset = source.at.get(row) * source.steps.length;
  const end = cell(sweep, "end_step", row);
  const points = [];
  for (let i = 0; i < source.steps.length && source.steps[i] < end; i++) points.push([source.steps[i], source.values[offset + i]]);
  if (what === "loss") points.push([end, cell(sweep, "final_loss", row)]);
  return points.length ? points : null;
}

// Names of the embedded curves, the loss first.
const curveNames = (sweep) => [...new Set(["loss", ...sweep.curves.map((curve) => curve.what)])];

// A number with three digits; a sign if it is not finite.
function short(value) {
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return value === Infinity ? "∞" : "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e6) return String(Number(value.toPrecision(3)));
  return Number(value.toPrecision(3)).toExponential().replace("e+", "e");
}

function formatValue(name, value) {
  if (typeof value === "number" && Number.isFinite(value)) {
    if (name.endsWith("accuracy")) return `${(100 * value).toFixed(1)} %`;
    const counts = Math.abs(value) < 1e6 || /step|lane|seed/.test(name); // large floats are all integers
    if (Number.isInteger(value) && counts) return value.toLocaleString("en");
  }
  return short(value);
}

// The fewest digits from which the number can be read back exactly, in its own precision.
function exact(value, type) {
  if (type === "f4" && Number.isFinite(value)) {
    for (let digits = 6; digits < 9; digits++) {
      const text = value.toPrecision(digits);
      if (Math.fround(Number(text)) === value) return String(Number(text));
    }
    return String(Number(value.toPrecision(9)));
  }
  return String(value);
}
